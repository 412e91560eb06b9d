"""Names of files cannot move the cursor of a terminal or begin a line on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layout_samples import build_image_folder, save_png, save_text
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.shared.progress import Progress, progress_lines
from monai_salm.shared.terminal import all_printable, printable

FAST = ("--method", "random_noise", "--device", "cpu")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("grün 肺 é", "grün 肺 é"),
        ("a\nb.png", r"a\nb.png"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("gnp.\u202e", "gnp." + r"\u202e"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert all_printable({text: [text, 3, None]}) == {shown: [shown, 3, None]}


def test_progress_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress_lines(0)(Progress("plan", 1, 2, "a\nb\x1b[2J.png"))
    assert capsys.readouterr().err == "plan: 1/2, a\\nb\\x1b[2J.png\n"


def run(*arguments: object, code: int = 0) -> str:
    """What a verb says, on both streams; each name in it must be one line without control characters."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "\x1b" not in result.output
    assert not any(line.startswith(("b.png", "FORGED")) for line in result.output.splitlines())
    return result.output


def test_every_verb_writes_names_out(tmp_path: Path) -> None:
    root, out, store = tmp_path / "set", tmp_path / "out", tmp_path / "out.noise.db"
    build_image_folder(root, classes=("ok", "\x1b[31mbad"), splits=("train", "test"))
    for name in ("a\nb.png", "\x1b[2Jx.png"):
        save_png(root / "train/ok" / name, len(name))
    save_text(root / "train/ok/c\nFORGED.png", "no image")
    save_text(root / "d\nFORGED.bin", "left out")
    said = run("plan", root, *FAST, code=1)
    assert r"ok/c\nFORGED.png" in said
    assert r"d\nFORGED.bin" in said
    assert r"\x1b[31mbad 2, ok 5" in said
    said = run("protect", root, out, *FAST, code=1)
    assert r"ok/a\nb.png" in said
    assert r"c\nFORGED.png" in said
    assert r"\x1b[31mbad 2" in run("info", root)
    assert r"\x1b[31mbad 2" in run("info", store)
    assert r"c\nFORGED.png" in run("restore", out, tmp_path / "back", "--store", store)
    assert (tmp_path / "back/train/ok/a\nb.png").is_file()
    (out / "train/ok/a\nb.png").write_bytes((root / "train/ok/a\nb.png").read_bytes())
    assert r"a\nb.png" in run("verify", root, out, "--store", store, code=1)


def test_the_json_keeps_the_names_as_they_are(tmp_path: Path) -> None:
    build_image_folder(tmp_path, classes=("ok", "a\nb"))
    result = CliRunner().invoke(app, ["info", str(tmp_path), "--json"])
    assert list(json.loads(result.stdout)["classes"]["train"]) == ["a\nb", "ok"]
    assert len(result.stdout.splitlines()) == 1


def test_evaluate_writes_names_out(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    build_image_folder(root, classes=("ok", "a\nFORGED"), splits=("train", "test"), count=4)
    run("protect", root, out, *FAST)
    few = ("--victims", "resnet10", "--epochs", 1, "--seeds", 0, "--fractions", 1, "--controls", "none")
    said = run("evaluate", root, out, *few, "--countermeasures", "none", "--pipelines", "plain", "--device", "cpu")
    assert r"Images of each class in train: a\nFORGED 4, ok 4" in said


def test_errors_and_warnings_write_names_out(tmp_path: Path) -> None:
    assert r"set\nFORGED" in run("plan", tmp_path / "set\nFORGED", code=1)
    save_png(tmp_path / "x\nFORGED" / "a.png")
    assert r"x\nFORGED" in run("info", tmp_path, code=1)
