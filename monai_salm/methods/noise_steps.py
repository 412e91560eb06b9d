"""Noise steps of one round: sign-gradient descent of every case's noise against a frozen surrogate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from monai_salm.cases import Slices, shuffled_batches
from monai_salm.intensity import Array, code_bounds
from monai_salm.methods.base import Job
from monai_salm.training import Trainer

if TYPE_CHECKING:
    from monai_salm.methods.bilevel import BilevelMethod


class NotFiniteError(RuntimeError):
    """Noise gradients overflowed in bfloat16; the round is done again in float32."""


@dataclass(frozen=True)
class Unit:
    """Cases of one shape and type whose noise is improved together, tile by tile."""

    index: int
    cases: list[int]
    tiles: list[Slices]


class NoiseStep:
    """Noise steps against one frozen surrogate; every unit touches only its own cases, so units run in any order."""

    def __init__(
        self,
        method: BilevelMethod,
        job: Job,
        trainer: Trainer,
        frozen: nn.Module,
        number: int,
        quanta_per_step: dict[float, float],
    ) -> None:
        self.method, self.job, self.trainer, self.frozen = method, job, trainer, frozen
        self.cases, self.number, self.quanta_per_step = job.cases, number, quanta_per_step

    def improve(
        self, unit: Unit, source: Sequence[Array], target: Sequence[Array], masks: Sequence[Array] | None
    ) -> float:
        """Write the unit's improved noise into ``target`` and return its mean error at the last step."""
        generator = self.job.generator(2, self.number, unit.index)
        for case in unit.cases:
            target[case][...] = source[case]
        errors = []
        for tile in unit.tiles:
            region = (slice(None), *tile)
            codes = self._load([target[c][region] for c in unit.cases])
            fixed = None if masks is None else self._load([masks[c][region] for c in unit.cases]) > 0
            codes, error = self._descend(unit, tile, codes, fixed, generator)
            whole = codes.round().cpu().numpy()
            for row, case in enumerate(unit.cases):
                target[case][region] = whole[row].astype(target[case].dtype)
            errors.append(error)
        return float(np.mean(errors))

    def _descend(
        self, unit: Unit, tile: Slices, codes: torch.Tensor, fixed: torch.Tensor | None, generator: torch.Generator
    ) -> tuple[torch.Tensor, float]:
        grid = self.job.workspace.grids[unit.cases[0]]
        images = self._load([self.cases.images[c][(slice(None), *tile)] for c in unit.cases])
        targets = self.cases.targets([(c, tile) for c in unit.cases]).to(self.job.device)
        lower, upper = code_bounds(images, self.cases.window, grid)
        length = self.quanta_per_step[grid.quantum]
        codes = torch.minimum(torch.maximum(codes if fixed is None else codes * fixed, lower), upper)
        error = 0.0
        for _ in range(self.method.num_steps):
            gradient, wrong = self.gradient(images, codes, grid.quantum, targets)
            allowed = fixed if fixed is not None else self.method.choose(gradient, images, generator)
            direction = gradient.sign() if allowed is None else gradient.sign() * allowed
            codes = codes.sub(direction, alpha=length).clamp_(lower, upper)
            error = wrong
        return codes, error

    def gradient(
        self, images: torch.Tensor, codes: torch.Tensor, quantum: float, targets: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Gradient of the loss with respect to the codes, and the error of the noisy batch."""
        codes = codes.detach().requires_grad_(True)
        inputs = self.cases.view.resize(self.cases.window.normalize(images + codes * quantum))
        logits = self.trainer.forward(inputs, self.frozen)
        (gradient,) = torch.autograd.grad(self.cases.task.loss(logits, targets), codes)
        if not torch.isfinite(gradient.sum()):
            raise NotFiniteError("gradients of a noise step are not finite")
        return gradient, float(self.cases.task.error(logits.detach(), targets))

    def fix_masks(self, unit: Unit, masks: Sequence[Array]) -> None:
        """Choose the unit's masks for good: the largest elements of the whole image, scored tile by tile."""
        grid = self.job.workspace.grids[unit.cases[0]]
        scores = torch.zeros(len(unit.cases), *self.cases.images[unit.cases[0]].shape)
        for tile in unit.tiles:
            region = (slice(None), *tile)
            images = self._load([self.cases.images[c][region] for c in unit.cases])
            targets = self.cases.targets([(c, tile) for c in unit.cases]).to(self.job.device)
            gradient, _ = self.gradient(images, torch.zeros_like(images), grid.quantum, targets)
            scores[(slice(None), *region)] = gradient.cpu()
        images = torch.from_numpy(np.stack([np.asarray(self.cases.images[c], np.float32) for c in unit.cases]))
        chosen = self.method.choose(scores, images, self.job.generator(3, unit.index))
        assert chosen is not None
        for row, case in enumerate(unit.cases):
            masks[case][...] = chosen[row].numpy()

    def improve_classes(self, source: Sequence[Array], target: Sequence[Array]) -> float:
        """Classwise noise: every step follows the mean gradient over a batch of the class."""
        labels = np.asarray([int(label) for label in self.cases.labels])
        present = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        with workers(self.job.device) as pool:
            errors = list(pool.map(lambda members: self._improve_class(members, source, target), present))
        return float(np.average(errors, weights=[len(members) for members in present]))

    def _improve_class(self, members: Array, source: Sequence[Array], target: Sequence[Array]) -> float:
        grid = self.job.workspace.grids[0]
        generator = self.job.generator(2, self.number, int(self.cases.labels[members[0]]))
        batches = shuffled_batches(len(members), self.job.recipe.batch_size, generator)
        whole = tuple(slice(0, n) for n in self.cases.images[0].shape[1:])
        shared = self._load([_class_noise(source, members)])
        error = 0.0
        for _ in range(self.method.num_steps):
            batch = [int(members[i]) for i in next(batches)]
            images = self._load([self.cases.images[c] for c in batch])
            lower, upper = code_bounds(images, self.cases.window, grid)
            codes = torch.minimum(torch.maximum(shared.expand_as(images), lower), upper)
            targets = self.cases.targets([(c, whole) for c in batch]).to(self.job.device)
            gradient, error = self.gradient(images, codes, grid.quantum, targets)
            mean = gradient.mean(0, keepdim=True)
            allowed = self.method.choose(mean, images.mean(0, keepdim=True), generator)
            direction = mean.sign() if allowed is None else mean.sign() * allowed
            shared = (shared - self.quanta_per_step[grid.quantum] * direction).clamp(-grid.max_code, grid.max_code)
        for case in members:
            lower, upper = code_bounds(self._load([self.cases.images[case]]), self.cases.window, grid)
            clipped = torch.minimum(torch.maximum(shared.round(), lower), upper)
            target[case][...] = clipped[0].cpu().numpy().astype(target[case].dtype)
        return error

    def _load(self, arrays: Sequence[Array]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays).astype(np.float32)).to(self.job.device)


def _class_noise(codes: Sequence[Array], members: Array) -> Array:
    """A class' noise, from its images: each holds it clipped to what it can carry, so the extremes are the noise."""
    low = high = codes[members[0]]
    for case in members[1:]:
        low, high = np.minimum(low, codes[case]), np.maximum(high, codes[case])
    noise: Array = np.where(high.astype(np.int64) > -low.astype(np.int64), high, low)
    return noise


def plan_units(job: Job) -> list[Unit]:
    """Batches of cases of one shape and type, each with the tiles that cover its images."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for case, (shape, grid) in enumerate(zip(job.workspace.shapes, job.workspace.grids, strict=True)):
        groups.setdefault((shape, grid), []).append(case)
    units: list[Unit] = []
    for (shape, _), cases in groups.items():
        tiles = job.cases.view.tiles(shape[1:])
        for start in range(0, len(cases), job.recipe.batch_size):
            units.append(Unit(len(units), cases[start : start + job.recipe.batch_size], tiles))
    return units


@contextmanager
def workers(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """One worker a core, each computing on its own: faster than sharing a batch, and equal bytes on any core count."""
    threads = torch.get_num_threads()
    count = threads if device.type == "cpu" else 1
    initializer = torch.set_num_threads if device.type == "cpu" else (lambda _: None)
    try:
        with ThreadPoolExecutor(count, initializer=initializer, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
