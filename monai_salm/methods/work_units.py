"""How the cases of a job are shared out: units of work, and the ranks and threads that do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_salm.learning.cases import Slices
from monai_salm.methods.job import Job
from monai_salm.shared.arrays import Array

# Elements of all images of a unit on a processor: each of its cores works on one, with a dozen arrays of this size.
_MOST_ELEMENTS = 2**20
# The same of large images that a network sees small: they are worked on one after the other, and wait in few arrays.
_MOST_WAITING = 2**22
# Elements of the images that all workers together have in hand.
_MOST_AT_ONCE = 2**24


@dataclass(frozen=True)
class WorkUnit:
    """Cases of one shape whose noise is improved together, tile by tile; or stays as it begins (``needs_no_steps``)."""

    index: int
    cases: list[int]
    tiles: list[Slices]
    needs_no_steps: bool = False


def mean_error(errors: Sequence[float], cases: Sequence[int]) -> float:
    """The mean error of units, by their cases; 0 of none. A unit that stays as it begins has 0 cases."""
    return float(np.average(errors, weights=cases)) if sum(cases) else 0.0


def unit_owners(job: Job, units: Sequence[WorkUnit]) -> list[int]:
    """The rank that owns each case, by the unit it is in."""
    owners = [0] * len(job.cases)
    costs = [len(unit.cases) * float(np.prod(job.workspace.shapes[unit.cases[0]])) for unit in units]
    for unit, rank in zip(units, job.world.share(costs), strict=True):
        for case in unit.cases:
            owners[case] = rank
    return owners


def class_owners(job: Job) -> list[int]:
    """The rank that owns each case, by its class: classwise noise is one job a class."""
    labels = [int(label) for label in job.cases.labels]
    present = sorted(set(labels))
    owner = dict(zip(present, job.world.share([1.0] * len(present)), strict=True))
    return [owner[label] for label in labels]


def plan_units(
    job: Job,
    needs_no_steps: Callable[[Array], bool] = lambda label: False,
    together: Callable[[tuple[int, ...]], bool] = lambda shape: False,
) -> list[WorkUnit]:
    """Batches of cases of one shape, each with the tiles that cover its images; as many of one size as give each rank the same.

    Args:
        job: the data set.
        needs_no_steps: whether the noise of a case stays as it begins, by its label.
        together: whether a network sees several large images of a shape at once.
    """
    groups: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for case, shape in enumerate(job.workspace.shapes):
        groups.setdefault((shape, needs_no_steps(job.cases.labels[case])), []).append(case)
    units: list[WorkUnit] = []
    for (shape, resting), cases in groups.items():
        tiles = job.cases.view.tiles(shape[1:])
        elements = shape[0] * max(math.prod(side.stop - side.start for side in tile) for tile in tiles)
        size = unit_size(job.recipe.batch_size, elements, job.device)
        if together(shape):
            size = max(size, min(job.recipe.batch_size, _MOST_WAITING // elements))
        for members in _batches(cases, size, job.world.size):
            units.append(WorkUnit(len(units), members, tiles, resting))
    return units


def unit_size(batch_size: int, elements: int, device: torch.device) -> int:
    """How many images of so many elements a unit has: a batch, and on a processor no more than its workers have room for."""
    return batch_size if device.type != "cpu" else max(1, min(batch_size, _MOST_ELEMENTS // elements))


def _batches(cases: list[int], batch_size: int, ranks: int) -> list[list[int]]:
    if ranks == 1:
        return [cases[start : start + batch_size] for start in range(0, len(cases), batch_size)]
    count = min(len(cases), -(-len(cases) // (batch_size * ranks)) * ranks)
    return [cases[len(cases) * i // count : len(cases) * (i + 1) // count] for i in range(count)]


@contextmanager
def workers(device: torch.device, elements: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A ``map`` with one worker a core: faster than sharing a batch, and equal bytes on any core count.

    There are fewer workers for images of so many ``elements`` that those of all would not fit in memory together.
    A GPU has one queue of work, and CUDA graphs must be replayed by the thread that recorded them.
    """
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    try:
        count = max(1, min(threads, _MOST_AT_ONCE // elements))
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
