"""Noise made on files, as the command line makes it, is found for what MONAI's readers load of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from monai_samples import BUDGET, META, SAME, cause_of
from PIL import Image

from monai_salm import NoiseStore, SALMProtectd, SALMRestored
from monai_salm.formats import format_of
from monai_salm.noise.noise import Noise

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*PydicomReader:UserWarning"),
]
Array = np.ndarray[Any, Any]
Write = Callable[[Path, Array], None]
PIL: dict[str, Any] = {"reader": "PILReader", "reverse_indexing": False}
PYDICOM: dict[str, Any] = {"reader": "PydicomReader", "swap_ij": False}


def write_nifti(path: Path, values: Array) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)


def write_picture(path: Path, values: Array) -> None:
    Image.fromarray(values).save(path)


def write_dicom(path: Path, values: Array) -> None:
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
    data.save_as(path, enforce_file_format=True)


@dataclass(frozen=True)
class File:
    """A kind of file.

    Args:
        what: in words.
        name: of the file.
        shape, dtype: of the stored values.
        write: makes it.
        loading: what ``LoadImaged`` is told; nothing where MONAI loads the stored grid by itself.
    """

    what: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    write: Write = field(repr=False)
    loading: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> str:
        """For the page."""
        return f"refused; with the remedy, {SAME}" if self.loading else SAME

    @property
    def remedy(self) -> str:
        """For the page."""
        if not self.loading:
            return ""
        reader, (name, value) = self.loading["reader"], [*self.loading.items()][1]
        return f'`LoadImaged(..., reader="{reader}", {name}={value})`'


TITLE = "Files whose noise was made by `monai-salm protect`, loaded by `LoadImaged`"
ROWS = [
    File("NIfTI, `.nii.gz`", "a.nii.gz", (6, 5, 4), "int16", write_nifti),
    File("NumPy, `.npy`, 2D", "a.npy", (6, 5), "uint8", np.save),
    File("NumPy, `.npy`, 3D", "a.npy", (6, 5, 4), "int16", np.save),
    File("PNG, grey", "a.png", (6, 5), "uint8", write_picture, PIL),
    File("PNG, colour", "a.png", (6, 5, 3), "uint8", write_picture, PIL),
    File("DICOM, one slice", "a.dcm", (6, 5), "uint16", write_dicom, PYDICOM),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_noise_of_a_file_is_found_for_what_monai_loads_of_it(
    row: File, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / row.name
    row.write(path, rng.integers(10, 200, row.shape).astype(row.dtype))
    stored = format_of(path).read(path)
    noise = Noise.of(stored, rng.choice(np.array([-3, 4], np.int8), stored.shape), BUDGET, "case")
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([noise])

    def chain(**loading: Any) -> Compose:
        return Compose([LoadImaged("image", ensure_channel_first=True, **loading), SALMProtectd("image", store)])

    protected = chain(**row.loading)({"image": str(path)})["image"]
    assert np.array_equal(protected, noise.apply(stored))
    assert np.array_equal(SALMRestored("image", store)({"image": protected})["image"], stored)
    if row.loading:
        with pytest.raises(RuntimeError) as caught:
            chain()({"image": str(path)})
        assert row.remedy.strip("`") in str(cause_of(caught.value))
