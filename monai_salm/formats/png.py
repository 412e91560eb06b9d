"""PNG: the pixels are packed again. Alpha and all other chunks keep their bytes and order. Other pictures become PNG."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from monai_salm.formats.base import FormatError, ImageFormat, Opened
from monai_salm.formats.gzipped import inflated
from monai_salm.formats.limits import read_file, require_claim, require_size
from monai_salm.formats.pictures import as_png
from monai_salm.formats.png_chunks import SIGNATURE, Chunk, pixel_data, png_file, split_chunks, unfilter
from monai_salm.formats.thumbnails import has_thumbnail
from monai_salm.shared.arrays import Array

# Colour type -> samples a pixel, alpha included.
_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
# Bytes that a chunk may hold; zlib adds a few.
_LARGEST_CHUNK = 2**31 - 2**20
_CRITICAL = (b"IHDR", b"IDAT", b"IEND", b"PLTE")
# Chunk -> why a file with it is refused.
_REFUSED = {
    b"acTL": "it is animated; store one image a file",
    b"tRNS": "it declares a transparent colour of 16 bits, and noise would change which pixels are transparent; "
    "save it with an alpha channel or without transparency",
}

# Bytes after the end that some programs leave, to fill up a block.
_MAX_TAIL = 16


@dataclass(frozen=True)
class _Png(Opened):
    """A parsed file: its chunks, what follows them, and its pixels with alpha, ``(h, w, samples)``."""

    chunks: Sequence[Chunk]
    tail: bytes
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    whole: bytes | None = None

    @property
    def colours(self) -> int:
        """Samples a pixel without alpha: where there are two or four, it is the last."""
        samples = int(self.pixels.shape[2])
        return samples - 1 if samples % 2 == 0 else samples

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.colours, *self.pixels.shape[:2])

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        return self.pixels.dtype

    def image(self) -> Array:
        return np.ascontiguousarray(np.moveaxis(self.pixels[..., : self.colours], -1, 0))

    def files(self, image: Array) -> dict[str, bytes]:
        """The file with one new IDAT chunk in place of the old ones."""
        pixels = self.pixels.copy()
        pixels[..., : self.colours] = np.moveaxis(image, 0, -1)
        first, others = self._first(), [chunk for chunk in self.chunks if chunk.kind != b"IDAT"]
        chunks = (*others[:first], Chunk(b"IDAT", pixel_data(pixels)), *others[first:])
        return {"": png_file(chunks, self.tail)}

    def frame(self) -> bytes:
        digest = hashlib.sha256(png_file([chunk for chunk in self.chunks if chunk.kind != b"IDAT"])[len(SIGNATURE) :])
        digest.update(struct.pack(">I", self._first()))
        digest.update(np.ascontiguousarray(self.pixels[..., self.colours :]).tobytes() + self.tail)
        return digest.digest()

    def _first(self) -> int:
        """Which chunk is the first of the pixels."""
        return next(place for place, chunk in enumerate(self.chunks) if chunk.kind == b"IDAT")


class Png(ImageFormat):
    """``.png`` files, grey or colour, with or without alpha, which is kept and never part of the image.

    Palettes, fewer than 8 bits, interlacing and transparent colours become plain grey or RGB of 8 bits, with alpha where there
    is transparency; so does a picture of another format that is called .png. ``keepsake`` is the whole file then.

    Images are ``(1, h, w)`` or ``(3, h, w)``, rows first as stored. MONAI's ``PILReader`` swaps the spatial axes and puts
    channels last, so noise made on what it loads does not fit the file.
    """

    name = "png"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    pictures = True
    converts = True

    def open(self, path: Path) -> _Png:
        try:
            content = read_file(path)
            whole = None if content[:8] == SIGNATURE else content
            chunks, tail = split_chunks(content if whole is None else as_png(content))
            _check_tail(tail)
            if any(chunk.kind == b"acTL" for chunk in chunks):
                raise ValueError(_REFUSED[b"acTL"])
            if whole is None and _is_converted(chunks):
                _check_sizes(chunks)
                whole, chunks = content, split_chunks(as_png(content, chunks))[0]
            _check_chunks(chunks)
            return _Png(chunks, tail, _decode(chunks), whole)
        except (ValueError, zlib.error) as error:
            raise FormatError(f"{path}: {error}") from error


class Picture(Png):
    """Files of another format, which become PNG of the same pixels: theirs would round the noise away, or cannot hold it.

    Images are as Pillow decodes them, grey or RGB. ``keepsake`` is the whole file.
    """

    published = ".png"

    def __init__(self, name: str, *suffixes: str) -> None:
        self.name, self.suffixes = name, suffixes  # type: ignore[misc]


PICTURES = (
    Picture("jpeg", ".jpg", ".jpeg", ".jpe", ".jfif"),
    Picture("jpeg2000", ".jp2", ".j2k", ".jpf", ".jpx"),
    Picture("webp", ".webp"),
    Picture("gif", ".gif"),
    Picture("bmp", ".bmp", ".dib"),
    Picture("netpbm", ".pgm", ".ppm", ".pbm", ".pnm"),
)


def _is_converted(chunks: Sequence[Chunk]) -> bool:
    """Whether the pixels become plain ones of 8 bits: Pillow keeps every bit of all but colours of 16 bits."""
    header = chunks[0].data
    if chunks[0].kind != b"IHDR" or len(header) != 13:
        return False  # it is refused below
    depth, colour, interlace = header[8], header[9], header[12]
    transparent = any(chunk.kind == b"tRNS" for chunk in chunks) and colour in (0, 2, 3)
    if depth == 16:
        return interlace == 1 and colour == 0 and not transparent
    return depth < 8 or colour == 3 or interlace == 1 or transparent


def _check_sizes(chunks: Sequence[Chunk]) -> None:
    """Memory is only taken for what the packed bytes can really hold."""
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[0].data)
    samples, held = _SAMPLES.get(colour, 1), sum(len(chunk.data) for chunk in chunks if chunk.kind == b"IDAT")
    if not width or not height:
        raise ValueError(f"its header declares {width} x {height} pixels; it is damaged")
    require_claim(width * height * samples * depth // 8, held)
    require_size(width * height * max(samples, 4 if colour == 3 else 1), held)


def _check_chunks(chunks: Sequence[Chunk]) -> None:
    kinds = [chunk.kind for chunk in chunks]
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1 or len(chunks[0].data) != 13 or b"IDAT" not in kinds:
        raise ValueError("it has no header or no pixels; it is damaged")
    places = [place for place, kind in enumerate(kinds) if kind == b"IDAT"]
    if places[-1] - places[0] != len(places) - 1:
        raise ValueError("its pixels (IDAT) are not in one run of chunks; it is damaged")
    for chunk in chunks:
        if chunk.kind in _REFUSED:
            raise ValueError(_REFUSED[chunk.kind])
        if chunk.kind not in _CRITICAL and has_thumbnail(chunk):
            name = chunk.kind.decode("latin-1")
            raise ValueError(f"its {name} chunk holds a thumbnail of the unprotected image; remove it first")
        if chunk.kind[:1].isupper() and chunk.kind not in _CRITICAL:
            raise ValueError(
                f"chunk {chunk.kind!r} is not known and may decide what the pixels mean; save the image again"
            )


def _check_tail(tail: bytes) -> None:
    """What follows the image is copied; it must not be another one."""
    if len(tail) > _MAX_TAIL or tail.strip(b"\0 \t\r\n"):
        raise ValueError(
            f"{len(tail)} bytes follow its end, which may hold the unprotected image; cut them off, or save it again"
        )


def _decode(chunks: Sequence[Chunk]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixels ``(h, w, samples)``, native byte order."""
    width, height, depth, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0].data)
    if not width or not height or packing or filtering or interlace > 1:
        raise ValueError(f"its header declares {width} x {height} pixels in an unknown way; it is damaged")
    if depth not in (8, 16) or colour not in _SAMPLES:
        raise ValueError(
            f"{depth}-bit samples of colour type {colour} are not supported; convert it to 8-bit grey or RGB"
        )
    if interlace:
        raise ValueError("it is interlaced with 16 bits and colours; save it without interlacing")
    samples, pixel = _SAMPLES[colour], _SAMPLES[colour] * depth // 8
    packed = b"".join(chunk.data for chunk in chunks if chunk.kind == b"IDAT")
    raw = _inflate(packed, height, 1 + width * pixel)
    if depth == 8 or samples == 1:
        if len(raw) < _LARGEST_CHUNK:  # Pillow need not unpack it a second time
            packed = zlib.compress(raw, 0)
        return _by_pillow(chunks[0], packed, height, width, samples)
    stored = unfilter(raw, height, pixel).view(">u2")
    return stored.astype(np.uint16).reshape(height, width, samples)


def _inflate(packed: bytes, rows: int, row: int) -> bytes:
    """The filtered rows; memory is only taken for what the packed bytes can really hold."""
    require_claim(rows * row, len(packed))
    raw = inflated(packed, rows * row, zlib.MAX_WBITS)
    if max(raw[::row]) > 4:
        raise ValueError("a row has an unknown filter; it is damaged")
    return raw


def _by_pillow(
    header: Chunk, packed: bytes, height: int, width: int, samples: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Let Pillow undo the filters where it keeps every bit, which it does not for colour of 16 bits.

    It gets header and pixels alone, so that nothing else in the file reaches it.
    """
    content = png_file([header, Chunk(b"IDAT", packed), Chunk(b"IEND", b"")])
    try:
        # Not Image.open: it warns of large images, and the size of this file is checked already.
        with PngImageFile(io.BytesIO(content)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"its pixels are damaged ({error})") from error
    if pixels.size != math.prod((height, width, samples)):
        raise ValueError(f"its pixels decode to shape {pixels.shape}; convert it to 8-bit grey or RGB")
    shaped = pixels.reshape(height, width, samples)
    return shaped.astype(np.uint16) if header.data[8] == 16 else shaped.astype(np.uint8)
