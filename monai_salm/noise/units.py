"""What the stored numbers of an image mean, and which of them show nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks, columns

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
        picture: whether the image is a picture of 8 bits or one of MedMNIST, whose window is 0 to 255.
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


def units_given(item: Mapping[Any, Any]) -> Units | None:
    """What a layout says of the numbers of a case; None for the items of other data sets, whose key may mean something else."""
    found = item.get("units")
    return found if isinstance(found, Units) else None


def joined(parts: Sequence[Units]) -> Units:
    """The units of an image whose channels are files of their own, of one channel each."""
    if len(set(parts)) == 1:
        return parts[0]
    slopes = tuple(_of_channel(part.slope, 0) for part in parts)
    intercepts = tuple(_of_channel(part.intercept, 0) for part in parts)
    modality = tuple(part.modality_of(0) for part in parts)
    return replace(parts[0], slope=slopes, intercept=intercepts, modality=modality if any(modality) else "")


def padding_of(image: Array, units: Units) -> Array | None:
    """Elements of an image ``(channel, *spatial)`` that show nothing: no part of a window, and never noise; None for none.

    These are NaN and infinite values, numbers beyond 1e30, the value that the file names as padding, and the value of a
    constant border where it is the smallest or the largest of the channel.
    """
    found = np.zeros(image.shape, bool)
    rows, parts = columns(image)
    marked = found.reshape(rows.shape)
    for part in parts if image.dtype.kind == "f" or units.padding is not None else ():
        marked[:, part] = _marked(rows[:, part], units)
    for number, channel in enumerate(image):
        value = _border_value(channel, found[number])
        for part in parts if value is not None else ():
            marked[number, part] |= rows[number, part] == value
    return found if found.any() else None


def _marked(values: Array, units: Units) -> Array:
    """Values that show nothing by themselves: not finite, too large, or named as padding."""
    found = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):  # 1e30 is infinite for float16
            found |= ~(np.abs(values) < _NOTHING)
    if units.padding is not None:
        found |= (values >= units.padding[0]) & (values <= units.padding[1])
    return found


def _border_value(channel: Array, marked: Array) -> Any | None:
    """The value of a constant border that is the smallest or largest of the channel; None if there is no such border."""
    faces = [np.take(channel, end, axis).reshape(-1) for axis in range(channel.ndim) for end in (0, -1)]
    known = [np.take(marked, end, axis).reshape(-1) for axis in range(channel.ndim) for end in (0, -1)]
    border = np.concatenate(faces)[~np.concatenate(known)]
    if not border.size:
        return None
    # A value that is the smallest of the channel and stands in the border is the smallest of the border.
    ends = [value for value in (border.min(), border.max()) if np.mean(border == value) >= _BORDER_SHARE]
    if not ends:
        return None
    hidden = marked if marked.any() else None
    found = [(part.min(), part.max()) for part in shown(channel, hidden) if part.size]
    smallest, largest = min(low for low, _ in found), max(high for _, high in found)
    for value in [value for value in (smallest, largest) if value in ends]:
        count, total, several = _beside(shown(channel, hidden), value)
        if _IMAGE_SHARE <= count / total < 1:
            return value if several else None  # of two values, neither is padding
    return None


def shown(channel: Array, hidden: Array | None) -> Iterator[Array]:
    """The values of a channel that are not hidden, of any shape, a block at a time."""
    flat = np.ascontiguousarray(channel).reshape(-1)
    marked = None if hidden is None else np.ascontiguousarray(hidden).reshape(-1)
    for part in blocks(flat.size):
        yield flat[part] if marked is None else flat[part][~marked[part]]


def _beside(parts: Iterator[Array], value: Any) -> tuple[int, int, bool]:
    """How often a value stands among so many, and whether the others are of several values."""
    count = total = 0
    first, several = None, False
    for part in parts:
        other = part != value
        count, total = count + part.size - int(np.count_nonzero(other)), total + part.size
        if not several and other.any():
            first = part[other.argmax()] if first is None else first
            several = bool((other & (part != first)).any())
    return count, total, several


def _of_channel(value: float | tuple[float, ...], channel: int) -> float:
    return value[channel] if isinstance(value, tuple) else value
