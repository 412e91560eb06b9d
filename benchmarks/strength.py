"""How much do networks learn from protected images? Sets x noises x ways of training x victims x seeds.

    python benchmarks/strength.py cxrpneu2_128.npz bccd3_64.npz --out strength
    python benchmarks/strength.py busi3_224.npz --size 112 --noises "SALM;EM" --ways "plain;resized 0.75" --out strength

Copies are made by ``monai-salm protect``. A way of training is a pipeline of an ordinary trainer or a countermeasure of an
adversary; its filters change the test images too. "Recovered" is (protected - chance) / (clean - chance) on clean test images:
balanced accuracy, or Dice with the best constant map as chance. ``--out`` keeps copies and finished victims: the same call goes
on where an interrupted one stopped, and a call with more rows trains these alone.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import victims as networks

from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.evaluation.constant_map import constant_score
from monai_salm.evaluation.pipelines import PIPELINES, Pipeline
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import ImageSet, noise_size, read_set, set_digest
from monai_salm.evaluation.training_sets import make_training_sets
from monai_salm.evaluation.victims import ScoredSets, Setting, adversary_resources, train_victim
from monai_salm.layouts import open_layout
from monai_salm.learning.cases import Cases
from monai_salm.learning.recipes import Recipe
from monai_salm.noise.window import AutomaticWindow

CLEAN = "none"
_PUBLISHED = "--perturbation error_minimizing --mask-scope step --mask-area 1 --mask-ratio 0.3"
#: Noise -> options of ``monai-salm protect``; others are given as NAME=OPTIONS.
NOISES = {
    "SALM": "",
    "SALM, mask 0.4": "--mask-ratio 0.4",
    "SALM, mask 0.3": "--mask-ratio 0.3",
    "SALM, 4/255": "--epsilon 4/255",
    "SALM, published": _PUBLISHED,
    "EM": "--method em",
    "EM, 6/255": "--method em --epsilon 6/255",
    "TAP": "--method tap",
    "TAP, 6/255": "--method tap --epsilon 6/255",
    "LSP": "--method lsp",
    "LSP, 6/255": "--method lsp --epsilon 6/255",
    "AR": "--method ar",
    "random noise": "--method random_noise",
}
WAYS = ("plain", "resized 0.5", "resized 0.75", "nnunet", "torchvision", "jpeg 30")
_CHECKPOINTS = 6
_AUGMENTED = 4 / 3  # steps of a way that changes its batches at random, as a share of the others'


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is trained, and how long.

    Args:
        ways: pipelines or countermeasures.
        victims: networks of ``monai_salm`` or of ``victims.py``.
        steps: of one training.
        batch_size: cases in a step.
        size: side at which networks see images; None is the stored size.
        split: that victims are scored on.
        cases: training cases, the first of each class in the order of the set; None is all.
    """

    ways: tuple[str, ...]
    victims: tuple[str, ...]
    steps: int
    batch_size: int
    size: int | None
    split: str | None
    cases: int | None


def protect(data: Path, copy: Path, *options: str) -> None:
    """Call ``monai-salm protect``."""
    command = [sys.executable, "-m", "monai_salm", "protect", str(data), str(copy), *options]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


@dataclass
class Bench:
    """One data set: its copies and finished victims.

    Args:
        data: a data set that ``monai-salm`` reads.
        out: keeps copies and victims.
        plan: who is trained.
    """

    data: Path
    out: Path
    plan: Plan

    def __post_init__(self) -> None:
        self.layout = open_layout(self.data)
        self.task = self.layout.task()
        self.file = self.out / f"{self.data.stem}.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.cells = {_key(cell): cell for cell in map(json.loads, lines)}

    def copy_of(self, noise: str, options: str) -> Path:
        """A protected copy; one that is kept is not made again.

        Raises:
            ValueError: if another noise of this name is kept.
        """
        folder = self.out / "copies" / f"{self.data.stem}, {noise}".replace("/", " of ")
        record = folder / "protect.json"
        if not record.exists():
            folder.mkdir(parents=True, exist_ok=True)
            copy, store = folder / self.data.name, folder / "noise.db"
            start = time.monotonic()
            protect(self.data, copy, "--store", str(store), *options.split())
            record.write_text(json.dumps({"options": options, "seconds": round(time.monotonic() - start)}))
        kept = json.loads(record.read_text())["options"]
        if kept != options:
            raise ValueError(
                f"{folder} was made with the options {kept!r}, not {options!r}; give the noise another name"
            )
        return folder / self.data.name

    def run(self, noise: str, options: str, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Train all victims of one noise that are missing, and give the cells of all.

        Args:
            noise: name of the row.
            options: of ``monai-salm protect``.
            seeds: even ones train by SGD at 0.1, odd ones by Adam at 0.001; label maps are trained by Adam.
        """
        asked = [(way, v, s) for way in self.plan.ways for v in self.plan.victims for s in seeds]
        sets = cache(partial(self._sets, noise, options))  # made when the first victim is missing
        for way, victim, seed in asked:
            key = (noise, way, victim, seed, self.plan.steps, self.plan.size, self.plan.split, self.plan.cases)
            if key not in self.cells:
                start = time.monotonic()
                cell = {**dict(zip(_KEY, key, strict=True)), **self._train(sets(), way, victim, seed)}
                cell["seconds"] = round(time.monotonic() - start, 1)
                self.cells[key] = cell
                with open(self.file, "a") as file:
                    file.write(json.dumps(cell) + "\n")
                print(f"{self.data.stem}, {noise}, {way}, {victim} {seed}: {cell['last']:.3f}", file=sys.stderr)
            yield self.cells[key]

    @cached_property
    def _clean(self) -> ImageSet:
        return self._read("clean", self.layout.dataset())

    @cached_property
    def _test(self) -> ImageSet:
        return self._read("test", self.layout.dataset(self.plan.split or self.layout.test_split()))

    def _read(self, role: str, dataset: Any) -> ImageSet:
        return read_set(role, dataset, self.task, AutomaticWindow(), Protocol())

    def _sets(self, noise: str, options: str) -> dict[str, Any]:
        """Training and test cases of a noise, and facts about it."""
        images, facts = self._clean, {}
        if noise != CLEAN:
            images = self._read("protected", self.layout.reopen(self.copy_of(noise, options)).dataset())
            facts = {"psnr": noise_size(self._clean, images)["psnr"], "digest": set_digest(images)}
        size = None if self.plan.size is None else (self.plan.size,) * (self._clean.images[0].ndim - 1)
        roles = {"clean": self._clean, "protected": images, "test": self._test}
        made = make_training_sets(roles, self.task, [], Protocol(held_out=0, view_size=size))
        train = made.training("protected")
        if self.plan.cases is not None and self.plan.cases < len(train):
            chosen = np.random.default_rng(5).permutation(len(train))[: self.plan.cases]
            train = _chosen(train, chosen)
        return {"train": train, "test": made.test, "facts": facts}

    def _train(self, sets: Mapping[str, Any], way: str, victim: str, seed: int) -> dict[str, Any]:
        pipeline = PIPELINES.get(way, PIPELINES["plain"])
        adversary = COUNTERMEASURES["none" if way in PIPELINES else way]
        train, test = pipeline.prepare(sets["train"]), pipeline.prepare_test(sets["test"])
        test = _filtered(test, adversary)
        setting = self._setting(train, victim, seed, pipeline)
        none = _chosen(test, [])
        train = adversary.prepare(train, adversary_resources(none, setting, seed))
        told = train_victim(seed + 90_000, train, ScoredSets(test, none, none), setting, adversary, lambda epoch: None)
        metric = "balanced_accuracy" if self.task.kind == "classification" else self.task.metric
        curve = [epoch.scores.get(metric, epoch.scores[self.task.metric]) for epoch in told.epochs]
        chance = self.task.baselines(test.labels)["chance"]
        if self.task.kind == "segmentation":
            chance = constant_score(self.task, train.labels, test.labels)
        facts = {"last": curve[-1], "best": max(curve), "curve": curve, "chance": chance}
        return {**facts, "train": told.epochs[-1].train_score, **sets["facts"]}

    def _setting(self, train: Cases, victim: str, seed: int, pipeline: Pipeline) -> Setting:
        adam = seed % 2 == 1 or self.task.kind == "segmentation"
        recipe = Recipe(optimizer="adam", lr=1e-3) if adam else Recipe()
        steps = self.plan.steps * (_AUGMENTED if pipeline.augments else 1)
        return Setting(
            network=partial(networks.build, victim, train.view.size),
            recipe=replace(recipe, batch_size=self.plan.batch_size),
            epochs=_CHECKPOINTS,
            epoch_steps=math.ceil(steps / _CHECKPOINTS),
            width=0.25,
            device=torch.device("cpu"),
            augment=pipeline.augment if pipeline.augments else None,
            learned=None,
            patience=1,
        )


_KEY = ("noise", "way", "victim", "seed", "steps", "size", "split", "cases")


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in _KEY)


def _chosen(cases: Cases, members: Sequence[int]) -> Cases:
    """Some of the cases."""
    named = ("images", "labels", "names", "windows")
    return replace(cases, **{name: [getattr(cases, name)[i] for i in members] for name in named})


def _filtered(cases: Cases, adversary: Any) -> Cases:
    pairs = zip(cases.images, cases.windows, strict=True)
    return replace(cases, images=[adversary.filter(image, window) for image, window in pairs])


def summary(name: str, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each noise: what is recovered in each way, over victims and seeds.

    Args:
        name: of the data set.
        cells: of all noises, the clean images among them.
    """
    clean: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in (cell for cell in cells if cell["noise"] == CLEAN):
        clean.setdefault((cell["way"], cell["victim"]), []).append(cell)
    rows = []
    for noise in dict.fromkeys(cell["noise"] for cell in cells):
        own = [cell for cell in cells if cell["noise"] == noise]
        row: dict[str, Any] = {"set": name, "noise": noise, "PSNR": own[0].get("psnr")}
        for way in dict.fromkeys(cell["way"] for cell in own):
            here = [cell for cell in own if cell["way"] == way]
            if noise == CLEAN:
                row[way] = f"{statistics.fmean(cell['last'] for cell in here):.2f}"
                continue
            shares = [
                [_recovered(cell[kind], clean[way, cell["victim"]]) for cell in here] for kind in ("last", "best")
            ]
            row[way] = f"{statistics.fmean(shares[0]):.2f} [{min(shares[0]):.2f}, {max(shares[0]):.2f}] "
            row[way] += f"({statistics.fmean(shares[1]):.2f})"
        rows.append(row)
    return rows


def _recovered(score: float, clean: Sequence[Mapping[str, Any]]) -> float:
    """Share of the way from guessing to the mean score of clean networks of the same kind."""
    chance = clean[0]["chance"]
    learned = statistics.fmean(cell["last"] for cell in clean) - chance
    return float((score - chance) / learned) if learned > 0 else math.nan


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, nargs="+", help="data sets that monai-salm reads, with a labelled test split"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps copies and victims")
    known = "; ".join(NOISES)
    parser.add_argument(
        "--noises", default="SALM", help=f"separated by semicolons: {known}; or NAME=OPTIONS of protect"
    )
    parser.add_argument("--ways", default=";".join(WAYS), help="pipelines and countermeasures (default: %(default)s)")
    parser.add_argument("--victims", default="resnet18,vgg11", help="networks (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1", help="even: SGD, odd: Adam (default: %(default)s)")
    parser.add_argument("--clean-seeds", help="seeds of the networks on clean images (default: those of --seeds)")
    parser.add_argument("--steps", type=int, default=240, help="of one training (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="cases in a step (default: %(default)s)")
    parser.add_argument("--size", type=int, help="side at which networks see images (default: as stored)")
    parser.add_argument("--cases", type=int, help="training cases (default: all)")
    parser.add_argument("--split", help="that victims are scored on (default: the test split)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    return parser


def _refuse_unknown(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the program at a name that nothing has, or a countermeasure that acts beside the training on batches."""
    noises = [item for item in given.noises.split(";") if item and "=" not in item and item not in NOISES]
    if noises:
        parser.error(f"unknown noises: {'; '.join(noises)}; known: {'; '.join(NOISES)}, or NAME=OPTIONS")
    ways = given.ways.split(";")
    known = [
        *PIPELINES,
        *(name for name, one in COUNTERMEASURES.items() if not (one.after_training or one.needs_clean)),
    ]
    if not set(ways) <= set(known):
        parser.error(f"unknown ways: {'; '.join(sorted(set(ways) - set(known)))}; known: {'; '.join(known)}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = _arguments()
    given = parser.parse_args(arguments)
    _refuse_unknown(parser, given)
    named = dict(
        item.partition("=")[::2] if "=" in item else (item, NOISES[item]) for item in given.noises.split(";") if item
    )
    plan = Plan(
        ways=tuple(given.ways.split(";")),
        victims=tuple(given.victims.split(",")),
        **{name: getattr(given, name) for name in ("steps", "batch_size", "size", "split", "cases")},
    )
    seeds = [[int(s) for s in (text or given.seeds).split(",")] for text in (given.seeds, given.clean_seeds)]
    rows, runs = [], []
    for data in given.data:
        bench = Bench(data, given.out, plan)
        cells = [
            cell
            for noise, options in {CLEAN: "", **named}.items()
            for cell in bench.run(noise, options, seeds[noise == CLEAN])
        ]
        rows += summary(data.stem, cells)
        runs += [{"set": data.stem, **cell} for cell in cells]
    if given.json:
        print(json.dumps({"table": rows, "runs": runs}))
    else:
        for row in rows:
            print(", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if v))
    return 0


if __name__ == "__main__":
    sys.exit(main())
