"""Random noise at full budget: the control that any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.methods.base import Job, Method, run, run_without_network
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Method):
    """Every element moves by the whole budget, up or down at random; protects nothing."""

    name: ClassVar[str] = "random_noise"


@run.register
def _run(method: RandomNoise, job: Job) -> int:
    cases, budgets = job.cases, job.workspace.budgets
    return run_without_network(
        job, lambda case: random_codes(cases.images[case], budgets[case], job.seed), "random noise"
    )


def random_codes(image: Array, budget: Budget, seed: int) -> Array:
    """Random signs at full budget, kept inside window and type; a function of the image's content and the seed.

    Args:
        image: stored array ``(channel, *spatial)``.
        budget: what its noise keeps to.
        seed: any non-negative integer.
    """
    words = np.frombuffer(content_digest(image), np.uint32).tolist()
    rng = np.random.default_rng([seed, *words])
    signs = rng.integers(0, 2, image.shape, np.int8) * 2 - 1
    return budget.effective_codes(image, signs * budget.grid.limits(image.ndim - 1).astype(np.int32))
