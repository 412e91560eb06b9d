"""The content digest by which an image is known, in any type and from any reader.

Values are taken in the order of the axes (C order), in blocks of ``BLOCK``. Each block is hashed in the smallest type of a
fixed list that holds its values exactly, so that neither the type of the array nor the number of threads matters. An image
of several blocks is known by the hash of its blocks' hashes: its shape, which is hashed first, says how many there are, so
two images with one digest would be a collision of the hash. Stores know images by BLAKE3, which is the fastest hash. What is
drawn for an image follows from SHA-256, so that the same data and seed give the same noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from blake3 import blake3

from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import BLOCK, blocks, in_threads

#: Bytes of a digest: 128 bits of the hash. Another image for a given digest cannot be found; two images of one digest take
#: 2**64 hashes to find, and would only share their noise.
DIGEST_SIZE = 16

_INTEGERS = ("uint8", "int16", "uint16", "int32")
_RANGES = [(name, np.iinfo(name).min, np.iinfo(name).max) for name in _INTEGERS]
# Up to this many values, copying them to compare them is quicker than NumPy's calls.
_FEW = 2**12
_UINT8, _INT16, _INT32, _FLOAT32 = np.dtype("u1"), np.dtype("i2"), np.dtype("i4"), np.dtype("f4")


def content_digest(array: Array) -> bytes:
    """Hash of the values and the shape of an image ``(channel, *spatial)``, in ``DIGEST_SIZE`` bytes; TypeError if they are not real.

    It is independent of the type that the values are stored in.
    """
    return _digest_of(array, blake3)


def drawing_digest(array: Array) -> bytes:
    """``content_digest`` by SHA-256, for what is drawn for an image, so that the hash of stores does not change the noise."""
    return _digest_of(array, hashlib.sha256)


def digest_of_blocks(shape: tuple[int, ...], values: Callable[[slice], Array]) -> bytes:
    """The content digest of an image whose values a function gives, called once for each block of the flat image, in threads."""
    return _joined(shape, values, blake3)


def _digest_of(array: Array, algorithm: Callable[..., Any]) -> bytes:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an image must hold real numbers, got dtype {array.dtype}")
    flat = np.ascontiguousarray(array).reshape(-1)
    return _joined(array.shape, flat.__getitem__, algorithm)


def _joined(shape: tuple[int, ...], values: Callable[[slice], Array], algorithm: Callable[..., Any]) -> bytes:
    header, size = f"{','.join(map(str, shape))};".encode(), math.prod(shape)
    if size <= BLOCK:
        block = canonical(values(slice(0, size)))
        whole = algorithm(header + _TAGS[block.dtype.str[1:]])
        whole.update(_bytes(block))
        return bytes(whole.digest()[:DIGEST_SIZE])

    def leaf(part: slice) -> bytes:
        block = canonical(values(part))
        return _TAGS[block.dtype.str[1:]] + bytes(algorithm(_bytes(block)).digest())

    leaves = in_threads(leaf, blocks(size), size)
    return bytes(algorithm(header + b"".join(leaves)).digest()[:DIGEST_SIZE])


def canonical(array: Array) -> Array:
    """The array in the first type that holds its values exactly: uint8, int16, uint16, int32, float32, float64; else as it is."""
    if array.dtype.byteorder not in "=|":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f":
        return _canonical_float(array)
    if array.dtype.kind == "b" or array.size == 0:
        return array.astype(np.uint8)
    name = _integer_type(array)
    if name:
        return array.astype(name, copy=False)
    for name in ("float32", "float64"):
        cast = array.astype(name)
        with np.errstate(invalid="ignore"):
            if np.array_equal(cast.astype(array.dtype), array) and cast.max() < 2.0**63:
                return cast
    return array


def _canonical_float(array: Array) -> Array:
    """Comparing bits tells 0.0 from -0.0, which no integer holds."""
    if array.dtype.itemsize > 8:  # extended precision, which no image file has
        array = array.astype(np.float64)
    if array.size == 0:
        return array.astype(np.uint8)
    bits = f"u{array.dtype.itemsize}"
    with np.errstate(invalid="ignore", over="ignore"):
        for whole in (_UINT8, _INT16, _INT32) if array.size <= _FEW else (_INT16, _INT32):
            cast = array.astype(whole)
            back = cast.astype(array.dtype)
            if _equal(back.view(bits), array.view(bits)):
                name = _integer_type(cast)
                # 2.0**31 may become the largest integer, and that 2.0**31 again in float32.
                if whole is not _INT32 or array.dtype.itemsize == 8 or cast.max() < 2**31 - 1:
                    return cast.astype(name, copy=False)
        single = array.astype(_FLOAT32, copy=False)
        if array.dtype.itemsize <= 4 or _equal(single.astype(array.dtype).view(bits), array.view(bits)):
            return single
    return array


def _integer_type(array: Array) -> str:
    """The first integer type of the list that holds all values of an integer array; empty if none does."""
    if array.dtype == _UINT8:
        return "uint8"
    # Two looks at all values are saved for most volumes.
    if array.size > _FEW and array.dtype == _INT16 and (array.reshape(-1)[:: array.size // 64] < 0).any():
        return "int16"
    low, high = np.minimum.reduce(array, axis=None), np.maximum.reduce(array, axis=None)
    return next((name for name, smallest, largest in _RANGES if smallest <= low and high <= largest), "")


def _equal(first: Array, second: Array) -> bool:
    if first.size <= _FEW:
        return first.tobytes() == second.tobytes()
    return bool((first == second).all())


def _bytes(values: Array) -> Array:
    """The bytes of values, the lowest first."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).view(_UINT8)


_TAGS = {f"{kind}{size}": f"{kind}{size};".encode() for kind in "iuf" for size in (1, 2, 4, 8)}
