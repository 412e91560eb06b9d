"""Networks that answer per voxel, on images of any size: odd sides are padded and cropped again.

Each builder takes ``spatial_dims``, ``in_channels``, ``out_channels``, ``width`` and ``image_size``, as
``build_network`` describes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from monai.networks.nets import UNETR, AttentionUnet, SegResNet, UNet
from torch import nn

from monai_salm.learning.networks.sizes import drop_cross_attention, fixed_size, padded, require_size, share

Size: TypeAlias = Sequence[int] | None

_UNETR_PATCH = 16  # built into UNETR: its decoder doubles the patches four times


class _AnySizeUNet(UNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return padded(super().forward, x, self.dimensions, math.prod(self.strides))


class _AnySizeAttentionUnet(AttentionUnet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return padded(super().forward, x, self.dimensions, math.prod(self.strides))


class _AnySizeSegResNet(SegResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return padded(super().forward, x, self.spatial_dims, 2 ** (len(self.blocks_down) - 1))


class _AnySizeUNETR(UNETR):
    def __init__(self, image_size: Sequence[int], **settings: Any) -> None:
        super().__init__(img_size=[side + -side % _UNETR_PATCH for side in image_size], **settings)
        drop_cross_attention(self)
        self.image_size = tuple(image_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_size("unetr", x, self.image_size)
        return padded(super().forward, x, len(self.image_size), _UNETR_PATCH)


def _unet(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    channels = [share(c, width) for c in (64, 128, 256, 512)]
    return _AnySizeUNet(spatial_dims, in_channels, out_channels, channels, (2, 2, 2), num_res_units=2, norm="batch")


def _attention_unet(
    spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size
) -> nn.Module:
    channels = [share(c, width) for c in (64, 128, 256, 512)]
    return _AnySizeAttentionUnet(spatial_dims, in_channels, out_channels, channels, (2, 2, 2))


def _segresnet(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    filters = share(32, width, multiple=8)  # SegResNet normalises in groups of 8 channels
    return _AnySizeSegResNet(spatial_dims, filters, in_channels, out_channels, blocks_down=(1, 2, 2), blocks_up=(1, 1))


def _unetr(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    """UNETR: 12 layers, 12 heads, hidden size ``768 * width`` in multiples of 12, decoder channels ``16 * width``."""
    hidden = share(768, width, multiple=12)
    return _AnySizeUNETR(
        fixed_size("unetr", image_size),
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=share(16, width),
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        spatial_dims=spatial_dims,
    )


SEGMENTATION: dict[str, Callable[..., nn.Module]] = {
    "unet": _unet,
    "segresnet": _segresnet,
    "attention_unet": _attention_unet,
    "unetr": _unetr,
}
