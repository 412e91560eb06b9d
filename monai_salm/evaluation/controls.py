"""Training sets that any protection has to beat, made from the clean and the protected images one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from monai_salm.methods.random_noise import random_codes
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import apply_codes
from monai_salm.shared.arrays import Array

#: ``(clean, protected, budget, seed) -> image``; images ``(channel, *spatial)``, stored units and type.
Control: TypeAlias = Callable[[Array, Array, Budget, int], Array]


def random_noise(clean: Array, protected: Array, budget: Budget, seed: int) -> Array:
    """Independent random signs at the full budget, in place of the noise.

    Args:
        clean: original image ``(channel, *spatial)``, stored type and units.
        protected: not used.
        budget: what the noise of the image keeps to.
        seed: of the signs.

    Returns:
        An image of the same type, noisy as a published file would be.
    """
    return apply_codes(clean, random_codes(clean, budget, seed), budget.grid.quantum)


def random_mask(clean: Array, protected: Array, budget: Budget, seed: int) -> Array:
    """The image's own noise values at random places: equal sparsity and size, but not where the gradients were largest.

    A value that would leave the window at its new place is clipped there.

    Args:
        clean: original image ``(channel, *spatial)``, stored type and units.
        protected: the published image.
        budget: what the noise of the image keeps to; the noise keeps its own size.
        seed: of the places.

    Returns:
        An image of the same type.
    """
    quantum = budget.grid.quantum
    with np.errstate(invalid="ignore"):
        codes = np.rint(np.nan_to_num(protected.astype(np.float64) - clean.astype(np.float64)) / quantum)
    lower, upper = budget.code_bounds(clean)
    inside = np.flatnonzero((lower < 0) | (upper > 0))
    words = np.frombuffer(content_digest(clean), np.uint32).tolist()
    rng = np.random.default_rng([seed, *words])
    values = rng.permutation(codes[codes != 0])[: len(inside)]
    places = rng.choice(inside, len(values), replace=False)
    moved = np.zeros(clean.size)
    moved[places] = values
    fitting = np.clip(moved.reshape(clean.shape), lower, upper).astype(budget.grid.code_dtype)
    return apply_codes(clean, fitting, quantum)


#: By name; each is trained on without countermeasures.
CONTROLS: dict[str, Control] = {"random_noise": random_noise, "random_mask": random_mask}
