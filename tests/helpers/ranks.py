"""Several ranks on this machine, each a process, for the tests of what they do together."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_PRELOAD = ["monai.data", "monai.transforms", "monai_salm.generate.precompute", "torch._dynamo", "conftest"]


@dataclass(frozen=True)
class Ended:
    """How a rank ended.

    Args:
        value: what its work returned, or None.
        error: type and text of what it raised, or None.
        exitcode: of the process.
        seconds: from the start of all ranks to its end.
    """

    value: Any
    error: str | None
    exitcode: int | None
    seconds: float


def run_ranks(size: int, work: Callable[..., Any], *arguments: Any, folder: Path, machines: int = 1) -> list[Ended]:
    """Call ``work(rank, *arguments)`` in so many processes of one process group (gloo) and wait for all to end.

    Args:
        size: number of ranks.
        work: a function of a test module.
        arguments: picklable.
        folder: for the file that ranks find each other by.
        machines: ranks believe they are on so many machines.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    meeting = f"file://{folder}/meeting.{time.monotonic_ns()}"
    start, processes, receivers = time.monotonic(), [], []
    for rank in range(size):
        receiver, sender = context.Pipe(duplex=False)
        host = f"machine{rank * machines // size}"
        process = context.Process(target=_rank, args=(sender, meeting, rank, size, host, work, arguments))
        process.start()
        sender.close()
        processes.append(process)
        receivers.append(receiver)
    ends: dict[int, tuple[Any, str | None, float]] = {}
    while len(ends) < size:
        for ready in wait([r for i, r in enumerate(receivers) if i not in ends], timeout=120):
            rank = receivers.index(ready)  # type: ignore[arg-type]
            value, error = None, None
            with contextlib.suppress(EOFError):
                value, error = receivers[rank].recv()
            ends[rank] = (value, error, time.monotonic() - start)
    for process in processes:
        process.join()
    return [Ended(*ends[rank][:2], process.exitcode, ends[rank][2]) for rank, process in enumerate(processes)]


def die() -> None:
    """End this process as the system does when it is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _rank(
    sender: Connection,
    meeting: str,
    rank: int,
    size: int,
    host: str,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    socket.gethostname = lambda: host
    try:
        sender.send((work(rank, *arguments), None))
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))
    os._exit(0)  # without waiting for ranks that are gone
