"""Gaussian smoothing, the simplest low-pass filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from monai.networks.layers import gaussian_1d, separable_filtering

from monai_salm.countermeasures.base import Countermeasure, to_stored
from monai_salm.intensity import Array, IntensityWindow


@dataclass(frozen=True, kw_only=True)
class Blur(Countermeasure):
    """Smooth along every spatial axis; the edge is continued with its own values.

    Args:
        sigma: standard deviation of the Gaussian, voxels.
    """

    name: ClassVar[str] = "blur"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be positive, got {self.sigma}")

    def apply(self, image: Array, window: IntensityWindow) -> Array:
        kernel = gaussian_1d(torch.tensor(self.sigma), truncated=4.0, approx="sampled", normalize=True)
        values = torch.from_numpy(np.asarray(image, np.float32))[None]
        smooth = separable_filtering(values, [kernel] * (image.ndim - 1), mode="replicate")
        return to_stored(smooth[0].numpy(), image.dtype)
