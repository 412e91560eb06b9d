"""Countermeasures that filter single images, training and test images alike."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.learning.cases import Cases, View
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Red, green, blue, as in ITU-R BT.601 and Pillow's convert("L").
_LUMINANCE = (0.299, 0.587, 0.114)


class _OfWhatIsSeen(Countermeasure):
    """A filter of what networks see: intensities in the window, from 0 to 1."""

    def _change(self, seen: NDArray[np.float64]) -> Any:
        raise NotImplementedError

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values, low, width = clipped(image, window)
        return to_stored(self._change((values - low) / width) * width + low, image.dtype)


@dataclass(frozen=True, kw_only=True)
class Jpeg(_OfWhatIsSeen):
    """Encode and decode as 8-bit JPEG, the window mapped to 0 to 255; volumes slice by slice along their last axis.

    Images of three channels are encoded as colour, others channel by channel. The default is that of Liu, Zhao, Larson 2023
    ("Image Shortcut Squeezing").

    Args:
        quality: 1 (smallest file) to 95.
    """

    name: ClassVar[str] = "jpeg"
    quality: int = field(default=10, metadata={"in": "[1, 95]"})

    def _change(self, seen: NDArray[np.float64]) -> Any:
        if seen.ndim not in (3, 4):
            raise ValueError(f"jpeg takes images of shape (channel, *spatial) of rank 2 or 3, got {seen.shape}")
        pixels = np.rint(seen * 255).astype(np.uint8)
        if pixels.ndim == 4:
            return np.stack([self._slice(part) for part in np.moveaxis(pixels, -1, 0)], axis=-1) / 255
        return self._slice(pixels) / 255

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
class Grayscale(_OfWhatIsSeen):
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
        return super().filter(image, window) if len(image) == 3 else image

    def _change(self, seen: NDArray[np.float64]) -> Any:
        return np.tensordot(_LUMINANCE, seen, axes=1)


@dataclass(frozen=True, kw_only=True)
class BitDepth(_OfWhatIsSeen):
    """Round to the nearest of ``2**bits`` levels, evenly spaced from the window's low to its high end.

    ``round(x * (2**bits - 1)) / (2**bits - 1)`` of Xu, Evans, Qi 2018 ("Feature Squeezing"); on unlearnable images Liu,
    Zhao, Larson 2023 ("Image Shortcut Squeezing"), whose 2 bits are the default. Their code drops the low bits, which darkens.

    Args:
        bits: of a voxel, 1 (black and white) to 16.
    """

    name: ClassVar[str] = "bit_depth"
    bits: int = field(default=2, metadata={"in": "[1, 16]"})

    def _change(self, seen: NDArray[np.float64]) -> Any:
        steps = 2**self.bits - 1
        return np.rint(seen * steps) / steps


@dataclass(frozen=True, kw_only=True)
class Blur(Countermeasure):
    """Gaussian smoothing along every spatial axis; the edge is continued with its own values.

    The code of Liu, Zhao, Larson 2023 has a kernel of 3 with sigma 0.1, which is the identity: results with it say nothing
    about smoothing.

    Args:
        sigma: standard deviation of the Gaussian, voxels; 0.5 to 1.5 smooths noise and leaves an image that is of use.
    """

    name: ClassVar[str] = "blur"
    sigma: float = field(default=1.0, metadata={"in": "(0, inf)"})

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
    size: int = field(default=3, metadata={"in": "[2, inf)"})

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
    factor: float = field(default=0.5, metadata={"in": "(0, 1)"})

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values = torch.from_numpy(clipped(image, window)[0])[None]
        small = tuple(max(1, int(n * self.factor)) for n in image.shape[1:])
        for size in (small, image.shape[1:]):
            values = View("resize", size).resize(values)
        return to_stored(values[0].numpy(), image.dtype)


@dataclass(frozen=True, kw_only=True)
class Gamma(_OfWhatIsSeen):
    """Raise the intensity in the window, from 0 to 1, to a power: the noise's size then varies with the brightness.

    The default is stronger than the 0.7 to 1.5 from which nnU-Net draws at random to augment.

    Args:
        gamma: the power; below 1 brightens, above 1 darkens, 1 changes nothing.
    """

    name: ClassVar[str] = "gamma"
    gamma: float = field(default=0.5, metadata={"in": "(0, inf)"})

    def _change(self, seen: NDArray[np.float64]) -> Any:
        return np.power(seen, self.gamma)


def clipped(image: Array, window: IntensityWindow) -> tuple[NDArray[np.float64], Array, Array]:
    """An image clipped to the window of each channel, NaN at its low end; and the low end and the width, stored units."""
    low, high = window.bounds(len(image), image.ndim - 1)
    values = np.asarray(image, np.float64)
    values = np.clip(np.where(np.isnan(values), low, values), low, high)
    return values, low, high - low


def to_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Computed intensities in the stored type: rounded and clipped for integers, cast for floats."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    stored: Array = values.astype(dtype)
    return stored
