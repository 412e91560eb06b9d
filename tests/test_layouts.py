"""Layouts say what a data set holds, and copy it with other images; paths from its own files never lead out of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_salm.formats import FormatError
from monai_salm.formats.base import Array
from monai_salm.intensity import IntensityWindow
from monai_salm.layouts import LAYOUTS, LayoutError, detect, open_layout
from monai_salm.tasks import Classification, Segmentation


def save_nifti(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1.0]), dtype=array.dtype), path)


def save_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def decathlon(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three training, one validation and two test cases, the test cases without labels; and a file no list names."""
    root = tmp_path / "Task99"
    for kind, count in (("Tr", 3), ("Va", 1), ("Ts", 2)):
        for index in range(count):
            save_nifti(root / f"images{kind}/c{index}.nii.gz", rng.integers(-900, 900, (6, 5, 4), "int16"))
            save_nifti(root / f"labels{kind}/c{index}.nii.gz", rng.integers(0, 3, (6, 5, 4), "uint8"))
    pairs = {
        k: [{"image": f"./images{k}/c{i}.nii.gz", "label": f"./labels{k}/c{i}.nii.gz"} for i in range(3)]
        for k in ("Tr", "Va")
    }
    content = {
        "labels": {"0": "background", "1": "liver", "2": "tumour", "3": "vessel"},
        "training": pairs["Tr"],
        "validation": pairs["Va"][:1],
        "test": ["./imagesTs/c0.nii.gz", "./imagesTs/c1.nii.gz"],
    }
    save_json(root / "dataset.json", content)
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").write_text("keep me")
    (root / "empty").mkdir()
    return root


def save_archive(path: Path, shape: tuple[int, ...], labels: Any = None, dtype: str = "uint8", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 200, (count, *shape)).astype(dtype)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None] if labels is None else np.asarray(labels)[:count]
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 7), (1, 8, 7)), ((8, 7, 3), (3, 8, 7)), ((8, 8, 8), (1, 8, 8, 8)), ((3, 3, 3), (3, 3, 3))],
)
def test_medmnist_reads_and_rewrites(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = detect(save_archive(tmp_path / "a.npz", shape))
    assert data.name == "medmnist"
    assert data.splits == ("train", "val", "test")
    assert data.task() == Classification(num_classes=3)
    assert data.window() == IntensityWindow(0.0, 255.0)
    assert data.test_split() == "test"
    dataset = data.dataset()
    assert len(dataset) == 4
    case = dataset[2]
    assert case["image"].shape == expected
    assert (case["label"], case["name"]) == (2, "train[2]")
    assert isinstance(case["label"], int)
    assert dataset[-1]["name"] == "train[3]"
    assert [c["name"] for c in dataset[1:3]] == ["train[1]", "train[2]"]
    with pytest.raises(IndexError):
        dataset[4]

    seen: list[str] = []

    def edit(name: str, image: Array) -> Array:
        seen.append(name)
        assert image.shape == expected
        return image + image.dtype.type(1)

    data.rewrite(tmp_path / "b.npz", edit)
    copy = data.reopen(tmp_path / "b.npz")
    assert seen == list(dataset.names)
    for before, after in zip(dataset, copy.dataset(), strict=True):
        assert np.array_equal(before["image"] + 1, after["image"])
        assert before["label"] == after["label"]
    assert np.array_equal(data.dataset("test")[0]["image"], copy.dataset("test")[0]["image"])
    assert list(data.differences(copy)) == []
    assert list(data.differences(copy, splits=())) == ["train_images: the array differs"]
    with pytest.raises(FileExistsError):
        data.rewrite(tmp_path / "b.npz", edit)


def test_medmnist_multi_label(tmp_path: Path) -> None:
    data = detect(save_archive(tmp_path / "a.npz", (8, 8), [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]))
    assert data.task() == Classification(num_classes=3, multi_label=True)
    assert np.array_equal(data.dataset()[1]["label"], [1, 1, 0])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((2, 4, 4), "uint8")}, "no train_images"),
        ({"train_images": np.zeros((2, 4), "uint8")}, "expected"),
        ({"train_images": np.zeros((2, 4, 4), "uint8"), "train_labels": np.zeros((3, 1))}, "for 2 images"),
        ({"train_images": np.zeros((2, 4, 4), "uint8"), "train_labels": np.array([[0, 2], [1, 1]])}, "zeros and ones"),
        ({"train_images": np.zeros((2, 4, 4), "uint8")}, "no train_labels"),
    ],
)
def test_medmnist_refuses_with_a_reason(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LayoutError, match=reason) as caught:
        detect(tmp_path / "a.npz").task()
    assert "a.npz" in str(caught.value)


def test_medmnist_edit_must_keep_shape_and_type(tmp_path: Path) -> None:
    data = detect(save_archive(tmp_path / "a.npz", (8, 8)))
    with pytest.raises(LayoutError, match=r"train\[0\]"):
        data.rewrite(tmp_path / "b.npz", lambda name, image: image.astype("float32"))
    assert not (tmp_path / "b.npz").exists()


def test_datalist_reads_a_decathlon_task(decathlon: Path) -> None:
    for place in (decathlon, decathlon / "dataset.json"):
        data = detect(place)
        assert (data.name, data.root) == ("datalist", decathlon)
        assert data.splits == ("train", "val", "test")
        assert data.task() == Segmentation(num_classes=4)
        assert (data.has_labels("train"), data.has_labels("test"), data.test_split()) == (True, False, "val")
        case = data.dataset()[1]
        assert case["name"] == "imagesTr/c1.nii.gz"
        assert (case["image"].shape, case["image"].dtype) == ((1, 6, 5, 4), np.dtype("int16"))
        assert case["label"].shape == (1, 6, 5, 4)
        assert data.dataset("test")[0]["label"] is None


def test_datalist_copies_all_and_edits_training_images(decathlon: Path, tmp_path: Path) -> None:
    data = detect(decathlon)
    data.rewrite(tmp_path / "copy", lambda name, image: image + image.dtype.type(1))
    copy = data.reopen(tmp_path / "copy")
    assert copy.all_files() == data.all_files()
    assert (tmp_path / "copy" / "empty").is_dir()
    for before, after in zip(data.dataset(), copy.dataset(), strict=True):
        assert np.array_equal(before["image"] + 1, after["image"])
        assert np.array_equal(before["label"], after["label"])
    for file in set(data.all_files()) - set(data.image_files()):
        assert (decathlon / file).read_bytes() == (tmp_path / "copy" / file).read_bytes()
    assert list(data.differences(copy)) == []
    assert not list(tmp_path.rglob("*.partial"))


def test_datalist_differences_are_named(decathlon: Path, tmp_path: Path) -> None:
    data = detect(decathlon)
    data.rewrite(tmp_path / "copy", lambda name, image: image)
    copy = tmp_path / "copy"
    (copy / "notes" / "readme.txt").write_text("other")
    (copy / "imagesTs" / "c1.nii.gz").write_bytes((copy / "imagesTs" / "c0.nii.gz").read_bytes())
    (copy / "extra.txt").write_text("x")
    (copy / "labelsVa" / "c0.nii.gz").unlink()
    image = nibabel.load(copy / "imagesTr" / "c0.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(image.dataobj), np.eye(4), dtype="int16"), copy / "imagesTr" / "c0.nii.gz"
    )
    (copy / "imagesTr" / "c1.nii.gz").write_bytes(b"broken")
    lines = list(data.differences(_Reopened(copy)))
    assert sorted(line.split(":")[0].split("/")[-1] for line in lines) == sorted(
        ["readme.txt", "c1.nii.gz", "extra.txt", "c0.nii.gz", "c0.nii.gz", "c1.nii.gz"]
    )


class _Reopened:
    """Only what ``differences`` needs of a copy that is too broken to be opened."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all_files(self) -> tuple[str, ...]:
        return tuple(sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()))


def test_datalist_classification(tmp_path: Path, rng: np.random.Generator) -> None:
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
def test_datalist_number_of_voxel_classes(tmp_path: Path, labels: Any) -> None:
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
def test_paths_that_lead_out_are_refused(decathlon: Path, path: str, key: str) -> None:
    save_nifti(decathlon.parent / "secret.nii", np.zeros((6, 5, 4), "int16"))
    os.symlink(decathlon.parent, decathlon / "out")
    os.symlink(decathlon.parent / "secret.nii", decathlon / "out.nii")
    content = json.loads((decathlon / "dataset.json").read_text())
    content["training"][1][key] = path
    save_json(decathlon / "dataset.json", content)
    with pytest.raises(LayoutError, match=r"training\[1\]") as caught:
        detect(decathlon)
    assert "inside" in str(caught.value) or "leads out" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no layout"),
        ({"training": {}}, "must be a list"),
        ({"training": []}, "no .training. list"),
        ({"training": [3]}, "expected"),
        ({"training": [{"label": 3}]}, "expected"),
        ({"training": [{"image": 5, "label": 3}]}, "must be text"),
        ({"training": [{"image": "gone.nii", "label": 3}]}, "does not exist"),
        ({"training": [{"image": ["i.nii", "i.nii"], "label": 3}]}, "several files"),
        ({"training": [{"image": "i.nii", "label": 1.5}]}, "label must be"),
        ({"training": [{"image": "i.nii", "label": True}]}, "label must be"),
        ({"training": [{"image": "i.nii", "label": "i.nii"}]}, "both as an image and as a label"),
        ({"training": ["i.nii"]}, "i.nii has no label"),
        ({"training": [{"image": "i.nii", "label": 1}, {"image": "i.nii", "label": [0, 1]}]}, "different kinds"),
    ],
)
def test_datalist_refuses_with_a_reason(tmp_path: Path, content: Any, reason: str) -> None:
    save_nifti(tmp_path / "i.nii", np.zeros((4, 4), "int16"))
    save_json(tmp_path / "list.json", content)
    with pytest.raises(LayoutError, match=reason):
        detect(tmp_path).task()


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[" * 100_000, "[1]"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(LayoutError, match=r"dataset\.json"):
            detect(tmp_path)


@pytest.mark.parametrize("target", ["file", "folder", "inner folder"])
def test_links_are_not_copied_blindly(decathlon: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    places = {"file": outside / "secret.txt", "folder": outside, "inner folder": decathlon / "notes"}
    os.symlink(places[target], decathlon / "link")
    with pytest.raises(LayoutError, match="link"):
        detect(decathlon).rewrite(tmp_path / "copy", lambda name, image: image)
    assert not (tmp_path / "copy").exists()


def test_link_inside_is_copied_as_a_file(decathlon: Path, tmp_path: Path) -> None:
    os.symlink("readme.txt", decathlon / "notes" / "link.txt")
    detect(decathlon).rewrite(tmp_path / "copy", lambda name, image: image)
    assert not (tmp_path / "copy/notes/link.txt").is_symlink()
    assert (tmp_path / "copy/notes/link.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.linspace(-1000, 2000, 10_001).astype("int16"), (-985, 1985)),
        (np.linspace(0, 1, 10_000).astype("float32"), (0, 1)),
        (np.linspace(0.1, 0.4, 10_000).astype("float32"), (0.1, 0.4)),
        (np.array([0] * 999 + [7], "int16"), (0, 7)),
    ],
)
def test_window_is_guessed_from_the_training_images(
    tmp_path: Path, values: np.ndarray, window: tuple[float, float]
) -> None:
    save_nifti(tmp_path / "i.nii", values[:, None])
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.nii", "label": 0}]})
    guess = detect(tmp_path).window()
    assert (guess.low, guess.high) == pytest.approx(window)
    assert guess == detect(tmp_path).window()


def test_constant_images_have_no_window(tmp_path: Path) -> None:
    save_nifti(tmp_path / "i.nii", np.full((4, 4), 5, "int16"))
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.nii", "label": 0}]})
    with pytest.raises(LayoutError, match=r"window= \(--window"):
        detect(tmp_path).window()
    with pytest.raises(LayoutError, match=r"gone/dataset\.json is missing"):
        detect(tmp_path).reopen(tmp_path / "gone")
    with pytest.raises(LayoutError, match="--test DATASET"):
        detect(tmp_path).test_split()


def test_unlisted_images_are_found(decathlon: Path) -> None:
    data = detect(decathlon)
    listed = {"labelsTs/c0.nii.gz", "labelsTs/c1.nii.gz"}
    assert {file for file, _ in data.unlisted_images()} == listed
    (decathlon / "imagesTr" / "._c0.nii.gz").write_bytes(b"what macOS leaves")
    (decathlon / ".DS_Store").write_bytes(b"what macOS leaves")
    assert set(data.unlisted()) == {*listed, "notes/readme.txt"}
    (decathlon / "original.npy").write_bytes(b"of a format that is not read")
    assert set(data.unlisted()) == {*listed, "notes/readme.txt", "original.npy"}
    assert {file for file, _ in data.unlisted_images()} == listed


def test_layouts_are_opened_by_name(decathlon: Path, tmp_path: Path) -> None:
    assert open_layout(decathlon, "datalist").name == "datalist"
    with pytest.raises(ValueError, match="unknown layout 'nope'; known: medmnist, datalist"):
        open_layout(decathlon, "nope")
    with pytest.raises(LayoutError, match="is no file"):
        open_layout(decathlon, "medmnist")
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        open_layout(tmp_path / "gone", "datalist")
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        detect(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match=r"medmnist: .*; datalist: .*--layout"):
        detect(tmp_path / "empty")
    assert set(LAYOUTS) == {layout.name for layout in LAYOUTS.values()}
    with pytest.raises(LayoutError, match="no split 'nope'"):
        detect(decathlon).dataset("nope")


def test_damaged_archive_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FormatError, match=r"a\.npz"):
        detect(tmp_path / "a.npz")
