"""Fewer grey levels, too coarse for small noise to show except near a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class BitDepth(Countermeasure):
    """Clip to the window and round to the nearest of ``2**bits`` levels, evenly spaced from its low to its high end.

    ``round(x * (2**bits - 1)) / (2**bits - 1)`` of Xu, Evans, Qi 2018 ("Feature Squeezing"); on unlearnable images Liu,
    Zhao, Larson 2023 ("Image Shortcut Squeezing"), whose 2 bits are the default. Their code drops the low bits instead:
    as many levels, but each the dark end of its step, so that white becomes 192 of 255.

    Args:
        bits: of a voxel, 1 (black and white) to 16.
    """

    name: ClassVar[str] = "bit_depth"
    bits: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits must be in [1, 16], got {self.bits}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = shown(image, window)
        steps = 2**self.bits - 1
        return to_stored(np.rint((values - low) / width * steps) / steps * width + low, image.dtype)
