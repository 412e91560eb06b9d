"""JPEG compression, which drops the high frequencies that most noise lives in."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Jpeg(Countermeasure):
    """Encode and decode as 8-bit JPEG, the window mapped to 0 to 255; volumes slice by slice along their last axis.

    Values outside the window are clipped to it. Images of three channels are encoded as colour, others channel by
    channel. The default is that of Liu, Zhao, Larson 2023 ("Image Shortcut Squeezing").

    Args:
        quality: 1 (smallest file) to 95.
    """

    name: ClassVar[str] = "jpeg"
    quality: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ValueError(f"quality must be in [1, 95], got {self.quality}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = shown(image, window)
        pixels = np.rint((values - low) / width * 255).astype(np.uint8)
        if pixels.ndim == 3:
            decoded = self._slice(pixels)
        elif pixels.ndim == 4:
            decoded = np.stack([self._slice(pixels[..., index]) for index in range(pixels.shape[-1])], axis=-1)
        else:
            raise ValueError(f"jpeg takes images of shape (channel, *spatial) of rank 2 or 3, got {image.shape}")
        return to_stored(decoded / 255 * width + low, image.dtype)

    def _slice(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Round trip of one ``(channel, height, width)`` picture."""
        if len(pixels) == 3:
            return self._round_trip(np.moveaxis(pixels, 0, -1)).transpose(2, 0, 1)
        return np.stack([self._round_trip(channel) for channel in pixels])

    def _round_trip(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=self.quality)
        return np.asarray(Image.open(buffer))
