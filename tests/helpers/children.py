"""Forked children of a test: one that hangs is killed and fails the test, so that no suite waits for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

#: How long children may take on a machine that is busy.
SECONDS = 120.0


def exit_codes(children: Sequence[BaseProcess], seconds: float = SECONDS) -> list[int | None]:
    """Wait for processes together and return their exit codes; -9 of one that had to be killed."""
    end = time.monotonic() + seconds
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode for child in children]


def exit_code(pid: int, seconds: float = SECONDS) -> int:
    """The same for a child of ``os.fork``."""
    end = time.monotonic() + seconds
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])
