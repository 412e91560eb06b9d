"""The augmentation of torchvision's reference training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.augmentation import Batch, luminance, mirrored, per_voxel, uniform, warped
from monai_salm.learning.cases import Cases, View

# Share of the sides' ratio that each axis takes; a volume's third side has none.
_SIDES = (-0.5, 0.5, 0.0)


@dataclass(frozen=True, kw_only=True)
class Torchvision(Pipeline):
    """Random resized crops, mirrors left to right and colour jitter; classes are scored on the centre of the test images.

    With labels per voxel images are zoomed by 0.5 to 2 and cropped at random places, and test images are left whole.

    Args:
        least_area: smallest crop, share of the image's pixels.
        largest_ratio: of a crop's width to its height, and the reverse.
        centre: share of each side of a test image that is kept and resized to the whole.
        jitter: largest change of brightness, contrast and (in colour) saturation.
    """

    family: ClassVar[str] = "torchvision"
    source: ClassVar[str] = (
        "pytorch/vision, references/classification/presets.py (RandomResizedCrop 0.08 to 1, ratio 3/4 to 4/3, flip; Resize 256, "
        "CenterCrop 224) and references/segmentation/presets.py (RandomResize 0.5 to 2, flip, crop); ColorJitter(0.4, 0.4, 0.4)"
    )

    least_area: float = 0.08
    largest_ratio: float = 4 / 3
    centre: float = 224 / 256
    jitter: float = 0.4

    def prepare_test(self, cases: Cases) -> Cases:
        if cases.view.kind == "patch" or cases.labels[0].ndim > 1:
            return cases
        images = []
        for image in cases.images:
            sides = [(n, max(1, round(self.centre * n))) for n in image.shape[1:]]
            region = (slice((n - side) // 2, (n - side) // 2 + side) for n, side in sides)
            images.append(image[(slice(None), *region)])
        return replace(cases, images=images, view=View("resize", cases.view.size))

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        images, targets = self._framed(images, targets, generator)
        return self._jittered(images, generator), targets

    def _framed(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """Crop or zoom, then mirror left to right."""
        count, rank = len(images), images.ndim - 2
        if per_voxel(images, targets):
            sides = (1 / uniform((count, 1), 0.5, 2, generator)).expand(count, rank)
        else:
            sides = self._crops(count, rank, generator)
        # A crop lies inside the image; an image smaller than its frame lies inside the frame.
        shifts = (1 - sides).abs() * uniform((count, rank), -1, 1, generator)
        images, targets = warped(images, targets, torch.diag_embed(sides), shifts)
        flips = torch.zeros(count, rank, dtype=torch.bool)
        flips[:, -1] = torch.rand(count, generator=generator) < 0.5
        return mirrored(images, targets, flips)

    def _crops(self, count: int, rank: int, generator: torch.Generator) -> torch.Tensor:
        """Sides of random crops, ``(count, rank)``, as shares of the image's."""
        area = uniform((count, 1), self.least_area, 1, generator)
        limit = math.log(self.largest_ratio)
        ratio = uniform((count, 1), -limit, limit, generator)
        return (area ** (1 / rank) * torch.exp(ratio * torch.tensor(_SIDES[:rank]))).clamp(max=1)

    def _jittered(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shape = (len(images), *[1] * (images.ndim - 1))
        bright, contrast, saturation = (uniform(shape, 1 - self.jitter, 1 + self.jitter, generator) for _ in range(3))
        images = (images * bright).clamp(0, 1)
        grey = luminance(images).mean(1, keepdim=True).mean(dim=tuple(range(1, images.ndim)), keepdim=True)
        images = (grey + contrast * (images - grey)).clamp(0, 1)
        if images.shape[1] != 3:
            return images
        grey = luminance(images)
        return (grey + saturation * (images - grey)).clamp(0, 1)
