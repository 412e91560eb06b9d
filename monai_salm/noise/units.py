"""What the stored numbers of an image mean, and which of them show nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monai_salm.shared.arrays import Array

# What resampling programs write where nothing was measured (the lowest float32 is -3.4e38).
_NOTHING = 1e30
# A border value is padding if it covers this share of the border, and this share of the image.
_BORDER_SHARE, _IMAGE_SHARE = 0.25, 0.02


@dataclass(frozen=True)
class Units:
    """What the stored numbers of one image mean.

    Args:
        slope: real units in one stored unit, one number or one for each channel.
        intercept: real value of the stored number 0, one number or one for each channel.
        spacing: size of a voxel in millimetres along each spatial axis; empty if unknown.
        padding: least and largest stored number that mark "nothing here", if the file names them.
        modality: DICOM's name of the modality, such as ``"CT"``, one or one for each channel; empty if unknown.
        picture: whether the image is a picture of 8 bits, whose window is 0 to 255.
        limits: least and largest stored number that the file can hold, where it holds fewer than its type; None is the type's.
    """

    slope: float | tuple[float, ...] = 1.0
    intercept: float | tuple[float, ...] = 0.0
    spacing: tuple[float, ...] = ()
    padding: tuple[float, float] | None = None
    modality: str | tuple[str, ...] = ""
    picture: bool = False
    limits: tuple[float, float] | None = None

    def stored(self, value: float, channel: int) -> float:
        """The stored number of a real value in one channel."""
        slope, intercept = _of_channel(self.slope, channel), _of_channel(self.intercept, channel)
        return (value - intercept) / slope

    def real(self, value: float, channel: int) -> float:
        """The real value of a stored number in one channel."""
        return value * _of_channel(self.slope, channel) + _of_channel(self.intercept, channel)

    def modality_of(self, channel: int) -> str:
        """The modality of one channel; empty if unknown."""
        return self.modality if isinstance(self.modality, str) else self.modality[channel]


def joined(parts: Sequence[Units]) -> Units:
    """The units of an image whose channels are files of their own, of one channel each."""
    if len(set(parts)) == 1:
        return parts[0]
    slopes, intercepts = tuple(_single(part.slope) for part in parts), tuple(_single(part.intercept) for part in parts)
    modality = tuple(part.modality_of(0) for part in parts)
    return replace(parts[0], slope=slopes, intercept=intercepts, modality=modality if any(modality) else "")


def padding_of(image: Array, units: Units) -> Array | None:
    """Elements of an image that show nothing: no part of a window, and never noise.

    These are NaN and infinite values, numbers beyond 1e30, the value that the file names as padding, and the value of a
    constant border where it is the smallest or the largest of the channel.

    Args:
        image: ``(channel, *spatial)``, stored numbers.
        units: what they mean.

    Returns:
        Boolean array of the image's shape, or None where there is no padding.
    """
    found = np.zeros(image.shape, bool)
    if image.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):  # 1e30 is infinite for float16
            found |= ~(np.abs(image) < _NOTHING)
    if units.padding is not None:
        found |= (image >= units.padding[0]) & (image <= units.padding[1])
    for channel, marked in zip(image, found, strict=True):
        value = _border_value(channel, marked)
        if value is not None:
            marked |= channel == value
    return found if found.any() else None


def _border_value(channel: Array, marked: Array) -> Any | None:
    """The value of a constant border that is the smallest or largest of the channel; None if there is no such border."""
    faces = [np.take(channel, end, axis).reshape(-1) for axis in range(channel.ndim) for end in (0, -1)]
    known = [np.take(marked, end, axis).reshape(-1) for axis in range(channel.ndim) for end in (0, -1)]
    border = np.concatenate(faces)[~np.concatenate(known)]
    rest = channel[~marked] if marked.any() else channel
    if not border.size:
        return None
    for value in (rest.min(), rest.max()):
        if np.mean(border == value) >= _BORDER_SHARE and _IMAGE_SHARE <= np.mean(rest == value) < 1:
            shown = rest[rest != value]
            return value if shown.min() < shown.max() else None  # of two values, neither is padding
    return None


def _of_channel(value: float | tuple[float, ...], channel: int) -> float:
    return value[channel] if isinstance(value, tuple) else value


def _single(value: float | tuple[float, ...]) -> float:
    return _of_channel(value, 0)
