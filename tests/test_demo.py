"""The demo: its images are real and fairly split, and the whole way runs end to end on a small scale."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_salm.demo import data as demo_data
from monai_salm.demo.data import PLACES, DemoDataError, brain_crops, medmnist_archive, planes, template_path
from monai_salm.demo.run import SCALES, Scale, run_demo
from monai_salm.layouts import open_layout
from monai_salm.methods import SALM, ErrorMinimizing
from monai_salm.noise.window import FixedWindow, chosen_rule
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore

QUICK = SALM(perturbation=ErrorMinimizing(num_steps=2, surrogate_steps=2, rounds=2))
SMALL = Scale(counts=(32, 8, 16), method=QUICK, surrogate="resnet10", victims=("resnet10",), epochs=2)
TINY = replace(SMALL, counts=(16, 8, 8), epochs=1)  # for tests that run the demo several times


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def write_medmnist(path: Path, shape: tuple[int, ...], classes: int = 2) -> None:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {}
    for split, count in (("train", 24), ("val", 6), ("test", 12)):
        values[f"{split}_images"] = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        values[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    np.savez(path, **values)


@pytest.mark.parametrize("rank", [2, 3])
def test_no_plane_serves_training_and_test(rank: int) -> None:
    train, test = planes("train", rank), planes("test", rank)
    assert planes("val", rank) == train
    gap = min(abs(a - b) for a in train for b in test)
    assert gap >= (3 if rank == 2 else 1)
    assert min(train + test) > 0  # one hemisphere: the template's other one is its mirror image
    assert len(train) >= 28 or rank == 2
    assert len(test) >= 28 or rank == 2


@pytest.mark.parametrize("rank", [2, 3])
def test_a_crop_reads_the_planes_of_its_split_only(rank: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cut from a volume that is painted by plane, every crop shows which planes it came from."""
    import nibabel

    painted = np.zeros((197, 233, 189), np.uint8)
    for distance in range(98):
        painted[98 - distance] = painted[98 + distance] = distance + 1
    affine = np.array([[1, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]], float)
    nibabel.save(nibabel.Nifti1Image(painted, affine), tmp_path / "painted.nii")
    monkeypatch.setattr(demo_data, "template_path", lambda: tmp_path / "painted.nii")
    monkeypatch.setattr(demo_data, "_GAIN", (1.0, 1.0))
    monkeypatch.setattr(demo_data, "_FLOOR", 0.0)
    monkeypatch.setattr(demo_data, "_GRAIN", 0.0)
    brain_crops(tmp_path / "crops.npz", rank, (64, 16, 64), 0)
    found = arrays(tmp_path / "crops.npz")
    for split in ("train", "val", "test"):
        values = found[f"{split}_images"]
        centres = values[..., 14, 14]  # crops may reach beyond the volume, their centres do not
        assert {int(v) - 1 for v in np.unique(centres)} <= set(planes(split, rank))


def test_the_template_is_symmetric() -> None:
    """Why hemispheres cannot part training from test; if this ever fails, they can."""
    import nibabel

    volume = np.asarray(nibabel.load(template_path()).dataobj)
    np.testing.assert_array_equal(volume, volume[::-1])


@pytest.mark.parametrize(("rank", "shape"), [(2, (28, 28)), (3, (28, 28, 28))])
def test_crops_are_a_medmnist_archive(rank: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    counts = (16, 8, 8)
    brain_crops(tmp_path / "a.npz", rank, counts, 0)
    brain_crops(tmp_path / "b.npz", rank, counts, 0)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = arrays(tmp_path / "a.npz")
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        images, labels = found[f"{split}_images"], found[f"{split}_labels"]
        assert (images.shape, images.dtype) == ((count, *shape), np.uint8)
        assert np.bincount(labels[:, 0], minlength=8).tolist() == [count // 8] * 8
        assert len({image.tobytes() for image in images}) == count
        assert (images > 30).mean() > 0.2  # brain, not background
    layout = open_layout(tmp_path / "a.npz")
    assert layout.task().num_classes == len(PLACES) == 8
    assert chosen_rule(layout.dataset()[0]["units"]) == FixedWindow(0, 255)


def test_missing_nilearn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DemoDataError, match=r'nilearn is not installed\): pip install "monai_salm\[demo\]"'):
        template_path()


def test_nilearn_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nilearn", raising=False)
    template_path()
    assert "nilearn" not in sys.modules


@pytest.mark.parametrize("rank", [2, 3])
def test_demo_end_to_end(rank: int, tmp_path: Path) -> None:
    seen: list[Progress] = []
    lines: list[str] = []
    scale = SMALL if rank == 2 else Scale(**{**vars(SMALL), "counts": (8, 8, 8)})
    result = run_demo(tmp_path / "out", rank=rank, device="cpu", progress=seen.append, echo=lines.append, scale=scale)
    assert {"chance", "majority", "seconds", "cells", "psnr", "support"} <= set(result)
    ordinary = [(cell["pipeline"], cell["data"]) for cell in result["cells"] if cell["countermeasure"] == "none"]
    assert [data for pipeline, data in ordinary if pipeline == "plain"] == ["clean", "protected", "random_noise"]
    assert [data for pipeline, data in ordinary if pipeline == "resized 0.5"] == ["clean", "protected"]
    assert result["verified"]
    assert 20 < result["psnr"] < 60
    assert 0 < result["support"] <= 1
    assert list(result["stages"]) == ["data", "protect", "publish", "evaluate"]
    assert len(lines) == 4
    assert "protected" in result["text"]
    assert "a teaching example, chosen among five variants" in result["text"]
    assert ("In 3D, the planes of test volumes lie between" in result["text"]) == (rank == 3)
    assert "a teaching example" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert {p.stage for p in seen} >= {"evaluate"}
    json.dumps(result, allow_nan=False)
    before, after = arrays(Path(result["files"]["original"])), arrays(Path(result["files"]["protected"]))
    for key, value in before.items():
        assert np.array_equal(value, after[key]) == (key != "train_images")
    change = np.abs(after["train_images"].astype(int) - before["train_images"].astype(int))
    assert 0 < change.max() <= 8
    assert "Unlearnability" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["cells"] == result["cells"]


@pytest.mark.slow
def test_demo_runs_again_in_the_same_folder(tmp_path: Path) -> None:
    first = run_demo(tmp_path, device="cpu", echo=lambda line: None, scale=TINY)
    again = run_demo(tmp_path, device="cpu", echo=lambda line: None, scale=TINY)
    assert [{**cell, "seconds": 0} for cell in first["cells"]] == [{**cell, "seconds": 0} for cell in again["cells"]]
    other = run_demo(tmp_path, device="cpu", echo=lambda line: None, scale=TINY, seed=1)
    assert other["files"]["store"] != first["files"]["store"]


@pytest.mark.slow
def test_demo_replaces_what_a_demo_with_other_settings_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"device": "cpu", "echo": lambda line: None}
    stronger = replace(TINY, method=SALM(perturbation=replace(QUICK.perturbation, num_steps=3)))
    first = run_demo(tmp_path, scale=TINY, **quick)
    assert run_demo(tmp_path, scale=stronger, **quick)["files"]["store"] == first["files"]["store"]
    made = NoiseStore(first["files"]["store"])
    assert made.meta["method"]["perturbation"]["num_steps"] == 3
    made.close()

    def interrupt(done: Progress) -> None:
        if done.stage == "write":
            raise KeyboardInterrupt

    made.path.unlink()
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, scale=stronger, progress=interrupt, **quick)
    assert made.path.with_name(made.path.name + ".work").exists()
    run_demo(tmp_path, scale=TINY, **quick)
    assert NoiseStore(made.path).meta["method"]["perturbation"]["num_steps"] == 2


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 8)])
def test_demo_on_a_medmnist_archive(shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's download is stood in for by one that copies a small local archive."""
    write_medmnist(tmp_path / "local.npz", shape)

    class Fake:
        def __init__(self, split: str, download: bool, root: str) -> None:
            assert download
            (Path(root) / "fakemnist.npz").write_bytes((tmp_path / "local.npz").read_bytes())

    fake = types.SimpleNamespace(INFO={"fakemnist": {"python_class": "Fake"}}, Fake=Fake)
    monkeypatch.setitem(sys.modules, "medmnist", fake)  # type: ignore[arg-type]
    result = run_demo(tmp_path / "out", dataset="fakemnist", device="cpu", echo=lambda line: None, scale=SMALL)
    assert result["protocol"]["image_shape"] == ([3, 8, 8] if shape[-1] == 3 else [1, 8, 8, 8])
    assert result["protocol"]["cases"] == {"clean": 24, "protected": 24, "test": 12}


def test_medmnist_archive_is_cut_to_size(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "bloodmnist.npz", (8, 8, 3))
    path = medmnist_archive("bloodmnist", tmp_path, (10, 100, 5), 0)
    found = arrays(path)
    assert [len(found[f"{s}_images"]) for s in ("train", "val", "test")] == [10, 6, 5]
    whole = arrays(tmp_path / "bloodmnist.npz")
    assert all((image == whole["train_images"]).all((1, 2, 3)).any() for image in found["train_images"])
    assert medmnist_archive("bloodmnist", tmp_path, None, 0) == tmp_path / "bloodmnist.npz"


def test_unknown_or_unreachable_medmnist_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(split: str, download: bool, root: str) -> None:
        raise RuntimeError("no network")

    fake = types.SimpleNamespace(INFO={"bloodmnist": {"python_class": "fail"}}, fail=fail)
    monkeypatch.setitem(sys.modules, "medmnist", fake)  # type: ignore[arg-type]
    with pytest.raises(DemoDataError, match="unknown data set 'nomnist'; medmnist knows bloodmnist"):
        medmnist_archive("nomnist", tmp_path, None, 0)
    with pytest.raises(DemoDataError, match=r"cannot download 'bloodmnist': no network. Put bloodmnist.npz into"):
        medmnist_archive("bloodmnist", tmp_path, None, 0)
    monkeypatch.setitem(sys.modules, "medmnist", None)  # type: ignore[arg-type]
    with pytest.raises(DemoDataError, match=r'pip install "monai_salm\[demo\]"'):
        medmnist_archive("bloodmnist", tmp_path, None, 0)


def test_wrong_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank must be 2 or 3, got 4"):
        run_demo(tmp_path, rank=4)
    assert set(SCALES) == {2, 3}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_default_demo_keeps_its_promise(tmp_path: Path) -> None:
    result = run_demo(tmp_path, device="cpu")
    plain = [c for c in result["cells"] if (c["countermeasure"], c["pipeline"]) == ("none", "plain")]
    last = {(c["victim"], c["data"]): c["last"] for c in plain}
    for victim in ("resnet18", "vgg11"):
        assert last[victim, "clean"] >= 0.8
        assert abs(last[victim, "random_noise"] - last[victim, "clean"]) <= 0.05
        recovered = (last[victim, "protected"] - result["chance"]) / (last[victim, "clean"] - result["chance"])
        assert recovered <= 0.5  # small crops are learned fast (docs/experiments.md)
