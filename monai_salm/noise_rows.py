"""How noise is packed into a row of the store, and unpacked from a row that may be damaged or hostile."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import zstandard

from monai_salm.intensity import GRIDS, INTEGER_GRIDS, Array
from monai_salm.noise import Noise

#: Columns of a row, in the order of ``pack_row``.
COLUMNS = ("digest", "protected", "name", "shape", "dtype", "quantum", "code_dtype", "codes", "residual", "checksum")
_CODE_DTYPES = ("int8", "int16", "int32")
_TYPES: tuple[type | tuple[type, ...], ...] = (
    bytes,
    bytes,
    str,
    str,
    str,
    float,
    str,
    bytes,
    (bytes, type(None)),
    bytes,
)
# zstd packs at most 128 KiB into a block of 4 bytes; a row that claims more than this times its size is a bomb.
_MAX_RATIO = 2**15
# No medical volume comes near this; a row that claims more is damaged or hostile.
_MAX_ELEMENTS = 2**33


class RowError(ValueError):
    """A row that does not hold what ``pack_row`` wrote."""


def pack_row(noise: Noise) -> tuple[Any, ...]:
    """One value for each of ``COLUMNS``.

    Raises:
        RowError: for noise that ``unpack_row`` would refuse.
    """
    shape = json.dumps(list(noise.codes.shape))
    _check_settings(noise.dtype, noise.quantum, noise.codes.dtype.name)
    codes = _compress(noise.codes)
    residual = None if noise.residual is None else _compress(noise.residual)
    row = (noise.digest, noise.protected, noise.name, shape, noise.dtype, float(noise.quantum), noise.codes.dtype.name)
    return (*row, codes, residual, checksum(*row, codes, residual))


def unpack_row(row: tuple[Any, ...], shape: tuple[int, ...] | None = None) -> Noise:
    """The noise in a row.

    Args:
        row: one value for each of ``COLUMNS``.
        shape: of the image it was found for, if known: a row that claims another is refused before it takes memory.

    Raises:
        RowError: whatever is wrong with the row.
    """
    if len(row) != len(COLUMNS) or not all(isinstance(v, t) for v, t in zip(row, _TYPES, strict=True)):
        raise RowError("a value is of the wrong type")
    digest, protected, name, shape_text, dtype, quantum, code_dtype, codes, residual, stated = row
    if stated != checksum(*row[:-1]):
        raise RowError("it does not match its checksum")
    _check_settings(dtype, quantum, code_dtype)
    own_shape = parse_shape(shape_text)
    if shape is not None and own_shape != shape:
        raise RowError(f"it claims the shape {own_shape}, the image has {shape}")
    bits = None if residual is None else _decompress(residual, own_shape, f"u{np.dtype(dtype).itemsize}")
    return Noise(digest, protected, name, dtype, quantum, _decompress(codes, own_shape, code_dtype), bits)


def parse_shape(text: object) -> tuple[int, ...]:
    """A shape from its JSON text.

    Raises:
        RowError: if it is not a list of positive whole numbers, or is larger than any image.
    """
    try:
        shape = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise RowError("its shape cannot be read") from error
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
        raise RowError("its shape is not a list of positive whole numbers")
    if len(shape) > 8 or math.prod(shape) > _MAX_ELEMENTS:
        raise RowError("its shape is larger than any image")
    return tuple(shape)


def checksum(*parts: object) -> bytes:
    """SHA-256 over values and their lengths, so that nothing can move from one value to the next unseen."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def _check_settings(dtype: str, quantum: float, code_dtype: str) -> None:
    # A quantum below 1 on an integer grid would be rounded to no noise at all.
    whole = quantum >= 1 and quantum == math.floor(quantum) if math.isfinite(quantum) else False
    fits = whole if dtype in INTEGER_GRIDS else math.isfinite(quantum) and quantum > 0
    if dtype not in GRIDS or code_dtype not in _CODE_DTYPES or not fits:
        raise RowError(f"noise of {code_dtype} codes in steps of {quantum} cannot be on a grid of {dtype}")


def _compress(array: Array) -> bytes:
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return zstandard.ZstdCompressor(level=3).compress(little.tobytes())


def _decompress(blob: bytes, shape: tuple[int, ...], dtype: str) -> Array:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        # The frame must announce just this size: a bomb is refused before any memory is taken.
        if zstandard.frame_content_size(blob) != size:
            raise RowError("its compressed noise is not of its shape")
        if size > len(blob) * _MAX_RATIO:
            raise RowError("its compressed noise is too small for its shape")
        data = zstandard.ZstdDecompressor().decompress(blob, max_output_size=size)
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)
    except (zstandard.ZstdError, MemoryError) as error:
        raise RowError("its compressed noise cannot be unpacked") from error
