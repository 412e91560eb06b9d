"""What all noise methods share: the base of their settings and the job they work on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import singledispatch
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from monai_salm.jobs.exchange import exchange
from monai_salm.jobs.workspace import Workspace
from monai_salm.jobs.world import ALONE, World
from monai_salm.learning.cases import Cases
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Task
from monai_salm.noise.grid import require_epsilon
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress


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
        key: the secret that everything drawn for a texture follows from.
        plain_class: the class whose images have no texture; None chooses the rarest.
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
    key: bytes = b""
    plain_class: int | None = None
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
class Method:
    """Settings of a way to make noise; ``run`` does it.

    Args:
        epsilon: budget (L-infinity) as a fraction of each image's window, in (0, 1].
    """

    epsilon: float = 8 / 255
    name: ClassVar[str]

    def __post_init__(self) -> None:
        require_epsilon(self.epsilon)

    def spec(self) -> dict[str, Any]:
        """The settings as plain values, recorded in the store."""
        return _plain(self)

    @property
    def label(self) -> str:
        """What tables and reports call the method."""
        return self.name

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        """Refuse a learning problem that the method is not made for.

        Args:
            task: the learning problem.
            spatial_dims: 2 or 3.

        Raises:
            ValueError: saying why, and what to use.
        """


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as plain values with their name; settings inside them alike."""
    values = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    inner = {name: _plain(value) if is_dataclass(value) else value for name, value in values}
    return {"name": settings.name, **inner}


@singledispatch
def run(method: Method, job: Job) -> int:
    """Leave finished noise in the workspace; each kind of method registers how.

    Args:
        method: the settings.
        job: the data set, and the means.

    Returns:
        The code buffer (0 or 1) that holds the noise.
    """
    raise TypeError(f"no way to run {type(method).__name__} is known")


@singledispatch
def run_frozen(method: Method, job: Job, surrogates: Sequence[nn.Module]) -> int:
    """As ``run``, for images that come later, against finished networks; a method without networks simply runs.

    Args:
        method: the settings.
        job: the new images, and the means.
        surrogates: networks that earlier noise was made against.
    """
    return run(method, job)


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting: rule, then value."""
    if not holds or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} must be {rule}, got {value}")


def run_without_network(job: Job, make: Callable[[int], Array], text: str) -> int:
    """``run`` for a method that makes the noise of each case by itself; ranks share the cases.

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
