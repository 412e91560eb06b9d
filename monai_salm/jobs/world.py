"""Several ranks (processes) at work on one data set: how they find each other, who owns what, and how they notice a lost one.

Surrogates train in data parallel: each rank takes its share of each batch, and ``DistributedDataParallel`` averages the gradients.
Noise steps need no word from another rank: each owns a fixed, disjoint share of the cases. Ranks tell each other values as JSON
text in tensors; torch's own object collectives would unpickle.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_salm.jobs.launch import RankError, launch
from monai_salm.shared.progress import Progress

# Each rank that takes part in a batch has at least this many cases of it: batch normalisation measures its statistics on a rank's
# own share, and those of a few cases would make another surrogate.
_LEAST_SHARE = 8
_LOST = (
    "rank {rank} lost another rank ({error}): one of them failed, was killed, or its machine or network is gone. All finished "
    "rounds are kept: run the same command again, with as many ranks, and the work continues"
)


class Links(NamedTuple):
    """The process groups that connect the ranks: for gradients (NCCL between GPUs), and for all else (on CPUs)."""

    training: dist.ProcessGroup
    control: dist.ProcessGroup


@dataclass(frozen=True)
class World:
    """The ranks of a job, as one of them sees them; without arguments a process on its own.

    Args:
        rank: number of this process, from 0; rank 0 keeps the checkpoints and writes the store.
        size: how many ranks there are.
        local: number of this rank on its machine.
        links: the connections to the others; None on its own.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    links: Links | None = None

    def share(self, costs: Sequence[float]) -> list[int]:
        """The owner (a rank) of every item, by its cost: the dearest first, each to the rank that has least to do."""
        load, owners = [0.0] * self.size, [0] * len(costs)
        for item in sorted(range(len(costs)), key=lambda i: -costs[i]):
            owners[item] = min(range(self.size), key=lambda rank: load[rank])
            load[owners[item]] += costs[item]
        return owners

    def part(self, count: int) -> tuple[slice, float]:
        """This rank's part of a batch of ``count`` cases, and what its mean loss counts for in the average over ranks.

        Where the cases are too few to give every rank a share of its own, some ranks do the same share, and together count once.
        """
        shares = max(1, min(self.size, count // _LEAST_SHARE))
        number = self.rank % shares
        part = slice(number * count // shares, (number + 1) * count // shares)
        alike = len(range(number, self.size, shares))
        return part, self.size * (part.stop - part.start) / (count * alike)

    def data_parallel(self, model: nn.Module, complete: bool = True) -> nn.Module:
        """The model with gradients averaged over all ranks, starting from rank 0's weights; itself without others.

        A model is ``complete`` if every parameter takes part in every output.
        """
        if self.links is None:
            return model
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {buffers: False, "find_unused_parameters": not complete}
        with self.connection_errors():
            return DistributedDataParallel(
                model, process_group=self.links.training, gradient_as_bucket_view=True, **options
            )

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Average what each rank measured on its own share: the running statistics of batch normalisation."""
        measured = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.links is None or not measured:
            return
        flat = torch.cat([buffer.reshape(-1).float() for buffer in measured])
        with self.connection_errors():
            dist.all_reduce(flat, group=self.links.training)
        parts = (flat / self.size).split([buffer.numel() for buffer in measured])
        for buffer, part in zip(measured, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def broadcast(self, tensor: torch.Tensor, source: int) -> torch.Tensor:
        """The tensor as one rank has it; all ranks must call it, with tensors of one size on the CPU, which are written to."""
        if self.links is not None and tensor.numel():
            with self.connection_errors():
                dist.broadcast(tensor, source, group=self.links.control)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in their order, of a type that JSON knows; all ranks must call it."""
        if self.links is None:
            return [value]
        own, found = json.dumps(value).encode(), []
        for rank in range(self.size):
            length = int(self.broadcast(torch.tensor([len(own)]), rank))
            text = torch.frombuffer(bytearray(own if rank == self.rank else length), dtype=torch.uint8)
            found.append(json.loads(bytes(self.broadcast(text, rank).numpy())))
        return found

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work that ends when all ranks are through; an error of one is an error of all.

        The block must not call other methods that all ranks have to call, for a rank that failed does not. RankError if the block
        failed in another rank, or a rank is gone.
        """
        try:
            yield
        except Exception as error:
            if not isinstance(error, RankError):
                with contextlib.suppress(RankError):
                    self.gather(str(error) or type(error).__name__)
            raise
        for rank, failure in enumerate(self.gather(None)):
            if failure is not None:
                raise RankError(f"rank {rank} failed: {failure}", told=True)

    def reporting(self, progress: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
        """What to call with the progress: shows what rank 0 does."""
        return progress if progress is not None and self.rank == 0 else lambda event: None

    @contextlib.contextmanager
    def connection_errors(self) -> Iterator[None]:
        """Say what an error of the connection means."""
        try:
            yield
        except RuntimeError as error:
            if self.links is None or isinstance(error, RankError) or not _of_connection(error):
                raise
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise RankError(_LOST.format(rank=self.rank, error=first[0][:200])) from error


#: A process on its own.
ALONE = World()


def _of_connection(error: RuntimeError) -> bool:
    """gloo's errors are plain RuntimeErrors."""
    words = ("gloo", "NCCL", "onnection", "imed out")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


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
    # What tells this machine from others: torchrun's number for it, else its name.
    machine = f"torchrun {os.environ['GROUP_RANK']}" if launch().size > 1 else socket.gethostname()
    machines = World(rank, size, links=Links(training=control, control=control)).gather(machine)
    local = machines[:rank].count(machines[rank])
    between_gpus = rank_device(device, local).startswith("cuda") and "nccl" in dist.get_backend_config()
    if between_gpus and ":" in str(device) and machines.count(machines[rank]) > 1:
        raise ValueError(f"device {device} is one GPU for several ranks: give --device cuda, and each takes its own")
    training: Any = dist.new_group(backend="nccl" if between_gpus else "gloo", timeout=TIMEOUT)
    return World(rank, size, local, Links(training, control))
