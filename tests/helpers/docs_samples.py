"""The data sets that the documentation's commands and code name, tiny and made of random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from layout_samples import build_csv, build_image_folder, save_dicom, save_json, save_nifti
from PIL import Image

SIDE = 16


def _scans(root: Path, seed: int = 0, training: int = 6, test: int = 4) -> None:
    """A datalist of volumes of a class each."""
    rng = np.random.default_rng(seed)
    listing: dict[str, list[dict[str, object]]] = {"training": [], "test": []}
    root.mkdir()
    for split, count in (("training", training), ("test", test)):
        for index in range(count):
            volume = rng.integers(0, 256, (12, 12, 12)).astype(np.uint8)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), root / f"{split}_{index}.nii.gz")
            listing[split].append({"image": f"./{split}_{index}.nii.gz", "label": index % 2})
    (root / "dataset.json").write_text(json.dumps({key: items for key, items in listing.items() if items}))


def _scans_today(root: Path) -> None:
    _scans(root, seed=1, training=2, test=0)


def _organ(root: Path) -> None:
    """A Decathlon task of CT volumes in Hounsfield units, with two structures."""
    rng = np.random.default_rng(0)
    for index in range(4):
        save_nifti(root / f"imagesTr/c{index}.nii.gz", rng.integers(-300, 400, (12, 12, 12)).astype("int16"))
        save_nifti(root / f"labelsTr/c{index}.nii.gz", rng.integers(0, 3, (12, 12, 12)).astype("uint8"))
    cases = [{"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"} for i in range(4)]
    content = {
        "name": "Organ",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "numTraining": 4,
        "numTest": 0,
        "training": cases,
        "test": [],
    }
    save_json(root / "dataset.json", content)


def _hospital(root: Path) -> None:
    """CT series, two of each class and each of another patient."""
    rng = np.random.default_rng(0)
    for index, folder in enumerate(("benign/s1", "benign/s2", "malignant/s3", "malignant/s4"), start=1):
        for number in range(1, 9):
            pixels = rng.integers(800, 1400, (SIDE, SIDE)).astype("uint16")
            values = {"Rows": SIDE, "Columns": SIDE, "PixelData": pixels.tobytes()}
            scaling = {"RescaleIntercept": "-1024", "RescaleSlope": "1"}
            place = root / folder / f"IM{number}"
            save_dicom(place, f"1.2.3.{index}", number, f"patient{index}", **values, **scaling)


def _xray(root: Path) -> None:
    build_image_folder(root, ("train", "val", "test"), ("healthy", "pneumonia"), count=3)
    _enlarge(root)


def _skin(root: Path) -> None:
    lines = ["image_id,diagnosis,split", "a,nevus,train", "b,melanoma,train", "c,nevus,train", "d,melanoma,test"]
    build_csv(root, lines)
    _enlarge(root)


def _enlarge(root: Path) -> None:
    """Images that a network can look at."""
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("*.png")):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)).save(path)


def _pathmnist(path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None].astype(np.uint8)
    np.savez_compressed(path, **arrays)


#: By the name that pages use.
BUILDERS: dict[str, Callable[[Path], None]] = {
    "scans": _scans,
    "scans_today": _scans_today,
    "Task03_Organ": _organ,
    "hospital": _hospital,
    "xray": _xray,
    "skin": _skin,
    "pathmnist.npz": _pathmnist,
}


def signing_keys(folder: Path, name: str = "key") -> None:
    """``key.pem`` and ``key.pub``, as openssl would make them."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pem").chmod(0o600)
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


def partner_key(folder: Path) -> str:
    """``key.txt``, as age-keygen would make it; the public key."""
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    (folder / "key.txt").write_text(f"{identity}\n")
    return str(identity.to_public())
