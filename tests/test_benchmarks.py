"""Benchmarks still run on the package as it is; what they measure is not looked at here."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.evaluation.victims import Victim
from monai_salm.learning.cases import Cases

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


def archive(path: Path, splits: Sequence[str], cases: int = 16) -> Path:
    arrays = {}
    for seed, split in enumerate(splits):
        made = classification_cases(cases=cases, seed=seed)
        arrays[f"{split}_images"] = np.concatenate([case["image"] for case in made])
        arrays[f"{split}_labels"] = np.array([[case["label"]] for case in made])
    np.savez(path, **arrays)
    return path


def never(*arguments: object) -> str:
    raise AssertionError(f"made again: {arguments}")


@pytest.mark.parametrize("script", ["strength"], indirect=True)
def test_strength_goes_on_with_kept_copies_and_victims(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def protect(data: Path, copy: Path, *options: str) -> None:
        arguments = ["protect", str(data), str(copy), *options, "--quiet", "--width", "0.05"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output

    trained: set[bytes] = set()
    train = script.train_victim

    def train_victim(seed: int, cases: Cases, *more: Any) -> Victim:
        trained.add(np.asarray(cases.images).tobytes())
        return train(seed, cases, *more)  # type: ignore[no-any-return]

    monkeypatch.setattr(script, "train_victim", train_victim)
    monkeypatch.setattr(script, "protect", protect)
    call = [str(archive(tmp_path / "set.npz", ("train", "test"))), "--out", str(tmp_path / "out"), "--json"]
    call += ["--victims", "resnet10", "--seeds", "0,1", "--steps", "6", "--ways", "plain;blur"]
    noises = "SALM=--surrogate-steps 1 --surrogate resnet10;LSP=--method lsp"
    assert script.main([*call, "--noises", noises]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["noise"] for row in found["table"]] == ["none", "SALM", "LSP"]
    assert {"plain", "blur", "PSNR"} <= set(found["table"][1])
    assert len(trained) == 3 * 2, "three sets of images, each plain and blurred"
    assert all(row["PSNR"] > 20 for row in found["table"][1:])
    assert len(found["runs"]) == 3 * 2 * 2
    monkeypatch.setattr(script, "train_victim", never)
    monkeypatch.setattr(script, "protect", never)
    assert script.main([*call, "--noises", noises]) == 0
    assert json.loads(capsys.readouterr().out) == found
    with pytest.raises(AssertionError, match="made again"):
        script.main([*call, "--noises", "TAP"])
    with pytest.raises(ValueError, match="give the noise another name"):
        script.main([*call, "--noises", "LSP=--method lsp --epsilon 4/255", "--clean-seeds", "0", "--seeds", "2"])
    for wrong in (["--noises", "nobody"], ["--ways", "plain;nothing"], ["--ways", "early_stopping"]):
        with pytest.raises(SystemExit):
            script.main([*call, *wrong])


@pytest.mark.parametrize("script", ["strength"], indirect=True)
def test_strength_counts_from_guessing_to_the_clean_score(script: ModuleType) -> None:
    told = {"way": "plain", "victim": "vgg11", "chance": 0.5}
    cells = [
        {"noise": "none", "seed": 0, "last": 0.8, "best": 0.8, **told},
        {"noise": "none", "seed": 1, "last": 1.0, "best": 1.0, **told},
        {"noise": "SALM", "seed": 0, "last": 0.5, "best": 0.6, "psnr": 33.0, **told},
        {"noise": "SALM", "seed": 1, "last": 0.7, "best": 1.0, "psnr": 33.0, **told},
    ]
    none, salm = script.summary("set", cells)
    assert none["plain"] == "0.90"
    assert salm["plain"] == "0.25 [0.00, 0.50] (0.75)"
    assert salm["PSNR"] == 33.0


@pytest.mark.parametrize("script", ["speed"], indirect=True)
def test_speed_trains_a_victim(script: ModuleType, tmp_path: Path) -> None:
    path = str(archive(tmp_path / "set.npz", ("train", "test")))
    result = script.train({"source": path, "copy": path, "row": "none", "victim": "vgg11", "seed": 0, "threads": 1})
    assert result["last"] >= 0.9
    assert result["train_score"] >= 0.9


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="pins ranks to cores")
def test_scaling_times_one_rank_against_two(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two ranks need two cores")
    cases = classification_cases(cases=16)
    images, labels = np.concatenate([case["image"] for case in cases]), np.array([[case["label"]] for case in cases])
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels)
    command = [sys.executable, str(BENCHMARKS / "scaling.py"), str(tmp_path / "set.npz"), "--rounds", "2"]
    command += ["--surrogate-steps", "1", "--repeats", "1"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert found["ratio"] == found["one_rank_s"] / found["two_ranks_s"]
    assert [row["stage"] for row in found["stage_table"]] == ["check", "generate", "write"]


def test_storage_benchmarks_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    size, loader = importlib.import_module("store_size"), importlib.import_module("in_loader")
    monkeypatch.setattr(size, "SHAPES", {(1, 28, 28): 8, (1, 12, 12, 12): 2})
    path = size.drawn_store(tmp_path / "noise.db", "step", (1, 28, 28), 50)
    found = size.measure([path], cases=8)
    assert [(row["scope"], row["cases"]) for row in found["drawn"]] == [
        (s, n) for n in (8, 2) for s in ("step", "sample")
    ]
    assert found["real"][0]["elements"] == 50 * 28 * 28
    assert found["real"][0]["ratio"] == found["real"][0]["ratio_with_networks"] > 4
    assert len(list(size.table(found))) == 6
    found = loader.measure((12, 12, 8), volumes=1, repeats=2, images=60)
    assert found["volume"]["runs"] == 2
    assert found["image"]["images"] == 60


@pytest.mark.parametrize("script", ["reference_em"], indirect=True)
def test_reference_em_keeps_its_budget_and_stops(script: ModuleType) -> None:
    cases = classification_cases(cases=12)
    images, labels = np.concatenate([c["image"] for c in cases]), np.array([c["label"] for c in cases])
    settings = script.Reference(rounds=2, num_steps=3, train_steps=2, batch_size=8, width=0.05, stop_error=0.0)
    noise, facts = script.reference_em(images, labels, settings)
    assert noise.shape == images.shape
    assert 0 < np.abs(noise).max() <= 3 * 2 * 0.8 + 1e-4
    assert np.abs(noise).max() <= 8 + 1e-4
    assert facts["rounds"] == len(facts["errors"]) <= 2
    at_once = script.Reference(**{**vars(settings), "stop_error": 1.0})
    assert script.reference_em(images, labels, at_once)[1]["rounds"] == 1
    noisy = script.add_noise(np.array([[0, 250, 100]], np.uint8), np.array([[-3.0, 8.0, 1.6]]))
    assert noisy.tolist() == [[0, 255, 102]]
    assert noisy.dtype == np.uint8


@pytest.mark.parametrize("script", ["speed"], indirect=True)
def test_speed_makes_noise_of_the_chosen_split_and_compares_medians(script: ModuleType, tmp_path: Path) -> None:
    arrays = {}
    for seed, split in enumerate(("train", "val", "test")):
        cases = classification_cases(cases=8, seed=seed)
        arrays[f"{split}_images"] = np.concatenate([case["image"] for case in cases])
        arrays[f"{split}_labels"] = np.array([[case["label"]] for case in cases])
    np.savez(tmp_path / "set.npz", **arrays)
    clean = script.with_split(tmp_path / "set.npz", "val", tmp_path)
    with np.load(clean) as kept:
        assert np.array_equal(kept["test_images"], arrays["val_images"])
        assert np.array_equal(kept["train_images"], arrays["train_images"])
    settings = {"perturbation": "error_minimizing", "rounds": 1, "num_steps": 1, "surrogate_steps": 1}
    noise, facts = script.make_with_salm(clean, tmp_path / "noise.db", settings, 0)
    assert noise.shape == arrays["train_images"].shape
    assert set(np.abs(noise).max(axis=(1, 2)).tolist()) == {8.0}
    assert facts["rounds"] == 1
    made = [
        {"row": row, "seed": seed, "rounds": 1, "seconds": seconds, "cpu_seconds": seconds / 2}
        for row, times in ((script.REFERENCE, (10.0, 20.0, 90.0)), ("SALM", (5.0, 4.0, 9.0)))
        for seed, seconds in enumerate(times)
    ]
    runs = [{"row": row, "victim": "vgg11", "last": s} for row in (script.REFERENCE, "SALM") for s in (0.1, 0.3, 0.2)]
    reference, salm = script.summary(made, runs)
    assert (reference["times faster"], reference["seconds"], reference["vgg11 accuracy"]) == (1.0, 20.0, 0.2)
    assert (salm["times faster"], salm["times faster, processor time"], salm["seconds"]) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("script", ["overhead"], indirect=True)
@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_overhead_measures_both(script: ModuleType, shape: tuple[int, ...]) -> None:
    problem = script.Problem(shape=shape, network="resnet10", batches=1, width=0.02)
    row = script.measure_problem(problem, 1, torch.device("cpu"))
    assert row["ratio"] == pytest.approx(row["noise step (ms)"] / row["bare passes (ms)"])
    assert row["ratio, processor time"] > 0


@pytest.mark.parametrize("script", ["gpu"], indirect=True)
def test_noise_steps_of_a_gpu_are_tried_out_on_a_cpu(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--device", "cpu", "--repeats", "1", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["table"]
    kinds = {(row["problem"], row["precision"], row["channels"]) for row in table}
    assert len(kinds) == len(table) == 2 * (2 * 2 + 2)
    for row in table:
        assert row["images a second"] == pytest.approx(1000 * row["batch"] / row["noise step (ms)"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measures what Linux tells")
@pytest.mark.parametrize("script", ["memory"], indirect=True)
def test_memory_sees_what_is_held(script: ModuleType) -> None:
    before = script.anonymous_bytes()
    with script.Peak(interval=0.005) as peak:
        held = np.ones(2**27, np.uint8)  # so large that the allocator asks the system for it
        script.threading.Event().wait(0.1)
    assert peak.bytes - before > 2**26
    assert held.all()
    made = script.generate(8, 1)
    assert made["samples"] == 8
    assert made["peak"] > 0


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="asks the system for the memory of a process")
@pytest.mark.parametrize("script", ["at_size"], indirect=True)
def test_every_verb_is_measured_on_every_kind_of_set(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = script.in_child(["-c", "print(1)"], tmp_path / "log")
    assert used["peak MB"] > 1
    with pytest.raises(RuntimeError, match="wrong"):
        script.in_child(["-c", "raise SystemExit('wrong')"], tmp_path / "log")
    called: list[list[str]] = []

    def in_this_process(command: Sequence[str], log: Path) -> dict[str, float]:
        called.append([str(word) for word in command])
        if command[1] in ("--bare", "--make"):
            script.main(called[-1][1:])
        elif command[:2] == ["-m", "monai_salm"]:
            more = ["--method", "random_noise"] if command[2] in ("plan", "generate") else []
            result = CliRunner().invoke(app, [*called[-1][2:], *more])
            assert result.exit_code == 0, result.output
        return used

    monkeypatch.setattr(script, "in_child", in_this_process)
    assert script.main(["--scale", "0", "--sides", "0.03", "--data", str(tmp_path / "data"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [(row["set"], row["stage"]) for row in found["table"]]
    assert rows == [(name, stage) for name in script.SETS for stage in ("start", "read", "rewrite", *script.VERBS)]
    assert len(called) == len(rows) + len(script.SETS)
    with pytest.raises(SystemExit):
        script.main(["--sets", "surprise"])


@pytest.mark.parametrize("script", ["results"], indirect=True)
def test_results_are_kept_and_written_anew(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HERE", "FIGURES", "PAGE"):
        monkeypatch.setattr(
            script, name, {"HERE": tmp_path, "FIGURES": tmp_path / "results"}.get(name, tmp_path / "R.md")
        )
    for name, *_ in script.BENCHMARKS.values():
        (tmp_path / name).write_text("raise SystemExit(1)")
    figures = {"aim": "at most 1.15", "runs": [1, 2], "table": [{"size": 2000, "ms a step": 1.23456}, {"more": "a|b"}]}
    (tmp_path / "memory.py").write_text(f"import json\nprint('words')\nprint(json.dumps({figures!r}))")
    monkeypatch.setattr(script, "machine", lambda: {"processor": "P", "cores": 2, "gpu": None, "commit": "abc"})
    assert script.main(["--only", "memory,overhead"]) == 1
    kept = json.loads((tmp_path / "results" / "memory.json").read_text())
    assert kept["figures"] == figures
    assert not (tmp_path / "results" / "overhead.json").exists()
    page = (tmp_path / "R.md").read_text()
    assert "| size | ms a step | more |\n|---|---|---|\n| 2000 | 1.23 |  |\n|  |  | a/b |" in page
    assert "P, 2 cores; commit abc." in page
    assert "aim: at most 1.15." in page
    (tmp_path / "R.md").unlink()
    assert script.main(["--only", ""]) == 0
    assert (tmp_path / "R.md").read_text() == page
    with pytest.raises(SystemExit):
        script.main(["--only", "surprise"])


@pytest.mark.parametrize("script", ["import_time"], indirect=True)
def test_answers_of_the_command_line_are_timed(script: ModuleType) -> None:
    for words in script._COMMANDS.values():
        clock, used = script.command(words)
        assert clock > 0
        assert used > 0
    assert set(script._LIMITS) < {*script._STEPS, *script._COMMANDS}


def test_published_figures_name_no_place_of_a_machine() -> None:
    for path in (*(BENCHMARKS / "results").iterdir(), BENCHMARKS / "RESULTS.md"):
        assert not re.search(r"(?<![\w.])/(home|work|root|tmp|opt|Users|mnt)/", path.read_text()), path.name


#: Stands in for nnU-Net's commands: the "network" answers with the label maps of training, in their order.
NNUNET = """
import json, os, shutil, sys
from pathlib import Path

name, words = Path(sys.argv[0]).name, sys.argv[1:]
option = dict(zip(words[:-1], words[1:]))
raw, prepared = (Path(os.environ["nnUNet_" + kind]) for kind in ("raw", "preprocessed"))
if name == "nnUNetv2_plan_and_preprocess":
    (folder,) = (prepared / f.name for f in raw.glob(f"Dataset{option['-d']}_*"))
    folder.mkdir(parents=True)
    plan = {"configurations": {option["-c"]: {"batch_size": 99}}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plan))
elif name == "nnUNetv2_train":
    (folder,) = prepared.glob(f"Dataset{words[0]}_*")
    size = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"][words[1]]["batch_size"]
    print("batch", size, "epochs", os.environ["SALM_EPOCHS"], "seed", os.environ["SALM_SEED"], os.environ["nnUNet_raw"])
elif name == "nnUNetv2_predict":
    Path(option["-o"]).mkdir()
elif name == "nnUNetv2_evaluate_folder":
    assert list(Path(words[0]).iterdir()), "no label maps"
    dice = 0.9 if "clean" in Path(words[1]).name else 0.3
    Path(option["-o"]).write_text(json.dumps({"foreground_mean": {"Dice": dice}}))
"""


@pytest.mark.skipif(os.name == "nt", reason="its stand-in is a script with a first line for Unix")
@pytest.mark.parametrize("script", ["nnunet"], indirect=True)
def test_nnunet_is_trained_by_its_own_commands(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plan_and_preprocess", "train", "predict", "evaluate_folder"):
        program = tmp_path / "bin" / f"nnUNetv2_{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\n{NNUNET}")
        program.chmod(0o755)
    source = tmp_path / "Task99_Ball"
    build_decathlon(source)
    call = [str(source), "--out", str(tmp_path / "out"), "--json", "--cases", "3", "--test-cases", "2"]
    call += ["--seeds", "0,1", "--batch-size", "7", "--options", "--surrogate-steps 1 --width 0.1 --quiet"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r'is not installed: pip install "\.\[nnunet\]"'):
        script.main(call)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    capsys.readouterr()
    assert script.main(call) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["table"]
    assert (row["cases"], row["test cases"], row["Dice clean"], row["Dice protected"]) == (3, 2, 0.9, 0.3)
    constant = row["Dice of the best constant map"]
    assert row["recovered"] == pytest.approx((0.3 - constant) / (0.9 - constant))
    assert row["PSNR"] > 20
    assert [(run["images"], run["seed"]) for run in found["runs"]] == [
        (name, seed) for name in ("clean", "protected") for seed in (0, 1)
    ]
    log = (tmp_path / "out" / "nnunet.log").read_text()
    assert "$ nnUNetv2_train 902 2d all -tr ShortTrainer" in log
    assert "batch 7 epochs 10 seed 1 OUT/nnUNet_raw" in log
    assert str(tmp_path) not in log
    before = log
    assert script.main(call) == 0
    assert (tmp_path / "out" / "nnunet.log").read_text() == before, "nothing is trained twice"


def build_decathlon(root: Path) -> None:
    """Balls in volumes: four cases of training, three of validation with label maps."""
    content: dict[str, Any] = {"name": "Ball", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "ball"}}
    for split, count in (("training", 4), ("validation", 3)):
        content[split] = []
        for index, case in enumerate(segmentation_cases((16, 16, 16), cases=count, seed=count)):
            entry = {}
            for key, folder in (("image", "imagesTr"), ("label", "labelsTr")):
                entry[key] = f"./{folder}/{split}_{index}.nii.gz"
                (root / folder).mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(case[key][0], np.diag([1.0, 1.0, 2.0, 1.0])), root / entry[key])
            content[split].append(entry)
    content["numTraining"] = 4
    (root / "dataset.json").write_text(json.dumps(content))
