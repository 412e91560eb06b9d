"""``plan`` says what would happen and writes nothing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from conftest import classification_cases
from published_samples import make_archive, make_folder

from monai_salm.intensity import IntensityWindow
from monai_salm.methods import SALM, RandomNoise
from monai_salm.precompute import precompute
from monai_salm.progress import Progress
from monai_salm.publish import plan
from monai_salm.recipes import default_recipe
from monai_salm.tasks import Classification


def test_plan_of_a_folder(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    (root / "training/i2.nii.gz").write_text("x")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    found = plan(root, method=SALM(rounds=2), width=0.05, device="cpu")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    assert (found.layout, found.splits, found.protected) == ("datalist", {"train": 3, "test": 1}, 2)
    assert (found.shapes, found.dtypes) == ({"(1, 7, 6, 5)": 2}, {"int16": 2})
    assert list(found.refused) == ["training/i2.nii.gz"]
    assert "not a NIfTI file" in found.refused["training/i2.nii.gz"] or "gzip" in found.refused["training/i2.nii.gz"]
    assert not found.ok
    assert found.bytes["working"] == 2 * 210 * (2 + 2 * 1)  # the images, and codes of a byte twice
    assert found.bytes["copy"] == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert found.seconds is not None
    assert 0 < found.seconds < 60


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (6, 6, 6)])
def test_plan_of_an_archive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = plan(make_archive(tmp_path / "set.npz", shape), method=SALM(rounds=2), width=0.05, device="cpu")
    assert found.ok
    assert found.window == (0.0, 255.0)
    assert found.task["kind"] == "classification"
    assert found.protected == 5


def test_time_grows_with_the_schedule(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "set.npz", (8, 8))

    def seconds(**settings: Any) -> float:
        found = plan(source, method=SALM(**settings), width=0.05, device="cpu").seconds
        assert found is not None
        return found

    assert seconds(rounds=100) > 5 * seconds(rounds=2)
    assert plan(source, method=RandomNoise(), device="cpu").seconds == 0


@pytest.mark.parametrize("rank", [2, 3])
def test_only_images_that_take_noise_steps_count(tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under SALM's default these are the images of the plain class, under error-minimising noise all; a step takes 1 s here."""
    monkeypatch.setattr(sys.modules["monai_salm.publish.planning"], "_time", lambda step: 1.0)
    source = tmp_path / "set.npz"
    cases = classification_cases((8,) * rank, cases=40, num_classes=4)
    labels = np.array([[case["label"]] for case in cases])
    labels[:2] = 3  # class 0 is the rarest: 9 of 40 cases
    np.savez(source, train_images=np.concatenate([case["image"] for case in cases]), train_labels=labels)

    def seconds(**settings: Any) -> float:
        found = plan(source, method=SALM(surrogate_steps=5, **settings), width=0.05, device="cpu").seconds
        assert found is not None
        return found

    threads, batch = torch.get_num_threads(), default_recipe(Classification(num_classes=4), rank).batch_size
    batch = min(batch, 40)

    def batches(count: int) -> float:
        return max(count / batch / threads, min(count / batch, 1))

    assert seconds(num_steps=4) == pytest.approx(5 + 4 * batches(9))
    assert seconds(num_steps=4, start="zero", rounds=3) == pytest.approx(3 * (5 + 4 * batches(40)))
    assert seconds(num_steps=4, mask_scope="sample") == pytest.approx(5 + 4 * batches(9) + batches(40))


def test_a_repeated_image_with_another_label_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    image = nibabel.load(root / "training/i0.nii.gz")
    nibabel.save(image, root / "training/i1.nii.gz")  # the same image with another label
    found = plan(root, method=SALM(), window=IntensityWindow(-500, 500), device="cpu")
    assert "same image with different labels" in found.refused["training/i1.nii.gz"]
    assert not found.ok


def test_what_would_stop_everything_is_a_problem(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    for path in (root / "training").glob("i*"):
        path.write_text("x")
    found = plan(root, method=SALM(), window=IntensityWindow(-500, 500), device="cpu")
    assert "none of the 3 cases can be protected" in found.problems[0]
    assert found.seconds is None
    assert not found.ok


def test_an_unlisted_copy_of_an_image_is_a_problem(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    shutil.copy(root / "training/i0.nii.gz", root / "backup.nii.gz")
    found = plan(root, method=RandomNoise(), window=IntensityWindow(-500, 500), device="cpu")
    assert "backup.nii.gz is a copy of an image to be protected" in found.problems[0]


def test_progress_gives_training_the_share_of_time_that_it_takes(tmp_path: Path) -> None:
    """So that the time left is right from the first lines on: most of SALM's default is training, since few images take steps."""
    cases = classification_cases((8, 8), cases=24, num_classes=4)

    def trained(name: str, **settings: Any) -> int:
        reports: list[Progress] = []
        method = SALM(surrogate_steps=6, num_steps=2, **settings)
        precompute(cases, tmp_path / name, method=method, task=Classification(num_classes=4), width=0.05, device="cpu",
                   window=IntensityWindow(0, 255), surrogate="resnet10", progress=reports.append)  # fmt: skip
        return max(report.done for report in reports if "training" in report.detail)

    quarter = trained("default.db")
    assert quarter == int(1000 * 6 / (6 + 2 / 4))
    assert trained("zero.db", start="zero", rounds=1) == int(1000 * 6 / (6 + 2))
