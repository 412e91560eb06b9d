"""What noise begins as: nothing, or a pattern that all elements of a class share."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_salm.intensity import Array

logger = logging.getLogger(__name__)

#: Textures that outlive JPEG at quality 10, blur and half resolution: frequencies (down, across) of the 8-point cosine
#: transform, each strong enough within 8/255 to move its coefficient by at least half a quantisation step.
_COARSE = ((4, 0), (3, 0), (0, 3), (3, 1), (2, 2), (2, 0), (0, 2), (1, 3))

#: As many classes as coarse textures, alone or two in turn, tell apart.
COARSE_CLASSES = len(_COARSE) ** 2


def class_pattern(
    label: Array,
    shape: Sequence[int],
    num_classes: int,
    plain_class: int | None = None,
    coarse: bool = False,
    phase: Sequence[int] = (),
) -> NDArray[np.int8]:
    """Plus and minus one in a regular pattern that depends on the class alone.

    Every class has its own square waves, of period 2 and some longer ones (more where there are many classes) along some
    of the axes, multiplied with each other. They are zero on average, so that no brightness changes, and a texture stays one
    when it is flipped or shifted (of period 2, it becomes itself or its negative), so that networks which see flipped or
    cropped images still find it.

    The background of a label map (class 0) has zeros: having no pattern tells it from the rest. A map of nothing but
    background has a pattern too, lest the image stay as it was.

    One class of a data set with labels per image may stay plain, too: networks learn that an image without a pattern is of
    that class, and take every clean image for it.

    Args:
        label: a class number, or a map ``(*spatial)`` of class numbers.
        shape: spatial shape.
        num_classes: classes in the data set.
        plain_class: class of images that get zeros; None for no such class.
        coarse: textures of 8 x 8 elements in place of fine waves, for labels per image; constant along a third axis.
        phase: where fine waves begin along each axis, elements, for labels per image. Phases drawn for each image leave no
            pattern that images of a class share element by element: no average and no linear model finds it, and
            networks, which see textures, still do. Coarse textures keep their place in the blocks of JPEG and change sign.

    Returns:
        Array of that shape.
    """
    if np.ndim(label) == 0 and int(label) == plain_class:
        return np.zeros(shape, np.int8)
    if np.ndim(label) == 0 and coarse:
        return _coarse_pattern(int(label), shape) * np.int8(-1 if sum(phase) % 2 else 1)
    grid: Sequence[Array] = np.indices(shape, sparse=True)
    if np.ndim(label) == 0:
        grid = [places + start for places, start in zip(grid, phase or [0] * len(shape), strict=True)]
        number = int(label) - (plain_class is not None and int(label) > plain_class)
        return _pattern(_finest_waves(tuple(shape), num_classes - (plain_class is not None))[number], grid, shape)
    waves = _waves(len(shape), num_classes)
    if not label.any():
        return _pattern(waves[-1], grid, shape)
    result = np.zeros(shape, np.int8)
    for number, wave in enumerate(waves[:-1], start=1):
        where = label == number
        if where.any():
            result[where] = _pattern(wave, grid, shape)[where]
    return result


def _waves(rank: int, count: int) -> list[tuple[int, ...]]:
    """Waves of label maps, each the power of two of its half period along every axis, counted from 1; 0 is no wave there."""
    every = itertools.product(range(_kinds(rank, count)), repeat=rank)
    ordered = sorted(every, key=lambda wave: (max(wave), _rank(wave), wave))
    return ordered[1 : count + 1]  # without the one that has no wave and would only change the brightness


@functools.lru_cache(maxsize=256)
def _finest_waves(shape: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Waves of labels per image, those of the highest frequencies: there anatomy has least power, so that networks learn them
    before it (docs/experiments.md). Of periods up to 8, longer ones only for many classes."""

    def frequency(wave: tuple[int, ...]) -> float:
        return sum(4.0**-power for power in wave if power)  # squared: a wave of power p has period 2**p

    waves: list[tuple[int, ...]] = []
    for kinds in range(2, 3 + max(shape).bit_length()):
        every = itertools.product(range(kinds), repeat=len(shape))
        # A wave that does not turn along an axis, of one slice say, would be another class's, or a shift of brightness.
        waves = [w for w in every if any(w) and all(not p or 2 ** (p - 1) < n for p, n in zip(w, shape, strict=True))]
        if len(waves) >= 2 * count or (kinds >= 4 and len(waves) >= count):
            break
    if len(waves) < count:
        logger.warning(
            "images of shape %s tell %d classes apart by a wave, not %d: some classes share one and are protected less; use "
            'larger images, or SALM(start="zero")',
            shape,
            len(waves),
            count,
        )
        waves = [w for w in itertools.product(range(_kinds(len(shape), count)), repeat=len(shape)) if any(w)]
    return sorted(waves, key=lambda wave: (-frequency(wave), wave))[:count]


def _kinds(rank: int, count: int) -> int:
    """Kinds of waves along an axis, with none, of which so many classes can be told apart."""
    return next(n for n in itertools.count(2) if n**rank > count)


def _rank(wave: tuple[int, ...]) -> int:
    """Waves along two axes come first: measured the strongest (docs/experiments.md), and no slice is left plain."""
    return {0: 0, 2: 1, 3: 2, 1: 3}[int(np.count_nonzero(wave))]


def _pattern(wave: tuple[int, ...], grid: Sequence[Array], shape: Sequence[int]) -> NDArray[np.int8]:
    pattern = np.ones(shape, np.int8)
    for power, places in zip(wave, grid, strict=True):
        if power:
            pattern = pattern * (1 - 2 * ((places >> (power - 1)) & 1)).astype(np.int8)
    return pattern


def _coarse_pattern(label: int, shape: Sequence[int]) -> NDArray[np.int8]:
    """Signs of one cosine in each block of 8 x 8, mirrored from block to block so that its wave goes on; beyond eight classes
    two cosines take turns like the fields of a chessboard."""
    count = len(_COARSE)
    if label >= count**2:
        raise ValueError(f"coarse patterns tell {count**2} classes apart, label {label} is beyond; leave views out")
    first, second = label % count, (label % count + label // count) % count
    down, across = np.indices(shape[:2], sparse=True)
    fields = (down // 8 + across // 8) % 2
    pattern = np.where(fields == 0, _cosine(_COARSE[first], down, across), _cosine(_COARSE[second], down, across))
    extended: NDArray[np.int8] = np.broadcast_to(pattern.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)
    return extended.astype(np.int8)


def _cosine(frequency: tuple[int, int], down: Array, across: Array) -> NDArray[np.int8]:
    signs = [
        np.sign(np.cos(np.pi * (2 * (axis % 8) + 1) * f / 16))
        for f, axis in zip(frequency, (down, across), strict=True)
    ]
    mirrored = (frequency[0] * (down // 8) + frequency[1] * (across // 8)) % 2
    result: NDArray[np.int8] = (signs[0] * signs[1] * (1 - 2 * mirrored)).astype(np.int8)
    return result
