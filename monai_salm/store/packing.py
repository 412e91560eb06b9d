"""Noise codes as few bytes.

Strong noise is 0 or plus or minus the budget nearly everywhere, so four codes make one of 81 symbols; zstd's entropy coder
brings those near the entropy of the signs, and unpacking is one look into a table. Codes of other sizes are exceptions,
kept apart; noise that is full of them is compressed as it is.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard

from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import in_threads

# Ways of packing, the first byte of what is packed. With chained signs a code is told relative to the code before it on its
# last axis: neighbours often agree, but putting that together takes time on a large image.
_PLAIN, _SIGNS, _CHAINED = 0, 1, 2
_HEADER = struct.Struct("<BiII")  # way, largest code, number of exceptions, their bytes
_PER_SYMBOL = 4
_POWERS = 3 ** np.arange(_PER_SYMBOL, dtype=np.uint8)
_SYMBOLS = 3**_PER_SYMBOL
# Up to this many codes are packed as tightly as zstd can, and with chained signs where that is smaller.
_SMALL = 2**16
# Symbols of noise hardly repeat: looking for short repetitions costs more than it finds.
_TIGHT = zstandard.ZstdCompressionParameters.from_level(19, min_match=7)
_QUICK = zstandard.ZstdCompressionParameters.from_level(3, min_match=7)
_MAX_EXCEPTIONS = 1 / 16
# Exceptions that are packed more tightly than so many times are so regular that codes as they are take little as well.
_FEW_EXCEPTIONS, _TIGHT_EXCEPTIONS = 2**20, 256
# Bytes that are compressed apart from others, so that threads share a large image.
_PART = 2**18
# Bytes of small images that are unpacked together and kept.
_KEPT = 2**16
# zstd packs at most 128 KiB into a block of 4 bytes; what claims more than this times its size is a bomb.
_MAX_RATIO = 2**15
_LARGEST = {name: int(np.iinfo(name).max) for name in ("int8", "int16", "int32")}
_LOCAL = threading.local()


class RowError(ValueError):
    """A row of a store that does not hold what was packed."""


def pack_codes(codes: Array) -> bytes:
    """Pack the codes ``(images, *shape)``, signed integers, of images of one shape."""
    codes = np.ascontiguousarray(codes)
    top = max(int(codes.max()), -int(codes.min()))
    other = (codes != 0) & (codes != top) & (codes != -top)
    count = int(np.count_nonzero(other))
    few = count <= codes.size * _MAX_EXCEPTIONS
    exceptions = _pack_exceptions(np.flatnonzero(other), codes[other]) if few else b""
    if not few or count * (8 + codes.itemsize) > _most_exceptions(len(exceptions)):
        return bytes([_PLAIN]) + compress(codes)
    head, signs = (top, count, len(exceptions)), np.sign(codes).astype(np.int8)
    ways = {_SIGNS: signs} if codes.size > _SMALL else {_SIGNS: signs, _CHAINED: _chain(signs)}
    return min((_HEADER.pack(w, *head) + exceptions + compress(_symbols(s)) for w, s in ways.items()), key=len)


class PackedCodes:
    """The codes of ``count`` images that were packed together; RowError for what ``pack_codes`` did not make."""

    def __init__(self, blob: bytes, count: int, shape: tuple[int, ...], dtype: str) -> None:
        self.count, self.shape, self.dtype, self.size = count, shape, np.dtype(dtype), math.prod(shape)
        self.way, self.exceptions = _PLAIN, 0
        if blob[:1] == bytes([_PLAIN]):
            self.packed = Packed(blob[1:], count * self.size * self.dtype.itemsize)
            return
        if len(blob) < _HEADER.size:
            raise RowError("its noise is cut off")
        self.way, self.top, self.exceptions, length = _HEADER.unpack_from(blob)
        known = self.way in (_SIGNS, _CHAINED) and 0 <= self.top <= _LARGEST[dtype]
        if not known or self.exceptions > count * self.size * _MAX_EXCEPTIONS:
            raise RowError("its noise is packed in no way that is known")
        self.symbols, rest = -(-self.size // _PER_SYMBOL), blob[_HEADER.size :]
        self.packed = Packed(rest[length:], count * self.symbols)
        self.places, self.values = _unpack_exceptions(rest[:length], self.exceptions, dtype)
        self.table = _table(self.top, dtype) if self.way == _SIGNS else _table(1, "int8")
        if self.packed.whole is not None:
            _require_symbols(self.packed.whole)

    def image(self, index: int) -> Array:
        """The codes of one image, in memory of their own."""
        if self.way == _PLAIN:
            return self.packed.array(index, self.shape, self.dtype)
        wide = np.empty((self.symbols, _PER_SYMBOL), self.table.dtype)
        self.packed.spread(index * self.symbols, wide, self._spread)
        codes: Array = wide.reshape(-1)[: self.size].reshape(self.shape)
        if self.way == _CHAINED:
            codes = np.multiply(_unchain(codes), self.top, dtype=self.dtype)
        if self.exceptions:
            start = index * self.size
            first, last = self.places.searchsorted((start, start + self.size))
            if first < last:
                codes.reshape(-1)[self._within(first, last, start)] = self.values[first:last]
        return codes

    def check(self) -> None:
        """Unpack every part once, and keep none."""
        self.packed.check(_require_symbols if self.way != _PLAIN else lambda _: None)
        if self.exceptions:
            self._within(0, self.exceptions, 0, self.count * self.size)

    def _spread(self, packed: Array, out: Array) -> None:
        if self.packed.whole is None:
            _require_symbols(packed)
        self.table.take(packed, axis=0, out=out, mode="clip")

    def _within(self, first: int, last: int, start: int, most: int | None = None) -> Array:
        """Places of exceptions in an image, or in ``most`` elements. Places that are not in order are no places."""
        places = self.places[first:last] - start
        if places.min() < 0 or places.max() >= (self.size if most is None else most):
            raise RowError("its noise has exceptions outside the image")
        return places


def compress(array: Array) -> bytes:
    """An array's bytes in zstd frames of at most ``_PART`` bytes each, after their lengths."""
    raw = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(-1).view(np.uint8)
    settings = _TIGHT if raw.size <= _SMALL else _QUICK
    parts = [raw[start : start + _PART] for start in range(0, raw.size, _PART)]

    def packed(part: Array) -> bytes:
        return zstandard.ZstdCompressor(compression_params=settings).compress(part.data)

    frames = in_threads(packed, parts, raw.size)
    return struct.pack(f"<{len(frames)}I", *map(len, frames)) + b"".join(frames)


class Packed:
    """Bytes that ``compress`` packed, ``total`` of them once unpacked; few are unpacked whole and kept."""

    def __init__(self, blob: bytes, total: int) -> None:
        self.frames, self.total = _frames(blob, total), total
        self.whole = self._part(0) if total <= _KEPT else None

    def spread(self, start: int, out: Array, spread: Callable[[Array, Array], object]) -> None:
        """Spread the bytes from ``start`` on over all rows of ``out``, a part at a time, in threads."""
        if self.whole is not None:
            spread(self.whole[start : start + len(out)], out)
            return

        def part(number: int) -> None:
            data = self._part(number)
            begin, end = max(start, number * _PART), min(start + len(out), number * _PART + len(data))
            spread(data[begin - number * _PART : end - number * _PART], out[begin - start : end - start])

        in_threads(part, range(start // _PART, (start + len(out) - 1) // _PART + 1), len(out) * _PER_SYMBOL)

    @property
    def kept_bytes(self) -> int:
        """Bytes in memory, packed and unpacked."""
        return sum(map(len, self.frames)) + (0 if self.whole is None else self.whole.size)

    def check(self, require: Callable[[Array], None] = lambda _: None) -> None:
        """Unpack every part once, and keep none; ``require`` refuses a part."""
        for number in range(len(self.frames)):
            require(self._part(number))

    def _part(self, number: int) -> Array:
        size = min(_PART, self.total - number * _PART)
        return np.frombuffer(_decompressed(self.frames[number], size), np.uint8)

    def array(self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """One of several arrays of one shape and type, in memory of its own."""
        out = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        self.spread(index * len(out), out, lambda packed, part: np.copyto(part, packed))
        return out.view(dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def compress_bytes(data: bytes, level: int = 19) -> bytes:
    """Few bytes as one zstd frame, or as they are where that is no larger, after a byte that says which."""
    packed = zstandard.ZstdCompressor(level).compress(data)
    return b"\1" + packed if len(packed) < len(data) else b"\0" + data


def decompress_bytes(packed: bytes, most: int) -> bytes:
    """What ``compress_bytes`` was given; RowError for anything else, or for more bytes than there may be."""
    if packed[:1] != b"\1":
        return packed[1:]
    size = _content_size(packed[1:])
    if size > most:
        raise RowError("it is larger than it can be")
    return _decompressed(packed[1:], size)


def _frames(blob: bytes, total: int) -> list[bytes]:
    """The zstd frames, each of which must announce just its size."""
    count = -(-total // _PART)
    if len(blob) < 4 * count:
        raise RowError("its compressed noise is too small for its shape")
    lengths = struct.unpack_from(f"<{count}I", blob)
    if 4 * count + sum(lengths) != len(blob):
        raise RowError("its compressed noise is not of its length")
    found, place = [], 4 * count
    for number, length in enumerate(lengths):
        found.append(blob[place : place + length])
        place += length
        if _content_size(found[-1]) != min(_PART, total - number * _PART):
            raise RowError("its compressed noise is not of its shape")
    return found


def _content_size(frame: bytes) -> int:
    """What a frame announces to hold; a bomb is refused before any memory is taken."""
    try:
        size = int(zstandard.frame_content_size(frame))
    except zstandard.ZstdError as error:
        raise RowError("it cannot be unpacked") from error
    if not 0 <= size <= len(frame) * _MAX_RATIO:
        raise RowError("its compressed noise is not of its shape")
    return size


def _decompressed(frame: bytes, size: int) -> bytes:
    if not hasattr(_LOCAL, "unpacker"):  # one a thread: it must not be shared, and making one takes time
        _LOCAL.unpacker = zstandard.ZstdDecompressor()
    try:
        data: bytes = _LOCAL.unpacker.decompress(frame, max_output_size=size)
    except (zstandard.ZstdError, MemoryError) as error:
        raise RowError("its compressed noise cannot be unpacked") from error
    return data


def _require_symbols(packed: Array) -> None:
    if np.maximum.reduce(packed) >= _SYMBOLS:
        raise RowError("its noise has symbols that are none")


def _symbols(signs: Array) -> Array:
    """Four signs a byte, each image's filled up with zeros."""
    flat = signs.reshape(len(signs), -1)
    fill = -flat.shape[1] % _PER_SYMBOL
    groups = np.pad(flat, ((0, 0), (0, fill))).reshape(-1, _PER_SYMBOL)
    packed = np.zeros(len(groups), np.uint8)
    for place, power in enumerate(_POWERS):
        packed += (groups[:, place] + 1).astype(np.uint8) * power
    return packed


@lru_cache(maxsize=64)
def _table(top: int, dtype: str) -> Array:
    """The four codes of every symbol, ``(symbols, 4)``."""
    digits = np.arange(_SYMBOLS)[:, None] // _POWERS % 3
    return ((digits - 1) * top).astype(dtype)


def _chain(signs: Array) -> Array:
    """Each sign times that of the last nonzero one before it on the last axis."""
    chained, last = np.empty_like(signs), np.ones(signs.shape[:-1], np.int8)
    for place in range(signs.shape[-1]):
        column = signs[..., place]
        chained[..., place] = column * last
        last = np.where(column == 0, last, column)
    return chained


def _unchain(chained: Array) -> Array:
    """The product of the nonzero signs so far."""
    zero = chained == 0
    signs: Array = np.multiply.accumulate(chained | zero, axis=-1, dtype=np.int8) * ~zero
    return signs


def _most_exceptions(packed: int) -> int:
    """The bytes that packed exceptions may come to, so that few bytes never claim much memory."""
    return max(_FEW_EXCEPTIONS, _TIGHT_EXCEPTIONS * packed)


def _pack_exceptions(places: Array, values: Array) -> bytes:
    """Distances of places, and values. Bytes of equal weight stand together, since most of the high ones are 0."""
    steps = np.diff(places, prepend=0).astype("<u8")
    numbers = steps, values.astype(values.dtype.newbyteorder("<"))
    planes = [part.view(np.uint8).reshape(len(part), part.itemsize).T.tobytes() for part in numbers]
    return compress_bytes(b"".join(planes), level=9) if len(places) else b""


def _unpack_exceptions(frame: bytes, count: int, dtype: str) -> tuple[Array, Array]:
    """Places in order, and values."""
    stored = np.dtype(dtype).newbyteorder("<")
    size = count * (8 + stored.itemsize)
    data = decompress_bytes(frame, min(size, _most_exceptions(len(frame))))
    if len(data) != size:
        raise RowError("its noise is cut off")
    planes = np.frombuffer(data, np.uint8).reshape(8 + stored.itemsize, count).T
    steps, values = (np.ascontiguousarray(part) for part in (planes[:, :8], planes[:, 8:]))
    return np.cumsum(steps.view("<i8").reshape(-1)), values.view(stored).reshape(-1)
