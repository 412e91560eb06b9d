"""The content digest by which an image is known, wherever it was loaded from and in whatever type."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

# Tried in this order; the first that holds every value exactly is hashed, so that a uint8 image and the same image
# loaded as float32 have one digest.
_CANONICAL = ("uint8", "int16", "uint16", "int32", "float32", "float64")


def canonical(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the array in the smallest type of a fixed list that holds its values exactly.

    Args:
        array: any shape; integer, boolean or real floating values.

    Raises:
        TypeError: for values that are not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an image must hold real numbers, got dtype {array.dtype}")
    if array.size == 0:
        return array.astype("uint8")
    low, high = array.min(), array.max()
    for name in _CANONICAL:
        dtype = np.dtype(name)
        if array.dtype == dtype and dtype.kind == "f":
            return array
        if dtype.kind in "iu" and not (np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max):
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            cast = array.astype(dtype)
            same = np.array_equal(cast, array)
        if same and not (dtype.kind in "iu" and array.dtype.kind == "f" and _has_negative_zero(array)):
            return cast
    return array.astype("float64")


def _has_negative_zero(array: NDArray[np.generic]) -> bool:
    zero = array == 0
    return bool(zero.any() and np.signbit(array[zero]).any())


def content_digest(array: NDArray[np.generic]) -> bytes:
    """SHA-256 of an image's values and shape, independent of the type they are stored in.

    Args:
        array: channel-first image ``(channel, *spatial)``.

    Returns:
        32 bytes.
    """
    values = np.ascontiguousarray(canonical(array))
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    header = f"{values.dtype.name}:{','.join(map(str, array.shape))};".encode()
    digest = hashlib.sha256(header)
    digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.digest()
