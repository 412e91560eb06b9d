"""What all layouts share: which one it is, the window, links, and how they are opened."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_samples import (
    build_bids,
    build_csv,
    build_datalist,
    build_decathlon,
    build_dicom_tree,
    build_image_folder,
    build_nnunet,
    save_archive,
    save_json,
    save_nifti,
    save_text,
)

from monai_salm.formats import FormatError
from monai_salm.layouts import LAYOUTS, FolderLayout, LayoutError, detect, open_layout
from monai_salm.layouts.stored_images import UnusableImage
from monai_salm.learning.tasks import Segmentation
from monai_salm.noise.window import AutomaticWindow

Builder = Callable[[Path], Path]

FOLDERS: dict[str, Builder] = {
    "datalist": build_datalist,
    "decathlon": build_decathlon,
    "nnunet": build_nnunet,
    "bids": build_bids,
    "image_folder": build_image_folder,
    "csv_labels": lambda root: build_csv(root, ["image,label", "a,0", "b,1"]).parent,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_each_layout_is_recognised_alone_and_opens_by_name(tmp_path: Path, name: str) -> None:
    root = FOLDERS[name](tmp_path / "data")
    data = detect(root)
    assert (data.name, data.root) == (name, root)
    assert isinstance(data, FolderLayout)
    again = open_layout(root, name)
    assert again.dataset().names == data.dataset().names
    assert data.reopen(root).dataset().names == data.dataset().names
    assert len(set(data.dataset().names)) == len(data.stored_images()) == len(data.dataset())
    listed = {*data.image_files(data.splits), *data.label_files(), *data.listing, *data.unlisted()}
    assert listed == set(data.all_files())
    assert not set(data.rewritten_files()) & set(data.image_files(data.splits))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("other", [*FOLDERS, "file", "text", "nothing", "unreadable"])
def test_recognising_never_raises(tmp_path: Path, name: str, other: str) -> None:
    root = tmp_path / "data"
    if other in FOLDERS:
        FOLDERS[other](root)
    elif other == "file":
        root = save_archive(tmp_path / "a.npz", (4, 4))
    elif other == "text":
        root = save_text(tmp_path / "x.csv", '\0\n\n"')
    else:
        root.mkdir()
        if other == "unreadable":
            for file in ("dataset.json", "dataset_description.json", "labels.csv", "sub-1/x.dcm", "a/x.png", "b/x.png"):
                save_text(root / file, "{\0")
            os.symlink("/nowhere", root / "dangling")
            os.symlink(root, root / "round")
    assert isinstance(LAYOUTS[name].misfit(root), str | None)


def test_a_folder_of_several_layouts_must_be_named(tmp_path: Path) -> None:
    build_image_folder(tmp_path)
    save_text(tmp_path / "labels.csv", "image,label\nok0,1\nbad0,0\n")
    with pytest.raises(
        LayoutError, match=r"looks like several layouts \(csv_labels: .*; image_folder: .*\)\. .*--layout"
    ):
        detect(tmp_path)
    assert open_layout(tmp_path, "csv_labels").name == "csv_labels"
    assert open_layout(tmp_path, "image_folder").name == "image_folder"


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("target", ["file", "folder", "inner folder"])
def test_links_are_not_followed_out_of_a_data_set(tmp_path: Path, name: str, target: str) -> None:
    root = FOLDERS[name](tmp_path / "data")
    inner, secret = root / "inner", save_text(tmp_path / "outside" / "secret.txt", "secret")
    inner.mkdir()
    os.symlink({"file": secret, "folder": secret.parent, "inner folder": inner}[target], root / "link")
    with pytest.raises(LayoutError, match=r"link is a link"):
        detect(root).all_files()


@pytest.mark.parametrize("name", [*FOLDERS, "dicom_tree"])
@pytest.mark.parametrize("at", ["opening", "copying"])
def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, name: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = (FOLDERS | {"dicom_tree": build_dicom_tree})[name](tmp_path / "data")
    (root / "extra" / "locked").mkdir(parents=True)
    data, scandir = open_layout(root, name), os.scandir

    def locked(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    # Not by its mode: tests may run as root, who reads everything.
    monkeypatch.setattr(os, "scandir", locked)
    ask = {"opening": [lambda: open_layout(root, name)], "copying": [data.all_files, data.folders]}[at]
    for each in ask:
        with pytest.raises(
            LayoutError, match=r"extra/locked: .*cannot be read \(Permission denied\); make it readable"
        ):
            each()


def test_an_unreadable_label_map_does_not_stop_the_others(tmp_path: Path) -> None:
    content = {"training": [{"image": f"i{number}.nii", "label": f"l{number}.nii"} for number in range(3)]}
    for number in range(2):
        save_nifti(tmp_path / f"i{number}.nii", np.full((4, 4), number + 5, "int16"))
    save_nifti(tmp_path / "l0.nii", np.full((4, 4), 2, "uint8"))
    save_text(tmp_path / "l1.nii", "damaged")
    save_json(tmp_path / "dataset.json", content)
    assert detect(tmp_path).task() == Segmentation(num_classes=3)


def test_a_broken_unit_refuses_whatever_is_asked(tmp_path: Path) -> None:
    unit = UnusableImage("a", ("a.png", "b.png"), "it is cut off")
    image = np.zeros((1, 2, 2), "uint8")
    asks: list[Callable[[], object]] = [
        lambda: unit.read(tmp_path),
        lambda: unit.write(tmp_path, tmp_path, image),
        lambda: unit.rewrite(tmp_path, tmp_path, lambda image: image),
        lambda: list(unit.differences(tmp_path, tmp_path)),
        lambda: unit.keepsake(tmp_path),
        lambda: unit.restore(tmp_path, tmp_path, image, None),
    ]
    for ask in asks:
        with pytest.raises(FormatError, match=r"^case 'a': it is cut off$"):
            ask()


def test_no_usable_training_case_is_said_with_a_reason(tmp_path: Path) -> None:
    shutil.rmtree(build_nnunet(tmp_path) / "labelsTr")
    with pytest.raises(LayoutError, match=r"no training case can be used\. imagesTr/p_000_0000.*no label map"):
        detect(tmp_path).task()


def test_a_link_to_a_file_inside_is_a_file(tmp_path: Path) -> None:
    root = build_datalist(tmp_path / "data")
    os.symlink("readme.txt", root / "notes" / "link.txt")
    assert "notes/link.txt" in detect(root).all_files()


def test_folders_and_files_are_listed(tmp_path: Path) -> None:
    data = detect(build_datalist(tmp_path / "data"))
    assert data.folders()[0] == "."
    assert {"empty", "notes", "imagesTr"} <= set(data.folders())
    assert "notes/readme.txt" in data.all_files()


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.linspace(-1000, 2000, 10_001).astype("int16"), (-985, 1985)),
        (np.linspace(0, 1, 10_000).astype("float32"), (0.005, 0.995)),
        (np.linspace(0.1, 0.4, 10_000).astype("float32"), (0.1015, 0.3985)),
        (np.array([0] * 999 + [7], "int16"), (0, 7)),  # a few structures on a flat background
    ],
)
def test_an_image_without_a_modality_is_seen_by_its_percentiles(
    tmp_path: Path, values: np.ndarray, window: tuple[float, float]
) -> None:
    values = np.random.default_rng(0).permutation(values)
    save_nifti(tmp_path / "i.nii", values.reshape(-1, 1, 1))
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.nii", "label": 0}]})
    case = detect(tmp_path).dataset()[0]
    found = AutomaticWindow().of(case["image"], case["units"])
    assert (found.low, found.high) == pytest.approx(window)


@pytest.mark.parametrize("build", [build_decathlon, build_nnunet])
def test_a_modality_that_the_data_set_names_chooses_the_window(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """nnU-Net and the Decathlon name each channel; CT is a fixed window in Hounsfield units, all else percentiles."""
    root = build(tmp_path / "set")
    listing = root / "dataset.json"
    content = json.loads(listing.read_text())
    key = "modality" if "modality" in content else "channel_names"
    save_json(listing, {**content, key: {"0": "CT", "1": "PET"}})
    case = open_layout(root).dataset()[0]
    assert [case["units"].modality_of(channel) for channel in (0, 1)] == ["CT", "PET"]
    image = case["image"].astype(np.int32) - 1000  # with air
    ct, pet = AutomaticWindow().of(image, case["units"]).channels(2)
    assert ct == (-160, 240)
    assert pet == pytest.approx(tuple(np.percentile(image[1], [0.5, 99.5])))


def test_channels_of_several_files_keep_units_of_their_own(tmp_path: Path) -> None:
    """With a slope each, they are still known as CT and PET."""
    root = build_nnunet(tmp_path / "set")
    data = open_layout(root)
    for slope, file in zip((1.0, 0.25), data.image_files()[:2], strict=True):
        _scale(root / file, slope)
    units = data.dataset()[0]["units"]
    assert [units.real(100, channel) for channel in (0, 1)] == [100, 25]
    assert [units.modality_of(channel) for channel in (0, 1)] == ["CT", "PET"]


def test_files_of_several_channels_keep_their_units(tmp_path: Path) -> None:
    for slope in (2, 3):
        values = np.random.default_rng(slope).integers(0, 900, (6, 5, 4, 2)).astype("int16")
        _scale(save_nifti(tmp_path / f"{slope}.nii.gz", values), float(slope))
    save_json(tmp_path / "dataset.json", {"training": [{"image": ["2.nii.gz", "3.nii.gz"], "label": 0}]})
    units = detect(tmp_path).dataset()[0]["units"]
    assert [units.real(1, channel) for channel in range(4)] == [2, 2, 3, 3]


def test_a_data_set_of_one_split_has_nothing_to_test_on(tmp_path: Path) -> None:
    save_nifti(tmp_path / "i.nii", np.full((4, 4), 5, "int16"))
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.nii", "label": 0}]})
    with pytest.raises(LayoutError, match=r"gone/dataset\.json is missing"):
        detect(tmp_path).reopen(tmp_path / "gone")
    with pytest.raises(LayoutError, match="--test DATASET"):
        detect(tmp_path).test_split()


def test_layouts_are_opened_by_name(tmp_path: Path) -> None:
    root = build_datalist(tmp_path / "data")
    with pytest.raises(ValueError, match="unknown layout 'nope'; known: medmnist, bids, nnunet"):
        open_layout(root, "nope")
    with pytest.raises(LayoutError, match="is no file"):
        open_layout(root, "medmnist")
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        open_layout(tmp_path / "gone", "datalist")
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        detect(tmp_path / "gone")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(LayoutError, match=r"medmnist: .*; datalist: .*--layout"):
        detect(tmp_path / "empty")
    assert set(LAYOUTS) == {layout.name for layout in LAYOUTS.values()}
    with pytest.raises(LayoutError, match="no split 'nope'"):
        detect(root).dataset("nope")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "medmnist"])
def test_an_empty_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match=str(tmp_path)):
        open_layout(tmp_path, name)


def test_the_native_unit_is_that_of_all_training_files(tmp_path: Path) -> None:
    data = open_layout(build_decathlon(tmp_path / "data"))
    assert data.native_unit() is None
    files = [data.root / file for file in data.image_files()]
    for file in files:
        _scale(file, 2.0)
    assert data.native_unit() == (2.0, "units of the scaled file")
    _scale(files[0], 4.0)
    assert data.native_unit() is None  # no one unit for all
    assert open_layout(save_archive(tmp_path / "set.npz", (8, 8))).native_unit() is None


def _scale(file: Path, slope: float) -> None:
    """Set ``scl_slope`` of a gzipped NIfTI file."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[112:120] = struct.pack("<ff", slope, 0.0)
    file.write_bytes(gzip.compress(bytes(content)))
