"""Valid files of each kind that is parsed, changed at random, and what reading one may end in."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from format_samples import (
    save_by_itk,
    save_dicom,
    save_dicom_packed,
    save_dicom_palette,
    save_mgh,
    save_nifti,
    save_npy,
    save_npz,
    save_nrrd_text,
    save_pair,
    save_picture,
    save_png,
    save_tiff,
)

from monai_salm.formats import FormatError, format_of
from monai_salm.formats.base import ImageFormat
from monai_salm.layouts.files import LayoutError
from monai_salm.layouts.reading import read_json, read_table

#: What is done to a file: the change, where, and with which number.
Change = tuple[str, int, int]
CHANGES = ("flip", "cut", "insert", "grow", "number", "copy")
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def changed(content: bytes, changes: Sequence[Change]) -> bytes:
    """A file with some bytes flipped, cut out, put in, or replaced by large numbers."""
    new = bytearray(content)
    for kind, place, value in changes:
        at = place % max(1, len(new))
        if kind == "flip" and new:
            new[at] ^= 1 << value % 8
        elif kind == "cut":
            del new[at : at + value if value % 4 else len(new)]
        elif kind == "insert":
            new[at:at] = bytes([value]) * (value % 40 + 1)
        elif kind == "grow":  # a digit of a text
            digits = [index for index, byte in enumerate(new) if 48 <= byte < 58]
            if digits:
                new[digits[place % len(digits)] : digits[place % len(digits)]] = b"9" * (value % 12 + 1)
        elif kind == "number":
            number = _NUMBERS[value % len(_NUMBERS)]
            new[at : at + 4] = struct.pack("<I" if value & 8 else ">I", number)
        elif kind == "copy":
            new[at:at] = new[max(0, at - value) : at]
    return bytes(new)


def _read_image(path: Path) -> None:
    format_ = format_of(path)
    image = format_.read(path)
    _ask(format_, path)
    format_.write(path, path.with_name(f"new{path.suffix}"), image)
    format_.keepsake(path)


def _ask(format_: ImageFormat, path: Path) -> None:
    for ask in (format_.units, format_.affine, format_.bounds, format_.native_unit, format_.companions, format_.frame):
        ask(path)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a valid one is made, how it is read, and the errors that name the file."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any] = _read_image
    errors: tuple[type[Exception], ...] = (FormatError, LayoutError)

    def outcome(self, path: Path) -> str:
        """Read a file: empty for success, else the message of an error of the package's own; anything else is raised."""
        try:
            self.read(path)
        except self.errors as error:
            if path.name not in str(error):
                raise AssertionError(f"no file is named: {error}") from error
            return str(error)
        return ""


def _text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def _mha(folder: Path) -> Path:
    return save_by_itk(folder, "image.mha")


_JSON = json.dumps({"labels": {"0": "a"}, "training": [{"image": "i0.nii.gz", "label": 1}], "numTest": 3})
FILES: dict[str, Kind] = {
    "nifti": Kind(lambda f: save_nifti(f, suffix=".nii")),
    "nifti_gz": Kind(lambda f: save_nifti(f, suffix=".nii.gz")),
    "pair": Kind(save_pair),
    "nrrd": Kind(save_nrrd_text),
    "meta_image": Kind(_mha),
    "mgh": Kind(lambda f: save_mgh(f, file="image.mgh")),
    "png": Kind(save_png),
    "jpeg": Kind(save_picture),
    "gif": Kind(lambda f: save_picture(f, "image.gif")),
    "tiff": Kind(save_tiff),
    "tiff_packed": Kind(lambda f: save_tiff(f, compression="zlib")),
    "npy": Kind(save_npy),
    "npz": Kind(save_npz),
    "dicom": Kind(save_dicom),
    "dicom_deflated": Kind(lambda f: save_dicom(f, "deflated")),
    "dicom_rle": Kind(lambda f: save_dicom(f, "RLE")),
    "dicom_palette": Kind(save_dicom_palette),
    "dicom_jpeg": Kind(lambda f: save_dicom_packed(f, "YBR_FULL_422")),
    "table": Kind(_text("labels.csv", "image,label\na.png,1\nb.png,0\n"), read_table),
    "json": Kind(_text("dataset.json", _JSON), read_json),
}


def draw(rng: np.random.Generator) -> list[Change]:
    """Changes at random."""
    count = int(rng.integers(1, 5))
    return [
        (CHANGES[rng.integers(len(CHANGES))], int(rng.integers(1 << 20)), int(rng.integers(256))) for _ in range(count)
    ]
