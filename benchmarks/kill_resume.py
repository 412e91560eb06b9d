"""Kill ``precompute`` with SIGKILL at random moments, resume it until it is done, and compare all noise.

    python benchmarks/kill_resume.py --kills 20 --seed 0 --data data/brain28.npz --rounds 10

Every run is a process of its own. Kill moments are uniform over the length of an uninterrupted run, measured from its
first line of work (imports do not count); two more kills hit the two shortest stages, the check of the images and the
writing of the store, which random moments would rarely meet. Prints a line for each kill and one with the count; exits
with 1 if a single code differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from killing import Run, run_and_kill

from monai_salm.generate.precompute import precompute
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification
from monai_salm.methods import SALM, ErrorMinimizing
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.store import NoiseStore


def small_set(cases: int = 48, side: int = 16) -> list[dict[str, Any]]:
    """Grainy images whose class shows in the direction of their stripes."""
    rng = np.random.default_rng(0)
    stripes = 120 + 60 * np.sin(np.arange(side) * np.pi / 2)
    images = [np.broadcast_to(stripes if i % 2 else stripes[:, None], (side, side)) for i in range(cases)]
    return [
        {"image": (image + rng.normal(0, 8, image.shape)).astype(np.uint8)[None], "label": index % 2}
        for index, image in enumerate(images)
    ]


def read_archive(path: str) -> list[dict[str, Any]]:
    """The training split of a MedMNIST-style archive."""
    with np.load(path) as data:
        images, labels = data["train_images"], data["train_labels"].reshape(-1)
    return [{"image": image[None], "label": int(label)} for image, label in zip(images, labels, strict=True)]


@dataclass(frozen=True)
class Setting:
    """What is computed.

    Args:
        data: MedMNIST-style archive; None is a small made-up set.
        rounds: rounds of the method.
        method: other settings of SALM's error-minimising noise.
        width: of the surrogate, a ResNet-10.
        batch_size: images that are worked on together; None is the default recipe's.
        threads: that torch may use; None is its own choice.
    """

    data: str | None = None
    rounds: int = 6
    method: Mapping[str, Any] = field(default_factory=dict)
    width: float = 0.25
    batch_size: int | None = None
    threads: int | None = None


def work(report: Connection, setting: Setting, store: str, die_at: tuple[str, int] | None) -> None:
    """One run, in a process of its own; reports its stages, and kills itself at a report if told so."""
    items = read_archive(setting.data) if setting.data else small_set()
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    seen = ""

    def progress(event: Any) -> None:
        nonlocal seen
        if die_at is not None and event.stage == die_at[0] and event.done >= die_at[1]:
            report.send(event.stage)
            os.kill(os.getpid(), signal.SIGKILL)
        if event.stage != seen:
            report.send(event.stage)
            seen = event.stage

    report.send("start")
    precompute(
        items,
        store,
        method=SALM(perturbation=ErrorMinimizing(rounds=setting.rounds, **setting.method)),
        task=Classification(num_classes=1 + max(int(item["label"]) for item in items)),
        window=IntensityWindow(0, 255),
        surrogate="resnet10",
        width=setting.width,
        recipe=None if setting.batch_size is None else Recipe(batch_size=setting.batch_size),
        device="cpu",
        seed=0,
        progress=progress,
    )
    report.send("done")


def run(setting: Setting, store: Path, kill_after: float | None = None, die_at: tuple[str, int] | None = None) -> Run:
    """Start a run and wait for its end, or for its death: some seconds after its start, or at a report of choice."""
    return run_and_kill(work, (setting, str(store), die_at), kill_after)


def codes_of(store: Path) -> dict[bytes, bytes]:
    """All noise of a store, by image."""
    opened = NoiseStore(store)
    found = {noise.digest: noise.codes.tobytes() for noise in opened}
    opened.close()
    return found


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Result:
    """What came of it.

    Args:
        kills: runs that were killed at a random moment.
        stage_kills: runs that were killed in a stage of choice.
        jobs: times the noise was completed and compared.
        differing: codes that differ, over all jobs.
        stages: where each kill hit.
    """

    kills: int = 0
    stage_kills: int = 0
    jobs: int = 0
    differing: int = 0
    stages: list[str] = field(default_factory=list)

    def line(self, images: int) -> str:
        """The count, in a line."""
        return (
            f"{self.kills} random kills and {self.stage_kills} in stages of choice, {self.jobs} jobs of "
            f"{images} images completed and compared: {self.differing} images with other noise"
        )


def kill_and_resume(
    setting: Setting, kills: int, seed: int, folder: Path, say: Callable[[str], None] = _say
) -> tuple[Result, int]:
    """Kill and resume until there were as many kills as asked for, comparing each completed job.

    Args:
        setting: what is computed.
        kills: random kills.
        seed: of their moments.
        folder: for the stores.
        say: takes the lines.

    Returns:
        The result and the number of images.
    """
    whole = folder / "whole.db"
    length = run(setting, whole).seconds
    expected = codes_of(whole)
    say(f"an uninterrupted run takes {length:.2f} s for {len(expected)} images")
    rng, result = random.Random(seed), Result()
    for stage in ("check", "generate", "write"):  # a job for each stage, so that none is missed by chance
        reports = 1000 * setting.rounds - 1 if stage == "generate" else len(expected)
        at = (stage, rng.randint(1, reports))
        result.stages.append(run(setting, folder / f"{stage}.db", die_at=at).stage)
        result.stage_kills += 1
        say(f"killed at report {at[1]} of the stage {stage}")
        _complete(setting, folder / f"{stage}.db", expected, result)
    while result.kills < kills:
        store = folder / f"job{result.jobs}.db"
        while result.kills < kills:
            moment = rng.uniform(0, length)
            ended = run(setting, store, kill_after=moment)
            if ended.stage == "done":
                break
            result.kills += 1
            result.stages.append(ended.stage)
            say(f"kill {result.kills}: after {moment:.2f} s, in the stage {ended.stage}")
        _complete(setting, store, expected, result)
    return result, len(expected)


def _complete(setting: Setting, store: Path, expected: dict[bytes, bytes], result: Result) -> None:
    run(setting, store)
    made = codes_of(store)
    result.differing += sum(made.get(key) != expected.get(key) for key in made.keys() | expected.keys())
    result.jobs += 1
    if store.with_name(store.name + ".work").exists():
        raise RuntimeError(f"{store} is done, but its working folder is still there")
    store.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="random kills (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--data", help="MedMNIST-style archive (default: a small made-up set)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of SALM (default 6)")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    try:
        result, images = kill_and_resume(Setting(given.data, given.rounds), given.kills, given.seed, folder)
    finally:
        shutil.rmtree(folder)
    print(result.line(images), flush=True)
    return 1 if result.differing else 0


if __name__ == "__main__":
    sys.exit(main())
