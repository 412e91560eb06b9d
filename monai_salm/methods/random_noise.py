"""Random noise at full budget: the control that any method must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from monai_salm.methods.base import Method

if TYPE_CHECKING:
    from monai_salm.methods.job import Job
    from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Method):
    """Every element moves by the whole budget, up or down at random; protects nothing."""

    name: ClassVar[str] = "random_noise"

    def maker(self, job: Job) -> Callable[[int], Array]:
        from monai_salm.methods.shortcut_noise import random_codes

        return lambda case: random_codes(job.cases.images[case], job.workspace.budgets[case], job.seed)
