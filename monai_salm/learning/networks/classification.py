"""Networks that answer per image.

Each builder takes ``spatial_dims``, ``in_channels``, ``out_channels``, ``width`` and ``image_size``, as
``build_network`` describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Norm, Pool
from monai.networks.nets import DenseNet, EfficientNet, ResNet, ViT
from torch import nn

from monai_salm.learning.networks.sizes import drop_cross_attention, fixed_size, halvings, is_small, require_size, share

Size: TypeAlias = Sequence[int] | None

# EfficientNet-B0 (Tan and Le 2019, table 1): repeats, kernel, stride, expansion, channels in and out, squeeze.
_EFFICIENTNET_B0 = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)


def _resnet(block: str, layers: Sequence[int]) -> Callable[..., nn.Module]:
    def build(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
        small = is_small(image_size)
        return ResNet(
            block,
            list(layers),
            [share(c, width) for c in (64, 128, 256, 512)],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            num_classes=out_channels,
            conv1_t_size=3 if small else 7,
            conv1_t_stride=2 if spatial_dims == 3 or not small else 1,
            no_max_pool=small,
        )

    return build


def _densenet121(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    """DenseNet-121; sides below 16 skip the last poolings, so that a voxel is left."""
    growth = share(32, width)
    net = DenseNet(spatial_dims, in_channels, out_channels, 2 * growth, growth, block_config=(6, 12, 24, 16))
    if is_small(image_size):
        stride = 2 if spatial_dims == 3 else 1
        net.features.conv0 = Conv[Conv.CONV, spatial_dims](in_channels, 2 * growth, 3, stride, 1, bias=False)
        net.features.pool0 = nn.Identity() if spatial_dims == 3 else Pool[Pool.MAX, spatial_dims](2)
        for skipped in range(halvings(4, image_size), 4):
            if skipped:
                net.features.get_submodule(f"transition{skipped}").pool = nn.Identity()
            else:
                net.features.pool0 = nn.Identity()
    return net


def _vgg11(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    """VGG-11 with batch normalisation and global pooling; small inputs are halved three times at most, not five."""
    layers: list[nn.Module] = []
    channels = in_channels
    pools = halvings(3, image_size) if is_small(image_size) else 5
    stages = (64,), (128,), (256, 256), (512, 512), (512, 512)
    for index, stage in enumerate(stages):
        for full_width in stage:
            out = share(full_width, width)
            conv = Conv[Conv.CONV, spatial_dims](channels, out, 3, padding=1, bias=False)
            layers += [conv, Norm[Norm.BATCH, spatial_dims](out), nn.ReLU(inplace=True)]
            channels = out
        if index < pools:
            layers.append(Pool[Pool.MAX, spatial_dims](2))
    pool = Pool[Pool.ADAPTIVEAVG, spatial_dims](1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(channels, out_channels))


class _Depthwise(nn.Conv2d):
    """A depthwise convolution, in float32 on the CPU also under autocast: its backward pass in bfloat16 is slow there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def _as_depthwise(conv: nn.Conv2d) -> _Depthwise:
    channels, kernel, stride = conv.in_channels, conv.kernel_size[0], conv.stride[0]
    depthwise = _Depthwise(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    depthwise.weight = conv.weight
    return depthwise


def _efficientnet_b0(
    spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size
) -> nn.Module:
    """EfficientNet-B0; channels are rounded to multiples of 8 as published, so they are at least 8."""
    net = EfficientNet(
        list(_EFFICIENTNET_B0),
        spatial_dims,
        in_channels,
        out_channels,
        width_coefficient=width,
        # Published: momentum 0.01, made for hundreds of thousands of steps. After a few hundred the statistics would
        # still be those of the first steps.
        norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
    )
    if is_small(image_size):
        net._conv_stem.stride = (2 if spatial_dims == 3 else 1,) * spatial_dims
    for module in net.modules():
        for name, child in list(module.named_children()):
            if name.endswith("_padding"):
                # MONAI pads for one image size. Half the kernel on either side, as in torchvision, suits every size.
                setattr(module, name, nn.Identity())
            elif isinstance(child, Conv[Conv.CONV, spatial_dims]):
                child.padding = tuple(side // 2 for side in child.kernel_size)
                if child.groups > 1 and spatial_dims == 2:
                    setattr(module, name, _as_depthwise(child))
            elif name == "_swish":
                setattr(module, name, nn.SiLU())  # the same function in one pass, and torch.fx can follow it
    return net


class _ViTLite(ViT):
    """MONAI's ViT, answering with logits only; sides that are not multiples of the patch are padded with zeros."""

    def __init__(self, image_size: Sequence[int], patch: Sequence[int], **settings: Any) -> None:
        sides = [side + -side % p for side, p in zip(image_size, patch, strict=True)]
        super().__init__(img_size=sides, patch_size=patch, classification=True, post_activation="none", **settings)
        drop_cross_attention(self)
        self.image_size = tuple(image_size)
        self.padding = [end for side, n in zip(sides[::-1], image_size[::-1], strict=True) for end in (0, side - n)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_size("vit", x, self.image_size)
        logits: torch.Tensor = super().forward(F.pad(x, self.padding))[0]  # type: ignore[no-untyped-call]
        return logits


def _vit(spatial_dims: int, in_channels: int, out_channels: int, width: float, image_size: Size) -> nn.Module:
    """ViT-Lite-6 (Hassani et al. 2021): 6 layers, 4 heads, hidden size ``256 * width``, hidden layers of twice that.

    Patches are chosen so that a side has about 4 (28 pixels: patches of 7 x 7), and of images with all sides above 64
    about 14 in 2D and 6 in 3D (224 pixels: 16 x 16; 96 voxels: 16 x 16 x 16). Patches of 4 x 4 take three times as long at 28
    pixels and are little better (docs/experiments.md).
    """
    sides = fixed_size("vit", image_size)
    small, large = 4, 14 if spatial_dims == 2 else 6
    hidden = share(256, width, multiple=4, least=16)
    return _ViTLite(
        sides,
        [_patch(side, small if is_small(sides) else large) for side in sides],
        in_channels=in_channels,
        hidden_size=hidden,
        mlp_dim=2 * hidden,
        num_layers=6,
        num_heads=4,
        num_classes=out_channels,
        spatial_dims=spatial_dims,
    )


def _patch(side: int, count: int) -> int:
    """The patch side that needs the least padding, among those near ``side / count``."""
    ideal = side / count
    candidates = range(max(2, round(0.75 * ideal)), max(2, round(1.25 * ideal)) + 1)
    return min(candidates, key=lambda patch: (-side % patch, abs(patch - ideal)))


CLASSIFICATION: dict[str, Callable[..., nn.Module]] = {
    "resnet10": _resnet("basic", (1, 1, 1, 1)),
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "densenet121": _densenet121,
    "vgg11": _vgg11,
    "efficientnet_b0": _efficientnet_b0,
    "vit": _vit,
}
