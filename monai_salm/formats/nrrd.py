"""NRRD: header lines and voxels, in one file or two; voxels are edited in place."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, in_millimetres, known_spacing
from monai_salm.formats.gzipped import pack
from monai_salm.formats.text_header import TextHeader, TextHeaderFormat, numbers, plain_name
from monai_salm.shared.arrays import Array

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


class Nrrd(TextHeaderFormat):
    """``.nrrd`` files, and ``.nhdr`` headers with the voxels beside them, raw or gzipped.

    Images are ``(1, x, y[, z])``, or ``(channel, x, y[, z])`` where the header says of one axis that it is no place in space.
    """

    name = "nrrd"
    suffixes = (".nrrd", ".nhdr")
    longest = 1 << 20

    def parse(self, start: bytes, path: Path) -> TextHeader:
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
        return TextHeader(
            start[: end.end()] if end else start,
            sizes,
            np.dtype(order + code),
            channels,
            encoding != "raw",
            plain_name(data, path) if data else "",
            _spacing(fields),
            _affine(fields),
        )

    def pack(self, voxels: bytes) -> bytes:
        return pack(voxels)


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
    vectors = [numbers(vector) for vector in re.findall(r"\(([^)]*)\)", fields.get("spacedirections", ""))]
    if not all(vectors):
        return ()
    return known_spacing(tuple(math.hypot(*vector) for vector in vectors) or numbers(fields.get("spacings", "")))


def _affine(fields: dict[str, str]) -> Array | None:
    """Where the voxels lie; None if the header does not say, or not in the patient."""
    space = _SPACES.get(fields.get("space", "").lower())
    places = re.findall(r"\(([^)]*)\)", fields.get("spacedirections", "") + fields.get("spaceorigin", ""))
    vectors = [np.array(numbers(place)) for place in places]
    if space is None or len(vectors) != 4 or any(len(vector) != 3 for vector in vectors):
        return None
    *steps, origin = (vector * space for vector in vectors)
    return in_millimetres(steps, origin, to_right=True)
