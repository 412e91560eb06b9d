"""The one bilevel loop.

Error-minimising noise (EM; Huang et al., "Unlearnable Examples", ICLR 2021): a surrogate network trains on the noisy
images, then every image's noise takes sign-gradient *descent* steps against the frozen surrogate, in turns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from monai_salm.cases import Slices, shuffled_batches
from monai_salm.intensity import Array
from monai_salm.methods.base import Job, Method, require
from monai_salm.methods.noise_steps import NoiseStep, NotFiniteError, plan_units, workers
from monai_salm.methods.starts import class_pattern
from monai_salm.networks import frozen_copy, seeded
from monai_salm.progress import Progress
from monai_salm.tasks import Task
from monai_salm.training import Trainer

#: Surrogates kept for images that come later (``on_missing="generate"``).
KEPT_SURROGATES = 3
_ROUNDS = {2: 22, 3: 8}


@dataclass(frozen=True, kw_only=True)
class BilevelMethod(Method):
    """Error-minimising noise by the bilevel loop; concrete methods say which elements a step may change.

    Args:
        step_size: length of a noise step, fraction of the window's width; None is epsilon, so that a step puts every
            element it may change at the edge of its budget.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches the surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps; None is 22 for images and 8 for volumes,
            whose rounds cost more. 0 leaves the noise as it begins.
        restart_every: rounds after which the surrogate starts from fresh weights; 0 is never, as EM's published code.
        stop_error: stop once the surrogate's error on the noisy images is at most this; None never does, for a low
            error is no sign of strong noise (docs/design.md, section 2).
        calibration_steps: batches on which the surrogate's batch normalisation is measured anew before it is frozen; 0
            keeps the running averages of its training, as the published codes do (compared in docs/experiments.md).
        perturb_type: ``"samplewise"`` noise for every image, or ``"classwise"`` one noise for all images of a class.
        start: what noise begins as: ``"zero"``, or ``"class"``, a pattern of full strength that the elements of a class
            share (``starts.class_pattern``).
    """

    step_size: float | None = None
    num_steps: int = 4
    surrogate_steps: int = 45
    rounds: int | None = None
    restart_every: int = 1
    stop_error: float | None = None
    calibration_steps: int = 0
    perturb_type: str = "samplewise"
    start: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.step_size is None or 0 < self.step_size <= 1, "step_size", "in (0, 1] or None", self.step_size)
        for name in ("num_steps", "surrogate_steps"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.rounds is None or self.rounds >= 0, "rounds", "at least 0", self.rounds)
        require(self.calibration_steps >= 0, "calibration_steps", "at least 0", self.calibration_steps)
        require(self.restart_every >= 0, "restart_every", "at least 0", self.restart_every)
        require(self.stop_error is None or 0 <= self.stop_error < 1, "stop_error", "in [0, 1) or None", self.stop_error)
        known = ("samplewise", "classwise")
        require(self.perturb_type in known, "perturb_type", f"one of {known}", self.perturb_type)
        if self.start is not None:  # a method may leave it open until the task is known
            require(self.start in ("zero", "class"), "start", 'one of ("zero", "class")', self.start)
        if self.rounds == 0 and self.start == "zero":
            raise ValueError('rounds 0 with start "zero" would leave no noise: give rounds, or start "class"')

    @abstractmethod
    def choose(self, gradient: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Elements that this noise step may change.

        Args:
            gradient: of the loss with respect to the noise, ``(batch, channel, *spatial)``.
            image: the images without noise, stored units, same shape.
            generator: source of randomness, on the CPU.

        Returns:
            Boolean tensor of that shape, or None for all elements.
        """

    def resolved(self, task: Task, spatial_dims: int) -> BilevelMethod:
        if self.start == "class" and getattr(task, "multi_label", False):
            raise ValueError('start "class" needs one label per image or voxel; use "zero"')
        rounds = _ROUNDS[spatial_dims] if self.rounds is None else self.rounds
        return replace(self, rounds=rounds, step_size=self.step_size or self.epsilon)

    @property
    def fixed_mask_ratio(self) -> float | None:
        """Share of a sample's elements that may ever carry noise, or None if that is not bounded."""
        return None

    def run(self, job: Job) -> int:
        loop = _Loop(self, job)
        return loop.run()

    def run_frozen(self, job: Job, surrogates: Sequence[nn.Module]) -> int:
        # Random masks must differ from image to image, and a newcomer is alone in its class.
        seed = job.derive(4, *np.frombuffer(b"".join(job.workspace.digests), np.uint32).tolist())
        loop = _Loop(replace(self, perturb_type="samplewise"), replace(job, seed=seed))
        return loop.run_frozen(surrogates)


class _Loop:
    """One run of the bilevel loop."""

    def __init__(self, method: BilevelMethod, job: Job) -> None:
        self.method, self.job, self.cases = method, job, job.cases
        self.units = plan_units(job)
        self.quanta_per_step = {
            g.quantum: (method.step_size or method.epsilon) * job.cases.window.width / g.quantum
            for g in job.workspace.grids
        }
        self.rounds = _ROUNDS[job.cases.spatial_dims] if method.rounds is None else method.rounds
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
            self.units = []

    def run(self) -> int:
        method, job = self.method, self.job
        masks = job.workspace.masks() if method.fixed_mask_ratio is not None else None
        if self.state["rounds"] == 0:
            self._begin(job.workspace.codes(0))
        while self.state["rounds"] < self.rounds and not self._stopped():
            number = self.state["rounds"]
            source, target = (job.workspace.codes((number + i) % 2) for i in (0, 1))
            trainer = self._train_surrogate(number, source)
            error = self._improve_all(number, trainer, source, target, masks)
            self._finish_round(number, trainer, error)
        return int(self.state["rounds"] % 2)

    def run_frozen(self, surrogates: Sequence[nn.Module]) -> int:
        """One round of noise steps against each network, from zero noise; nothing is trained."""
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
        for case, code in enumerate(codes):
            grid, shape = self.job.workspace.grids[case], code.shape[1:]
            pattern = class_pattern(self.cases.labels[case], shape, self.cases.task.num_classes)
            code[...] = pattern.astype(code.dtype) * grid.max_code

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
        with seeded(job.derive(0, number), job.device):
            trainer = Trainer(
                job.build_surrogate(restart), self.cases.task, recipe, job.device, self.cases.spatial_dims
            )
            if not fresh:
                _load_trainer(trainer, job.workspace.load_tensors(f"surrogate.{(number - 1) % 2}"))
            noisy = job.workspace.noisy(self.cases, codes)
            generator = job.generator(1, number)
            batches = shuffled_batches(len(noisy), recipe.batch_size, generator)

            def regions() -> list[tuple[int, Slices]]:
                return [(c, noisy.view.random_region(noisy.images[c].shape[1:], generator)) for c in next(batches)]

            for step in range(method.surrogate_steps):
                batch = regions()
                trainer.step(noisy.window.normalize(noisy.inputs(batch)), noisy.targets(batch))
                self._report(number, 0.3 * (step + 1) / method.surrogate_steps, "training the surrogate")
            if method.calibration_steps:
                trainer.recalibrate(
                    noisy.window.normalize(noisy.inputs(regions())) for _ in range(method.calibration_steps)
                )
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
        try:
            return self._in_threads(number, step, source, target, masks)
        except NotFiniteError as error:
            trainer.fall_back(str(error))
            return self._in_threads(number, step, source, target, masks)

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
        return float(np.average(errors, weights=[len(unit.cases) for unit in self.units]))

    def _finish_round(self, number: int, trainer: Trainer, error: float) -> None:
        workspace = self.job.workspace
        if self.method.restart_every != 1:
            workspace.save_tensors(f"surrogate.{number % 2}", _trainer_tensors(trainer))
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


def _trainer_tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    tensors = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{k}": v for k, v in values.items() if v is not None})
    return tensors


def _load_trainer(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    trainer.model.load_state_dict({k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")})
    state = trainer.optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state["state"].setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict(state)
