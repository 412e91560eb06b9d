"""A run that is killed with SIGKILL at any moment, and started again, ends in the same noise."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL and no forkserver")
SHORT = {"num_steps": 8, "surrogate_steps": 2, "restart_every": 2}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kill_resume")


@pytest.mark.slow
def test_killed_and_resumed_runs_end_in_the_same_noise(script: ModuleType, tmp_path: Path) -> None:
    kills = 8
    setting = script.Setting(rounds=5, method=SHORT, width=0.05, batch_size=8, threads=1)
    lines: list[str] = []
    result, images = script.kill_and_resume(setting, kills, 0, tmp_path, lines.append)
    assert images == 48
    assert result.differing == 0, lines
    assert (result.kills, result.stage_kills) == (kills, 3)
    assert result.jobs >= 4
    assert result.stages[:3] == ["check", "generate", "write"]
    assert list(tmp_path.iterdir()) == [tmp_path / "whole.db"]


def test_the_script_notices_other_noise(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = {b"a": b"1", b"b": b"2"}, {b"a": b"1", b"b": b"X"}
    stores: list[dict[bytes, bytes]] = [right, right, right, wrong]  # uninterrupted, then a job for each stage

    def no_run(setting: object, store: Path, **_: object) -> object:
        store.touch()
        return script.Run("done", 1.0)

    monkeypatch.setattr(script, "run", no_run)
    monkeypatch.setattr(script, "codes_of", lambda store: stores.pop(0))
    assert script.main(["--kills", "0"]) == 1
    assert "3 jobs of 2 images completed and compared: 1 images with other noise" in capsys.readouterr().out
