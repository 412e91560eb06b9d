"""What a user is told of a folder that is not understood: the reason that is likely, what was seen, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from layout_samples import (
    build_bids,
    build_csv,
    build_image_folder,
    build_nnunet,
    random_image,
    save_json,
    save_nifti,
    save_png,
    save_text,
)

from monai_salm.layouts import LayoutError, detect, open_layout


def table_of_other_images(root: Path) -> None:
    build_csv(root, ["image,label", "gone,0", "lost,1"])


def table_without_images(root: Path) -> None:
    build_csv(root, ["number,diagnosis", "1,ill", "2,well"])


def table_that_is_broken(root: Path) -> None:
    build_csv(root, ["image,label", "a,0,7"])


def table_without_header(root: Path) -> None:
    build_csv(root, ["a.png,0", "b.png,1"])


def table_in_another_language(root: Path) -> None:
    build_csv(root, ["Datei,Klasse", "a,ill", "b,well"])


def list_in_a_text(root: Path) -> None:
    build_csv(root, []).unlink()
    save_text(root / "labels.txt", "a.png 0\nb.png 1\n")


def table_further_down(root: Path) -> None:
    build_csv(root / "data", ["image,label", "a,0", "b,1"])


def spreadsheet(root: Path) -> None:
    build_csv(root, []).unlink()
    save_text(root / "labels.xlsx", "PK")


def json_without_training(root: Path) -> None:
    save_nifti(root / "i.nii", random_image(0))
    save_json(root / "dataset.json", {"train": [{"image": "i.nii"}]})


def broken_json(root: Path) -> None:
    build_nnunet(root)
    save_text(root / "dataset.json", "{")


def nnunet_without_its_keys(root: Path) -> None:
    build_nnunet(root)
    save_json(root / "dataset.json", {"labels": {"background": 0}})


def bids_without_description(root: Path) -> None:
    (build_bids(root) / "dataset_description.json").unlink()


def one_class(root: Path) -> None:
    for number in range(3):
        save_png(root / "all" / f"{number}.png", number)


def unread_format(root: Path) -> None:
    for number in range(3):
        save_text(root / "a" / f"{number}.xyz", "x")


def patients_with_maps(root: Path) -> None:
    for number in range(3):
        save_nifti(root / f"sub{number:03}" / "flair.nii.gz", random_image(number))
        save_nifti(root / f"sub{number:03}" / "wmh.nii.gz", random_image(number, dtype="uint8", high=2))


def either_level(root: Path) -> None:
    for outer in ("alpha", "beta"):
        for inner in ("left", "right"):
            save_png(root / outer / inner / f"{outer}{inner}.png", len(outer))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (table_of_other_images, [r"csv_labels: .*line 2, column 'image': no image 'gone'"]),
        (table_without_images, ["csv_labels: .*column 'diagnosis', but no column of image names", "number, diagnosis"]),
        (table_that_is_broken, ["csv_labels: .*line 2: 3 columns, the header has 2"]),
        (table_without_header, [r"csv_labels: .*labels\.csv names an image in its first line", "such as image,label"]),
        (table_in_another_language, ["csv_labels: .*column 'Datei'; call that column 'image'", "are Datei, Klasse"]),
        (list_in_a_text, [r"csv_labels: labels\.txt seems to list images.*save it as CSV"]),
        (table_further_down, [r"csv_labels: .*data.labels\.csv gives labels .*; give .*data in place of"]),
        (spreadsheet, [r"labels\.xlsx .*save it as CSV"]),
        (json_without_training, ['dataset.json has no "training" list with cases; its keys are train']),
        (broken_json, [r"dataset\.json is not valid JSON"]),
        (nnunet_without_its_keys, ['dataset.json has no "training" list with cases; its keys are labels']),
        (bids_without_description, ["bids: .*no dataset_description.json; add one"]),
        (one_class, [r"image_folder: .*one folder alone \(all\)"]),
        (unread_format, [r"no image in a format that is read .*3 with \.xyz"]),
        (
            patients_with_maps,
            [
                r"image_folder: .*--image-glob 'sub00?\*?/|--image-glob '\*/flair\.nii\.gz' --label-glob '\*/wmh\.nii\.gz'"
            ],
        ),
        (either_level, ["alpha, beta each hold the folders left, right", "--layout image_folder"]),
    ],
)
def test_the_likely_reason_is_said(tmp_path: Path, build: Callable[[Path], None], told: list[str]) -> None:
    build(tmp_path)
    with pytest.raises(LayoutError) as caught:
        detect(tmp_path)
    for text in told:
        assert caught.match(text)


@pytest.mark.parametrize(
    "lines",
    [["image,label", "gone,0"], ["x,label", "1,0"], ["Datei,Klasse", "ok0,x", "ok1,y"], ["image,label", "a,1,2"]],
)
def test_a_table_beside_class_folders_is_never_ignored(tmp_path: Path, lines: list[str]) -> None:
    build_image_folder(tmp_path)
    save_text(tmp_path / "labels.csv", "\n".join(lines))
    with pytest.raises(LayoutError, match=r"labels\.csv.*The table is not understood.*--layout image_folder"):
        detect(tmp_path)
    assert open_layout(tmp_path, "image_folder").class_names == ("bad", "ok")
    save_text(tmp_path / "labels.csv", "machine,year\nx,2001\n")  # says nothing of images
    assert detect(tmp_path).name == "image_folder"


@pytest.mark.parametrize("sites", [("site1", "site2"), ("Hospital A", "Hospital B"), ("10253", "10254")])
def test_folders_of_sites_or_patients_above_the_classes(tmp_path: Path, sites: tuple[str, str]) -> None:
    for site in sites:
        for name in ("benign", "malignant"):
            for number in range(2):
                save_png(tmp_path / site / name / f"{site}{number}.png", len(name) + number)
    data = detect(tmp_path)
    assert data.class_names == ("benign", "malignant")
    assert [case["label"] for case in data.dataset()] == [0, 0, 1, 1] * 2


def test_classes_with_folders_of_patients_stay_classes(tmp_path: Path) -> None:
    for name in ("benign", "malignant"):
        for patient in ("p1", "p2"):
            save_png(tmp_path / name / patient / "a.png", len(name))
    assert detect(tmp_path).class_names == ("benign", "malignant")


def patients_of_images(root: Path) -> None:
    for number in range(12):
        for name in ("a", "b"):
            save_png(root / f"patient_{number:03}" / f"{name}{number * 7}.png", number + len(name))


@pytest.mark.parametrize("build", [patients_with_maps, patients_of_images, either_level, unread_format, spreadsheet])
def test_sentences_of_a_message_have_blanks_between_them(tmp_path: Path, build: Callable[[Path], None]) -> None:
    build(tmp_path / "set")
    with pytest.raises(LayoutError) as caught:
        detect(tmp_path / "set")
    said = str(caught.value).replace("...", "").replace(str(tmp_path), "")
    assert re.search(r"[.;:,](?=[A-Z][a-z])", said) is None
    assert "  " not in said
