"""Devices of networks, and the memory format of their tensors."""

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
    """Copy a tensor from the CPU to a device; to a GPU from pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def memory_format(model: nn.Module, device: torch.device, spatial_dims: int) -> torch.memory_format:
    """Memory format of a network's images and weights: channels last in 2D, where that is safe.

    On CPUs with AVX2 but without AVX-512, oneDNN (torch 2.14) writes beyond its memory in the backward pass of convolutions whose
    channels are last and no multiple of 8.
    """
    if spatial_dims != 2:
        return torch.contiguous_format
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    sizes = {size for layer in layers for size in (layer.in_channels, layer.out_channels)} - {1, 3}
    safe = device.type == "cuda" or all(size % 8 == 0 for size in sizes)
    return torch.channels_last if safe else torch.contiguous_format
