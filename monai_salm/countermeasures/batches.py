"""Countermeasures that change batches: flips and shifts, holes, mixtures of two cases, random operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.countermeasures.operations import random_operation
from monai_salm.learning.augmentation import Batch, per_voxel, standard_augmentation
from monai_salm.learning.trainer import Trainer

_LARGEST_MAGNITUDE = 30


@dataclass(frozen=True, kw_only=True)
class FlipsShifts(Countermeasure):
    """Flip and shift every image at random (``learning.augmentation.standard_augmentation``).

    Args:
        shift: largest shift, voxels.
    """

    name: ClassVar[str] = "augment"
    shift: int = field(default=2, metadata={"in": "[0, inf)"})

    def augment(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        return standard_augmentation(inputs, targets, generator, self.shift)


@dataclass(frozen=True, kw_only=True)
class Cutout(Countermeasure):
    """Set a box to 0 whose centre is anywhere in the image; labels stay (DeVries and Taylor 2017, arXiv 1708.04552).

    Args:
        share: side of the box as a share of the image's side along each axis; the paper's 16 of CIFAR-10's 32 pixels.
    """

    name: ClassVar[str] = "cutout"
    share: float = field(default=0.5, metadata={"in": "(0, 1]"})

    def augment(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        size = inputs.shape[2:]
        sides = [max(1, round(self.share * length)) for length in size]
        return inputs.masked_fill(random_boxes(len(inputs), size, sides, generator), 0.0), targets


@dataclass(frozen=True, kw_only=True)
class Mixup(Countermeasure):
    """Train on ``share * x + (1 - share) * partner``, one share a batch, losses mixed alike (Zhang et al. 2018, arXiv 1710.09412).

    Args:
        alpha: of Beta(alpha, alpha), from which the share is drawn; the paper's 1 for CIFAR-10 is uniform.
    """

    name: ClassVar[str] = "mixup"
    alpha: float = field(default=1.0, metadata={"in": "(0, inf)"})

    def step(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        share = draw_share(self.alpha, generator)
        partner = torch.randperm(len(inputs), generator=generator)
        mixed = torch.lerp(inputs[partner], inputs, share)
        return step_on_mixture(trainer, mixed, share, targets, targets[partner])


@dataclass(frozen=True, kw_only=True)
class CutMix(Countermeasure):
    """Paste one box a batch from a partner, and mix the losses by the box's area (Yun et al. 2019, arXiv 1905.04899).

    Labels per voxel are pasted with the image.

    Args:
        alpha: of Beta(alpha, alpha), from which the share of the image that stays is drawn; 1 in the paper.
    """

    name: ClassVar[str] = "cutmix"
    alpha: float = field(default=1.0, metadata={"in": "(0, inf)"})

    def step(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        box, share = self.box(inputs.shape[2:], generator)
        partner = torch.randperm(len(inputs), generator=generator)
        mixed = torch.where(box, inputs[partner], inputs)
        if per_voxel(inputs, targets):
            return trainer.step(mixed, torch.where(box[:, 0], targets[partner], targets))
        return step_on_mixture(trainer, mixed, share, targets, targets[partner])

    def box(self, size: Sequence[int], generator: Generator) -> tuple[Tensor, float]:
        """The partner's box, ``(1, 1, *size)``, and the share of voxels outside it."""
        side = (1 - draw_share(self.alpha, generator)) ** (1 / len(size))
        box = random_boxes(1, size, [int(length * side) for length in size], generator)
        return box, 1 - float(box.float().mean())


@dataclass(frozen=True, kw_only=True)
class RandAugment(Countermeasure):
    """Apply some of 14 random operations to every image, all at one magnitude (Cubuk et al. 2020, arXiv 1909.13719).

    Args:
        num_operations: the paper's N, one after another.
        magnitude: the paper's M, 0 to 30, where 30 is the largest change.
    """

    name: ClassVar[str] = "rand_augment"
    num_operations: int = field(default=2, metadata={"in": "[1, inf)"})
    magnitude: int = field(default=9, metadata={"in": f"[0, {_LARGEST_MAGNITUDE}]"})

    def augment(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        levels = torch.full((len(inputs),), self.magnitude / _LARGEST_MAGNITUDE)
        for _ in range(self.num_operations):
            inputs, targets = random_operation(inputs, targets, levels, generator)
        return inputs, targets


def random_boxes(count: int, size: Sequence[int], sides: Sequence[int], generator: Generator) -> Tensor:
    """Boxes of some ``sides`` with centres anywhere in the image, ``(count, 1, *size)``, true inside."""
    inside = torch.ones((count, 1, *[1] * len(size)), dtype=torch.bool)
    for axis, (length, side) in enumerate(zip(size, sides, strict=True)):
        start = torch.randint(length, (count, 1), generator=generator) - side // 2
        position = torch.arange(length)
        covered = (position >= start) & (position < start + side)
        inside = inside & covered.view(count, 1, *[length if a == axis else 1 for a in range(len(size))])
    return inside


def draw_share(alpha: float, generator: Generator) -> float:
    """A share in [0, 1] from Beta(alpha, alpha); torch has no public one that takes a generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def step_on_mixture(trainer: Trainer, mixed: Tensor, share: float, targets: Tensor, others: Tensor) -> Tensor:
    """Train with ``share * loss(targets) + (1 - share) * loss(others)``; the error is against the larger share."""
    first, second = targets.to(trainer.device), others.to(trainer.device)

    def loss(logits: Tensor) -> Tensor:
        return share * trainer.task.loss(logits, first) + (1 - share) * trainer.task.loss(logits, second)

    return trainer.step(mixed, first if share >= 0.5 else second, loss)
