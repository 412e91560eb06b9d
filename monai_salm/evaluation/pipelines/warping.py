"""Rotations, zooms, crops and mirrors of a whole batch, with label maps moved along."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

#: Images ``(batch, channel, *spatial)`` and targets.
Batch = tuple[torch.Tensor, torch.Tensor]


def per_voxel(images: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether labels ``(batch, *spatial)`` belong to voxels."""
    return targets.ndim == images.ndim - 1


def uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers drawn evenly from [low, high)."""
    return low + (high - low) * torch.rand(tuple(shape), generator=generator)


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """Rotation matrices ``(batch, rank, rank)``.

    Args:
        angles: radians, ``(batch, 1)`` in the plane or ``(batch, 3)`` about the three axes, one after the other.
    """
    planes = [(0, 1)] if angles.shape[1] == 1 else [(1, 2), (0, 2), (0, 1)]
    rank = 2 if len(planes) == 1 else 3
    whole = torch.eye(rank).expand(len(angles), rank, rank)
    for (first, second), angle in zip(planes, angles.unbind(1), strict=True):
        turn = torch.eye(rank).repeat(len(angles), 1, 1)
        turn[:, first, first] = turn[:, second, second] = angle.cos()
        turn[:, second, first] = angle.sin()
        turn[:, first, second] = -angle.sin()
        whole = turn @ whole
    return whole


def warped(
    images: torch.Tensor,
    targets: torch.Tensor,
    matrices: torch.Tensor,
    shifts: torch.Tensor | None = None,
    padding: str = "zeros",
) -> Batch:
    """Sample each image at ``matrix @ position + shift``, images linearly and label maps by nearest neighbours.

    Args:
        images: ``(batch, channel, *spatial)``.
        targets: labels; moved along where they are per voxel.
        matrices: ``(batch, rank, rank)``, in voxels about the image's centre.
        shifts: ``(batch, rank)``, in half sides of the image; None for none.
        padding: ``"zeros"`` or ``"border"``: what lies outside.
    """
    size, rank = images.shape[2:], images.ndim - 2
    sides = torch.tensor(size, dtype=torch.float32)
    # torch's coordinates run from -1 to 1 along every side, the last axis first.
    scaled = (matrices * sides / sides[:, None]).flip((1, 2))
    moved = torch.zeros(len(images), rank) if shifts is None else shifts.flip(1)
    grid = F.affine_grid(torch.cat([scaled, moved[..., None]], 2), [len(images), 1, *size], align_corners=False)
    sampled = F.grid_sample(images, grid, "bilinear", padding, align_corners=False)
    if per_voxel(images, targets):
        labels = F.grid_sample(targets[:, None].float(), grid, "nearest", padding, align_corners=False)
        targets = labels[:, 0].to(targets.dtype)
    return sampled, targets


def mirrored(images: torch.Tensor, targets: torch.Tensor, chosen: torch.Tensor) -> Batch:
    """Mirror each image along some of its axes.

    Args:
        images: ``(batch, channel, *spatial)``.
        targets: labels; mirrored too where they are per voxel.
        chosen: ``(batch, axes)``, true where an image is mirrored along a spatial axis.
    """
    along = per_voxel(images, targets)
    for axis, flips in enumerate(chosen.unbind(1)):
        images = torch.where(_column(flips, images), images.flip(2 + axis), images)
        if along:
            targets = torch.where(_column(flips, targets), targets.flip(1 + axis), targets)
    return images, targets


def _column(values: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (batch.ndim - 1))


def on_some(
    images: torch.Tensor,
    targets: torch.Tensor,
    share: float,
    generator: torch.Generator,
    change: Callable[[torch.Tensor, torch.Tensor], Batch],
) -> Batch:
    """Change some images of a batch, each with the same probability, and leave the others alone.

    Args:
        images: ``(batch, channel, *spatial)``.
        targets: labels.
        share: the probability.
        generator: source of randomness, on the CPU.
        change: takes the chosen images and their targets.
    """
    members = (torch.rand(len(images), generator=generator) < share).nonzero()[:, 0]
    if not len(members):
        return images, targets
    images, targets = images.clone(), targets.clone()
    images[members], targets[members] = change(images[members], targets[members])
    return images, targets


def radians(degrees: float) -> float:
    """An angle for ``rotations``."""
    return math.radians(degrees)
