"""NRRD: header lines and voxels, in one file or two; voxels are edited in place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, ImageFormat, in_millimetres
from monai_salm.formats.gzipped import pack
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

_MAX_HEADER = 1 << 20
_TYPES = {
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i1": ("char", "signed char", "int8", "int8_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names}
# Spaces, and which of their axes run as (right, anterior, superior) do.
_SPACES = {
    name: signs
    for names, signs in (
        (("right-anterior-superior", "ras"), (1, 1, 1)),
        (("left-anterior-superior", "las"), (-1, 1, 1)),
        (("left-posterior-superior", "lps"), (-1, -1, 1)),
    )
    for name in names
}
_SPACE_KINDS = ("domain", "space", "???", "none")


@dataclass(frozen=True)
class _Header:
    """A parsed header: where it ends, the voxels, how they are packed, and the file they are in (empty: this one)."""

    end: int
    sizes: tuple[int, ...]
    dtype: np.dtype[np.generic]
    channels: int | None
    gzipped: bool
    data: str
    spacing: tuple[float, ...]
    affine: Array | None

    @property
    def size(self) -> int:
        return math.prod(self.sizes) * self.dtype.itemsize


class Nrrd(ImageFormat):
    """``.nrrd`` files, and ``.nhdr`` headers with the voxels beside them, raw or gzipped.

    Images are ``(1, x, y[, z])``, or ``(channel, x, y[, z])`` where the header says of one axis that it is no place in space.
    """

    name = "nrrd"
    suffixes = (".nrrd", ".nhdr")
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
        begin = 0 if header.data else header.end
        if header.gzipped:
            packed = place.read_bytes()
            content = bytearray(packed[:begin] + unpack_voxels(packed[begin:], header.size, path))
        else:
            content, _ = read_bounded(place, lambda _: begin + header.size, begin or 2, plain=begin + header.size)
        image = stored_view(content, begin, header.sizes, header.dtype, header.channels)
        text = path.read_bytes() if header.data else b""

        def files(new: bytearray) -> dict[str, bytes | bytearray]:
            written = bytes(new[:begin]) + pack(new[begin:]) if header.gzipped else new
            return {header.data: written, "": text} if header.data else {"": written}

        return Stored(content, image, files, text)


def _header(start: bytes, path: Path) -> _Header:
    """Parse the header; refuses what cannot carry noise."""
    if not re.match(rb"NRRD000\d\r?\n", start):
        raise FormatError(f"{path}: not an NRRD file (its first bytes are {start[:8]!r})")
    end = re.search(rb"\r?\n\r?\n", start)
    lines = start[: end.start() if end else len(start)].decode("utf-8", "replace").splitlines()[1:]
    named = (line.split(":", 1) for line in lines if ":" in line and line[0] != "#" and ":=" not in line)
    fields = {name.strip().lower().replace(" ", ""): value.strip() for name, value in named}
    data = fields.get("datafile", "")
    if end is None and not data:
        raise FormatError(f"{path}: its header has no end; it is damaged")
    try:
        sizes = tuple(int(size) for size in fields["sizes"].split())
        code, encoding = _TYPE_OF[fields["type"].lower()], fields["encoding"].lower()
        skip = int(fields.get("byteskip", 0)), int(fields.get("lineskip", 0))
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: its header lacks a type, sizes or encoding that is known ({error})") from error
    if encoding not in ("raw", "gzip", "gz") or any(skip):
        raise FormatError(f"{path}: its voxels are stored as {encoding!r}, skipping {skip}; save it as raw or gzip")
    channels = _channels(fields, sizes, path)
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    return _Header(
        end.end() if end else len(start),
        sizes,
        np.dtype(order + code),
        channels,
        encoding != "raw",
        plain_name(data, path) if data else "",
        _spacing(fields),
        _affine(fields),
    )


def _channels(fields: dict[str, str], sizes: tuple[int, ...], path: Path) -> int | None:
    """The axis that is no place in space; None if all are."""
    kinds = fields.get("kinds", "").lower().split()
    found = [axis for axis, kind in enumerate(kinds) if kind not in _SPACE_KINDS]
    directions = re.findall(r"none|\([^)]*\)", fields.get("spacedirections", "").lower())
    if not kinds:
        found = [axis for axis, direction in enumerate(directions) if direction == "none"]
    if len(found) > 1 or len(sizes) - len(found) not in (2, 3) or min(sizes) < 1:
        raise FormatError(
            f"{path}: axes of sizes {sizes} are not two or three in space and one of channels; split the file"
        )
    return found[0] if found else None


def _spacing(fields: dict[str, str]) -> tuple[float, ...]:
    """Millimetres between voxels along each axis in space; empty if the file does not say."""
    vectors = re.findall(r"\(([^)]*)\)", fields.get("spacedirections", ""))
    try:
        found = tuple(math.hypot(*(float(part) for part in vector.split(","))) for vector in vectors)
        found = found or tuple(float(part) for part in fields.get("spacings", "").split())
    except ValueError:
        return ()
    return found if found and all(math.isfinite(side) and side > 0 for side in found) else ()


def _affine(fields: dict[str, str]) -> Array | None:
    """Where the voxels lie; None if the header does not say, or not in the patient."""
    space = _SPACES.get(fields.get("space", "").lower())
    places = re.findall(r"\(([^)]*)\)", fields.get("spacedirections", "") + fields.get("spaceorigin", ""))
    try:
        vectors = [np.array([float(part) for part in place.split(",")]) for place in places]
    except ValueError:
        return None
    if space is None or len(vectors) != 4 or any(len(vector) != 3 for vector in vectors):
        return None
    *steps, origin = (vector * space for vector in vectors)
    return in_millimetres(steps, origin, to_right=True)
