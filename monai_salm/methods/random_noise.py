"""Random noise at full budget: the control that any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.digest import content_digest
from monai_salm.intensity import Array, Grid, IntensityWindow, effective_codes
from monai_salm.methods.base import Job, Method, run_without_network


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Method):
    """Every element moves by the whole budget, up or down at random; protects nothing."""

    name: ClassVar[str] = "random_noise"

    def run(self, job: Job) -> int:
        cases, grids = job.cases, job.workspace.grids

        def make(case: int) -> Array:
            return random_codes(cases.images[case], cases.window, grids[case], job.seed)

        return run_without_network(job, make, "random noise")


def random_codes(image: Array, window: IntensityWindow, grid: Grid, seed: int) -> Array:
    """Random signs at full budget, kept inside window and type; a function of the image's content and the seed.

    Args:
        image: stored array, any shape.
        window: the intensity window.
        grid: the stored grid.
        seed: any non-negative integer.
    """
    words = np.frombuffer(content_digest(image), np.uint32).tolist()
    rng = np.random.default_rng([seed, *words])
    signs = rng.integers(0, 2, image.shape, np.int8) * 2 - 1
    return effective_codes(image, signs.astype(np.int32) * grid.max_code, window, grid)
