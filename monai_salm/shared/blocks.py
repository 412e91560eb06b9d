"""Work on large arrays a block at a time: what one step leaves is still in the processor's cache when the next needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from monai_salm.shared.arrays import Array

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Elements of a block: with its copies in other types it fits the second-level cache of common processors.
BLOCK = 2**16
# Threads that share the interpreter wait for each other, so a thread of less work than this costs more than it gains.
_BLOCKS_A_THREAD = 128


def blocks(size: int) -> list[slice]:
    """The blocks of a flat array of this many elements."""
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


def columns(image: Array) -> tuple[Array, list[slice]]:
    """An image ``(channel, *spatial)`` as rows ``(channel, elements)``, and the blocks of columns of ``BLOCK`` elements in all.

    The rows are a view where the image lies in the order of its axes.
    """
    import numpy as np

    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    step = max(1, BLOCK // len(rows))
    return rows, [slice(start, min(start + step, rows.shape[1])) for start in range(0, rows.shape[1], step)]


def meet(first: Array, second: Array) -> bool:
    """Whether two arrays of one shape have an element that is zero in neither; says so at the first block that has one."""
    one, other = first.reshape(-1), second.reshape(-1)
    return any((one[part].astype(bool) & other[part].astype(bool)).any() for part in blocks(one.size))


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], elements: int) -> list[Result]:
    """What the work gives for every item, in their order; in as many threads as torch uses (1 in a DataLoader's worker).

    ``elements`` are those of all items together; few are worked on right here. Each thread has a run of items.
    """
    import torch

    def all_of(part: Sequence[Item]) -> list[Result]:
        return [work(item) for item in part]

    items, most = list(items), elements // (BLOCK * _BLOCKS_A_THREAD)
    threads = min(torch.get_num_threads(), most) if most > 1 else 1
    if threads <= 1:
        return all_of(items)
    share = -(-len(items) // threads)
    parts = [items[start : start + share] for start in range(0, len(items), share)]
    # Threads of a pool that is kept would not live on in a forked process.
    with ThreadPoolExecutor(threads) as pool:
        return [result for part in pool.map(all_of, parts) for result in part]
