"""How DICOM files begin, with and without preamble, and their headers as pydicom reads them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_salm.formats.base import require

_PREAMBLE = 132
# Tags that a file begins with whose elements have no representations, and the longest value there.
_FIRST_TAGS, _MAX_FIRST = (b"\x08\0\0\0", b"\x08\0\x01\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0"), 1024


def data_start(content: bytes) -> int | None:
    """Where the first element of a DICOM file begins, by its first 132 bytes or more; None for what is no DICOM file.

    Some programs leave out the preamble, or the file meta information too.
    """
    if content[128:_PREAMBLE] == b"DICM":
        return _PREAMBLE
    start, vr = content[:4], content[4:6]
    if start[:2] in (b"\x02\0", b"\x08\0") and vr.isalpha() and vr.isupper():
        return 0
    return 0 if start in _FIRST_TAGS and int.from_bytes(content[4:8], "little") <= _MAX_FIRST else None


def has_representations(content: bytes, start: int) -> bool:
    """Whether the elements of a file without file meta information have value representations."""
    vr = content[start + 4 : start + 6]
    return vr.isalpha() and vr.isupper()


def begins_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; False for one that cannot be read."""
    try:
        # Only of regular files: others may wait for a writer.
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return data_start(file.read(_PREAMBLE)) is not None
    except OSError:
        return False


def read_dataset(path: Path, tags: Sequence[str], stop_before_pixels: bool = True) -> Any:
    """The elements with some keywords, as pydicom's ``Dataset``; pydicom raises what it likes for a damaged file."""
    pydicom = require("pydicom", "dicom", "DICOM")
    with open(path, "rb") as file:
        bare = data_start(file.read(_PREAMBLE)) == 0
    # Readers of the file meet values that break a rule of DICOM; here they do not matter.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, specific_tags=list(tags), force=bare)
