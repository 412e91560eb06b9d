"""Median filter, which drops single voxels that stand out and keeps edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.ndimage import median_filter

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Median(Countermeasure):
    """Give each voxel the median of its neighbourhood, channel by channel; the edge is continued with its own values.

    From Xu, Evans, Qi 2018 ("Feature Squeezing", sizes 2 and 3). Values outside the window are not clipped: the median
    only asks which value is larger, so that networks see the same either way.

    Args:
        size: side of the square or cube that is the neighbourhood, voxels; an even size, centred half a voxel off,
            takes the upper of the two middle values.
    """

    name: ClassVar[str] = "median"
    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"size must be at least 2, got {self.size}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        if (
            image.dtype.kind == "f" and np.isnan(image).any()
        ):  # nothing has an order with NaN; networks see it as the low end
            image = np.where(np.isnan(image), window.bounds(len(image), image.ndim - 1)[0], image).astype(image.dtype)
        middle = np.stack([median_filter(channel, size=self.size, mode="nearest") for channel in image])
        return middle.astype(image.dtype, copy=False)  # in the stored byte order, which SciPy does not keep
