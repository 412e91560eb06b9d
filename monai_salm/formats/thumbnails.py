"""Small pictures of an image, its layers, and the image again, as they may stand beside its pixels."""

from __future__ import annotations

import math
import re
import struct
import zlib

import numpy as np

from monai_salm.formats.png_chunks import Chunk

#: JPEG and PNG, also in base64 and in Adobe's XMP; Photoshop's thumbnails (resources 1033 and 1036) and layers.
MARKS = re.compile(
    rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|(?:/9j/|iVBORw0KGgo)[A-Za-z0-9+/]{40}|xmpGImg:image|8BIM\x04[\x09\x0c]|"
    rb"(?:8BIM|MIB8)(?:Layr|Lr16|Lr32|ryaL|61rL|23rL)"
)
# Other images, and the pixels of DICOM.
_IMAGES = re.compile(
    rb"\xe0\x7f[\x08-\x10]\0|\x7f\xe0\0[\x08-\x10]|GIF8[79]a|\x93NUMPY|NRRD000\d\r?\n|n\+[12]\0|\xff\x4f\xff\x51|\x1f\x8b\x08|II\*\0|MM\0\*"
)
# Previews and layers of Fireworks.
_KINDS = (b"prVW", b"mkBF", b"mkBS", b"mkBT", b"mkTS")
# Chunks beside the pixels that PNG defines, and that hold no image.
_DEFINED = (
    b"IHDR PLTE IDAT IEND bKGD cHRM cICP cLLI eXIf gAMA gIFg gIFt gIFx hIST iCCP iTXt mDCV oFFs pCAL pHYs sBIT sCAL sPLT sRGB sTER "
    b"tEXt tIME tRNS zTXt"
).split()
_MOST = 1 << 26
# Bytes that are no text and too few for an image.
_FEW = 1 << 10
_IS_TEXT = np.isin(np.arange(256), [0, *b"\t\n\f\r", *range(32, 127)])


def may_hold_image(beside: bytes, most: float = math.inf) -> bool:
    """Whether bytes beside the pixels may be an image: more than ``most`` without zeros, a known start, or many and mostly no text."""
    numbers = np.frombuffer(beside, np.uint8)
    used, odd = int(np.count_nonzero(numbers)), int(np.count_nonzero(~_IS_TEXT[numbers]))
    return bool(used > most or odd > max(_FEW, used // 2) or MARKS.search(beside) or _IMAGES.search(beside))


def has_thumbnail(chunk: Chunk) -> bool:
    """Whether a chunk of a PNG file, not of its pixels, holds a picture."""
    if chunk.kind in _KINDS or MARKS.search(chunk.data):
        return True
    if chunk.kind not in _DEFINED and may_hold_image(chunk.data):
        return True
    text = _text(chunk)
    if text.lstrip(b"\0\n").startswith(b"Raw profile type"):  # ImageMagick's way: a name, a length, hexadecimal digits
        digits = re.sub(rb"[^0-9A-Fa-f]", b"", b"".join(text.split(b"\n")[3:])).decode()
        profile = bytes.fromhex(digits[: len(digits) // 2 * 2])
        exif = profile.partition(b"Exif\0\0")[2]
        if not re.search(b"Exif\0\0|acsp|8BIM", profile[:64]) and may_hold_image(profile):
            return True
        return MARKS.search(profile) is not None or has_second_directory(exif)
    if chunk.kind == b"eXIf" and has_second_directory(chunk.data):
        return True
    return MARKS.search(re.sub(rb"\s|&#(?:10|13|x0?[aAdD]);", b"", text)) is not None


def has_second_directory(exif: bytes) -> bool:
    """Whether EXIF data has a second directory, which is the one of the thumbnail."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return False
    first = struct.unpack_from(f"{order}I", exif, 4)[0]
    if first + 2 > len(exif):
        return False
    following = first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0]
    return following + 4 <= len(exif) and any(exif[following : following + 4])


def _text(chunk: Chunk) -> bytes:
    """Keyword and text of a chunk of text; empty for another one."""
    keyword, _, rest = chunk.data.partition(b"\0")
    if chunk.kind == b"tEXt":
        return chunk.data
    if chunk.kind == b"zTXt":
        return keyword + b"\0" + _inflated(rest[1:])
    if chunk.kind == b"iTXt":
        text = rest[2:].split(b"\0", 2)[-1]
        return keyword + b"\0" + (_inflated(text) if rest[:1] == b"\1" else text)
    return b""


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MOST)
    except zlib.error:
        return b""
