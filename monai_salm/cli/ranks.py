"""A verb under ``torchrun``: which verbs may run so, and what a rank says when torchrun ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading

from monai_salm.jobs.launch import Launch

_STOPPED = (
    "monai-salm: rank {rank} was stopped from outside, as torchrun does when another rank failed or was killed. All finished "
    "rounds are kept: run the same command again, with as many ranks, and it goes on from there\n"
)


def begin_as_rank(verb: str, place: Launch) -> None:
    """Refuse verbs that are one process' work, and be ready for torchrun's end.

    Args:
        verb: its name.
        place: this process among the ranks.

    Raises:
        ValueError: for any verb but ``generate``.
    """
    if verb != "generate":
        raise ValueError(
            f"{verb} is one process' work, and torchrun started {place.size}: make the noise with torchrun -m monai_salm "
            f"generate, and then run monai-salm {verb} with that store without torchrun"
        )
    if sys.platform == "win32":  # ends processes without a signal
        return
    # A thread of its own takes the signal: the main one may be waiting for the very rank that is gone. Threads that
    # torch starts later inherit the mask, so that none of them takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end, args=(place.rank,), daemon=True).start()


def _end(rank: int) -> None:
    number = signal.sigwait([signal.SIGTERM])
    sys.stderr.write(_STOPPED.format(rank=rank))
    sys.stderr.flush()
    os._exit(128 + number)
