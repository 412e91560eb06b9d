"""What the working folders of several ranks tell each other: a folder as a whole, and the noise of a round.

Each rank has a folder of its own. Ranks need no common disk: a memory-mapped file that two machines write to is not safe on a
network file system.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from monai_salm.jobs.workspace import Workspace
from monai_salm.jobs.world import World
from monai_salm.shared.arrays import Array
from monai_salm.shared.disk import open_private, writing
from monai_salm.shared.files import work_beside

_CHUNK = 1 << 24  # bytes sent at once


def open_workspace(store: Path, world: World) -> Workspace:
    """The working folder of a rank: ``<store>.work``, and ``<store>.work.rank1``, ... of the others; all ranks must call it."""
    first = work_beside(store)
    with world.step():
        if world.rank:
            return Workspace(first.with_name(f"{first.name}.rank{world.rank}"), guest=True)
        workspace = Workspace(first)
        # A killed run of more ranks leaves their copies of the images.
        for path in list(first.parent.iterdir()):
            found = re.fullmatch(rf"{re.escape(first.name)}\.rank(\d+)", path.name)
            if found and int(found[1]) >= world.size:
                shutil.rmtree(path)
        return workspace


def mirror(world: World, workspace: Workspace) -> None:
    """Give rank 0's checkpoint, noise and networks to the other ranks; all must call it."""
    if world.size == 1:
        return
    own = [(path.name, path.stat().st_size) for path in workspace.progress_files()] if world.rank == 0 else []
    for name, size in world.gather(own)[0]:
        path = workspace.folder / name
        with writing(path, size), open(path, "rb") if world.rank == 0 else open_private(path, "wb") as file:
            for start in range(0, size, _CHUNK):
                count = min(_CHUNK, size - start)
                chunk = bytearray(file.read(count) if world.rank == 0 else count)
                sent = world.broadcast(torch.frombuffer(chunk, dtype=torch.uint8), 0)
                if world.rank:
                    file.write(sent.numpy().data)


def exchange(world: World, arrays: Sequence[Array], owners: Sequence[int]) -> None:
    """Make known to all ranks what each wrote for its own cases, one array a case; all must call it, after all have written."""
    for rank in range(world.size) if world.size > 1 else ():
        cases = [case for case, owner in enumerate(owners) if owner == rank]
        chunks = np.cumsum([arrays[case].nbytes for case in cases]) // _CHUNK
        for _, places in itertools.groupby(range(len(cases)), chunks.__getitem__):
            batch = [cases[place] for place in places]
            flat = np.concatenate([arrays[case].reshape(-1) for case in batch])
            sent = world.broadcast(torch.from_numpy(flat), rank).numpy()
            ends = np.cumsum([arrays[case].size for case in batch])
            for case, values in zip(batch if rank != world.rank else (), np.split(sent, ends[:-1]), strict=False):
                arrays[case][...] = values.reshape(arrays[case].shape)
