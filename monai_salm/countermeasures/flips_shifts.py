"""Random flips and shifts, the ordinary augmentation of small images (MONAI's tutorials; Krizhevsky et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.learning.augmentation import standard_augmentation


@dataclass(frozen=True, kw_only=True)
class FlipsShifts(Countermeasure):
    """Flip and shift every image at random, its labels per voxel along with it (``learning.augmentation.standard_augmentation``).

    Args:
        shift: largest shift, voxels.
    """

    name: ClassVar[str] = "augment"
    shift: int = 2

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift must be at least 0, got {self.shift}")

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return standard_augmentation(inputs, targets, generator, self.shift)
