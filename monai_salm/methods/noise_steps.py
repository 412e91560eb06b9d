"""Noise steps of one round: sign-gradient descent of every case's noise against a frozen surrogate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from monai_salm.training import Trainer, to_device

if TYPE_CHECKING:
    from monai_salm.methods.bilevel import BilevelMethod


class NotFiniteError(RuntimeError):
    """Noise gradients overflowed in bfloat16; the round is done again in float32."""


@dataclass(frozen=True)
class Unit:
    """Cases of one shape and type whose noise is improved together, tile by tile; or stays as it begins (``still``)."""

    index: int
    cases: list[int]
    tiles: list[Slices]
    still: bool = False


@dataclass(frozen=True)
class Clean:
    """A batch of images as noise steps need them.

    Args:
        images: normalised, ``(batch, channel, *spatial)``.
        scale: a code's share of the window's width.
        inside: elements within the window, which may carry noise; None is all.
    """

    images: torch.Tensor
    scale: float
    inside: torch.Tensor | None


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
        targets = self._aims([(c, tile) for c in unit.cases])
        lower, upper = self._bounds(unit.cases, tile, images)
        clean = self._clean(images, grid.quantum)
        length = self.quanta_per_step[grid.quantum]
        codes = torch.minimum(torch.maximum(codes if fixed is None else codes * fixed, lower), upper)
        error = 0.0
        for _ in range(0 if unit.still else self.method.num_steps):
            gradient, error = self.gradient(clean, codes, targets, generator)
            allowed = fixed if fixed is not None else self.method.choose(gradient, images, generator)
            direction = gradient.sign_() if allowed is None else gradient.sign_().mul_(allowed)
            codes = codes.sub_(direction, alpha=length).clamp_(lower, upper)
        return codes, error

    def gradient(
        self, clean: Clean, codes: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, float]:
        """Gradient of the loss with respect to the noise, as a fraction of the window's width, mean over the method's draws;
        and the error of the noisy batch."""
        gradients, errors = [], []
        for _ in range(self.method.noise_draws):  # one at a time, so that memory does not grow with the draws
            gradient, error = self._drawn_gradient(clean, codes, targets, generator)
            gradients.append(gradient)
            errors.append(error)
        total = gradients[0] if len(gradients) == 1 else torch.stack(gradients).mean(0)
        if self.method.has_penalty:
            noise = (codes * clean.scale).requires_grad_(True)
            penalty = self.method.penalty(noise, clean.images)
            if penalty is not None:
                total = total + torch.autograd.grad(penalty, noise)[0]
        if not torch.isfinite(total.sum()):
            raise NotFiniteError("gradients of a noise step are not finite")
        return total, float(np.mean(errors))

    def _drawn_gradient(
        self, clean: Clean, codes: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, float]:
        noise = (codes * clean.scale).requires_grad_(True)
        # Noise never leaves the window, so nothing is to be clipped any more.
        inputs = self.cases.view.resize(clean.images + noise)
        inputs, targets = self.method.noise_inputs(self._loss, inputs, targets, generator)
        logits = self.trainer.forward(inputs, self.frozen)
        (gradient,) = torch.autograd.grad(self.cases.task.loss(logits, targets), noise)
        if clean.inside is not None:
            gradient = gradient * clean.inside
        return gradient, float(self.cases.task.error(logits.detach(), targets))

    def _clean(self, images: torch.Tensor, quantum: float) -> Clean:
        window = self.cases.window
        inside = (images >= window.low) & (images <= window.high)
        return Clean(window.normalize(images), quantum / window.width, None if bool(inside.all()) else inside)

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.cases.task.loss(self.trainer.forward(inputs, self.frozen), targets)

    def _aims(self, regions: list[tuple[int, Slices]]) -> torch.Tensor:
        return self.method.aim(self.cases.task, to_device(self.cases.targets(regions), self.job.device))

    def _bounds(self, cases: list[int], tile: Slices, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest code of every element: none outside the method's support."""
        lower, upper = code_bounds(images, self.cases.window, self.job.workspace.grids[cases[0]])
        supports = [self.method.support(self.cases.labels[c], tile) for c in cases]
        if all(support is None for support in supports):
            return lower, upper
        everywhere = np.ones(images.shape[2:], bool)
        inside = self._load([everywhere[None] if support is None else support[None] for support in supports])
        return lower * inside, upper * inside

    def fix_masks(self, unit: Unit, masks: Sequence[Array]) -> None:
        """Choose the unit's masks for good: the largest elements of the whole image, scored tile by tile."""
        grid = self.job.workspace.grids[unit.cases[0]]
        scores = torch.zeros(len(unit.cases), *self.cases.images[unit.cases[0]].shape)
        generator = self.job.generator(3, unit.index)
        for tile in unit.tiles:
            region = (slice(None), *tile)
            images = self._load([self.cases.images[c][region] for c in unit.cases])
            targets = self._aims([(c, tile) for c in unit.cases])
            clean = self._clean(images, grid.quantum)
            gradient, _ = self.gradient(clean, torch.zeros_like(images), targets, generator)
            scores[(slice(None), *region)] = gradient.cpu()
        images = torch.from_numpy(np.stack([np.asarray(self.cases.images[c], np.float32) for c in unit.cases]))
        chosen = self.method.choose(scores, images, generator)
        assert chosen is not None
        for row, case in enumerate(unit.cases):
            masks[case][...] = chosen[row].numpy()

    def improve_classes(self, source: Sequence[Array], target: Sequence[Array]) -> float:
        """Classwise noise: every step follows the mean gradient over a batch of the class."""
        labels = np.asarray([int(label) for label in self.cases.labels])
        present = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        owners = class_owners(self.job)
        present = [members for members in present if owners[members[0]] == self.job.world.rank]
        with workers(self.job.device) as pool:
            errors = list(pool.map(lambda members: self._improve_class(members, source, target), present))
        return mean_error(errors, [len(members) for members in present])

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
            targets = self._aims([(c, whole) for c in batch])
            gradient, error = self.gradient(self._clean(images, grid.quantum), codes, targets, generator)
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
        return to_device(torch.from_numpy(np.stack(arrays).astype(np.float32)), self.job.device)


def mean_error(errors: Sequence[float], cases: Sequence[int]) -> float:
    """The mean error of units, by their cases; 0 of none, which a rank may have. A unit that stays as it begins has 0 cases."""
    return float(np.average(errors, weights=cases)) if sum(cases) else 0.0


def unit_owners(job: Job, units: Sequence[Unit]) -> list[int]:
    """The rank that owns each case, by the unit it is in."""
    owners = [0] * len(job.cases)
    costs = [len(unit.cases) * float(np.prod(job.workspace.shapes[unit.cases[0]])) for unit in units]
    for unit, rank in zip(units, job.world.share(costs), strict=True):
        for case in unit.cases:
            owners[case] = rank
    return owners


def class_owners(job: Job) -> list[int]:
    """The rank that owns each case, by its class: classwise noise is one job a class."""
    labels = [int(label) for label in job.cases.labels]
    present = sorted(set(labels))
    owner = dict(zip(present, job.world.share([1.0] * len(present)), strict=True))
    return [owner[label] for label in labels]


def _class_noise(codes: Sequence[Array], members: Array) -> Array:
    """A class' noise, from its images: each holds it clipped to what it can carry, so the extremes are the noise."""
    low = high = codes[members[0]]
    for case in members[1:]:
        low, high = np.minimum(low, codes[case]), np.maximum(high, codes[case])
    noise: Array = np.where(high.astype(np.int64) > -low.astype(np.int64), high, low)
    return noise


def plan_units(job: Job, still: Callable[[Array], bool] | None = None) -> list[Unit]:
    """Batches of cases of one shape and type, each with the tiles that cover its images.

    Args:
        job: the data set.
        still: whether the noise of a case with this label stays as it begins; None is no.

    Where ranks share the work, there are as many batches of one size as give each rank the same.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for case, (shape, grid) in enumerate(zip(job.workspace.shapes, job.workspace.grids, strict=True)):
        resting = still is not None and still(job.cases.labels[case])
        groups.setdefault((shape, grid, resting), []).append(case)
    units: list[Unit] = []
    for (shape, _, resting), cases in groups.items():
        tiles = job.cases.view.tiles(shape[1:])
        for members in _batches(cases, job.recipe.batch_size, job.world.size):
            units.append(Unit(len(units), members, tiles, resting))
    return units


def _batches(cases: list[int], batch_size: int, ranks: int) -> list[list[int]]:
    if ranks == 1:
        return [cases[start : start + batch_size] for start in range(0, len(cases), batch_size)]
    count = min(len(cases), -(-len(cases) // (batch_size * ranks)) * ranks)
    return [cases[len(cases) * i // count : len(cases) * (i + 1) // count] for i in range(count)]


class InOrder:
    """Work done one piece after the other by who asks for it."""

    map = staticmethod(map)


@contextmanager
def workers(device: torch.device) -> Iterator[ThreadPoolExecutor | InOrder]:
    """One worker a core, each computing on its own: faster than sharing a batch, and equal bytes on any core count.

    A GPU has one queue of work, and CUDA graphs want to be replayed by the thread that recorded them."""
    if device.type != "cpu":
        yield InOrder()
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
