"""NRRD, MetaImage and MGH: other libraries read the same numbers, before and after the noise, and the whole way works."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from format_samples import save_by_itk, save_mgh, with_noise
from layout_samples import random_image
from round_trips import there_and_back

from monai_salm.formats import format_of

FILES = [(file, packed) for file in ("image.nrrd", "image.nhdr", "image.mha", "image.mhd") for packed in (False, True)]


@pytest.mark.parametrize(("file", "packed"), FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_itk_reads_the_same_numbers(tmp_path: Path, file: str, packed: bool, channels: int) -> None:
    path = save_by_itk(tmp_path, file, packed=packed, channels=channels)
    format_ = format_of(path)
    image, before = format_.read(path), SimpleITK.ReadImage(str(path))
    (tmp_path / "out").mkdir()
    format_.write(path, tmp_path / "out" / file, with_noise(image))
    after = SimpleITK.ReadImage(str(tmp_path / "out" / file))
    for expected, found in ((image, before), (with_noise(image), after)):
        numbers = SimpleITK.GetArrayFromImage(found)
        numbers = numbers if channels > 1 else numbers[..., None]
        assert np.array_equal(numbers.transpose(3, 2, 1, 0), expected)
    assert after.GetSpacing() == before.GetSpacing()
    assert {key: after.GetMetaData(key) for key in after.GetMetaDataKeys()} == {
        key: before.GetMetaData(key) for key in before.GetMetaDataKeys()
    }
    assert format_.units(path).spacing == (0.5, 2.0, 3.0)


def test_nibabel_reads_the_same_numbers(tmp_path: Path) -> None:
    path = save_mgh(tmp_path)
    image = format_of(path).read(path)
    format_of(path).write(path, tmp_path / "out.mgz", with_noise(image))
    assert np.array_equal(np.asarray(nibabel.load(path).dataobj), image[0])  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "out.mgz").dataobj), with_noise(image)[0])  # type: ignore[attr-defined]
    assert format_of(path).units(path).spacing == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(("suffix", "beside"), [(".mhd", ".raw"), (".nhdr", ".raw"), (".nrrd", ""), (".mha", "")])
def test_class_folders(tmp_path: Path, suffix: str, beside: str) -> None:
    for number in range(4):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(random_image(number)), str(path))
    data = there_and_back(tmp_path / "set")
    for unit in data.stored_images():
        assert unit.files == (unit.name, *([unit.name.replace(suffix, beside)] if beside else []))
        if beside:
            changed = [
                file for file in unit.files if (tmp_path / "out" / file).read_bytes() != (data.root / file).read_bytes()
            ]
            assert changed == [unit.files[1]]


def test_label_maps_of_two_files_stay(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for number in range(2):
        image, label = random_image(number, (8, 8, 8)), (random_image(number, (8, 8, 8)) > 500).astype("uint8")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(root / f"imagesTr/p{number}_0000.mhd"))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(label), str(root / f"labelsTr/p{number}.mhd"))
    about = '{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "tumour": 1}, "numTraining": 2, "file_ending": ".mhd"}'
    (root / "dataset.json").write_text(about)
    data = there_and_back(root)
    assert set(data.label_files()) == {f"labelsTr/p{n}.{kind}" for n in range(2) for kind in ("mhd", "raw")}
    for file in data.label_files():
        assert (tmp_path / "out" / file).read_bytes() == (root / file).read_bytes()
