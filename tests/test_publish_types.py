"""Every stored type and pair of files goes through the whole of protecting, verifying and restoring."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from layout_samples import build_nnunet, random_image, save_nifti
from round_trips import there_and_back

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.grid import GRIDS
from monai_salm.noise.units import Units, padding_of
from monai_salm.noise.window import AutomaticWindow
from monai_salm.publishing import PublishError, publish


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


@pytest.mark.parametrize(
    "types", [("int16", "float32"), ("float32", "uint8", "int16"), ("uint8", "int16"), ("int32", "float64")]
)
def test_channels_of_several_types(tmp_path: Path, types: tuple[str, ...]) -> None:
    """CT beside PET: each file keeps its type, and the noise of integers is of whole numbers."""
    root = build_nnunet(tmp_path / "set", channels=types)
    for path in (root / "imagesTr").iterdir():
        channel = types[int(path.name.split("_")[-1][:4])]
        image = random_image(int(path.name.split("_")[-2]), (6, 5, 4), "int16", 120) * (
            0.1 if "float" in channel else 1
        )
        image.flat[:2] = np.nan if "float" in channel else 0
        save_nifti(path, image.astype(channel))
    data = there_and_back(root)
    rule = AutomaticWindow()
    for unit in data.stored_images():
        for file, channel in zip(unit.files, types, strict=True):
            before, after = (nibabel.load(folder / file) for folder in (root, tmp_path / "out"))
            assert before.get_data_dtype() == after.get_data_dtype() == channel
            noise = np.asarray(after.dataobj, np.float64) - np.asarray(before.dataobj, np.float64)
            image = np.asarray(before.dataobj)[None]
            low, high = rule.of(image, Units(), padding_of(image, Units())).channels(1)[0]
            # Two channels of one image have each their own budget, and use it.
            assert 0.4 < np.nanmax(np.abs(noise)) / (high - low) * 255 / 8 < 1.02


def test_a_coarse_channel_beside_a_fine_one_is_left_out(tmp_path: Path) -> None:
    """Noise of less than a whole number fits no file of integers."""
    root = build_nnunet(tmp_path / "set", channels=("int16", "float32"))
    for seed, path in enumerate((root / "imagesTr").iterdir()):
        channel = ("int16", "float32")[int(path.name.split("_")[-1][:4])]
        save_nifti(path, (random_image(seed) % 9 * (0.1 if channel == "float32" else 1)).astype(channel))
    data = detect(root)
    store = precompute(data.dataset(), tmp_path / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    with pytest.raises(PublishError, match="does not fit into int16"):
        publish(root, tmp_path / "out", store)


def test_pairs_of_header_and_voxels(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.img"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Pair(random_image(number), np.eye(4)), path)
    data = there_and_back(tmp_path / "set")
    assert [unit.name for unit in data.stored_images()] == ["a/0.img", "a/2.img", "b/1.img", "b/3.img"]
    assert all(unit.files == (unit.name, unit.name.replace(".img", ".hdr")) for unit in data.stored_images())
    headers = [path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.hdr")]
    assert len(headers) == 4
    assert all((tmp_path / "out" / path).read_bytes() == (tmp_path / "set" / path).read_bytes() for path in headers)


def test_names_that_lie_about_their_packing(tmp_path: Path) -> None:
    for number in range(4):
        name = f"{number}.nii" if number < 2 else f"{number}.nii.gz"
        path = save_nifti(tmp_path / "set" / "ab"[number % 2] / name, random_image(number))
        path.rename(path.with_name(f"{number}.nii.gz" if number < 2 else f"{number}.nii"))
    data = there_and_back(tmp_path / "set")
    starts = [(tmp_path / "out" / unit.name).read_bytes()[:2] == b"\x1f\x8b" for unit in data.stored_images()]
    assert starts == [False, True, False, True]
