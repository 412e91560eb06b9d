"""Networks by name, for 2D and 3D, sized for small and large images; and the frozen copy that noise steps use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import nn

from monai_salm.learning.networks.frozen import frozen_copy

__all__ = [
    "NETWORKS",
    "SEGMENTATION_NETWORKS",
    "TRANSFORMERS",
    "NetworkFactory",
    "build_network",
    "frozen_copy",
    "seeded",
]

#: Called with ``spatial_dims``, ``in_channels`` and ``out_channels``; returns a module.
NetworkFactory: TypeAlias = Callable[..., nn.Module]

#: Names that answer per voxel; the others answer per image.
SEGMENTATION_NETWORKS = ("unet", "segresnet", "attention_unet", "unetr")
#: Every network.
NETWORKS = (
    "resnet10",
    "resnet18",
    "resnet50",
    "densenet121",
    "vgg11",
    "efficientnet_b0",
    "vit",
    *SEGMENTATION_NETWORKS,
)
#: Names of transformers. ``vit`` wants Adam: on 28 x 28 brain scans it got 0.63 of the test images right after 15 epochs
#: of SGD at 0.1, and 0.77 with Adam at 1e-3. ``unetr`` learned a toy problem with either.
TRANSFORMERS = frozenset({"vit", "unetr"})


def build_network(
    name: str,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    *,
    width: float = 0.25,
    image_size: Sequence[int] | None = None,
) -> nn.Module:
    """Build a network by name with fresh random weights from torch's global generator.

    Args:
        name: one of ``NETWORKS``.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        width: channels as a share of the published architecture's, rounded to what the architecture can have.
        image_size: spatial shape of the inputs; sides above 64 get the published stem, smaller ones (and None) one that
            keeps resolution. ``vit`` and ``unetr`` need it, and take inputs of that size only.

    Raises:
        ValueError: for an unknown name, a rank other than 2 or 3, or an image size that does not fit them.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    if image_size is not None and (len(image_size) != spatial_dims or min(image_size) < 1):
        raise ValueError(f"image_size must be {spatial_dims} positive numbers, got {tuple(image_size)}")
    # MONAI takes seconds to import, which commands without networks need not.
    from monai_salm.learning.networks.classification import CLASSIFICATION
    from monai_salm.learning.networks.segmentation import SEGMENTATION

    builders = SEGMENTATION if name in SEGMENTATION_NETWORKS else CLASSIFICATION
    return builders[name](spatial_dims, in_channels, out_channels, width, image_size)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Make torch's global generator start from ``seed`` inside the block and leave it untouched outside.

    MONAI's networks draw weights and dropout from the global generator; everything else here passes generators.

    Args:
        seed: any integer.
        device: the CUDA device in use is covered too.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
