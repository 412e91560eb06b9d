"""nnU-Net's augmentation, on whole batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.augmentation import Batch, mirrored, on_some, per_case, rotations, uniform, warped

_LEAST_SD = 1e-4
_BLUR_RADIUS = 4  # voxels: four standard deviations of the strongest blur
_LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class NnUNet(Pipeline):
    """Rotate, scale, noise, blur, brightness, contrast, low resolution, gamma and mirror, on z-scored images.

    Each image and channel is z-scored by its own mean and deviation, augmented, and brought back to [0, 1]. nnU-Net rotates
    images in the plane by up to 180 degrees; 30 is its range for volumes. Its variance of the noise is used as the standard
    deviation, as nnU-Net does.

    Args:
        degrees: largest rotation about each axis.
    """

    family: ClassVar[str] = "nnunet"
    source: ClassVar[str] = (
        "nnU-Net v2, nnUNetTrainer.get_training_transforms with batchgeneratorsv2 (Isensee et al. 2021): rotation (p 0.2), scale "
        "0.7 to 1.4 (p 0.2), noise 0 to 0.1 (p 0.1), blur 0.5 to 1 (p 0.2), brightness and contrast 0.75 to 1.25 (p 0.15), low "
        "resolution 0.5 to 1 (p 0.25), gamma 0.7 to 1.5 (inverted p 0.1, p 0.3), mirrors"
    )

    degrees: float = 30.0

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        axes = tuple(range(2, images.ndim))
        mean = images.mean(axes, keepdim=True)
        deviation = images.std(axes, keepdim=True).clamp(min=_LEAST_SD)
        scored, targets = _rotated((images - mean) / deviation, targets, math.radians(self.degrees), generator)
        scored = _noised(scored, generator)
        for probability, each_channel, change in (
            (0.2, 0.5, _blurred),
            (0.15, 1.0, _brightened),
            (0.15, 1.0, _contrasted),
            (0.25, 0.5, _lowered),
            (0.1, 1.0, _inverted_gamma),
            (0.3, 1.0, _gamma),
        ):
            scored = _on_channels(scored, probability, each_channel, generator, change)
        restored = (scored * deviation + mean).clamp(0, 1)
        return mirrored(restored, targets, torch.rand((len(images), len(axes)), generator=generator) < 0.5)


def _rotated(images: torch.Tensor, targets: torch.Tensor, limit: float, generator: torch.Generator) -> Batch:
    """Rotate one image in five and scale one in five; what lies outside is the image's mean."""
    count, rank = len(images), images.ndim - 2
    angles = uniform((count, 1 if rank == 2 else 3), -limit, limit, generator)
    scales = uniform((count, 1, 1), 0.7, 1.4, generator)
    rotate, scale = (torch.rand((count, 1), generator=generator) < 0.2 for _ in range(2))
    matrices = rotations(angles * rotate) @ (torch.eye(rank) * torch.where(scale[..., None], scales, 1.0))
    members = (rotate | scale).nonzero()[:, 0]
    if len(members):
        images, targets = images.clone(), targets.clone()
        images[members], targets[members] = warped(images[members], targets[members], matrices[members])
    return images, targets


def _noised(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add noise to one image in ten, the same to all of its channels."""

    def noised(some: torch.Tensor, labels: torch.Tensor) -> Batch:
        strength = uniform((len(some), *[1] * (some.ndim - 1)), 0, 0.1, generator)
        return some + strength * torch.randn((len(some), 1, *some.shape[2:]), generator=generator), labels

    return on_some(images, images.new_empty(len(images)), 0.1, generator, noised)[0]


def _on_channels(
    images: torch.Tensor,
    probability: float,
    each_channel: float,
    generator: torch.Generator,
    change: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
) -> torch.Tensor:
    """Change some channels (each with ``each_channel``) of some images (each with ``probability``), as ``(n, *spatial)``."""
    count, channels = images.shape[:2]
    chosen = (torch.rand((count, 1), generator=generator) < probability) & (
        torch.rand((count, channels), generator=generator) < each_channel
    )
    members = chosen.view(-1).nonzero()[:, 0]
    if not len(members):
        return images
    flat = images.reshape(-1, *images.shape[2:]).clone()
    flat[members] = change(flat[members], generator)
    return flat.view(images.shape)


def _blurred(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gaussian blur of 0.5 to 1 voxels, each axis by its own."""
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    for axis in range(1, channels.ndim):
        sigma = uniform((len(channels), 1), 0.5, 1, generator)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        weights = weights / weights.sum(1, keepdim=True)
        side = channels.shape[axis]
        total = torch.zeros_like(channels)
        for offset, weight in zip(offsets.tolist(), weights.unbind(1), strict=True):
            places = (torch.arange(side) + offset).clamp(0, side - 1)
            total += per_case(weight, channels) * channels.index_select(axis, places)
        channels = total
    return channels


def _brightened(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return channels * per_case(_two_sided(len(channels), 0.75, 1.25, generator), channels)


def _contrasted(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Stretch about the mean, within the range that was there."""
    axes = tuple(range(1, channels.ndim))
    mean = channels.mean(axes, keepdim=True)
    factor = per_case(_two_sided(len(channels), 0.75, 1.25, generator), channels)
    changed = mean + factor * (channels - mean)
    return changed.clamp(channels.amin(axes, keepdim=True), channels.amax(axes, keepdim=True))


def _lowered(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Down by nearest neighbours and up again by interpolation."""
    size = channels.shape[1:]
    lowered = []
    for channel, scale in zip(channels, uniform((len(channels),), 0.5, 1, generator).tolist(), strict=True):
        small = [max(1, round(side * scale)) for side in size]
        down = F.interpolate(channel[None, None], small, mode="nearest-exact")
        lowered.append(F.interpolate(down, size, mode=_LINEAR[len(size)])[0, 0])
    return torch.stack(lowered)


def _gamma(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A power of the intensity; mean and deviation stay."""
    axes = tuple(range(1, channels.ndim))
    mean, deviation = channels.mean(axes, keepdim=True), channels.std(axes, keepdim=True)
    low = channels.amin(axes, keepdim=True)
    reach = (channels.amax(axes, keepdim=True) - low).clamp(min=1e-7)
    power = per_case(_two_sided(len(channels), 0.7, 1.5, generator), channels)
    changed = ((channels - low) / reach) ** power * reach + low
    spread = changed.std(axes, keepdim=True).clamp(min=1e-7)
    return (changed - changed.mean(axes, keepdim=True)) * (deviation / spread) + mean


def _inverted_gamma(channels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return -_gamma(-channels, generator)


def _two_sided(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Factors below and above 1 with equal probability, each side evenly (batchgenerators' ``BGContrast``)."""
    below = torch.rand(count, generator=generator) < 0.5
    return torch.where(below, uniform((count,), low, 1, generator), uniform((count,), 1, high, generator))
