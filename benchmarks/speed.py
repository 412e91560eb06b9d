"""Time and strength of ``precompute`` beside EM's published procedure (``reference_em.py``), measured in one run.

    python benchmarks/speed.py brain28.npz --repeats 3

Both make noise for the training images in turn, with the same number of threads; ``precompute``'s time holds everything from
the check of the images to the finished store. Then fresh victims train on the noisy uint8 images and are scored on clean
ones (last epoch). Every repeat has a seed of its own; times and accuracies are medians. Choose schedules with
``--split val``: the test split is for the figures that are reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference_em import Reference, add_noise, reference_em

from monai_salm.cli.method_options import make_method
from monai_salm.countermeasures import Countermeasure
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import read_set
from monai_salm.evaluation.victims import VICTIM_SEED, ScoredSets, Setting, default_epochs, train_victim
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import open_layout
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.trainer import steps_per_epoch
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import AutomaticWindow

REFERENCE = "EM, reference loop"


def make_with_salm(source: Path, store: Path, settings: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """Noise of the training images by ``precompute``.

    Args:
        source: MedMNIST-style archive.
        store: where the noise store goes.
        settings: of ``SALM``, by the names that the command line gives them.
        seed: of everything random.

    Returns:
        The noise in grey levels ``(cases, height, width)``, and its times.
    """
    layout = open_layout(source)
    data = layout.dataset("train")
    started, cpu = time.perf_counter(), time.process_time()
    method = make_method("salm", {name: str(value) for name, value in settings.items()})
    made = precompute(data, store, method=method, task=layout.task(), device="cpu", seed=seed)
    facts = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    by_digest = {noise.digest: noise for noise in made}
    noise = np.stack([by_digest[content_digest(item["image"])].codes[0] for item in data])
    made_rounds = made.meta["rounds"]
    made.close()
    return noise.astype(np.float32), {**facts, "rounds": made_rounds}


def with_split(source: Path, split: str, folder: Path) -> Path:
    """The archive with the chosen split in the place of the test split."""
    with np.load(source) as archive:
        arrays = dict(archive)
    kept = {
        f"{role}_{kind}": arrays[f"{taken}_{kind}"]
        for role, taken in (("train", "train"), ("test", split))
        for kind in ("images", "labels")
    }
    target = folder / "clean.npz"
    np.savez(target, **kept)
    return target


def make_all(clean: Path, schedules: dict[str, dict[str, Any]], repeats: int, folder: Path) -> list[dict[str, Any]]:
    """All noise, the methods in turn; a record each with its times and the archive that holds the noisy images."""
    with np.load(clean) as archive:
        arrays = dict(archive)
    images, labels = arrays["train_images"], arrays["train_labels"].reshape(-1)
    made = []
    for seed in range(repeats):
        for row, settings in {REFERENCE: None, **schedules}.items():
            if settings is None:
                noise, facts = reference_em(images, labels, Reference(seed=seed), _say)
            else:
                noise, facts = make_with_salm(clean, folder / f"{len(made)}.db", settings, seed)
            copy = folder / f"copy{len(made)}.npz"
            np.savez(copy, **{**arrays, "train_images": add_noise(images, noise)})
            made.append({"row": row, "seed": seed, "copy": str(copy), **facts})
            _say(f"{row}, seed {seed}: {facts['seconds']:.0f} s, {facts['rounds']} rounds")
    return made


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train one victim in a process of its own; ``evaluate`` would train on the clean images as well.

    Args:
        job: paths ``source`` and ``copy``, ``victim``, ``seed`` and ``threads``.

    Returns:
        The job, its last score on the clean test images, its last training score, and its epochs.
    """
    torch.set_num_threads(job["threads"])
    clean, copy = open_layout(Path(job["source"])), open_layout(Path(job["copy"]))
    task = clean.task()
    sets = [
        read_set(role, dataset, task, AutomaticWindow(), Protocol())
        for role, dataset in (("train", copy.dataset("train")), ("test", clean.dataset("test")))
    ]
    view = choose_view([image.shape[1:] for each in sets for image in each.images], per_voxel=False)
    cases, test = (Cases(each.images, each.labels, each.names, task, each.windows, view) for each in sets)
    recipe = default_recipe(task, len(view.size), job["victim"])
    setting = Setting(
        network=job["victim"],
        recipe=recipe,
        epochs=default_epochs(cases, recipe, "none"),
        epoch_steps=steps_per_epoch(cases, recipe),
        width=0.25,
        device=torch.device("cpu"),
        augment=None,
        learned=None,
        patience=1,
    )
    empty = replace(test, images=[], labels=[], names=[], windows=[])
    watched, seed = ScoredSets(test, empty, empty), VICTIM_SEED + job["seed"]
    last = train_victim(seed, cases, watched, setting, Countermeasure(), lambda _: None).epochs[-1]
    return {**job, "last": last.scores[task.metric], "train_score": last.train_score, "epochs": setting.epochs}


def summary(made: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a method: medians over the repeats, and how many times faster than the reference it was."""
    rows = []
    for row in dict.fromkeys(m["row"] for m in made):
        own = [m for m in made if m["row"] == row]
        times = {key: _times_faster(made, own, key) for key in ("seconds", "cpu_seconds")}
        scores = {
            victim: statistics.median(r["last"] for r in runs if r["row"] == row and r["victim"] == victim)
            for victim in dict.fromkeys(r["victim"] for r in runs)
        }
        rows.append(
            {
                "noise": row,
                "rounds": statistics.median(m["rounds"] for m in own),
                "seconds": statistics.median(m["seconds"] for m in own),
                "CPU seconds": statistics.median(m["cpu_seconds"] for m in own),
                "times faster": times["seconds"],
                "times faster, processor time": times["cpu_seconds"],
                **{f"{victim} accuracy": score for victim, score in scores.items()},
            }
        )
    return rows


def _times_faster(made: list[dict[str, Any]], own: list[dict[str, Any]], key: str) -> float:
    """Median over the repeats of the reference's time divided by a method's."""
    reference = {m["seed"]: m[key] for m in made if m["row"] == REFERENCE}
    return statistics.median(reference[m["seed"]] / m[key] for m in own)


def measure(
    source: Path,
    schedules: dict[str, dict[str, Any]],
    split: str = "test",
    repeats: int = 3,
    victims: tuple[str, ...] = ("resnet18",),
    seeds: int = 1,
    threads: int = 1,
) -> dict[str, Any]:
    """Make the noise, train the victims, and put both side by side.

    Args:
        source: MedMNIST-style archive of uint8 images.
        schedules: settings of ``SALM`` by row name.
        split: what victims are scored on.
        repeats: noise made by each method, with seeds 0, 1, ...
        victims: architectures.
        seeds: victims of each architecture trained on each noise.
        threads: torch's, for making noise and for a victim.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        clean = with_split(source, split, Path(name))
        made = make_all(clean, schedules, repeats, Path(name))
        jobs = [
            {"row": m["row"], "source": str(clean), "copy": m["copy"], "victim": victim,
             "seed": 10 * m["seed"] + seed, "threads": threads}
            for m in made for victim in victims for seed in range(seeds)
        ]  # fmt: skip
        runs = []
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for run in pool.imap(train, jobs):
                _say(f"{run['row']}: {run['victim']} seed {run['seed']}: {run['last']:.3f}")
                runs.append({k: run[k] for k in ("row", "victim", "seed", "last", "train_score", "epochs")})
    for record in made:
        record.pop("copy")
    facts = {"data": source.name, "split": split, "repeats": repeats, "threads": threads, "schedules": schedules}
    return {**facts, "table": summary(made, runs), "made": made, "runs": runs}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="MedMNIST-style archive of uint8 images")
    parser.add_argument("--rounds", help="of SALM's error-minimising loop, a row each; default settings if not given")
    parser.add_argument("--settings", type=json.loads, default={}, help="other settings of SALM, as a JSON object")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="what victims are scored on")
    parser.add_argument("--repeats", type=int, default=3, help="noise made by each (default 3)")
    parser.add_argument("--victims", default="resnet18", help="architectures, separated by commas")
    parser.add_argument("--seeds", type=int, default=1, help="victims of each architecture on each noise")
    parser.add_argument("--threads", type=int, default=1, help="torch's (default 1)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args(arguments)
    rows = {"SALM": given.settings}
    if given.rounds:
        loop = {"perturbation": "error_minimizing", **given.settings}
        rows = {f"SALM, error-minimising, {n} rounds": {**loop, "rounds": int(n)} for n in given.rounds.split(",")}
    victims = tuple(given.victims.split(","))
    result = measure(given.data, rows, given.split, given.repeats, victims, given.seeds, given.threads)
    if given.json:
        print(json.dumps(result))
    else:
        for row in result["table"]:
            print(", ".join(f"{k}: {v:.3g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
