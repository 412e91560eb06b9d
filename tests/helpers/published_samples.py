"""Tiny data sets that tests publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np


def make_archive(path: Path, shape: tuple[int, ...]) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 5), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), "uint8")
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez_compressed(path, **arrays)
    return path


def make_folder(root: Path, dtype: str) -> Path:
    rng = np.random.default_rng(0)
    listing: dict[str, Any] = {"labels": {"0": "background", "1": "organ"}, "training": [], "test": []}
    for split, count in (("training", 3), ("test", 1)):
        for index in range(count):
            (root / split).mkdir(parents=True, exist_ok=True)
            image, label = f"{split}/i{index}.nii.gz", f"{split}/l{index}.nii.gz"
            values = rng.normal(0, 400, (7, 6, 5)).astype(dtype)
            affine = np.diag([1, 1, 2.5, 1])
            nibabel.save(nibabel.Nifti1Image(values, affine, dtype=dtype), root / image)
            nibabel.save(nibabel.Nifti1Image((values > 0).astype("uint8"), affine, dtype="uint8"), root / label)
            listing[split].append({"image": image, "label": label})
    (root / "dataset.json").write_text(json.dumps(listing))
    (root / "licence.txt").write_text("as before")
    (root / ".DS_Store").write_bytes(b"what macOS leaves")
    return root
