"""docs/recipes.md runs as it stands, with the real packages, and training gets exactly the stored original plus its noise."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases
from PIL import Image

from monai_salm import ClassTexture, FixedWindow, NoiseStore, SALMProtect
from monai_salm.cli import app

GUIDE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, flags=re.DOTALL | re.MULTILINE))
# Shorter than shown, so that the test takes seconds.
SHOWN = "method=SALM(epsilon=8 / 255),"
RUN = 'method=SALM(epsilon=8 / 255, perturbation=ClassTexture(surrogate_steps=2)), surrogate="resnet10", width=0.1,'
# What other packages warn of is their affair.
pytestmark = pytest.mark.filterwarnings("ignore")
BUDGET = 8


def run(title: str, names: dict[str, Any]) -> None:
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[title], flags=re.DOTALL):
        exec(compile(block.replace(SHOWN, RUN), f"recipes.md, {title}", "exec"), names)  # noqa: S102 - the guide is ours


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the volumes and pictures that the guide speaks of, and the names after its first block."""
    root = tmp_path_factory.mktemp("recipes")
    cases = classification_cases((12, 12, 12), cases=8)
    (root / "scans").mkdir()
    listing: dict[str, list[dict[str, Any]]] = {"training": [], "test": []}
    for index, case in enumerate(cases):
        nibabel.save(nibabel.Nifti1Image(case["image"][0], np.eye(4)), root / "scans" / f"{index}.nii.gz")
        listing["training" if index < 6 else "test"].append({"image": f"./{index}.nii.gz", "label": case["label"]})
    (root / "scans" / "dataset.json").write_text(json.dumps(listing))
    for index, case in enumerate(classification_cases((20, 16), cases=6)):
        folder = root / "photos" / ("benign", "malignant")[case["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        colours = np.stack([case["image"][0], case["image"][0] // 2, 255 - case["image"][0]], axis=-1)
        Image.fromarray(colours).save(folder / f"{index}.png")
    names: dict[str, Any] = {"__name__": "recipes", "ClassTexture": ClassTexture}
    before = Path.cwd()
    os.chdir(root)
    try:
        run("The noise", names)
    finally:
        os.chdir(before)
    return root, names


@pytest.fixture
def here(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A fresh copy of the names, in the guide's folder."""
    root, names = made
    monkeypatch.chdir(root)
    return dict(names)


def expected(item: dict[str, Any]) -> np.ndarray:
    """The protected volume of an item, in stored units; noise is there and keeps to the budget."""
    original = np.asarray(nibabel.load(item["image"]).dataobj)[None]
    protected = SALMProtect("noise.db")(original)
    change = np.abs(protected.astype(int) - original)
    assert 0 < change.max() <= BUDGET
    return protected.astype(np.float32)


def test_the_guide_has_what_is_tested() -> None:
    assert GUIDE.count(SHOWN) == 3
    assert list(SECTIONS) == [
        "The noise",
        "Plain PyTorch",
        "PyTorch Lightning",
        "TorchIO",
        "torchvision ImageFolder",
        "Hugging Face datasets",
        "nnU-Net",
    ]


def test_plain_pytorch(here: dict[str, Any]) -> None:
    run("Plain PyTorch", here)
    images = torch.cat([image for image, _ in here["plain_loader"]])
    for image, item in zip(images, here["items"], strict=True):
        np.testing.assert_array_equal(image.numpy(), expected(item) / np.float32(255))


@pytest.mark.slow
def test_lightning(here: dict[str, Any]) -> None:
    pytest.importorskip("lightning")
    run("Plain PyTorch", here)  # imports that the guide's reader has by now
    run("PyTorch Lightning", here)
    assert here["trainer"].global_step == 3
    assert 0 <= here["trainer"].callback_metrics["val_accuracy"] <= 1
    for item, given in zip(here["items"], here["training"], strict=True):
        image = np.asarray(given["image"]) * 255
        wanted = expected(item)
        assert any(np.allclose(turned, wanted, atol=1e-3) for turned in (image, np.flip(image, (1, 2, 3))))
    clean = np.asarray(here["validation"][0]["image"]) * 255
    assert np.allclose(clean, np.asarray(nibabel.load("scans/6.nii.gz").dataobj)[None], atol=1e-3)


@pytest.mark.slow
def test_torchio(here: dict[str, Any]) -> None:
    tio = pytest.importorskip("torchio")
    here["SALMProtect"] = SALMProtect
    run("TorchIO", here)
    batches = list(here["torchio_loader"])
    images = torch.cat([batch["image"][tio.DATA] for batch in batches]).numpy() * 255
    for image, item in zip(images, here["items"], strict=True):
        wanted = expected(item)
        assert any(np.allclose(turned, wanted, atol=1e-3) for turned in (image, image[:, ::-1]))
    assert [label for batch in batches for label in batch["label"]] == [item["label"] for item in here["items"]]


def test_torchvision_image_folder(here: dict[str, Any]) -> None:
    run("Plain PyTorch", here)  # imports that the guide's reader has by now
    run("torchvision ImageFolder", here)
    images = torch.cat([batch for batch, _ in here["folder_loader"]])
    assert images.dtype == torch.float32
    assert len(NoiseStore("folder.db")) == len(images) == 6
    for image, (path, _) in zip(images, here["folder"].samples, strict=True):
        original = np.moveaxis(np.asarray(Image.open(path)), -1, 0)
        wanted = SALMProtect("folder.db")(original)
        assert 0 < np.abs(wanted.astype(int) - original).max() <= BUDGET
        given = (image.numpy() * 255).round()
        assert any(np.array_equal(turned, wanted) for turned in (given, given[..., ::-1]))


@pytest.mark.slow
def test_hugging_face_datasets(here: dict[str, Any]) -> None:
    pytest.importorskip("datasets")
    here.update(np=np, torch=torch, SALMProtect=SALMProtect)
    run("Hugging Face datasets", here)
    table, photos = here["table"], NoiseStore("photos.db")
    assert len(photos) == len(table) == 6
    assert photos.window == FixedWindow(0, 255)
    for index, row in enumerate(table):
        original = np.moveaxis(np.asarray(Image.open(here["paths"][index])), -1, 0)
        wanted = SALMProtect(photos)(original)
        assert 0 < np.abs(wanted.astype(int) - original).max() <= BUDGET
        np.testing.assert_array_equal(row["image"].numpy(), wanted / np.float32(255))
    assert table[:2]["label"] == [0, 0]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw nnU-Net data set of one ball a volume, in the folder that the commands run in."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "nnUNet_raw" / "Dataset501_Ball"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in segmentation_cases((16, 16, 16), cases=4):
        for folder, part, key in (("imagesTr", "_0000", "image"), ("labelsTr", "", "label")):
            file = root / folder / f"{case['name']}{part}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(case[key][0], np.diag([1.0, 1.0, 2.0, 1.0])), file)
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def commands(title: str, program: str) -> list[list[str]]:
    lines = re.findall(rf"^{program}\S* .*$", SECTIONS[title], flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_nnunet(raw: Path) -> None:
    short = ["--surrogate-steps", "1", "--width", "0.1"]
    calls = commands("nnU-Net", "monai-salm")
    assert [call[1] for call in calls] == ["protect", "verify"]
    for call in calls:
        with pytest.raises(SystemExit) as end:
            app([*call[1:], *(short if call[1] == "protect" else [])])
        assert not end.value.code, call
    copy = raw.with_name("Dataset601_BallPublic")
    assert (copy / "dataset.json").read_bytes() == (raw / "dataset.json").read_bytes()
    for file in sorted((raw / "imagesTr").iterdir()):
        images = [np.asarray(nibabel.load(path).dataobj).astype(int) for path in (file, copy / "imagesTr" / file.name)]
        assert np.abs(images[0] - images[1]).max() > 0


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("nnunetv2"), reason="nnunetv2 is not installed")
def test_nnunet_prepares_the_protected_copy(raw: Path) -> None:
    test_nnunet(raw)
    (call,) = commands("nnU-Net", "nnUNetv2")
    folders = {f"nnUNet_{kind}": str(raw.parents[1] / f"nnUNet_{kind}") for kind in ("raw", "preprocessed", "results")}
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry"
    script = raw.parents[1] / "prepare.py"
    script.write_text(f'{entry}\n\nif __name__ == "__main__":\n    plan_and_preprocess_entry()\n')
    done = subprocess.run(
        [sys.executable, str(script), *call[1:]],
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    prepared = raw.parents[1] / "nnUNet_preprocessed" / "Dataset601_BallPublic"
    assert len(list((prepared / "nnUNetPlans_2d").glob("*.b2nd"))) == 8  # an image and a label map of each case
    assert len(json.loads((prepared / "dataset_fingerprint.json").read_text())["spacings"]) == 4
