"""Another contrast curve, as scanners, viewers and augmentations apply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Gamma(Countermeasure):
    """Clip to the window, map it to [0, 1] and raise to a power, so that the noise's size varies with the brightness.

    No publication is known to try a fixed gamma on unlearnable images. The default is a guess: stronger than the 0.7
    to 1.5 from which nnU-Net (Isensee, Jaeger, Kohl, Petersen, Maier-Hein 2021) draws at random to augment.

    Args:
        gamma: the power; below 1 brightens, above 1 darkens, 1 changes nothing.
    """

    name: ClassVar[str] = "gamma"
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = shown(image, window)
        return to_stored(((values - low) / width) ** self.gamma * width + low, image.dtype)
