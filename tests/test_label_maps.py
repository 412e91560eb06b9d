"""Label maps on disk: several files, other axes than their image's, values that are no class numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from format_samples import dicom_sequence, save_dicom
from layout_samples import random_image, save_json, save_png
from PIL import Image
from pydicom.sequence import Sequence as DicomSequence

from monai_salm.formats import FormatError
from monai_salm.layouts import detect
from monai_salm.layouts.label_maps import LabelParts, looks_like_label_map, read_label_map
from monai_salm.learning.tasks import Segmentation
from monai_salm.shared.warn import DataWarning

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 3, 0, -70], [0, 0, 4, 10], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def one_case(root: Path, label: np.ndarray, affine: np.ndarray, image_affine: np.ndarray = AFFINE) -> None:
    save(root / "i.nii.gz", random_image(0, (8, 7, 5)), image_affine)
    save(root / "l.nii.gz", label, affine)
    save_json(root / "dataset.json", {"training": [{"image": "i.nii.gz", "label": "l.nii.gz"}]})


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "SAL", "IPL"])
def test_a_label_map_along_other_axes_is_turned(tmp_path: Path, codes: str) -> None:
    label = np.zeros((8, 7, 5), "uint8")
    label[1:3, 2:6, 1] = 1
    start = nibabel.orientations.io_orientation(AFFINE)
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(label, turn)
    one_case(tmp_path, stored, AFFINE @ nibabel.orientations.inv_ornt_aff(turn, label.shape))
    data = detect(tmp_path)
    if codes == "LAS":  # as the image is stored
        found = data.dataset()[0]["label"]
    else:
        with pytest.warns(DataWarning, match=r"l\.nii\.gz: its axes run otherwise"):
            found = data.dataset()[0]["label"]
    assert np.array_equal(found, label[None])


@pytest.mark.parametrize("change", ["shifted", "scaled", "oblique"])
def test_a_label_map_that_lies_elsewhere_is_an_error_of_its_case(tmp_path: Path, change: str) -> None:
    affine = AFFINE.copy()
    if change == "shifted":
        affine[0, 3] += 10
    elif change == "scaled":
        affine[:3, :3] *= 1.5
    else:
        affine[:3, :3] = affine[:3, :3] @ [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    one_case(tmp_path, np.ones((8, 7, 5), "uint8"), affine)
    with pytest.raises(FormatError, match=r"i\.nii\.gz', label map .*l\.nii\.gz: the affines differ .*resample it"):
        detect(tmp_path).dataset()[0]


def test_rounded_headers_and_lost_geometry_are_no_difference(tmp_path: Path) -> None:
    label = random_image(1, (8, 7, 5), "uint8", 2)
    for affine in (AFFINE + np.eye(4) * 1e-3, np.eye(4)):
        one_case(tmp_path, label, affine)
        assert np.array_equal(detect(tmp_path).dataset()[0]["label"], label[None])


def test_parts_are_one_label_map(tmp_path: Path) -> None:
    for index, name in enumerate("ab"):
        part = np.zeros((4, 4), "uint8")
        part[index : index + 2] = 255
        Image.fromarray(part).save(tmp_path / f"{name}.png")
    found = read_label_map(tmp_path, LabelParts((("a.png", 1), ("b.png", 2))), "x")
    assert found[0, :, 0].tolist() == [1, 2, 2, 0]
    with pytest.raises(FormatError, match=r"case 'x': its label map is missing: .*c\.png"):
        read_label_map(tmp_path, LabelParts((("a.png", 1), ("c.png", 2))), "x")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_masks_of_0_and_255_are_two_classes_in_any_mode(tmp_path: Path, mode: str) -> None:
    save_png(tmp_path / "i.png", 3, (6, 6, 3))
    mask = np.zeros((6, 6), "uint8")
    mask[2:4] = 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "m.png")
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.png", "label": "m.png"}]})
    data = detect(tmp_path)
    assert data.task() == Segmentation(num_classes=2)
    assert np.array_equal(data.dataset()[0]["label"], (mask > 0)[None])


def test_what_looks_like_a_label_map() -> None:
    image = random_image(0, (1, 30, 30), "uint8", 255)
    assert not looks_like_label_map(image)
    assert not looks_like_label_map(np.zeros((1, 9, 9), "uint8"))
    assert not looks_like_label_map((image > 9) / 3)
    assert looks_like_label_map((image > 9) * np.uint8(255))
    many = np.zeros((1, 60, 60), "int16")
    for value in range(20):
        many[0, 3 * value : 3 * value + 3] = value
    assert looks_like_label_map(many)


# Formats whose headers say where voxels lie; DICOM is written below.
PLACED = [".nii.gz", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz"]


def save_as(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """In any format of ``PLACED``, by a library that the package does not read it with."""
    if path.suffix == ".mgz":
        nibabel.save(nibabel.MGHImage(array.astype("int32"), affine), path)
        return
    image = SimpleITK.GetImageFromArray(array.T)
    lps = np.diag([-1, -1, 1.0]) @ affine[:3]
    sides = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetDirection((lps[:, :3] / sides).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    SimpleITK.WriteImage(image, str(path))


@pytest.mark.parametrize("change", ["none", "turned", "shifted"])
@pytest.mark.parametrize("suffix", PLACED)
@pytest.mark.parametrize("other", [".nii.gz", None])
def test_formats_say_where_a_label_map_lies(tmp_path: Path, suffix: str, other: str | None, change: str) -> None:
    """Of the image's own format, and as NIfTI beside it."""
    label, affine = np.zeros((8, 7, 5), "uint8"), AFFINE.copy()
    label[1:3, 2:6, 1] = 1
    stored, turn = label, nibabel.orientations.axcodes2ornt("PIR")
    if change == "turned":
        turn = nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(AFFINE), turn)
        stored = nibabel.orientations.apply_orientation(label, turn)
        affine = AFFINE @ nibabel.orientations.inv_ornt_aff(turn, label.shape)
    elif change == "shifted":
        affine[:3, 3] += 10
    label_file = f"l{other or suffix}"
    save_as(tmp_path / f"i{suffix}", random_image(0, (8, 7, 5)), AFFINE)
    save_as(tmp_path / label_file, stored, affine)
    save_json(tmp_path / "dataset.json", {"training": [{"image": f"i{suffix}", "label": label_file}]})
    data = detect(tmp_path)
    if change == "shifted":
        with pytest.raises(FormatError, match="the affines differ"):
            data.dataset()[0]
    elif change == "turned":
        with pytest.warns(DataWarning, match="its axes run otherwise"):
            assert np.array_equal(data.dataset()[0]["label"], label[None])
    else:
        assert np.array_equal(data.dataset()[0]["label"], label[None])


@pytest.mark.parametrize("frames", [1, 5])
def test_a_label_map_of_a_dicom_file(tmp_path: Path, frames: int) -> None:
    """DICOM stores rows first, NIfTI columns; what a converter writes lies on the image all the same."""
    places = [
        dicom_sequence(PlanePositionSequence=dicom_sequence(ImagePositionPatient=[-9, -8, 4 * z]))
        for z in range(frames)
    ]
    place = {"PerFrameFunctionalGroupsSequence": DicomSequence([part[0] for part in places])}
    save_dicom(
        tmp_path,
        file="i.dcm",
        shape=(frames, 8, 7) if frames > 1 else (8, 7),
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        ImagePositionPatient=[-9, -8, 0],
        PixelSpacing=[2, 3],
        SliceThickness=4,
        **(place if frames > 1 else {}),
    )
    label = np.zeros((8, 7, 5)[: 3 if frames > 1 else 2], "uint8")
    label[1:3, 2:6] = 1
    affine = np.array([[-3, 0, 0, 9], [0, -2, 0, 8], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    save(tmp_path / "l.nii.gz", np.swapaxes(label, 0, 1), affine)
    save_json(tmp_path / "dataset.json", {"training": [{"image": "i.dcm", "label": "l.nii.gz"}]})
    with pytest.warns(DataWarning, match="its axes run otherwise"):
        assert np.array_equal(detect(tmp_path).dataset()[0]["label"], label[None])
