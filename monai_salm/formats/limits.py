"""How much memory an image may take, asked before any is taken: headers are only believed within bounds."""

from __future__ import annotations

import os
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


class FormatError(ValueError):
    """A file that is damaged, hostile, or of a kind that cannot carry noise; the message names it and says why."""


def allow_image_bytes(count: int) -> None:
    """Set the largest image that is read, in bytes, for this process and those that it starts; 8 GiB if never called.

    Raises:
        ValueError: if it is not positive.
    """
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
    """Refuse a header that claims more bytes of voxels than its file can hold, or more than an image may have.

    Args:
        claimed: bytes, by the header.
        held: bytes that are there.
        path: the file; None where the caller names it.
        packed: whether they are packed by deflate.

    Raises:
        FormatError: with the claim.
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
    """All bytes of a file.

    Args:
        path: the file.
        most: bytes that it may have; those of the largest image if not given.

    Raises:
        FormatError: if it has more.
    """
    size, allowed = path.stat().st_size, max_image_bytes() + _MAX_HEADER if most is None else most
    if size > allowed:
        allow = f"; allow larger ones with --max-image-bytes or {VARIABLE}" if most is None else "; it is damaged"
        raise FormatError(f"{path}: it has {size} bytes, more than the {allowed} that are allowed{allow}")
    return path.read_bytes()


def read_header(path: Path) -> bytes:
    """All bytes of a header in a file of its own.

    Raises:
        FormatError: if it is longer than any header.
    """
    return read_file(path, _MAX_HEADER)


def inflated_size(packed: bytes, wbits: int, most: int) -> int:
    """How many bytes are packed, as far as they are not many more than ``most``; none of them is kept.

    Args:
        packed: a deflate stream.
        wbits: its kind, as zlib has it.
        most: bytes after which counting ends.

    Raises:
        zlib.error: if it is damaged.
    """
    inflate, count = zlib.decompressobj(wbits), 0
    for start in range(0, len(packed), _FED):
        rest = packed[start : start + _FED]
        while count <= most and not inflate.eof and (part := inflate.decompress(rest, _PIECE)):
            count, rest = count + len(part), inflate.unconsumed_tail
    return count
