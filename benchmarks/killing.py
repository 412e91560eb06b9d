"""A run in a process of its own, and its end by SIGKILL at a moment of choice; for the kill tests in this folder."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Imported once, in the server that all runs are forked from; nothing is computed there. torch's optimisers import the
# last at their first step, which would take most of a short run.
_PRELOAD = [
    "monai.data",
    "monai.transforms",
    "monai_salm.generate.precompute",
    "monai_salm.publishing",
    "monai_salm.cli",
    "torch._dynamo",
]


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Args:
        stage: the last one it reported; ``"done"`` if it came to its end.
        seconds: from the start of its work.
    """

    stage: str
    seconds: float


def run_and_kill(work: Callable[..., None], arguments: tuple[Any, ...], kill_after: float | None = None) -> Run:
    """Start a run and wait for its end, or kill it some seconds after its work has started.

    Args:
        work: called with a connection and the arguments; sends the name of a stage when it begins one, the first before
            any work, and ``"done"`` at its end.
        arguments: picklable.
        kill_after: seconds.

    Raises:
        RuntimeError: if it fails of itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, *arguments))
    process.start()
    sender.close()
    stages: list[str] = []
    try:
        stages.append(receiver.recv())
        started = time.monotonic()
        process.join(kill_after)
        process.kill()
        process.join()
        seconds = time.monotonic() - started
        while True:
            stages.append(receiver.recv())
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
        receiver.close()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run failed with exit code {process.exitcode} after {stages}")
    return Run(stages[-1], seconds)
