"""What the noise of one image keeps to: its window, its stored grid, and the elements that may carry noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monai_salm.noise.grid import INTEGER_GRIDS, Grid, make_grid
from monai_salm.noise.units import Units, padding_of, shown
from monai_salm.noise.window import IntensityWindow, WindowRule
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import columns, in_threads

# Elements for each number of their type from which on it is quicker to reckon with all numbers once.
_PER_KIND = 4


@dataclass(frozen=True)
class Budget:
    """The limits of one image's noise: its window in stored units, its grid with the largest noise of each channel, its units."""

    window: IntensityWindow
    grid: Grid
    units: Units = Units()

    def code_bounds(self, image: Array) -> tuple[Array, Array]:
        """Smallest (<= 0) and largest (>= 0) code of each element of a stored image ``(channel, *spatial)``, in quanta.

        This is the budget, kept inside the window and the stored type. Voxels outside the window, and padding, carry none.
        """
        lower, upper = (np.empty(image.shape, self.grid.code_dtype) for _ in range(2))
        self._fill((lower, upper), image, lambda part, *bounds: bounds)
        return lower, upper

    def effective_codes(self, image: Array, codes: Array) -> Array:
        """Enforce the budget, the window and the stored type on finished noise, in quanta (the exit check of every method).

        ``apply_codes`` can add what it gives without clipping.
        """
        found, asked = np.empty(image.shape, self.grid.code_dtype), columns(codes)[0]

        def clipped(part: slice, lower: Array, upper: Array) -> tuple[Array]:
            return (self.grid.on_strides(np.clip(asked[:, part], lower, upper).astype(found.dtype)),)

        self._fill((found,), image, clipped)
        return found

    def carriers(self, image: Array) -> Array:
        """The elements that can carry noise at all, a boolean array of the image's shape."""
        found = np.empty(image.shape, bool)
        self._fill((found,), image, lambda part, lower, upper: ((lower < 0) | (upper > 0),))
        return found

    def share_inside(self, image: Array) -> tuple[float, bool]:
        """Share of an image's elements, padding left out, that lie inside the window; and whether any element can carry noise."""
        low, high = self.window.bounds(len(image), 1)
        rows, parts, marked = self._parts(image)
        inside = counted = 0
        for part in parts:
            with np.errstate(invalid="ignore"):
                found = (rows[:, part] >= low) & (rows[:, part] <= high)
            if marked is not None:
                found &= ~marked[:, part]
                counted += int(np.count_nonzero(~marked[:, part]))
            inside += int(np.count_nonzero(found))
        counted = rows.size if marked is None else counted
        carries = any(bound.any() for part in parts for bound in self._bounds(rows, marked, part))
        return inside / counted if counted else 0.0, carries

    def _parts(self, image: Array) -> tuple[Array, list[slice], Array | None]:
        """``columns`` of an image, and its padding as columns."""
        rows, parts = columns(image)
        padding = padding_of(image, self.units)
        return rows, parts, None if padding is None else padding.reshape(rows.shape)

    def _fill(self, arrays: Sequence[Array], image: Array, work: Callable[..., Sequence[Array]]) -> None:
        """Fill arrays of the image's shape with what ``work`` gives for a block of columns and the bounds of its codes."""
        rows, parts, marked = self._parts(image)
        filled = [array.reshape(rows.shape) for array in arrays]

        def fill(part: slice) -> None:
            for array, values in zip(filled, work(part, *self._bounds(rows, marked, part)), strict=True):
                array[:, part] = values

        in_threads(fill, parts, rows.size)

    def _bounds(self, rows: Array, padding: Array | None, part: slice) -> tuple[Array, Array]:
        """``code_bounds`` of a block of columns."""
        values, kinds = rows[:, part], 256**rows.dtype.itemsize
        if rows.dtype.kind in "iu" and rows.size > _PER_KIND * kinds:  # looked up by value
            places = values.view(f"u{rows.dtype.itemsize}")
            tables = _bounds_by_value(self, rows.dtype, len(rows))
            found = [np.stack([row.take(own) for row, own in zip(table, places, strict=True)]) for table in tables]
        else:
            found = list(self._reckoned(values))
        if padding is not None:
            found = [bound * ~padding[:, part] for bound in found]
        return found[0], found[1]

    def _reckoned(self, values: Array) -> tuple[Array, Array]:
        """The bounds of numbers ``(channel, n)`` that are no padding: in float64, which a whole volume has no room for."""
        values, grid = values.astype(np.float64), self.grid
        low, high = self._ends(len(values))
        largest = grid.limits(1)
        with np.errstate(invalid="ignore", over="ignore"):
            inside = (values >= low) & (values <= high)
            lower = np.clip(np.ceil((low - values) / grid.quantum), -largest, 0)
            upper = np.clip(np.floor((high - values) / grid.quantum), 0, largest)
        lower, upper = (grid.on_strides(np.where(inside, ends, 0.0)).astype(grid.code_dtype) for ends in (lower, upper))
        return lower, upper

    def _ends(self, channels: int) -> tuple[Array, Array]:
        """Low and high ends of what noise may reach, float64 ``(channel, 1)``: the window within what the file can hold."""
        low, high = self.window.bounds(channels, 1)
        if self.grid.dtype in INTEGER_GRIDS:
            info = np.iinfo(self.grid.dtype)
            low, high = np.maximum(low, info.min), np.minimum(high, info.max)
            if self.units.limits is not None:  # 12 bits in a file of 16
                low, high = np.maximum(low, self.units.limits[0]), np.minimum(high, self.units.limits[1])
            return low, high
        # A bound between two values of the type must mean the same here as where images are compared with it.
        low, high = (ends.astype(self.grid.dtype).astype(np.float64) for ends in (low, high))
        return low, high

    def shares(self, channels: int) -> list[float]:
        """One code as a share of the window's width, for each channel."""
        return [self.grid.quantum / (high - low) for low, high in self.window.channels(channels)]


@lru_cache(maxsize=16)
def _bounds_by_value(budget: Budget, dtype: np.dtype[np.generic], channels: int) -> tuple[Array, Array]:
    """The bounds of every number of an integer type, ``(channel, numbers)``; numbers are in the order of their bits."""
    every = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)
    return budget._reckoned(np.broadcast_to(every, (channels, len(every))))


def budget_of(image: Array, rule: WindowRule, units: Units, epsilon: float) -> Budget:
    """The limits of the noise of a stored image ``(channel, *spatial)``: its window by the rule, and the grid of its type.

    A float image that holds nothing but whole numbers has the grid of whole numbers. Of one in which only some channels do, as
    CT beside PET, the noise of these is of whole numbers.

    ValueError for a type that cannot carry noise, a budget below one step, a constant image that is no picture of 8 bits, or noise
    that would be as large as all that the image shows.
    """
    padding = padding_of(image, units)
    found = [_Values.of(channel, None if padding is None else padding[number]) for number, channel in enumerate(image)]
    if not any(channel.count for channel in found):
        raise ValueError("the image holds nothing but padding, NaN or infinite values: there is nothing to protect")
    whole = [image.dtype.kind == "f" and channel.whole for channel in found]
    window = rule.of(image, units, padding)
    bounds = window.channels(len(image))
    blank = units.picture and not any(channel.span for channel in found)  # it has a window all the same
    widths = [high - low if channel.span or blank else 0.0 for (low, high), channel in zip(bounds, found, strict=True)]
    grid = make_grid(image.dtype.name, widths, epsilon, all(whole), max(abs(end) for pair in bounds for end in pair))
    grid = grid.in_whole_numbers(whole)
    drowned = [
        (low, high, channel)
        for (low, high), channel in zip(bounds, found, strict=True)
        if channel.span and channel.span <= epsilon * (high - low)
    ]
    # A dark picture of 8 bits is still a picture; elsewhere the window is in other units than the image.
    if len(drowned) == sum(channel.span > 0 for channel in found) and not units.picture:
        low, high, channel = drowned[0]
        raise ValueError(
            f"noise of {epsilon * (high - low):.3g} would drown the image, whose values run from {channel.low:g} to "
            f"{channel.high:g}, in the window {low:g} to {high:g}. Give the window in the units of the image, or percentiles "
            "of each image (--window percentile:0.5,99.5)"
        )
    return Budget(window, grid, units)


@dataclass(frozen=True)
class _Values:
    """The values of a channel, padding left out: how many, the smallest and largest, and whether all are whole numbers."""

    count: int
    low: float
    high: float
    whole: bool

    @property
    def span(self) -> float:
        return self.high - self.low

    @classmethod
    def of(cls, channel: Array, padding: Array | None) -> _Values:
        """Of a channel and its padding, of any shape."""
        count, ends, whole = 0, list[float](), True
        for values in shown(channel, padding):
            if values.size:
                count += values.size
                ends += float(values.min()), float(values.max())
                whole = whole and (values.dtype.kind != "f" or bool(np.array_equal(np.rint(values), values)))
        return cls(count, min(ends, default=0.0), max(ends, default=0.0), whole)
