"""Sizes of inputs and widths of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

# Images up to this many voxels a side keep their resolution through the stem: the usual stem shrinks 28 pixels to 7.
_SMALL_SIDE = 64


def is_small(image_size: Sequence[int] | None) -> bool:
    """Whether to take the stem for small images; also if the size is not known."""
    return image_size is None or min(image_size) <= _SMALL_SIDE


def halvings(most: int, image_size: Sequence[int] | None) -> int:
    """How often an image can be halved, rounding down, until its smallest side is one voxel; at most ``most``."""
    return most if image_size is None else min(most, min(image_size).bit_length() - 1)


def share(channels: int, width: float, multiple: int = 1, least: int = 4) -> int:
    """``channels * width``, at least ``least``, rounded to a multiple of ``multiple``."""
    return multiple * max(round(channels * width / multiple), -(-least // multiple))


def padded(
    forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, spatial_dims: int, factor: int
) -> torch.Tensor:
    """Run a network that needs multiples of ``factor`` on any size: pad, run, crop."""
    # One side at a time and no branches, so that frozen_copy can trace this. F.pad begins with the last axis.
    sides = [x.shape[axis] for axis in range(2, 2 + spatial_dims)]
    padding = [end for side in reversed(sides) for end in (0, -side % factor)]
    everything = slice(None)
    return forward(F.pad(x, padding))[(everything, everything, *(slice(0, side) for side in sides))]


def drop_cross_attention(transformer: nn.Module) -> None:
    """Remove the norms of cross attention in MONAI's transformers: their parameters never get a gradient."""
    for module in transformer.modules():
        if hasattr(module, "norm_cross_attn"):
            module.norm_cross_attn = nn.Identity()


def fixed_size(network: str, image_size: Sequence[int] | None) -> tuple[int, ...]:
    """The size of the inputs, for networks with one learned vector for every position.

    Raises:
        ValueError: if it is not known.
    """
    if image_size is None:
        raise ValueError(
            f"network {network!r} learns a vector for every position, so it needs the spatial size of its inputs: give "
            "image_size, for instance (28, 28)"
        )
    return tuple(image_size)


def require_size(network: str, x: torch.Tensor, image_size: Sequence[int]) -> None:
    """Refuse inputs of another size than the network was built for.

    Raises:
        ValueError: for another size.
    """
    if tuple(x.shape[2:]) != tuple(image_size):
        raise ValueError(
            f"network {network!r} was built for images of {tuple(image_size)}, got {tuple(x.shape[2:])}: resize them, or "
            "build it with another image_size"
        )
