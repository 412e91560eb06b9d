"""Sequences of arrays that are made when they are asked for, so that a large data set holds no objects for each case."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T_co = TypeVar("T_co", covariant=True)


class Lazy(Sequence[T_co]):
    """What a function gives for each index; every access calls it anew.

    Args:
        length: how many.
        make: gives the item of an index from 0 to ``length - 1``.
    """

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
    """Arrays that lie in one run of bytes, as views of it.

    Args:
        flat: the bytes, in memory or in a memory-mapped file.
        offsets: where each array begins.
        kinds: type and shape of each.
    """
    plain = np.asarray(flat)  # slices of a memmap take ten times as long

    def view(index: int) -> NDArray[Any]:
        dtype, shape = kinds(index)
        return np.ndarray(shape, dtype, plain, int(offsets[index]))

    return Lazy(len(offsets), view)


class Rows(Sequence[NDArray[Any]]):
    """Small arrays of one type and shape, kept as rows of one; others are kept as they are.

    Args:
        arrays: to begin with.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]] = ()) -> None:
        self._bytes, self._count = bytearray(), 0
        self._kind: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        self._others: dict[int, NDArray[Any]] = {}
        for array in arrays:
            self.append(array)

    def append(self, array: NDArray[Any]) -> None:
        """Add one at the end."""
        self._kind = self._kind or (array.dtype, array.shape)
        if (array.dtype, array.shape) == self._kind:
            self._bytes += array.tobytes()
        else:
            self._bytes += bytes(self._size)
            self._others[self._count] = array
        self._count += 1

    @property
    def _size(self) -> int:
        assert self._kind is not None
        return int(self._kind[0].itemsize * np.prod(self._kind[1], dtype=int))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[NDArray[Any]]: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> NDArray[Any] | Sequence[NDArray[Any]]:
        return Lazy(self._count, self._row)[index]

    def _row(self, index: int) -> NDArray[Any]:
        if index in self._others:
            return self._others[index]
        assert self._kind is not None
        dtype, shape = self._kind
        start = index * self._size
        return np.frombuffer(bytes(self._bytes[start : start + self._size]), dtype).reshape(shape)
