"""Several ranks (processes) at work on one data set: who owns what, how they meet, and how they notice a lost one.

Surrogates train in data parallel: every rank takes its share of every batch, and ``DistributedDataParallel`` averages the
gradients. Noise steps need no word from another rank: each owns a fixed, disjoint share of the cases. Whatever ranks tell
each other outside of training goes as JSON text through tensors; torch's own object collectives would unpickle.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_salm.jobs.launch import RankError
from monai_salm.jobs.pulse import Pulse
from monai_salm.shared.progress import Progress

# A batch is shared among so many ranks as leave each at least this many cases: batch normalisation measures its statistics
# on a rank's own share, and those of a few cases would make another surrogate.
_LEAST_SHARE = 8
_LOST = (
    "rank {rank} lost another rank ({error}): one of them failed, was killed, or its machine or network is gone. All finished "
    "rounds are kept: run the same command again, with as many ranks, and it goes on from there"
)


@dataclass(frozen=True)
class World:
    """The ranks of a job, as one of them sees them; without arguments a process on its own.

    Args:
        rank: number of this process, from 0; rank 0 keeps the checkpoints and writes the store.
        machines: number of the machine that each rank is on, from 0.
        links: the connections to the others; None on its own.
    """

    rank: int = 0
    machines: tuple[int, ...] = (0,)
    links: Links | None = None

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.machines)

    @property
    def node(self) -> int:
        """The machine of this rank."""
        return self.machines[self.rank]

    @property
    def local(self) -> int:
        """Number of this rank on its machine; 0 keeps the machine's working folder."""
        return self.machines[: self.rank].count(self.node)

    @property
    def leaders(self) -> list[int]:
        """The first rank of every machine."""
        return [self.machines.index(node) for node in range(max(self.machines) + 1)]

    def share(self, costs: Sequence[float]) -> list[int]:
        """The owner (a rank) of every item: the dearest first, each to the rank that has least to do.

        Args:
            costs: work that each item takes, any unit.
        """
        load, owners = [0.0] * self.size, [0] * len(costs)
        if self.size == 1:
            return owners
        for item in sorted(range(len(costs)), key=lambda i: -costs[i]):
            owners[item] = min(range(self.size), key=lambda rank: load[rank])
            load[owners[item]] += costs[item]
        return owners

    def part(self, count: int) -> tuple[slice, float]:
        """This rank's part of a batch, and what its mean loss counts for in the average over ranks.

        Args:
            count: cases in the batch. Where they are too few to give every rank a share of its own, some ranks do the
                same share, and together count once.
        """
        shares = max(1, min(self.size, count // _LEAST_SHARE))
        number = self.rank % shares
        part = slice(number * count // shares, (number + 1) * count // shares)
        alike = len(range(number, self.size, shares))
        return part, self.size * (part.stop - part.start) / (count * alike)

    def data_parallel(self, model: nn.Module, complete: bool = True) -> nn.Module:
        """The model with gradients averaged over all ranks, starting from rank 0's weights; itself without others.

        Args:
            model: on its device.
            complete: every parameter takes part in every output.
        """
        if self.links is None:
            return model
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {buffers: False, "find_unused_parameters": not complete}
        with self.noticing():
            return DistributedDataParallel(
                model, process_group=self.links.training, gradient_as_bucket_view=True, **options
            )

    @torch.no_grad()
    def settle(self, model: nn.Module) -> None:
        """Average what each rank measured on its own share: the running statistics of batch normalisation."""
        measured = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.links is None or not measured:
            return
        flat = torch.cat([buffer.reshape(-1).float() for buffer in measured])
        with self.noticing():
            dist.all_reduce(flat, group=self.links.training)
        parts = (flat / self.size).split([buffer.numel() for buffer in measured])
        for buffer, part in zip(measured, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in their order; all ranks must call it.

        Args:
            value: whatever JSON knows.
        """
        if self.links is None:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8)
        with self.noticing():
            lengths = self._gathered(torch.tensor([len(text)]))
            longest = max(int(length) for length in lengths)
            padded = self._gathered(torch.cat([text, torch.zeros(longest - len(text), dtype=torch.uint8)]))
        texts = [bytes(row[: int(length)].numpy()) for row, length in zip(padded, lengths, strict=True)]
        return [json.loads(text) for text in texts]

    def tick(self) -> None:
        """Give a sign of life and look for those of the others; costs nothing between two beats.

        Raises:
            RankError: if a rank is gone.
        """
        if self.links is not None:
            with self.noticing():
                self.links.pulse.tick()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A part of the work that ends when all ranks are through; an error of one is an error of all.

        The block must not call other methods that all ranks have to call, for a rank that failed does not.

        Raises:
            RankError: if the block failed in another rank, or a rank is gone.
        """
        try:
            yield
        except Exception as error:
            if not isinstance(error, RankError):
                with contextlib.suppress(RankError):
                    self._meet(str(error) or type(error).__name__)
            raise
        self._meet(None)

    @contextlib.contextmanager
    def leaders_first(self) -> Iterator[None]:
        """A step that the first rank of each machine takes before the others there."""
        if self.local == 0:
            with self.step():
                yield
            with self.step():
                pass
        else:
            with self.step():
                pass
            with self.step():
                yield

    def reporting(self, progress: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
        """What to call with the progress: gives a sign of life, and shows what rank 0 does.

        Args:
            progress: shows it.
        """

        def report(event: Progress) -> None:
            self.tick()
            if progress is not None and self.rank == 0:
                progress(event)

        return report

    def _meet(self, failure: str | None) -> None:
        if self.links is None:
            return
        with self.noticing():
            self.links.pulse.meet()
        for rank, told in enumerate(self.gather(failure)):
            if told is not None and failure is None:
                raise RankError(f"rank {rank} failed: {told}", told=True)

    def _gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        assert self.links is not None
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(rows, tensor, group=self.links.control)
        return rows

    @contextlib.contextmanager
    def noticing(self) -> Iterator[None]:
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


@dataclass(frozen=True)
class Links:
    """Groups of processes that words go through.

    Args:
        training: gradients; NCCL between GPUs.
        control: values.
        leaders: the first ranks of all machines; None in others.
        pulse: signs of life.
    """

    training: dist.ProcessGroup
    control: dist.ProcessGroup
    leaders: dist.ProcessGroup | None
    pulse: Pulse

    def groups(self) -> list[dist.ProcessGroup]:
        """All of them."""
        every = (self.training, self.control, self.leaders, self.pulse.group)
        return [group for group in every if group is not None]


def _of_connection(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors.
    words = ("gloo", "NCCL", "onnection", "imed out")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
