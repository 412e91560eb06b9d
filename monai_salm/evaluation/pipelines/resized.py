"""Images brought to another size before training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.evaluation.pipelines.resampling import averaged, resampled
from monai_salm.learning.cases import Cases


@dataclass(frozen=True, kw_only=True)
class Resized(Pipeline):
    """Train and test at ``scale`` times the size; shrinking averages.

    Args:
        scale: new size as a share of the one that networks see in plain training.
    """

    family: ClassVar[str] = "resized"
    source: ClassVar[str] = (
        "torchvision.transforms.Resize, antialiased as by default, and MONAI's Resized with mode area for volumes"
    )

    scale: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and 0 < self.scale <= 4):
            raise ValueError(f"scale must be in (0, 4], got {self.scale}")

    @property
    def name(self) -> str:
        return f"{self.family} {self.scale:g}"

    def prepare(self, cases: Cases) -> Cases:
        return resampled(cases, self.scale, averaged)
