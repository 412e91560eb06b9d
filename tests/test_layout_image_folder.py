"""Image folders: the class is the folder, the split is the folder above."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from layout_samples import build_image_folder, random_image, save_nifti, save_png, save_text
from PIL import Image

from monai_salm.formats import FormatError
from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.image_folder import ImageFolder
from monai_salm.learning.tasks import Classification


def test_a_folder_of_classes_is_one_training_split(tmp_path: Path) -> None:
    data = detect(build_image_folder(tmp_path, classes=("b", "a", "c")))
    assert isinstance(data, ImageFolder)
    assert data.splits == ("train",)
    assert data.class_names == ("a", "b", "c")
    assert data.task() == Classification(num_classes=3)
    labels = {case["name"]: case["label"] for case in data.dataset()}
    assert labels == {f"{name}/{name}{i}.png": number for number, name in enumerate("abc") for i in range(2)}
    assert data.dataset()[0]["image"].shape == (1, 8, 7)
    assert [unit.files for unit in data.stored_images()] == [(name,) for name in data.dataset().names]
    assert data.unlisted() == ()
    assert data.rewritten_files() == {}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "TEST")]
)
def test_splits_are_folders_above_the_classes(tmp_path: Path, names: tuple[str, str, str]) -> None:
    data = detect(build_image_folder(tmp_path, splits=names))
    assert data.splits == ("train", "val", "test")
    assert [len(data.dataset(split)) for split in data.splits] == [4, 4, 4]
    assert data.dataset("test").names[0] == f"{names[2]}/bad/bad0.png"
    assert data.test_split() == "test"
    assert set(data.image_files()) == set(data.dataset("train").names)


def test_all_splits_have_the_same_classes(tmp_path: Path) -> None:
    build_image_folder(tmp_path, splits=("train",), classes=("b", "c"))
    save_png(tmp_path / "test" / "c" / "x.png")
    data = detect(tmp_path)
    assert data.class_names == ("b", "c")
    assert [case["label"] for case in data.dataset("test")] == [1]
    assert data.task() == Classification(num_classes=2)
    save_png(tmp_path / "test" / "d" / "x.png")
    with pytest.raises(LayoutError, match="the test folder has a class 'd' that is not in the training folder"):
        detect(tmp_path)


@pytest.mark.parametrize("file", ["x.png", "patient1/x.png"])
def test_a_test_folder_without_classes_has_no_labels(tmp_path: Path, file: str) -> None:
    build_image_folder(tmp_path, splits=("train",))
    save_png(tmp_path / "test" / file)
    data = detect(tmp_path)
    assert data.has_labels("train")
    assert not data.has_labels("test")
    assert data.dataset("test")[0]["label"] is None


def test_nested_folders_and_volumes_belong_to_their_class(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a" / "p1" / "scan.nii.gz", random_image(1))
    save_nifti(tmp_path / "b" / "p2" / "scan.nii.gz", random_image(2))
    data = detect(tmp_path)
    assert data.dataset().names == ("a/p1/scan.nii.gz", "b/p2/scan.nii.gz")
    assert data.dataset()[1]["image"].shape == (1, 6, 5, 4)


def test_hidden_folders_and_those_of_other_files_are_no_classes_and_strays_are_unlisted(tmp_path: Path) -> None:
    build_image_folder(tmp_path)
    (tmp_path / ".empty").mkdir()
    save_text(tmp_path / "notes" / "readme.txt", "x")
    for place in (".cache/x.png", "__MACOSX/ok/x.png", "ok/.x.png", "stray.png", "ok/._ok0.png", "ok/Thumbs.db"):
        save_png(tmp_path / place) if place.endswith("png") else save_text(tmp_path / place, "")
    data = detect(tmp_path)
    assert data.class_names == ("bad", "ok")
    assert len(data.dataset()) == 4
    assert set(data.unlisted()) == {"stray.png", "notes/readme.txt"}


def test_a_stray_beside_the_classes_of_a_split_is_unlisted(tmp_path: Path) -> None:
    build_image_folder(tmp_path, splits=("train", "test"))
    save_png(tmp_path / "train" / "stray.png")
    save_png(tmp_path / "extra" / "stray.png")
    assert set(detect(tmp_path).unlisted()) == {"train/stray.png", "extra/stray.png"}


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    build_image_folder(tmp_path, classes=("test", "blank"))
    assert open_layout(tmp_path, "image_folder").class_names == ("blank", "test")


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (["only"], "two classes or more, found only"),
        (["train/only"], "two classes or more, found only"),
        ([], "no images"),
        (["val/a", "test/b"], "no images in a folder named train"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, folders: list[str], reason: str) -> None:
    for folder in folders:
        save_png(tmp_path / folder / "x.png")
    with pytest.raises(LayoutError, match=reason) as caught:
        open_layout(tmp_path, "image_folder")
    assert str(tmp_path) in str(caught.value)


def test_an_empty_folder_has_no_train(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is no folder"):
        open_layout(save_text(tmp_path / "x.txt", ""), "image_folder")


def test_a_jpeg_is_a_case_as_any_other(tmp_path: Path) -> None:
    build_image_folder(tmp_path)
    Image.new("L", (8, 8), 7).save(tmp_path / "ok" / "photo.jpg")
    data = detect(tmp_path)
    assert data.dataset().names[-1] == data.stored_images()[-1].name == "ok/photo.jpg"
    assert (data.dataset()[-1]["image"] == 7).all()
    assert data.stored_images()[-1].published == ("ok/photo.png",)


def test_a_damaged_jpeg_is_a_case_that_cannot_be_used(tmp_path: Path) -> None:
    build_image_folder(tmp_path)
    save_text(tmp_path / "ok" / "photo.jpg", "\xff\xd8")
    data = detect(tmp_path)
    for ask in (data.stored_images()[-1].read, data.stored_images()[-1].keepsake):
        with pytest.raises(FormatError, match=r"photo\.jpg.*no picture.*get the file again"):
            ask(tmp_path)
    assert [data.dataset()[index]["label"] for index in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_that_hold_nothing_are_classes_among_others(tmp_path: Path, split: str) -> None:
    build_image_folder(tmp_path, splits=[split] if split else [])
    for folder in (f"{split}middle/inner", "elsewhere/deep" if split else ".none"):
        (tmp_path / folder).mkdir(parents=True)
    data = detect(tmp_path)
    assert data.class_names == ("bad", "middle", "ok")
    assert [case["label"] for case in data.dataset()] == [0, 0, 2, 2]


def test_a_copy_without_the_images_of_a_class_opens_again(tmp_path: Path) -> None:
    data = detect(build_image_folder(tmp_path))
    names = data.class_names
    for file in data.image_files()[:2]:
        (tmp_path / file).unlink()
    with pytest.raises(LayoutError, match="no layout this version knows"):
        detect(tmp_path)
    save_text(tmp_path / data.manifest, "{}")
    copy = detect(tmp_path)
    assert (copy.name, copy.class_names) == ("image_folder", names)
    assert [case["label"] for case in copy.dataset()] == [1, 1]


@pytest.mark.parametrize("pair", [("images", "masks"), ("imagesTr", "labelsTr"), ("train_images", "test_images")])
def test_images_and_masks_are_not_taken_for_classes(tmp_path: Path, pair: tuple[str, str]) -> None:
    build_image_folder(tmp_path, classes=pair)
    with pytest.raises(LayoutError, match=r"no layout this version knows|named for a label map, but holds"):
        detect(tmp_path)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root = build_image_folder(tmp_path / "data")
    save_png(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "ok" / "link.png")
    with pytest.raises(LayoutError, match="leads out"):
        detect(root)


def test_classes_may_differ_in_case_alone(tmp_path: Path) -> None:
    for number in range(4):
        save_png(tmp_path / "Tt"[number % 2] / f"{number}.png", number)
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("this disk does not tell the cases apart")
    assert detect(tmp_path).class_names == ("T", "t")
