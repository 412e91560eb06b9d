"""One run of the bilevel loop: surrogate training and noise steps, in turns, with a checkpoint every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from monai_salm.cases import shuffled_batches
from monai_salm.intensity import Array
from monai_salm.methods.base import Job, require
from monai_salm.methods.hooks import Batch
from monai_salm.methods.noise_steps import (
    NoiseStep,
    NotFiniteError,
    class_owners,
    mean_error,
    plan_units,
    unit_owners,
    workers,
)
from monai_salm.networks import frozen_copy, seeded
from monai_salm.progress import Progress
from monai_salm.training import Trainer, load_trainer, steps_per_epoch, to_device, trainer_tensors

if TYPE_CHECKING:
    from monai_salm.methods.bilevel import BilevelMethod

#: Surrogates kept for images that come later (``on_missing="generate"``).
KEPT_SURROGATES = 3


class Loop:
    """One run of the bilevel loop."""

    def __init__(self, method: BilevelMethod, job: Job) -> None:
        self.method, self.job, self.cases = method, job, job.cases
        units = plan_units(job, method.still)
        self.owners = unit_owners(job, units)
        self.units = [unit for unit in units if self.owners[unit.cases[0]] == job.world.rank]
        self.quanta_per_step = {
            g.quantum: method.step * job.cases.window.width / g.quantum for g in job.workspace.grids
        }
        self.rounds = method.default_rounds[job.cases.spatial_dims] if method.rounds is None else method.rounds
        self.state = {"rounds": 0, "errors": [], "precision": job.recipe.precision, **job.workspace.checkpoint()}
        farthest = method.num_steps * min(self.quanta_per_step.values())
        require(
            farthest > 0.5,
            "step_size",
            "large enough that num_steps of them make one step of the grid",
            method.step_size,
        )
        if method.perturb_type == "classwise":
            _require_classwise(job)
            self.units, self.owners = [], class_owners(job)

    def run(self) -> int:
        method, job = self.method, self.job
        with job.world.leaders_first():  # who make the files
            masks = job.workspace.masks() if method.fixed_mask_ratio is not None else None
            codes = [job.workspace.codes(buffer) for buffer in (0, 1)]
            if self.state["rounds"] == 0 and job.world.local == 0:
                self._begin(codes[0])
        while self.state["rounds"] < self.rounds and not self._stopped():
            number = self.state["rounds"]
            source, target = (job.workspace.codes((number + i) % 2) for i in (0, 1))
            trainer = self._train_surrogate(number, source)
            error = self._improve_all(number, trainer, source, target, masks)
            self._share_out(number, target, masks)
            self._finish_round(number, trainer, error)
        return int(self.state["rounds"] % 2)

    def run_frozen(self, surrogates: Sequence[nn.Module]) -> int:
        """One round of noise steps against each network, from what noise begins as; nothing is trained."""
        job = self.job
        masks = job.workspace.masks() if self.method.fixed_mask_ratio is not None else None
        self._begin(job.workspace.codes(0))
        for number, network in enumerate(surrogates):
            source, target = (job.workspace.codes((number + i) % 2) for i in (0, 1))
            trainer = Trainer(network, self.cases.task, job.recipe, job.device, self.cases.spatial_dims)
            self._improve_all(number, trainer, source, target, masks)
        return len(surrogates) % 2

    def _begin(self, codes: Sequence[Array]) -> None:
        """Write what the noise begins as; a fresh workspace holds zeros."""
        if self.method.start != "class":
            return
        classes, window = self.cases.task.num_classes, self.cases.window
        for case, code in enumerate(codes):
            image, label, space = self.cases.images[case], self.cases.labels[case], self.job.workspace
            first = self.method.first_noise(image, label, space.grids[case], window, classes, space.digests[case])
            support = self.method.support(label, tuple(slice(0, n) for n in code.shape[1:]))
            code[...] = (first if support is None else first * support).astype(code.dtype)

    def _stopped(self) -> bool:
        errors = self.state["errors"]
        return self.method.stop_error is not None and bool(errors) and errors[-1] <= self.method.stop_error

    def _report(self, number: int, share: float, detail: str) -> None:
        done = int((number + share) * 1000)
        errors = self.state["errors"]
        known = f", training error {errors[-1]:.1%}" if errors else ""
        text = f"round {number + 1}/{self.rounds}, {detail}{known}"
        self.job.report(Progress("generate", done, self.rounds * 1000, text))

    def _train_surrogate(self, number: int, codes: Sequence[Array]) -> Trainer:
        method, job = self.method, self.job
        every = method.restart_every
        restart = number // every if every else 0
        fresh = number % every == 0 if every else number == 0
        recipe = replace(job.recipe, precision=self.state["precision"])
        steps = method.surrogate_batches(steps_per_epoch(self.cases, recipe))
        with seeded(job.derive(0, number), job.device):
            trainer = Trainer(
                job.build_surrogate(restart),
                self.cases.task,
                recipe,
                job.device,
                self.cases.spatial_dims,
                steps if method.anneals else None,
            )
            if not fresh:
                load_trainer(trainer, job.workspace.load_tensors(f"surrogate.{(number - 1) % 2}"))
            noisy = job.workspace.noisy(self.cases, codes) if method.trains_on_noise else self.cases
            generator = job.generator(1, number)
            batches = shuffled_batches(len(noisy), recipe.batch_size, generator)
            part, weight = job.world.part(min(recipe.batch_size, len(noisy)))
            # What a rank draws for its part of a batch must not put it out of step with the others.
            draws = generator if job.world.size == 1 else job.generator(6, number, job.world.rank)

            def batch() -> Batch:
                # Every rank draws the whole batch, so that all stay in step, and takes its part.
                whole = [(c, noisy.view.random_region(noisy.images[c].shape[1:], generator)) for c in next(batches)]
                inputs = to_device(noisy.window.normalize(noisy.inputs(whole[part])), job.device)
                targets = to_device(noisy.targets(whole[part]), job.device)
                return method.train_inputs(trainer.loss, inputs, targets, draws)

            trainer.network = job.world.data_parallel(trainer.model, job.surrogate_spec(restart) is not None)
            for step in range(steps):
                inputs, targets = batch()
                with job.world.noticing():
                    trainer.step(inputs, targets, weight=weight)
                self._report(number, 0.3 * (step + 1) / steps, "training the surrogate")
            if method.calibration_steps:
                trainer.recalibrate(batch()[0] for _ in range(method.calibration_steps))
            job.world.settle(trainer.model)
        return trainer

    def _improve_all(
        self,
        number: int,
        trainer: Trainer,
        source: Sequence[Array],
        target: Sequence[Array],
        masks: Sequence[Array] | None,
    ) -> float:
        """Noise steps for every case, from ``source`` into ``target``; returns the error the surrogate is left with."""
        frozen = frozen_copy(trainer.model).to(memory_format=trainer.memory_format)
        step = NoiseStep(self.method, self.job, trainer, frozen, number, self.quanta_per_step)
        own, overflow = 0.0, None
        with self.job.world.step():
            try:
                own = self._in_threads(number, step, source, target, masks)
            except NotFiniteError as error:
                overflow = str(error)
        moving = sum(len(unit.cases) for unit in self.units if not unit.still)
        cases = self.owners.count(self.job.world.rank) if self.method.perturb_type == "classwise" else moving
        found = self.job.world.gather([own, cases, overflow])
        overflows = [text for _, _, text in found if text is not None]
        if overflows:  # all ranks do the round again, lest their precision differ
            trainer.fall_back(overflows[0])
            return self._improve_all(number, trainer, source, target, masks)
        return own if len(found) == 1 else mean_error([e for e, _, _ in found], [n for _, n, _ in found])

    def _in_threads(
        self,
        number: int,
        step: NoiseStep,
        source: Sequence[Array],
        target: Sequence[Array],
        masks: Sequence[Array] | None,
    ) -> float:
        if self.method.perturb_type == "classwise":
            return step.improve_classes(source, target)
        if masks is not None and number == 0:
            with workers(self.job.device) as pool:
                list(pool.map(lambda unit: step.fix_masks(unit, masks), self.units))
        errors = []
        with workers(self.job.device) as pool:
            for done, error in enumerate(pool.map(lambda unit: step.improve(unit, source, target, masks), self.units)):
                errors.append(error)
                self._report(number, 0.3 + 0.7 * (done + 1) / len(self.units), "improving the noise")
        return mean_error(errors, [0 if unit.still else len(unit.cases) for unit in self.units])

    def _share_out(self, number: int, target: Sequence[Array], masks: Sequence[Array] | None) -> None:
        self.job.share_out(target, self.owners)
        if masks is not None and number == 0:
            self.job.share_out(masks, self.owners)

    def _finish_round(self, number: int, trainer: Trainer, error: float) -> None:
        with self.job.world.step():
            self._save_round(number, trainer, error)

    def _save_round(self, number: int, trainer: Trainer, error: float) -> None:
        workspace = self.job.workspace
        if self.method.restart_every != 1:
            workspace.save_tensors(f"surrogate.{number % 2}", trainer_tensors(trainer))
        if self.job.surrogate_spec(0) is not None:
            workspace.save_tensors(f"network.{number % (KEPT_SURROGATES + 1)}", trainer.model.state_dict())
        precision = "float32" if trainer.precision == "float32" else self.state["precision"]
        self.state = {"rounds": number + 1, "errors": [*self.state["errors"], error], "precision": precision}
        workspace.save_checkpoint({**workspace.checkpoint(), **self.state})


def _require_classwise(job: Job) -> None:
    if job.cases.task.kind != "classification" or getattr(job.cases.task, "multi_label", False):
        raise ValueError('perturb_type "classwise" needs one label per image; use "samplewise"')
    if len(set(job.workspace.shapes)) > 1 or len(set(job.workspace.grids)) > 1 or job.cases.view.kind == "patch":
        raise ValueError(
            'perturb_type "classwise" needs images of one shape and type, without patches; use "samplewise"'
        )
