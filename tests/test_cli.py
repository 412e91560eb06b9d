"""The command line: one JSON object, exit codes, clear errors, and options that follow the methods' settings."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer
from conftest import segmentation_cases
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import monai_salm
from monai_salm.cli import app, manual, method_options, names, readers, running
from monai_salm.cli.method_options import Setting, every_setting
from monai_salm.countermeasures import COUNTERMEASURES, TIERS
from monai_salm.evaluation.pipelines import FAMILIES
from monai_salm.evaluation.protocol import AUGMENTATIONS
from monai_salm.evaluation.training_sets import CONTROLS
from monai_salm.layouts import LAYOUTS
from monai_salm.learning.networks import NETWORKS, SEGMENTATION_NETWORKS
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import Trainer
from monai_salm.methods import METHODS, SALM, recommended
from monai_salm.methods.perturbations import PERTURBATIONS
from monai_salm.noise.window import AutomaticWindow, ChannelWindows, FixedWindow, PercentileWindow
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore

RUNNER = CliRunner()
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def archive(tmp_path: Path, classification_2d: list[dict[str, Any]]) -> Path:
    images = np.stack([case["image"][0] for case in classification_2d])
    labels = np.array([[case["label"]] for case in classification_2d], "uint8")
    parts = {"train": slice(0, 12), "val": slice(12, 16), "test": slice(16, 24)}
    arrays = {f"{s}_images": images[part] for s, part in parts.items()} | {
        f"{s}_labels": labels[p] for s, p in parts.items()
    }
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


def run(*arguments: object, code: int = 0) -> Any:
    result = RUNNER.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def run_json(*arguments: object, code: int = 0) -> dict[str, Any]:
    """Run a verb with --json; its stdout must be one object on one line."""
    result = run(*arguments, "--json", code=code)
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


def protect(archive: Path, *arguments: object, code: int = 0) -> dict[str, Any]:
    output = archive.with_name("out.npz")
    return run_json("protect", archive, output, "--method", "random_noise", "--device", "cpu", *arguments, code=code)


def images(path: Path, key: str = "train_images") -> np.ndarray:
    with np.load(path) as arrays:
        found: np.ndarray = arrays[key]
        return found


def test_protect_verify_restore(archive: Path) -> None:
    output, store, back = (archive.with_name(name) for name in ("out.npz", "out.npz.noise.db", "back.npz"))
    made = protect(archive, "--epsilon", "12/255", "--seed", 3)
    assert (made["cases"], made["ok"], made["checked"], made["problems"]) == (12, True, 12, [])
    assert made["psnr"] == pytest.approx(20 * np.log10(255 / 12), abs=0.5)
    assert made["support"] > 0.9
    assert {"rounds", "seconds", "window", "task", "method"} <= set(made)
    assert made["window"] == {"kind": "automatic"}
    assert Path(made["store"]) == store
    difference = images(output).astype(int) - images(archive)
    assert np.abs(difference).max() == 12
    assert np.array_equal(images(output, "test_images"), images(archive, "test_images"))

    checked = run_json("verify", archive, output, "--store", store)
    assert checked == {"ok": True, "checked": 12, "problems": [], "left_out": {}}
    assert run("verify", archive, output, "--store", store, "--quiet").stdout == "12 cases verified\n"
    restored = run_json("restore", output, back, "--store", store)
    assert restored["images"] == 12
    assert np.array_equal(images(back), images(archive))

    failed = run_json("verify", archive, back, "--store", store, code=1)
    assert failed["ok"] is False
    assert any("unprotected" in problem for problem in failed["problems"])


def test_generate_then_publish(archive: Path) -> None:
    store, output = archive.with_name("noise.db"), archive.with_name("out.npz")
    made = run_json("generate", archive, "--store", store, "--method", "random_noise", "--device", "cpu")
    assert (made["cases"], made["rounds"]) == (12, 0)
    assert not output.exists()
    done = run_json("publish", archive, output, "--store", store)
    assert (done["images"], done["copied"], done["warnings"]) == (12, 0, [])
    assert (images(output) != images(archive)).any(axis=(1, 2)).all()
    known = run_json("info", store)
    assert (known["kind"], known["cases"], known["method"]["name"]) == ("store", 12, "random_noise")
    described = run_json("info", archive)
    assert described["splits"] == {"train": 12, "val": 4, "test": 8}
    assert (described["task"]["num_classes"], described["protected"]) == (2, False)
    assert run_json("info", output)["protected"] is True
    assert "layout: medmnist" in run("info", archive).stdout
    told = run("info", store).stdout
    assert "\nepsilon: 8/255\n" in told
    assert re.search(r"\nwindow: .*by its kind", told)
    assert not set(re.sub(r"train\[[0-9]+\]", "", told)) & set("{}[]"), "said in words"


QUICK = ("--surrogate", "resnet10", "--width", "0.05", "--device", "cpu")


def test_settings_of_a_texture_reach_the_method(archive: Path) -> None:
    store = archive.with_name("noise.db")
    settings = ("--mask-ratio", "1/4", "--mask-area", 3, "--period", 3, "--plain", "false")
    network = ("--surrogate", "resnet10,vgg11", "--width", "0.05", "--device", "cpu", "--surrogate-steps", 1)
    made = run_json("generate", archive, "--store", store, *settings, *network)
    method = made["method"]
    assert (method["mask_ratio"], method["mask_area"]) == (0.25, 3)
    given = {"name": "class_texture", "period": 3.0, "plain": False, "surrogate_steps": 1}
    assert given.items() <= method["perturbation"].items()
    assert 0 < made["support"] <= 0.25
    assert run_json("info", store)["surrogate"] == ["resnet10", "vgg11"]
    assert "salm (class_texture)" in run("generate", archive, "--store", store, *settings, *network).stdout


def test_settings_of_error_minimizing_noise_reach_the_method(archive: Path) -> None:
    steps = ("--perturbation", "error_minimizing", "--rounds", 2, "--num-steps", 1, "--surrogate-steps", 1)
    made = run_json("generate", archive, "--store", archive.with_name("noise.db"), *steps, *QUICK)
    given = {"name": "error_minimizing", "rounds": 2, "num_steps": 1, "surrogate_steps": 1}
    assert given.items() <= made["method"]["perturbation"].items()
    assert (made["rounds"], made["method"]["mask_scope"]) == (2, "sample")
    assert 0 < made["support"] <= made["method"]["mask_ratio"]


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("-160,240", {"kind": "fixed", "low": -160, "high": 240}),
        ("percentile:0.5,99.5", {"kind": "percentile", "low": 0.5, "high": 99.5}),
        ("auto", {"kind": "automatic"}),
    ],
)
def test_the_window_that_is_given_is_the_one_that_is_taken(archive: Path, text: str, window: dict[str, Any]) -> None:
    assert protect(archive, "--window", text)["window"] == window
    assert run_json("info", archive.with_name("out.npz.noise.db"))["window"] == window


def test_a_window_for_each_channel(archive: Path) -> None:
    failed = protect(archive, "--window", "-160,240;percentile:0.5,99.5", code=1)
    assert "1 channels, the window rule has 2" in failed["error"]
    with np.load(archive) as arrays:
        changed = {key: np.stack([array] * 3, -1) if "images" in key else array for key, array in arrays.items()}
    np.savez(archive, **changed)
    rules = protect(archive, "--window", "0,255;percentile:0,100;0,255")["window"]["rules"]
    assert [rule["kind"] for rule in rules] == ["fixed", "percentile", "fixed"]


def test_evaluate(archive: Path) -> None:
    protect(archive)
    output, page, values = (archive.with_name(name) for name in ("out.npz", "report.html", "report.json"))
    small = [
        *["--victims", "resnet10", "--seeds", "5", "--epochs", "1", "--width", "0.05", "--device", "cpu", "--jobs", "1"]
    ]
    small += ["--countermeasures", "none", "--fractions", "1", "--pipelines", "plain,resized 0.5"]
    report = run_json("evaluate", archive, output, *small, "--html", page, "--out", values)
    assert report["noise"]["linf"] > 0
    assert {"chance", "majority", "seconds", "cells"} <= set(report)
    assert {cell["data"] for cell in report["cells"]} == {"clean", "protected", "random_noise", "random_mask"}
    assert {cell["seed"] for cell in report["cells"]} == {5}
    assert [cell["pipeline"] for cell in report["cells"]].count("resized 0.5") == 2
    assert report["protocol"]["epsilon"] == pytest.approx(8 / 255)
    assert "<html" in page.read_text()
    assert json.loads(values.read_text())["cells"] == report["cells"]
    failed = run_json("evaluate", archive, output, *small, "--epsilon", "0", code=1)
    assert "epsilon must be in (0, 1], got 0.0" in failed["error"]
    failed = run_json("evaluate", archive, output, *small, "--epsilon", "1/255", code=1)
    assert "epsilon is 0.0039" in failed["error"]


def test_evaluate_everything_it_can(archive: Path) -> None:
    protect(archive)
    output, journal, table = (archive.with_name(name) for name in ("out.npz", "cells.jsonl", "cells.csv"))
    predictions = archive.with_name("predictions")
    call = ["evaluate", archive, output, "--victims", "vgg11", "--seeds", "0", "--epochs", "1", "--width", "0.05"]
    call += ["--device", "cpu", "--jobs", "1", "--fractions", "0.5", "--countermeasures", "cutout,early_stopping_clean"]
    call += ["--pipelines", "plain"]
    call += ["--copy", f"second={output}", "--held-out", "0.2", "--all-epochs"]
    report = run_json(*call, "--resume", journal, "--csv", table, "--predictions", predictions)
    kinds = {(cell["data"], cell["countermeasure"], cell["fraction"]) for cell in report["cells"]}
    assert {("second", "none", 1.0), ("clean_part", "none", 0.5), ("protected", "cutout", 1.0)} < kinds
    assert ("protected", "early_stopping_clean", 1.0) in kinds
    assert len(table.read_text().splitlines()) == len(report["cells"]) + 1
    assert all(path.name.startswith("set_test_[AUC]") for path in predictions.iterdir())
    again = run_json(*call, "--resume", journal)
    assert again["cells"] == report["cells"]
    assert len(journal.read_text().splitlines()) == len([c for c in report["cells"] if c["epochs"] and c["curve"]]) + 1
    assert "not JSON" in run_json(*call, "--resume", table, code=1)["error"]


def test_evaluate_by_medmnists_recipe(archive: Path) -> None:
    protect(archive)
    output = archive.with_name("out.npz")
    call = ["evaluate", archive, output, "--victims", "resnet18", "--seeds", "0", "--recipe", "medmnist"]
    call += ["--device", "cpu", "--jobs", "1", "--fractions", "1", "--countermeasures", "none", "--pipelines", "plain"]
    report = run_json(*call, "--epochs", "2", "--width", "0.05")
    trained = report["protocol"]["trained"]["resnet18"]
    assert trained["recipe"] == {
        "optimizer": "adam",
        "lr": 1e-3,
        "schedule": "steps",
        "batch_size": 128,
        "clip": None,
        "precision": "float32",
        "compile": False,
    }
    assert (trained["epochs"], report["protocol"]["held_out"], report["protocol"]["learned"]) == (2, 0.0, None)


def test_evaluate_on_another_test_set(archive: Path) -> None:
    with np.load(archive) as arrays:
        parts = {key: arrays[key] for key in arrays}
    np.savez(archive, **{key: value for key, value in parts.items() if key.startswith("train")})
    tests, output = archive.with_name("tests.npz"), archive.with_name("out.npz")
    np.savez(tests, train_images=parts["test_images"], train_labels=parts["test_labels"])
    protect(archive)
    call = ["evaluate", archive, output, "--victims", "resnet10", "--seeds", "0", "--epochs", "1", "--width", "0.05"]
    call += ["--jobs", "1", "--countermeasures", "none", "--fractions", "1", "--pipelines", "plain"]
    assert "--test DATASET" in run_json(*call, "--device", "cpu", code=1)["error"]
    report = run_json(*call, "--device", "cpu", "--test", tests)
    assert report["protocol"]["cases"]["test"] == len(parts["test_images"])
    assert "clean images" in run_json(*call, "--device", "cpu", "--test", output, code=1)["error"]
    swapped = run_json("evaluate", output, archive, *call[3:], "--device", "cpu", code=1)
    assert "out.npz is a protected copy, by its manifest: give the original first" in swapped["error"]


def test_evaluate_refuses_a_protected_test_split(archive: Path) -> None:
    protect(archive, "--splits", "train,test")
    whole = archive.with_name("out.npz").rename(archive.with_name("whole.npz"))
    manifest = archive.with_name("out.npz.salm.json")
    manifest.rename(manifest.with_name("whole.npz.salm.json"))
    protect(archive, "--store", archive.with_name("other.db"))
    call = ["evaluate", archive, archive.with_name("out.npz"), "--victims", "resnet10", "--test", whole]
    assert "its test split is protected; test on clean images" in run_json(*call, code=1)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "IN", "--store", "n.db", "--epsilon", "much"],
        ["generate", "IN", "--store", "n.db", "--epsilon", "1/0"],
        ["generate", "IN", "--store", "n.db", "--epsilon", "2"],
        ["generate", "IN", "--store", "n.db", "--num-steps", "1.5"],
        ["generate", "IN", "--store", "n.db", "--mask-scope", "universe"],
        ["generate", "IN", "--store", "n.db", "--method", "magic"],
        ["generate", "IN", "--store", "n.db", "--method", "random_noise", "--mask-ratio", "0.3"],
        ["generate", "IN", "--store", "n.db", "--window", "5"],
        ["generate", "IN", "--store", "n.db", "--window", "9,5"],
        ["generate", "IN", "--store", "n.db", "--window", "percentile:5"],
        ["generate", "IN", "--store", "n.db", "--window", "percentile:1,101"],
        ["generate", "IN", "--store", "n.db", "--window", "quantile:1,99"],
        ["generate", "IN", "--store", "n.db", "--window", "0,255;"],
        ["generate", "IN", "--store", "n.db", "--perturbation", "magic"],
        ["generate", "IN", "--store", "n.db", "--perturbation", "class_texture", "--rounds", "2"],
        ["generate", "IN", "--store", "n.db", "--perturbation", "error_minimizing", "--period", "4"],
        ["generate", "IN", "--store", "n.db", "--mask-scope", "step"],
        ["generate", "IN", "--store", "n.db", "--stop-error", "0.1"],
        ["generate", "IN", "--store", "n.db", "--patch-size", "a,b"],
        ["generate", "IN", "--store", "n.db", "--surrogate", "a,,b"],
        ["generate", "IN", "--store", "n.db", "--seed", "-1"],
        ["generate", "IN", "--store", "n.db", "--layout", "nope"],
        ["generate", "IN", "--store", "n.db", "--surrogate", "nope"],
        ["generate", "IN", "--store", "n.db", "--device", "toaster"],
        ["generate", "IN"],
        ["generate", "IN", "--store", "n.db", "--no-such-option"],
        ["evaluate", "IN", "OUT", "--seeds", "x"],
        ["evaluate", "IN", "OUT", "--victims", "nope"],
        ["evaluate", "IN", "OUT", "--countermeasures", "none,nope"],
        ["evaluate", "IN", "OUT", "--pipelines", "plain,nope"],
        ["evaluate", "IN", "OUT", "--augment", "nope"],
        ["evaluate", "IN", "OUT", "--recipe", "nope"],
        ["evaluate", "IN", "OUT", "--fractions", "half"],
        ["evaluate", "IN", "OUT", "--copy", "nameless"],
        ["verify", "IN", "OUT", "--store", "n.db", "--layout", "nope"],
        ["no-such-verb"],
    ],
)
def test_wrong_usage_is_2(archive: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    result = run(*[str(archive) if a == "IN" else a for a in arguments], code=2)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not Path("n.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "GONE"], "does not exist"),
        (["verify", "IN", "OUT", "--store", "GONE"], "no noise store"),
        (["publish", "IN", "OUT", "--store", "VALUABLE"], "not a noise store"),
        (["generate", "IN", "--store", "n.db", "--surrogate", "unet"], "does not fit"),
        (["generate", "IN", "--store", "n.db", "--epsilon", "0.001"], "would vanish"),
        (["generate", "IN", "--store", "IN", "--overwrite"], "inside the data set"),
        (["generate", "IN", "--store", "VALUABLE", "--overwrite"], "not a noise store"),
    ],
)
def test_failure_is_1_with_one_message(archive: Path, arguments: list[str], message: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(archive.parent)
    Path("valuable").write_text("precious")
    places = {"IN": str(archive), "OUT": "out.npz", "GONE": "gone.db", "VALUABLE": "valuable"}
    before = archive.read_bytes()
    filled = [places.get(a, a) for a in arguments]
    failed = run_json(*filled, code=1)
    assert set(failed) == {"ok", "error"}
    assert message in failed["error"]
    result = run(*filled, code=1)
    assert result.stdout == ""
    assert f"monai-salm: {failed['error']}" in result.stderr
    assert "Traceback" not in result.stderr
    debugged = RUNNER.invoke(app, [*filled, "--debug"])
    assert debugged.exit_code == 1
    assert message in str(debugged.exception)
    assert archive.read_bytes() == before
    assert Path("valuable").read_text() == "precious"
    assert not Path("out.npz").exists()


def test_protect_refuses_before_the_work(archive: Path) -> None:
    archive.with_name("out.npz").write_bytes(b"precious")
    failed = protect(archive, code=1)
    assert "--overwrite" in failed["error"]
    assert not archive.with_name("out.npz.noise.db").exists()
    failed = protect(archive, "--overwrite", code=1)
    assert "no earlier" in failed["error"]
    assert not archive.with_name("out.npz.noise.db").exists()
    assert archive.with_name("out.npz").read_bytes() == b"precious"
    archive.with_name("out.npz").unlink()
    assert protect(archive)["ok"]
    assert protect(archive, "--overwrite", "--seed", "1")["ok"]


def test_protect_goes_on_where_it_stopped(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, store = archive.with_name("out.npz"), archive.with_name("out.npz.noise.db")

    def stop(*arguments: Any, **options: Any) -> Any:
        raise OSError("stopped")

    for part in ("publish", "verify"):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["monai_salm.publishing"], part, stop)
            assert protect(archive, code=1)["error"] == "stopped"
        made = store.stat().st_ino
    published = output.read_bytes()
    for arguments in ((), ("--overwrite",)):
        assert protect(archive, *arguments)["ok"]
        assert store.stat().st_ino == made
        assert output.read_bytes() == published
    assert "another seed" in protect(archive, "--seed", "1", code=1)["error"]
    output.write_bytes(archive.read_bytes())
    assert "is not what these settings give" in protect(archive, code=1)["error"]
    assert output.read_bytes() == archive.read_bytes()
    assert protect(archive, "--overwrite", "--seed", "1")["ok"]
    assert store.stat().st_ino != made


def kinds_of(name: str) -> list[Any]:
    """A method as it comes, and with each kind of perturbation where it has one."""
    method = METHODS[name]()
    if not isinstance(method, SALM):
        return [method]
    return [SALM(perturbation=kind()) for kind in PERTURBATIONS.values()]


def settings_of(method: Any) -> dict[str, Any]:
    """Every setting with its value; those of settings inside it alike, and the perturbation's name."""
    found: dict[str, Any] = {}
    for field in fields(method):
        value = getattr(method, field.name)
        if field.name == "perturbation":
            found["perturbation"] = value.name
        inner = settings_of(value) if is_dataclass(value) else {field.name: value}
        found.update({name: item for name, item in inner.items() if name not in found})
    return found


def interrupt_after(monkeypatch: pytest.MonkeyPatch, stage: str, done: int = 1) -> None:
    """Ctrl-C at a report of progress."""

    @contextmanager
    def interrupting(silent: bool = False) -> Iterator[Any]:
        def report(progress: Progress) -> None:
            if progress.stage == stage and progress.done >= done:
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(running, "show_progress", interrupting)


ROUNDS = ("--perturbation", "error_minimizing", "--rounds", 2, "--num-steps", 1, "--surrogate-steps", 3, *QUICK)


def test_ctrl_c_says_what_is_kept_and_the_same_call_goes_on(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive.with_name("whole.db")
    run("generate", archive, "--store", whole, *ROUNDS)
    output, store = archive.with_name("out.npz"), archive.with_name("out.npz.noise.db")
    call = ("protect", archive, output, *ROUNDS)
    with monkeypatch.context() as patch:
        interrupt_after(patch, "generate")
        stopped = run(*call, code=130)
    work = store.with_name(f"{store.name}.work")
    assert work.is_dir()
    said = stopped.stderr.strip()
    assert (said.count("\n"), stopped.stdout) == (0, "")
    assert str(work) in said
    assert "run the same command again" in said
    begun = json.loads((work / "checkpoint.json").read_text())
    assert {"rounds", "training"} & set(begun)
    assert run_json(*call)["ok"]
    assert not work.exists()
    assert codes(store) == codes(whole), "the noise of a run that was not interrupted"


def test_ctrl_c_in_the_middle_of_a_training_step(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step is neither kept nor done twice."""
    whole, store = archive.with_name("whole.db"), archive.with_name("noise.db")
    run("generate", archive, "--store", whole, *ROUNDS)
    step, done = Trainer.step, list[int]()

    def interrupted(*given: Any, **options: Any) -> Any:
        error = step(*given, **options)
        done.append(1)
        if len(done) == 2:
            signal.raise_signal(signal.SIGINT)
        return error

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which programs in the background do not have
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", interrupted)
            run("generate", archive, "--store", store, *ROUNDS, code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(done) == 2
    run("generate", archive, "--store", store, *ROUNDS)
    assert codes(store) == codes(whole)


def test_ctrl_c_while_the_copy_is_written_keeps_the_copy(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = archive.with_name("out.npz")
    call = ("protect", archive, output, "--method", "random_noise", "--device", "cpu")
    with monkeypatch.context() as patch:
        interrupt_after(patch, "publish")
        failed = run_json(*call, code=130)
    assert failed["ok"] is False
    assert not output.exists()
    assert str(archive.parent) in failed["error"]
    assert run_json(*call)["ok"]


def test_ctrl_c_before_anything_is_finished_says_so(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, "check")
    stopped = run("generate", archive, "--store", archive.with_name("noise.db"), *ROUNDS, code=130)
    assert "nothing is kept" in stopped.stderr
    assert {path.name for path in archive.parent.iterdir()} == {archive.name}


def codes(store: Path) -> list[Any]:
    return [noise.codes.tolist() for noise in NoiseStore(store)]


def test_every_setting_is_an_option() -> None:
    """They are fields of the methods' dataclasses with a help text; ``--help`` shows few of them."""
    few, whole = run("generate", "--help").stdout, run("generate", "--help-all").stdout
    wanted = set().union(*(settings_of(method) for name in METHODS for method in kinds_of(name)))
    assert {setting.name for setting in every_setting()} == wanted
    for setting in every_setting():
        assert f"{setting.flag} {setting.metavar}" in whole
        assert (f"{setting.flag} {setting.metavar}" in few) == setting.main
    assert "--help-all" in few


@pytest.mark.parametrize("name", METHODS)
def test_the_default_that_is_shown_is_the_one_that_is_taken(name: str) -> None:
    for method in kinds_of(name):
        for setting, value in settings_of(method).items():
            told = next(known.help for known in every_setting() if known.name == setting)
            shown = told[told.index("[default: ") + len("[default: ") : -1]
            if setting in ("epsilon", "mask_ratio", "perturbation"):
                shown = shown.split(" (")[0]
                assert shown == "8/255" if setting == "epsilon" else shown == str(settings_of(METHODS[name]())[setting])
                continue
            owners = {name, getattr(getattr(method, "perturbation", None), "name", name)}
            groups = [group.split(" of ") for group in shown.split("; ")]
            texts = [text.split(" (")[0] for text, group in groups if owners & set(group.split(", "))]
            assert [method_options._reader(type(value))(text) for text in texts] == [value], setting


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", [Classification(num_classes=3), Segmentation(num_classes=3)], ids=lambda t: t.kind)
def test_what_is_recommended_for_a_task_is_shown(task: Task, rank: int) -> None:
    usual, method = settings_of(SALM()), recommended(task, rank)
    for setting, value in settings_of(method).items():
        if value != usual.get(setting):
            told = next(known.help for known in every_setting() if known.name == setting)
            shown = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else f"{value:g}"
            owned = re.search(rf"\b{shown} of [\w, ]*\b{method.perturbation.name}\b", told)
            assert owned or re.search(rf"\({shown} for ({rank}D|2D) label maps\)", told), setting


def test_recommended_settings_are_taken_unless_others_are_given(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for folder in ("imagesTr", "labelsTr"):
        (place / folder).mkdir(parents=True)
    for case in segmentation_cases((16, 16, 16), cases=3):
        for folder, part, key in (("imagesTr", "_0000", "image"), ("labelsTr", "", "label")):
            volume = nibabel.Nifti1Image(case[key][0], np.eye(4))
            nibabel.save(volume, place / folder / f"{case['name']}{part}.nii.gz")
    listing = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}, "numTraining": 3}
    (place / "dataset.json").write_text(json.dumps({**listing, "file_ending": ".nii.gz"}))
    fast = ("--surrogate-steps", 1, "--width", 0.05, "--device", "cpu")
    made = run_json("generate", place, "--store", tmp_path / "noise.db", "--mask-area", 3, *fast)["method"]
    wanted = settings_of(recommended(Segmentation(num_classes=2), 3))
    assert {**wanted, "mask_area": 3, "surrogate_steps": 1}.items() <= {
        **made,
        **made["perturbation"],
        "perturbation": made["perturbation"]["name"],
    }.items()


def test_sections_of_the_manual_say_whose_settings_they_hold() -> None:
    of_salm = set().union(*map(settings_of, kinds_of("salm")))
    others = set().union(*(settings_of(METHODS[name]()) for name in METHODS if name != "salm"))
    for setting in every_setting():
        if not setting.main:
            assert (setting.panel == manual.SALM) == (setting.name in of_salm - others)


def test_the_help_of_a_verb_fits_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for verb in ("protect", "plan", "generate"):
        shown = python("-m", "monai_salm", verb, "--help").stdout.splitlines()
        assert 30 < len(shown) <= 60, verb
        assert len(run(verb, "--help-all").stdout.splitlines()) > 100


def test_terminal_lines_are_short(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_is_terminal", lambda stream: True)
    output = archive.with_name("out.npz")
    told = run("protect", archive, output, "--surrogate-steps", 1, "--width", 0.05, "--device", "cpu").stdout
    told += run("info", output.with_name("out.npz.noise.db")).stdout
    words = [word for word in told.split() if len(word) > 119]
    assert not [line for line in told.splitlines() if len(line) >= 120 and not any(word in line for word in words)]


def test_plan_says_which_options_of_protect_it_takes() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    protecting, planning = (
        {option for parameter in commands[verb].params for option in parameter.opts if option.startswith("--")}
        for verb in ("protect", "plan")
    )
    assert planning < protecting
    text = " ".join(commands["plan"].help.split())
    said = re.search(r"the options of protect, but not .*? looked at\.", text)
    assert said
    assert set(re.findall(r"--[a-z-]+", said[0])) == protecting - planning


@pytest.mark.parametrize("setting", [setting for setting in every_setting() if setting.values], ids=lambda s: s.name)
def test_the_values_that_are_offered_are_those_that_are_taken(setting: Setting) -> None:
    method = next(name for name in METHODS if any(setting.name in settings_of(kind) for kind in kinds_of(name)))
    for value in setting.values:
        texts = {setting.name: value}
        if value == "step":
            texts["perturbation"] = "error_minimizing"
        assert method_options.make_method(method, texts) is not None
    with pytest.raises(typer.BadParameter) as refused:
        method_options.make_method(method, {setting.name: "no-such-value"})
    for value in setting.values:
        assert value in str(refused.value), method


def test_names_are_those_of_the_registries() -> None:
    assert tuple(LAYOUTS) == names.LAYOUTS
    assert set(names.VOXEL_NETWORKS) == set(SEGMENTATION_NETWORKS)
    assert set(names.NETWORKS) == set(NETWORKS)
    assert tuple(COUNTERMEASURES) == names.COUNTERMEASURES
    assert set(names.TIERS) == set(TIERS)
    assert set(names.CONTROLS) == set(CONTROLS)
    assert tuple(FAMILIES) == names.PIPELINES
    assert set(names.AUGMENTATIONS) == set(AUGMENTATIONS)


VERBS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_of_the_manual(verb: str) -> None:
    """What it does, every option explained under a heading, and examples that can be called as they stand."""
    page = run(verb, "--help").stdout
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    assert command.short_help.endswith(".")
    assert f"  {verb.ljust(8)}  {command.short_help[:40]}" in run("--help").stdout
    assert page.index("Arguments:") < page.index("Other options:") < page.index("Examples:")
    for parameter in command.get_params(command.make_context(verb, ["-"], resilient_parsing=True)):
        assert getattr(parameter, "help", None), parameter.name
        assert parameter.help[0].isupper() or parameter.help.split(":")[0].replace(", ", "").islower(), parameter.help
    lines = [line.strip() for line in page[page.index("Examples:") :].splitlines()[1:] if line.strip()]
    calls = [re.split(r" {4,}", line)[0] for line in lines]
    assert calls
    for call in calls:
        program, _, arguments = call.partition(f"monai_salm {verb} " if "torchrun" in call else f"monai-salm {verb}")
        assert program in ("", "torchrun --nproc-per-node 4 -m ")
        command.make_context(verb, shlex.split(arguments.replace("$SLURM_ARRAY_TASK_ID", "3")))


def test_the_programs_page_shows_every_verb_and_calls_that_can_be_made() -> None:
    page = run("--help").stdout
    assert len(re.findall(r"^  [a-z]+ +[A-Z]", page, re.MULTILINE)) == len(VERBS)
    for call in re.findall(r"^ +monai-salm ([a-z]+ .*?)(?: {4,}.*)?$", page, re.MULTILINE):
        verb, *arguments = shlex.split(call)
        get_command(app).commands[verb].make_context(verb, arguments)  # type: ignore[attr-defined]
    assert "Exit codes: 0 done, 1 failed or partly done, 2 wrong usage, 130 stopped with Ctrl-C." in " ".join(
        page.split()
    )


def completed(line: str, shell: str) -> list[str]:
    """What a shell offers at the end of a line, asked as the scripts of ``--show-completion`` ask."""
    words = line.split(" ")
    asked = {"_MONAI_SALM_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = RUNNER.invoke(app, [], prog_name="monai-salm", env=asked)
    if shell == "zsh":  # "name":"help text" of each
        return re.findall(r'"([^"]+)":"', result.stdout) or re.findall(r'"([^"]+)"', result.stdout)
    return [offer.split("\t")[0] for offer in result.stdout.splitlines() if offer]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("monai-salm ver", {"verify"}),
        ("monai-salm protect scans out --mask-sc", {"--mask-scope"}),
        ("monai-salm protect scans out --mask-scope s", {"step", "sample"}),
        ("monai-salm protect scans out --method r", {"rem", "roi_em", "random_noise"}),
        ("monai-salm protect scans out --perturbation e", {"error_minimizing"}),
        (
            "monai-salm evaluate scans out --victims unet,",
            {f"unet,{name}" for name in names.NETWORKS if name != "unet"},
        ),
        ("monai-salm info scans --layout d", {"decathlon", "datalist", "dicom_tree"}),
    ],
)
def test_shells_complete(shell: str, line: str, offers: set[str]) -> None:
    assert set(completed(line, shell)) == offers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", ["monai-salm protect sc", "monai-salm verify scans out --store no"])
def test_shells_complete_files_themselves(shell: str, line: str) -> None:
    assert completed(line, shell) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_given_their_script(shell: str) -> None:
    shown = RUNNER.invoke(app, [], prog_name="monai-salm", env={"_MONAI_SALM_COMPLETE": f"source_{shell}"})
    assert f"_MONAI_SALM_COMPLETE=complete_{shell}" in shown.stdout
    assert "monai-salm" in shown.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("tap", "--num-steps", 2, "--surrogate-steps", 2, "--step-size", "1/2", "--max-shift", 1),
        ("sem", "--num-steps", 2, "--surrogate-steps", 1, "--rounds", 1, "--draws", 1, "--attack-radius", "1/4"),
        ("lsp", "--patches", 2, "--rms", 0.5),
        ("ar", "--window-size", 2),
    ],
)
def test_peers_by_name(archive: Path, options: tuple[Any, ...]) -> None:
    store = archive.with_name("noise.db")
    fast = ("--surrogate", "resnet10", "--width", 0.05, "--device", "cpu")
    made = run_json("generate", archive, "--store", store, "--method", *options, *fast)
    assert (made["cases"], made["method"]["name"]) == (12, options[0])
    assert made["support"] > 0.1


def test_methods_that_need_labels_per_voxel_say_so(archive: Path) -> None:
    for verb in ("generate", "plan"):
        target = ("--store", archive.with_name("noise.db")) if verb == "generate" else ()
        failed = run_json(verb, archive, *target, "--method", "roi_em", "--device", "cpu", code=1)
        assert "needs labels per voxel" in failed["error"]


@pytest.mark.parametrize("verb", ["generate", "protect", "plan"])
def test_no_setting_takes_the_name_of_another_option(verb: str) -> None:
    command = get_command(app).commands[verb]  # type: ignore[attr-defined]
    flags = [flag for parameter in command.get_params(command.make_context(verb, ["-"], resilient_parsing=True))
             for flag in parameter.opts]  # fmt: skip
    assert "--mask-ratio" in flags
    assert len(flags) == len(set(flags)), [flag for flag in flags if flags.count(flag) > 1]


def test_values_are_read() -> None:
    assert readers.number("8/255") == 8 / 255
    assert readers.number("1e-3") == 1e-3
    assert readers.bounds("-1000,1000") == (-1000.0, 1000.0)
    assert readers.integers("32,32,32") == (32, 32, 32)
    assert readers.names("a, b") == ("a", "b")
    assert readers.window("-160,240") == FixedWindow(-160, 240)
    assert readers.window("percentile:0.5,99.5") == PercentileWindow()
    assert readers.window("-160,240; percentile:1,99") == ChannelWindows(
        (FixedWindow(-160, 240), PercentileWindow(1, 99))
    )
    assert readers.window("auto") == AutomaticWindow()
    for text in ("nan", "inf", "8/", "/255", "1e999", ""):
        with pytest.raises(ValueError, match="must be a number"):
            readers.number(text)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_is_quick_and_module_runs() -> None:
    code = "import sys, monai_salm.cli; print(sorted({'torch', 'monai', 'nibabel', 'numpy'} & set(sys.modules)))"
    assert python("-c", code).stdout == "[]\n"
    shown = python("-m", "monai_salm", "--help")
    assert shown.returncode == 0
    for verb in ("demo", "generate", "publish", "protect", "verify", "restore", "evaluate", "info"):
        assert f"\n  {verb} " in shown.stdout
    assert python("-m", "monai_salm", "--version").stdout.strip() == monai_salm.__version__


def test_commands_without_networks_do_not_wait_for_monai(tmp_path: Path) -> None:
    """MONAI takes seconds to import, and several hundred megabytes."""
    data, copy, store = (str(tmp_path / name) for name in ("data", "copy", "noise.db"))
    for index in range(4):
        path = tmp_path / "data" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (32, 32), np.uint8)).save(path)
    verbs = [
        ["generate", data, "--store", store, "--method", "random_noise"],
        ["publish", data, copy, "--store", store],
        ["verify", data, copy, "--store", store],
        ["restore", copy, str(tmp_path / "back"), "--store", store],
        ["info", data],
    ]
    code = "import sys\nfrom monai_salm.cli import app\n"
    code += "".join(f"app({verb!r}, standalone_mode=False)\n" for verb in verbs)
    code += "print('monai' in sys.modules)"
    done = python("-c", code)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stdout + done.stderr


def test_public_names_exist() -> None:
    for name in monai_salm.__all__:
        assert getattr(monai_salm, name) is not None
    assert set(monai_salm.__all__) <= set(dir(monai_salm))
    with pytest.raises(AttributeError, match="nope"):
        _ = monai_salm.nope
    assert importlib.metadata.version("monai_salm") == monai_salm.__version__


def test_max_image_bytes_refuses_what_claims_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_SALM_MAX_IMAGE_BYTES", "")
    for index in range(4):
        path = tmp_path / "scans" / "ab"[index % 2] / f"{index}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.full((8, 8, 8), index, np.uint8), np.eye(4)), path)
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "scans"), "--max-image-bytes", "500"])
    assert told.exit_code == 2, "none can be read"
    assert "--max-image-bytes 864" in " ".join(told.output.split())
