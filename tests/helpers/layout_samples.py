"""Builders of tiny data sets on disk, one for each layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image


def random_image(seed: int, shape: Sequence[int] = (6, 5, 4), dtype: str = "int16", high: int = 900) -> np.ndarray:
    """Random whole numbers; another seed, other numbers."""
    return np.random.default_rng(seed).integers(0, high, tuple(shape)).astype(dtype)


def save_nifti(path: Path, array: np.ndarray) -> Path:
    """Write a NIfTI file with voxels of 1 x 2 x 3 mm, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1.0]), dtype=array.dtype)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def save_picture(path: Path, picture: int | np.ndarray | Image.Image = 0, shape: Sequence[int] = (8, 7)) -> Path:
    """Write a picture, or a random one of a seed, gray or in colour, in the format of its suffix, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = random_image(picture, shape, "uint8", 200) if isinstance(picture, int) else picture
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path)
    return path


save_png = save_picture


def save_json(path: Path, content: Any) -> Path:
    """Write JSON, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def save_text(path: Path, text: str) -> Path:
    """Write text, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save_archive(path: Path, shape: tuple[int, ...], labels: Any = None, dtype: str = "uint8", seed: int = 0) -> Path:
    """A MedMNIST archive of 4 training, 2 validation and 3 test images."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 200, (count, *shape)).astype(dtype)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None] if labels is None else np.asarray(labels)[:count]
    np.savez_compressed(path, **arrays)
    return path


def build_datalist(root: Path) -> Path:
    """Three training, one validation and two test cases, the test cases without labels; and files no list names."""
    for seed, (kind, count) in enumerate((("Tr", 3), ("Va", 1), ("Ts", 2))):
        for index in range(count):
            save_nifti(root / f"images{kind}/c{index}.nii.gz", random_image(10 * seed + index))
            save_nifti(root / f"labels{kind}/c{index}.nii.gz", random_image(index, dtype="uint8", high=3))
    pairs = {
        k: [{"image": f"./images{k}/c{i}.nii.gz", "label": f"./labels{k}/c{i}.nii.gz"} for i in range(3)]
        for k in ("Tr", "Va")
    }
    content = {
        "labels": {"0": "background", "1": "liver", "2": "tumour", "3": "vessel"},
        "training": pairs["Tr"],
        "validation": pairs["Va"][:1],
        "test": ["./imagesTs/c0.nii.gz", "./imagesTs/c1.nii.gz"],
    }
    save_json(root / "dataset.json", content)
    save_text(root / "notes" / "readme.txt", "keep me")
    (root / "empty").mkdir()
    return root


def build_decathlon(root: Path) -> Path:
    """Two training cases of two modalities in one 4D file, and a test case without label."""
    for name in ("imagesTr/c0", "imagesTr/c1", "imagesTs/c2"):
        save_nifti(root / f"{name}.nii.gz", random_image(len(name) + ord(name[-1]), (6, 5, 4, 2)))
    for index in range(2):
        save_nifti(root / f"labelsTr/c{index}.nii.gz", random_image(index, dtype="uint8", high=3))
    content = {
        "name": "Sample",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "tumour"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/c{index}.nii.gz", "label": f"./labelsTr/c{index}.nii.gz"} for index in range(2)
        ],
        "test": ["./imagesTs/c2.nii.gz"],
    }
    save_json(root / "dataset.json", content)
    return root


def build_nnunet(root: Path, cases: int = 3, channels: Sequence[str] = ("CT", "PET")) -> Path:
    """Training cases of one file for each channel, and a test case with a label map."""
    for index in range(cases + 1):
        split = "Tr" if index < cases else "Ts"
        for channel in range(len(channels)):
            save_nifti(root / f"images{split}/p_{index:03d}_{channel:04d}.nii.gz", random_image(100 * index + channel))
        save_nifti(root / f"labels{split}/p_{index:03d}.nii.gz", random_image(index, dtype="uint8", high=4))
    content = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    save_json(root / "dataset.json", content)
    return root


def build_bids(root: Path, description: Mapping[str, Any] | None = None, masks: bool = True) -> Path:
    """Three subjects, one of them in two sessions, with T1w and T2w images, masks in derivatives, classes and a README."""
    save_json(root / "dataset_description.json", description or {"Name": "Sample", "BIDSVersion": "1.9.0"})
    save_text(root / "README", "Made of random numbers, to try things on. " * 5)
    save_text(root / "participants.tsv", "participant_id\tgroup\nsub-01\tpatient\nsub-02\tcontrol\nsub-03\tpatient\n")
    save_json(root / "participants.json", {"group": {"Description": "Patient or control"}})
    places = (
        "sub-01/anat/sub-01",
        "sub-02/anat/sub-02",
        "sub-03/ses-a/anat/sub-03_ses-a",
        "sub-03/ses-b/anat/sub-03_ses-b",
    )
    for seed, place in enumerate(places):
        for offset, suffix in enumerate(("T1w", "T2w")):
            save_nifti(root / f"{place}_{suffix}.nii.gz", random_image(2 * seed + offset))
            save_json(root / f"{place}_{suffix}.json", {"Modality": "MR"})
        if masks:
            mask = random_image(seed, dtype="uint8", high=2)
            save_nifti(root / f"derivatives/manual/{place}_label-lesion_mask.nii.gz", mask)
    if masks:
        save_json(
            root / "derivatives/manual/dataset_description.json",
            {
                "Name": "manual",
                "BIDSVersion": "1.9.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "by hand"}],
            },
        )
    return root


def build_image_folder(
    root: Path, splits: Sequence[str] = (), classes: Sequence[str] = ("ok", "bad"), count: int = 2
) -> Path:
    """``count`` PNG images of each class, in each split if there are any."""
    seed = 0
    for split in splits or ("",):
        for name in classes:
            for index in range(count):
                seed += 1
                save_png(root / split / name / f"{name}{index}.png", seed)
    return root


def build_csv(
    root: Path, lines: Sequence[str], name: str = "labels.csv", images: Sequence[str] = ("a", "b", "c", "d")
) -> Path:
    """PNG images under ``images/`` and a table."""
    for seed, image in enumerate(images):
        save_png(root / "images" / f"{image}.png", seed)
    return save_text(root / name, "\n".join(lines) + "\n")


CT_STORAGE, SEG_STORAGE, SR_STORAGE = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "66.4", "88.11"))


def save_dicom(
    path: Path, series: str, number: int = 1, patient: str = "p", storage: str = CT_STORAGE, **values: Any
) -> str:
    """Write a small DICOM file of the standard's form, and the folders above it; its SOP Instance UID."""
    from pydicom.dataset import Dataset, FileMetaDataset

    path.parent.mkdir(parents=True, exist_ok=True)
    data, uid = Dataset(), f"{series}.{number}"
    data.SOPClassUID, data.SOPInstanceUID = storage, uid
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, f"{series}.0", series
    data.Modality, data.InstanceNumber = "OT", number
    if storage != SR_STORAGE:
        pixels = random_image(int(series[-1]) * 100 + number, (4, 5), "uint16")
        data.Rows, data.Columns, data.PixelData = *pixels.shape, pixels.tobytes()
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    for key, value in values.items():
        setattr(data, key, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    data.save_as(path, enforce_file_format=True)
    return uid


def refer_to(uids: Sequence[str]) -> Any:
    """A sequence of references to instances, as segmentations and reports have it."""
    from pydicom.dataset import Dataset

    found = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_STORAGE, uid
        found.append(item)
    return found


def build_dicom_tree(root: Path, folders: Sequence[str] = ("bad/s1", "ok/s2", "ok/s3"), slices: int = 3) -> Path:
    """A series in each folder, of a patient each; the files have no suffix, and not the order of the slices."""
    for index, folder in enumerate(folders, start=1):
        for number in range(1, slices + 1):
            save_dicom(root / folder / f"IM{slices - number}", f"1.2.3.{index}", number, f"patient{index}")
    return root
