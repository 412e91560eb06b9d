"""Volumes resampled to larger voxels before training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.evaluation.pipelines.resampling import interpolated, resampled
from monai_salm.learning.cases import Cases


@dataclass(frozen=True, kw_only=True)
class Spacing(Pipeline):
    """Train and test on volumes of voxels ``factor`` times as large along every axis; linear for images.

    Args:
        factor: new voxel size as a multiple of the old.
    """

    family: ClassVar[str] = "spacing"
    source: ClassVar[str] = (
        "MONAI's Spacingd with mode (bilinear, nearest), as in the tutorial spleen_segmentation_3d, whose voxels are 1.5 mm"
    )
    ranks: ClassVar[tuple[int, ...]] = (3,)

    factor: float = 1.25

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and 0.25 <= self.factor <= 8):
            raise ValueError(f"factor must be in [0.25, 8], got {self.factor}")

    @property
    def name(self) -> str:
        return f"{self.family} {self.factor:g}"

    def prepare(self, cases: Cases) -> Cases:
        return resampled(cases, 1 / self.factor, interpolated)
