"""File formats: one module a format. A new one is a new file and one line in ``FORMATS``."""

from __future__ import annotations

from pathlib import Path

from monai_salm.formats.base import Array, FormatError, ImageFormat
from monai_salm.formats.nifti import Nifti
from monai_salm.formats.npz import NpzArchive

FORMATS: dict[str, ImageFormat] = {"nifti": Nifti()}


def find_format(path: Path) -> ImageFormat | None:
    """The format of a file by its name, or None."""
    return next((format_ for format_ in FORMATS.values() if format_.matches(path)), None)


def format_of(path: Path) -> ImageFormat:
    """The format of a file by its name.

    Raises:
        FormatError: if no format here has such names.
    """
    found = find_format(path)
    if found is None:
        known = ", ".join(suffix for format_ in FORMATS.values() for suffix in format_.suffixes)
        raise FormatError(f"{path}: not a format this version reads ({known}); convert it first")
    return found


__all__ = ["FORMATS", "Array", "FormatError", "ImageFormat", "NpzArchive", "find_format", "format_of"]
