"""Image operations of RandAugment and TrivialAugment, on batches in 2D and 3D, every image at its own strength.

Ranges are AutoAugment's (Cubuk et al. 2019), with a level of 1 for the largest; formulas are Pillow's. Images are in
[0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from monai_salm.learning.augmentation import Batch, luminance, per_case, warped

#: ``(images, level, sign) -> images`` with level in [0, 1] and sign -1 or 1, both ``(batch, 1, ...)``.
IntensityOperation: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
#: ``(amount, axes, size) -> maps``: amount in [-1, 1] ``(batch,)``, two axes ``(batch, 2)``, size ``(rank,)``; the
#: maps, ``(batch, rank, rank + 1)``, take places of the output to places of the input, in voxels from the centre.
GeometricOperation: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_LARGEST_FACTOR = 0.9
_LARGEST_ANGLE = math.radians(30)
_LARGEST_SHEAR = 0.3
_LARGEST_SHIFT = 150 / 331  # of the image's side


def _away_from(other: Callable[[Tensor], Tensor]) -> IntensityOperation:
    """Away from another image where the sign is positive, towards it where it is negative."""

    def blended(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        reference = other(images)
        return (reference + (1 + _LARGEST_FACTOR * level * sign) * (images - reference)).clamp(0, 1)

    return blended


def _mean_grey(images: Tensor) -> Tensor:
    return luminance(images).flatten(1).mean(1).view(-1, *[1] * (images.ndim - 1))


def _smoothed(images: Tensor) -> Tensor:
    """Smoothed but for the outermost voxels, as in Pillow, whose filter this is: 5 in the middle, 1 for each neighbour."""
    size = images.shape[2:]
    if min(size) <= 2:
        return images
    inner = (slice(None), slice(None), *[slice(1, -1)] * len(size))
    pool, voxels = F.avg_pool2d if len(size) == 2 else F.avg_pool3d, 3 ** len(size)
    smooth = images.clone()
    smooth[inner] = (pool(images, 3, 1) * voxels + 4 * images[inner]) / (voxels + 4)
    return smooth


def posterize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Keep 8 to 4 bits."""
    steps = 2 ** (8 - (4 * level).round())
    return torch.minimum((images * steps).floor(), steps - 1) / steps


def solarize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Invert what is brighter than ``1 - level``."""
    return torch.where(images >= 1 - level, 1 - images, images)


def autocontrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Stretch every channel to [0, 1]."""
    axes = tuple(range(2, images.ndim))
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    width = high - low
    return torch.where(width > 0, (images - low) / width.clamp_min(1e-12), images).clamp(0, 1)


def equalize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Make the histogram of every channel flat, in 256 grey levels, by Pillow's table."""
    pixels = (images * (256 - 1e-3)).long().clamp(0, 255).flatten(2)
    ones = torch.ones((1, 1, 1), dtype=torch.long, device=images.device)
    counts = pixels.new_zeros((*pixels.shape[:2], 256)).scatter_add_(2, pixels, ones.expand_as(pixels))
    brightest = counts.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp(0, 255)
    flat = table.gather(2, pixels).float() / 255
    return torch.where(step > 0, flat, images.flatten(2)).view_as(images)


def rotate(amount: Tensor, axes: Tensor, size: Tensor) -> Tensor:
    """Turn by up to 30 degrees in the plane of the two axes."""
    maps, rows, (first, second) = _identity(amount, size), torch.arange(len(amount)), axes.unbind(1)
    angle = _LARGEST_ANGLE * amount
    maps[rows, first, first] = maps[rows, second, second] = angle.cos()
    maps[rows, first, second], maps[rows, second, first] = -angle.sin(), angle.sin()
    return maps


def shear(amount: Tensor, axes: Tensor, size: Tensor) -> Tensor:
    """Move along the first axis by up to 0.3 of the place on the second."""
    maps = _identity(amount, size)
    maps[torch.arange(len(amount)), axes[:, 0], axes[:, 1]] = _LARGEST_SHEAR * amount
    return maps


def translate(amount: Tensor, axes: Tensor, size: Tensor) -> Tensor:
    """Shift along the first axis by whole voxels."""
    maps = _identity(amount, size)
    maps[torch.arange(len(amount)), axes[:, 0], -1] = (_LARGEST_SHIFT * size[axes[:, 0]] * amount).trunc()
    return maps


def _identity(amount: Tensor, size: Tensor) -> Tensor:
    return torch.eye(len(size), len(size) + 1).repeat(len(amount), 1, 1)


INTENSITY: dict[str, IntensityOperation] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "solarize": solarize,
    "color": _away_from(luminance),
    "posterize": posterize,
    "contrast": _away_from(_mean_grey),
    "brightness": _away_from(torch.zeros_like),
    "sharpness": _away_from(_smoothed),
}
GEOMETRIC: dict[str, GeometricOperation] = {"rotate": rotate, "shear": shear, "translate": translate}
# Shear and translate count twice, since they are two operations, along x and along y, in the papers.
_DRAWN_FROM = ("identity", *INTENSITY, *GEOMETRIC, "shear", "translate")


def random_operation(images: Tensor, targets: Tensor, levels: Tensor, generator: Generator) -> Batch:
    """Apply one random operation to every image in [0, 1], at a strength in [0, 1] each; labels per voxel move along.

    Colour is only for three channels. In 3D, axes are drawn too.
    """
    count, size = len(images), torch.tensor(images.shape[2:])
    names = [name for name in _DRAWN_FROM if name != "color" or images.shape[1] == 3]
    drawn = torch.randint(len(names), (count,), generator=generator).tolist()
    signs = 1.0 - 2.0 * torch.randint(2, (count,), generator=generator)
    axes = torch.rand((count, len(size)), generator=generator).argsort(1)[:, :2]
    members: dict[str, list[int]] = {}
    for row, index in enumerate(drawn):
        members.setdefault(names[index], []).append(row)
    changed = images.clone()
    for name in members.keys() & INTENSITY.keys():
        rows = members[name]
        changed[rows] = INTENSITY[name](images[rows], per_case(levels[rows], images), per_case(signs[rows], images))
    moved = [name for name in GEOMETRIC if name in members]
    if not moved:
        return changed, targets
    amount, targets = levels * signs, targets.clone()
    maps = torch.cat([GEOMETRIC[name](amount[members[name]], axes[members[name]], size) for name in moved])
    rows = [row for name in moved for row in members[name]]
    changed[rows], targets[rows] = warp(images[rows], targets[rows], maps)
    return changed, targets


def warp(images: Tensor, targets: Tensor, maps: Tensor) -> Batch:
    """Move voxels by maps as a ``GeometricOperation`` gives them; zeros come in from outside."""
    return warped(images, targets, maps[..., :-1], 2 * maps[..., -1] / torch.tensor(images.shape[2:]))
