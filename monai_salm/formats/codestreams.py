"""Sizes that JPEG, JPEG 2000 and WebP files declare, read before a decoder takes memory for them."""

from __future__ import annotations

import struct

# Markers of JPEG and JPEG-LS that say the size (ITU-T T.81, table B.1; T.87), and those without a length.
_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xDA)}
# Of JPEG 2000: start of the codestream and its size; a file has boxes before it.
_START_2000, _MOST_BOXES = b"\xff\x4f\xff\x51", 1 << 16


def webp_pixels(content: bytes) -> int | None:
    """Width times height by the header of a WebP file (RFC 9649); None for anything else."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind, low = content[12:16], int.from_bytes(content[21:25], "little")
    if kind == b"VP8L":
        return ((low & 0x3FFF) + 1) * ((low >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        return (int.from_bytes(content[24:27], "little") + 1) * (int.from_bytes(content[27:30], "little") + 1)
    return (int.from_bytes(content[26:28], "little") & 0x3FFF) * (int.from_bytes(content[28:30], "little") & 0x3FFF)


def declared_pixels(stream: bytes) -> int | None:
    """Rows times columns by a JPEG, JPEG-LS or JPEG 2000 codestream; None for anything else."""
    start = stream.find(_START_2000, 0, _MOST_BOXES)
    if start >= 0 and start + 24 <= len(stream):
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return int(max(0, right - left) * max(0, bottom - top))
    if stream[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(stream):
        marker = stream[place + 1]
        if stream[place] != 0xFF or marker == 0xFF or marker in _BARE:
            place += 2 if marker in _BARE and stream[place] == 0xFF else 1
            continue
        if marker in _SIZES:
            rows, columns = struct.unpack_from(">HH", stream, place + 5)
            return int(rows * columns)
        place += 2 + int(struct.unpack_from(">H", stream, place + 2)[0])
    return None
