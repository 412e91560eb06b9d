"""How a process finds the others: those of torchrun, or of the process group that it is in."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from monai_salm.jobs.launch import launch
from monai_salm.jobs.world import ALONE, Links, World

#: Longest wait for another rank's part of a training step; torch's own default for gloo.
TIMEOUT = timedelta(minutes=30)
#: Longest wait for all else, such as the noise steps of a round, or the store that rank 0 writes.
PATIENCE = timedelta(days=1)


@contextlib.contextmanager
def joined(device: str | torch.device) -> Iterator[World]:
    """The ranks that this process works with: those of the process group it is in, or of torchrun, or none.

    ValueError if the ranks of this machine cannot have a GPU each, RankError if the others cannot be reached.
    """
    own = not (dist.is_available() and dist.is_initialized())
    if own and launch().size == 1:
        yield ALONE
        return
    if own:
        chosen = torch.device(rank_device(device, int(os.environ["LOCAL_RANK"])))
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)  # NCCL binds a rank to its current device
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    world = ALONE if dist.get_world_size() == 1 else _connected(device)
    yield world
    # Not after an error: taking down a group that lost a rank may wait for it.
    if own:
        dist.destroy_process_group()
    for group in () if own or world.links is None else world.links:
        dist.destroy_process_group(group)


def rank_device(device: str | torch.device, local: int) -> str:
    """The device of a rank: each of a machine has a GPU of its own, unless one was named; ValueError if GPUs are too few."""
    asked = str(device)
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count()
    if asked != "cuda" or count == 0:
        return asked
    if local >= count:
        raise ValueError(
            f"rank {local} of this machine has no GPU of its own, there are {count}: start as many ranks as GPUs "
            f"(--nproc-per-node={count}), or compute on the CPU (--device cpu)"
        )
    return f"cuda:{local}"


def _connected(device: str | torch.device) -> World:
    control: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    rank, size = dist.get_rank(), dist.get_world_size()
    machines = World(rank, size, links=Links(training=control, control=control)).gather(_machine())
    local = machines[:rank].count(machines[rank])
    between_gpus = rank_device(device, local).startswith("cuda") and "nccl" in dist.get_backend_config()
    if between_gpus and ":" in str(device) and machines.count(machines[rank]) > 1:
        raise ValueError(f"device {device} is one GPU for several ranks: give --device cuda, and each takes its own")
    training: Any = dist.new_group(backend="nccl" if between_gpus else "gloo", timeout=TIMEOUT)
    return World(rank, size, local, Links(training, control))


def _machine() -> str:
    """What tells this machine from others: torchrun's number for it, else its name."""
    return f"torchrun {os.environ['GROUP_RANK']}" if launch().size > 1 else socket.gethostname()
