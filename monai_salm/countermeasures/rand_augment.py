"""RandAugment: a few operations drawn at random for every image (Cubuk, Zoph, Shlens, Le 2020, arXiv 1909.13719)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures._operations import random_operation
from monai_salm.countermeasures.base import Countermeasure

_LARGEST_MAGNITUDE = 30


@dataclass(frozen=True, kw_only=True)
class RandAugment(Countermeasure):
    """Do some of 14 operations to every image in turn, all at one magnitude; labels per voxel move along.

    They are nothing, autocontrast, equalise, solarise, posterise, contrast, brightness, sharpness, rotation, shear and
    translation along each axis, and colour where there are three channels. Moved images are interpolated linearly.

    Args:
        num_operations: the paper's N, one after another.
        magnitude: the paper's M, 0 to 30, where 30 is the largest change.
    """

    name: ClassVar[str] = "rand_augment"
    num_operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        if self.num_operations < 1:
            raise ValueError(f"num_operations must be at least 1, got {self.num_operations}")
        if not 0 <= self.magnitude <= _LARGEST_MAGNITUDE:
            raise ValueError(f"magnitude must be in [0, {_LARGEST_MAGNITUDE}], got {self.magnitude}")

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        levels = torch.full((len(inputs),), self.magnitude / _LARGEST_MAGNITUDE)
        for _ in range(self.num_operations):
            inputs, targets = random_operation(inputs, targets, levels, generator)
        return inputs, targets
