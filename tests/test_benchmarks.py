"""Benchmarks still run on the package as it is; what they measure is not looked at here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import classification_cases

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """A benchmark's script as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_strength_trains_a_victim(tmp_path: Path) -> None:
    strength = load("strength")
    arrays = {}
    for split, seed in (("train", 0), ("test", 1)):
        cases = classification_cases(cases=16, seed=seed)
        arrays[f"{split}_images"] = np.concatenate([case["image"] for case in cases])
        arrays[f"{split}_labels"] = np.array([[case["label"]] for case in cases])
    np.savez(tmp_path / "set.npz", **arrays)
    where = {"source": str(tmp_path / "set.npz"), "copy": str(tmp_path / "set.npz"), "row": "none", "patch_size": None}
    result = strength.train({**where, "victim": "vgg11", "seed": 0, "augment": "none", "threads": 1})
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
    assert {"check", "generate", "write"} == set(found["stages"])


def test_storage_benchmarks_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, loader = load("store_size"), load("in_loader")
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
