"""Random noise at full budget: the control that any method must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from monai_salm.methods.base import Method
from monai_salm.methods.shortcuts import own_generator
from monai_salm.noise.budget import Budget
from monai_salm.shared.arrays import Array

if TYPE_CHECKING:
    from monai_salm.methods.job import Job


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Method):
    """Every element moves by the whole budget, up or down at random; protects nothing."""

    name: ClassVar[str] = "random_noise"

    def maker(self, job: Job) -> Callable[[int], Array]:
        return lambda case: random_codes(job.cases.images[case], job.workspace.budgets[case], job.seed)


def random_codes(image: Array, budget: Budget, seed: int) -> Array:
    """Random signs at full budget, kept inside window and type; a function of the image's content and the seed."""
    signs = own_generator(image, seed).integers(0, 2, image.shape, np.int8) * 2 - 1
    return budget.effective_codes(image, signs * budget.grid.limits(image.ndim - 1).astype(np.int32))
