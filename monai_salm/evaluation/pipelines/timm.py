"""The augmentation of timm's training script."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures.operations import random_operation
from monai_salm.evaluation.pipelines.torchvision import Torchvision
from monai_salm.learning.augmentation import Batch, per_case, uniform

_LEVELS = 10  # timm's RandAugment takes 10 for the largest change
_EACH = 0.5  # probability of each of the two operations
_ERASED_AREA, _LEAST_RATIO = (0.02, 1 / 3), 0.3
# Erased pixels are drawn after ImageNet's normalisation.
_MEAN, _DEVIATION = 0.449, 0.226


@dataclass(frozen=True, kw_only=True)
class Timm(Torchvision):
    """Random resized crops and mirrors, RandAugment, and a box of random pixels; classes are scored on the centre.

    Inverting and adding in solarising are left out of RandAugment, and doing nothing is in.

    Args:
        magnitude: mean strength of RandAugment, 0 to 10.
        spread: standard deviation of the strength from image to image.
        erased: share of the images that get a box.
    """

    family: ClassVar[str] = "timm"
    source: ClassVar[str] = (
        "timm, train.py --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2, as in timm's examples of training, with the script's "
        "default crops (0.08 to 1, ratio 3/4 to 4/3), mirrors and centre (0.875)"
    )
    ranks: ClassVar[tuple[int, ...]] = (2,)

    magnitude: float = 9.0
    spread: float = 0.5
    erased: float = 0.2

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        images, targets = self._framed(images, targets, generator)
        for _ in range(2):
            drawn = self.magnitude + self.spread * torch.randn(len(images), generator=generator)
            applied = torch.rand(len(images), generator=generator) < _EACH
            changed = random_operation(images, targets, (drawn / _LEVELS).clamp(0, 1), generator)
            images = torch.where(per_case(applied, images), changed[0], images)
            targets = torch.where(per_case(applied, targets), changed[1], targets)
        return self._with_boxes(images, generator), targets

    def _with_boxes(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, size = len(images), images.shape[2:]
        area = uniform((count,), *_ERASED_AREA, generator)
        limit = -math.log(_LEAST_RATIO)
        ratio = torch.exp(uniform((count,), -limit, limit, generator))
        inside = torch.rand(count, generator=generator) < self.erased
        inside = inside.view(-1, 1, 1, 1)
        for axis, side in enumerate(((area * ratio).sqrt(), (area / ratio).sqrt())):
            start = (1 - side.clamp(max=1)) * torch.rand(count, generator=generator)
            place = (torch.arange(size[axis]) + 0.5) / size[axis]
            covered = (place >= start[:, None]) & (place < (start + side)[:, None])
            inside = inside & covered.view(count, 1, *(size[axis] if a == axis else 1 for a in range(2)))
        pixels = (_MEAN + _DEVIATION * torch.randn(images.shape, generator=generator)).clamp(0, 1)
        return torch.where(inside, pixels, images)
