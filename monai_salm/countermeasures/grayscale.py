"""Colour taken away, and with it the noise that lives in colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.learning.cases import Cases
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Red, green, blue, as in ITU-R BT.601 and Pillow's convert("L").
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Grayscale(Countermeasure):
    """Clip to the window and replace each of three channels by their luminance; other images stay as they are.

    From Liu, Zhao, Kolmus, Berns, van Laarhoven, Heskes, Larson 2021 ("Going Grayscale"): much noise differs between
    the channels, where the eye hardly sees it and where images carry little.
    """

    name: ClassVar[str] = "grayscale"

    def without_effect(self, cases: Cases) -> str | None:
        channels = cases.in_channels
        if channels == 3:
            return None
        return f"no effect: the images have {'one channel' if channels == 1 else f'{channels} channels'}"

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        if len(image) != 3:
            return image
        values, low, width = shown(image, window)
        luminance = np.tensordot(_LUMINANCE, (values - low) / width, axes=1)
        return to_stored(luminance * width + low, image.dtype)
