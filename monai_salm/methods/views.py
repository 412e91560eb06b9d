"""What may happen to images before a network sees them, as differentiable functions of the image.

Noise made through these views (expectation over transformation; Athalye et al., ICML 2018) is noise that outlives them. Where
a view rounds, gradients flow straight through (Bengio, Leonard, Courville 2013), but only where the noise can reach: a value
that no noise within the budget can carry over the next rounding threshold gets no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from monai_salm.augmentation import standard_augmentation
from monai_salm.cases import View
from monai_salm.intensity import Array, IntensityWindow

#: Changes images ``(batch, channel, *spatial)`` in [0, 1]: ``(images, epsilon, generator) -> images`` of that shape.
ImageView: TypeAlias = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]

# Luminance quantisation of ITU-T T.81, annex K, table K.1.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def identity(images: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """The image as it is."""
    return images


def augment(images: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Random flips and shifts, for labels per image; labels per voxel are moved along by ``see``."""
    return standard_augmentation(images, torch.zeros(len(images)), generator)[0]


def blur(images: torch.Tensor, epsilon: float, generator: torch.Generator, sigma: float = 1.0) -> torch.Tensor:
    """Gaussian smoothing; the edge is continued with its own values."""
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, device=images.device) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for axis in range(2, images.ndim):
        lines = images.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        images = F.conv1d(padded, kernel.view(1, 1, -1)).view(lines.shape).movedim(-1, axis)
    return images


def median(images: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Median of 3 voxels along every axis, the edge continued; the gradient goes to the voxel that was chosen."""
    rank = images.ndim - 2
    windows = F.pad(images, (1, 1) * rank, mode="replicate")
    for axis in range(2, images.ndim):
        windows = windows.unfold(axis, 3, 1)
    return windows.flatten(images.ndim).median(-1).values


def resample(images: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """To half the size with averaging and back."""
    size = tuple(images.shape[2:])
    for target in (tuple(max(1, n // 2) for n in size), size):
        images = View("resize", target).resize(images)
    return images


def gamma(images: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """The square root of the intensity; its slope is bounded near 0."""
    root: torch.Tensor = (images + 1e-4).sqrt()
    return root


def bit_depth(images: torch.Tensor, epsilon: float, generator: torch.Generator, bits: int = 2) -> torch.Tensor:
    """Round to ``2**bits`` evenly spaced levels; where no voxel of an image can be carried over a threshold, all get gradients,
    lest an image stay without noise."""
    scaled = images * (2**bits - 1)
    reached = ((scaled - scaled.floor() - 0.5).abs() <= epsilon * (2**bits - 1)).detach()
    reached = reached | ~reached.flatten(1).any(1).view(-1, *[1] * (images.ndim - 1))
    passing = torch.where(reached, scaled, scaled.detach())
    rounded = passing + (scaled.round() - scaled).detach()
    result: torch.Tensor = rounded / (2**bits - 1)
    return result


def jpeg(images: torch.Tensor, epsilon: float, generator: torch.Generator, quality: int = 10) -> torch.Tensor:
    """JPEG with the standard luminance table, channel by channel; volumes slice by slice along their last axis."""
    if images.ndim == 5:
        slices = images.movedim(-1, 1).flatten(0, 1)
        compressed = jpeg(slices, epsilon, generator, quality)
        return compressed.reshape(len(images), -1, *slices.shape[1:]).movedim(1, -1)
    height, width = images.shape[2:]
    padded = F.pad(images * 255 - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
    dct, table = cosine_basis().to(images.device), quantisation(quality).to(images.device)
    coefficients = dct @ blocks @ dct.T
    passing = torch.where(reached(quality, epsilon).to(images.device), coefficients, coefficients.detach())
    rounded = passing + ((coefficients / table).round() * table - coefficients).detach()
    restored = (dct.T @ rounded @ dct).movedim(-2, 3).flatten(4, 5).flatten(2, 3)[..., :height, :width] + 128
    pixels: torch.Tensor = restored + (restored.clamp(0, 255).round() - restored).detach()
    return pixels / 255.0


@lru_cache(maxsize=1)
def cosine_basis() -> torch.Tensor:
    """The orthonormal 8-point cosine transform, a row a frequency."""
    frequency, place = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos(math.pi * (2 * place + 1) * frequency / 16) / 2
    basis[0] = math.sqrt(1 / 8)
    return basis


def quantisation(quality: int) -> torch.Tensor:
    """Steps of the 64 coefficients at a quality of 1 to 100, as the reference software of the Independent JPEG Group scales
    the standard's table."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(_LUMINANCE) * scale + 50) // 100).clamp(1, 255).float()


def reached(quality: int, epsilon: float) -> torch.Tensor:
    """Coefficients, ``(8, 8)``, that noise within the budget can change by at least half a step."""
    sums = cosine_basis().abs().sum(1)
    return epsilon * 255 * sums[:, None] * sums[None] >= quantisation(quality) / 2


def rounds_differently(image: Array, window: IntensityWindow, epsilon: float, bits: int = 2) -> NDArray[np.bool_]:
    """Elements that noise within the budget can carry over a threshold of ``bit_depth``.

    Args:
        image: stored array, any shape.
        window: the intensity window, stored units.
        epsilon: the budget, fraction of the window's width.
        bits: of the rounded image.
    """
    scaled = (np.asarray(image, np.float64) - window.low) / window.width * (2**bits - 1)
    near: NDArray[np.bool_] = np.abs(scaled - np.floor(scaled) - 0.5) <= epsilon * (2**bits - 1)
    return near


VIEWS: dict[str, ImageView] = {
    "none": identity,
    "augment": augment,
    "jpeg": jpeg,
    "blur": blur,
    "median": median,
    "bit_depth": bit_depth,
    "resample": resample,
    "gamma": gamma,
    "orthogonal_projection": identity,  # outlived by what the pattern is, not by what is optimised
}


def see(
    names: Sequence[str], images: torch.Tensor, targets: torch.Tensor, epsilon: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch cut into as many parts as there are views, each part seen through one of them, in an order drawn anew.

    Args:
        names: of ``VIEWS``.
        images: ``(batch, channel, *spatial)`` in [0, 1].
        targets: labels; moved along by ``augment`` where they are per voxel.
        epsilon: the noise's budget, fraction of the window's width.
        generator: source of randomness, on the CPU.
    """
    order = torch.randperm(len(names), generator=generator).tolist()
    parts = min(len(names), len(images))
    seen: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    for index, (part, answers) in enumerate(zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True)):
        name = names[order[index]]
        if name == "augment":
            part, answers = standard_augmentation(part, answers, generator)
        else:
            part = VIEWS[name](part, epsilon, generator)
        seen.append(part)
        labels.append(answers)
    return torch.cat(seen), torch.cat(labels)
