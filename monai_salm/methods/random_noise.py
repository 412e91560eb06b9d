"""Random noise at full budget: the control that any method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.digest import content_digest
from monai_salm.intensity import Array, Grid, IntensityWindow, effective_codes
from monai_salm.methods.base import Job, Method
from monai_salm.progress import Progress


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Method):
    """Every element moves by the whole budget, up or down at random; protects nothing."""

    name: ClassVar[str] = "random_noise"

    def run(self, job: Job) -> int:
        owners = job.world.share([image.size for image in job.cases.images])
        with job.world.leaders_first():
            codes = job.workspace.codes(0)
        with job.world.step():
            own = [case for case, owner in enumerate(owners) if owner == job.world.rank]
            for done, case in enumerate(own):
                image, grid = job.cases.images[case], job.workspace.grids[case]
                codes[case][...] = random_codes(image, job.cases.window, grid, job.seed)
                job.report(Progress("generate", done + 1, len(own), "random noise"))
        job.share_out(codes, owners)
        with job.world.step():
            job.workspace.save_checkpoint({**job.workspace.checkpoint(), "rounds": 0, "errors": []})
        return 0


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
