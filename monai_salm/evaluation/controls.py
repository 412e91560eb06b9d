"""Training sets that any protection has to beat, made from the clean and the protected images one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from monai_salm.digest import content_digest
from monai_salm.intensity import Array, IntensityWindow, apply_codes, grid_of
from monai_salm.methods.random_noise import random_codes

#: ``(clean, protected, window, epsilon, seed) -> image``; images ``(channel, *spatial)``, stored units and type.
Control: TypeAlias = Callable[[Array, Array, IntensityWindow, float, int], Array]


def random_noise(clean: Array, protected: Array, window: IntensityWindow, epsilon: float, seed: int) -> Array:
    """Independent random signs at the full budget, in place of the noise.

    Args:
        clean: original image ``(channel, *spatial)``, stored type and units.
        protected: not used.
        window: the intensity window.
        epsilon: budget, as a fraction of the window.
        seed: of the signs.

    Returns:
        An image of the same type, noisy as a published file would be.
    """
    # As precompute does: a float image that a loader made of integers keeps their step.
    grid = grid_of(clean, window, epsilon)
    return apply_codes(clean, random_codes(clean, window, grid, seed), grid.quantum)


def random_mask(clean: Array, protected: Array, window: IntensityWindow, epsilon: float, seed: int) -> Array:
    """The image's own noise values at random places: equal sparsity and size, but not where the gradients were largest.

    A value that would leave the window at its new place is clipped there.

    Args:
        clean: original image ``(channel, *spatial)``, stored type and units.
        protected: the published image.
        window: the intensity window.
        epsilon: not used: the noise keeps its own size.
        seed: of the places.

    Returns:
        An image of the same type.
    """
    noise = protected.astype(np.float64) - clean.astype(np.float64)
    inside = np.flatnonzero((clean >= window.low) & (clean <= window.high))
    words = np.frombuffer(content_digest(clean), np.uint32).tolist()
    rng = np.random.default_rng([seed, *words])
    values = rng.permutation(noise[noise != 0])[: len(inside)]
    places = rng.choice(inside, len(values), replace=False)
    moved: Array = clean.astype(np.float64)
    moved.flat[places] = np.clip(moved.flat[places] + values, *_limits(clean.dtype, window))
    return moved.astype(clean.dtype)


def _limits(dtype: np.dtype[Any], window: IntensityWindow) -> tuple[float, float]:
    if dtype.kind == "f":
        return window.low, window.high
    info = np.iinfo(dtype)
    return max(np.ceil(window.low), float(info.min)), min(np.floor(window.high), float(info.max))


#: By name; each is trained on without countermeasures.
CONTROLS: dict[str, Control] = {"random_noise": random_noise, "random_mask": random_mask}
