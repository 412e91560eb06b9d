"""Folders of images and label maps that nothing lists, and folders of patients, which are no classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from layout_samples import build_image_folder, random_image, save_nifti, save_picture, save_text
from PIL import Image

from monai_salm.formats import FormatError
from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.image_folder import ImageFolder
from monai_salm.layouts.mask_folder import MaskFolder
from monai_salm.layouts.patterns import PathPattern
from monai_salm.layouts.roles import are_identifiers
from monai_salm.learning.tasks import Classification, Segmentation


def save_volume(path: Path, seed: int) -> None:
    save_nifti(path, random_image(seed))


def save_map(path: Path, seed: int, classes: int = 3, scale: int = 1) -> None:
    """A label map in which every class is there."""
    label = (random_image(seed, dtype="uint8", high=classes) * scale).astype("uint8")
    label.flat[:classes] = np.arange(classes) * scale
    if path.suffix == ".gz":
        save_nifti(path, label)
        return
    save_picture(path, np.kron(label[:, :, 0], np.ones((2, 2), "uint8"))[:8, :7])


# Layouts of public sets: image, label map, of a case by its number.
SETS = {
    "kidneys": ("case_0000{}/imaging.nii.gz", "case_0000{}/segmentation.nii.gz"),
    "thorax": ("Patient_0{0}/Patient_0{0}.nii.gz", "Patient_0{0}/GT.nii.gz"),
    "heart": (
        "training/patient00{0}/patient00{0}_frame01.nii.gz",
        "training/patient00{0}/patient00{0}_frame01_gt.nii.gz",
    ),
    "atlas": ("img/img000{}.nii.gz", "lbl/lbl000{}.nii.gz"),
    "abdomen": ("img/img000{}.nii.gz", "label/label000{}.nii.gz"),
    "liver": ("volume_pt1/volume-{}.nii.gz", "segmentations/segmentation-{}.nii.gz"),
    "whole heart": ("ct_train_100{}_image.nii.gz", "ct_train_100{}_label.nii.gz"),
    "prostate": ("Case0{}.nii.gz", "Case0{}_segmentation.nii.gz"),
    "without its json": ("imagesTr/a_{}.nii.gz", "labelsTr/a_{}.nii.gz"),
    "glioma slices": ("TCGA_CS_494{0}/TCGA_CS_494{0}_1.png", "TCGA_CS_494{0}/TCGA_CS_494{0}_1_mask.png"),
    "polyps": ("images/cju{}.png", "masks/cju{}.png"),
    "skin": (
        "ISIC2018_Task1-2_Training_Input/ISIC_000{}.png",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_000{}_segmentation.png",
    ),
    "sites": ("site_a/case_{}/imaging.nii.gz", "site_a/case_{}/seg.nii.gz"),
}


@pytest.mark.parametrize("name", SETS)
def test_public_sets_are_images_with_a_label_map_each(tmp_path: Path, name: str) -> None:
    image, label = SETS[name]
    for number in range(3):
        if image.endswith(".png"):
            save_picture(tmp_path / image.format(number), number)
        else:
            save_volume(tmp_path / image.format(number), number)
        save_map(tmp_path / label.format(number), number)
    data = detect(tmp_path)
    assert isinstance(data, MaskFolder)
    assert data.splits == ("train",)
    assert data.image_files() == tuple(image.format(number) for number in range(3))
    assert data.label_files() == tuple(label.format(number) for number in range(3))
    assert data.unlisted() == ()
    assert data.task() == Segmentation(num_classes=3)
    assert data.dataset()[1]["label"].shape == data.dataset()[1]["image"].shape
    assert data.reopen(tmp_path).dataset().names == data.dataset().names


def test_modalities_are_the_channels_of_an_image(tmp_path: Path) -> None:
    for number in range(2):
        stem = f"BraTS20_Training_00{number}"
        for index, word in enumerate(("flair", "t1", "t1ce", "t2")):
            save_volume(tmp_path / stem / f"{stem}_{word}.nii.gz", 10 * number + index)
        save_map(tmp_path / stem / f"{stem}_seg.nii.gz", number)
    data = detect(tmp_path)
    assert data.dataset()[0]["image"].shape == (4, 6, 5, 4)
    assert np.array_equal(data.dataset()[0]["image"][2], random_image(2))
    (tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz").unlink()
    with pytest.raises(FormatError, match="it has 3 channels, others have 4"):
        detect(tmp_path).dataset()[1]
    assert "BraTS20_Training_001/BraTS20_Training_001_t2.nii.gz" in detect(tmp_path).image_files()


def test_a_label_map_for_each_organ_is_a_class_each(tmp_path: Path) -> None:
    for number in range(3):
        save_volume(tmp_path / f"s000{number}/ct.nii.gz", number)
        for index, organ in enumerate(("spleen", "liver")):
            save_map(tmp_path / f"s000{number}/segmentations/{organ}.nii.gz", 5 * number + index, classes=2)
    save_text(tmp_path / "meta.csv", "image_id;age;split\ns0000;3;train\ns0001;4;train\ns0002;5;val\n")
    data = detect(tmp_path)
    assert data.class_names == ("background", "liver", "spleen")
    assert data.task() == Segmentation(num_classes=3)
    assert {split: len(data.dataset(split)) for split in data.splits} == {"train": 2, "val": 1}
    label = data.dataset()[0]["label"]
    assert np.array_equal(label == 2, (label == 2) & (label != 1))
    assert set(np.unique(label)) == {0, 1, 2}
    assert len(data.label_files()) == 6
    save_text(tmp_path / "meta.csv", "image_id;is_val\ns0000;0\ns0001;0\ns0002;1\n")
    assert [detect(tmp_path).dataset(split).names for split in ("train", "val")] == [
        data.dataset(split).names for split in ("train", "val")
    ]
    save_text(tmp_path / "meta.csv", "image_id;split\ns0000;train\ns0001;val\n")
    with pytest.raises(LayoutError, match=r"meta\.csv has a column of splits, but no line for s0002/ct\.nii\.gz"):
        detect(tmp_path)


def test_masks_beside_the_images_of_classes_get_no_noise(tmp_path: Path) -> None:
    for name in ("benign", "malignant"):
        for number in range(3):
            save_picture(tmp_path / name / f"{name} ({number}).png", number + 10 * len(name))
            save_map(tmp_path / name / f"{name} ({number})_mask.png", number, classes=2, scale=255)
    save_map(tmp_path / "benign" / "benign (0)_mask_1.png", 7, classes=2, scale=255)
    data = detect(tmp_path)
    assert isinstance(data, ImageFolder)
    assert data.task() == Classification(num_classes=2)
    assert len(data.dataset()) == 6
    assert len(data.label_files()) == 7
    assert data.unlisted() == ()
    voxels = open_layout(tmp_path, "mask_folder")
    assert voxels.task() == Segmentation(num_classes=2)
    union = voxels.dataset()[0]["label"]
    assert union.sum() > (np.asarray(Image.open(tmp_path / "benign" / "benign (0)_mask.png")) > 0).sum()


def test_an_image_named_for_the_label_map_of_another_is_doubtful(tmp_path: Path) -> None:
    """As a masked image is, or a label map that looks like an image: noise or none would each be wrong for one of them."""
    build_image_folder(tmp_path)
    save_picture(tmp_path / "ok" / "ok0_mask.png", 99)
    with pytest.raises(LayoutError, match=r"ok/ok0_mask\.png.*label map of ok/ok0\.png.*--layout image_folder"):
        detect(tmp_path)
    data = open_layout(tmp_path, "image_folder")
    assert "ok/ok0_mask.png" in data.image_files()
    assert data.label_files() == ()


def test_an_image_without_a_label_map_cannot_be_used(tmp_path: Path) -> None:
    for number in range(3):
        save_volume(tmp_path / f"case_0{number}/imaging.nii.gz", number)
        if number:
            save_map(tmp_path / f"case_0{number}/segmentation.nii.gz", number)
    save_map(tmp_path / "case_09/segmentation.nii.gz", 9)
    data = detect(tmp_path)
    with pytest.raises(FormatError, match=r"case 'case_00/imaging\.nii\.gz': no label map has its name"):
        data.dataset()[0]
    assert "case_09/segmentation.nii.gz" in data.label_files()
    assert data.image_files()[0] == "case_00/imaging.nii.gz"


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for number in range(2):
            save_picture(tmp_path / split / "images" / f"{number}.png", number)
            if split != "test":
                save_map(tmp_path / split / "masks" / f"{number}.png", number)
    data = detect(tmp_path)
    assert isinstance(data, MaskFolder)
    assert {split: data.has_labels(split) for split in data.splits} == {"train": True, "val": True, "test": False}


@pytest.mark.parametrize("kind", ["few pairs", "several maps", "images"])
def test_what_is_not_certain_is_refused_with_how_to_say_it(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        folder = tmp_path / f"OAS1_000{number}_MR1"
        save_volume(folder / "orig.nii.gz", number)
        if (kind == "few pairs" and number == 0) or kind == "several maps":
            save_map(folder / "seg4.nii.gz", number, 4)
        if kind == "several maps":
            save_map(folder / "seg35.nii.gz", number, 6)
        if kind == "images":
            save_volume(folder / "mask.nii.gz", 50 + number)
    with pytest.raises(LayoutError, match=r"--image-glob.* and .*--label-glob") as caught:
        detect(tmp_path)
    if kind == "few pairs":
        assert "'*_MR1/orig.nii.gz' and '*_MR1/seg4.nii.gz'" in str(caught.value)
    if kind == "several maps":
        data = open_layout(tmp_path, "*/orig.nii.gz -> */seg4.nii.gz")
        assert data.task() == Segmentation(num_classes=4)
        assert data.unlisted() == tuple(f"OAS1_000{number}_MR1/seg35.nii.gz" for number in range(4))


# Images and two kinds of label maps, and the patterns that are to be said for each.
RIVALS = {
    "another folder": (
        ["training/images/{}_training.tif", "training/mask/{}_training_mask.gif", "training/1st_manual/{}_manual1.gif"],
        ["training/images/*_training.tif", "training/mask/*_training_mask.gif", "training/1st_manual/*_manual1.gif"],
    ),
    "two folders of masks": (
        ["images/{}.png", "masks/{}.png", "gt/{}.png"],
        ["images/*.png", "masks/*.png", "gt/*.png"],
    ),
    "a folder without a telling name": (
        ["images/{}.png", "masks/{}.png", "vessels/{}.png"],
        ["images/*.png", "masks/*.png", "vessels/*.png"],
    ),
    "two words": (
        ["p{}/img.png", "p{}/mask.png", "p{}/manual.png"],
        ["*/img.png", "*/mask.png", "*/manual.png"],
    ),
}


@pytest.mark.parametrize("name", RIVALS)
def test_two_kinds_of_label_maps_are_refused_with_the_patterns_of_each(tmp_path: Path, name: str) -> None:
    """Such as vessels and the field of view: noise must be made against the one that is meant."""
    files, patterns = RIVALS[name]
    for number in range(21, 25):
        save_picture(tmp_path / files[0].format(number), number, (8, 7))
        for place, file in enumerate(files[1:]):
            save_picture(tmp_path / file.format(number), np.eye(8, 7, place, dtype="uint8") * 255)
    with pytest.raises(LayoutError, match="several kinds of label maps") as caught:
        detect(tmp_path)
    for label in patterns[1:]:
        assert f"--image-glob '{patterns[0]}' --label-glob '{label}'" in str(caught.value)
        data = open_layout(tmp_path, f"{patterns[0]} -> {label}")
        assert (len(data.dataset()), data.task()) == (4, Segmentation(num_classes=2))


@pytest.mark.parametrize(
    ("images", "labels", "channels", "classes"),
    [
        ("*/t1.nii.gz", "*/wmh.nii.gz", 1, 3),
        ("*/{t1,t2}.nii.gz", "*/wmh.nii.gz", 2, 3),
        ("**/t1.nii.gz", "**/wmh.nii.gz", 1, 3),
        ("p[0-9]/t1.nii.gz", "p[0-9]/organs/*.nii.gz", 1, 3),
        ("p?/t1.nii.gz", "p?/organs/{a,b}.nii.gz", 1, 3),
    ],
)
def test_two_patterns_describe_a_folder_per_patient(
    tmp_path: Path, images: str, labels: str, channels: int, classes: int
) -> None:
    for number in range(2):
        folder = tmp_path / f"p{number}"
        save_volume(folder / "t1.nii.gz", number)
        save_volume(folder / "t2.nii.gz", 5 + number)
        save_map(folder / "wmh.nii.gz", number)
        for organ in "ab":
            save_map(folder / "organs" / f"{organ}.nii.gz", number, 2)
    data = open_layout(tmp_path, f"{images} -> {labels}")
    assert isinstance(data, MaskFolder)
    assert data.dataset()[0]["image"].shape == (channels, 6, 5, 4)
    assert data.task() == Segmentation(num_classes=classes)
    assert len(data.dataset()) == 2
    assert data.spec == f"{images} -> {labels}"
    assert data.reopen(tmp_path).dataset().names == data.dataset().names


def test_all_masks_of_a_folder_may_be_of_its_only_image(tmp_path: Path) -> None:
    """A mask for each cell, of names that tell nothing; the patterns that are shown fit."""
    for number, folder in enumerate(("4e07", "ef2d", "6b86", "d473", "9f14")):
        save_picture(tmp_path / folder / "images" / f"{folder}.png", number)
        for cell in range(3):
            save_map(tmp_path / folder / "masks" / f"{folder[::-1]}{cell}f.png", cell, 2)
    with pytest.raises(
        LayoutError, match=r"'\*/images/\*\.png' and '\*/masks/\*\.png'.*nearly a folder for each image"
    ):
        detect(tmp_path)
    data = open_layout(tmp_path, "*/images/*.png -> */masks/*.png")
    assert (len(data.dataset()), data.task()) == (5, Segmentation(num_classes=2))


def test_label_maps_of_other_names_in_folders_of_classes_get_no_noise(tmp_path: Path) -> None:
    for name in ("benign", "malignant"):
        for number in range(4):
            save_picture(tmp_path / name / "images" / f"{number}.png", number + len(name))
            save_map(tmp_path / name / "masks" / f"cell{number + 70}.png", number, 2, 255)
    data = detect(tmp_path)
    assert (len(data.dataset()), data.class_names, data.task()) == (
        8,
        ("benign", "malignant"),
        Classification(num_classes=2),
    )
    assert len(data.label_files()) == 8


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_places_in_a_palette_are_class_numbers(tmp_path: Path, suffix: str) -> None:
    """Annotation programs save classes so, each with a colour to look at."""
    for number in range(3):
        save_picture(tmp_path / "images" / f"{number}.png", number, (6, 5))
        classes = np.arange(30, dtype="uint8").reshape(6, 5) % (3 - (number == 2))
        label = Image.fromarray(classes).convert("P")
        label.putpalette([0, 0, 0, 128, 128, 128, 0, 128, 0])  # one of the colours is grey
        save_picture(tmp_path / "masks" / f"{number}{suffix}", label)
    data = detect(tmp_path)
    assert data.task() == Segmentation(num_classes=3)
    for number, classes in ((0, 3), (2, 2)):
        assert np.array_equal(data.dataset()[number]["label"][0], np.arange(30).reshape(6, 5) % classes)


def test_colours_of_a_label_map_are_no_class_numbers(tmp_path: Path) -> None:
    for number in range(3):
        save_picture(tmp_path / "images" / f"{number}.png", number, (8, 7))
        colours = np.zeros((8, 7, 3), "uint8")
        colours[2:5, 3:, number] = 255
        save_picture(tmp_path / "masks" / f"{number}.png", colours)
    with pytest.raises(FormatError, match=r"masks/0\.png is a label map in colours.*save class numbers"):
        detect(tmp_path).dataset()[0]


def save_jpeg_map(path: Path, values: Sequence[int]) -> None:
    label = np.zeros((40, 40), "uint8")
    for number, value in enumerate(values):
        label[8:30, 8 + 9 * number : 17 + 9 * number] = value
    save_picture(path, label)


def test_jpeg_masks_have_two_classes_and_blurred_classes_are_refused(tmp_path: Path) -> None:
    for kind, values in (("two", [255]), ("three", [100, 255])):
        for number in range(3):
            save_picture(tmp_path / kind / "images" / f"{number}.png", number, (40, 40))
            save_jpeg_map(tmp_path / kind / "masks" / f"{number}.jpg", values)
    assert detect(tmp_path / "two").task() == Segmentation(num_classes=2)
    data = open_layout(tmp_path / "three", "images/*.png -> masks/*.jpg")
    with pytest.raises(FormatError, match=r"masks/0\.jpg is JPEG.*save label maps as PNG"):
        data.dataset()[0]


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ("*/x.nii.gz -> */wmh.nii.gz", "no image is named"),
        ("*/t1.nii.gz -> */x.nii.gz", "no label map is named"),
        ("* /t1.nii.gz -> ", "two patterns"),
        ("*/t1.nii.gz -> p1/wmh.nii.gz", "in place of the wildcards"),
        ("{a,b}/{t1,t2}.nii.gz -> */wmh.nii.gz", "two lists in braces"),
        ("*/t[2-1].nii.gz -> */wmh.nii.gz", "is none"),
        ("*" * 20 + " -> x", "wildcards"),
        ("p1/*t*.nii.gz -> p1/*w*h.nii.gz", None),
    ],
)
def test_patterns_that_fit_nothing_say_so(tmp_path: Path, patterns: str, reason: str | None) -> None:
    save_volume(tmp_path / "p1" / "t1.nii.gz", 1)
    save_map(tmp_path / "p1" / "wmh.nii.gz", 1)
    with pytest.raises(LayoutError, match=reason or "in place of the wildcards"):
        open_layout(tmp_path, patterns)


def test_wildcards_stay_in_their_folder() -> None:
    assert PathPattern("*/a").match("x/y/a") is None
    assert PathPattern("**/a").match("x/y/a") == (("x/y/",), "")
    assert PathPattern("**/a").match("a") == (("",), "")
    assert PathPattern("a.b").match("axb") is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["case_00000", "case_00001"], True),
        (["TCGA_CS_4940_19960909", "TCGA_CS_4941_19960909", "TCGA_CS_4942_19970222"], True),
        (["patient1", "patient2", "patient3"], True),
        (["100307", "100408"], True),
        (["benign", "malignant"], False),
        (["grade1", "grade2", "grade3"], False),
        (["BI-RADS 1", "BI-RADS 2"], False),
        (["0", "1", "2", "3", "4"], False),
        (["covid19", "healthy"], False),
        (["stage_2", "stage_3"], False),
    ],
)
def test_names_of_patients_and_of_classes(names: Sequence[str], expected: bool) -> None:
    assert are_identifiers(names) is expected


def save_slices(root: Path, names: Sequence[str], files: Sequence[str]) -> None:
    for index, name in enumerate(names):
        for place, file in enumerate(files):
            path = root / name / file.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, random_image(100 * index + place, (8, 8), "uint8"))


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["sub_01", "sub_02", "sub_03"], ["t1.tif", "t2.tif"]),
        (["TCGA_1", "TCGA_2"], ["{}_1.tif", "{}_2.tif", "{}_3.tif"]),
        ([f"P{number:03}" for number in range(12)], ["a{}.tif", "b{}.tif"]),
        (["ann", "bob", "cid", "dan", "eve"], ["scan.tif"]),
    ],
)
def test_folders_of_patients_are_no_classes(tmp_path: Path, names: Sequence[str], files: Sequence[str]) -> None:
    save_slices(tmp_path, names, files)
    with pytest.raises(LayoutError, match=r"patients|as many classes as images"):
        detect(tmp_path)
    assert open_layout(tmp_path, "image_folder").task() == Classification(num_classes=len(names))


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["grade1", "grade2"], ["{}_1.tif", "{}_2.tif"]),
        (["0", "1", "2"], ["a.tif", "b.tif"]),
        (["benign", "malignant"], ["img1.tif", "img2.tif"]),
        (["covid19", "normal"], ["covid19/1.tif", "2.tif"]),
    ],
)
def test_folders_of_classes_stay_classes(tmp_path: Path, names: Sequence[str], files: Sequence[str]) -> None:
    save_slices(tmp_path, names, files)
    assert detect(tmp_path).class_names == tuple(sorted(names))


def test_a_copy_is_opened_by_what_its_manifest_names(tmp_path: Path) -> None:
    for number in range(3):
        save_volume(tmp_path / f"case_0{number}/t1.nii.gz", number)
        save_map(tmp_path / f"case_0{number}/wmh.nii.gz", number)
    with pytest.raises(LayoutError):
        detect(tmp_path)
    save_text(tmp_path / "monai_salm.json", '{"layout": "*/t1.nii.gz -> */wmh.nii.gz"}')
    assert detect(tmp_path).task() == Segmentation(num_classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_text(tmp_path / "monai_salm.json", '{"layout": "nonsense"}')
        with pytest.raises(LayoutError):
            detect(tmp_path)
