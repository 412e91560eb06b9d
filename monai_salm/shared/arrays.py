"""Sequences of arrays that are made when they are asked for, so that a large data set holds no objects for each case."""

from __future__ import annotations

import math
import mmap
import operator
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

#: Any NumPy array; shapes and types are stated where one is taken.
Array: TypeAlias = NDArray[Any]

T_co = TypeVar("T_co", covariant=True)

# Bytes of a memory-mapped file that are read before its pages are let go.
_MOST_MAPPED = 1 << 23


class Pages:
    """Lets go of the pages of an array in a memory-mapped file after many were read, so that they do not count as used memory.

    The system keeps them as long as there is room, and gives them back at the next access, changes included.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "_mmap", None) or getattr(base, "base", None)
        self._map = base if hasattr(mmap, "MADV_DONTNEED") else None
        self._read = 0

    def count(self, size: int) -> None:
        """Note that ``size`` bytes are about to be read or written."""
        self._read += size
        if self._map is not None and self._read > _MOST_MAPPED:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = size


def let_go(array: NDArray[Any]) -> None:
    """Let go of the pages of a large array in a memory-mapped file, and with them of all others of that file."""
    if array.nbytes > _MOST_MAPPED:
        Pages(array).count(array.nbytes)


class Lazy(Sequence[T_co]):
    """What a function gives for each index from 0 to ``length - 1``; every access calls it."""

    def __init__(self, length: int, make: Callable[[int], T_co]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> T_co: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[T_co]: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> T_co | Sequence[T_co]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        number = operator.index(index)
        if not -self._length <= number < self._length:
            raise IndexError(f"index {number} is outside a sequence of {self._length}")
        return self._make(number % self._length)


def cut(
    flat: NDArray[np.uint8],
    offsets: Sequence[int] | NDArray[np.int64],
    kinds: Callable[[int], tuple[Any, tuple[int, ...]]],
) -> Lazy[NDArray[Any]]:
    """Arrays that lie in one run of bytes, as views of it: where each begins, and type and shape of each."""
    plain = np.asarray(flat)  # slices of a memmap take ten times as long
    pages = Pages(flat)

    def view(index: int) -> NDArray[Any]:
        dtype, shape = kinds(index)
        array: NDArray[Any] = np.ndarray(shape, dtype, plain, int(offsets[index]))
        pages.count(array.nbytes)
        return array

    return Lazy(len(offsets), view)


def rows_of(array: NDArray[Any]) -> Lazy[NDArray[Any]]:
    """What an array holds along its first axis, as views of it."""
    plain, pages = np.asarray(array), Pages(array)

    def row(index: int) -> NDArray[Any]:
        found: NDArray[Any] = plain[index]
        pages.count(found.nbytes)
        return found

    return Lazy(len(array), row)


class ArrayList(Lazy[NDArray[Any]]):
    """Small arrays of one type and shape, kept as rows of one; others are kept as they are."""

    def __init__(self, arrays: Sequence[NDArray[Any]] = ()) -> None:
        super().__init__(0, self._row)
        self._bytes, self._others = bytearray(), dict[int, NDArray[Any]]()
        self._kind: tuple[np.dtype[Any], tuple[int, ...]] = np.dtype("u1"), ()
        for array in arrays:
            self.append(array)

    def append(self, array: NDArray[Any]) -> None:
        """Add one at the end."""
        if not self._length:
            self._kind = array.dtype, array.shape
        if (array.dtype, array.shape) == self._kind:
            self._bytes += array.tobytes()
        else:
            self._bytes += bytes(self._size)
            self._others[self._length] = array
        self._length += 1

    @property
    def _size(self) -> int:
        dtype, shape = self._kind
        return dtype.itemsize * math.prod(shape)

    def _row(self, index: int) -> NDArray[Any]:
        if index in self._others:
            return self._others[index]
        start, (dtype, shape) = index * self._size, self._kind
        return np.frombuffer(bytes(self._bytes[start : start + self._size]), dtype).reshape(shape)
