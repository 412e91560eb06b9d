"""Benchmarks still run on the package as it is; what they measure is not looked at here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import classification_cases

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_strength_trains_a_victim(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("strength", BENCHMARKS / "strength.py")
    assert spec is not None
    assert spec.loader is not None
    strength = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(strength)
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
