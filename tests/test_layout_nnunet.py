"""nnU-Net raw data sets: channels of a case are one image, and a case that lacks a file does not stop the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import build_nnunet, random_image, save_json, save_nifti, save_png

from monai_salm.formats import FormatError
from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.nnunet import NnUNet
from monai_salm.layouts.stored_images import UnusableImage
from monai_salm.learning.tasks import Segmentation


def change(root: Path, **values: Any) -> None:
    path = root / "dataset.json"
    content = json.loads(path.read_text()) | values
    save_json(path, {key: value for key, value in content.items() if value is not None})


def test_channels_of_a_case_are_one_image(tmp_path: Path) -> None:
    root = build_nnunet(tmp_path / "Dataset007_Sample")
    for place in (root, root / "dataset.json"):
        data = detect(place)
        assert isinstance(data, NnUNet)
        assert data.splits == ("train", "test")
        assert data.task() == Segmentation(num_classes=4)
    assert [unit.files for unit in data.stored_images()] == [
        tuple(f"imagesTr/p_{case:03d}_{channel:04d}.nii.gz" for channel in range(2)) for case in range(3)
    ]
    case = data.dataset()[1]
    assert (case["name"], case["image"].shape) == ("imagesTr/p_001_0000.nii.gz", (2, 6, 5, 4))
    assert np.array_equal(case["image"][1], random_image(101))
    assert case["label"].shape == (1, 6, 5, 4)
    assert data.has_labels("test")
    assert data.unlisted() == ()
    assert data.label_files()[0] == "labelsTr/p_000.nii.gz"


def test_a_unit_writes_each_channel_into_its_file(tmp_path: Path) -> None:
    data = detect(build_nnunet(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    unit = data.stored_images()[0]
    unit.write(
        tmp_path / "a", tmp_path / "b", unit.read(tmp_path / "a") + np.array([1, 2], "int16")[:, None, None, None]
    )
    copy = data.reopen(tmp_path / "b")
    assert np.array_equal(copy.dataset()[0]["image"][1], data.dataset()[0]["image"][1] + 2)
    assert list(unit.differences(tmp_path / "a", tmp_path / "b")) == []


def test_test_cases_may_lack_labels(tmp_path: Path) -> None:
    shutil.rmtree(build_nnunet(tmp_path) / "labelsTs")
    assert not detect(tmp_path).has_labels("test")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "organ": [1, 2], "tumour": [2]}, 3),
        ({"background": 0, "a": 1, "ignore": 2}, 3),
    ],
)
def test_region_labels(tmp_path: Path, labels: dict[str, Any], classes: int) -> None:
    change(build_nnunet(tmp_path), labels=labels)
    assert detect(tmp_path).task() == Segmentation(num_classes=classes)


def test_the_json_may_name_the_files(tmp_path: Path) -> None:
    build_nnunet(tmp_path)
    (tmp_path / "imagesTr").rename(tmp_path / "scans")
    dataset = {
        f"case{i}": {
            "images": [f"scans/p_{i:03d}_0000.nii.gz", f"scans/p_{i:03d}_0001.nii.gz"],
            "label": f"labelsTr/p_{i:03d}.nii.gz",
        }
        for i in range(2)
    }
    change(tmp_path, dataset=dataset, numTraining=2)
    data = detect(tmp_path)
    assert data.stored_images()[1].files == ("scans/p_001_0000.nii.gz", "scans/p_001_0001.nii.gz")
    assert set(data.unlisted()) == {"scans/p_002_0000.nii.gz", "scans/p_002_0001.nii.gz", "labelsTr/p_002.nii.gz"}


def test_png_images_in_colour_hold_all_channels_in_one_file(tmp_path: Path) -> None:
    for index in range(2):
        save_png(tmp_path / f"imagesTr/c{index}_0000.png", index, (8, 7, 3))
        save_png(tmp_path / f"labelsTr/c{index}.png", index)
    content = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "cell": 1}}
    save_json(tmp_path / "dataset.json", {**content, "numTraining": 2, "file_ending": ".png"})
    assert detect(tmp_path).dataset()[0]["image"].shape == (3, 8, 7)
    change(tmp_path, channel_names={"0": "R", "1": "G"})
    with pytest.raises(FormatError, match=r"c0_0000\.png': it has 3 channels, dataset\.json names 2: R, G"):
        detect(tmp_path).dataset()[0]


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def setting(**values: Any) -> Callable[[Path], None]:
    return lambda root: change(root, **values)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (setting(numTraining=2), "numTraining is 2, but there are 3 training cases"),
        (setting(numTraining=0), "numTraining is 0, but"),
        (setting(numTraining=-1), "numTraining is -1, but"),
        (setting(numTraining=True), "'numTraining' must be of type int"),
        (setting(numTraining=None), "has no 'numTraining'"),
        (setting(labels=None), "has no 'labels'"),
        (setting(labels={"background": 0}), "something beside the background"),
        (setting(labels={"background": 0, "a": "1"}), "label 'a' must be a number"),
        (setting(labels={"background": 0, "a": [[1]]}), "label 'a' must be a number"),
        (setting(labels=[0, 1]), "'labels' must be of type dict"),
        (setting(channel_names=["CT"]), "'channel_names' must be of type dict"),
        (setting(channel_names={}), "channel_names must name one channel"),
        (setting(file_ending=3), "'file_ending' must be of type str"),
        (setting(file_ending="/../x"), "file_ending must be a suffix"),
        (setting(dataset={"a": 3}), r"dataset\['a'\]: expected"),
        (setting(dataset={"a": {"images": ["dataset.json"]}}), r"dataset\['a'\]: a path must be text"),
        (setting(dataset={"a": {"images": [["x"]], "label": "y"}}), r"dataset\['a'\]: a path must be text"),
        (lambda root: shutil.rmtree(root / "imagesTr"), "imagesTr is missing"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(build_nnunet(tmp_path))
    with pytest.raises(LayoutError, match=reason):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (remove("imagesTr/p_001_0000.nii.gz"), "p_001_0000", "no channel 0000 in imagesTr"),
        (remove("imagesTr/p_001_0001.nii.gz"), "p_001_0000", "1 channels.*names 2: CT, PET"),
        (remove("labelsTr/p_002.nii.gz"), "p_002_0000", r"no label map labelsTr/p_002\.nii\.gz"),
        (
            lambda root: save_nifti(root / "imagesTr/p_000_0002.nii.gz", random_image(0)),
            "p_000_0000",
            "it has 3 channels",
        ),
        (
            lambda root: save_nifti(root / "imagesTr/odd.nii.gz", random_image(0)),
            "odd",
            "no channel number; name it CASE",
        ),
        (
            lambda root: save_nifti(root / "labelsTr/p_1.nii.gz", random_image(0)),
            "p_1_0000",
            "a label map, .*but no image",
        ),
    ],
)
def test_a_bad_case_keeps_its_place_and_says_why(
    tmp_path: Path, spoil: Callable[[Path], object], name: str, reason: str
) -> None:
    spoil(build_nnunet(tmp_path))
    data = detect(tmp_path)
    assert data.task() == Segmentation(num_classes=4)
    (unit,) = (unit for unit in data.stored_images() if isinstance(unit, UnusableImage))
    assert unit.name == f"imagesTr/{name}.nii.gz"
    with pytest.raises(FormatError, match=reason):
        data.dataset()[data.dataset().names.index(unit.name)]
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.glob(f"imagesTr/{name.removesuffix('_0000')}*")}
    assert set(unit.files) == found or (not found and unit.files == (unit.name,))
    assert all(
        unit.read(tmp_path).shape[0] == 2 for unit in data.stored_images() if not isinstance(unit, UnusableImage)
    )


def test_more_training_cases_may_be_declared_than_are_there(tmp_path: Path) -> None:
    change(build_nnunet(tmp_path), numTraining=9)
    assert len(detect(tmp_path).dataset()) == 3


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000, "\xff", '{"a": ' + "9" * 5000 + "}"]
)
def test_a_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    build_nnunet(tmp_path)
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LayoutError, match=r"dataset\.json"):
        open_layout(tmp_path, "nnunet")


@pytest.mark.parametrize("path", ["../secret.nii", "/etc/passwd", "C:/x.nii", "imagesTr/../../secret.nii", "link.nii"])
@pytest.mark.parametrize("key", ["images", "label"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str, key: str) -> None:
    root = build_nnunet(tmp_path / "data", channels=["CT"])
    save_nifti(tmp_path / "secret.nii", random_image(0))
    os.symlink(tmp_path / "secret.nii", root / "link.nii")
    entry: dict[str, Any] = {"images": ["imagesTr/p_000_0000.nii.gz"], "label": "labelsTr/p_000.nii.gz"}
    entry[key] = [path] if key == "images" else path
    change(root, dataset={"a": entry}, numTraining=1)
    with pytest.raises(LayoutError, match=r"dataset\['a'\].*(inside|leads out)"):
        detect(root)


def test_nnunet_finds_the_copy_as_sound_as_the_original(tmp_path: Path) -> None:
    """Runs nnU-Net's own check where NNUNET_PYTHON names an interpreter that has nnunetv2, or this one has it."""
    python = os.environ.get("NNUNET_PYTHON")
    if python is None:
        pytest.importorskip("nnunetv2")
        import sys

        python = sys.executable
    data = detect(build_nnunet(tmp_path / "Dataset007_Sample"))
    copy = tmp_path / "copy" / "Dataset007_Sample"
    shutil.copytree(data.root, copy)
    for unit in data.stored_images():
        unit.write(data.root, copy, unit.read(data.root) + np.int16(1))
    (copy / data.manifest).write_text("{}")
    for root in (data.root, copy):
        code = (
            "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as verify\n"
            f"if __name__ == '__main__': verify({str(root)!r}, 1)\n"
        )
        script = tmp_path / "check.py"
        script.write_text(code)
        done = subprocess.run([python, str(script)], capture_output=True, text=True, timeout=300)
        assert "verify_dataset_integrity Done" in done.stdout, done.stdout + done.stderr
