"""Every stored type and pair of files goes through the whole of protecting, verifying and restoring."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from layout_samples import random_image, save_nifti

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import FolderLayout, detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.grid import GRIDS
from monai_salm.publish import publish, restore, verify


def there_and_back(root: Path) -> FolderLayout:
    """Protect, verify, restore; the bytes of files that are not packed come back."""
    data, folder = detect(root), root.parent
    assert isinstance(data, FolderLayout)
    store = precompute(data.dataset(), folder / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    assert publish(root, folder / "out", store).ok
    found = verify(root, folder / "out", store)
    assert (found.problems, found.ok) == ([], True)
    for before, after in zip(data.dataset(), data.reopen(folder / "out").dataset(), strict=True):
        assert before["image"].dtype == after["image"].dtype
        assert not np.array_equal(before["image"], after["image"], equal_nan=True)
    restored = restore(folder / "out", folder / "back", store)
    assert (restored.failed, restored.warnings) == ({}, [])
    for path in root.rglob("*"):
        if path.is_file() and path.read_bytes()[:2] != b"\x1f\x8b":
            assert (folder / "back" / path.relative_to(root)).read_bytes() == path.read_bytes()
    return data


@pytest.mark.parametrize("dtype", GRIDS)
def test_a_type(tmp_path: Path, dtype: str) -> None:
    for number in range(4):
        image = random_image(number, (9, 8, 7), "int16", 120) * (0.1 if dtype == "float64" else 1)
        save_nifti(tmp_path / "set" / "ab"[number % 2] / f"{number}.nii", image.astype(dtype))
    there_and_back(tmp_path / "set")


@pytest.mark.parametrize("nothing", [np.nan, np.finfo("float32").min])
def test_a_float_background_stays(tmp_path: Path, nothing: float) -> None:
    for number in range(4):
        image = random_image(number, (9, 8, 7), "float32")
        image[:3] = nothing
        save_nifti(tmp_path / "set" / "ab"[number % 2] / f"{number}.nii", image)
    data = there_and_back(tmp_path / "set")
    for after in data.reopen(tmp_path / "out").dataset():
        assert np.array_equal(after["image"][:, :3], np.full((1, 3, 8, 7), nothing, "float32"), equal_nan=True)


def test_pairs_of_header_and_voxels(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.img"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Pair(random_image(number), np.eye(4)), path)
    data = there_and_back(tmp_path / "set")
    assert [unit.name for unit in data.units()] == ["a/0.img", "a/2.img", "b/1.img", "b/3.img"]
    assert all(unit.files == (unit.name, unit.name.replace(".img", ".hdr")) for unit in data.units())
    headers = [path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.hdr")]
    assert len(headers) == 4
    assert all((tmp_path / "out" / path).read_bytes() == (tmp_path / "set" / path).read_bytes() for path in headers)


def test_names_that_lie_about_their_packing(tmp_path: Path) -> None:
    for number in range(4):
        name = f"{number}.nii" if number < 2 else f"{number}.nii.gz"
        path = save_nifti(tmp_path / "set" / "ab"[number % 2] / name, random_image(number))
        path.rename(path.with_name(f"{number}.nii.gz" if number < 2 else f"{number}.nii"))
    data = there_and_back(tmp_path / "set")
    starts = [(tmp_path / "out" / unit.name).read_bytes()[:2] == b"\x1f\x8b" for unit in data.units()]
    assert starts == [False, True, False, True]
