"""How noise is packed into a row of the store, found again, and unpacked from a row that may be damaged or hostile.

A row holds the noise of one large image, or of several small ones of one kind, which share what a row takes beside the noise.
Rows are found by the first bytes of the digests of the images in them.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from blake3 import blake3

from monai_salm.noise.digest import DIGEST_SIZE
from monai_salm.noise.grid import GRIDS, INTEGER_GRIDS
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array
from monai_salm.store.packing import (
    Packed,
    PackedCodes,
    RowError,
    compress,
    compress_bytes,
    decompress_bytes,
    pack_codes,
)

#: What images in a row have in common, and the columns of a row, in the order of ``pack_row``.
KIND = ("shape", "dtype", "quantum", "code_dtype")
COLUMNS = ("digests", "names", "windows", "codes", "residual", "checksum")
#: Images in a row at most, and their elements; few images of a middle size have more.
MAX_IMAGES, MAX_ELEMENTS, MAX_ELEMENTS_OF_FEW = 256, 2**15, 2**17
_FEW_IMAGES = 5
_CODE_DTYPES = ("int8", "int16", "int32")
_TYPES: tuple[Any, ...] = (str, str, float, str, *[bytes] * 4, (bytes, type(None)), bytes)
# No medical volume comes near this; a row that claims more is damaged or hostile.
_LARGEST = 2**33
_LONGEST_NAME = 2**16
# A place is the number of a row, and which of its images it is.
_PLACED = f"JOIN noise ON noise.id = place / {MAX_IMAGES}"
_INDEX = f"place % {MAX_IMAGES}"
#: How a row is read by its number, and an image's place is found by the table that has its key: of originals or of protected.
ROW = f"SELECT {', '.join(KIND)}, {', '.join(COLUMNS)} FROM noise JOIN kind ON kind.id = noise.kind WHERE noise.id = ?"
PLACE = {table: f"SELECT place FROM {table} WHERE key = ?" for table in ("original", "protected")}
# Noise and places that wait to be written, at most. Places written in order leave no gaps in the file.
_MOST_WAITING, _MOST_PLACES = 2**12, 2**16
# Bytes of noise that a cache keeps, and images whose places it keeps.
_MOST_KEPT, _MOST_KNOWN = 2**25, 2**17


def kind_of(noise: Noise) -> tuple[Any, ...]:
    """One value for each of ``KIND``; RowError for noise that ``unpack_row`` would refuse."""
    code_dtype = noise.codes.dtype.name
    _check_settings(noise.dtype, noise.quantum, code_dtype)
    return json.dumps(list(noise.codes.shape)), noise.dtype, float(noise.quantum), code_dtype


def images_in_a_row(elements: int) -> int:
    """How many images of this many elements share a row."""
    return min(MAX_IMAGES, max(MAX_ELEMENTS // elements, min(_FEW_IMAGES, MAX_ELEMENTS_OF_FEW // elements), 1))


def pack_row(noises: Sequence[Noise]) -> tuple[Any, ...]:
    """One value for each of ``COLUMNS``, of noises of one kind; RowError for noise that ``unpack_row`` would refuse."""
    kind = kind_of(noises[0])
    digests = b"".join(noise.digest + noise.protected for noise in noises)
    if len(digests) != 2 * DIGEST_SIZE * len(noises):
        raise RowError(f"its digests are not of {DIGEST_SIZE} bytes")
    names = compress_bytes(json.dumps([noise.name for noise in noises], separators=(",", ":")).encode())
    codes, residual = pack_codes(np.stack([noise.codes for noise in noises])), None
    if any(noise.residual is not None for noise in noises):
        nothing = np.zeros(noises[0].codes.shape, f"u{np.dtype(noises[0].dtype).itemsize}")
        residual = compress(np.stack([nothing if n.residual is None else n.residual for n in noises]))
    row = (digests, names, _pack_windows(noises), codes, residual)
    return (*row, checksum(*kind, *row))


class Row:
    """A row that is as it was written, with a value for each of ``KIND`` and ``COLUMNS``; RowError for all that is wrong with it.

    A row that claims another shape than the image's, if that is known, is refused before it takes memory.
    """

    def __init__(self, row: tuple[Any, ...], shape: tuple[int, ...] | None = None) -> None:
        if len(row) != len(_TYPES) or not all(map(isinstance, row, _TYPES)):
            raise RowError("a value is of the wrong type")
        shape_text, self.dtype, self.quantum, code_dtype, self.digests, names, windows, codes, residual, stated = row
        if stated != checksum(*row[:-1]):
            raise RowError("it does not match its checksum")
        _check_settings(self.dtype, self.quantum, code_dtype)
        self.shape = parse_shape(shape_text)
        if shape is not None and self.shape != shape:
            raise RowError(f"it claims the shape {self.shape}, the image has {shape}")
        self.count, rest = divmod(len(self.digests), 2 * DIGEST_SIZE)
        if rest or not 0 < self.count <= MAX_IMAGES:
            raise RowError("it does not hold the image that it is said to")
        self.codes, self.residual = PackedCodes(codes, self.count, self.shape, code_dtype), None
        if residual is not None:
            size = self.count * math.prod(self.shape) * np.dtype(self.dtype).itemsize
            self.residual = Packed(residual, size)
        self.windows = _unpack_windows(windows, self.count, self.shape[0])
        self.names = unpack_names(names, self.count)

    def noise(self, index: int) -> Noise:
        """The noise of one of its images."""
        if not 0 <= index < self.count:
            raise RowError("it does not hold the image that it is said to")
        digest, protected = self.known(index)
        codes, bits = self.codes.image(index), None
        if self.residual is not None:
            bits = self.residual.array(index, self.shape, np.dtype(f"u{np.dtype(self.dtype).itemsize}"))
            bits = bits if bits.any() else None
        return Noise(digest, protected, self.names[index], self.dtype, self._window(index), self.quantum, codes, bits)

    @property
    def kept_bytes(self) -> int:
        """Bytes that its images share and that are in memory; 0 for a large image, which is unpacked when it is asked for."""
        if self.codes.packed.whole is None:
            return 0
        residual = 0 if self.residual is None else self.residual.kept_bytes
        return self.codes.packed.kept_bytes + residual + self.codes.exceptions * (8 + self.codes.dtype.itemsize)

    def check(self) -> None:
        """Unpack everything once, a part at a time, so that a row that claims much takes no memory."""
        self.codes.check()
        if self.residual is not None:
            self.residual.check()
        for index in range(self.count):
            self._window(index)

    def known(self, index: int) -> tuple[bytes, bytes]:
        """The digests of an image's original and protected values."""
        start, middle, end = (2 * DIGEST_SIZE * index + part * DIGEST_SIZE for part in range(3))
        return self.digests[start:middle], self.digests[middle:end]

    def _window(self, index: int) -> IntensityWindow:
        try:
            return _window_of(self.windows[index].tobytes())
        except ValueError as error:
            raise RowError("its window cannot be read") from error


def _pack_windows(noises: Sequence[Noise]) -> bytes:
    """The windows of the images in a row, ``(image, channel, 2)`` of float64; images of one window take next to nothing."""
    channels = len(noises[0].codes)
    return compress_bytes(np.asarray([noise.window.channels(channels) for noise in noises], "<f8").tobytes())


def _unpack_windows(packed: bytes, count: int, channels: int) -> Array:
    try:
        return np.frombuffer(decompress_bytes(packed, count * channels * 16), "<f8").reshape(count, channels, 2)
    except ValueError as error:
        raise RowError("its window cannot be read") from error


@lru_cache(maxsize=64)
def _window_of(pairs: bytes) -> IntensityWindow:
    """The window of these bounds of each channel, which is often that of other images too."""
    return IntensityWindow.of_channels(np.frombuffer(pairs, "<f8").reshape(-1, 2).tolist())


def unpack_names(packed: bytes, count: int) -> list[str]:
    """The names of the images in a row; RowError if they cannot be read."""
    if count > MAX_IMAGES:
        raise RowError(f"it claims {count} images, a row has at most {MAX_IMAGES}")
    try:
        names = json.loads(decompress_bytes(packed, count * _LONGEST_NAME))
    except (ValueError, RecursionError) as error:
        raise RowError("its names cannot be read") from error
    if not isinstance(names, list) or len(names) != count or set(map(type, names)) != {str}:
        raise RowError("its names are not one for each image")
    return names


@lru_cache(maxsize=64)
def parse_shape(text: object) -> tuple[int, ...]:
    """A shape from its JSON text; RowError if it is no list of positive whole numbers, or larger than any image."""
    try:
        shape = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise RowError("its shape cannot be read") from error
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
        raise RowError("its shape is not a list of positive whole numbers")
    if len(shape) > 8 or math.prod(shape) > _LARGEST:
        raise RowError("its shape is larger than any image")
    return tuple(shape)


def checksum(*parts: object) -> bytes:
    """Hash of values and their lengths, so that nothing can move from one value to the next unseen."""
    data = [part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace") for part in parts]
    digest = blake3(struct.pack(f"<{len(data)}Q", *map(len, data)))
    for part in data:
        digest.update(part)
    return bytes(digest.digest(16))


def _check_settings(dtype: str, quantum: float, code_dtype: str) -> None:
    # A quantum below 1 on an integer grid would be rounded to no noise at all.
    whole = quantum >= 1 and quantum == math.floor(quantum) if math.isfinite(quantum) else False
    fits = whole if dtype in INTEGER_GRIDS else math.isfinite(quantum) and quantum > 0
    if dtype not in GRIDS or code_dtype not in _CODE_DTYPES or not fits:
        raise RowError(f"noise of {code_dtype} codes in steps of {quantum} cannot be on a grid of {dtype}")


def key_of(digest: bytes) -> int:
    """The key of an image in the table: the first 8 bytes of its digest as SQLite's signed integer, in the same order."""
    return int.from_bytes(digest[:8].ljust(8, b"\0"), "big") - 2**63


def digest_at(table: str, all_of_them: bool = False) -> str:
    """The query for the whole digest of the images under a key, or of all."""
    side = 0 if table == "original" else DIGEST_SIZE
    digest = f"substr(digests, {1 + side} + {2 * DIGEST_SIZE} * ({_INDEX}), {DIGEST_SIZE})"
    return f"SELECT {digest} FROM {table} {_PLACED}" + ("" if all_of_them else " WHERE key = ?")


class RowCache:
    """The rows that one thread used last, by their number in the store; none of large images, whose noise fills memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._size = 0
        self._places: dict[tuple[str, bytes], int] = {}

    def place(self, table: str, digest: bytes) -> int | None:
        """The place of an image that was found before."""
        return self._places.get((table, digest))

    def found(self, table: str, digest: bytes, place: int) -> None:
        """Keep the place of an image: those that are found once have it for good."""
        if len(self._places) >= _MOST_KNOWN:
            self._places.clear()
        self._places[table, digest] = place

    def row(self, number: int, read: Callable[[int], Row]) -> Row:
        """A row that is kept, or what ``read`` gives for its number; then the places of all its originals are known."""
        row = self._rows.pop(number, None)
        if row is None:
            row = read(number)
            self._size += row.kept_bytes
            for index in range(row.count if row.kept_bytes else 0):
                self.found("original", row.known(index)[0], number * MAX_IMAGES + index)
        if row.kept_bytes:
            self._rows[number] = row  # the last in order is the last that was used
            while self._size > _MOST_KEPT:
                self._size -= self._rows.pop(next(iter(self._rows))).kept_bytes
        return row


class RowWriter:
    """Writes noise into a store in one transaction of a connection; images already there keep their noise."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.waiting: dict[tuple[Any, ...], list[Noise]] = {}
        self.unwritten: dict[int, bytes] = {}
        self.places: dict[str, dict[int, int]] = {"original": {}, "protected": {}}

    def add(self, noise: Noise) -> None:
        """Take noise; it is in the store after ``finish``. NoiseStoreError if it is not storable."""
        try:
            kind = kind_of(noise)
            if self._known(noise):
                return
            group = self.waiting.setdefault(kind, [])
            group.append(noise)
            self.unwritten[key_of(noise.digest)] = noise.digest
            if len(group) >= images_in_a_row(noise.codes.size):
                self._write(kind)
        except RowError as error:
            raise NoiseStoreError(f"case {noise.name!r}: {error}") from error
        if sum(map(len, self.waiting.values())) > _MOST_WAITING or len(self.unwritten) > _MOST_PLACES:
            self.finish()

    def finish(self) -> None:
        """Write what still waits."""
        for kind in list(self.waiting):
            self._write(kind)
        for table, places in self.places.items():
            # Two originals may become one protected image; the first stays, as it does for originals.
            self.connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", sorted(places.items()))
            places.clear()
        self.unwritten.clear()

    def _known(self, noise: Noise) -> bool:
        key = key_of(noise.digest)
        stored = self.unwritten.get(key)
        if stored is None:
            row = self.connection.execute(digest_at("original"), (key,)).fetchone()
            stored = row and row[0]
        if stored is not None and stored != noise.digest:
            raise RowError("its digest begins as that of another image in the store, so both cannot be in one")
        return stored is not None

    def _write(self, kind: tuple[Any, ...]) -> None:
        noises = self.waiting.pop(kind)
        marks = ",".join("?" * len(COLUMNS))
        query = f"INSERT INTO noise (kind, {', '.join(COLUMNS)}) VALUES (?,{marks})"
        row = self.connection.execute(query, (self._kind(kind), *pack_row(noises))).lastrowid
        assert row is not None
        for index, noise in enumerate(noises):
            place = row * MAX_IMAGES + index
            self.places["original"][key_of(noise.digest)] = place
            self.places["protected"].setdefault(key_of(noise.protected), place)

    def _kind(self, kind: tuple[Any, ...]) -> int:
        where = " AND ".join(f"{name} = ?" for name in KIND)
        found = self.connection.execute(f"SELECT id FROM kind WHERE {where}", kind).fetchone()
        query = f"INSERT INTO kind ({', '.join(KIND)}) VALUES (?,?,?,?)"
        return int(found[0] if found else self.connection.execute(query, kind).lastrowid or 0)
