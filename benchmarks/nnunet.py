"""nnU-Net itself, trained on a data set and on its protected copy by nnU-Net's own commands.

    python benchmarks/nnunet.py Task04_Hippocampus --cases 60 --test-cases 20 --out nnunet
    python benchmarks/nnunet.py Dataset501_Vessels --batch-size 4 --out nnunet
    python benchmarks/results.py --data Task04_Hippocampus --only nnunet --options "--cases 60 --test-cases 20"

The first training cases become a raw data set of nnU-Net. ``monai-salm protect`` makes its copy. nnU-Net plans, preprocesses and
trains each of the two, and predicts the same clean test images. Its trainer is shorter than its default
(``nnunet_trainer/``), and its plan gets ``--batch-size``. "Recovered" is counted from the best constant map. ``--out`` keeps
what is finished: the same call goes on where an interrupted one stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_salm.evaluation.constant_map import constant_score
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import noise_size, read_set
from monai_salm.layouts import Layout, open_layout
from monai_salm.noise.window import AutomaticWindow

HERE = Path(__file__).resolve().parent
TRAINER = "ShortTrainer"
#: Training set -> number of its raw data set.
NUMBERS = {"clean": 901, "protected": 902}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How nnU-Net is trained.

    Args:
        configuration: ``"2d"`` or ``"3d_fullres"``.
        epochs: of one training.
        iterations: of an epoch.
        batch_size: None keeps that of nnU-Net's plan.
        seeds: of the trainings on each set.
    """

    configuration: str
    epochs: int
    iterations: int
    batch_size: int | None
    seeds: Sequence[int]


@dataclass(frozen=True)
class Programs:
    """nnU-Net's commands, with its folders in ``out``.

    Args:
        out: keeps raw and preprocessed data and results.
        plan: how nnU-Net is trained.
        log: gets what the commands say, without paths of this machine.
    """

    out: Path
    plan: Plan
    log: Path

    def call(self, name: str, *options: str, seed: int = 0) -> None:
        """Run a command.

        Raises:
            SystemExit: if it is not installed or fails.
        """
        program = shutil.which(name)
        if program is None:
            raise SystemExit(f'{name} is not installed: pip install ".[nnunet]"')
        folders = {f"nnUNet_{kind}": str(self.out / f"nnUNet_{kind}") for kind in ("raw", "preprocessed", "results")}
        own = {
            "nnUNet_extTrainer": str(HERE / "nnunet_trainer"),
            # Without workers a seed fixes the training; planning wants one.
            "nnUNet_n_proc_DA": str(int(name != "nnUNetv2_train")),
            "nnUNet_compile": "f",
            "SALM_EPOCHS": str(self.plan.epochs),
            "SALM_ITERATIONS": str(self.plan.iterations),
            "SALM_SEED": str(seed),
        }
        done = subprocess.run(
            [program, *options],
            env={**os.environ, **folders, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = done.stdout.decode(errors="replace")
        text = "\n".join(line.rpartition("\r")[2].rstrip() for line in said.split("\n"))  # bars of progress once
        for path, word in ((str(self.out), "OUT"), (str(HERE), "benchmarks"), (sys.prefix, "ENVIRONMENT")):
            text = text.replace(path, word)
        with open(self.log, "a") as file:
            file.write(f"$ {name} {' '.join(options).replace(str(self.out), 'OUT')}\n{text}\n")
        if done.returncode:
            raise SystemExit(f"{name} failed with {done.returncode}; its last words:\n{said[-3000:]}")


def raw_data_set(data: Path, target: Path, cases: int | None, test_cases: int | None) -> None:
    """Copy the first cases of a data set into a raw data set of nnU-Net with a test set.

    Args:
        data: a folder of the Medical Segmentation Decathlon whose ``validation`` cases have label maps, or nnU-Net's raw folder
            with ``labelsTs``.
        target: the folder to make.
        cases: of training; None is all.
        test_cases: None is all.
    """
    content = json.loads((data / "dataset.json").read_text())
    chosen = {"Tr": _cases(data, content, "Tr")[:cases], "Ts": _cases(data, content, "Ts")[:test_cases]}
    for split, found in chosen.items():
        for folder in ("images", "labels"):
            (target / f"{folder}{split}").mkdir(parents=True, exist_ok=True)
        for name, images, label in found:
            ending = label.name[len(name) :]
            for number, image in enumerate(images):
                shutil.copyfile(image, target / f"images{split}" / f"{name}_{number:04d}{ending}")
            shutil.copyfile(label, target / f"labels{split}" / label.name)
    channels = content.get("channel_names") or content["modality"]
    labels = content["labels"]
    if "modality" in content:
        labels = {name: int(number) for number, name in labels.items()}
    told = {"channel_names": channels, "labels": labels, "numTraining": len(chosen["Tr"]), "file_ending": ending}
    (target / "dataset.json").write_text(json.dumps(told, indent=1))


def _cases(data: Path, content: Mapping[str, Any], split: str) -> list[tuple[str, list[Path], Path]]:
    """Name, images and label map of each case."""
    if "modality" in content:
        entries = content["training" if split == "Tr" else "validation"]
        pairs = [(data / entry["image"], data / entry["label"]) for entry in entries]
        return [(label.name.partition(".")[0], [image], label) for image, label in pairs]
    ending = content["file_ending"]
    found = []
    for label in sorted((data / f"labels{split}").glob(f"*{ending}")):
        name = label.name[: -len(ending)]
        found.append((name, sorted((data / f"images{split}").glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}")), label))
    return found


def dice_of(programs: Programs, name: str, seed: int) -> float:
    """Train nnU-Net on a raw data set and give its mean Dice on the clean test images, as nnU-Net counts it."""
    number, configuration = str(NUMBERS[name]), programs.plan.configuration
    told = programs.out / f"{name}_seed{seed}.json"
    if not told.exists():
        use = ("-d", number, "-c", configuration, "-tr", TRAINER, "-f", "all")
        programs.call("nnUNetv2_train", number, configuration, "all", "-tr", TRAINER, "-device", "cpu", seed=seed)
        answers, clean = (
            programs.out / f"{name}_seed{seed}",
            programs.out / "nnUNet_raw" / f"Dataset{NUMBERS['clean']}_clean",
        )
        programs.call(
            "nnUNetv2_predict", "-i", str(clean / "imagesTs"), "-o", str(answers), *use, "-device", "cpu", "--disable_tta",
            "-npp", "1", "-nps", "1",
        )  # fmt: skip
        files = ("-djfile", str(answers / "dataset.json"), "-pfile", str(answers / "plans.json"), "-o", str(told))
        programs.call("nnUNetv2_evaluate_folder", str(clean / "labelsTs"), str(answers), *files, "-np", "1")
    return float(json.loads(told.read_text())["foreground_mean"]["Dice"])


def prepare(programs: Programs, name: str) -> None:
    """Plan and preprocess a raw data set, and set the batch size of its plan."""
    plan, number = programs.plan, str(NUMBERS[name])
    folder = programs.out / "nnUNet_preprocessed" / f"Dataset{number}_{name}"
    plans = folder / "nnUNetPlans.json"
    done = folder / f"{plan.configuration} done"
    if done.exists():
        return
    programs.call(
        "nnUNetv2_plan_and_preprocess", "-d", number, "-c", plan.configuration, "-np", "1", "-npfp", "1",
        "--verify_dataset_integrity",
    )  # fmt: skip
    if plan.batch_size is not None:
        content = json.loads(plans.read_text())
        content["configurations"][plan.configuration]["batch_size"] = plan.batch_size
        plans.write_text(json.dumps(content, indent=1))
    done.touch()


def measure(data: Path, out: Path, plan: Plan, cases: tuple[int | None, int | None], options: str) -> dict[str, Any]:
    """Train nnU-Net on clean and on protected images.

    Args:
        data: as for ``raw_data_set``.
        out: folder of this data set.
        plan: how nnU-Net is trained.
        cases: of training and test.
        options: of ``monai-salm protect``.

    Returns:
        A row of figures; the Dice of each seed in ``"runs"``.
    """
    out.mkdir(parents=True, exist_ok=True)
    clean, copy = (out / "nnUNet_raw" / f"Dataset{number}_{name}" for name, number in NUMBERS.items())
    if not (clean / "dataset.json").exists():
        raw_data_set(data, clean, *cases)
    if not (copy / "dataset.json").exists():
        call = [sys.executable, "-m", "monai_salm", "protect", str(clean), str(copy), "--store", str(out / "noise.db")]
        subprocess.run([*call, *options.split()], stdout=subprocess.DEVNULL, check=True)
    programs = Programs(out.resolve(), plan, out.resolve().parent / "nnunet.log")
    runs = []
    for name in NUMBERS:
        prepare(programs, name)
        runs += [{"images": name, "seed": seed, "Dice": dice_of(programs, name, seed)} for seed in plan.seeds]
    layout = open_layout(clean)
    return {
        "set": data.name,
        "configuration": plan.configuration,
        **_row(layout, layout.reopen(copy), runs),
        "runs": runs,
    }


def _row(layout: Layout, published: Layout, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    task = layout.task()
    originals, copy, test = (
        read_set(role, dataset, task, AutomaticWindow(), Protocol())
        for role, dataset in (
            ("clean", layout.dataset()),
            ("copy", published.dataset()),
            ("test", layout.dataset("test")),
        )
    )
    mean = {name: _mean([run["Dice"] for run in runs if run["images"] == name]) for name in NUMBERS}
    constant = constant_score(task, originals.labels, test.labels)
    learned = mean["clean"] - constant
    return {
        "cases": len(originals),
        "test cases": len(test),
        "PSNR": noise_size(originals, copy)["psnr"],
        "Dice clean": mean["clean"],
        "Dice protected": mean["protected"],
        "Dice of the best constant map": constant,
        # Without a clean network that learned more than positions, nothing is known.
        "recovered": (mean["protected"] - constant) / learned if learned > 0 else None,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="segmentation sets of the Decathlon or of nnU-Net")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what is finished")
    parser.add_argument("--configuration", default="2d", help="2d or 3d_fullres (default: %(default)s)")
    parser.add_argument("--cases", type=int, help="training cases (default: all)")
    parser.add_argument("--test-cases", type=int, help="test cases (default: all)")
    parser.add_argument("--epochs", type=int, default=10, help="of one training (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=50, help="of an epoch (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="default: that of nnU-Net's plan")
    parser.add_argument("--seeds", default="0", help="separated by commas (default: %(default)s)")
    parser.add_argument("--options", default="", help="of monai-salm protect")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args(arguments)
    plan = Plan(
        seeds=tuple(int(seed) for seed in given.seeds.split(",")),
        **{name: getattr(given, name) for name in ("configuration", "epochs", "iterations", "batch_size")},
    )
    cases = (given.cases, given.test_cases)
    rows, runs = [], []
    for data in given.data:
        row = measure(data, given.out / f"{data.name} {plan.configuration}", plan, cases, given.options)
        runs += [{"set": data.name, **run} for run in row.pop("runs")]
        rows.append(row)
    if given.json:
        print(json.dumps({"table": rows, "runs": runs}))
    else:
        for row in rows:
            print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
