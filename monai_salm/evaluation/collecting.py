"""All cells of an evaluation: those that a journal holds, and those that are still to be trained."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from monai_salm.evaluation.cells import Cell, Key, Training, cell_key
from monai_salm.evaluation.journal import Journal
from monai_salm.evaluation.protocol import is_importable, victim_name
from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.workers import run_trainings
from monai_salm.shared.progress import Progress


def collect_cells(
    runner: Runner,
    fixed: Mapping[str, Any],
    jobs: int,
    resume: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[list[Cell], float]:
    """Take from the journal what is finished, and train the rest.

    Args:
        runner: trains.
        fixed: what must be the same for cells to be compared; ``"trained"`` holds the settings of each victim.
        jobs: processes at once.
        resume: path of the journal, None for none.
        progress: told of every epoch.

    Returns:
        The cells of all trainings in their order, and the seconds of all calls together.
    """
    start, schedule = time.monotonic(), runner.schedule
    trainings = schedule.trainings()
    if resume is not None:
        _require_names(runner)
    # Victims may join later, so that their settings are compared cell by cell.
    identity = {name: value for name, value in fixed.items() if name != "trained"}
    identity |= {name: runner.protocol.spec()[name] for name in ("epochs", "recipe")} | {"device": runner.device.type}
    with nullcontext() if resume is None else Journal(Path(resume), identity) as journal:
        found = {cell_key(cell): cell for cell in journal.cells if _is_same(cell, runner, fixed)} if journal else {}
        missing = [
            t for t in trainings if not all(key in found for key in schedule.keys(t)) or _unpredicted(t, runner, found)
        ]
        tell = _Telling(runner, trainings, missing, progress)
        for cells in run_trainings(runner, missing, jobs, tell.after_epoch):
            if journal:
                journal.add(cells)
            found |= {cell_key(cell): cell for cell in cells}
            tell.after_training(cells[0])
        seconds = journal.seconds if journal else time.monotonic() - start
    return [found[key] for training in trainings for key in schedule.keys(training)], seconds


def _require_names(runner: Runner) -> None:
    for name, victim in runner.protocol.architectures(runner.sets.task).items():
        if not is_importable(victim):
            raise ValueError(
                f"victim {name!r} is {victim_name(victim)}, whose name may stand for something else tomorrow: to resume, give a "
                "function or class at the top of a module"
            )


def _is_same(cell: Cell, runner: Runner, fixed: Mapping[str, Any]) -> bool:
    """Whether a kept cell is of the victim and the countermeasure that its names stand for now."""
    network = fixed["trained"].get(cell["victim"], {}).get("network")
    adversary = runner.schedule.adversaries.get(cell["countermeasure"])
    settings = json.loads(json.dumps(adversary.spec())) if adversary else None
    return bool(cell["network"] == network and cell["settings"] == settings)


def _unpredicted(training: Training, runner: Runner, found: Mapping[Key, Cell]) -> bool:
    """Whether predictions are wanted that an earlier call did not keep."""
    cell = found.get(training.key())
    return bool(cell and runner.predictions and not runner.predictions.path(cell).exists())


class _Telling:
    """Turns epochs into progress; a victim that stops early counts as if it had trained all of its epochs."""

    def __init__(
        self,
        runner: Runner,
        trainings: Sequence[Training],
        missing: Sequence[Training],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._epochs = {training.key(): runner.setting(training).epochs for training in trainings}
        self._metric = runner.sets.task.metric
        self._total = sum(self._epochs.values())
        self._finished = self._total - sum(self._epochs[training.key()] for training in missing)
        self._running: dict[object, int] = {}
        self._progress = progress

    def after_epoch(self, training: Training, score: float) -> None:
        key = training.key()
        if key in self._epochs:
            self._running[key] = self._running.get(key, 0) + 1
        self._tell(f"{training.victim} seed {training.seed}, {_described(training)}, {self._metric} {score:.3f}")

    def after_training(self, cell: Cell) -> None:
        key = cell_key(cell)
        self._running.pop(key, None)
        self._finished += self._epochs.pop(key)
        self._tell(f"{cell['victim']} seed {cell['seed']} done, {self._metric} {cell['last']:.3f}")

    def _tell(self, detail: str) -> None:
        if self._progress is not None:
            done = self._finished + sum(self._running.values())
            self._progress(Progress("evaluate", done, self._total, detail))


def _described(training: Training) -> str:
    share = "" if training.fraction == 1 else f" {training.fraction:.0%}"
    return training.data + share + ("" if training.way() == "none" else f" + {training.way()}")
