"""Linearly separable patches: a cluster for each class, and the noise drawn from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_salm.methods.shortcuts import Drawer
from monai_salm.shared.arrays import Array

# Published: normal clusters about the vertices of a cube of half side 10, mixed by a random matrix of entries in [-1, 1];
# over 48 features (4 x 4 patches of 3 channels) their standard deviation is 4.
_SPREAD = 0.4
_CANDIDATES = 64


def patch_drawer(num_classes: int, channels: int, rank: int, patches: int, seed: int) -> Drawer:
    """What makes the noise of single images, as ``Shortcut.drawer``; ``patches`` along each axis.

    Raises:
        ValueError: if the patches are too few for the classes.
    """
    lattice = (channels, *[patches] * rank)
    features = int(np.prod(lattice))
    if 2**features < num_classes:
        raise ValueError(f"patches {patches} give {features} feature(s), too few for {num_classes} classes")
    rng = np.random.default_rng([seed, 0])
    centres = vertices(num_classes, features, rng)
    # One matrix a class; their variance makes each feature's spread 1.
    mixing = [rng.uniform(-1, 1, (features, features)) * np.sqrt(3 / features) for _ in range(num_classes)]

    def make(shape: Sequence[int], label: int, own: np.random.Generator) -> Array:
        point = centres[label] + _SPREAD * (own.standard_normal(features) @ mixing[label])
        return upsampled(point.reshape(lattice), shape)

    return make


def vertices(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """``(count, dimensions)`` vertices of the cube {-1, 1}^dimensions, all different, each far from those before it."""
    if dimensions <= 10:  # few enough to weigh all of them
        every = np.stack(np.meshgrid(*[[-1, 1]] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
        rng.shuffle(every)
    chosen: list[Array] = []
    for _ in range(count):
        drawn = every if dimensions <= 10 else rng.integers(0, 2, (_CANDIDATES, dimensions)) * 2 - 1
        nearest = (drawn[:, None] != np.stack(chosen)).sum(-1).min(1) if chosen else np.zeros(len(drawn))
        chosen.append(drawn[int(np.argmax(nearest))])
    return np.stack(chosen)


def upsampled(lattice: Array, shape: Sequence[int]) -> Array:
    """One value for each patch of ``(channel, *patches)``, spread over the patches of ``(channel, *spatial)``."""
    result = lattice
    for axis, (patches, length) in enumerate(zip(lattice.shape[1:], shape[1:], strict=True), start=1):
        result = result.take(np.arange(length) * patches // length, axis)
    return result
