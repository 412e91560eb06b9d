"""Training of a round's surrogate, which an interruption does not undo."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from monai_salm.learning.cases import Cases
from monai_salm.learning.networks import seeded
from monai_salm.learning.networks.devices import to_device
from monai_salm.learning.trainer import Trainer, load_trainer, trainer_tensors
from monai_salm.methods.base import Batch, BilevelMethod
from monai_salm.methods.job import Job
from monai_salm.shared.arrays import Array

# Seconds of training that an interruption may cost.
_CHECKPOINT_SECONDS = 20.0


@dataclass(eq=False)
class SurrogateTraining:
    """One round's training.

    Args:
        method: says how.
        job: the data set.
        number: of the round.
        precision: ``"auto"``, ``"bfloat16"`` or ``"float32"``.
        report: called with the share that is done.
    """

    method: BilevelMethod
    job: Job
    number: int
    precision: str
    report: Callable[[float], None]

    @property
    def steps(self) -> int:
        """Batches of the training."""
        return self.method.surrogate_steps

    def run(self, codes: Sequence[Array]) -> Trainer:
        """Train, from where an interrupted training of this round stopped; the surrogate sees the noise if the method says so."""
        method, job = self.method, self.job
        every = method.restart_every
        restart = self.number // every if every else 0
        with seeded(job.seed_for(0, self.number), job.device):
            trainer = self._trainer(restart)
            begun = self._resume(trainer)
            noisy = job.workspace.noisy(job.cases, codes) if method.trains_on_noise else job.cases
            trainer.network = job.world.data_parallel(trainer.model, job.surrogate_spec(restart) is not None)
            weight = job.world.part(min(trainer.recipe.batch_size, len(noisy)))[1]
            saved = time.monotonic()
            try:
                for step in range(begun, self.steps):
                    with _uninterrupted():
                        inputs, targets = self._batch(trainer, noisy, step)
                        with job.world.connection_errors():
                            trainer.step(inputs, targets, weight=weight)
                        begun = step + 1
                    if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                        self._save(trainer, begun)
                        saved = time.monotonic()
                    self.report(begun / self.steps)
            except KeyboardInterrupt:
                self._save(trainer, begun)
                raise
            self._save(trainer, begun)
            if method.calibration_steps:
                later = range(self.steps, self.steps + method.calibration_steps)
                trainer.recalibrate(self._batch(trainer, noisy, step)[0] for step in later)
            job.world.average_statistics(trainer.model)
        return trainer

    def _trainer(self, restart: int) -> Trainer:
        method, job, every = self.method, self.job, self.method.restart_every
        recipe = replace(job.recipe, precision=self.precision)
        total = self.steps if method.anneals else None
        network = job.build_surrogate(restart)
        trainer = Trainer(network, job.cases.task, recipe, job.device, job.cases.spatial_dims, total)
        if self.number % every if every else self.number:
            load_trainer(trainer, job.workspace.load_tensors(f"surrogate.{(self.number - 1) % 2}"))
        return trainer

    def _batch(self, trainer: Trainer, noisy: Cases, step: int) -> Batch:
        """The batch of a step. Every draw follows from the number of the step, so that a resumed run draws the same."""
        job, recipe = self.job, trainer.recipe
        generator = job.generator(1, self.number, step)
        size = min(recipe.batch_size, len(noisy))
        part, _ = job.world.part(size)
        # Every rank draws the whole batch, so that all stay in step, and takes its part.
        members = self._members(len(noisy), size, step)
        whole = [(case, noisy.view.random_region(noisy.images[case].shape[1:], generator)) for case in members]
        inputs = to_device(noisy.inputs(whole[part]), job.device)
        targets = to_device(noisy.targets(whole[part]), job.device)
        draws = generator if job.world.size == 1 else job.generator(6, self.number, step, job.world.rank)
        torch.manual_seed(job.seed_for(7, self.number, step, job.world.rank))  # dropout draws from the global generator
        return self.method.train_inputs(trainer.loss, inputs, targets, draws)

    def _members(self, count: int, size: int, step: int) -> list[int]:
        """The cases of a batch: all cases in a new order each pass; a batch may take from two passes."""
        places = range(step * size, (step + 1) * size)
        return [self._order(place // count, count)[place % count] for place in places]

    @lru_cache(maxsize=2)  # noqa: B019 - as short-lived as the training
    def _order(self, epoch: int, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self.job.generator(5, self.number, epoch)).tolist()
        return order

    def _save(self, trainer: Trainer, step: int) -> None:
        """Keep the training so far. Ranks that train together begin the round again instead."""
        if self.job.world.size > 1:
            return
        space, state = self.job.workspace, self.job.workspace.checkpoint()
        name = f"training.{1 - int(state.get('training', {}).get('file', 1))}"
        space.save_tensors(name, trainer_tensors(trainer))
        place = {"round": self.number, "step": step, "file": int(name[-1]), "precision": trainer.precision}
        space.save_checkpoint({**state, "training": place})

    def _resume(self, trainer: Trainer) -> int:
        """Put the trainer where an interrupted training of this round stopped; returns the steps that are done."""
        place: dict[str, Any] = self.job.workspace.checkpoint().get("training", {})
        if self.job.world.size > 1 or place.get("round") != self.number:
            return 0
        load_trainer(trainer, self.job.workspace.load_tensors(f"training.{place['file']}"), place["step"])
        trainer.precision = place["precision"]
        return int(place["step"])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a step: half a step cannot be kept, and done twice it would give other noise."""
    came: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(*came[0])
