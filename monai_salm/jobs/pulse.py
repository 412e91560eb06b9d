"""Signs of life between processes, by which one notices that another is gone."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

# A process at work gives a sign of life this often, in seconds. One that was killed is noticed at the next.
_BEAT = 2.0


class Pulse:
    """Signs of life, and the meeting of all ranks: sums of how many are busy, one after the other, on a group of their own.

    A rank at work joins a sum now and then and does not wait for it; one that is done joins sum after sum until nobody is
    busy. So no wait is longer than the work between two signs, and a rank that is gone breaks the next sum.

    Args:
        group: of gloo, and for this alone.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.busy, self.posted = group, torch.zeros(1), 0.0
        self.work: Any = None

    def tick(self) -> None:
        """Join a sum if it is time for one, and look at the last."""
        if self.work is not None and self.work.is_completed():
            self._take()
        if self.work is None and time.monotonic() - self.posted >= _BEAT:
            self._post(1)

    def meet(self) -> None:
        """Wait until all are here."""
        self._take()
        while True:
            self._post(0)
            if self._take() == 0:
                return

    def _post(self, busy: int) -> None:
        self.busy, self.posted = torch.tensor([float(busy)]), time.monotonic()
        self.work = dist.all_reduce(self.busy, group=self.group, async_op=True)

    def _take(self) -> int:
        if self.work is not None:
            self.work.wait()
            self.work = None
        return int(self.busy)
