"""How noise is made. The one loop has surrogate training and noise steps, in turns, with a checkpoint every round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from monai_salm.learning.networks import frozen_copy
from monai_salm.learning.trainer import Trainer, trainer_tensors
from monai_salm.methods import large_images
from monai_salm.methods.base import BilevelMethod, Method
from monai_salm.methods.job import Job
from monai_salm.methods.steps import NoiseStep, NotFiniteError
from monai_salm.methods.surrogates import SurrogateTraining
from monai_salm.methods.work_units import class_owners, mean_error, plan_units, unit_owners, workers
from monai_salm.shared.progress import Progress
from monai_salm.shared.settings import require

#: Surrogates kept for images that come later (``on_missing="generate"``).
KEPT_SURROGATES = 3


def run(method: Method, job: Job, surrogates: Sequence[nn.Module] | None = None) -> int:
    """Leave finished noise in the workspace.

    Args:
        method: the settings.
        job: the data set, and the means.
        surrogates: finished networks that earlier noise was made against, for images that come later; None trains networks.

    Returns:
        The code buffer (0 or 1) that holds the noise.
    """
    loop = method.loop()
    if loop is None:
        return _run_without_network(method, job)
    if surrogates is None:
        return Loop(loop, job).run()
    # Random masks must differ from image to image, and a newcomer is alone in its class.
    seed = job.seed_for(4, *np.frombuffer(b"".join(job.workspace.digests), np.uint32).tolist())
    return Loop(replace(loop, perturb_type="samplewise"), replace(job, seed=seed)).run_frozen(surrogates)


def _run_without_network(method: Method, job: Job) -> int:
    """The noise of each case by itself; ranks share the cases."""
    owners = job.world.share([image.size for image in job.cases.images])
    with job.world.step():
        codes, make = job.workspace.codes(0), method.maker(job)
        own = [case for case, owner in enumerate(owners) if owner == job.world.rank]
        for done, case in enumerate(own):
            codes[case][...] = make(case)
            job.report(Progress("generate", done + 1, len(own), "making the noise"))
    job.share_out(codes, owners)
    return 0


class Loop:
    """One run of the loop.

    Args:
        method: its settings.
        job: the data set, and the means.
    """

    def __init__(self, method: BilevelMethod, job: Job) -> None:
        self.method, self.job, self.cases = method, job, job.cases
        units = plan_units(
            job,
            lambda label: method.needs_no_steps(label, job.plain_class),
            lambda shape: large_images.fit_together(method, job, shape),
        )
        self.owners = unit_owners(job, units)
        self.units = [unit for unit in units if self.owners[unit.cases[0]] == job.world.rank]
        self.masks = job.workspace.masks() if method.mask.fixed else None
        self.training_share = 0.0  # of a round's time; set where a surrogate is trained
        self.state = {"rounds": 0, "errors": [], "precision": job.recipe.precision, **job.workspace.checkpoint()}
        _require_steps(method, job)
        if method.perturb_type == "classwise":
            _require_classwise(job)
            self.units, self.owners = [], class_owners(job)

    def run(self) -> int:
        """Do all rounds; returns the code buffer that holds the noise."""
        with self.job.world.step():
            if self.state["rounds"] == 0:
                self._begin()
        while self.state["rounds"] < self.method.rounds and not self._stopped():
            number = self.state["rounds"]
            trainer = self._train_surrogate(number)
            error = self._improve_all(number, trainer)
            self.job.share_out(self.job.workspace.codes((number + 1) % 2), self.owners)
            if self.masks is not None and number == 0:
                self.job.share_out(self.masks, self.owners)
            with self.job.world.step():
                self._save_round(number, trainer, error)
        return int(self.state["rounds"] % 2)

    def run_frozen(self, surrogates: Sequence[nn.Module]) -> int:
        """One round of noise steps against each network, from what noise begins as; nothing is trained."""
        job = self.job
        self._begin()
        for number, network in enumerate(surrogates):
            trainer = Trainer(network, self.cases.task, job.recipe, job.device, self.cases.spatial_dims)
            self._improve_all(number, trainer)
        return len(surrogates) % 2

    def _begin(self) -> None:
        """Write what the noise begins as, before it is cut to the masks; a fresh workspace holds zeros."""
        for case, code in enumerate(self.job.workspace.codes(0) if self.method.has_start else ()):
            image, budget = np.asarray(self.cases.images[case]), self.job.workspace.budgets[case]
            first = self.method.start(image, self.cases.labels[case], budget, self.job)
            if first is not None:
                code[...] = budget.effective_codes(image, np.broadcast_to(first, image.shape))

    def _stopped(self) -> bool:
        errors = self.state["errors"]
        return bool(errors) and errors[-1] <= self.method.stop_error and self.method.stop_error > 0

    def _report(self, number: int, share: float, detail: str) -> None:
        done = int((number + share) * 1000)
        errors = self.state["errors"]
        known = f", training error {errors[-1]:.1%}" if errors else ""
        text = f"round {number + 1}/{self.method.rounds}, {detail}{known}"
        self.job.report(Progress("generate", done, self.method.rounds * 1000, text))

    def _share_of(self, steps: int) -> float:
        """Share of a round's time that so many training steps take, by the batches that go through a network."""
        method, job = self.method, self.job
        if method.perturb_type == "classwise":
            batches = float(len({int(label) for label in self.cases.labels}))
        else:
            moving = [len(unit.cases) * len(unit.tiles) for unit in self.units if not unit.needs_no_steps]
            batches = sum(moving) * job.world.size / min(job.recipe.batch_size, len(self.cases))
        training, noise = steps * method.passes[0], (method.num_steps or 1) * batches * method.passes[1]
        return training / (training + max(noise, 0.02 * training))  # images without steps are written too

    def _train_surrogate(self, number: int) -> Trainer:
        self.training_share = self._share_of(self.method.surrogate_steps)

        def report(share: float) -> None:
            self._report(number, self.training_share * share, "training the surrogate")

        codes = self.job.workspace.codes(number % 2)
        return SurrogateTraining(self.method, self.job, number, self.state["precision"], report).run(codes)

    def _improve_all(self, number: int, trainer: Trainer) -> float:
        """Noise steps for every case, from one buffer into the other; returns the error the surrogate is left with."""
        frozen = frozen_copy(trainer.model).to(memory_format=trainer.memory_format)
        source, target = (self.job.workspace.codes((number + i) % 2) for i in (0, 1))
        step = NoiseStep(self.method, self.job, trainer, frozen, number, source, target, self.masks)
        own, overflow = 0.0, None
        with self.job.world.step():
            try:
                own = step.improve_classes() if self.method.perturb_type == "classwise" else self._improve_units(step)
            except NotFiniteError as error:
                overflow = str(error)
        moving = sum(len(unit.cases) for unit in self.units if not unit.needs_no_steps)
        cases = self.owners.count(self.job.world.rank) if self.method.perturb_type == "classwise" else moving
        found = self.job.world.gather([own, cases, overflow])
        overflows = [text for _, _, text in found if text is not None]
        if overflows:  # all ranks do the round again, so that their precision is the same
            trainer.fall_back(overflows[0])
            return self._improve_all(number, trainer)
        return own if len(found) == 1 else mean_error([e for e, _, _ in found], [n for _, n, _ in found])

    def _improve_units(self, step: NoiseStep) -> float:
        begun, errors = self.training_share, []
        if self.masks is not None and step.number == 0:
            begun = self._choose_masks(step)
        with workers(self.job.device, self._largest) as each:
            for done, error in enumerate(each(step.improve, self.units)):
                errors.append(error)
                self._report(step.number, begun + (1 - begun) * (done + 1) / len(self.units), "improving the noise")
        return mean_error(errors, [0 if unit.needs_no_steps else len(unit.cases) for unit in self.units])

    @property
    def _largest(self) -> int:
        """Elements of the images of the largest unit; pictures that a network sees together wait, and take half the memory."""
        found = 1
        for unit in self.units:
            shape, count = self.job.workspace.shapes[unit.cases[0]], len(unit.cases)
            waiting = large_images.fit_together(self.method, self.job, shape)
            found = max(found, math.prod(shape) * (count + 1) // 2 if waiting else math.prod(shape) * count)
        return found

    def _choose_masks(self, step: NoiseStep) -> float:
        """Choose the mask of every case; returns the share of the round that is then done."""
        part = (1 - self.training_share) * (0.9 if all(unit.needs_no_steps for unit in self.units) else 0.1)
        with workers(self.job.device, self._largest) as each:
            for done, _ in enumerate(each(step.fix_masks, self.units)):
                share = self.training_share + part * (done + 1) / len(self.units)
                self._report(step.number, share, "choosing the masks")
        return self.training_share + part

    def _save_round(self, number: int, trainer: Trainer, error: float) -> None:
        workspace = self.job.workspace
        if self.method.restart_every != 1:
            workspace.save_tensors(f"surrogate.{number % 2}", trainer_tensors(trainer))
        if self.job.surrogate_spec(0) is not None:
            workspace.save_tensors(f"network.{number % (KEPT_SURROGATES + 1)}", trainer.model.state_dict())
        precision = "float32" if trainer.precision == "float32" else self.state["precision"]
        self.state = {"rounds": number + 1, "errors": [*self.state["errors"], error], "precision": precision}
        workspace.save_checkpoint({**workspace.checkpoint(), **self.state})


def _require_steps(method: BilevelMethod, job: Job) -> None:
    """Refuse steps that are too short to be seen on any image's grid."""
    farthest = method.num_steps * method.step_size * max(max(b.grid.max_codes) for b in set(job.workspace.budgets))
    long_enough = method.has_start or farthest > 0.5
    require(long_enough, "step_size", "large enough that num_steps of them make one step of the grid", method.step_size)


def _require_classwise(job: Job) -> None:
    if job.cases.task.kind != "classification" or getattr(job.cases.task, "multi_label", False):
        raise ValueError('perturb_type "classwise" needs one label per image; use "samplewise"')
    if len(set(job.workspace.shapes)) > 1 or len(set(job.workspace.budgets)) > 1 or job.cases.view.kind == "patch":
        raise ValueError(
            'perturb_type "classwise" needs images of one shape, type and window, without patches; use "samplewise"'
        )
