"""Where networks compute, and how their numbers lie in memory there."""

from __future__ import annotations

import torch
from torch import nn


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the first CUDA device, else the CPU; anything else is torch's own name.

    Raises:
        ValueError: for a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device} asked for, but torch finds no CUDA device; use --device cpu or auto")
        resolved = torch.device("cuda", resolved.index or 0)
    return resolved


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a batch from the CPU to where it is computed with; to a GPU from pinned memory, without waiting for the copy.

    Args:
        tensor: any shape, on the CPU.
        device: where to.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def memory_format(model: nn.Module, device: torch.device, spatial_dims: int) -> torch.memory_format:
    """How the images and weights of a network lie in memory: channels last in 2D, where that is safe.

    On CPUs with AVX2 but without AVX-512, oneDNN (torch 2.14) writes beyond its memory in the backward pass of convolutions whose
    channels are last and no multiple of 8.

    Args:
        model: the network.
        device: where it computes.
        spatial_dims: 2 or 3.
    """
    if spatial_dims != 2:
        return torch.contiguous_format
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    sizes = {size for layer in layers for size in (layer.in_channels, layer.out_channels)} - {1, 3}
    safe = device.type == "cuda" or all(size % 8 == 0 for size in sizes)
    return torch.channels_last if safe else torch.contiguous_format
