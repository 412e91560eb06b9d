"""DICOM trees: series are images, their labels stand in folders or tables, and references follow the new UIDs."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

import format_samples  # noqa: E402
from layout_samples import (  # noqa: E402
    SEG_STORAGE,
    SR_STORAGE,
    build_dicom_tree,
    random_image,
    refer_to,
    save_dicom,
    save_nifti,
    save_text,
)

from monai_salm.formats import FormatError  # noqa: E402
from monai_salm.formats.dicom.file import renamed_uid  # noqa: E402
from monai_salm.generate.precompute import precompute  # noqa: E402
from monai_salm.layouts import LayoutError, detect, open_layout  # noqa: E402
from monai_salm.layouts.dicom_headers import holds_no_pixels  # noqa: E402
from monai_salm.layouts.dicom_tree import DicomTree  # noqa: E402
from monai_salm.layouts.stored_images import UnusableImage  # noqa: E402
from monai_salm.learning.tasks import Classification  # noqa: E402
from monai_salm.methods import RandomNoise  # noqa: E402
from monai_salm.publishing import publish, restore, verify  # noqa: E402


def labels(root: Path) -> dict[str, object]:
    return {case["name"]: case["label"] for case in detect(root).dataset()}


def test_a_series_is_an_image_and_its_top_folder_the_class(tmp_path: Path) -> None:
    data = detect(build_dicom_tree(tmp_path))
    assert isinstance(data, DicomTree)
    assert labels(tmp_path) == {"bad/s1/IM0": 0, "ok/s2/IM0": 1, "ok/s3/IM0": 1}
    assert data.class_names == ("bad", "ok")
    assert data.task() == Classification(num_classes=2)
    case = data.dataset()[0]
    assert case["image"].shape == (1, 4, 5, 3)
    assert np.array_equal(case["image"][0, :, :, 0], random_image(101, (4, 5), "uint16"))
    assert data.stored_images()[0].files == ("bad/s1/IM2", "bad/s1/IM1", "bad/s1/IM0")
    assert data.unlisted() == ()
    assert dict(data.rewritten_files()) == {}


def test_splits_are_folders_above_the_classes(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path, ("train/a/s1", "train/b/s2", "test/a/s3", "other/s4", "train/a/s5", "val/patient/s6"))
    data = detect(tmp_path)
    assert (data.splits, data.class_names) == (("train", "val", "test"), ("a", "b"))
    assert [data.has_labels(split) for split in data.splits] == [True, False, True]
    assert data.dataset("test").names == ("test/a/s3/IM0",)
    assert set(data.unlisted()) == {f"other/s4/IM{number}" for number in range(3)}


@pytest.mark.parametrize(
    "lines",
    [
        ["SeriesInstanceUID,label", "1.2.3.1,ill", "1.2.3.2,well"],
        ["patient id;diagnosis;age", "patient1;ill;3", "patient2;well;4"],
        ["study_uid,class", "1.2.3.1.0,ill", "1.2.3.2.0,well"],
        ["folder,label", "one/a,ill", "one/b,well"],
        ["folder,label", "./one/a/,ill", "one,well"],
        ["image,label", "one/a/IM0,ill", "one/b,well"],
    ],
)
def test_a_table_may_give_the_labels(tmp_path: Path, lines: list[str]) -> None:
    build_dicom_tree(tmp_path, ("one/a", "one/b"), slices=1 if "IM0" in lines[1] else 3)
    save_text(tmp_path / "labels.csv", "\n".join(lines))
    data = detect(tmp_path)
    assert list(labels(tmp_path).values()) == [0, 1]
    assert data.class_names == ("ill", "well")
    assert data.unlisted() == ()


@pytest.mark.parametrize(("column", "train", "val"), [("split", "train", "val"), ("is_val", "0", "1")])
def test_a_table_may_give_splits_and_several_labels(tmp_path: Path, column: str, train: str, val: str) -> None:
    build_dicom_tree(tmp_path, ("a", "b", "c"))
    rows = f"patient1,1,1,{train}\npatient2,0,0,{train}\npatient3,1,0,{val}\n"
    save_text(tmp_path / "list.csv", f"patient,nodule,effusion,{column}\n{rows}")
    data = detect(tmp_path)
    assert [case["label"].tolist() for case in data.dataset()] == [[1, 1], [0, 0]]
    assert data.dataset("val")[0]["label"].tolist() == [1, 0]
    assert data.task() == Classification(num_classes=2, multi_label=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("patient,label\nnobody,1\n", "line 2, column 'patient': no DICOM image of patient 'nobody'"),
        ("patient,label\npatient1,1\npatient1,0\n", "line 3, column 'patient': 'patient1' stands there again"),
        ("patient,label\n,1\n", "line 2, column 'patient': '' names nothing"),
        ("patient,label\n", "no rows"),
        ("folder,label\n../x,1\n", "line 2, column 'folder'.*must be relative and stay inside"),
        ("folder,label\n/etc,1\n", "line 2, column 'folder'.*must be relative and stay inside"),
        ("patient,label,split\npatient1,1,test\npatient2,0,test\n", "no training images"),
        ("patient,label,split\npatient1,1,x\n", "'x' is no split"),
        ("patient,colour\npatient1,red\n", "no column of labels"),
        ("series,image,label\n1.2.3.1,IM0,1\n1.2.3.1,IM1,0\n", "stands there again"),
        ("image,label\na/IM0,1\na/IM1,0\n", "have different labels"),
    ],
)
def test_refuses_tables_with_line_and_column(tmp_path: Path, text: str, reason: str) -> None:
    build_dicom_tree(tmp_path, ("a", "b"))
    save_text(tmp_path / "labels.csv", text)
    with pytest.raises(LayoutError, match=reason) as caught:
        open_layout(tmp_path, "dicom_tree")
    assert str(tmp_path) in str(caught.value)


def test_two_tables_are_refused(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path, ("a", "b"))
    for name in ("one.csv", "two.csv"):
        save_text(tmp_path / name, "patient,label\npatient1,1\n")
    with pytest.raises(LayoutError, match=r"several tables of series, one\.csv, two\.csv"):
        detect(tmp_path)


def test_a_series_without_a_line_has_no_label(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path, ("a", "b"))
    save_text(tmp_path / "labels.csv", "patient,label\npatient1,1\n")
    assert labels(tmp_path) == {"a/IM0": 1, "b/IM0": None}


@pytest.mark.parametrize("folders", [("patient1", "patient2"), ("all/s1", "all/s2")])
def test_folders_of_patients_and_a_single_folder_are_no_classes(tmp_path: Path, folders: tuple[str, str]) -> None:
    data = detect(build_dicom_tree(tmp_path, folders))
    assert [case["label"] for case in data.dataset()] == [None, None]
    save_nifti(tmp_path / "masks" / "a.nii.gz", random_image(0))
    with pytest.raises(LayoutError, match=r"has no labels: .*labels\.csv.*DICOM SEG, NIfTI"):
        data.task()


def with_objects(root: Path) -> tuple[str, str]:
    """A segmentation and a report that refer to a protected image; a report that refers elsewhere."""
    build_dicom_tree(root)
    seg = save_dicom(
        root / "bad/seg.dcm",
        "1.2.4.1",
        storage=SEG_STORAGE,
        Modality="SEG",
        SourceImageSequence=refer_to(["1.2.3.1.1"]),
    )
    sr = save_dicom(
        root / "bad/sr.dcm", "1.2.4.2", storage=SR_STORAGE, Modality="SR",
        CurrentRequestedProcedureEvidenceSequence=refer_to(["1.2.3.1.2", "9.9.9"]),
    )  # fmt: skip
    save_dicom(root / "bad/other.dcm", "1.2.4.3", storage=SR_STORAGE, ReferencedImageSequence=refer_to(["9.9.9"]))
    return seg, sr


def test_references_to_protected_images_follow_their_new_uids(tmp_path: Path) -> None:
    with_objects(tmp_path)
    data = detect(tmp_path)
    assert data.dataset().names == ("bad/s1/IM0", "ok/s2/IM0", "ok/s3/IM0")
    assert data.unlisted() == ()
    files = data.rewritten_files()
    assert (list(files), len(files)) == (["bad/seg.dcm", "bad/sr.dcm"], 2)
    seg, before = (
        pydicom.dcmread(io.BytesIO(content))
        for content in (files["bad/seg.dcm"], (tmp_path / "bad/seg.dcm").read_bytes())
    )
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == renamed_uid("1.2.3.1.1")
    assert seg.SOPInstanceUID == before.SOPInstanceUID
    seg.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.1.1"
    assert seg == before
    sr = pydicom.dcmread(io.BytesIO(files["bad/sr.dcm"]))
    found = [item.ReferencedSOPInstanceUID for item in sr.CurrentRequestedProcedureEvidenceSequence]
    assert found == [renamed_uid("1.2.3.1.2"), "9.9.9"]
    with pytest.raises(KeyError):
        files["bad/other.dcm"]


def test_references_between_protected_series_follow_too(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path / "a", ("x/s1", "y/s2"), slices=1)
    save_dicom(tmp_path / "a/y/s3/IM", "1.2.3.3", ReferencedImageSequence=refer_to(["1.2.3.1.1", "9.9.9"]))
    data = detect(tmp_path / "a")
    for unit in data.stored_images():
        (tmp_path / "b" / unit.files[0]).parent.mkdir(parents=True)
        unit.write(tmp_path / "a", tmp_path / "b", unit.read(tmp_path / "a") + np.uint16(1))
        assert list(unit.differences(tmp_path / "a", tmp_path / "b")) == []
    found = pydicom.dcmread(tmp_path / "b/y/s3/IM").ReferencedImageSequence
    assert [item.ReferencedSOPInstanceUID for item in found] == [renamed_uid("1.2.3.1.1"), "9.9.9"]


def test_the_written_series_bear_the_uids_that_references_have(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path / "a")
    data = detect(tmp_path / "a")
    (tmp_path / "b/bad/s1").mkdir(parents=True)
    unit = data.stored_images()[0]
    unit.write(tmp_path / "a", tmp_path / "b", unit.read(tmp_path / "a") + np.uint16(1))
    found = {pydicom.dcmread(tmp_path / "b" / file).SOPInstanceUID for file in unit.files}
    assert found == {renamed_uid(f"1.2.3.1.{number}") for number in (1, 2, 3)}
    assert list(unit.differences(tmp_path / "a", tmp_path / "b")) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: [path.unlink() for path in root.rglob("IM*")], "no DICOM images"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(build_dicom_tree(tmp_path))
    with pytest.raises(LayoutError, match=reason):
        open_layout(tmp_path, "dicom_tree")


def test_an_index_is_no_part_of_the_data_set(tmp_path: Path) -> None:
    save_text(build_dicom_tree(tmp_path) / "DICOMDIR", "x")
    save_text(tmp_path / "ok" / "dicomdir", "x")
    data = detect(tmp_path)
    assert isinstance(data, DicomTree)
    assert len(data.dataset()) == 3
    assert "index" in data.leftovers()["DICOMDIR"]
    assert "make a new one" in data.leftovers()["ok/dicomdir"]


def broken(root: Path) -> dict[str, UnusableImage]:
    """The cases that cannot be used; each says so, and the others can be read."""
    data = detect(root)
    found = {}
    for unit in data.stored_images():
        if isinstance(unit, UnusableImage):
            assert unit.name in data.dataset().names
            assert not set(unit.files) & {*data.rewritten_files(), *data.listing, *data.unlisted()}
            found[unit.name] = unit
        else:
            unit.read(root)
    return found


@pytest.mark.parametrize("size", [140, 300, 420])
def test_a_damaged_object_is_left_out_and_the_others_follow(tmp_path: Path, size: int) -> None:
    with_objects(tmp_path)
    path = tmp_path / "bad/seg.dcm"
    path.write_bytes(path.read_bytes()[:size])
    (unit,) = broken(tmp_path).values()
    assert (unit.name, unit.files) == ("bad/seg.dcm", ("bad/seg.dcm",))
    assert str(path) in unit.reason
    assert list(detect(tmp_path).rewritten_files()) == ["bad/sr.dcm"]


def test_a_damaged_object_of_another_split_is_left_out_too(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path, ("train/a/s1", "train/b/s2", "test/a/s3"))
    save_dicom(
        tmp_path / "test/a/sr.dcm", "1.2.4.2", storage=SR_STORAGE, ReferencedImageSequence=refer_to(["1.2.3.1.1"])
    )
    (tmp_path / "test/a/sr.dcm").write_bytes((tmp_path / "test/a/sr.dcm").read_bytes()[:-3])
    assert list(broken(tmp_path)) == ["test/a/sr.dcm"]


def without(*keywords: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = pydicom.dcmread(path)
        for keyword in keywords:
            delattr(data, keyword)
        data.save_as(path)

    return change


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "no number of rows|no DICOM file"),
        (lambda path: path.write_bytes(path.read_bytes()[:140]), "no number of rows|no DICOM file"),
        (lambda path: path.write_bytes(path.read_bytes()[132:][:120]), "no number of rows|no DICOM file"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:128] + b"DICM" + b"?" * 99),
            "no DICOM file|no number of rows",
        ),
        (without("Rows"), "no number of rows"),
        (without("Rows", "SOPClassUID"), "no number of rows"),
    ],
)
def test_a_damaged_slice_is_left_out_alone(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    build_dicom_tree(tmp_path)
    spoil(tmp_path / "bad/s1/IM1")
    (unit,) = broken(tmp_path).values()
    assert (unit.name, unit.files) == ("bad/s1/IM1", ("bad/s1/IM1",))
    with pytest.raises(FormatError, match=reason):
        unit.read(tmp_path)
    data = detect(tmp_path)
    assert data.stored_images()[0].files == ("bad/s1/IM2", "bad/s1/IM0")
    assert data.task() == Classification(num_classes=2)


def test_what_is_only_named_like_dicom_is_left_out(tmp_path: Path) -> None:
    save_text(build_dicom_tree(tmp_path) / "ok" / "x.dcm", "no dicom")
    assert "no DICOM file that can be read" in broken(tmp_path)["ok/x.dcm"].reason


@pytest.mark.parametrize(
    ("storage", "pixels", "kind"),
    [
        ("88.11", False, "object"),
        ("481.3", False, "object"),
        ("104.1", False, "object"),
        ("66.1", False, "object"),
        ("88.11", True, "image"),
        ("481.3", True, "image"),
        ("66.4", True, "object"),
        ("481.2", True, "object"),
        ("481.1", False, "broken"),
        ("2", False, "broken"),
        ("999", False, "broken"),
        ("999", True, "image"),
        ("66", False, "broken"),
    ],
)
def test_only_known_objects_without_pixels_are_no_images(tmp_path: Path, storage: str, pixels: bool, kind: str) -> None:
    build_dicom_tree(tmp_path)
    path = tmp_path / "ok/it.dcm"
    save_dicom(path, "1.2.4.9", storage=f"1.2.840.10008.5.1.4.1.1.{storage}")
    if not pixels and storage != "88.11":
        without("Rows", "PixelData")(path)
    if pixels and storage == "88.11":
        save_dicom(path, "1.2.4.9")
        data = pydicom.dcmread(path)
        data.SOPClassUID = SR_STORAGE
        data.save_as(path)
    data = detect(tmp_path)
    found = "broken" if "ok/it.dcm" in broken(tmp_path) else "image" if "ok/it.dcm" in data.image_files() else "object"
    assert found == kind


def test_no_class_of_images_is_taken_for_one_of_objects() -> None:
    from pydicom.uid import UID_dictionary

    found = {uid: entry[0] for uid, entry in UID_dictionary.items() if holds_no_pixels(uid)}
    assert not [name for name in found.values() if "Image Storage" in name]
    assert len(found) > 60


def test_series_that_make_no_image_are_left_out(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path)
    for path, number in ((tmp_path / f"ok/s2/IM{n}", n) for n in range(3)):
        data = pydicom.dcmread(path)
        data.InstanceNumber = min(number, 1)
        data.save_as(path)
    (unit,) = broken(tmp_path).values()
    assert (unit.name, unit.files) == ("ok/s2/IM0", ("ok/s2/IM0", "ok/s2/IM1", "ok/s2/IM2"))
    assert "Instance Number of their own" in unit.reason
    assert detect(tmp_path).dataset().names == ("bad/s1/IM0", "ok/s2/IM0", "ok/s3/IM0")


def test_objects_that_refer_to_protected_images_lose_their_icons(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path)
    icon = pydicom.dataset.Dataset()
    icon.Rows, icon.BitsAllocated, icon.PixelData = 4, 8, b"ICONICON"
    for name, uid in (("sr", "1.2.3.1.2"), ("other", "9.9.9")):
        item = refer_to([uid])
        item[0].IconImageSequence = [icon]
        save_dicom(
            tmp_path / f"bad/{name}.dcm", f"1.2.4.{len(name)}", storage=SR_STORAGE, ReferencedImageSequence=item,
            IconImageSequence=[icon], PatientComments="kept",
        )  # fmt: skip
    files = detect(tmp_path).rewritten_files()
    assert list(files) == ["bad/sr.dcm"]
    assert b"ICON" in (tmp_path / "bad/sr.dcm").read_bytes()
    assert b"ICON" not in files["bad/sr.dcm"]
    found = pydicom.dcmread(io.BytesIO(files["bad/sr.dcm"]))
    assert found.PatientComments == "kept"
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == renamed_uid("1.2.3.1.2")


@pytest.mark.parametrize("table", [False, True])
def test_a_copy_without_what_was_left_out_opens_with_the_same_names(tmp_path: Path, table: bool) -> None:
    build_dicom_tree(tmp_path, ("a/s1", "a/s2", "b/s3", "c/s4"))
    save_dicom(tmp_path / "a/s1/other1", "1.2.3.9", 1)
    save_dicom(tmp_path / "a/s1/other2", "1.2.3.9", 2)
    for path in (tmp_path / "a/s1/other2", *(tmp_path / f"c/s4/IM{n}" for n in range(3))):
        path.write_bytes(path.read_bytes()[:250])
    if table:
        save_text(tmp_path / "labels.csv", "folder,label\na,x\nb,y\nc,z\n")
    before = detect(tmp_path)
    left = broken(tmp_path)
    assert list(left) == ["a/s1/other2", "c/s4/IM0", "c/s4/IM1", "c/s4/IM2"]
    for unit in left.values():
        (tmp_path / unit.files[0]).unlink()
    after = detect(tmp_path)
    kept = [unit for unit in before.stored_images() if unit.name not in left]
    assert [(unit.name, unit.files) for unit in after.stored_images()] == [(unit.name, unit.files) for unit in kept]
    assert after.class_names == before.class_names
    assert [case["label"] for case in after.dataset()] == [0, 0, 0, 1]


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root = build_dicom_tree(tmp_path / "data")
    save_dicom(tmp_path / "secret.dcm", "1.2.9.9")
    os.symlink(tmp_path / "secret.dcm", root / "ok" / "link.dcm")
    with pytest.raises(LayoutError, match="leads out"):
        detect(root)


def test_images_and_class_folders_of_dicom_are_left_to_this_layout(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path)
    with pytest.raises(LayoutError, match="--layout dicom_tree"):
        open_layout(tmp_path, "image_folder")
    with pytest.raises(LayoutError, match="is no folder"):
        open_layout(save_text(tmp_path / "x.txt", ""), "dicom_tree")


LOCALIZER, DOSE = ["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "SCREEN SAVE"]
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def units_of(root: Path) -> tuple[set[str], dict[str, str]]:
    """Names of the images, and of the cases that are left out with the reasons."""
    found = broken(root)
    sound = {unit.name for unit in detect(root).stored_images()} - set(found)
    return sound, {name: unit.reason for name, unit in found.items()}


def test_scouts_and_dose_reports_are_set_aside_each_series_once(tmp_path: Path) -> None:
    build_dicom_tree(tmp_path)
    for number in (1, 2):
        save_dicom(tmp_path / f"bad/0_scout/IM{number}", "1.2.5.1", number, ImageType=LOCALIZER, Modality="CT")
    save_dicom(tmp_path / "bad/s1/A0", "1.2.3.1", 9, ImageType=LOCALIZER)  # in the series of its slices
    save_dicom(tmp_path / "ok/0_dose/IM0", "1.2.5.2", storage=CAPTURE, Modality="CT", ImageType=DOSE)
    sound, aside = units_of(tmp_path)
    assert sound == {"bad/s1/IM0", "ok/s2/IM0", "ok/s3/IM0"}
    assert set(aside) == {"bad/0_scout/IM1", "bad/s1/A0", "ok/0_dose/IM0"}
    assert "scout" in aside["bad/0_scout/IM1"]
    assert "secondary capture" in aside["ok/0_dose/IM0"]
    assert detect(tmp_path).task() == Classification(num_classes=2)


def test_captures_and_scouts_that_are_all_there_is_are_images(tmp_path: Path) -> None:
    for number, place in enumerate(("a/x", "a/y", "b/x", "b/y")):
        save_dicom(tmp_path / "captures" / place, f"1.2.5.{number}", storage=CAPTURE, Modality="CR")
        save_dicom(tmp_path / "scouts" / place, f"1.2.6.{number}", ImageType=LOCALIZER)
    assert [units_of(tmp_path / name)[1] for name in ("captures", "scouts")] == [{}, {}]


def test_digitized_x_rays_among_x_rays_are_images(tmp_path: Path) -> None:
    for number, place in enumerate(("a/x", "a/y", "b/x", "b/y")):
        storage = CAPTURE if number == 0 else "1.2.840.10008.5.1.4.1.1.1"
        save_dicom(tmp_path / place, f"1.2.5.{number}", storage=storage, Modality="CR")
    save_dicom(tmp_path / "a/page", "1.2.5.7", storage=CAPTURE, Modality="OT")
    sound, aside = units_of(tmp_path)
    assert sound == {"a/x", "a/y", "b/x", "b/y"}
    assert set(aside) == {"a/page"}


@pytest.mark.parametrize("bare", ["no preamble", "no preamble and no meta information"])
def test_files_without_preamble_and_suffix_are_published_and_restored(tmp_path: Path, bare: str) -> None:
    root = build_dicom_tree(tmp_path / "set")
    for name in ("bad/s1/IM0", "ok/s2/IM1"):
        content = (root / name).read_bytes()
        start = 132 if bare == "no preamble" else content.index(b"\x08\0\x16\0UI")
        (root / name).write_bytes(content[start:])
    data = detect(root)
    assert units_of(root) == ({"bad/s1/IM0", "ok/s2/IM0", "ok/s3/IM0"}, {})
    store = precompute(data.dataset(), tmp_path / "n.db", method=RandomNoise(), task=data.task(), device="cpu")
    assert publish(root, tmp_path / "out", store).failed == {}
    assert verify(root, tmp_path / "out", store).ok
    changed = pydicom.dcmread(tmp_path / "out/bad/s1/IM0", force=True)
    assert changed.SOPInstanceUID == renamed_uid("1.2.3.1.3")
    restore(tmp_path / "out", tmp_path / "back", store)
    for file in data.image_files():
        assert (tmp_path / "out" / file).read_bytes() != (root / file).read_bytes()
        assert (tmp_path / "back" / file).read_bytes() == (root / file).read_bytes()


@pytest.mark.parametrize("palettes", [1, 4])
def test_palettes_among_other_colours_are_set_aside(tmp_path: Path, palettes: int) -> None:
    """Alone they become RGB; a few among images of true colour would change their shape for readers."""
    for number in range(4):
        options = {"file": f"{number}.dcm", "uid": f"1.2.3.{number}", "seed": number, "shape": (9, 8), "Modality": "US"}
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        if number < palettes:
            format_samples.save_dicom_palette(folder, **options)
        else:
            format_samples.save_dicom(folder, bits=8, channels=3, **options)
    units = detect(tmp_path).stored_images()
    left_out = [unit for unit in units if isinstance(unit, UnusableImage)]
    assert len(left_out) == (1 if palettes == 1 else 0)
    assert all("palette" in unit.reason for unit in left_out)
    assert all(unit.read(tmp_path).shape == (3, 9, 8) for unit in units if unit not in left_out)
