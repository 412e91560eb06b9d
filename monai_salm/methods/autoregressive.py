"""Autoregressive processes: the weights of each class, and the noise that they make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from monai_salm.methods.shortcuts import Drawer
from monai_salm.shared.arrays import Array

# Elements generated before the first that is used, along each axis; the published code's crop.
_MARGIN = 4
# A process is refused if it grows beyond this, on images of these sides, from a start of standard deviation 1.
_LARGEST, _TRIAL_SIDE = 5.0, {2: 96, 3: 32}
# The filter of every other class must leave this share of a process' size; eased where classes are too many for it.
_RESPONSE, _RESPONSE_SIDE, _PATIENCE = 1 / 3, {2: 32, 3: 12}, 50
_AT_ONCE = 16


def autoregressive_drawer(num_classes: int, channels: int, rank: int, window: int, seed: int) -> Drawer:
    """What makes the noise of single images, as ``Shortcut.drawer``; ``window`` elements along each axis, at most 4."""
    weights = class_weights(num_classes, channels, rank, window, seed)

    def make(shape: Sequence[int], label: int, own: np.random.Generator) -> Array:
        return process(weights[label], shape[1:], own)

    return make


@lru_cache(maxsize=8)
def class_weights(count: int, channels: int, rank: int, window: int, seed: int) -> tuple[Array, ...]:
    """Weights of each class, ``(channel, *window)``, the last one of a window 0 (it is the element that is made)."""
    rng = np.random.default_rng([seed, 0])
    found: list[Array] = []
    stable, response, refused = _stable(rank, window, rng), _RESPONSE, 0
    while len(found) < count:
        weights = np.stack(list(itertools.islice(stable, channels)))
        noise = process(weights, (_RESPONSE_SIDE[rank],) * rank, rng)
        size = np.sqrt(np.mean(noise**2))
        if all(np.abs(residual(noise, other)).mean() >= response * size for other in found):
            found.append(weights)
            continue
        refused += 1
        if refused % _PATIENCE == 0:
            response *= 0.8
    return tuple(found)


def _stable(rank: int, window: int, rng: np.random.Generator) -> Iterator[Array]:
    """Endless weights of single channels, normal ones scaled to a sum of 1, whose processes do not grow."""
    while True:
        weights = rng.standard_normal((_AT_ONCE, *[window] * rank))
        flat = weights.reshape(_AT_ONCE, -1)
        flat[:, -1] = 0
        flat /= flat.sum(1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            noise = process(weights, (_TRIAL_SIDE[rank],) * rank, rng)
        yield from weights[np.abs(noise).reshape(_AT_ONCE, -1).max(1) <= _LARGEST]  # false for NaN as well


def process(weights: Array, spatial: Sequence[int], rng: np.random.Generator) -> Array:
    """Noise ``(channel, *spatial)`` of an autoregressive process of weights ``(channel, *window)``, from a random start."""
    window = weights.shape[1]
    values = rng.standard_normal((len(weights), *(n + _MARGIN for n in spatial)))
    shape = values.shape[1:]
    flat = values.reshape(len(weights), -1)
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    offsets = list(itertools.product(range(window), repeat=len(shape)))[:-1]
    back = np.array([sum((window - 1 - o) * s for o, s in zip(offset, strides, strict=True)) for offset in offsets])
    factors = weights.reshape(len(weights), -1)[:, :-1]
    for front in _fronts(shape, window):
        flat[:, front] = np.einsum("ck,ckn->cn", factors, flat[:, front - back[:, None]])
    return values[(slice(None), *[slice(_MARGIN, None)] * len(shape))]


def _fronts(shape: Sequence[int], window: int) -> Iterator[Array]:
    """Flat indices of elements that depend on earlier fronts only: those whose indices have one sum."""
    leading = np.indices(shape[:-1]).reshape(len(shape) - 1, -1)
    leading = leading[:, (leading >= window - 1).all(0)]
    sums = leading.sum(0)
    base = np.asarray(np.ravel_multi_index(tuple(leading), tuple(shape[:-1]))) * shape[-1]
    for total in range(int(sums.min()) + window - 1, int(sums.max()) + shape[-1]):
        last = total - sums
        inside = (last >= window - 1) & (last < shape[-1])
        yield base[inside] + last[inside]


def residual(noise: Array, weights: Array) -> Array:
    """What the filter of a process leaves of noise ``(channel, *spatial)``: zero if the noise is of that process."""
    axes = tuple(range(1, noise.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(noise, weights.shape[1:], axes)
    filters = weights.copy()
    filters.reshape(len(filters), -1)[:, -1] = -1
    inner = tuple(range(noise.ndim, windows.ndim))
    left: Array = (windows * filters.reshape(len(filters), *[1] * len(axes), *filters.shape[1:])).sum(inner)
    return left
