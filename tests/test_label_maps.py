"""Label maps on disk: several files, other axes than their image's, values that are no class numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from layout_samples import random_image, save_json, save_png
from PIL import Image

from monai_salm._warn import DataWarning
from monai_salm.formats import FormatError
from monai_salm.layouts import detect
from monai_salm.layouts.label_maps import LabelParts, looks_like_label_map, read_label_map
from monai_salm.tasks import Segmentation

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
