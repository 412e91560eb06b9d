"""File formats: one module a format. A new one is a new file and one line in ``FORMATS``."""

from __future__ import annotations

from pathlib import Path

from monai_salm.formats.base import FormatError, ImageFormat
from monai_salm.formats.dicom.format import Dicom
from monai_salm.formats.meta_image import MetaImage
from monai_salm.formats.mgh import Mgh
from monai_salm.formats.nifti import Nifti, NiftiPair
from monai_salm.formats.npy import Npy
from monai_salm.formats.npz import Npz, NpzArchive
from monai_salm.formats.nrrd import Nrrd
from monai_salm.formats.png import PICTURES, Png
from monai_salm.formats.tiff import Tiff
from monai_salm.formats.unread import UNREAD, why_unread

# DICOM comes last: where no name fits, it looks into the file, since DICOM files often have no suffix.
FORMATS: dict[str, ImageFormat] = {
    format_.name: format_
    for format_ in (Nifti(), NiftiPair(), Nrrd(), MetaImage(), Mgh(), Png(), *PICTURES, Tiff(), Npy(), Npz(), Dicom())
}
#: All suffixes, the longest first.
SUFFIXES: tuple[str, ...] = tuple(
    sorted(
        {suffix for format_ in FORMATS.values() for suffix in format_.suffixes},
        key=lambda suffix: (-len(suffix), suffix),
    )
)


def format_named(file: str) -> ImageFormat | None:
    """The format of a file by its name alone; the file need not exist."""
    return next((format_ for format_ in FORMATS.values() if file.lower().endswith(format_.suffixes)), None)


def find_format(path: Path) -> ImageFormat | None:
    """The format of a file by its name, for DICOM also by its first bytes; None if there is none."""
    return next((format_ for format_ in FORMATS.values() if format_.matches(path)), None)


def format_of(path: Path) -> ImageFormat:
    """The format of a file by its name, for DICOM also by its first bytes; FormatError if there is none."""
    found = find_format(path)
    if found is None:
        if why := why_unread(path):
            raise FormatError(f"{path}: it is {why}")
        known = ", ".join(suffix for format_ in FORMATS.values() for suffix in format_.suffixes)
        raise FormatError(f"{path}: not a format this version reads ({known}); convert it first")
    return found


__all__ = [
    "FORMATS",
    "SUFFIXES",
    "UNREAD",
    "FormatError",
    "ImageFormat",
    "NpzArchive",
    "find_format",
    "format_named",
    "format_of",
]
