"""Draw docs/images/clinical_cost.png: a slice of nilearn's brain template, clean and protected, at its size and magnified.

python docs/images/make_clinical_cost.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from monai_salm.demo.data import template_path

#: Class -> sagittal planes, voxels from the midline.
PLANES = {"medial": range(2, 26, 2), "lateral": range(30, 54, 2)}
SHOWN, DETAIL = ("medial", 12), (slice(70, 126), slice(80, 136))
ZOOM, GAP, GAIN = 4, 8, 12


def write_slices(folder: Path) -> None:
    """A folder of PNG pictures for each class."""
    volume = np.asarray(nibabel.load(template_path()).dataobj).astype(np.float64)
    bright = np.percentile(volume, 99.9)
    for name, planes in PLANES.items():
        (folder / name).mkdir(parents=True)
        for plane in planes:
            picture = np.flipud(volume[volume.shape[0] // 2 - plane].T)
            values = np.clip(picture * 230 / bright, 0, 255).round().astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{plane:02d}.png")


def sheet(clean: np.ndarray, protected: np.ndarray) -> Image.Image:
    """Both at their size above, and below a detail of both and of their difference, magnified."""
    change = np.clip(128 + GAIN * (protected.astype(int) - clean), 0, 255).astype(np.uint8)
    details = [image[DETAIL] for image in (clean, protected, change)]
    side = ZOOM * details[0].shape[0]
    whole = Image.new("L", (3 * side + 2 * GAP, clean.shape[0] + GAP + side), 255)
    for column, image in enumerate((clean, protected, change)):
        whole.paste(Image.fromarray(image), (column * (side + GAP) + (side - clean.shape[1]) // 2, 0))
    for column, image in enumerate(details):
        magnified = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        whole.paste(magnified, (column * (side + GAP), clean.shape[0] + GAP))
    return whole


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, copy, store = (Path(folder, name) for name in ("slices", "public", "noise.db"))
        write_slices(source)
        subprocess.run(
            [sys.executable, "-m", "monai_salm", "protect", str(source), str(copy), "--store", str(store)], check=True
        )
        name, plane = SHOWN
        clean, protected = (
            np.asarray(Image.open(root / name / f"{plane:02d}.png")).astype(np.uint8) for root in (source, copy)
        )
    sheet(clean, protected).save(Path(__file__).with_name("clinical_cost.png"), optimize=True)


if __name__ == "__main__":
    main()
