"""MetaImage: header lines and voxels, in one file or two; voxels are edited in place."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, in_millimetres, known_spacing
from monai_salm.formats.text_header import TextHeader, TextHeaderFormat, numbers, plain_name
from monai_salm.shared.arrays import Array

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
# A header size that says that the voxels are the last bytes of their file.
_AT_END = -1
_PACKED_SIZE = re.compile(rb"(?m)^CompressedDataSize\s*=[^\r\n]*")


class MetaImage(TextHeaderFormat):
    """``.mha`` files, and ``.mhd`` headers with the voxels beside them, raw or packed.

    Images are ``(1, x, y[, z])``, of several channels ``(channel, x, y[, z])``.
    """

    name = "meta_image"
    suffixes = (".mha", ".mhd")

    def parse(self, start: bytes, path: Path) -> TextHeader:
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
        if header_size not in (0, _AT_END) or fields.get("binarydata", "true").lower() == "false":
            raise FormatError(
                f"{path}: its voxels are text, or begin after a header of their own; save it as plain binary data"
            )
        big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")).lower() == "true"
        return TextHeader(
            start[: found.end()],
            (channels, *sizes) if channels > 1 else sizes,
            np.dtype(code).newbyteorder(">" if big else "<"),
            0 if channels > 1 else None,
            fields.get("compresseddata", "false").lower() == "true",
            "" if data.upper() == "LOCAL" else plain_name(data, path),
            _spacing(fields),
            _affine(fields),
            header_size == _AT_END,
        )

    def pack(self, voxels: bytes) -> bytes:
        return zlib.compress(voxels, 1)

    def sized(self, text: bytes, size: int) -> bytes:
        return _PACKED_SIZE.sub(b"CompressedDataSize = %d" % size, text)


def _spacing(fields: dict[str, str]) -> tuple[float, ...]:
    """Millimetres between voxels along each axis; empty if the file does not say."""
    return known_spacing(numbers(fields.get("elementspacing", fields.get("elementsize", ""))))


def _affine(fields: dict[str, str]) -> Array | None:
    """Where the voxels lie; None if the header does not say."""
    turn = next((fields[name] for name in ("transformmatrix", "rotation", "orientation") if name in fields), "")
    start = next((fields[name] for name in ("offset", "position", "origin") if name in fields), "")
    directions, origin, spacing = numbers(turn), numbers(start), _spacing(fields)
    if (len(directions), len(origin), len(spacing)) != (9, 3, 3):
        return None
    return in_millimetres(list(np.reshape(directions, (3, 3)) * np.array(spacing)[:, None]), np.array(origin))
