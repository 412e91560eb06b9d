"""Ordinary augmentation of a batch, for surrogates and victims."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F

#: Changes a batch: ``(images, targets, generator) -> (images, targets)``, images normalised.
Augmentation: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def standard_augmentation(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, shift: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random flips and random shift of up to ``shift`` voxels (zero padding), each case its own.

    Images are flipped left to right (the last axis), volumes along each of their axes, as MONAI's tutorials do: which
    axis of a volume is the body's left and right depends on its orientation.

    Args:
        images: ``(batch, channel, *spatial)``.
        targets: labels; moved along with the images where they are per voxel.
        generator: source of randomness, on the CPU.
        shift: largest shift, voxels.
    """
    rank = images.ndim - 2
    flips = torch.rand((len(images), 1 if rank == 2 else rank), generator=generator) < 0.5
    shifts = torch.randint(2 * shift + 1, (len(images), rank), generator=generator)
    images = _flip_and_shift(images, flips, shifts, shift)
    if targets.ndim == rank + 1:
        targets = _flip_and_shift(targets[:, None], flips, shifts, shift)[:, 0]
    return images, targets


def _flip_and_shift(batch: torch.Tensor, flips: torch.Tensor, shifts: torch.Tensor, margin: int) -> torch.Tensor:
    size, rank = batch.shape[2:], batch.ndim - 2
    for axis, flip in enumerate(flips.to(batch.device).unbind(1), start=-flips.shape[1]):
        batch = torch.where(flip.view(-1, *[1] * (batch.ndim - 1)), batch.flip(axis), batch)
    padded = F.pad(batch, [margin] * (2 * rank))
    moved = []
    # Stacked, not written into a batch: through that, gradients would be copied whole for every case.
    for case, offset in zip(padded.unbind(0), shifts.tolist(), strict=True):
        window = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
        moved.append(case[(slice(None), *window)])
    return torch.stack(moved)
