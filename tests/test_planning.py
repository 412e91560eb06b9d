"""``plan`` says what would happen and writes nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import classification_cases
from PIL import Image
from published_samples import make_archive, make_folder

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import open_layout
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.tasks import Classification
from monai_salm.methods import EM, SALM, ClassTexture, ErrorMinimizing, Method, RandomNoise
from monai_salm.methods.perturbations import Perturbation
from monai_salm.noise.window import FixedWindow, IntensityWindow, PercentileWindow, WindowRule
from monai_salm.publishing import plan, publish
from monai_salm.shared.progress import Progress


def test_plan_of_a_folder(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    (root / "training/i2.nii.gz").write_text("x")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    found = plan(root, method=SALM(), width=0.05, device="cpu")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    assert (found.layout, found.splits, found.protected) == ("datalist", {"train": 3, "test": 1}, 2)
    assert (found.shapes, found.dtypes) == ({"(1, 7, 6, 5)": 2}, {"int16": 2})
    assert list(found.refused) == ["training/i2.nii.gz"]
    assert "not a NIfTI file" in found.refused["training/i2.nii.gz"] or "gzip" in found.refused["training/i2.nii.gz"]
    assert not found.ok
    assert found.bytes["working"] == 2 * 210 * (2 + 2 * 1 + 1)  # the images, codes of a byte twice, and masks
    assert found.bytes["copy"] == sum(path.stat().st_size for path in root.rglob("[!.]*") if path.is_file())
    assert found.seconds is not None
    assert 0 < found.seconds < 60


@pytest.mark.parametrize("name", ["copy", "splits"])
def test_one_text_is_not_taken_letter_by_letter(name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be a sequence of texts, such as \('\*',\)"):
        plan(tmp_path, method=SALM(), **{name: "*"})  # type: ignore[arg-type]


def test_working_files_hold_what_networks_see(tmp_path: Path, rng: np.random.Generator) -> None:
    for number in range(4):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 50)).astype("uint8")).save(path)
    found = plan(tmp_path / "set", method=SALM(), width=0.05, device="cpu")
    assert found.view["size"] == (32, 32)
    assert found.bytes["working"] == 4 * (60 * 50 * (1 + 2 * 1 + 1) + 32 * 32 * 4)


@pytest.mark.parametrize("kind", ["jpg", "bmp", "lzw.tif"])
def test_originals_that_the_store_keeps_count(tmp_path: Path, kind: str) -> None:
    root, rng = tmp_path / "set", np.random.default_rng(0)
    for number in range(8):
        path = root / "ab"[number % 2] / f"{number}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"compression": "tiff_lzw"} if kind == "lzw.tif" else {}
        Image.fromarray(rng.integers(0, 255, (60, 50)).astype("uint8")).save(path, **options)
    found = plan(root, method=RandomNoise(), device="cpu")
    assert found.ok
    data = open_layout(root)
    store = precompute(data.dataset(), tmp_path / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    assert publish(root, tmp_path / "out", store).ok
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*"))
    assert found.bytes["store"] == pytest.approx((tmp_path / "noise.db").stat().st_size, rel=0.5)
    assert found.bytes["copy"] == pytest.approx(written, rel=0.5)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (6, 6, 6)])
def test_plan_of_an_archive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = plan(make_archive(tmp_path / "set.npz", shape), method=SALM(), width=0.05, device="cpu")
    assert found.ok
    assert found.window == {"kind": "automatic"}
    assert found.noise[0]["window"][0] == [0, 255], "MedMNIST's numbers of 8 bits are 0 to 255 in volumes too"
    assert found.task["kind"] == "classification"
    assert found.protected == 5


def test_time_grows_with_the_schedule(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "set.npz", (8, 8))

    def seconds(method: Method) -> float:
        found = plan(source, method=method, width=0.05, device="cpu").seconds
        assert found is not None
        return found

    assert seconds(EM(rounds=100)) > 5 * seconds(EM(rounds=2))
    assert plan(source, method=RandomNoise(), device="cpu").seconds == 0


@pytest.mark.parametrize("rank", [2, 3])
def test_only_images_that_take_noise_steps_count(tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under SALM's default these are the images of the plain class; a mask is chosen once for all images. A step takes 1 s here."""
    monkeypatch.setattr(sys.modules["monai_salm.publishing.effort"], "_time", lambda step: 1.0)
    source = tmp_path / "set.npz"
    cases = classification_cases((8,) * rank, cases=40, num_classes=4)
    labels = np.array([[case["label"]] for case in cases])
    labels[:2] = 3  # class 0 is the rarest: 9 of 40 cases
    np.savez(source, train_images=np.concatenate([case["image"] for case in cases]), train_labels=labels)

    def seconds(method: Method) -> float:
        found = plan(source, method=method, width=0.05, device="cpu").seconds
        assert found is not None
        return found

    threads, batch = torch.get_num_threads(), default_recipe(Classification(num_classes=4), rank).batch_size
    batch = min(batch, 40)

    def batches(count: int) -> float:
        return max(count / batch / threads, min(count / batch, 1))

    texture = SALM(perturbation=ClassTexture(surrogate_steps=5))
    assert seconds(texture) == pytest.approx(5 + texture.loop().num_steps * batches(9) + batches(40))
    steps = ErrorMinimizing(surrogate_steps=5, num_steps=4, rounds=3)
    assert seconds(SALM(perturbation=steps)) == pytest.approx(3 * (5 + 4 * batches(40)) + batches(40))
    assert seconds(SALM(perturbation=steps, mask_scope="step")) == pytest.approx(3 * (5 + 4 * batches(40)))


@pytest.mark.filterwarnings("ignore:.*outside the window:UserWarning")
@pytest.mark.parametrize("rule", [None, IntensityWindow(-160, 240), FixedWindow(-160, 240), PercentileWindow()])
def test_the_noise_is_shown_in_real_units(tmp_path: Path, rule: WindowRule | None) -> None:
    """A file of half Hounsfield units that begin at -1024: half as many HU as stored units."""
    root, rng = tmp_path / "set", np.random.default_rng(0)
    root.mkdir()
    for index in range(2):
        file = nibabel.Nifti1Image(rng.integers(0, 4000, (8, 8, 8)).astype("int16"), np.eye(4))
        file.header.set_slope_inter(0.5, -1024)
        nibabel.save(file, root / f"{index}.nii")
        with open(root / f"{index}.nii", "r+b") as stream:  # nibabel keeps a slope for reading only
            stream.seek(112)
            stream.write(np.array([0.5, -1024], "<f4").tobytes())
    listing = {"training": [{"image": f"{index}.nii", "label": index} for index in range(2)]}
    (root / "dataset.json").write_text(json.dumps(listing))
    found = plan(root, method=RandomNoise(epsilon=0.1), window=rule, device="cpu")
    assert [image["name"] for image in found.noise] == ["0.nii", "1.nii"]
    for image in found.noise:
        ((low, high),), (noise,), (stored,) = image["window"], image["noise"], image["stored"]
        if isinstance(rule, FixedWindow):
            assert (low, high) == (-160, 240), "real units"
        elif isinstance(rule, IntensityWindow):
            assert (low, high) == (-160 / 2 - 1024, 240 / 2 - 1024), "stored units"
        else:
            assert low == pytest.approx(-1024 + 10, abs=10)
            assert high == pytest.approx(976 - 10, abs=10)
        assert noise == stored / 2
        assert noise == pytest.approx(0.1 * (high - low), abs=0.5)
    assert found.window["kind"] == {None: "automatic"}.get(rule, rule and rule.spec()["kind"])


def test_noise_is_shown_for_a_few_images_of_many(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "set.npz", (8, 8))
    with np.load(source) as arrays:
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), "uint8")
        np.savez(source, **{**arrays, "train_images": images, "train_labels": np.arange(40)[:, None] % 2})
    found = plan(source, method=RandomNoise(), device="cpu")
    assert 3 <= len(found.noise) <= 6
    assert all(image["window"] == [[0, 255]] and image["noise"] == [8] for image in found.noise)


def test_label_maps_take_no_steps_under_a_texture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["monai_salm.publishing.effort"], "_time", lambda step: 1.0)
    root = make_folder(tmp_path / "set", "int16")
    method = SALM(perturbation=ClassTexture(surrogate_steps=50))
    seconds = plan(root, method=method, width=0.05, device="cpu").seconds
    assert seconds == pytest.approx(50 + 1), "three images of one batch, whose masks are chosen once"


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


def test_an_unlisted_copy_of_an_image_would_not_be_copied(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    shutil.copy(root / "training/i0.nii.gz", root / "backup.nii.gz")
    found = plan(root, method=RandomNoise(), window=IntensityWindow(-500, 500), device="cpu")
    assert set(found.not_copied) == {"backup.nii.gz", ".DS_Store"}
    assert found.ok
    named = plan(root, method=RandomNoise(), window=IntensityWindow(-500, 500), device="cpu", copy=["*.nii.gz"])
    assert list(named.refused) == ["backup.nii.gz"]
    assert not named.ok


def test_progress_gives_training_the_share_of_time_that_it_takes(tmp_path: Path) -> None:
    """So that the time left is right from the first lines on: most of SALM's default is training, since few images take steps."""
    cases = classification_cases((8, 8), cases=24, num_classes=4)

    def trained(name: str, perturbation: Perturbation) -> int:
        reports: list[Progress] = []
        precompute(cases, tmp_path / name, method=SALM(perturbation=perturbation), task=Classification(num_classes=4),
                   width=0.05, device="cpu", surrogate="resnet10", progress=reports.append)  # fmt: skip
        return max(report.done for report in reports if "training" in report.detail)

    steps = SALM().loop().num_steps
    assert trained("texture.db", ClassTexture(surrogate_steps=6)) == int(1000 * 6 / (6 + steps / 4))
    assert trained("steps.db", ErrorMinimizing(surrogate_steps=6, num_steps=2, rounds=1)) == int(1000 * 6 / (6 + 2))
