"""Compressed frames of DICOM files, looked at before they are decoded: decoders take the memory that these ask for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from monai_salm.formats.base import require
from monai_salm.formats.codestreams import declared_pixels
from monai_salm.formats.dicom.colours import PIXELS
from monai_salm.formats.dicom.elements import Element, value_of
from monai_salm.formats.dicom.pixels import PixelLayout
from monai_salm.formats.limits import require_size

_RLE = "1.2.840.10008.1.2.5"
_HEADER = struct.Struct("<16I")
# Two bytes of RLE give at most 128; frames that cannot be larger are not counted.
_RATIO, _SMALL = 64, 1 << 26
# What holds next to nothing is packed more tightly than this.
_TIGHT = 48


def check_frames(content: bytes, elements: tuple[Element, ...], layout: PixelLayout, syntax: str) -> None:
    """Refuse frames that unpack to more than the header of the file declares.

    Args:
        content: the file.
        elements: of its data set.
        layout: of its pixels, by its header.
        syntax: its transfer syntax.

    Raises:
        ValueError: with the claim.
    """
    pixels, stored = layout.rows * layout.columns, value_of(content, elements, PIXELS) or b""
    needed = pixels * layout.samples * layout.allocated // 8
    if syntax == _RLE:
        require_size(layout.size, len(stored), tight=_TIGHT)
    for frame in _frames(stored, layout.frames):
        found = declared_pixels(frame)
        if found is not None and found > pixels:
            raise ValueError(
                f"a compressed frame declares {found:,} pixels, its header {pixels:,}; it is damaged, get it again from its source"
            )
        if syntax == _RLE and len(frame) * _RATIO > _SMALL and _rle_size(frame, 2 * needed) > 2 * needed:
            raise ValueError(
                f"a compressed frame holds more than twice the {needed:,} bytes that its header declares; it is damaged, get it "
                "again from its source"
            )


def _frames(stored: bytes, count: int) -> Iterator[bytes]:
    """The frames; what pydicom raises on damage is left to the decoder, which meets it again."""
    try:
        yield from require("pydicom.encaps", "dicom", "DICOM").generate_frames(stored, number_of_frames=count)
    except Exception:
        return


def _rle_size(frame: bytes, most: int) -> int:
    """Bytes that a frame of RLE unpacks to (PS3.5 annex G), counted as far as ``most``."""
    if len(frame) < _HEADER.size:
        return 0
    count, size = _HEADER.unpack_from(frame)[0], 0
    places = [*_HEADER.unpack_from(frame)[1 : min(count, 15) + 1], len(frame)]
    for start, stop in pairwise(places):
        place = start
        while place < min(stop, len(frame)) and size <= most:
            code = frame[place]
            size += 257 - code if code > 128 else code + 1 if code < 128 else 0
            place += 2 if code > 128 else code + 2 if code < 128 else 1
    return size
