"""Stored grids, and the arithmetic that adds noise to an image and takes it off again.

A *grid* is what a file can hold: uint8 pixels, int16 Hounsfield units, float32. Noise is a whole number (a *code*) of
grid steps (*quanta*), so that saving, reloading, checking and undoing are exact (docs/design.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from monai_salm.noise.digest import content_digest, digest_of_blocks
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks, in_threads
from monai_salm.shared.settings import require_epsilon

INTEGER_GRIDS = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64")
GRIDS = (*INTEGER_GRIDS, "float32", "float64")
# Integers up to 2**24 are exact in float32, the type in which noise is optimised.
_EXACT_FLOAT32 = 2**24
# Up to here float64, in which budgets are reckoned, holds every integer, and a neighbour of each.
_LARGEST_LONG = 2**52
_INT16, _INT32, _INT64 = np.dtype("i2"), np.dtype("i4"), np.dtype("i8")
# 16 bits hold the numbers of these grids. Steps for which 8-bit codes stay below 2**13, and the numbers to which 16 bits can
# add them.
_IN_INT16 = ("uint8", "int8", "int16")
_SMALL_STEP, _MOST_NARROW = 2**6, 2**15 - 1 - 2**13
_RANGES = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in INTEGER_GRIDS}


@dataclass(frozen=True)
class Grid:
    """The values a file can hold and the budget of the noise on them.

    Args:
        dtype: name of the stored type, one of ``GRIDS``.
        quantum: size of one noise step in stored units; 1 for integers, a power of two for floats.
        max_codes: largest noise of each channel, in quanta; 0 for a constant channel, which carries none.
        strides: of each channel, in quanta: its codes are multiples of this. Empty means 1 for all.
    """

    dtype: str
    quantum: float
    max_codes: tuple[int, ...]
    strides: tuple[int, ...] = ()

    @property
    def code_dtype(self) -> np.dtype[np.generic]:
        """Smallest signed integer type that holds every code of the budget."""
        largest = max(self.max_codes)
        for name in ("int8", "int16", "int32"):
            if largest <= np.iinfo(name).max:
                return np.dtype(name)
        raise ValueError(f"max_codes must be below 2**31, got {largest}")

    def limits(self, rank: int) -> Array:
        """``max_codes`` as float64 ``(channel, 1, ...)``, for an image of ``rank`` spatial axes."""
        return np.asarray(self.max_codes, np.float64).reshape(-1, *[1] * rank)

    def on_strides(self, codes: Array) -> Array:
        """Codes ``(channel, *spatial)``, those between two multiples of a channel's stride brought to the one nearer to 0."""
        if not self.strides:
            return codes
        steps = np.asarray(self.strides, codes.dtype).reshape(-1, *[1] * (codes.ndim - 1))
        found: Array = codes - np.fmod(codes, steps)
        return found

    def in_whole_numbers(self, channels: Sequence[bool]) -> Grid:
        """The grid with noise of whole numbers in some channels, as files of integers hold it beside files of floats.

        A channel whose budget is below 1 keeps its steps.
        """
        step = round(1 / self.quantum) if self.quantum < 1 else 1
        strides = tuple(
            step if whole and most >= step else 1 for whole, most in zip(channels, self.max_codes, strict=True)
        )
        if max(strides) == 1:
            return self
        most = tuple(code // stride * stride for code, stride in zip(self.max_codes, strides, strict=True))
        return replace(self, max_codes=most, strides=strides)


def make_grid(
    dtype: str, widths: Sequence[float], epsilon: float, whole_numbers: bool = False, largest: float = 0
) -> Grid:
    """Choose the noise step for a stored type and express the budget in it.

    For floats the quantum is the smallest power of two for which the narrowest channel's budget still fits in a signed byte,
    so that ``code * quantum`` is exact and codes stay small; it is no finer than float32 at the largest value, where a
    smaller step would be rounded away. A float image of whole numbers only, which is what loaders make of integer files,
    gets the integers' step if the budget holds one, so that its noise fits the file as well.

    Args:
        widths: of each channel's window, stored units; 0 for a constant channel.
        epsilon: budget as a fraction of a window's width, in (0, 1].
        whole_numbers: a float image holds whole numbers only.
        largest: largest absolute value inside the windows.
    """
    if dtype not in GRIDS:
        hint = "Convert the image to float32 or float64"
        if dtype == "bool":
            hint = "A boolean image has no grey levels to hide noise in"
        raise ValueError(f"image dtype must be one of {', '.join(GRIDS)}, got {dtype}. {hint}")
    require_epsilon(epsilon)
    carrying = [width for width in widths if width > 0]
    if not carrying:
        raise ValueError("the image is constant: it has no grey levels to hide noise in")
    budget = epsilon * min(carrying)
    quantum = 1.0
    if dtype not in INTEGER_GRIDS and not (whole_numbers and budget >= 1.0):
        quantum = max(2.0 ** math.ceil(math.log2(budget / 127.0)), float(np.spacing(np.float32(largest))))
    max_codes = tuple(math.floor(epsilon * width / quantum * (1 + 1e-9)) for width in widths)
    if min(code for code, width in zip(max_codes, widths, strict=True) if width > 0) < 1:
        least = quantum / min(carrying)
        helps = "Its window is narrower than one step: give a wider window, or store the image with more bits"
        if least <= 1:
            helps = f"It needs epsilon of at least {least:.3g}, or a wider window"
        raise ValueError(
            f"epsilon {epsilon:.6g} of its window, {min(carrying):g} wide, is {budget:.3g} stored units, below one step of "
            f"{dtype}: the noise would vanish on saving. {helps}"
        )
    if dtype in ("int64", "uint64") and largest >= _LARGEST_LONG:
        raise ValueError(
            f"the window reaches to {largest:.3g}; 64-bit integers are protected up to 2**52. Store floats"
        )
    if max(max_codes) >= _EXACT_FLOAT32:
        raise ValueError(
            f"epsilon {epsilon:g} is {max(max_codes)} steps of {dtype}; at most {_EXACT_FLOAT32} can be optimised. "
            "Are the window's units those of the image?"
        )
    return Grid(dtype=dtype, quantum=quantum, max_codes=max_codes)


def apply_codes(image: Array, codes: Array, quantum: float, grid: str | None = None) -> Array:
    """Return ``image + codes * quantum`` in the image's own type; OverflowError if the sum leaves the range of an integer image.

    ``grid`` is an integer type that all the image's values are known to be of, if it was loaded as floats that hold them.
    """
    if image.dtype == np.uint64:  # which NumPy adds to signed numbers as floats
        return _apply_unsigned(image, codes, quantum)
    total, add = _adding(image, codes, quantum, grid)
    in_threads(add, blocks(total.size), total.size)
    return total


def apply_and_digest(image: Array, codes: Array, quantum: float, grid: str | None = None) -> tuple[Array, bytes]:
    """``apply_codes``, and the content digest of what it returns, which is taken of each block as it is made."""
    if image.dtype == np.uint64:
        total = _apply_unsigned(image, codes, quantum)
        return total, content_digest(total)
    total, add = _adding(image, codes, quantum, grid)
    return total, digest_of_blocks(total.shape, add)


def _adding(image: Array, codes: Array, quantum: float, grid: str | None) -> tuple[Array, Callable[[slice], Array]]:
    """An array for the sum, and what fills a block of it and returns that block's values."""
    floats = image.dtype.kind == "f"
    step: Any = image.dtype.type(quantum) if floats else _whole(quantum, image.dtype)
    flat, flat_codes = np.ascontiguousarray(image).reshape(-1), np.ascontiguousarray(codes).reshape(-1)
    total = np.empty(image.shape, image.dtype)
    flat_total = total.reshape(-1)

    def add_floats(part: slice) -> Array:
        noise = flat_codes[part].astype(image.dtype)
        if step != 1:
            noise *= step
        # Adding a code of 0 would turn -0.0 into 0.0; subtracting it keeps every bit.
        np.subtract(image.dtype.type(0), noise, out=noise)
        result: Array = np.subtract(flat[part], noise, out=flat_total[part])
        return result

    if floats and grid is None:
        return total, add_floats
    name = grid or _name(image.dtype)
    low, high = _RANGES[name]
    short = max(np.dtype(name).itemsize, codes.dtype.itemsize) <= 2 and abs(step) <= 2**14
    wide = _INT32 if short else _INT64
    byte = np.dtype(name).itemsize == 1
    narrow = name in _IN_INT16 and codes.dtype.itemsize == 1 and abs(step) <= _SMALL_STEP

    def add(part: slice) -> Array:
        # No integer grid holds -0.0, so that its floats can be added as integers.
        whole = flat[part].astype(_INT16 if narrow else wide, copy=False)
        if narrow and not byte and not _within(whole, -_MOST_NARROW, _MOST_NARROW):
            whole = whole.astype(wide)
        noise = flat_codes[part].astype(whole.dtype)
        if step != 1:
            noise *= whole.dtype.type(step)
        changed: Array = np.add(whole, noise, out=noise)
        if not _within(changed, low, high):
            raise OverflowError(f"image + noise leaves the range of {name}: the noise was made for another image")
        flat_total[part] = changed
        return changed

    return total, add


def _within(values: Array, low: float, high: float) -> bool:
    return bool(low <= np.minimum.reduce(values) and np.maximum.reduce(values) <= high)


def _apply_unsigned(image: Array, codes: Array, quantum: float) -> Array:
    """``apply_codes`` to unsigned numbers of 64 bits, in the signed numbers of the same bits."""
    signed = np.ascontiguousarray(image).view(np.int64)
    total = apply_codes(signed, codes, quantum)
    if ((signed < 0) != (total < 0)).any():
        raise OverflowError(f"image + noise leaves the range of {image.dtype}: the noise was made for another image")
    return total.view(np.uint64)


@lru_cache
def _name(dtype: np.dtype[Any]) -> str:
    """Its name, which NumPy puts together each time."""
    return dtype.name


def _whole(quantum: float, dtype: object) -> int:
    if quantum != int(quantum):
        raise ValueError(f"noise in steps of {quantum:g} does not fit {dtype}: it was made for floats")
    return int(quantum)


def rounding_residual(image: Array, codes: Array, quantum: float) -> Array | None:
    """What subtracting the noise from a protected float image fails to give back, as XOR of bit patterns; None for nothing.

    Adding noise can push low bits of a float out of its mantissa. By the residual ``remove_codes`` gives them back.
    """
    if not np.issubdtype(image.dtype, np.floating):
        return None
    bits = np.dtype(f"u{image.dtype.itemsize}")
    back = apply_codes(apply_codes(image, codes, quantum), codes, -quantum)
    residual = np.ascontiguousarray(image).view(bits) ^ np.ascontiguousarray(back).view(bits)
    return residual if residual.any() else None


def remove_codes(
    protected: Array, codes: Array, quantum: float, residual: Array | None = None, grid: str | None = None
) -> Array:
    """Undo ``apply_codes`` bit for bit, with what ``rounding_residual`` gave for the original."""
    back = apply_codes(protected, codes, -quantum, grid)
    if residual is None:
        return back
    return (np.ascontiguousarray(back).view(residual.dtype) ^ residual).view(back.dtype)
