"""Noise of one image without a network: a function of its class, its content and the seed."""

from __future__ import annotations

import numpy as np

from monai_salm.methods.job import Job
from monai_salm.methods.shortcuts import Drawer
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import drawing_digest
from monai_salm.shared.arrays import Array


def make_shortcut(draw: Drawer, rms: float, job: Job, case: int) -> Array:
    """The codes of a case.

    Args:
        draw: makes noise of any scale.
        rms: root mean square of the noise before it is clipped, as a share of epsilon.
        job: the data set.
        case: its number.
    """
    image, budget = job.cases.images[case], job.workspace.budgets[case]
    noise = draw(image.shape, int(job.cases.labels[case]), own_generator(image, job.seed))
    limits = budget.grid.limits(image.ndim - 1)
    return budget.effective_codes(image, np.rint(scaled(noise, rms, 1.0) * limits).astype(np.int32))


def random_codes(image: Array, budget: Budget, seed: int) -> Array:
    """Random signs at full budget, kept inside window and type; a function of the image's content and the seed."""
    signs = own_generator(image, seed).integers(0, 2, image.shape, np.int8) * 2 - 1
    return budget.effective_codes(image, signs * budget.grid.limits(image.ndim - 1).astype(np.int32))


def own_generator(image: Array, seed: int) -> np.random.Generator:
    """Random numbers of an image, by its content and the seed."""
    return np.random.default_rng([seed, *np.frombuffer(drawing_digest(image), np.uint32).tolist()])


def scaled(noise: Array, rms: float, budget: float) -> Array:
    """Noise of this root mean square, as a share of the budget, clipped to the budget."""
    size = float(np.sqrt(np.mean(np.square(noise, dtype=np.float64))))
    clipped: Array = np.clip(noise * (rms * budget / size), -budget, budget)
    return clipped
