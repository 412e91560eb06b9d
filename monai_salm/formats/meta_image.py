"""MetaImage: header lines and voxels, in one file or two; voxels are edited in place."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, ImageFormat, in_millimetres
from monai_salm.formats.in_place import (
    Stored,
    place_of,
    plain_name,
    read_bounded,
    read_start,
    stored_view,
    unpack_voxels,
)
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

_MAX_HEADER = 1 << 16
_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG": "u4",
    "MET_LONG": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_DATA = re.compile(rb"(?:^|\n)ElementDataFile\s*=\s*([^\r\n]*)\r?\n?")
_PACKED_SIZE = re.compile(rb"(?m)^CompressedDataSize\s*=[^\r\n]*")


@dataclass(frozen=True)
class _Header:
    """A parsed header: its text, the voxels, whether they are packed, and the file they are in (empty: this one)."""

    text: bytes
    sizes: tuple[int, ...]
    dtype: np.dtype[np.generic]
    channels: int
    packed: bool
    data: str
    spacing: tuple[float, ...]
    affine: Array | None

    @property
    def size(self) -> int:
        return math.prod(self.sizes) * self.channels * self.dtype.itemsize

    def with_size(self, size: int) -> bytes:
        """The text with another size of the packed voxels."""
        return _PACKED_SIZE.sub(b"CompressedDataSize = %d" % size, self.text) if self.packed else self.text


class MetaImage(ImageFormat):
    """``.mha`` files, and ``.mhd`` headers with the voxels beside them, raw or packed.

    Images are ``(1, x, y[, z])``, of several channels ``(channel, x, y[, z])``.
    """

    name = "meta_image"
    suffixes = (".mha", ".mhd")
    pictures = True

    def companions(self, path: Path) -> tuple[str, ...]:
        data = _header(read_start(path, _MAX_HEADER), path).data
        return (data,) if data else ()

    def units(self, path: Path) -> Units:
        return Units(spacing=_header(read_start(path, _MAX_HEADER), path).spacing)

    def affine(self, path: Path) -> Array | None:
        return _header(read_start(path, _MAX_HEADER), path).affine

    def open(self, path: Path) -> Stored:
        header = _header(read_start(path, _MAX_HEADER), path)
        place = place_of(path, header.data)
        begin = 0 if header.data else len(header.text)
        if header.packed:
            raw = place.read_bytes()[begin:]
            content = bytearray(header.with_size(0)[:begin] + unpack_voxels(raw, header.size, path))
            begin = len(content) - header.size
        else:
            content, _ = read_bounded(place, lambda _: begin + header.size, begin or 2, plain=begin + header.size)
        sizes = (header.channels, *header.sizes) if header.channels > 1 else header.sizes
        image = stored_view(content, begin, sizes, header.dtype, 0 if header.channels > 1 else None)

        def files(new: bytearray) -> dict[str, bytes | bytearray]:
            voxels = zlib.compress(bytes(new[begin:]), 1) if header.packed else new
            text = header.with_size(len(voxels))
            if header.data:
                return {header.data: voxels, "": text}
            return {"": text + voxels if header.packed else new}

        return Stored(content, image, files, header.with_size(0) if header.data else b"")


def _header(start: bytes, path: Path) -> _Header:
    """Parse the header; refuses what cannot carry noise."""
    found = _DATA.search(start)
    if found is None:
        raise FormatError(f"{path}: not a MetaImage file (it has no ElementDataFile)")
    lines = start[: found.end()].decode("utf-8", "replace").splitlines()
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    data = fields["elementdatafile"]
    try:
        sizes = tuple(int(size) for size in fields["dimsize"].split())
        channels, header_size = int(fields.get("elementnumberofchannels", 1)), int(fields.get("headersize", 0))
        code = _TYPES[fields["elementtype"].upper().removesuffix("_ARRAY")]
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: its header lacks a size or an element type that is known ({error})") from error
    if len(sizes) not in (2, 3) or min(sizes) < 1 or channels < 1:
        raise FormatError(
            f"{path}: axes of sizes {sizes} with {channels} channels are not two or three in space; split the file"
        )
    if header_size > 0 or fields.get("binarydata", "true").lower() == "false":
        raise FormatError(
            f"{path}: its voxels are text, or begin after a header of their own; save it as plain binary data"
        )
    big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")).lower() == "true"
    return _Header(
        start[: found.end()],
        sizes,
        np.dtype(code).newbyteorder(">" if big else "<"),
        channels,
        fields.get("compresseddata", "false").lower() == "true",
        "" if data.upper() == "LOCAL" else plain_name(data, path),
        _spacing(fields),
        _affine(fields),
    )


def _spacing(fields: dict[str, str]) -> tuple[float, ...]:
    """Millimetres between voxels along each axis; empty if the file does not say."""
    try:
        found = tuple(float(part) for part in fields.get("elementspacing", fields.get("elementsize", "")).split())
    except ValueError:
        return ()
    return found if found and all(math.isfinite(side) and side > 0 for side in found) else ()


def _affine(fields: dict[str, str]) -> Array | None:
    """Where the voxels lie; None if the header does not say."""
    turn = next((fields[name] for name in ("transformmatrix", "rotation", "orientation") if name in fields), None)
    start = next((fields[name] for name in ("offset", "position", "origin") if name in fields), None)
    spacing = _spacing(fields)
    if turn is None or start is None or len(spacing) != 3:
        return None
    try:
        directions = np.reshape([float(part) for part in turn.split()], (3, 3))
        origin = np.reshape([float(part) for part in start.split()], 3)
    except ValueError:
        return None
    return in_millimetres(list(directions * np.array(spacing)[:, None]), origin)
