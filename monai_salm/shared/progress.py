"""How far a long piece of work has got, and how that is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from monai_salm.shared.terminal import printable


@dataclass(frozen=True)
class Progress:
    """One report of how far a stage has got.

    Args:
        stage: what is being done, for example ``"noise"``.
        done: finished units.
        total: all units; 0 if unknown.
        detail: anything worth showing beside the count.
    """

    stage: str
    done: int
    total: int
    detail: str = ""


#: Takes the reports; ``precompute``, ``publish``, ``verify`` and ``evaluate`` call it.
ProgressCallback: TypeAlias = Callable[[Progress], None]


@contextmanager
def show_progress(
    silent: bool = False, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[ProgressCallback]:
    """Show reports on stderr, by the callback that it yields: a bar on a terminal, else ``progress_lines``, or nothing."""
    console = Console(stderr=True)
    if silent:
        yield lambda report: None
    elif console.is_terminal:
        with _bars(console) as callback:
            yield callback
    else:
        yield _Lines(interval, clock)


def progress_lines(interval: float = 10.0) -> ProgressCallback:
    """Shows reports as plain lines on stderr; for config files, which have no ``with``.

    ``interval`` are the least seconds between two lines of one stage; its first and last are always shown, and one soon after the
    first, which says how long the stage will take.
    """
    return _Lines(interval, time.monotonic)


@contextmanager
def _bars(console: Console) -> Iterator[ProgressCallback]:
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, "{task.fields[detail]}", console=console) as bars:
        tasks = {}

        def update(report: Progress) -> None:
            if report.stage not in tasks:
                tasks[report.stage] = bars.add_task(report.stage, total=report.total or None, detail="")
            # Markup is escaped by rich's own rule: a case name may hold square brackets.
            detail = printable(report.detail).replace("[", r"\[")
            bars.update(tasks[report.stage], completed=report.done, total=report.total or None, detail=detail)

        yield update


def duration(seconds: float) -> str:
    """Seconds as people say them: ``90 s``, ``5 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _Lines:
    """One line on stderr now and then, for log files; the second of a stage comes soon, since it is the first to say how long."""

    soon = 3.0

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self.interval, self.clock = interval, clock
        self.started: dict[str, tuple[float, int]] = {}
        self.due: dict[str, float] = {}

    def __call__(self, report: Progress) -> None:
        now = self.clock()
        start, first = self.started.setdefault(report.stage, (now, report.done))
        last = report.total > 0 and report.done >= report.total
        if not last and now < self.due.get(report.stage, -float("inf")):
            return
        self.due[report.stage] = now + (self.interval if report.stage in self.due else min(self.soon, self.interval))
        parts = [f"{report.stage}: {report.done}/{report.total}" if report.total else f"{report.stage}: {report.done}"]
        if report.detail:
            parts.append(printable(report.detail))
        if report.done > first and not last and report.total:
            left = (now - start) / (report.done - first) * (report.total - report.done)
            parts.append(f"about {duration(left)} left")
        print(", ".join(parts), file=sys.stderr, flush=True)
