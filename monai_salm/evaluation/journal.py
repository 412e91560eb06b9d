"""Finished cells on disk, so that an interrupted evaluation goes on; and the training of the missing ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.schedule import Cell, Training, training_of
from monai_salm.evaluation.workers import run_trainings
from monai_salm.shared.disk import writing
from monai_salm.shared.files import try_lock
from monai_salm.shared.progress import Progress

#: Raised by one whenever cells change their meaning.
_FORMAT = 1
_OTHER = "name a file that does not exist yet"


class JournalError(ValueError):
    """A file that is no journal, is another evaluation's, or is in use."""


class Journal(AbstractContextManager["Journal"]):
    """A file of one JSON object a line: the identity of the evaluation, then finished cells.

    A line that a crash cut short is dropped. Cells of other victims, seeds or countermeasures of the same evaluation may join
    later; ``JournalError`` says that the file is no journal, is of another ``identity``, or is in use.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.cells: list[Cell] = []
        self._start, self._earlier = time.monotonic(), 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = try_lock(self.path)
        if self._lock is None:
            raise JournalError(
                f"{self.path} is in use: another evaluation writes to it; wait for it, or name another file"
            )
        own = json.loads(json.dumps({"format": _FORMAT, **identity}))
        try:
            header = self._read()
            if header is None:
                self._write(own)
                header = own
            for name in dict.fromkeys((*own, *header)):
                if header.get(name) != own.get(name):
                    raise JournalError(
                        f"{self.path} is of an evaluation with {name} {header.get(name)}, this one has {own.get(name)}: cells of "
                        "both do not belong in one table. Name another file, or repeat the call that began this one"
                    )
        except BaseException:
            self.close()
            raise

    @property
    def seconds(self) -> float:
        """How long the evaluation has taken, all calls together."""
        return self._earlier + time.monotonic() - self._start

    def add(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished cells, on the disk when this returns."""
        self._write({"seconds": round(self.seconds, 3), "cells": [dict(cell) for cell in cells]})

    def close(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any] | None:
        """Read the finished cells and drop a line that was cut short; gives the header, None for an empty file."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise JournalError(
                    f"{self.path}, line {number} is not JSON: it is no evaluation's, or damaged; {_OTHER}"
                ) from error
        begun = b'{"format"'  # of which a crash may have cut some
        if not (isinstance(lines[0], dict) and "format" in lines[0] if lines else begun.startswith(content[:9])):
            raise JournalError(f"{self.path} is no journal of an evaluation; {_OTHER}")
        for number, line in enumerate(lines[1:], start=2):
            if not isinstance(line, dict) or not {"cells", "seconds"} <= set(line):
                raise JournalError(f"{self.path}, line {number} holds no cells: the file is damaged; {_OTHER}")
            self.cells += line["cells"]
            self._earlier = line["seconds"]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return lines[0] if lines else None

    def _write(self, line: Mapping[str, Any]) -> None:
        # NaN is written as Python's JSON does and read back by it; the report's own JSON is strict.
        with writing(self.path), open(self.path, "ab") as file:
            file.write(f"{json.dumps(line)}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def collect_cells(
    runner: Runner,
    fixed: Mapping[str, Any],
    jobs: int,
    resume: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[list[Cell], float]:
    """The cells of all trainings in order, from the journal where finished, and the seconds of all calls together."""
    start, schedule = time.monotonic(), runner.schedule
    trainings = schedule.trainings()
    if resume is not None:
        runner.protocol.require_names(runner.task, "whose name may stand for something else when it goes on")
    # Victims may join later: their settings are compared cell by cell.
    identity = {name: value for name, value in fixed.items() if name != "trained"}
    identity |= {name: runner.protocol.spec()[name] for name in ("epochs", "recipe")} | {"device": runner.device.type}
    with nullcontext() if resume is None else Journal(resume, identity) as journal:
        kept = [cell for cell in journal.cells if _is_same(cell, runner, fixed)] if journal else []
        found = {training_of(cell): cell for cell in kept}
        missing = [t for t in trainings if not found.keys() >= {*schedule.gives(t)} or _unpredicted(t, runner, found)]
        reporter = _ProgressReporter(runner, missing, progress)
        for cells in run_trainings(runner, missing, jobs, reporter.after_epoch):
            if journal:
                journal.add(cells)
            found |= {training_of(cell): cell for cell in cells}
            reporter.after_training(cells[0])
        seconds = journal.seconds if journal else time.monotonic() - start
    return [found[given] for training in trainings for given in schedule.gives(training)], seconds


def _is_same(cell: Cell, runner: Runner, fixed: Mapping[str, Any]) -> bool:
    """Whether victim and countermeasure of a kept cell are those of the same names now."""
    network = fixed["trained"].get(cell["victim"], {}).get("network")
    adversary = runner.schedule.adversaries.get(cell["countermeasure"])
    settings = json.loads(json.dumps(adversary.spec())) if adversary else None
    return bool(cell["network"] == network and cell["settings"] == settings)


def _unpredicted(training: Training, runner: Runner, found: Mapping[Training, Cell]) -> bool:
    """Whether predictions are asked for that an earlier call did not keep."""
    cell, folder = found.get(training), runner.protocol.predictions
    return bool(cell and folder and not folder.path(cell).exists())


class _ProgressReporter:
    """Turns epochs into progress; a victim that stops early counts as if it had trained all of its epochs."""

    def __init__(
        self, runner: Runner, missing: Sequence[Training], progress: Callable[[Progress], None] | None
    ) -> None:
        self._metric, self._progress = runner.task.metric, progress
        self._total = sum(runner.setting(training).epochs for training in runner.schedule.trainings())
        self._left = {training: runner.setting(training).epochs for training in missing}

    def after_epoch(self, training: Training, score: float) -> None:
        if training in self._left:
            self._left[training] -= 1
        share = "" if training.fraction == 1 else f" {training.fraction:.0%}"
        treatment = "" if training.treatment() == "none" else f" + {training.treatment()}"
        what = f"{training.data}{share}{treatment}"
        self._report(f"{training.victim} seed {training.seed}, {what}, {self._metric} {score:.3f}")

    def after_training(self, cell: Cell) -> None:
        self._left.pop(training_of(cell))
        self._report(f"{cell['victim']} seed {cell['seed']} done, {self._metric} {cell['last']:.3f}")

    def _report(self, detail: str) -> None:
        if self._progress is not None:
            self._progress(Progress("evaluate", self._total - sum(self._left.values()), self._total, detail))
