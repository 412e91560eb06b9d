"""The job that noise methods work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_salm.jobs.workspace import Workspace, exchange
from monai_salm.jobs.world import ALONE, World
from monai_salm.learning.cases import Cases
from monai_salm.learning.recipes import Recipe
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress


def _no_network(number: int) -> nn.Module:
    raise AssertionError("no network is trained for this job")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A data set to make noise for, and the means.

    Args:
        cases: the clean data set.
        workspace: holds the noise and the checkpoints.
        recipe: how surrogates are trained.
        device: where to compute.
        seed: of everything random.
        build_surrogate: gives the fresh network of restart number n.
        surrogate_spec: arguments of ``build_network`` of that network, or None if it came from a factory.
        report: called with the progress.
        key: the secret that everything drawn for a texture follows from.
        plain_class: the class whose images have no texture; None if each has one.
        world: the ranks that share the work.
    """

    cases: Cases
    workspace: Workspace
    recipe: Recipe
    device: torch.device
    seed: int
    build_surrogate: Callable[[int], nn.Module] = _no_network
    surrogate_spec: Callable[[int], dict[str, Any] | None] = lambda number: None
    report: Callable[[Progress], None] = lambda event: None
    key: bytes = b""
    plain_class: int | None = None
    world: World = ALONE

    def share_out(self, arrays: Sequence[Array], owners: Sequence[int]) -> None:
        """Make what every rank wrote for its own cases known to all; all ranks call it when all have written."""
        exchange(self.world, arrays, owners)

    def generator(self, *purpose: int) -> torch.Generator:
        """A generator of its own for each purpose, so that no draw depends on what ran before (or was resumed)."""
        return torch.Generator().manual_seed(self.seed_for(*purpose))

    def seed_for(self, *purpose: int) -> int:
        """A seed for a purpose, from the job's."""
        return int(np.random.SeedSequence([self.seed, *purpose]).generate_state(1, np.uint64)[0]) >> 1
