"""Formats whose header is lines of text, in one file with the voxels or beside them; voxels are edited in place."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_salm.formats.base import Content, FormatError, ImageFormat
from monai_salm.formats.gzipped import inflated
from monai_salm.formats.limits import read_file, read_header, require_claim
from monai_salm.formats.voxels_in_place import VoxelsInPlace, read_bounded, read_start, require_header, stored_view
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

# Bytes at the start that name the format.
_MAGIC = 8


@dataclass(frozen=True)
class TextHeader:
    """A parsed header: its bytes, and what it says.

    ``sizes`` are those of all axes, the fastest first; ``channels`` is the axis of channels, if there is one. ``data`` names the file
    of the voxels, and is empty for the header's own. ``spacing`` is in millimetres, and empty if unknown, as ``affine`` is None.
    ``at_end`` says that the voxels are the last bytes of their file.
    """

    text: bytes
    sizes: tuple[int, ...]
    dtype: np.dtype[np.generic]
    channels: int | None
    packed: bool
    data: str
    spacing: tuple[float, ...]
    affine: Array | None
    at_end: bool = False


class TextHeaderFormat(ImageFormat):
    """A format of which a subclass parses the header and packs the voxels."""

    pictures = True
    #: Longest header.
    longest = 1 << 16

    @abstractmethod
    def parse(self, start: bytes, path: Path) -> TextHeader:
        """Parse the header, given the first bytes of its file; refuses what cannot carry noise."""

    @abstractmethod
    def pack(self, voxels: bytes) -> bytes:
        """Packed voxels; the same voxels give the same bytes."""

    def sized(self, text: bytes, size: int) -> bytes:
        """The text of a header with another size of the packed voxels, where it says one."""
        return text

    def companions(self, path: Path) -> tuple[str, ...]:
        data = self._header(path).data
        return (data,) if data else ()

    def units(self, path: Path) -> Units:
        return Units(spacing=self._header(path).spacing)

    def affine(self, path: Path) -> Array | None:
        return self._header(path).affine

    def open(self, path: Path) -> VoxelsInPlace:
        header = self._header(path)
        place = path.parent / header.data if header.data else path
        if not place.is_file():
            raise FormatError(f"{path}: its voxels are in {header.data}, which is missing; put it beside the header")
        size = math.prod(header.sizes) * header.dtype.itemsize
        begin = 0 if header.data else len(header.text)
        text = read_header(path) if header.data else header.text
        require_header(text[_MAGIC:], path)
        if header.at_end and (header.packed or place.stat().st_size > begin + size):
            raise FormatError(
                f"{path}: its voxels are the last bytes of {place.name}, behind bytes that it does not explain; save it as plain "
                "binary data, or packed, from the first byte"
            )
        if header.packed:
            require_claim(size, max(0, place.stat().st_size - begin), path)
            raw, text = read_file(place)[begin:], self.sized(text, 0)
            try:
                content: Content = bytearray(b"" if header.data else text) + inflated(raw, size)
            except ValueError as error:
                raise FormatError(f"{path}: {error}") from error
            begin = len(content) - size
        else:
            content, _ = read_bounded(place, lambda _: begin + size, begin or 2, plain=begin + size)
        image = stored_view(content, begin, header.sizes, header.dtype, header.channels)

        def parts(new: Content) -> dict[str, Content]:
            voxels = self.pack(bytes(new[begin:])) if header.packed else new
            if header.data:
                return {header.data: voxels, "": self.sized(text, len(voxels))}
            return {"": self.sized(text, len(voxels)) + voxels if header.packed else new}

        return VoxelsInPlace(content, image, parts, text if header.data else b"")

    def _header(self, path: Path) -> TextHeader:
        return self.parse(read_start(path, self.longest), path)


def plain_name(name: str, path: Path) -> str:
    """The name of the file that a header says the voxels are in; it must be beside the header."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0%") or name.split()[0].upper() == "LIST":
        raise FormatError(f"{path}: its voxels are in {name!r}; put header and voxels into one file, or side by side")
    return name


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with spaces or commas between them; none where one cannot be read."""
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        return ()
