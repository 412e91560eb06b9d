"""Gaussian smoothing, the simplest low-pass filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from scipy.ndimage import gaussian_filter

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Blur(Countermeasure):
    """Clip to the window and smooth along every spatial axis; the edge is continued with its own values.

    The code of Liu, Zhao, Larson 2023 ("Image Shortcut Squeezing"), and others after it, has a kernel of 3 with sigma
    0.1. That kernel's outer weights are exp(-50): it is the identity, and results with it say nothing about smoothing.

    Args:
        sigma: standard deviation of the Gaussian, voxels; 0.5 to 1.5 smooths noise and leaves an image that is of use.
    """

    name: ClassVar[str] = "blur"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be positive, got {self.sigma}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values = shown(image, window)[0]
        smooth = gaussian_filter(values, self.sigma, mode="nearest", truncate=4.0, axes=tuple(range(1, image.ndim)))
        return to_stored(smooth, image.dtype)
