"""Networks by name, for 2D and 3D, sized for small and large images; and the frozen copy that noise steps use."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Norm, Pool
from monai.networks.nets import DenseNet, ResNet, SegResNet, UNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Called with ``spatial_dims``, ``in_channels`` and ``out_channels``; returns a module.
NetworkFactory: TypeAlias = Callable[..., nn.Module]

# Images up to this many voxels a side keep their resolution through the stem: the usual stem (stride 2, then pooling)
# leaves 28-pixel images with almost nothing to convolve.
_SMALL_SIDE = 64


def _resnet(block: str, layers: Sequence[int]) -> Callable[..., nn.Module]:
    def build(spatial_dims: int, in_channels: int, out_channels: int, width: float, small: bool) -> nn.Module:
        stem_stride = 2 if spatial_dims == 3 or not small else 1
        return ResNet(
            block,
            list(layers),
            [max(4, round(c * width)) for c in (64, 128, 256, 512)],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            num_classes=out_channels,
            conv1_t_size=3 if small else 7,
            conv1_t_stride=stem_stride,
            no_max_pool=small,
        )

    return build


def _densenet121(spatial_dims: int, in_channels: int, out_channels: int, width: float, small: bool) -> nn.Module:
    growth = max(4, round(32 * width))
    net = DenseNet(spatial_dims, in_channels, out_channels, 2 * growth, growth, block_config=(6, 12, 24, 16))
    if small:
        stride = 2 if spatial_dims == 3 else 1
        net.features.conv0 = Conv[Conv.CONV, spatial_dims](in_channels, 2 * growth, 3, stride, 1, bias=False)
        net.features.pool0 = nn.Identity() if spatial_dims == 3 else Pool[Pool.MAX, spatial_dims](2)
    return net


def _vgg11(spatial_dims: int, in_channels: int, out_channels: int, width: float, small: bool) -> nn.Module:
    """VGG-11 with batch normalisation and global pooling; small inputs are halved three times instead of five."""
    layers: list[nn.Module] = []
    channels = in_channels
    stages = (64,), (128,), (256, 256), (512, 512), (512, 512)
    for index, stage in enumerate(stages):
        for full_width in stage:
            out = max(4, round(full_width * width))
            conv = Conv[Conv.CONV, spatial_dims](channels, out, 3, padding=1, bias=False)
            layers += [conv, Norm[Norm.BATCH, spatial_dims](out), nn.ReLU(inplace=True)]
            channels = out
        if not small or index < 3:
            layers.append(Pool[Pool.MAX, spatial_dims](2))
    pool = Pool[Pool.ADAPTIVEAVG, spatial_dims](1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(channels, out_channels))


class _AnySizeUNet(UNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _padded(super().forward, x, self.dimensions, math.prod(self.strides))


class _AnySizeSegResNet(SegResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _padded(super().forward, x, self.spatial_dims, 2 ** (len(self.blocks_down) - 1))


def _padded(
    forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, spatial_dims: int, factor: int
) -> torch.Tensor:
    """Run a network that halves images and joins the halves again, on any size: it needs multiples of ``factor``."""
    # One side at a time and no branches, so that frozen_copy can trace this. F.pad begins with the last axis.
    sides = [x.shape[axis] for axis in range(2, 2 + spatial_dims)]
    padding = [end for side in reversed(sides) for end in (0, -side % factor)]
    everything = slice(None)
    return forward(F.pad(x, padding))[(everything, everything, *(slice(0, side) for side in sides))]


def _unet(spatial_dims: int, in_channels: int, out_channels: int, width: float, small: bool) -> nn.Module:
    channels = [max(4, round(c * width)) for c in (64, 128, 256, 512)]
    return _AnySizeUNet(spatial_dims, in_channels, out_channels, channels, (2, 2, 2), num_res_units=2, norm="batch")


def _segresnet(spatial_dims: int, in_channels: int, out_channels: int, width: float, small: bool) -> nn.Module:
    filters = 8 * max(1, round(32 * width / 8))  # SegResNet normalises in groups of 8 channels
    return _AnySizeSegResNet(spatial_dims, filters, in_channels, out_channels, blocks_down=(1, 2, 2), blocks_up=(1, 1))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet10": _resnet("basic", (1, 1, 1, 1)),
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "densenet121": _densenet121,
    "vgg11": _vgg11,
    "unet": _unet,
    "segresnet": _segresnet,
}
#: Names that answer per voxel; the others answer per image.
SEGMENTATION_NETWORKS = frozenset({"unet", "segresnet"})


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
        width: channels as a share of the published architecture's.
        image_size: spatial shape of the inputs; sides above 64 get the published stem, smaller ones (and None) one that
            keeps resolution.

    Raises:
        ValueError: for an unknown name, or a rank other than 2 or 3.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    small = image_size is None or min(image_size) <= _SMALL_SIDE
    return NETWORKS[name](spatial_dims, in_channels, out_channels, width, small)


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


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy for noise steps: evaluation mode, no parameter gradients, batch normalisation folded into convolutions.

    Folding halves the memory traffic of a noise step on the CPU. A model that cannot be traced is copied unfolded.

    Args:
        model: any module; left as it was.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        return _fold_batch_norm(torch.fx.symbolic_trace(frozen))
    except Exception:  # tracing fails in as many ways as models are written; the unfolded copy is correct, only slower
        return copy.deepcopy(model).eval().requires_grad_(False)


def _fold_batch_norm(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    modules: dict[str, Any] = dict(graph.named_modules())
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    used = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], norms):
            continue
        source, norm = node.args[0], modules[node.target]
        foldable = source.op == "call_module" and isinstance(modules[source.target], convolutions)
        # A shared module or an output that others read must keep its own values.
        if not foldable or len(source.users) > 1 or used.count(source.target) > 1 or norm.running_mean is None:
            continue
        folded = fuse_conv_bn_eval(modules[source.target], norm)
        parent, _, leaf = source.target.rpartition(".")
        setattr(modules[parent] if parent else graph, leaf, folded)
        modules[source.target] = folded
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    graph.delete_all_unused_submodules()
    return graph.requires_grad_(False)
