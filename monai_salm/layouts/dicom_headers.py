"""What the headers of DICOM files say that a data set is arranged by, and references that follow renamed instances."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_salm.formats.dicom import renamed_uid
from monai_salm.formats.dicom_elements import Element, Encoding, assembled, even, rewritten, value_of, walk
from monai_salm.formats.optional import require
from monai_salm.layouts.base import LayoutError

_TAGS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Rows", "Modality")
_REFERENCED = 0x00081155
_SYNTAX = 0x00020010
_META_START = 132
_ENCODINGS = {"1.2.840.10008.1.2": Encoding(False), "1.2.840.10008.1.2.2": Encoding(True, ">")}
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Storage classes with pixels that are labels or doses, made from images and no images themselves.
_NO_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
)


@dataclass(frozen=True)
class DicomHeader:
    """What a data set is arranged by; empty text for what the file does not say."""

    instance: str
    series: str
    study: str
    patient: str
    modality: str
    is_image: bool


def read_header(path: Path) -> DicomHeader:
    """Read a DICOM file up to its pixels.

    Raises:
        LayoutError: if it is damaged or no DICOM file.
        ImportError: if pydicom is missing.
    """
    pydicom = require("pydicom", "dicom", "DICOM")
    try:
        # Warnings about odd values are the business of whoever shows the file.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            found: dict[str, Any] = {tag: str(data.get(tag, "") or "") for tag in _TAGS}
    # On damaged files pydicom raises what its parts raise.
    except Exception as error:
        raise LayoutError(f"{path} is no DICOM file that can be read ({error}); repair or remove it") from error
    image = bool(found["Rows"]) and found["SOPClassUID"] not in _NO_IMAGES
    uids = (found["SOPInstanceUID"], found["SeriesInstanceUID"], found["StudyInstanceUID"])
    return DicomHeader(*uids, found["PatientID"], found["Modality"], image)


class RenamedReferences(Mapping[str, bytes]):
    """Files whose references to some instances follow the instances' new names, each made when asked for.

    Args:
        root: folder of the data set.
        files: DICOM files relative to it; those without such references are left out.
        uids: of the instances that are renamed.

    Raises:
        LayoutError: for a file that cannot be taken apart.
    """

    def __init__(self, root: Path, files: Sequence[str], uids: Set[str]) -> None:
        self._root, self._uids = root, uids
        self._files = tuple(file for file in files if self._renamed(file) != (root / file).read_bytes())

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, file: str) -> bytes:
        if file not in self._files:
            raise KeyError(file)
        return self._renamed(file)

    def _renamed(self, file: str) -> bytes:
        path = self._root / file
        try:
            return _with_renamed_references(path.read_bytes(), self._uids)
        except ValueError as error:
            raise LayoutError(f"{path}: {error}") from error


def _with_renamed_references(content: bytes, uids: Set[str]) -> bytes:
    """A DICOM file with every Referenced SOP Instance UID of renamed instances changed; the rest keeps its bytes."""
    meta: list[Element] = []
    start = _META_START
    while content[start : start + 2] == b"\x02\0":
        meta.append(next(walk(content, start, len(content), Encoding(True))))
        start = meta[-1].end
    syntax = _uid(value_of(content, tuple(meta), _SYNTAX) or b"")
    if syntax == _DEFLATED:
        raise ValueError("it is deflated, so that its references cannot follow; store it as Explicit VR Little Endian")
    encoding = _ENCODINGS.get(syntax, Encoding(True))
    elements = tuple(walk(content, start, len(content), encoding))

    def change(element: Element, value: bytes) -> bytes:
        if element.tag != _REFERENCED or _uid(value) not in uids:
            return value
        return even(renamed_uid(_uid(value)).encode(), b"\0")

    parts = {element.tag: rewritten(content, element, encoding, change) for element in elements}
    return content[:start] + assembled(content, elements, parts, encoding)


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")
