"""The augmentation of Auto3DSeg's SegResNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from monai.networks.layers import GaussianFilter

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.augmentation import Batch, mirrored, on_some, per_case, rotations, uniform, warped

_LEAST_SD = 1e-4


@dataclass(frozen=True, kw_only=True)
class Auto3DSeg(Pipeline):
    """Rotate and scale, blur, change intensities, noise and mirrors, on z-scored volumes.

    Each volume and channel is z-scored by the mean and deviation of its numbers that are not 0, augmented, and brought back to
    [0, 1].
    """

    family: ClassVar[str] = "auto3dseg"
    source: ClassVar[str] = (
        "Project-MONAI/research-contributions, auto3dseg/algorithm_templates/segresnet (segmenter.py): affine of 0.26 radians and "
        "scales 0.8 to 1.2 (p 0.2), blur 0.5 to 1 (p 0.2), factors 0.7 to 1.3 (p 0.5), shifts of 0.1 (p 0.5), noise of 0.1 (p 0.2), "
        "mirrors (p 0.5)"
    )
    ranks: ClassVar[tuple[int, ...]] = (3,)

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        axes, count = (2, 3, 4), len(images)

        def moved(some: torch.Tensor, labels: torch.Tensor) -> Batch:
            scales = torch.diag_embed(uniform((len(some), 3), 0.8, 1.2, generator))
            return warped(
                some, labels, rotations(uniform((len(some), 3), -0.26, 0.26, generator)) @ scales, padding="border"
            )

        def blurred(some: torch.Tensor, labels: torch.Tensor) -> Batch:
            sigmas = uniform((len(some), 3), 0.5, 1.0, generator).tolist()
            pairs = zip(some, sigmas, strict=True)
            return torch.cat([GaussianFilter(3, sigma)(image[None]) for image, sigma in pairs]), labels

        def noised(some: torch.Tensor, labels: torch.Tensor) -> Batch:
            strength = per_case(uniform((len(some),), 0, 0.1, generator), some)
            return some + strength * torch.randn(some.shape, generator=generator), labels

        seen = torch.where(images != 0, images, torch.nan)
        mean = seen.nanmean(axes, keepdim=True).nan_to_num()
        deviation = (seen - mean).square().nanmean(axes, keepdim=True).sqrt().nan_to_num().clamp(min=_LEAST_SD)
        scored, targets = on_some((images - mean) / deviation, targets, 0.2, generator, moved)
        scored, targets = on_some(scored, targets, 0.2, generator, blurred)
        some = [torch.rand(count, generator=generator) < 0.5 for _ in range(2)]
        scored = scored * per_case(1 + some[0] * uniform((count,), -0.3, 0.3, generator), scored)
        scored = scored + per_case(some[1] * uniform((count,), -0.1, 0.1, generator), scored)
        scored, targets = on_some(scored, targets, 0.2, generator, noised)
        restored = (scored * deviation + mean).clamp(0, 1)
        return mirrored(restored, targets, torch.rand((count, 3), generator=generator) < 0.5)
