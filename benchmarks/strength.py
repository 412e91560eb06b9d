"""How unlearnable does each method make a data set? Protects it, reloads the published files, trains fresh victims.

    python benchmarks/strength.py brain28.npz --out results --jobs 2

Every method runs through the command line with its default settings, at equal epsilon; victims have seeds and
architectures of their own; scores are of the last epoch on the clean test split. ``results/strength.json`` holds every
run, ``results/strength.md`` the table of means over seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

#: Row of the table -> options of ``monai-salm protect``; None is the data set as it is.
METHODS: dict[str, list[str] | None] = {
    "clean": None,
    "random noise": ["--method", "random_noise"],
    "SALM": [],
    "SALM, random mask": ["--mask-source", "random"],
    "SALM, one mask a sample": ["--mask-scope", "sample"],
    # SALM's schedule on images, without its mask.
    "EM, same schedule": [
        *("--method", "em", "--step-size", "8/255", "--num-steps", "4", "--surrogate-steps", "45"),
        *("--rounds", "22", "--restart-every", "1", "--stop-error", "none"),
    ],
    "EM": ["--method", "em"],
    "REM": ["--method", "rem"],
    "SEM": ["--method", "sem"],
    "TAP": ["--method", "tap"],
    "LSP": ["--method", "lsp"],
    "AR": ["--method", "ar"],
}


def protect(source: Path, out: Path, options: list[str]) -> tuple[Path, dict[str, Any]]:
    """Protect with the command line; returns the copy and its figures."""
    folder = out / "-".join(o.lstrip("-") for o in options or ["default"]).replace("/", "_").replace(",", "_")
    record = folder / "protect.json"
    target = folder / source.name
    # Always anew: an earlier record may be of other code or other defaults.
    folder.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.noise.db").unlink(missing_ok=True)
    command = [sys.executable, "-m", "monai_salm", "protect", str(source), str(target), "--json", "--overwrite"]
    finished = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, text=True)
    record.write_text(finished.stdout)
    return target, json.loads(record.read_text())


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train one victim in a process of its own, on one core."""
    import torch

    from monai_salm.cases import Cases, choose_view
    from monai_salm.countermeasures import Countermeasure
    from monai_salm.evaluate import AUGMENTATIONS
    from monai_salm.evaluate.sets import read_set
    from monai_salm.evaluate.victims import VICTIM_SEED, Setting, Watched, default_epochs, train_victim
    from monai_salm.layouts import open_layout
    from monai_salm.recipes import default_recipe
    from monai_salm.training import steps_per_epoch

    torch.set_num_threads(job["threads"])
    clean, copy = open_layout(Path(job["source"])), open_layout(Path(job["copy"]))
    task, window = clean.task(), clean.window()
    sets = [
        read_set(r, d, task, "image", "label")
        for r, d in (("train", copy.dataset("train")), ("test", clean.dataset("test")))
    ]
    view = choose_view([i.shape[1:] for s in sets for i in s.images], task.kind == "segmentation", job["patch_size"])
    cases = [Cases(s.images, s.labels, s.names, task, window, view) for s in sets]
    recipe = default_recipe(task, len(view.size), job["victim"])
    augment = AUGMENTATIONS[job["augment"]]
    epochs = default_epochs(cases[0], recipe, job["augment"])
    setting = Setting(
        network=job["victim"],
        recipe=recipe,
        epochs=epochs,
        epoch_steps=steps_per_epoch(cases[0], recipe),
        width=0.25,
        device=torch.device("cpu"),
        augment=augment,
        learned=None,
        patience=1,
    )
    nobody = replace(cases[1], images=[], labels=[], names=[])
    watched, seed = Watched(cases[1], nobody, nobody), VICTIM_SEED + job["seed"]
    last = train_victim(seed, cases[0], watched, setting, Countermeasure(), lambda _: None).epochs[-1]
    return {**job, "last": last.scores[task.metric], "train_score": last.train_score, "epochs": epochs}


def table(runs: list[dict[str, Any]], made: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a method, a column a victim and augmentation, mean (standard deviation) over seeds."""
    columns = list(dict.fromkeys((r["victim"], r["augment"]) for r in runs))
    heads = " | ".join(f"{v}, {'augmented' if a == 'standard' else 'plain'}" for v, a in columns)
    lines = [f"| noise | made in | PSNR | support | {heads} |", "|---" * (4 + len(columns)) + "|"]
    for row in dict.fromkeys(r["row"] for r in runs):
        facts = made.get(row)
        cells = (
            [f"{facts['seconds']:.0f} s", f"{facts['psnr']:.1f}", f"{facts['support']:.2f}"] if facts else ["", "", ""]
        )
        for column in columns:
            scores = [r["last"] for r in runs if r["row"] == row and (r["victim"], r["augment"]) == column]
            spread = f" ({statistics.stdev(scores):.3f})" if len(scores) > 1 else ""
            cells.append(f"{statistics.mean(scores):.3f}{spread}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a data set that monai-salm reads, with a clean test split")
    parser.add_argument("--out", type=Path, default=Path("strength-results"))
    parser.add_argument("--methods", default=",".join(METHODS).replace(", ", "; "), help="rows, separated by commas")
    parser.add_argument("--victims", default="resnet18,vgg11")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--augment", default="none,standard")
    parser.add_argument("--options", default="", help="more options of protect, for every row")
    parser.add_argument("--patch-size", default="", help="patches of the victims (segmentation)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="victims trained at a time, one core each"
    )
    args = parser.parse_args()
    rows = [name.strip().replace("; ", ", ") for name in args.methods.split(",")]
    made: dict[str, dict[str, Any]] = {}
    jobs = []
    for row in rows:
        options, copy = METHODS[row], args.data
        if options is not None:
            copy, made[row] = protect(args.data, args.out, [*options, *args.options.split()])
            print(f"{row}: {made[row]['seconds']:.0f} s, PSNR {made[row]['psnr']:.1f}", flush=True)
        for victim in args.victims.split(","):
            for augment in args.augment.split(","):
                for seed in map(int, args.seeds.split(",")):
                    jobs.append({"row": row, "source": str(args.data), "copy": str(copy), "victim": victim, "seed": seed,
                                 "augment": augment, "threads": 1 if args.jobs > 1 else os.cpu_count() or 1,
                                 "patch_size": [int(n) for n in args.patch_size.split(",")] if args.patch_size else None})  # fmt: skip
    runs = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for run in pool.imap_unordered(train, jobs):
            runs.append(run)
            print(f"{run['row']}: {run['victim']} {run['augment']} seed {run['seed']}: {run['last']:.3f}", flush=True)
    runs.sort(key=lambda r: jobs.index({k: r[k] for k in jobs[0]}))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "strength.json").write_text(json.dumps({"machine": machine, "made": made, "runs": runs}, indent=1))
    (args.out / "strength.md").write_text(table(runs, made) + "\n")
    print(table(runs, made))


if __name__ == "__main__":
    main()
