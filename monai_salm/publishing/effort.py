"""How long the noise of a data set would take on this machine, from a few steps of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from monai_salm.learning.cases import View
from monai_salm.learning.networks import build_network, frozen_copy, seeded
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Task
from monai_salm.learning.trainer import Trainer
from monai_salm.methods import Method
from monai_salm.methods.work_units import unit_size


@dataclass(frozen=True)
class Effort:
    """Times a few steps of a schedule and multiplies."""

    task: Task
    view: View
    shapes: Sequence[tuple[int, ...]]
    moving: Sequence[tuple[int, ...]]
    network: str
    width: float
    recipe: Recipe

    def seconds(self, method: Method, device: torch.device) -> float:
        """About how long the noise takes, for networks by name."""
        loop = method.loop()
        if loop is None:
            return 0.0
        threads, batch = torch.get_num_threads(), min(self.recipe.batch_size, len(self.shapes))
        noisy = self.view.size if self.view.kind == "patch" else Counter(self.shapes).most_common(1)[0][0][1:]
        size = unit_size(batch, self.shapes[0][0] * math.prod(noisy), device)
        with seeded(0, device):
            trainer, examples = self._trainer(device), self._examples(self.view.size, batch)
            training = _time(lambda: trainer.step(*examples))
            torch.set_num_threads(1 if device.type == "cpu" else threads)
            try:
                noise = _time(self._noise_step(device, *self._examples(noisy, size)))
            finally:
                torch.set_num_threads(threads)
        lanes = threads if device.type == "cpu" else 1
        steps = loop.num_steps * self._batches(self.moving, lanes, size) * loop.passes[1]
        found = loop.rounds * (loop.surrogate_steps * training * loop.passes[0] + steps * noise)
        # A mask that is kept is chosen once, for the images that take no steps as well.
        return found + (self._batches(self.shapes, lanes, size) * noise if loop.mask.fixed else 0)

    def _batches(self, shapes: Sequence[tuple[int, ...]], lanes: int, size: int) -> float:
        """Batches of a size, one after the other, that hold every tile of such images once; ``lanes`` are worked on at a time."""
        batches = sum(len(self.view.tiles(shape[1:])) for shape in shapes) / size
        return max(batches / lanes, min(batches, 1.0))  # what is in one batch is not shared out

    def _trainer(self, device: torch.device) -> Trainer:
        channels, rank = self.shapes[0][0], len(self.view.size)
        size = {"width": self.width, "image_size": self.view.size}
        model = build_network(self.network, rank, channels, self.task.num_classes, **size)  # type: ignore[arg-type]
        return Trainer(model, self.task, self.recipe, device, rank)

    def _examples(self, shape: Sequence[int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random images of a spatial shape, and random labels."""
        classes, inputs = self.task.num_classes, torch.rand(count, self.shapes[0][0], *shape)
        if getattr(self.task, "multi_label", False):
            return inputs, torch.randint(2, (count, classes)).float()
        return inputs, torch.randint(classes, (count, *shape) if self.task.kind == "segmentation" else (count,))

    def _noise_step(self, device: torch.device, inputs: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
        trainer = self._trainer(device)
        frozen = frozen_copy(trainer.model).to(memory_format=trainer.memory_format)
        inputs, targets = inputs.to(device).requires_grad_(True), targets.to(device)

        def step() -> None:
            loss = self.task.loss(trainer.forward(self.view.resize(inputs), frozen), targets)
            torch.autograd.grad(loss, inputs)

        return step


def _time(step: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of a step, the fastest of a few, after one that warms up."""
    step()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
