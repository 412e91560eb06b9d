"""What all noise methods share: the base of their settings and the job they work on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from monai_salm.cases import Cases
from monai_salm.distributed import ALONE, World
from monai_salm.epsilon import require_epsilon
from monai_salm.exchange import exchange
from monai_salm.intensity import Array
from monai_salm.progress import Progress
from monai_salm.recipes import Recipe
from monai_salm.tasks import Task
from monai_salm.workspace import Workspace


@dataclass
class Job:
    """A data set to make noise for, and the means.

    Args:
        cases: the clean data set.
        workspace: holds the noise and the checkpoints.
        build_surrogate: gives the fresh network of restart number n.
        surrogate_spec: arguments of ``build_network`` of that network, or None if it came from a factory.
        recipe: how surrogates are trained.
        device: where to compute.
        seed: of everything random.
        report: called with the progress.
        world: the ranks that share the work.
    """

    cases: Cases
    workspace: Workspace
    build_surrogate: Callable[[int], nn.Module]
    surrogate_spec: Callable[[int], dict[str, Any] | None]
    recipe: Recipe
    device: torch.device
    seed: int
    report: Callable[[Progress], None]
    world: World = ALONE

    def share_out(self, arrays: Sequence[Array], owners: Sequence[int]) -> None:
        """Make what every rank wrote for its own cases known to all; all ranks call it when all have written.

        Args:
            arrays: noise or masks, one array a case.
            owners: the rank that owns each case.
        """
        exchange(self.world, arrays, owners)

    def generator(self, *purpose: int) -> torch.Generator:
        """A generator of its own for each purpose, so that no draw depends on what ran before (or was resumed)."""
        return torch.Generator().manual_seed(self.derive(*purpose))

    def derive(self, *purpose: int) -> int:
        """A seed for a purpose, from the job's."""
        return int(np.random.SeedSequence([self.seed, *purpose]).generate_state(1, np.uint64)[0]) >> 1


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to make noise; instances are settings only.

    Args:
        epsilon: budget (L-infinity) as a fraction of the window's width, in (0, 1].
    """

    epsilon: float = 8 / 255
    name: ClassVar[str]

    def __post_init__(self) -> None:
        require_epsilon(self.epsilon)

    def spec(self) -> dict[str, Any]:
        """The settings as plain values, recorded in the store."""
        return {"name": self.name, **asdict(self)}

    def resolved(self, task: Task, spatial_dims: int, labels: Sequence[Array] = (), networks: int = 1) -> Method:
        """The settings with those that depend on the problem filled in.

        Args:
            task: the learning problem.
            spatial_dims: 2 or 3.
            labels: of all cases, in the task's canonical form; settings that depend on them stay open without.
            networks: surrogates that are to be taken in turn.
        """
        return self

    @abstractmethod
    def run(self, job: Job) -> int:
        """Leave finished noise in the workspace and return the code buffer (0 or 1) that holds it."""

    def run_frozen(self, job: Job, surrogates: Sequence[nn.Module]) -> int:
        """As ``run``, for images that come later, against finished networks; a method without networks simply runs."""
        return self.run(job)


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting: rule, then value."""
    if not holds or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} must be {rule}, got {value}")


def run_without_network(job: Job, make: Callable[[int], Array], text: str) -> int:
    """``Method.run`` of a method that makes the noise of each case by itself; ranks share the cases.

    Args:
        job: the data set.
        make: the finished codes of a case.
        text: shown with the progress.

    Returns:
        The code buffer that holds the noise.
    """
    owners = job.world.share([image.size for image in job.cases.images])
    with job.world.leaders_first():
        codes = job.workspace.codes(0)
    with job.world.step():
        own = [case for case, owner in enumerate(owners) if owner == job.world.rank]
        for done, case in enumerate(own):
            codes[case][...] = make(case)
            job.report(Progress("generate", done + 1, len(own), text))
    job.share_out(codes, owners)
    with job.world.step():
        job.workspace.save_checkpoint({**job.workspace.checkpoint(), "rounds": 0, "errors": []})
    return 0
