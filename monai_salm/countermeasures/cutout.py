"""Cutout: a hole at random in every image (DeVries and Taylor 2017, arXiv 1708.04552)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures._batches import random_boxes
from monai_salm.countermeasures.base import Countermeasure


@dataclass(frozen=True, kw_only=True)
class Cutout(Countermeasure):
    """Set a box to 0 whose centre is anywhere in the image, so that it may hang over the edge; labels stay.

    Args:
        share: side of the box as a share of the image's side along each axis; the paper's 16 of CIFAR-10's 32 pixels.
    """

    name: ClassVar[str] = "cutout"
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = inputs.shape[2:]
        sides = [max(1, round(self.share * length)) for length in size]
        return inputs.masked_fill(random_boxes(len(inputs), size, sides, generator), 0.0), targets
