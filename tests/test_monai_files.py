"""Noise made on files, as the command line makes it, is found for what MONAI's readers load of them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.data import PydicomReader
from monai.transforms import Compose, LoadImage, LoadImaged
from monai_samples import BUDGET, META
from PIL import Image

from monai_salm import NoiseStore, SALMProtect, SALMProtectd, SALMRestore, SALMRestored
from monai_salm.layouts.stored_images import ChannelFiles, StoredImage
from monai_salm.noise.noise import Noise
from monai_salm.noise.units import Units
from monai_salm.shared.warn import DataWarning
from monai_salm.store.lookup import ImageNotFoundError
from monai_salm.store.records import keep_scales

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*PydicomReader:UserWarning"),
    pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning"),
]
Array = np.ndarray[Any, Any]
Write = Callable[[Path, Array], None]
Load = Callable[[Path], Any]
#: MONAI's, with all its defaults.
LOAD: Load = LoadImage(ensure_channel_first=True)


def write_nifti(path: Path, values: Array) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)


def write_scaled(slope: float, intercept: float) -> Write:
    """NIfTI whose header scales the stored numbers on loading."""

    def write(path: Path, values: Array) -> None:
        write_nifti(path, values)
        content = bytearray(path.read_bytes())
        content[112:120] = struct.pack("<2f", slope, intercept)
        path.write_bytes(content)

    return write


def write_picture(path: Path, values: Array) -> None:
    Image.fromarray(values).save(path)


def write_dicom(path: Path, values: Array, slope: float | None = None, intercept: float = 0, **elements: Any) -> None:
    dicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = dicom.Dataset()
    data.file_meta = dicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = generate_uid(), generate_uid(), "CT"
    data.Rows, data.Columns = values.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.ImageOrientationPatient, data.ImagePositionPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [0, 0, 0], [1, 1]
    data.PixelData = values.tobytes()
    if slope is not None:
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def as_rgb(path: Path) -> Any:
    return LoadImage(reader="PILReader", converter=lambda image: image.convert("RGB"), ensure_channel_first=True)(path)


def as_rgba(path: Path) -> Any:
    return LoadImage(reader="PILReader", converter=lambda image: image.convert("RGBA"), ensure_channel_first=True)(path)


def by_torchvision(mode: str) -> Load:
    def load(path: Path) -> Any:
        io = pytest.importorskip("torchvision.io")
        return io.decode_image(str(path), mode)

    return load


def write_with_alpha(path: Path, values: Array) -> None:
    """Grey with alpha, or colour with alpha, which differs from pixel to pixel."""
    picture = Image.fromarray(values)
    picture.putalpha(
        Image.fromarray(
            np.arange(values[..., 0].size if values.ndim == 3 else values.size, dtype=np.uint8).reshape(
                values.shape[:2]
            )
        )
    )
    picture.save(path)


def to_tensor(path: Path) -> Any:
    transforms = pytest.importorskip("torchvision.transforms")
    return transforms.ToTensor()(Image.open(path).convert("RGB"))


@dataclass(frozen=True)
class File:
    """A kind of file, and what loads it.

    Args:
        what: in words.
        name: of the file.
        shape, dtype: of the stored values.
        write: makes it.
        load: reads it, channel first.
    """

    what: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    write: Write = field(repr=False)
    load: Load = field(default=LOAD, repr=False)


ROWS = [
    File("NIfTI, `.nii.gz`", "a.nii.gz", (6, 5, 4), "int16", write_nifti),
    File("NIfTI, scaled: slope 2.5, intercept -1024", "a.nii", (6, 5, 4), "int16", write_scaled(2.5, -1024)),
    File("NIfTI, scaled: slope 0.0123, intercept 0.7", "a.nii", (6, 5, 4), "uint8", write_scaled(0.0123, 0.7)),
    File("NIfTI, scaled: a negative slope", "a.nii", (6, 5, 4), "int16", write_scaled(-1, 100)),
    File("NIfTI, scaled, four channels", "a.nii", (6, 5, 4, 4), "uint16", write_scaled(0.5, -3)),
    File("NIfTI, one time step and channels", "a.nii", (6, 5, 4, 1, 2), "int16", write_nifti),
    File("NumPy, `.npy`, 2D", "a.npy", (6, 5), "uint8", np.save),
    File("NumPy, `.npy`, 3D", "a.npy", (6, 5, 4), "int16", np.save),
    File("PNG, grey", "a.png", (6, 5), "uint8", write_picture),
    File("PNG, grey, as many rows as columns", "a.png", (6, 6), "uint8", write_picture),
    File("PNG, grey, 16 bits", "a.png", (6, 5), "uint16", write_picture),
    File("PNG, colour", "a.png", (6, 5, 3), "uint8", write_picture),
    File("PNG, grey with alpha", "a.png", (6, 5), "uint8", write_with_alpha),
    File("PNG, colour with alpha", "a.png", (6, 5, 3), "uint8", write_with_alpha),
    File("PNG, grey, loaded as RGB", "a.png", (6, 5), "uint8", write_picture, as_rgb),
    File("PNG, colour, loaded as RGBA", "a.png", (6, 5, 3), "uint8", write_picture, as_rgba),
    File("PNG, colour, by torchvision's `decode_image`", "a.png", (6, 5, 3), "uint8", write_picture, by_torchvision("RGB")),
    File("PNG, grey, as RGB by torchvision's `decode_image`", "a.png", (6, 5), "uint8", write_picture, by_torchvision("RGB")),
    File("PNG, grey, by torchvision's `ToTensor`", "a.png", (6, 5), "uint8", write_picture, to_tensor),
    File("DICOM, one slice", "a.dcm", (6, 5), "uint16", write_dicom),
    File("DICOM, one slice, CT", "a.dcm", (6, 5), "uint16", partial(write_dicom, slope=1, intercept=-1024)),
    File("DICOM, one slice, PET", "a.dcm", (6, 5), "uint16", partial(write_dicom, slope=0.3371, intercept=0)),
]  # fmt: skip


def publish(units: list[StoredImage], source: Path, copy: Path, store: NoiseStore, rng: np.random.Generator) -> None:
    """Make noise for files and write their protected copies, as the command line does."""
    found = []
    for unit in units:
        stored = unit.read(source)
        codes = rng.choice(np.array([-3, 0, 4], np.int8), stored.shape)
        codes.flat[0] = 4
        noise = Noise.of(stored, codes, BUDGET, unit.name)
        store.add([noise])
        unit.write(source, copy, noise.apply(stored))
        found.append(unit.units(source, stored))
    keep_scales(store, found)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, NoiseStore]:
    for name in ("source", "copy"):
        (tmp_path / name).mkdir()
    return tmp_path / "source", tmp_path / "copy", NoiseStore.create(tmp_path / "noise.db", META)


def require_like_the_copy(store: NoiseStore, load: Load, original: Path, protected: Path) -> None:
    """The chain gives of an original what it gives of the protected file, bit for bit, and back again."""
    before, after = load(original), load(protected)
    found, back = SALMProtect(store)(before), SALMRestore(store)(after)
    assert found.dtype == after.dtype
    assert np.asarray(found).tobytes() == np.asarray(after).tobytes() != np.asarray(before).tobytes()
    assert np.asarray(back).tobytes() == np.asarray(before).tobytes()


@pytest.mark.filterwarnings("ignore:SALMProtectd stands after division by 255")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_noise_of_a_file_is_found_for_what_monai_loads_of_it(row: File, places: Any, rng: np.random.Generator) -> None:
    source, copy, store = places
    row.write(source / row.name, rng.integers(10, 200, row.shape).astype(row.dtype))
    publish([ChannelFiles("case", (row.name,))], source, copy, store, rng)
    require_like_the_copy(store, row.load, source / row.name, copy / row.name)


def test_one_line_after_the_loader_is_all_it_takes(places: Any, rng: np.random.Generator) -> None:
    source, copy, store = places
    write_picture(source / "a.png", rng.integers(10, 200, (6, 5)).astype(np.uint8))
    publish([ChannelFiles("case", ("a.png",))], source, copy, store, rng)
    load = LoadImaged("image", ensure_channel_first=True)
    protected = Compose([load, SALMProtectd("image", store=store.path)])({"image": source / "a.png"})["image"]
    assert np.array_equal(protected, load({"image": copy / "a.png"})["image"])
    restored = Compose([load, SALMRestored("image", store=store.path)])({"image": copy / "a.png"})["image"]
    assert np.array_equal(restored, load({"image": source / "a.png"})["image"])


def test_files_of_many_slopes_are_told_apart(places: Any, rng: np.random.Generator) -> None:
    """Studies of several scanners, whose files have a slope each; and a blank image, which fits all of them."""
    source, copy, store = places
    names = []
    for number in range(40):
        values = rng.integers(0, 2000, (5, 4, 3)).astype(np.int16)
        if number == 7:
            values[...] = 0
            values[2, 2, 2] = 9
        write_scaled(0.1 + number / 17, -number)(source / f"{number}.nii", values)
        names.append(f"{number}.nii")
    publish([ChannelFiles(name, (name,)) for name in names], source, copy, store, rng)
    for name in names:
        require_like_the_copy(store, LOAD, source / name, copy / name)


def test_channels_of_several_scaled_files_are_one_image(places: Any, rng: np.random.Generator) -> None:
    source, copy, store = places
    names = ("t1.nii", "t2.nii")
    for number, name in enumerate(names):
        write_scaled(1.5 + number, number)(source / name, rng.integers(0, 900, (5, 4, 3)).astype(np.int16))
    publish([ChannelFiles("case", names)], source, copy, store, rng)
    before, after = (LOAD([folder / name for name in names]) for folder in (source, copy))
    assert np.array_equal(SALMProtect(store)(before), after)
    assert np.array_equal(SALMRestore(store)(after), before)


@pytest.mark.parametrize("upwards", [True, False], ids=["numbers go up", "numbers go down"])
@pytest.mark.parametrize("swap_ij", [True, False])
def test_a_dicom_series_is_found_as_monai_loads_its_folder(
    places: Any, rng: np.random.Generator, upwards: bool, swap_ij: bool
) -> None:
    """Slices are sorted by place here, by Instance Number in MONAI."""
    pytest.importorskip("pydicom")
    from monai_salm.formats.dicom.series import group_series

    source, copy, store = places
    names = [f"ct/{number}.dcm" for number in range(4)]
    for folder in (source, copy):
        (folder / "ct").mkdir()
    for number, name in enumerate(names):
        where = {"ImagePositionPatient": [0, 0, number * 2.0], "InstanceNumber": number if upwards else 9 - number}
        values = rng.integers(0, 900, (6, 5)).astype(np.uint16)
        write_dicom(source / name, values, 1, -1024, **where, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    units = group_series(source, names)
    assert len(units) == 1
    publish(units, source, copy, store, rng)  # type: ignore[arg-type]
    load = LoadImage(reader=PydicomReader(swap_ij=swap_ij), ensure_channel_first=True)
    require_like_the_copy(store, load, source / "ct", copy / "ct")


@pytest.mark.parametrize(
    "show",
    [
        lambda a: a.transpose(0, 2, 1)[..., None],  # ITKReader gives a slice of DICOM a third axis
        lambda a: a.transpose(0, 2, 1).astype(np.float64) * 2 - 7,
        lambda a: (a.astype(np.float32) * 2 - 7).repeat(3, axis=0),
        lambda a: a.astype(np.int32) * 2 - 7,
    ],
    ids=["third axis", "scaled in float64", "scaled and as RGB", "scaled in integers"],
)
def test_what_other_readers_show_is_found(
    show: Callable[[Array], Array], tmp_path: Path, rng: np.random.Generator
) -> None:
    stored = rng.integers(10, 200, (1, 6, 5)).astype(np.uint16)
    noise = Noise.of(stored, rng.choice(np.array([-3, 4], np.int8), stored.shape), BUDGET, "case")
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([noise])
    keep_scales(store, [Units(slope=2.0, intercept=-7.0)])
    result = SALMProtect(store)(show(stored))
    assert result.dtype == show(stored).dtype
    assert np.array_equal(result, show(noise.apply(stored)))


def test_an_axis_in_another_order_is_found_in_three_dimensions(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(10, 200, (1, 6, 5, 4)).astype(np.uint8)
    noise = Noise.of(stored, np.full(stored.shape, 3, np.int8), BUDGET, "case")
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([noise])
    for order in itertools.permutations((1, 2, 3)):
        shown = stored.transpose(0, *order)
        assert np.array_equal(SALMProtect(store)(shown), noise.apply(stored).transpose(0, *order))


def test_a_division_by_255_is_said_once(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(0, 200, (1, 6, 5)).astype(np.uint8)
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([Noise.of(stored, np.full(stored.shape, 3, np.int8), BUDGET, "case")])
    protect = SALMProtect(store)
    with pytest.warns(DataWarning, match=r"division by 255.*right after LoadImaged"):
        first = protect(stored / np.float32(255))
    again = protect(stored / np.float32(255))  # a second warning would be an error
    assert np.array_equal(first, again)
    assert np.array_equal(first, (stored + 3) / np.float32(255))


def test_values_that_are_near_stored_ones_are_not_taken_for_them(tmp_path: Path, rng: np.random.Generator) -> None:
    """A scaled image whose values were changed is refused, however many scales the store knows."""
    stored = rng.integers(0, 2000, (1, 6, 5, 4)).astype(np.int16)
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([Noise.of(stored, np.full(stored.shape, 3, np.int8), BUDGET, "case")])
    keep_scales(store, [Units(slope=0.5, intercept=float(number)) for number in range(50)])
    real = (stored * 0.5 + 3).astype(np.float32)
    assert SALMProtect(store)(real).shape == real.shape
    for wrong in (
        real + 0.25,
        real * np.float32(1.01),
        np.flip(real, 1),
        np.where(stored == stored.max(), np.nan, real),
    ):
        with pytest.raises(ImageNotFoundError):
            SALMProtect(store)(wrong)
