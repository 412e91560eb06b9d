"""Intensities brought to [0, 1] and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monai_salm.evaluation.pipelines.base import Pipeline


@dataclass(frozen=True, kw_only=True)
class Plain(Pipeline):
    """Train on the images as they are."""

    family: ClassVar[str] = "plain"
    source: ClassVar[str] = "the images' intensity window, as MONAI's ScaleIntensityRange"
