"""The verbs around publishing: plan, splits, bad files, shards, signatures and encrypted stores, by exit code and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from published_samples import make_folder
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.cli.listing import briefly
from monai_salm.publishing.staging import Staging

FAST = ("--method", "random_noise", "--window", "-500,500", "--device", "cpu")


def run(*arguments: object, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    found: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "set", "int16")
    return tmp_path


def test_plan(folder: Path) -> None:
    found = run("plan", folder / "set", *FAST)
    assert (found["ok"], found["protected"], found["refused"], found["seconds"]) == (True, 3, {}, 0)
    assert run("plan", folder / "set", *FAST, "--splits", "train,test")["protected"] == 4
    (folder / "set/training/i1.nii.gz").write_text("x")
    assert list(run("plan", folder / "set", *FAST, code=1)["refused"]) == ["training/i1.nii.gz"]
    assert sorted(path.name for path in folder.iterdir()) == ["set"]
    text = CliRunner().invoke(app, ["plan", str(folder / "set"), *FAST]).stdout
    assert "1 would be left out:" in text
    assert "Disk: copy" in text


def test_two_bounds_without_a_comma_are_told_of_it(folder: Path) -> None:
    for window in (("--window", "-160", "240"), ("--window=-160", "240"), ("--window", "-160,", "240")):
        result = CliRunner().invoke(app, ["plan", str(folder / "set"), *window])
        assert result.exit_code == 2
        assert "--window -160,240" in " ".join(result.stderr.split())


def test_plan_gives_the_window_and_the_noise_of_some_images(folder: Path) -> None:
    """Of 0.0121 x 500 = 6.05 stored units an int16 voxel can change by 6."""
    options = ("--method", "random_noise", "--device", "cpu", "--window", "-250,250", "--epsilon", "0.0121")
    found = run("plan", folder / "set", *options)
    assert {(tuple(image["window"][0]), image["noise"][0]) for image in found["noise"]} == {((-250, 250), 6)}
    text = CliRunner().invoke(app, ["plan", str(folder / "set"), *options]).stdout
    assert "shows -250 to 250, noise at most 6" in text
    assert all(image["name"] in text for image in found["noise"])


def test_one_bad_file_is_listed_and_the_exit_code_is_1(folder: Path) -> None:
    (folder / "set/training/i1.nii.gz").write_text("x")
    found = run("protect", folder / "set", folder / "out", *FAST, code=1)
    assert [case["name"] for case in found["skipped"]] == list(found["failed"]) == ["training/i1.nii.gz"]
    assert (found["problems"], list(found["left_out"])) == ([], ["training/i1.nii.gz"])
    assert (found["cases"], found["images"], found["ok"]) == (2, 2, False)
    result = CliRunner().invoke(
        app, ["publish", str(folder / "set"), str(folder / "b"), "--store", str(folder / "out.noise.db")]
    )
    assert result.exit_code == 1
    assert "1 left out:\n  training/i1.nii.gz: " in result.stdout


@pytest.mark.filterwarnings("default")
def test_warnings_are_said_like_errors(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for index in range(3):
        values = np.random.default_rng(index).integers(20, 230, (16, 16)).astype(np.uint8)
        Image.fromarray(values).save(tmp_path / f"set/{index}.png")
    (tmp_path / "set/labels.csv").write_text("image,label\n0.png,1\n1.png,1\n2.png,1\n")
    result = CliRunner().invoke(
        app, ["protect", str(tmp_path / "set"), str(tmp_path / "out"), "--method", "random_noise"]
    )
    assert result.exit_code == 0
    assert "monai-salm: warning: all 3 images have label 1: with one class" in result.stderr
    assert "suspicions.py" not in result.stderr
    (warning,) = run("plan", tmp_path / "set", "--method", "random_noise")["warnings"]
    assert warning.startswith("all 3 images have label 1: with one class")


def test_splits_are_protected_together(folder: Path) -> None:
    found = run("protect", folder / "set", folder / "out", *FAST, "--splits", "train,test")
    assert (found["ok"], found["images"], found["checked"]) == (True, 4, 4)
    assert json.loads((folder / "out/monai_salm.json").read_text())["splits"] == ["train", "test"]
    run("restore", folder / "out", folder / "back", "--store", folder / "out.noise.db")
    for file in ("test/i0.nii.gz", "training/i0.nii.gz"):
        from monai_salm.formats import format_of

        read = format_of(Path(file)).read
        assert read(folder / "back" / file).tobytes() == read(folder / "set" / file).tobytes()
        assert read(folder / "out" / file).tobytes() != read(folder / "set" / file).tobytes()
    assert (
        "no split"
        in run("publish", folder / "set", folder / "b", "--store", folder / "out.noise.db", "--splits", "x", code=1)[
            "error"
        ]
    )


def test_verify_shows_a_few_problems_of_each_kind(folder: Path) -> None:
    """And all in --json."""
    for index in range(3, 12):
        image = np.random.default_rng(index).normal(0, 400, (7, 6, 5)).astype("int16")
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"set/training/i{index}.nii.gz")
        (folder / f"set/training/l{index}.nii.gz").write_bytes((folder / "set/training/l0.nii.gz").read_bytes())
    listing = json.loads((folder / "set/dataset.json").read_text())
    listing["training"] = [{key: f"training/{key[0]}{i}.nii.gz" for key in ("image", "label")} for i in range(12)]
    (folder / "set/dataset.json").write_text(json.dumps(listing))
    run("protect", folder / "set", folder / "out", *FAST)
    store = ("--store", folder / "out.noise.db")
    for path in (folder / "out/training").glob("i*"):
        path.unlink()
    found = run("verify", folder / "set", folder / "out", code=1)  # the store lies where protect has put it
    assert sum("missing from the copy" in problem for problem in found["problems"]) == 12
    text = CliRunner().invoke(app, ["verify", *map(str, (folder / "set", folder / "out", *store))]).stdout
    assert text.count("missing from the copy") == 3
    assert "... and 9 more of this kind (--json has all)" in text
    gone = run("verify", folder / "set", folder / "none", *store, code=1)
    assert gone["problems"] == [f"{folder / 'none'} does not exist; check the path, or publish it first"]


def test_restore_finds_the_store_where_protect_has_put_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("protect", folder / "set", folder / "out", *FAST)
    monkeypatch.chdir(folder / "out")  # "." names no file; its folder does
    run("restore", ".", folder / "back")
    for path in sorted((folder / "set").rglob("*.nii.gz")):
        same = (
            nibabel.load(path).get_fdata()
            == nibabel.load(folder / "back" / path.relative_to(folder / "set")).get_fdata()
        )
        assert same.all(), path


@pytest.mark.parametrize(
    ("problem", "other", "alike"),
    [
        ("case 'a.png': a.png: missing from the copy", "case 'b c/d.png': b c/d.png: missing from the copy", True),
        ("case 'a': noise of 9 stored units exceeds", 'case "b\'c": noise of 1e+03 stored units exceeds', True),
        ("a.txt: missing from the copy", "b/c.txt: missing from the copy", True),
        ("m.json: lacks file a.png", "m.json: lacks file b/c.png", True),
        ("case 'a.png': its label differs", "case 'a.png': is unprotected", False),
        ("a.txt: missing from the copy", "a.txt: not in the original data set", False),
    ],
)
def test_problems_that_differ_in_names_and_numbers_are_of_a_kind(problem: str, other: str, alike: bool) -> None:
    assert len(briefly([problem, other])) == 2
    assert len(briefly([problem, other] * 3)) == (4 if alike else 6)


def test_shards(folder: Path) -> None:
    run("generate", folder / "set", "--store", folder / "n.db", *FAST)
    call = ("publish", folder / "set", folder / "out", "--store", folder / "n.db", "--num-shards", 2, "--jobs", 2)
    assert not run(*call, "--shard-index", 0)["complete"]
    assert not (folder / "out").exists()
    assert run(*call, "--shard-index", 1)["complete"]
    assert run("verify", folder / "set", folder / "out", "--store", folder / "n.db", "--jobs", 2)["ok"]
    result = CliRunner().invoke(app, [*map(str, call), "--shard-index", "2"])
    assert result.exit_code == 2
    assert "must be less than --num-shards" in result.output


def test_encrypt_and_decrypt(folder: Path) -> None:
    age = pytest.importorskip("pyrage")
    run("generate", folder / "set", "--store", folder / "n.db", *FAST)
    key = age.x25519.Identity.generate()
    (folder / "key.txt").write_text(str(key))
    run("encrypt", folder / "n.db", folder / "n.age", "--recipient", key.to_public())
    run("decrypt", folder / "n.age", folder / "m.db", "--identity", folder / "key.txt")
    assert run("info", folder / "m.db")["cases"] == run("info", folder / "n.db")["cases"] == 3
    assert (
        "exists" in run("decrypt", folder / "n.age", folder / "m.db", "--identity", folder / "key.txt", code=1)["error"]
    )


def test_a_wrong_key_is_refused_before_there_is_any_noise(folder: Path) -> None:
    pytest.importorskip("cryptography")
    (folder / "key.pem").write_text("x")
    (folder / "key.pem").chmod(0o600)
    failed = run("protect", folder / "set", folder / "out", *FAST, "--sign-key", folder / "key.pem", code=1)
    assert "no private key in PEM" in failed["error"]
    assert sorted(path.name for path in folder.iterdir()) == ["key.pem", "set"]


@pytest.mark.parametrize("arguments", [(), ("--overwrite",)])
def test_protect_cleans_up_after_a_kill_at_its_very_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """What is left beside the copy must not stay for ever."""
    with monkeypatch.context() as patch:
        for name in ("remove", "_remove_if_empty"):
            patch.setattr(Staging, name, lambda self: None)
        run("protect", folder / "set", folder / "out", *FAST)
    assert (folder / ".out.partial").is_dir()
    assert run("protect", folder / "set", folder / "out", *FAST, *arguments)["ok"]
    assert sorted(path.name for path in folder.iterdir()) == ["out", "out.noise.db", "set"]
