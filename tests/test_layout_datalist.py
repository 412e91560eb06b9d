"""Datalists and the Decathlon: what entries may say, and paths that never lead out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import build_datalist, build_decathlon, random_image, save_json, save_nifti

from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.datalist import Decathlon
from monai_salm.learning.tasks import Classification, Segmentation


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return build_datalist(tmp_path / "Task99")


def test_images_and_label_maps_are_read(listed: Path) -> None:
    for place in (listed, listed / "dataset.json"):
        data = detect(place)
        assert (data.name, data.root) == ("datalist", listed)
        assert data.splits == ("train", "val", "test")
        assert data.task() == Segmentation(num_classes=4)
        assert (data.has_labels("train"), data.has_labels("test"), data.test_split()) == (True, False, "val")
        case = data.dataset()[1]
        assert case["name"] == "imagesTr/c1.nii.gz"
        assert (case["image"].shape, case["image"].dtype) == ((1, 6, 5, 4), np.dtype("int16"))
        assert case["label"].shape == (1, 6, 5, 4)
        assert data.dataset("test")[0]["label"] is None


def test_classification(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(4):
        save_nifti(tmp_path / f"{index}.nii", rng.random((4, 4)).astype("float32") * 3000)
    single = [{"image": f"{i}.nii", "label": i} for i in range(3)]
    listing = save_json(tmp_path / "my list.json", {"training": single, "test": [{"image": "3.nii", "label": 4}]})
    data = detect(tmp_path)
    assert data.task() == Classification(num_classes=5)
    assert data.dataset()[2]["label"] == 2
    assert data.test_split() == "test"
    save_json(listing, {"training": [{"image": "0.nii", "label": [0, 1]}, {"image": "1.nii", "label": [1, 1]}]})
    assert detect(tmp_path).task() == Classification(num_classes=2, multi_label=True)
    save_json(listing, {"training": [{"image": "0.nii", "label": [1]}]})
    assert detect(tmp_path).dataset()[0]["label"] == 1
    save_json(tmp_path / "second.json", {"training": single})
    with pytest.raises(LayoutError, match=r"my list\.json, second\.json"):
        detect(tmp_path)
    assert detect(tmp_path / "second.json").task() == Classification(num_classes=3)


@pytest.mark.parametrize("labels", [None, {"background": 0, "organ": 2}, {"0": "background", "2": "organ"}])
def test_number_of_voxel_classes(tmp_path: Path, labels: Any) -> None:
    save_nifti(tmp_path / "i.nii", np.zeros((4, 4, 4), "int16"))
    save_nifti(tmp_path / "l.nii", np.arange(64, dtype="uint8").reshape(4, 4, 4) % 3)
    content = {"training": [{"image": "i.nii", "label": "l.nii"}]} | ({} if labels is None else {"labels": labels})
    save_json(tmp_path / "dataset.json", content)
    assert detect(tmp_path).task() == Segmentation(num_classes=3)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.nii",
        "imagesTr/../../secret.nii",
        "/etc/passwd",
        "C:/secret.nii",
        "..\\secret.nii",
        "out/secret.nii",
        "out.nii",
    ],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_paths_that_lead_out_are_refused(listed: Path, path: str, key: str) -> None:
    save_nifti(listed.parent / "secret.nii", np.zeros((6, 5, 4), "int16"))
    os.symlink(listed.parent, listed / "out")
    os.symlink(listed.parent / "secret.nii", listed / "out.nii")
    content = json.loads((listed / "dataset.json").read_text())
    content["training"][1][key] = path
    save_json(listed / "dataset.json", content)
    with pytest.raises(LayoutError, match=r"training\[1\]") as caught:
        detect(listed)
    assert "inside" in str(caught.value) or "leads out" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"training": [{"image": ["i.nii", "j.nii"], "label": 1}, {"image": "j.nii", "label": 0}]},
            "part of two images",
        ),
        ({"training": [{"image": "i.nii", "label": {"a": 1}}]}, r"training\[0\]: label is an object with the keys 'a'"),
        ({"training": [{"image": "i.nii", "label": -1}]}, "label of i.nii is -1"),
        ({"training": [{"image": "i.nii", "label": 10**30}]}, "classes are numbers from 0 to 65535"),
        ({"training": [{"image": "i.nii", "label": [0, 7]}]}, "not zeros and ones only"),
        ({"training": [{"image": "i" * 5000, "label": 1}]}, "a path of 5000 characters"),
        ({"training": [{"image": "i" * 3000, "label": 1}]}, "is too long for a file"),
        ({"training": [{"image": "a\0b", "label": 1}]}, "must be text"),
        ({"training": {}}, "must be a list"),
        ({"training": []}, "no .training. list"),
        ({"training": [3]}, "expected"),
        ({"training": [{"label": 3}]}, "expected"),
        ({"training": [{"image": 5, "label": 3}]}, "must be text"),
        ({"training": [{"image": ["i.nii", "i.nii"], "label": 3}]}, "same file twice"),
        ({"training": [{"image": "i.nii", "label": 1.5}]}, "label must be"),
        ({"training": [{"image": "i.nii", "label": True}]}, "label must be"),
        ({"training": [{"image": "i.nii", "label": "i.nii"}]}, "both as an image and as a label"),
        ({"training": ["i.nii"]}, "i.nii has no label"),
        ({"training": [{"image": "i.nii", "label": 1}, {"image": "i.nii", "label": [0, 1]}]}, "different kinds"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, content: Any, reason: str) -> None:
    for name in "ij":
        save_nifti(tmp_path / f"{name}.nii", np.zeros((4, 4), "int16"))
    save_json(tmp_path / "list.json", content)
    with pytest.raises(LayoutError, match=reason):
        detect(tmp_path).task()


def test_a_missing_image_is_an_error_of_its_case_alone(tmp_path: Path) -> None:
    save_nifti(tmp_path / "i.nii", random_image(0))
    save_json(tmp_path / "list.json", {"training": [{"image": f"{name}.nii", "label": 1} for name in ("i", "gone")]})
    data = detect(tmp_path)
    assert data.dataset()[0]["image"].size
    with pytest.raises(FileNotFoundError, match=r"gone\.nii is missing; put it there"):
        data.dataset()[1]


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[" * 100_000, "[1]", '{"training": [], "training": [1]}', '{"training": NaN}', "\xff", "\0"):
        (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(LayoutError, match=r"dataset\.json"):
            detect(tmp_path)


def test_unlisted_images_are_found(listed: Path) -> None:
    data = detect(listed)
    others = {"labelsTs/c0.nii.gz", "labelsTs/c1.nii.gz"}
    (listed / "imagesTr" / "._c0.nii.gz").write_bytes(b"what macOS leaves")
    (listed / ".DS_Store").write_bytes(b"what macOS leaves")
    assert set(data.unlisted()) == {*others, "notes/readme.txt"}
    (listed / "original.npy").write_bytes(b"of a format that is not read")
    assert set(data.unlisted()) == {*others, "notes/readme.txt", "original.npy"}


def test_folds_of_auto3dseg_are_all_training(tmp_path: Path) -> None:
    for index in range(3):
        save_nifti(tmp_path / f"{index}.nii", random_image(index))
    entries = [{"image": f"{index}.nii", "label": index, "fold": index, "weight": 0.5} for index in range(3)]
    save_json(tmp_path / "datalist.json", {"training": entries, "testing": []})
    data = detect(tmp_path)
    assert (data.splits, len(data.dataset())) == (("train",), 3)


def test_channels_in_several_files_are_one_image(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save_nifti(tmp_path / f"{name}.nii", random_image(ord(name)))
    save_json(
        tmp_path / "datalist.json",
        {"training": [{"image": ["b.nii", "a.nii"], "label": 1}, {"image": "c.nii", "label": 0}]},
    )
    data = detect(tmp_path)
    assert [unit.files for unit in data.stored_images()] == [("b.nii", "a.nii"), ("c.nii",)]
    assert np.array_equal(data.dataset()[0]["image"][1], random_image(ord("a")))
    save_nifti(tmp_path / "a.nii", random_image(0, (3, 3, 3)))
    with pytest.raises(ValueError, match=r"case 'b\.nii': its channels differ: .*a\.nii is int16 \(3, 3, 3\)"):
        data.dataset()[0]


def test_a_decathlon_task_is_told_from_other_datalists(tmp_path: Path) -> None:
    root = build_decathlon(tmp_path / "Task01")
    for place in (root, root / "dataset.json"):
        data = detect(place)
        assert isinstance(data, Decathlon)
        assert data.splits == ("train", "test")
    assert data.task() == Segmentation(num_classes=3)
    assert data.dataset()[0]["image"].shape == (2, 6, 5, 4)
    assert (data.has_labels("train"), data.has_labels("test")) == (True, False)
    assert data.unlisted() == ()
    assert open_layout(root, "datalist").name == "datalist"
    assert data.reopen(root).name == "decathlon"


def test_decathlon_refuses_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r'no "modality".*--layout datalist'):
        open_layout(build_datalist(tmp_path / "list"), "decathlon")
    root = build_decathlon(tmp_path / "Task01")
    content = json.loads((root / "dataset.json").read_text())
    content["training"][1]["label"] = 3
    save_json(root / "dataset.json", content)
    with pytest.raises(LayoutError, match=r"imagesTr/c1\.nii\.gz must be the path of a label map, got 3"):
        detect(root)


@pytest.mark.parametrize("linked", [False, True])
def test_absolute_paths_in_the_folder_become_relative_in_the_copy(tmp_path: Path, linked: bool) -> None:
    root = tmp_path / "data"
    for index in range(2):
        save_nifti(root / f"i/{index}.nii.gz", random_image(index))
        save_nifti(root / f"l/{index}.nii.gz", random_image(index, dtype="uint8", high=3))
    if linked:
        os.symlink(root, tmp_path / "link")
    pairs = [{"image": str(root / f"i/{n}.nii.gz"), "label": str(root / f"l/{n}.nii.gz")} for n in range(2)]
    save_json(root / "datalist.json", {"training": pairs, "test": [str(root / "i/9.nii.gz")], "name": "x"})
    data = detect(tmp_path / ("link" if linked else "data"))
    assert isinstance(data, Decathlon.__base__)
    assert data.dataset().names == ("i/0.nii.gz", "i/1.nii.gz")
    assert data.label_files() == ("l/0.nii.gz", "l/1.nii.gz")
    ((file, content),) = data.rewritten_files().items()
    assert file == "datalist.json"
    assert str(tmp_path) not in content.decode()
    assert json.loads(content)["training"][1] == {"image": "i/1.nii.gz", "label": "l/1.nii.gz"}
    (root / file).write_bytes(content)
    again = detect(root)
    assert again.dataset().names == data.dataset().names
    assert again.rewritten_files() == {}


def test_labels_may_be_names_of_classes(tmp_path: Path) -> None:
    for index in range(3):
        save_nifti(tmp_path / f"{index}.nii", random_image(index))
    entries = [{"image": f"{index}.nii", "label": label} for index, label in enumerate(("CN", ["AD"], "CN"))]
    save_json(tmp_path / "dataset.json", {"training": entries})
    data = detect(tmp_path)
    assert (data.task(), data.class_names) == (Classification(num_classes=2), ("AD", "CN"))
    assert [case["label"] for case in data.dataset()] == [1, 0, 1]
    assert data.rewritten_files() == {}


def test_a_missing_label_map_is_no_class(tmp_path: Path) -> None:
    for index in range(2):
        save_nifti(tmp_path / f"{index}.nii", random_image(index))
    entries = [{"image": f"{index}.nii", "label": f"gone{index}.nii"} for index in range(2)]
    save_json(tmp_path / "dataset.json", {"training": entries})
    with pytest.raises(ValueError, match=r"label map is missing: .*gone0\.nii"):
        detect(tmp_path).dataset()[0]


def test_vectors_with_one_1_are_classes(tmp_path: Path) -> None:
    for index in range(3):
        save_nifti(tmp_path / f"{index}.nii", random_image(index))
    entries = [{"image": f"{n}.nii", "label": [float(n == m) for m in range(3)]} for n in range(3)]
    save_json(tmp_path / "dataset.json", {"training": entries})
    assert detect(tmp_path).task() == Classification(num_classes=3)
    assert [case["label"] for case in detect(tmp_path).dataset()] == [0, 1, 2]


def test_nnunet_version_1_names_images_without_their_channels(tmp_path: Path) -> None:
    for case in "ab":
        for channel in range(2):
            save_nifti(tmp_path / f"imagesTr/{case}_000{channel}.nii.gz", random_image(ord(case) + channel))
        save_nifti(tmp_path / f"labelsTr/{case}.nii.gz", random_image(0, dtype="uint8", high=2))
    pairs = [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"]
    content = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "x"}, "training": pairs}
    save_json(tmp_path / "dataset.json", content)
    data = detect(tmp_path)
    assert data.dataset().names == ("imagesTr/a.nii.gz", "imagesTr/b.nii.gz")
    assert data.stored_images()[0].files == ("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz")
    assert data.dataset()[0]["image"].shape == (2, 6, 5, 4)
    (tmp_path / "imagesTr/a_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"1 files of channels \(imagesTr/a_0000\.nii\.gz, \.\.\.\), 2 are named"):
        detect(tmp_path).dataset()[0]
    assert "imagesTr/a_0000.nii.gz" in detect(tmp_path).image_files()
