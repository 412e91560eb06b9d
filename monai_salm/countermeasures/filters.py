"""Countermeasures that filter single images, training and test images alike."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter

from monai_salm.countermeasures.base import Countermeasure, require
from monai_salm.learning.cases import Cases, View
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Red, green, blue, as in ITU-R BT.601 and Pillow's convert("L").
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Jpeg(Countermeasure):
    """Encode and decode as 8-bit JPEG, the window mapped to 0 to 255; volumes slice by slice along their last axis.

    Images of three channels are encoded as colour, others channel by channel. The default is that of Liu, Zhao, Larson 2023
    ("Image Shortcut Squeezing").

    Args:
        quality: 1 (smallest file) to 95.
    """

    name: ClassVar[str] = "jpeg"
    quality: int = 10

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 95, "quality", "in [1, 95]", self.quality)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = clipped(image, window)
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


@dataclass(frozen=True, kw_only=True)
class Grayscale(Countermeasure):
    """Replace each of three channels by their luminance; other images stay as they are.

    From Liu et al. 2021 ("Going Grayscale"): much noise differs between the channels, where the eye hardly sees it.
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
        values, low, width = clipped(image, window)
        luminance = np.tensordot(_LUMINANCE, (values - low) / width, axes=1)
        return to_stored(luminance * width + low, image.dtype)


@dataclass(frozen=True, kw_only=True)
class BitDepth(Countermeasure):
    """Round to the nearest of ``2**bits`` levels, evenly spaced from the window's low to its high end.

    ``round(x * (2**bits - 1)) / (2**bits - 1)`` of Xu, Evans, Qi 2018 ("Feature Squeezing"); on unlearnable images Liu,
    Zhao, Larson 2023 ("Image Shortcut Squeezing"), whose 2 bits are the default. Their code drops the low bits, which darkens.

    Args:
        bits: of a voxel, 1 (black and white) to 16.
    """

    name: ClassVar[str] = "bit_depth"
    bits: int = 2

    def __post_init__(self) -> None:
        require(1 <= self.bits <= 16, "bits", "in [1, 16]", self.bits)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = clipped(image, window)
        steps = 2**self.bits - 1
        return to_stored(np.rint((values - low) / width * steps) / steps * width + low, image.dtype)


@dataclass(frozen=True, kw_only=True)
class Blur(Countermeasure):
    """Gaussian smoothing along every spatial axis; the edge is continued with its own values.

    The code of Liu, Zhao, Larson 2023 has a kernel of 3 with sigma 0.1, which is the identity: results with it say nothing
    about smoothing.

    Args:
        sigma: standard deviation of the Gaussian, voxels; 0.5 to 1.5 smooths noise and leaves an image that is of use.
    """

    name: ClassVar[str] = "blur"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.sigma) and self.sigma > 0, "sigma", "positive", self.sigma)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values = clipped(image, window)[0]
        smooth = gaussian_filter(values, self.sigma, mode="nearest", truncate=4.0, axes=tuple(range(1, image.ndim)))
        return to_stored(smooth, image.dtype)


@dataclass(frozen=True, kw_only=True)
class Median(Countermeasure):
    """Give each voxel the median of its neighbourhood, channel by channel; the edge is continued with its own values.

    From Xu, Evans, Qi 2018 ("Feature Squeezing", sizes 2 and 3). Nothing is clipped: the median only orders values.

    Args:
        size: side of the square or cube that is the neighbourhood, voxels; an even size, centred half a voxel off,
            takes the upper of the two middle values.
    """

    name: ClassVar[str] = "median"
    size: int = 3

    def __post_init__(self) -> None:
        require(self.size >= 2, "size", "at least 2", self.size)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        if image.dtype.kind == "f" and np.isnan(image).any():  # NaN has no order; networks see it as the low end
            image = np.where(np.isnan(image), window.bounds(len(image), image.ndim - 1)[0], image).astype(image.dtype)
        middle = np.stack([median_filter(channel, size=self.size, mode="nearest") for channel in image])
        return middle.astype(image.dtype, copy=False)  # in the stored byte order, which SciPy does not keep


@dataclass(frozen=True, kw_only=True)
class Resample(Countermeasure):
    """Shrink with averaging and enlarge linearly to the old size, as a pipeline at a coarser spacing does.

    As a defence against adversarial noise, rescaling by a random factor is from Xie et al. 2018 ("Mitigating Adversarial
    Effects Through Randomization").

    Args:
        factor: small side / large side, in (0, 1); small sides are whole numbers, rounded down and at least 1.
    """

    name: ClassVar[str] = "resample"
    factor: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.factor < 1, "factor", "in (0, 1)", self.factor)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values = torch.from_numpy(clipped(image, window)[0])[None]
        small = tuple(max(1, int(n * self.factor)) for n in image.shape[1:])
        for size in (small, image.shape[1:]):
            values = View("resize", size).resize(values)
        return to_stored(values[0].numpy(), image.dtype)


@dataclass(frozen=True, kw_only=True)
class Gamma(Countermeasure):
    """Raise the intensity in the window, from 0 to 1, to a power: the noise's size then varies with the brightness.

    The default is stronger than the 0.7 to 1.5 from which nnU-Net draws at random to augment.

    Args:
        gamma: the power; below 1 brightens, above 1 darkens, 1 changes nothing.
    """

    name: ClassVar[str] = "gamma"
    gamma: float = 0.5

    def __post_init__(self) -> None:
        require(math.isfinite(self.gamma) and self.gamma > 0, "gamma", "positive", self.gamma)

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = clipped(image, window)
        return to_stored(((values - low) / width) ** self.gamma * width + low, image.dtype)


def clipped(image: Array, window: IntensityWindow) -> tuple[NDArray[np.float64], Array, Array]:
    """What networks see of an image, in stored units: clipped to the window of each channel, NaN at its low end.

    Returns:
        The values, and the low end and the width of the window, shaped for arithmetic with them.
    """
    low, high = window.bounds(len(image), image.ndim - 1)
    values = np.asarray(image, np.float64)
    values = np.clip(np.where(np.isnan(values), low, values), low, high)
    return values, low, high - low


def to_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Bring computed intensities back to the stored type: rounded and clipped for integers, cast for floats."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    stored: Array = values.astype(dtype)
    return stored
