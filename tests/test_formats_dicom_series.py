"""Slices of a DICOM series are one image in the order of their places, or refused where that order cannot be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import UID, dicom_sequence, read_dicom, save_dicom, with_noise

from monai_salm.formats import FORMATS, FormatError
from monai_salm.formats.dicom.file import renamed_uid
from monai_salm.formats.dicom.series import DicomSeries, group_series
from monai_salm.formats.dicom.stacks import Stack

DICOM = FORMATS["dicom"]
OBLIQUE = [0.8, 0.6, 0, -0.6, 0.8, 0]


def save_slices(root: Path, places: list[float], folder: str = "ct", **elements: Any) -> list[str]:
    """One file a slice, named in no order that means anything."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    files = []
    for number, place in enumerate(places):
        values = {
            "ImagePositionPatient": [1, 2, place],
            "ImageOrientationPatient": OBLIQUE,
            "InstanceNumber": number + 1,
            **elements,
        }
        file = f"{folder}/{number:02d}.dcm"
        save_dicom(root, file=file, uid=f"{UID}.{number + 1}", seed=number, **values)
        files.append(file)
    return files


@pytest.mark.parametrize("elements", [{}, {"signed": True, "stored": 12}, {"syntax": "RLE"}, {"syntax": "implicit"}])
def test_a_series_goes_there_and_back(tmp_path: Path, elements: dict[str, Any]) -> None:
    files = save_slices(tmp_path, [5.0, -2.5, 0.0, 2.5], **elements)
    (unit,) = group_series(tmp_path, files)
    assert unit.name == "ct/00.dcm"
    assert unit.files == ("ct/01.dcm", "ct/02.dcm", "ct/03.dcm", "ct/00.dcm")
    image = unit.read(tmp_path)
    assert image.shape == (1, 6, 5, 4)
    assert np.array_equal(image[..., 1], DICOM.read(tmp_path / "ct/02.dcm"))
    assert unit.bounds(tmp_path) == ((-2048, 2047) if elements.get("stored") else None)
    output, restored = tmp_path / "out", tmp_path / "back"
    (output / "ct").mkdir(parents=True)
    (restored / "ct").mkdir(parents=True)
    noisy = with_noise(image, unit.bounds(tmp_path))
    unit.write(tmp_path, output, noisy)
    assert np.array_equal(unit.read(output), noisy)
    assert list(unit.differences(tmp_path, output)) == []
    assert group_series(output, files)[0].files == unit.files
    unit.restore(output, restored, image, unit.keepsake(tmp_path))
    for file in files:
        if elements.get("syntax") != "RLE":
            assert (restored / file).read_bytes() == (tmp_path / file).read_bytes()
    assert np.array_equal(unit.read(restored), image)


def test_slices_without_places_follow_their_numbers(tmp_path: Path) -> None:
    files = save_slices(tmp_path, [0, 0, 0], ImagePositionPatient=None)
    for file, number in zip(files, (3, 1, 2), strict=True):
        data = read_dicom(tmp_path / file)
        data.InstanceNumber = number
        data.save_as(tmp_path / file)
    (unit,) = group_series(tmp_path, files)
    assert unit.files == ("ct/01.dcm", "ct/02.dcm", "ct/00.dcm")


@pytest.mark.parametrize(
    ("places", "elements", "reason"),
    [
        ([0, 1, 1], {}, "lie at one place"),
        ([0, 0, 0], {"ImagePositionPatient": None, "InstanceNumber": 1}, "do not say where their slices lie"),
    ],
)
def test_orders_that_cannot_be_told_are_refused(
    tmp_path: Path, places: list[float], elements: dict[str, Any], reason: str
) -> None:
    files = save_slices(tmp_path, places, **elements)
    with pytest.raises(FormatError, match=reason):
        group_series(tmp_path, files)
    others = save_slices(tmp_path, [0, 1], "other", SeriesInstanceUID="1.5")
    (tmp_path / "other/x.dcm").write_text("no dicom")
    skipped: list[Stack] = []
    units = group_series(tmp_path, [*files, *others, "other/x.dcm"], skipped=skipped)
    assert [unit.name for unit in units] == ["other/00.dcm"]
    assert [(each.name, each.files) for each in skipped] == [
        ("other/x.dcm", ("other/x.dcm",)),
        ("ct/00.dcm", tuple(files)),
    ]
    assert re.search(reason, skipped[1].reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "different directions"),
        ({"PixelRepresentation": 1}, "differ in type of pixels"),
    ],
)
def test_slices_that_differ_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    files = save_slices(tmp_path, [0, 1, 2])
    data = read_dicom(tmp_path / files[1])
    for name, value in change.items():
        setattr(data, name, value)
    data.save_as(tmp_path / files[1])
    with pytest.raises(FormatError, match=reason):
        group_series(tmp_path, files)


def test_files_are_grouped_by_folder_series_and_shape(tmp_path: Path) -> None:
    files = [
        *save_slices(tmp_path, [0, 1], "a"),
        *save_slices(tmp_path, [0, 1], "b", SeriesInstanceUID="1.5"),
        *save_slices(tmp_path, [0], "c"),
        *save_slices(tmp_path, [0], "d", shape=(3, 6, 5)),
    ]
    for number, file in enumerate(save_slices(tmp_path, [5, 6], "more", SeriesInstanceUID="1.6")):
        (tmp_path / "b" / f"more{number}.dcm").write_bytes((tmp_path / file).read_bytes())
        files.append(f"b/more{number}.dcm")
    units = group_series(tmp_path, files)
    assert [(unit.name, len(unit.files)) for unit in units] == [
        ("a/00.dcm", 2),
        ("b/00.dcm", 2),
        ("c/00.dcm", 1),
        ("d/00.dcm", 1),
        ("b/more0.dcm", 2),
    ]
    assert [unit.read(tmp_path).shape for unit in units[2:4]] == [(1, 6, 5), (1, 6, 5, 3)]
    assert units[0].protected_uids == {f"{UID}.1", f"{UID}.2"}


def test_references_between_slices_follow(tmp_path: Path) -> None:
    files = save_slices(tmp_path, [0, 1], ReferencedImageSequence=dicom_sequence(ReferencedSOPInstanceUID=f"{UID}.2"))
    (unit,) = group_series(tmp_path, files)
    (tmp_path / "out/ct").mkdir(parents=True)
    unit.write(tmp_path, tmp_path / "out", with_noise(unit.read(tmp_path)))
    first = read_dicom(tmp_path / "out" / files[0])
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == renamed_uid(f"{UID}.2")
    assert (
        first.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        == read_dicom(tmp_path / "out" / files[1]).SOPInstanceUID
    )
    assert list(unit.differences(tmp_path, tmp_path / "out")) == []


def test_a_keepsake_of_another_image_is_refused(tmp_path: Path) -> None:
    files = save_slices(tmp_path, [0, 1])
    (unit,) = group_series(tmp_path, files)
    other = DicomSeries("other", unit.files[:1])
    for kept in (None, other.keepsake(tmp_path)):
        with pytest.raises(FormatError, match="2 files"):
            unit.restore(tmp_path, tmp_path / "out", unit.read(tmp_path), kept)


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("hello")
    with pytest.raises(FormatError, match=r"a\.dcm: its header cannot be read"):
        group_series(tmp_path, ["a.dcm"])


def names_of(root: Path, files: list[str]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """The files of each image, and what is set aside with the reasons."""
    skipped: list[Stack] = []
    units = group_series(root, files, skipped=skipped)
    return [unit.files for unit in units], {each.name: each.reason for each in skipped}


@pytest.mark.parametrize(
    "elements",
    [
        {"Modality": "DX"}, {"Modality": "CR"}, {"Modality": "MG"}, {"Modality": "US"}, {"Modality": "XA"}, {"Modality": "SC"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, {"channels": 3, "bits": 8},
    ],
)  # fmt: skip
def test_projections_and_colour_images_are_one_image_each(tmp_path: Path, elements: dict[str, Any]) -> None:
    files = save_slices(tmp_path, [0, 1, 2], **elements)
    assert names_of(tmp_path, files) == ([(file,) for file in files], {})


def change(path: Path, **elements: Any) -> None:
    data = read_dicom(path)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path)


@pytest.mark.parametrize(
    "phase",
    [
        lambda number: {"AcquisitionNumber": number // 3},
        lambda number: {"EchoTime": str(10 + number % 2)},
        lambda number: {"ContentTime": f"10101{number // 3}", "AcquisitionNumber": number},
        lambda number: {"EchoTime": str(number % 2), "AcquisitionNumber": 0, "InstanceNumber": 6 - number},
        lambda number: {"InstanceNumber": number + 1},  # told by the order alone
    ],
)
def test_phases_of_a_series_are_an_image_each(tmp_path: Path, phase: Any) -> None:
    by_turns = phase(0) != phase(1) and phase(0) == phase(2)
    places = [0, 0, 1, 1, 2, 2] if "EchoTime" in phase(0) else [0, 1, 2, 0, 1, 2]
    files = save_slices(tmp_path, places)
    for number, file in enumerate(files):
        change(tmp_path / file, **phase(number))
    found, aside = names_of(tmp_path, files)
    expected = [files[::2], files[1::2]] if by_turns or "EchoTime" in phase(0) else [files[:3], files[3:]]
    assert sorted(found) == sorted(map(tuple, expected))
    assert aside == {}


def test_two_by_two_phases_are_told_by_two_elements(tmp_path: Path) -> None:
    files = save_slices(tmp_path, [0, 1] * 4)
    for number, file in enumerate(files):
        change(tmp_path / file, EchoTime=str(number // 2 % 2), AcquisitionNumber=number // 4, InstanceNumber=1)
    found, aside = names_of(tmp_path, files)
    assert sorted(found) == [tuple(files[i : i + 2]) for i in range(0, 8, 2)]
    assert aside == {}


def test_a_slice_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    files = save_slices(tmp_path, [0, 1, 2])
    (tmp_path / "ct/01 (1).dcm").write_bytes((tmp_path / "ct/01.dcm").read_bytes())
    other = read_dicom(tmp_path / "ct/02.dcm")
    other.SOPInstanceUID = f"{UID}.77"
    other.save_as(tmp_path / "ct/09.dcm")
    found, aside = names_of(tmp_path, [*files, "ct/01 (1).dcm", "ct/09.dcm"])
    assert found == [("ct/00.dcm", "ct/01 (1).dcm", "ct/02.dcm")]
    assert set(aside) == {"ct/01.dcm", "ct/09.dcm"}
    assert "same slice as ct/02.dcm" in aside["ct/09.dcm"]


def test_equal_slices_of_two_phases_are_both_kept(tmp_path: Path) -> None:
    """As blank ones above the head."""
    files = [*save_slices(tmp_path, [0, 1, 2], "a"), *save_slices(tmp_path, [0, 1, 2], "b")]
    for number, file in enumerate(files):
        change(tmp_path / file, AcquisitionNumber=number // 3, SOPInstanceUID=f"{UID}.{number + 20}")
        (tmp_path / file).rename(tmp_path / f"IM{number}")
    found, aside = names_of(tmp_path, [f"IM{number}" for number in range(6)])
    assert found == [("IM0", "IM1", "IM2"), ("IM3", "IM4", "IM5")]
    assert aside == {}
