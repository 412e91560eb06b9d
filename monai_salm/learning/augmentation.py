"""Augmentation of a whole batch on the CPU or GPU: flips, shifts, rotations, zooms; label maps move with their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

#: Images ``(batch, channel, *spatial)`` in [0, 1], and their labels.
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
#: Changes a batch: ``(images, targets, generator) -> (images, targets)``.
Augmentation: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Batch]

# Red, green and blue, as torchvision's rgb_to_grayscale.
_LUMINANCE = (0.2989, 0.587, 0.114)


def standard_augmentation(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, shift: int = 2
) -> Batch:
    """Random flips and a random shift of up to ``shift`` voxels (zero padding), each case its own.

    Images are flipped left to right (the last axis), volumes along each of their axes, as in MONAI's tutorials: which axis is
    the body's left and right depends on a volume's orientation.
    """
    rank = images.ndim - 2
    flips = torch.zeros(len(images), rank, dtype=torch.bool)
    flips[:, 1 if rank == 2 else 0 :] = torch.rand((len(images), 1 if rank == 2 else rank), generator=generator) < 0.5
    shifts = torch.randint(2 * shift + 1, (len(images), rank), generator=generator)
    images, targets = mirrored(images, targets, flips)
    if per_voxel(images, targets):
        targets = _shifted(targets[:, None], shifts, shift)[:, 0]
    return _shifted(images, shifts, shift), targets


def _shifted(batch: torch.Tensor, shifts: torch.Tensor, margin: int) -> torch.Tensor:
    size, rank = batch.shape[2:], batch.ndim - 2
    padded = F.pad(batch, [margin] * (2 * rank))
    moved = []
    # Stacked, not written into a batch: gradients through that would be copied whole for every case.
    for case, offset in zip(padded.unbind(0), shifts.tolist(), strict=True):
        window = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
        moved.append(case[(slice(None), *window)])
    return torch.stack(moved)


def at_half_size(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, share: float) -> Batch:
    """The batch at half its size, with the probability ``share``: means of two voxels along each axis, every second label.

    Mirrored copies fill the size that it had, since some networks take one size only.
    """
    size, rank = images.shape[2:], images.ndim - 2
    if float(torch.rand((), generator=generator)) >= share or min(size) < 2:
        return images, targets
    along = per_voxel(images, targets)
    images = (F.avg_pool2d if rank == 2 else F.avg_pool3d)(images, 2)
    for axis, side in enumerate(size):
        half = range(side // 2)
        places = torch.tensor([*half, *reversed(half), 0][:side], device=images.device)
        images = images.index_select(2 + axis, places)
        targets = targets.index_select(1 + axis, 2 * places.to(targets.device)) if along else targets
    return images, targets


def per_voxel(images: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether labels ``(batch, *spatial)`` belong to voxels."""
    return targets.ndim == images.ndim - 1


def per_case(values: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """One number a case, shaped to be multiplied with the batch."""
    return values.view(-1, *[1] * (batch.ndim - 1))


def uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers drawn evenly from [low, high)."""
    return low + (high - low) * torch.rand(tuple(shape), generator=generator)


def luminance(images: torch.Tensor) -> torch.Tensor:
    """Luminance ``(batch, 1, *spatial)`` of three channels; other images stay as they are."""
    if images.shape[1] != 3:
        return images
    return (images * images.new_tensor(_LUMINANCE).view(1, 3, *[1] * (images.ndim - 2))).sum(1, keepdim=True)


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """Rotation matrices ``(batch, rank, rank)`` of radians: ``(batch, 1)`` in the plane, ``(batch, 3)`` about the axes in turn."""
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

    Matrices ``(batch, rank, rank)`` are in voxels about the centre, shifts ``(batch, rank)`` in half sides. ``padding`` is
    ``"zeros"`` or ``"border"``: what lies outside.
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
    """Mirror each image, and its labels per voxel, along the axes chosen in ``(batch, axes)``."""
    along = per_voxel(images, targets)
    for axis, flips in enumerate(chosen.to(images.device).unbind(1)):
        images = torch.where(per_case(flips, images), images.flip(2 + axis), images)
        if along:
            targets = torch.where(per_case(flips.to(targets.device), targets), targets.flip(1 + axis), targets)
    return images, targets


def on_some(
    images: torch.Tensor,
    targets: torch.Tensor,
    share: float,
    generator: torch.Generator,
    change: Callable[[torch.Tensor, torch.Tensor], Batch],
) -> Batch:
    """Change some images of a batch, each with the probability ``share``."""
    members = (torch.rand(len(images), generator=generator) < share).nonzero()[:, 0]
    if not len(members):
        return images, targets
    images, targets = images.clone(), targets.clone()
    images[members], targets[members] = change(images[members], targets[members])
    return images, targets
