"""What the noise of one image keeps to: its window, its stored grid, and the elements that may carry noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_salm.noise.grid import INTEGER_GRIDS, Grid, make_grid
from monai_salm.noise.units import Units, padding_of
from monai_salm.noise.window import IntensityWindow, WindowRule
from monai_salm.shared.arrays import Array


@dataclass(frozen=True)
class Budget:
    """The limits of one image's noise.

    Args:
        window: intensity window, stored units.
        grid: stored grid, with the largest noise of each channel.
        units: what the stored numbers mean.
    """

    window: IntensityWindow
    grid: Grid
    units: Units = Units()

    def code_bounds(self, image: Array) -> tuple[Array, Array]:
        """Smallest and largest code each voxel may carry: the budget, kept inside the window and the stored type.

        Voxels outside the window, and padding, carry none.

        Args:
            image: stored array ``(channel, *spatial)``.

        Returns:
            Two arrays of ``grid.code_dtype`` of the image's shape, lower (<= 0) and upper (>= 0) bound, in quanta.
        """
        rank, values, grid = image.ndim - 1, np.asarray(image, np.float64), self.grid
        low, high = self.window.bounds(len(image), rank)
        if grid.dtype in INTEGER_GRIDS:
            info = np.iinfo(grid.dtype)
            low, high = np.maximum(low, info.min), np.minimum(high, info.max)
            if self.units.limits is not None:  # 12 bits in a file of 16
                low, high = np.maximum(low, self.units.limits[0]), np.minimum(high, self.units.limits[1])
        else:  # a bound between two values of the type must mean the same here as where images are compared with it
            low, high = (ends.astype(grid.dtype).astype(np.float64) for ends in (low, high))
        largest = grid.limits(rank)
        with np.errstate(invalid="ignore", over="ignore"):
            inside = (values >= low) & (values <= high)
            lower = np.clip(np.ceil((low - values) / grid.quantum), -largest, 0)
            upper = np.clip(np.floor((high - values) / grid.quantum), 0, largest)
        padding = padding_of(image, self.units)
        if padding is not None:
            inside &= ~padding
        lower, upper = (grid.on_strides(np.where(inside, ends, 0.0)).astype(grid.code_dtype) for ends in (lower, upper))
        return lower, upper

    def effective_codes(self, image: Array, codes: Array) -> Array:
        """Enforce the budget, the window and the stored type on finished noise (the exit check of every method).

        Args:
            image: stored array ``(channel, *spatial)``.
            codes: noise in quanta, same shape.

        Returns:
            Codes of ``grid.code_dtype`` that ``apply_codes`` can add without clipping.
        """
        return self.grid.on_strides(np.clip(codes, *self.code_bounds(image)).astype(self.grid.code_dtype))

    def shares(self, channels: int) -> list[float]:
        """One code as a share of the window's width, for each channel."""
        return [self.grid.quantum / (high - low) for low, high in self.window.channels(channels)]


def budget_of(image: Array, rule: WindowRule, units: Units, epsilon: float) -> Budget:
    """The limits of an image's noise: its window by the rule, and the grid of its type.

    A float image that holds nothing but whole numbers has the grid of whole numbers. Of one in which only some channels do, as
    CT beside PET, the noise of these is of whole numbers.

    Args:
        image: stored array ``(channel, *spatial)``.
        rule: chooses the window.
        units: what the stored numbers mean.
        epsilon: budget as a fraction of the window's width, in (0, 1].

    Raises:
        ValueError: for a type that cannot carry noise, a budget below one step, a constant image, or noise that would be as
            large as all that the image shows.
    """
    padding = padding_of(image, units)
    parts = [channel if padding is None else channel[~padding[number]] for number, channel in enumerate(image)]
    if not any(part.size for part in parts):
        raise ValueError("the image holds nothing but padding, NaN or infinite values: there is nothing to protect")
    floats = image.dtype.kind == "f"
    whole = [floats and bool(np.array_equal(np.rint(part), part)) for part in parts]
    spans = [float(part.max()) - float(part.min()) if part.size else 0.0 for part in parts]
    window = rule.of(image, units, padding)
    bounds = window.channels(len(image))
    widths = [0.0 if not span else high - low for (low, high), span in zip(bounds, spans, strict=True)]
    grid = make_grid(image.dtype.name, widths, epsilon, all(whole), max(abs(end) for pair in bounds for end in pair))
    grid = grid.in_whole_numbers(whole)
    drowned = [
        (low, high, part)
        for (low, high), span, part in zip(bounds, spans, parts, strict=True)
        if span and span <= epsilon * (high - low)
    ]
    # A blank picture of 8 bits is still a picture; elsewhere the window is in other units than the image.
    if len(drowned) == sum(span > 0 for span in spans) and not units.picture:
        low, high, part = drowned[0]
        raise ValueError(
            f"noise of {epsilon * (high - low):.3g} would drown the image, whose values run from {part.min():g} to "
            f"{part.max():g}, in the window {low:g} to {high:g}. Give the window in the units of the image, or percentiles "
            "of each image (--window percentile:0.5,99.5)"
        )
    return Budget(window, grid, units)
