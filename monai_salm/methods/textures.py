"""Textures of a class: square waves. Which class has which follows from a secret key.

A texture is plus and minus one. Its sign turns along one axis of the image, or along two axes for data sets of many classes. A
stripe along an axis stays a stripe when the image is mirrored. Its period is given in elements of the *training resolution*, the
coarsest at which a network is likely to be trained, so that it survives resampling to that resolution (docs/design.md).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monai_salm.methods.perturbations import ClassTexture
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

# Periods of the textures of a data set, as multiples of the shortest one. Networks halve their images several times. A wave that
# meets each of their coarser grids in the same place is learned fast; one of 8.6 pixels in place of 8 is not (docs/experiments.md).
_OCTAVES = (1.0, 2.0, 1.5, 3.0)


@dataclass(frozen=True)
class Wave:
    """A square wave, or the product of several.

    Args:
        axes: spatial axes along which the sign turns.
        scales: period along each of them, as a multiple of the texture's period.
        phases: where it begins along each of them, in periods: 0, or 0.5 for the other sign.
    """

    axes: tuple[int, ...]
    scales: tuple[float, ...]
    phases: tuple[float, ...]


def texture_key(seed: int, digests: Sequence[bytes]) -> bytes:
    """The secret that the textures of a data set follow from: the seed and the content digests of all original images."""
    secret = hashlib.blake2b(str(seed).encode() + b";", digest_size=32)
    for digest in sorted(digests):
        secret.update(digest)
    return secret.digest()


@lru_cache(maxsize=32)
def waves_of(key: bytes, count: int, rank: int, crossed: bool = False) -> tuple[Wave, ...]:
    """A wave for each class; which class has which, and with which sign, follows from the key.

    Waves begin at the image's first element. So runs of equal signs meet the blocks that resizing to a half or a quarter averages.
    Products of waves along all axes come first where ``crossed``: they stand in a small region of a label map too.
    """
    rng = _generator(key, b"waves")
    order = rng.permutation(rank)
    kinds: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
    if rank == 3:  # in volumes short periods are learned fast, long ones are not
        sets = [axes for number in range(1, rank + 1) for axes in itertools.combinations(range(rank), number)]
        kinds += [(axes, (1.0,) * len(axes)) for axes in sets]
    for coarsest in range(2, len(_OCTAVES) + 1):  # long periods last: few of them fit into a small image
        octaves = _OCTAVES[:coarsest]
        single = [((int(axis),), (octave,)) for octave in octaves for axis in order]
        double = itertools.product(itertools.combinations(range(rank), 2), itertools.product(octaves, repeat=2))
        kinds += [kind for kind in (*single, *double) if kind not in kinds]
    if crossed:
        every = [(tuple(range(rank)), scales) for scales in itertools.product(sorted(_OCTAVES), repeat=rank)]
        kinds = every + [kind for kind in kinds if kind not in every]
    while len(kinds) < count:  # more classes than kinds of waves: products with finer steps between the periods
        products = [kind for kind in kinds if len(kind[0]) > 1]
        kinds += [(axes, tuple(scale * rng.uniform(0.8, 1.25) for scale in scales)) for axes, scales in products]
    chosen = kinds[:count]
    order = rng.permutation(count)
    drawn = (chosen[number] for number in order)
    return tuple(Wave(axes, scales, tuple(int(rng.integers(2)) / 2 for _ in axes)) for axes, scales in drawn)


def texture(wave: Wave, shape: Sequence[int], periods: Sequence[float]) -> Array:
    """Plus and minus one on an image's grid; ``periods`` are the elements of a texture's period along each axis."""
    result = np.ones([1] * len(shape), np.int8)
    for axis, scale, phase in zip(wave.axes, wave.scales, wave.phases, strict=True):
        period = min(periods[axis] * scale, shape[axis])  # a short axis holds one period at least
        places = np.arange(shape[axis]) / period + phase
        signs = np.where(places % 1.0 < 0.5, 1, -1).astype(np.int8)
        result = result * signs.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    found: Array = np.broadcast_to(result, shape)
    return found


def opponent(image: Array) -> Array:
    """The sign of a texture in each channel, ``(channel, 1, ...)``: in colour pictures the first has the opposite one.

    A texture from red to cyan is learned faster than one from dark to light, where anatomy has most of its power. JPEG blurs
    colour: enough brightness is left to survive it, unlike from green to magenta. A grey picture in three equal channels stays
    grey.
    """
    signs = np.ones([len(image)] + [1] * (image.ndim - 1), np.int8)
    if len(image) == 3 and not (np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])):
        signs[1:] = -1
    return signs


def area_numbers(key: bytes, shape: Sequence[int], periods: Sequence[float], count: int) -> Array:
    """Which of ``count`` labels that share an image has each area of two periods or less, drawn from the key; each has as many."""
    edges = [2 * period for period in periods]
    while (grid := [max(1, round(side / edge)) for side, edge in zip(shape, edges, strict=True)]) and (
        math.prod(grid) < count and max(edges) > 1
    ):
        edges = [max(1.0, edge / 2) for edge in edges]
    numbers = (_generator(key, b"areas").permutation(math.prod(grid)) % count).reshape(grid)
    places = [np.arange(side) * parts // side for side, parts in zip(shape, grid, strict=True)]
    found: Array = numbers[np.ix_(*places)]
    return found


def stored_periods(setting: ClassTexture, shape: Sequence[int], units: Units, per_voxel: bool) -> tuple[float, ...]:
    """A period of the training resolution in elements of the stored grid, along each axis.

    In 2D the training resolution has ``train_side`` pixels along the shorter side, or half of the image's size where that is
    more coarse. In 3D its voxels are the stored ones, or a whole number of them near ``train_spacing``; a voxel of unknown size
    has 1 mm. Labels per voxel are learned at the resolution of the files.
    """
    period = setting.period
    if per_voxel:
        return (period,) * len(shape)
    if len(shape) == 2:
        return (period * max(2.0, min(shape) / setting.train_side),) * 2
    spacing = units.spacing if len(units.spacing) == len(shape) else (1.0,) * len(shape)
    return tuple(period * max(1, round(setting.train_spacing / size)) for size in spacing)


def _generator(key: bytes, purpose: bytes) -> np.random.Generator:
    digest = hashlib.blake2b(purpose, key=key[:64], digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
