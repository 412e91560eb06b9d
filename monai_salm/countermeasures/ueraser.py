"""UEraser: of several strongly augmented copies, train on the one with the largest loss.

Qin, Gao, Zhao, Ye, Xu 2023, "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks",
arXiv 2303.15127.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.countermeasures.operations import random_operation
from monai_salm.learning.augmentation import Batch, uniform
from monai_salm.learning.trainer import Trainer

_ROUGHNESS = (0.3, 0.7)
_BRIGHTNESS = (0.5, 1.0)
_LARGEST_CONTRAST = 4.0
_LEVELS = 31


@dataclass(frozen=True, kw_only=True)
class UEraser(Countermeasure):
    """Change brightness and contrast by fractals, shuffle channels, do one operation more, and train on the worst copy.

    The settings are those of the published code, all through the training (the paper's UEraser-Max). The one operation
    is TrivialAugment's (Mueller and Hutter 2021): any of RandAugment's, at any magnitude.

    Args:
        copies: augmented copies of each image to choose from; 1 is the paper's UEraser-Lite.
        probability: of each of fractal brightness, fractal contrast and shuffling, for every image.
    """

    name: ClassVar[str] = "ueraser"
    tier: ClassVar[str] = "costly"
    copies: int = field(default=5, metadata={"in": "[1, inf)"})
    probability: float = field(default=0.5, metadata={"in": "[0, 1]"})

    def augment(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        changed = inputs.clone()
        for change in (plasma_brightness, plasma_contrast, shuffle_channels):
            rows = (torch.rand(len(inputs), generator=generator) < self.probability).nonzero()[:, 0]
            if len(rows):
                changed[rows] = change(changed[rows], generator)
        levels = torch.randint(_LEVELS, (len(inputs),), generator=generator) / (_LEVELS - 1)
        return random_operation(changed, targets, levels, generator)

    def step(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        copies = [self.augment(inputs, targets, generator) for _ in range(self.copies)]
        if self.copies == 1:
            return trainer.step(*copies[0])
        worst = torch.stack([case_losses(trainer, *copy) for copy in copies]).argmax(0)
        rows = torch.arange(len(inputs))
        images, labels = (torch.stack(parts)[worst, rows] for parts in zip(*copies, strict=True))
        return trainer.step(images, labels)


@torch.no_grad()
def case_losses(trainer: Trainer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of each case, ``(batch,)`` on the CPU, with the network in training mode, as in the published code."""
    logits, targets = trainer.forward(inputs.to(trainer.device)), targets.to(trainer.device)
    losses = [trainer.task.loss(logits[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))]
    return torch.stack(losses).cpu()


def plasma_brightness(images: Tensor, generator: Generator) -> Tensor:
    """Add a fractal in [-i, i], with i from 0.5 to 1 for each image, to images ``(batch, channel, *spatial)``."""
    intensity = _each(images, _BRIGHTNESS, generator)
    return (images + intensity * (2 * plasma(images.shape, generator) - 1)).clamp(0, 1)


def plasma_contrast(images: Tensor, generator: Generator) -> Tensor:
    """Multiply distances from 0.5 by a fractal in [0, 4]."""
    return ((images - 0.5) * _LARGEST_CONTRAST * plasma(images.shape, generator) + 0.5).clamp(0, 1)


def shuffle_channels(images: Tensor, generator: Generator) -> Tensor:
    """Put the channels of every image in an order of its own."""
    order = torch.rand(images.shape[:2], generator=generator).argsort(1)
    return images[torch.arange(len(images))[:, None], order]


def plasma(shape: Sequence[int], generator: Generator) -> Tensor:
    """Fractal noise of shape ``(batch, channel, *spatial)``, stretched to [0, 1] in every channel of every image.

    As in the diamond-square algorithm, a random grid is refined by halves, with noise whose amplitude falls by the
    roughness (0.3 to 0.7, each image its own) each time. Here all points get new noise, not only the new ones.
    """
    size = shape[2:]
    depth = int(math.log2(max(1, min(size) - 1)))
    sides = [max(1, math.ceil((length - 1) / 2**depth)) + 1 for length in size]
    field = torch.rand((*shape[:2], *sides), generator=generator)
    roughness = _each(field, _ROUGHNESS, generator)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    for level in range(1, depth + 1):
        sides = [2 * side - 1 for side in sides]
        field = F.interpolate(field, sides, mode=mode, align_corners=True)
        field += roughness**level * torch.rand(field.shape, generator=generator)
    field = field[(slice(None), slice(None), *(slice(0, length) for length in size))]
    axes = tuple(range(2, field.ndim))
    low, high = field.amin(axes, keepdim=True), field.amax(axes, keepdim=True)
    return (field - low) / (high - low).clamp_min(1e-12)


def _each(images: Tensor, ends: tuple[float, float], generator: Generator) -> Tensor:
    """One number for each image, ``(batch, 1, ...)``."""
    return uniform((len(images), *[1] * (images.ndim - 1)), *ends, generator)
