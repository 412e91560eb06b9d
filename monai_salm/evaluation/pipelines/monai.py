"""The augmentation of MONAI's tutorials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.augmentation import Batch, mirrored, on_some, rotations, uniform, warped


@dataclass(frozen=True, kw_only=True)
class Monai(Pipeline):
    """Images: rotate, mirror along the first axis, zoom. Volumes: crops at random places, mirrors along every axis.

    A volume's crop has the volume's size, moved by up to ``shift`` of a side; the border is repeated outside.

    Args:
        degrees: largest rotation of images.
        zoom: largest zoom of images, in or out.
        shift: farthest crop of volumes, share of a side.
        probability: of each step.
    """

    family: ClassVar[str] = "monai"
    source: ClassVar[str] = (
        "Project-MONAI/tutorials, mednist_tutorial (RandRotate 15 degrees, RandFlip of axis 0, RandZoom 0.9 to 1.1, each with "
        "probability 0.5); random crops of spleen_segmentation_3d and RandFlip of every axis of brats_segmentation_3d for volumes"
    )

    degrees: float = 15.0
    zoom: float = 0.1
    shift: float = 0.125
    probability: float = 0.5

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        rank, count = images.ndim - 2, len(images)

        def rotated(some: torch.Tensor, labels: torch.Tensor) -> Batch:
            limit = math.radians(self.degrees)
            angles = uniform((len(some), 1), -limit, limit, generator)
            return warped(some, labels, rotations(angles), padding="border")

        def zoomed(some: torch.Tensor, labels: torch.Tensor) -> Batch:
            sizes = uniform((len(some), 1, 1), 1 - self.zoom, 1 + self.zoom, generator)
            return warped(some, labels, torch.eye(rank) / sizes, padding="border")

        if rank == 3:
            shifts = uniform((count, rank), -2 * self.shift, 2 * self.shift, generator)
            images, targets = _moved(images, targets, shifts)
            chosen = torch.rand((count, rank), generator=generator) < self.probability
            return mirrored(images, targets, chosen)
        images, targets = on_some(images, targets, self.probability, generator, rotated)
        chosen = torch.rand((count, 1), generator=generator) < self.probability
        images, targets = mirrored(images, targets, chosen)
        return on_some(images, targets, self.probability, generator, zoomed)


def _moved(images: torch.Tensor, targets: torch.Tensor, shifts: torch.Tensor) -> Batch:
    """Crops in whole voxels, so that nothing is interpolated."""
    half = torch.tensor(images.shape[2:], dtype=torch.float32) / 2
    same = torch.eye(images.ndim - 2).expand(len(images), -1, -1)
    return warped(images, targets, same, (shifts * half).round() / half, padding="border")
