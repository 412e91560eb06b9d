"""How much memory an image may take, asked before any is taken: headers are only believed within bounds."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

#: Name of the environment variable that holds the largest image in bytes; processes that are started later follow it.
VARIABLE = "MONAI_SALM_MAX_IMAGE_BYTES"
_MAX_IMAGE_BYTES = 8 << 30
#: Deflate packs at most 1032 bytes into one.
MAX_RATIO = 1032
# Without a limit of the user's own: an image above this size, packed more tightly than this, holds next to nothing.
_LARGE, _TIGHT = 512 << 20, 768
# The longest header in a file of its own.
_MAX_HEADER = 1 << 24
_FED, _PIECE = 1 << 14, 1 << 20
# Markers of JPEG and JPEG-LS that say the size (ITU-T T.81, table B.1; T.87), and those without a length.
_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xDA)}
# Of JPEG 2000: start of the codestream and its size; a file has boxes before it.
_START_2000, _MOST_BOXES = b"\xff\x4f\xff\x51", 1 << 16


class FormatError(ValueError):
    """A file that is damaged, hostile, or of a kind that cannot carry noise; the message names it and says why."""


def allow_image_bytes(count: int) -> None:
    """Set the largest image that is read, in bytes, for this process and those that it starts; 8 GiB if never called."""
    if count < 1:
        raise ValueError(f"the largest image must have at least one byte, got {count}")
    os.environ[VARIABLE] = str(count)


def max_image_bytes() -> int:
    """The largest image that is read, in bytes."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return _MAX_IMAGE_BYTES
    if not text.isdecimal() or not int(text):
        raise FormatError(f"{VARIABLE} must be a whole number of bytes above 0, it is {text!r}; set or remove it")
    return int(text)


def require_claim(claimed: int, held: int, path: Path | None = None, *, packed: bool = True) -> None:
    """Refuse a header that claims more bytes of voxels than are held, packed by deflate or not, or than an image may have.

    The caller names the file in errors if ``path`` is None.
    """
    if claimed > held * (MAX_RATIO if packed else 1):
        raise _error(path, claimed, f"more than the file of {held} bytes can hold; it is cut off or damaged")
    require_size(claimed, held, path)


def require_size(claimed: int, held: int, path: Path | None = None, *, image: bool = True, tight: int = _TIGHT) -> None:
    """``require_claim`` where nothing is known of how many bytes can be packed into one.

    Args:
        claimed: bytes once unpacked.
        held: bytes that are there.
        path: the file; None where the caller names it.
        image: False for many images in one, of which the largest size does not hold.
        tight: bytes in one packed byte that no large image has.
    """
    allow = f"if it is an image, allow it: --max-image-bytes {claimed} or {VARIABLE}={claimed}"
    if image and claimed > max_image_bytes():
        raise _error(path, claimed, f"more than the {max_image_bytes()} that are allowed; {allow}")
    if claimed > max(_LARGE, held * tight) and VARIABLE not in os.environ:
        raise _error(path, claimed, f"{claimed // max(1, held)} times what is there, as no image is packed; {allow}")


def _error(path: Path | None, claimed: int, why: str) -> FormatError:
    return FormatError(f"{f'{path}: ' if path else ''}the header declares {claimed} bytes, {why}")


def read_file(path: Path, most: int | None = None) -> bytes:
    """All bytes of a file; FormatError if they are more than ``most``, or than those of the largest image."""
    size, allowed = path.stat().st_size, max_image_bytes() + _MAX_HEADER if most is None else most
    if size > allowed:
        allow = f"; allow larger ones with --max-image-bytes or {VARIABLE}" if most is None else "; it is damaged"
        raise FormatError(f"{path}: it has {size} bytes, more than the {allowed} that are allowed{allow}")
    return path.read_bytes()


def read_header(path: Path) -> bytes:
    """All bytes of a header in a file of its own; FormatError if it is longer than any header."""
    return read_file(path, _MAX_HEADER)


def inflated_size(packed: bytes, wbits: int, most: int) -> int:
    """Bytes that a deflate stream of a kind (``wbits``) unpacks to, counted to just above ``most``; none of them is kept."""
    inflate, count = zlib.decompressobj(wbits), 0
    for start in range(0, len(packed), _FED):
        rest = packed[start : start + _FED]
        while count <= most and not inflate.eof and (part := inflate.decompress(rest, _PIECE)):
            count, rest = count + len(part), inflate.unconsumed_tail
    return count


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
