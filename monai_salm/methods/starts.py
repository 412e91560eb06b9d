"""What noise begins as: nothing, or a pattern that all elements of a class share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_salm.intensity import Array


def class_pattern(label: Array, shape: Sequence[int], num_classes: int) -> NDArray[np.int8]:
    """Plus and minus one in a regular pattern that depends on the class alone.

    Every class has its own square waves, of period 2 (longer ones where there are many classes) along some of the axes,
    multiplied with each other. They are zero on average, so that no brightness changes, and a flip or a shift turns a
    wave into itself or its negative, so that networks which see flipped or cropped images still find them.

    The background of a label map (class 0) has zeros: having no pattern tells it from the rest. A map of nothing but
    background has a pattern too, lest the image stay as it was.

    Args:
        label: a class number, or a map ``(*spatial)`` of class numbers.
        shape: spatial shape.
        num_classes: classes in the data set.

    Returns:
        Array of that shape.
    """
    waves = _waves(len(shape), num_classes)
    grid = np.indices(shape, sparse=True)
    if np.ndim(label) == 0:
        return _pattern(waves[int(label)], grid, shape)
    if not label.any():
        return _pattern(waves[-1], grid, shape)
    result = np.zeros(shape, np.int8)
    for number, wave in enumerate(waves[:-1], start=1):
        where = label == number
        if where.any():
            result[where] = _pattern(wave, grid, shape)[where]
    return result


def _waves(rank: int, count: int) -> list[tuple[int, ...]]:
    """Some waves, each the power of two of its half period along every axis, counted from 1; 0 is no wave there."""
    kinds = next(n for n in itertools.count(2) if n**rank > count)
    every = sorted(itertools.product(range(kinds), repeat=rank), key=lambda wave: (max(wave), _rank(wave), wave))
    return every[1 : count + 1]  # without the one that has no wave and would only change the brightness


def _rank(wave: tuple[int, ...]) -> int:
    """Waves along two axes come first: measured the strongest (docs/experiments.md), and no slice is left plain."""
    return {0: 0, 2: 1, 3: 2, 1: 3}[int(np.count_nonzero(wave))]


def _pattern(wave: tuple[int, ...], grid: Sequence[Array], shape: Sequence[int]) -> NDArray[np.int8]:
    pattern = np.ones(shape, np.int8)
    for power, places in zip(wave, grid, strict=True):
        if power:
            pattern = pattern * (1 - 2 * ((places >> (power - 1)) & 1)).astype(np.int8)
    return pattern
