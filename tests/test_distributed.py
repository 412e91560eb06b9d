"""Several ranks make the noise of one data set: each its own cases, trained together, the same bytes every time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases
from ranks import Ended, die, run_ranks
from torch import nn

import monai_salm
from monai_salm.cli.running import begin_as_rank
from monai_salm.generate.precompute import precompute
from monai_salm.jobs.launch import Launch, launch
from monai_salm.jobs.world import World, joined, rank_device
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.methods import EM, SALM, ClassTexture, ErrorMinimizing, RandomNoise
from monai_salm.methods.job import Job
from monai_salm.methods.masks import TopK
from monai_salm.methods.work_units import plan_units, unit_owners
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.store import NoiseStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no forkserver")
ROOT = Path(__file__).resolve().parents[1]
SHORT: dict[str, Any] = {"num_steps": 2, "surrogate_steps": 3, "rounds": 3}
STEPS = SALM(mask_scope="step", perturbation=ErrorMinimizing(**SHORT))
SETTINGS: dict[str, dict[str, Any]] = {
    "salm": {"method": STEPS},
    "texture": {"method": SALM(perturbation=ClassTexture(surrogate_steps=3))},
    "sample": {"method": EM(**SHORT, mask=TopK(ratio=0.3), restart_every=2, calibration_steps=1)},
    "classwise": {"method": EM(**SHORT, perturb_type="classwise"), "classes": 3},
    "random_noise": {"method": RandomNoise()},
    "segmentation": {"method": STEPS, "segmentation": True},
}


def tiny(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Without batch normalisation, so that it does not matter which rank sees a case."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), pool, nn.Linear(8, out_channels))


def make(store: Path, what: str = "salm", cases: int = 25, data: Any = None, **options: Any) -> NoiseStore:
    setting = {**SETTINGS[what]}
    classes, segmentation = setting.pop("classes", 2), setting.pop("segmentation", False)
    task = Segmentation(num_classes=2) if segmentation else Classification(num_classes=classes)
    made = segmentation_cases((16, 16), cases) if segmentation else classification_cases((12, 12), cases, classes)
    return precompute(
        data or made,
        store,
        task=task,
        window=IntensityWindow(0, 255),
        recipe=Recipe(batch_size=16, lr=0.05, precision="float32"),
        device="cpu",
        **{"surrogate": "unet" if segmentation else "resnet10", "width": 0.05, **setting, **options},
    )


def codes_of(store: Path) -> dict[bytes, bytes]:
    opened = NoiseStore(store)
    found = {noise.digest: noise.codes.tobytes() for noise in opened}
    opened.close()
    return found


def same(ends: list[Ended]) -> None:
    assert [end.error for end in ends] == [None] * len(ends)


# ---------------------------------------------------------------------------------------------------------------------
# Who owns what


def world_of(rank: int, size: int) -> World:
    return World(rank, size)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 16, 33, 128])
def test_parts_of_a_batch_average_to_the_batch(size: int, count: int) -> None:
    values = torch.arange(count, dtype=torch.float64)
    parts = [world_of(rank, size).part(count) for rank in range(size)]
    average = sum(weight * values[part].mean() for part, weight in parts) / size
    assert average == pytest.approx(float(values.mean()))
    assert all(part.stop - part.start >= min(8, count) for part, _ in parts)
    assert {i for part, _ in parts for i in range(count)[part]} == set(range(count))
    if count % size == 0 and count // size >= 8:
        assert all(weight == 1 for _, weight in parts)


def job_of(shapes: list[tuple[int, ...]], world: World, tmp_path: Path) -> Job:
    class Plan:
        pass

    plan: Any = Plan()
    plan.shapes = shapes
    cases: Any = type(
        "C",
        (list,),
        {"view": type("V", (), {"tiles": staticmethod(lambda shape: [tuple(slice(0, n) for n in shape)])})},
    )(shapes)
    cases.labels = [0] * len(shapes)
    recipe = Recipe(batch_size=16)
    return Job(cases=cases, workspace=plan, recipe=recipe, device=torch.device("cpu"), seed=0, world=world)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("cases", [1, 7, 40, 161])
def test_every_case_is_in_one_unit_and_ranks_have_equal_shares(size: int, cases: int, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(1, 8, 8)] * cases
    job = job_of(shapes, world_of(0, size), tmp_path)
    units = plan_units(job)
    assert sorted(case for unit in units for case in unit.cases) == list(range(cases))
    assert max(len(unit.cases) for unit in units) <= 16
    owners = unit_owners(job, units)
    assert all(len({owners[case] for case in unit.cases}) == 1 for unit in units)
    shares = [Counter(owners)[rank] for rank in range(size)]
    assert max(shares) - min(shares) <= max(1, len(units) // size)


def test_large_images_are_few_in_a_unit_on_a_processor(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(3, 224, 224)] * 40
    job = job_of(shapes, world_of(0, 1), tmp_path)
    assert max(len(unit.cases) for unit in plan_units(job)) * 3 * 224 * 224 <= 2**20
    gpu = replace(job, device=torch.device("cuda"))
    assert max(len(unit.cases) for unit in plan_units(gpu)) == 16


def test_images_of_many_sizes_are_shared_by_their_size(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(1, side, 8) for side in range(8, 48)]
    job = job_of(shapes, world_of(0, 4), tmp_path)
    owners = unit_owners(job, plan_units(job))
    loads = [sum(np.prod(shapes[c]) for c in range(40) if owners[c] == rank) for rank in range(4)]
    assert max(loads) < 1.05 * min(loads)


# ---------------------------------------------------------------------------------------------------------------------
# Ranks together


def several(rank: int, folder: Path, names: list[str]) -> list[str]:
    """Every setting in one group, as a program that calls ``precompute`` several times."""
    return [str(make(folder / f"{name}.db", name).path) for name in names]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of every setting, made by two ranks."""
    folder = tmp_path_factory.mktemp("two")
    same(run_ranks(2, several, folder, list(SETTINGS), folder=folder))
    return folder


@pytest.mark.parametrize("what", SETTINGS)
def test_every_case_has_its_noise_and_nothing_is_left_behind(what: str, two: Path) -> None:
    store = NoiseStore(two / f"{what}.db")
    assert len(store) == 25
    assert all(noise.codes.any() for noise in store)
    assert store.meta["ranks"] == 2
    assert not list(two.glob("*.work*"))


def test_equal_bytes_with_as_many_ranks_also_on_two_machines(two: Path, tmp_path: Path) -> None:
    same(run_ranks(2, several, tmp_path, list(SETTINGS), folder=tmp_path, machines=2))
    for what in SETTINGS:
        assert codes_of(tmp_path / f"{what}.db") == codes_of(two / f"{what}.db"), what
    assert not list(tmp_path.glob("*.work*"))


def test_random_noise_is_that_of_one_process(two: Path, tmp_path: Path) -> None:
    make(tmp_path / "one.db", "random_noise")
    assert codes_of(tmp_path / "one.db") == codes_of(two / "random_noise.db")


def test_equal_strength_means_the_same_mathematics(tmp_path: Path) -> None:
    """Without batch statistics ranks differ from one process by rounding alone."""
    options = {"surrogate": tiny, "method": EM(**{**SHORT, "rounds": 2}), "cases": 24}
    same(run_ranks(2, with_options, tmp_path / "two.db", options, folder=tmp_path))
    make(tmp_path / "one.db", **options)
    one, other = codes_of(tmp_path / "one.db"), codes_of(tmp_path / "two.db")
    assert one.keys() == other.keys()
    equal = [np.mean(np.frombuffer(one[k], np.int8) == np.frombuffer(other[k], np.int8)) for k in one]
    assert np.mean(equal) > 0.98


def with_options(rank: int, store: Path, options: dict[str, Any]) -> None:
    make(store, **options)


def test_a_group_of_one_is_a_process_on_its_own(tmp_path: Path) -> None:
    same(run_ranks(1, several, tmp_path, ["salm"], folder=tmp_path))
    make(tmp_path / "alone.db")
    assert codes_of(tmp_path / "salm.db") == codes_of(tmp_path / "alone.db")
    assert "ranks" not in NoiseStore(tmp_path / "salm.db").meta


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong


@dataclass(frozen=True)
class Death:
    """The rank that dies when it is so far in the stage."""

    rank: int
    done: int


def killed(rank: int, store: Path, death: Death | None) -> None:
    if death is not None and rank == death.rank:
        report = World.reporting

        def deadly(world: World, progress: Any) -> Any:
            inner = report(world, progress)
            return lambda event: die() if event.stage == "generate" and event.done >= death.done else inner(event)

        World.reporting = deadly  # type: ignore[method-assign]
    make(store)


@pytest.mark.parametrize("death", [Death(1, 1500), Death(0, 1100)])
def test_a_killed_rank_is_told_and_the_same_call_goes_on(death: Death, two: Path, tmp_path: Path) -> None:
    store = tmp_path / "noise.db"
    ends = run_ranks(3 if death.rank else 2, killed, store, death, folder=tmp_path)
    for rank, end in enumerate(ends):
        if rank == death.rank:
            assert (end.exitcode, end.error) == (-9, None)
        else:
            assert end.error is not None
            assert f"RankError: rank {rank} lost another rank" in end.error
            assert "run the same command again" in end.error
            assert end.seconds < 60
    assert not store.exists()
    assert json.loads((tmp_path / "noise.db.work" / "checkpoint.json").read_text())["rounds"] == 1
    if death.rank:
        alone = run_ranks(2, killed, store, None, folder=tmp_path)
        assert "holds an interrupted run with another ranks" in str(alone[0].error)
        same(run_ranks(3, killed, store, None, folder=tmp_path))
        same(run_ranks(3, killed, tmp_path / "whole.db", None, folder=tmp_path))
        assert codes_of(store) == codes_of(tmp_path / "whole.db")
    else:
        same(run_ranks(2, killed, store, None, folder=tmp_path))
        assert codes_of(store) == codes_of(two / "salm.db")


def interrupted(rank: int, store: Path, at: int | None) -> None:
    def stop(event: Any) -> None:
        if at is not None and event.stage == "generate" and event.done >= at:
            raise ValueError("enough")

    make(store, "sample", progress=stop)


def test_only_the_first_rank_keeps_its_folder_and_the_others_get_it_again(two: Path, tmp_path: Path) -> None:
    store = tmp_path / "noise.db"
    ends = run_ranks(2, interrupted, store, 1900, folder=tmp_path, machines=2)
    assert ends[0].error == "ValueError: enough"
    assert "RankError: rank 0 failed: enough" in str(ends[1].error)
    assert [path.name for path in tmp_path.glob("*.work*")] == ["noise.db.work"]
    same(run_ranks(2, interrupted, store, None, folder=tmp_path, machines=2))
    assert codes_of(store) == codes_of(two / "sample.db")


def wrong(rank: int, folder: Path, two: Path) -> list[str]:
    """Several calls that fail; the group outlives them."""
    bad = classification_cases((12, 12), 4)
    bad[2]["label"] = 9
    calls: list[dict[str, Any]] = [
        {"store": folder / "a.db", "seed": rank},
        {"store": folder / "b.db", "cases": 25 + rank},
        {"store": two / "random_noise.db", "seed": 5},
        {"store": folder / "c.db", "data": bad},
    ]
    errors = []
    for call in calls:
        try:
            make(what="random_noise", **call)
            errors.append("")
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


def test_an_error_of_one_rank_is_told_by_all(two: Path, tmp_path: Path) -> None:
    ends = run_ranks(2, wrong, tmp_path, two, folder=tmp_path)
    same(ends)
    first, second = (end.value for end in ends)
    assert "another seed than rank 0: all ranks need the same settings" in first[0]
    assert "another seed than rank 0" in second[0]
    assert all("rank 1 was called with another data than rank 0" in errors[1] for errors in (first, second))
    assert "exists and was made with another seed" in first[2]
    assert second[2].startswith("RankError: rank 0 failed: ")
    assert "exists and was made with another seed" in second[2]
    assert all(errors[3].startswith("LabelError: case 'case_0_002'") for errors in (first, second))
    assert not list(tmp_path.glob("*.work*"))


def test_ranks_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_device("cpu", 3) == "cpu"
    assert rank_device("cuda:1", 0) == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [rank_device(device, 1) for device in ("auto", "cuda", torch.device("cuda"))] == ["cuda:1"] * 3
    with pytest.raises(ValueError, match="rank 2 of this machine has no GPU of its own, there are 2: start as many"):
        rank_device("auto", 2)


# ---------------------------------------------------------------------------------------------------------------------
# torchrun


def test_only_torchrun_makes_ranks() -> None:
    cluster = {"RANK": "3", "WORLD_SIZE": "4"}
    assert launch(cluster) == Launch(0, 1)
    assert launch({**cluster, "TORCHELASTIC_RUN_ID": "none"}) == Launch(3, 4)
    with joined("cpu") as world:
        assert (world.size, world.links) == (1, None)


def test_verbs_of_one_process_are_refused_under_torchrun() -> None:
    with pytest.raises(
        ValueError, match="protect is one process' work, and torchrun started 2: make the noise with torchrun"
    ):
        begin_as_rank("protect", Launch(0, 2))


def torchrun(*arguments: object) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "-m",
        "monai_salm",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(monai_salm.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
def test_torchrun_ends_with_a_killed_rank_and_resumes(tmp_path: Path) -> None:
    cases = classification_cases((16, 16), 64)
    arrays = {"train_images": np.concatenate([case["image"] for case in cases])}
    arrays["train_labels"] = np.array([[case["label"]] for case in cases])
    np.savez(tmp_path / "set.npz", **arrays)
    settings = ["--surrogate", "resnet10", "--width", "0.05", "--rounds", "4", "--num-steps", "40", "--device", "cpu"]
    settings += ["--surrogate-steps", "5", "--perturbation", "error_minimizing"]

    def start(store: Path) -> subprocess.Popen[str]:
        return torchrun("generate", tmp_path / "set.npz", "--store", store, *settings, "--json")

    agent, checkpoint = start(tmp_path / "noise.db"), tmp_path / "noise.db.work" / "checkpoint.json"
    while not (checkpoint.exists() and "rounds" in checkpoint.read_text()):
        assert agent.poll() is None, agent.communicate()[1]
        time.sleep(0.05)
    os.kill(int(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()[1]), signal.SIGKILL)
    _, errors = agent.communicate(timeout=60)
    assert agent.returncode == 1
    assert "rank 0 was stopped from outside" in errors or "rank 0 lost another rank" in errors
    assert not (tmp_path / "noise.db").exists()
    for store in (tmp_path / "noise.db", tmp_path / "whole.db"):
        agent = start(store)
        output, errors = agent.communicate(timeout=300)
        assert agent.returncode == 0, errors
        assert json.loads(output)["cases"] == 64
        assert not list(tmp_path.glob("*.work*"))
    assert codes_of(tmp_path / "noise.db") == codes_of(tmp_path / "whole.db")
