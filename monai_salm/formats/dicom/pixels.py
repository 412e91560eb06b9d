"""How the pixels of a DICOM file are laid out, between the bytes of Pixel Data and an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_salm.formats.dicom.elements import tag_name
from monai_salm.shared.arrays import Array

ROWS, COLUMNS, SAMPLES, PLANAR, FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280006, 0x00280008
ALLOCATED, STORED, HIGH_BIT, SIGNED, PHOTOMETRIC = 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280004
#: Given a tag, its value's bytes; None where the file does not have it.
Values = Callable[[int], bytes | None]
PALETTE = "PALETTE COLOR"
YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_COLOURS = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, PALETTE: 1} | dict.fromkeys(YBR, 3)


@dataclass(frozen=True)
class PixelLayout:
    """Shape and cells of Pixel Data: one sample is grey, three are RGB, plane by plane (``planar``) or pixel by pixel.

    A cell has ``allocated`` bits (8, 16 or 32), of which ``stored`` are the number. The bits above repeat the sign (``extended``), are
    zero (False), or hold other data, such as overlays, and keep it (None). ``order`` is ``"<"`` or ``">"``.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    planar: bool
    allocated: int
    stored: int
    signed: bool
    order: str
    extended: bool | None = True

    @property
    def size(self) -> int:
        """Bytes of all cells, without padding."""
        return self.frames * self.rows * self.columns * self.samples * self.allocated // 8

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the image."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image: ``(samples, rows, columns)``, for several frames ``(samples, rows, columns, frames)``."""
        plane = (self.samples, self.rows, self.columns)
        return plane if self.frames == 1 else (*plane, self.frames)

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and largest number that the stored bits hold."""
        return (-(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1) if self.signed else (0, (1 << self.stored) - 1)

    def fill(self, cells: bytes) -> bool | None:
        """Whether the bits above those stored repeat the sign (True) or are zero (False); None if they hold data."""
        numbers, mask = self._unsigned(cells), (1 << self.stored) - 1
        high = numbers >> self.stored if self.stored < self.allocated else np.zeros_like(numbers)
        if not high.any():
            # Where no number is negative both hold.
            negative = self.signed and self.stored < self.allocated and bool((numbers & (mask ^ (mask >> 1))).any())
            return not negative
        full = np.where(numbers & (mask ^ (mask >> 1)), (1 << (self.allocated - self.stored)) - 1, 0)
        return True if self.signed and np.array_equal(high, full) else None

    def image(self, cells: bytes) -> Array:
        """The numbers in native byte order, channel first."""
        numbers = self._unsigned(cells).astype(f"u{self.allocated // 8}")
        if self.extended is None:
            numbers &= numbers.dtype.type((1 << self.stored) - 1)
        if self.signed and not self.extended:
            sign = numbers.dtype.type(1 << (self.stored - 1))
            numbers = (numbers ^ sign) - sign
        return np.ascontiguousarray(self._channel_first(numbers.view(self.dtype)))

    def cells(self, image: Array, old: bytes) -> bytes:
        """The inverse of ``image``; bits that are no part of the numbers are those of the ``old`` cells.

        ValueError if a voxel does not fit into the stored bits.
        """
        low, high = self.bounds
        if image.min() < low or image.max() > high:
            raise ValueError(
                f"voxels from {image.min()} to {image.max()} do not fit into its {self.stored} stored bits ({low} to {high}); "
                "ask for bounds before making noise"
            )
        stored = np.empty(self._stored_shape(), self.dtype)
        self._channel_first(stored)[...] = image
        numbers = stored.view(f"u{self.allocated // 8}")
        mask = numbers.dtype.type((1 << self.stored) - 1)
        if not self.extended:
            numbers &= mask
        if self.extended is None:
            numbers |= self._unsigned(old) & ~mask
        return numbers.astype(numbers.dtype.newbyteorder("<" if self.order == "<" else ">")).tobytes()

    def _unsigned(self, cells: bytes) -> NDArray[np.unsignedinteger]:
        return np.frombuffer(cells, f"{self.order}u{self.allocated // 8}").reshape(self._stored_shape())

    def _stored_shape(self) -> tuple[int, ...]:
        plane = (self.rows, self.columns)
        return (self.frames, self.samples, *plane) if self.planar else (self.frames, *plane, self.samples)

    def _channel_first(self, cells: Array) -> Array:
        """A view of cells in their stored shape, in the image's."""
        frames = cells if self.planar else np.moveaxis(cells, -1, 1)
        return frames[0] if self.frames == 1 else np.moveaxis(frames, 0, -1)


def parse_layout(values: Values, order: str) -> PixelLayout:
    """Read how pixels are laid out, given what looks up elements; ValueError for what cannot carry noise."""
    photometric = text(values(PHOTOMETRIC))
    if photometric not in _COLOURS:
        raise ValueError(_why_not(photometric))
    layout = PixelLayout(
        frames=_frames(text(values(FRAMES))),
        rows=_number(values, ROWS, order),
        columns=_number(values, COLUMNS, order),
        samples=_number(values, SAMPLES, order),
        planar=_COLOURS[photometric] == 3 and _number(values, PLANAR, order, 0) == 1,
        allocated=_number(values, ALLOCATED, order),
        stored=_number(values, STORED, order),
        signed=_number(values, SIGNED, order) == 1,
        order=order,
    )
    high_bit = _number(values, HIGH_BIT, order)
    if layout.allocated == 1:
        raise ValueError(
            "its pixels have 1 bit, as segmentations have: they carry no noise, and are no label maps here; save labels as NIfTI"
        )
    if (
        layout.allocated not in (8, 16, 32)
        or not 2 <= layout.stored <= layout.allocated
        or high_bit != layout.stored - 1
    ):
        raise ValueError(
            f"its pixels have {layout.allocated} bits, {layout.stored} of them stored, the highest at {high_bit}; only whole "
            "bytes with the stored bits lowest are read, as pydicom does"
        )
    if layout.samples != _COLOURS[photometric] or layout.rows < 1 or layout.columns < 1:
        raise ValueError(f"it declares {photometric} pixels of shape {layout.shape}; the header is damaged")
    return layout


def text(value: bytes | None) -> str:
    """A value of characters without its padding; empty where there is none."""
    return "" if value is None else value.decode("ascii", "replace").strip(" \0")


def _frames(value: str) -> int:
    if not value:
        return 1
    if not value.isdecimal() or not 0 < int(value) < 1 << 31:
        raise ValueError(f"it declares {value[:20]!r} frames; the header is damaged")
    return int(value)


def _number(values: Values, tag: int, order: str, default: int | None = None) -> int:
    value = values(tag)
    if value is not None and len(value) == 2:
        return int.from_bytes(value, "little" if order == "<" else "big")
    if default is None:
        raise ValueError(f"{tag_name(tag)} is missing or damaged, and without it the pixels cannot be read")
    return default


def _why_not(photometric: str) -> str:
    return f"its pixels are {photometric or 'of unknown colour'}; convert it to MONOCHROME2 or RGB"
