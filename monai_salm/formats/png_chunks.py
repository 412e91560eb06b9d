"""The parts a PNG file is made of: chunks with checksums, and rows of pixels behind one of five filters."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Noise leaves little to find for higher levels.
_LEVEL = 6
# Rows that are filtered at a time: enough for NumPy to be fast, and little memory however large the image.
_BLOCK = 64
Bytes2D = NDArray[np.uint8]


@dataclass(frozen=True)
class Chunk:
    """One chunk: its four-letter kind and what it holds."""

    kind: bytes
    data: bytes


def png_file(chunks: Iterable[Chunk], tail: bytes = b"") -> bytes:
    """A file of some chunks, and what follows it."""
    parts = [SIGNATURE]
    for kind, data in ((chunk.kind, chunk.data) for chunk in chunks):
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
    return b"".join([*parts, tail])


def split_chunks(content: bytes) -> tuple[list[Chunk], bytes]:
    """The chunks of a PNG file up to IEND, and what follows it; ValueError if it is none, cut off or damaged."""
    if content[:8] != SIGNATURE:
        raise ValueError(f"not a PNG file (its first bytes are {content[:8].hex() or 'missing'})")
    chunks: list[Chunk] = []
    place = 8
    while not chunks or chunks[-1].kind != b"IEND":
        chunk = _chunk_at(content, place)
        chunks.append(chunk)
        place += 12 + len(chunk.data)
    return chunks, content[place:]


def _chunk_at(content: bytes, place: int) -> Chunk:
    if place + 12 > len(content):
        raise ValueError(f"cut off at byte {len(content)}, before its last chunk")
    length, kind = struct.unpack_from(">I4s", content, place)
    if place + 12 + length > len(content):
        raise ValueError(
            f"chunk {kind!r} at byte {place} claims {length} bytes, more than the file holds; it is cut off"
        )
    data = content[place + 8 : place + 8 + length]
    if zlib.crc32(data, zlib.crc32(kind)) != struct.unpack_from(">I", content, place + 8 + length)[0]:
        raise ValueError(f"the checksum of chunk {kind!r} at byte {place} is wrong; get the file again from its source")
    return Chunk(kind, data)


def unfilter(raw: bytes, rows: int, pixel: int) -> Bytes2D:
    """The bytes of the pixels, ``(rows, width * pixel)``, from the inflated image, with a filter number before each row.

    A byte depends on those to the left, above, and above left, so that all bytes of one diagonal are found at once.
    """
    lines = np.frombuffer(raw, np.uint8).reshape(rows, -1)
    kinds, columns = lines[:, 0], (lines.shape[1] - 1) // pixel
    if kinds.max() > 4:
        raise ValueError(f"row {int(kinds.argmax())} has filter {int(kinds.max())}, there are 0 to 4; it is damaged")
    # One column and one row of zeros before the image, as the filters assume.
    image = np.zeros((rows + 1, columns + 1, pixel), np.int16)
    image[1:, 1:] = lines[:, 1:].reshape(rows, columns, pixel)
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1)) + 1
        column = diagonal + 2 - row
        left, up, corner = image[row, column - 1], image[row - 1, column], image[row - 1, column - 1]
        guess = np.choose(kinds[row - 1, None], _guesses(left, up, corner))
        image[row, column] = (image[row, column] + guess) & 255
    return image[1:, 1:].astype(np.uint8).reshape(rows, -1)


def _guesses(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """What each filter expects at a place: nothing, left, up, their mean, or the Paeth neighbour."""
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    return [np.zeros_like(left), left, up, (left + up) >> 1, paeth]


def pixel_data(pixels: NDArray[np.generic]) -> bytes:
    """What the IDAT chunk of pixels ``(h, w, samples)`` of 8 or 16 bits holds."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
    return filter_rows(rows, pixels.shape[2] * pixels.dtype.itemsize)


def filter_rows(pixels: Bytes2D, pixel: int) -> bytes:
    """The IDAT chunk of pixels as bytes ``(rows, width * pixel)``: each row with the filter that leaves the smallest numbers."""
    packer = zlib.compressobj(_LEVEL)
    above = np.zeros_like(pixels[:1])
    packed = []
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start : start + _BLOCK]
        packed.append(packer.compress(_best_filters(block, above, pixel)))
        above = block[-1:]
    return b"".join(packed) + packer.flush()


def _best_filters(block: Bytes2D, above: Bytes2D, pixel: int) -> bytes:
    """Some rows behind their best filters, the number of the filter before each."""
    filtered = np.stack(list(_filtered(block, above, pixel)))
    cost = np.minimum(filtered, 256 - filtered.astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0).astype(np.uint8)
    return np.column_stack([best, filtered[best, np.arange(len(block))]]).tobytes()


def _filtered(block: Bytes2D, above: Bytes2D, pixel: int) -> Iterator[Bytes2D]:
    """The rows behind each of the five filters."""
    padded = np.zeros((len(block) + 1, block.shape[1] + pixel), np.int16)
    padded[:1, pixel:], padded[1:, pixel:] = above, block
    left, up, corner = padded[1:, :-pixel], padded[:-1, pixel:], padded[:-1, :-pixel]
    for guess in _guesses(left, up, corner):
        yield (block - guess).astype(np.uint8)
