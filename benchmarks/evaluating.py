"""What ``strength.py`` and ``robustness.py`` share: protected copies and finished victims that are kept in a folder.

Copies are made by ``monai-salm protect`` in a process of their own, victims are trained by ``evaluate`` with its journal.
Both are found again when the same call is made anew: an interrupted benchmark goes on where it stopped, and one with
further rows trains on these alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai
import torch

import monai_salm
from monai_salm.evaluation.evaluating import evaluate
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.schedule import cell_key
from monai_salm.evaluation.sets import read_set, set_digest
from monai_salm.layouts import Layout, open_layout
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.noise.window import AutomaticWindow
from monai_salm.shared.progress import show_progress

#: Name of the clean training set in tables and runs.
CLEAN = "none"


def add_options(parser: argparse.ArgumentParser, victims: str, pipelines: str = "plain") -> None:
    """The options that both benchmarks take."""
    parser.add_argument("data", type=Path, help="a data set that monai-salm reads, with a clean test split")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps copies and victims, to go on from")
    parser.add_argument("--epsilon", default="8/255", help="budget, as a share of the window (default 8/255)")
    parser.add_argument("--victims", default=victims, help=f"architectures, separated by commas (default {victims})")
    parser.add_argument("--seeds", default="0,1,2", help="a victim is trained for each (default 0,1,2)")
    parser.add_argument("--pipelines", default=pipelines, help=f"of ordinary trainers (default {pipelines})")
    parser.add_argument("--jobs", type=int, default=None, help="victims trained at once (default: as many as cores)")
    parser.add_argument("--epochs", type=int, help="passes of the victims over the training set; chosen if not given")
    parser.add_argument("--all-epochs", action="store_true", help="train on when nothing is left to learn")
    parser.add_argument("--width", type=float, default=0.25, help="channels of the victims (default 0.25)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--options", default="", help="more options of protect, for every row")
    parser.add_argument("--fresh", action="store_true", help="make the copies anew, after a change to the package")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


@dataclass(frozen=True, kw_only=True)
class Victims:
    """Who is trained, and how; fields are those of ``Protocol``.

    Args:
        names: architectures.
        seeds: a victim is trained for each.
        pipelines: how ordinary trainers prepare and augment images.
        epsilon: budget of the noise, as a fraction of the window.
        epochs: passes over the training set; None chooses.
        learned: training score at which a victim stops; None trains all epochs.
        width: channels as a share of the published architectures'.
        device: where to train.
        jobs: victims trained at once; None is one a core.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    epsilon: float
    pipelines: tuple[str, ...] = ("plain",)
    epochs: int | None = None
    learned: float | None = Protocol.learned
    width: float = Protocol.width
    device: str = "auto"
    jobs: int | None = None

    @classmethod
    def of(cls, given: argparse.Namespace, epsilon: float) -> Victims:
        """From the options of the command line."""
        return cls(
            names=tuple(given.victims.split(",")),
            seeds=tuple(int(seed) for seed in given.seeds.split(",")),
            epsilon=epsilon,
            pipelines=tuple(name.strip() for name in given.pipelines.split(",")),
            epochs=given.epochs,
            learned=None if given.all_epochs else Protocol.learned,
            width=given.width,
            device=given.device,
            jobs=given.jobs,
        )

    def protocol(self, augment: str, countermeasures: Sequence[str]) -> Protocol:
        """The evaluation's protocol."""
        return Protocol(
            victims=self.names,
            seeds=self.seeds,
            pipelines=self.pipelines,
            countermeasures=countermeasures,
            fractions=(1.0,),
            controls=(),
            epsilon=self.epsilon,
            augment=augment,
            epochs=self.epochs,
            learned=self.learned,
            width=self.width,
        )

    def identity(self, augment: str) -> dict[str, Any]:
        """What a journal's first line must say for its cells to be of these victims."""
        versions = {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__}
        return {
            **{name: getattr(self, name) for name in ("epsilon", "epochs", "learned", "width")},
            "augment": augment,
            "device": resolve_device(self.device).type,
            "versions": {**versions, "monai_salm": monai_salm.__version__},
        }


@dataclass
class Folder:
    """A data set, and the folder that keeps what is made of it.

    Args:
        data: a data set that ``monai-salm`` reads.
        out: the folder.
    """

    data: Path
    out: Path
    layout: Layout = field(init=False)
    digests: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.layout = open_layout(self.data)
        clean, test = self.layout.dataset(), self.layout.dataset(self.layout.test_split())
        self.digests = {"clean": self._digest(clean), "test": self._digest(test)}

    def protect(self, name: str, options: Sequence[str], fresh: bool = False) -> tuple[Path, dict[str, Any]]:
        """A protected copy, and what its noise is like; one that is kept already is not made again.

        Args:
            name: of the row.
            options: of ``monai-salm protect``.
            fresh: make it anew.
        """
        asked = {"options": list(options), "clean": self.digests["clean"], "version": monai_salm.__version__}
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        folder = self.out / "copies" / f"{slug}-{_short(asked)}"
        record, target = folder / "protect.json", folder / self.data.name
        if not fresh and record.exists() and target.exists():
            kept = json.loads(record.read_text())
            if kept["asked"] == asked:
                return target, _without_places(kept["facts"])
        # From the beginning, not from a part that an interrupted call left: the time it takes is a figure of the table.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        told = json.loads(run_protect([str(self.data), str(target), *options]).strip().splitlines()[-1])
        facts = _without_places(told)
        _write(record, json.dumps({"asked": asked, "facts": facts}, indent=1) + "\n")
        return target, facts

    def train(
        self,
        copies: Mapping[str, Path],
        victims: Victims,
        augment: str = "none",
        countermeasures: Sequence[str] = ("none",),
    ) -> tuple[list[dict[str, Any]], float]:
        """Train victims on the clean images and on copies, except those that are kept already.

        Args:
            copies: by the name of the row; countermeasures are applied to the first one alone.
            victims: who is trained.
            augment: ``"none"`` or ``"standard"``.
            countermeasures: names.

        Returns:
            A record for each victim, and the score of guessing.
        """
        rows = dict(zip(("protected", *list(copies)[1:]), copies, strict=True))
        data = {role: self.layout.reopen(copies[row]).dataset() for role, row in rows.items()}
        digests = {**self.digests, **{role: self._digest(dataset) for role, dataset in data.items()}}
        journal = find_journal(self.out / "victims", victims.identity(augment), digests)
        with show_progress() as progress:
            report = evaluate(
                clean=self.layout.dataset(),
                protected=data.pop("protected"),
                copies=data,
                test=self.layout.dataset(self.layout.test_split()),
                task=self.layout.task(),
                protocol=victims.protocol(augment, countermeasures),
                device=victims.device,
                jobs=victims.jobs,
                resume=journal,
                progress=progress,
            )
        told = (
            "victim",
            "seed",
            "countermeasure",
            "pipeline",
            "augment",
            "last",
            "train_score",
            "stopped",
            "epochs",
            "seconds",
        )
        named = {"clean": CLEAN, **rows}
        runs = [{"noise": named[cell["data"]], **{key: cell[key] for key in told}} for cell in report.cells]
        for run, cell in zip(runs, report.cells, strict=True):
            run |= {key: cell["scores"][key] for key in ("balanced_accuracy",) if key in cell["scores"]}
        return runs, report.chance

    def _digest(self, dataset: Any) -> str:
        return set_digest(read_set("training set", dataset, self.layout.task(), AutomaticWindow(), Protocol()))


def way_of(run: Mapping[str, Any]) -> str:
    """What a victim's images went through: the countermeasure, or the pipeline of an ordinary trainer."""
    pipeline = str(run.get("pipeline", "plain"))
    return str(run["countermeasure"]) if pipeline == "plain" else pipeline


def _without_places(told: Mapping[str, Any]) -> dict[str, Any]:
    """Figures are published; where files lay on the machine that made them is nobody's business."""
    return {key: value for key, value in told.items() if key not in ("store", "output", "manifest")}


def run_protect(arguments: Sequence[str]) -> str:
    """Call ``monai-salm protect``; returns what it prints."""
    command = [sys.executable, "-m", "monai_salm", "protect", *arguments, "--json"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def find_journal(folder: Path, identity: Mapping[str, Any], digests: Mapping[str, str]) -> Path:
    """The journal of an evaluation; a new one begins with the cells of earlier ones that belong to it.

    ``evaluate`` keeps to one list of training sets a journal. Here rows come and go, and a cell is as good in any list that
    has the same images: a training looks at its own set, the clean held-out cases and the test set.

    Args:
        folder: holds the journals.
        identity: see ``Victims.identity``.
        digests: of the images of every role, ``"clean"`` and ``"test"`` among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{identity['augment']}-{_short({**identity, 'digests': dict(digests)})}.jsonl"
    if target.exists():
        return target
    # Where two roles have the same images the last one has the cells; the other is trained anew.
    roles = {digest: role for role, digest in digests.items() if role != "test"}
    first: dict[str, Any] | None = None
    cells = {}
    for path in sorted(folder.glob("*.jsonl")):
        header, *lines = _lines(path) or [{}]
        same = all(header.get(name) == value for name, value in json.loads(json.dumps(identity)).items())
        if not same or any(header["digests"][role] != digests[role] for role in ("clean", "test")):
            continue
        cases = {role: header["cases"]["test" if role == "test" else "clean"] for role in digests}
        first = first or {**header, "cases": cases, "digests": dict(digests)}
        named = {old: roles.get(digest) for old, digest in header["digests"].items()}
        kept = [{**c, "data": named[c["data"]]} for line in lines for c in line["cells"] if named.get(c["data"])]
        cells |= {cell_key(cell): cell for cell in kept}
    if first is not None:
        all_lines = [first, *({"seconds": 0.0, "cells": [cell]} for cell in cells.values())]
        _write(target, "".join(json.dumps(line) + "\n" for line in all_lines))
    return target


def _lines(path: Path) -> list[Any]:
    """Lines of a journal but one that a crash cut short."""
    content = path.read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")  # what is there is whole
    part.write_text(text)
    os.replace(part, path)


def _short(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
