"""What the working folders of several machines tell each other: a folder as a whole, and the noise of a round.

Ranks of one machine share its folder and need none of this. Machines need no common disk: a memory-mapped file that two of
them write to is not safe on a network file system.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from monai_salm.jobs.workspace import Workspace
from monai_salm.jobs.world import World
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import work_beside

_CHUNK = 1 << 24  # bytes sent at once


def working_folder(store: Path, world: World) -> Path:
    """``<store>.work``, on other machines than rank 0's ``<store>.work.node1``, ...: they may share a disk."""
    first = work_beside(store)
    return first if world.node == 0 else first.with_name(f"{first.name}.node{world.node}")


def mirror(world: World, workspace: Workspace) -> None:
    """Give the first machine's checkpoint, noise and networks to the others.

    Args:
        world: the ranks; all must call it.
        workspace: this machine's working folder.
    """
    if not _between_machines(world):
        return
    listing = b""
    if world.rank == 0:
        files = workspace.progress_files()
        listing = json.dumps([[path.name, path.stat().st_size] for path in files]).encode()
    length = int(_sent(world, torch.tensor([len(listing)]), 0))
    for name, size in json.loads(bytes(_sent(world, _bytes(listing, length), 0).numpy())):
        with open(workspace.folder / name, "rb" if world.rank == 0 else "wb") as file:
            for start in range(0, size, _CHUNK):
                count = min(_CHUNK, size - start)
                chunk = _sent(world, _bytes(file.read(count) if world.rank == 0 else b"", count), 0)
                if world.rank:
                    file.write(chunk.numpy().tobytes())


def exchange(world: World, arrays: Sequence[Array], owners: Sequence[int]) -> None:
    """Bring what the ranks of each machine wrote for their own cases to the other machines.

    Args:
        world: the ranks; all must call it, after all have written.
        arrays: noise or masks, one array a case; those of other machines' cases are written.
        owners: the rank that owns each case.
    """
    if not _between_machines(world):
        return
    for node, leader in enumerate(world.leaders):
        cases = [case for case, owner in enumerate(owners) if world.machines[owner] == node]
        for batch in _batches(cases, [array.nbytes for array in arrays]):
            own = b"".join(arrays[case].tobytes() for case in batch) if node == world.node else b""
            sent = _sent(world, _bytes(own, sum(arrays[case].nbytes for case in batch)), leader).numpy()
            place = 0
            for case in batch if node != world.node else []:
                part = sent[place : place + arrays[case].nbytes]
                arrays[case][...] = part.view(arrays[case].dtype).reshape(arrays[case].shape)
                place += arrays[case].nbytes


def _between_machines(world: World) -> bool:
    return world.links is not None and world.links.leaders is not None and len(world.leaders) > 1


def _batches(cases: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Cases whose data are sent at once."""
    batch: list[int] = []
    room = _CHUNK
    for case in cases:
        if batch and sizes[case] > room:
            yield batch
            batch, room = [], _CHUNK
        batch.append(case)
        room -= sizes[case]
    if batch:
        yield batch


def _bytes(data: bytes, length: int) -> torch.Tensor:
    """Data to send, or as much room to receive it."""
    return torch.frombuffer(bytearray(data or length), dtype=torch.uint8)


def _sent(world: World, tensor: torch.Tensor, source: int) -> torch.Tensor:
    """The tensor as the first rank of a machine has it."""
    assert world.links is not None
    with world.noticing():
        dist.broadcast(tensor, source, group=world.links.leaders)
    return tensor
