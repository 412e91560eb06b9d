"""What the headers of DICOM files say that a data set is arranged by, and references that follow renamed instances."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_salm.formats.dicom.elements import Element, Encoding, assembled, rewritten, value_of, walk
from monai_salm.formats.dicom.file import REFERENCED, check_sequences, follow_references, split_meta
from monai_salm.formats.dicom.pixels import PALETTE
from monai_salm.formats.dicom.start import has_representations, read_dataset
from monai_salm.layouts.base import LayoutError
from monai_salm.layouts.dicom_classes import holds_labels, holds_no_pixels, is_raw_data

_TAGS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Rows", "Modality")
_KIND, _COLOURS = "ImageType", "PhotometricInterpretation"
_SYNTAX = 0x00020010
_ENCODINGS = {"1.2.840.10008.1.2": Encoding(False), "1.2.840.10008.1.2.2": Encoding(True, ">")}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


@dataclass(frozen=True)
class DicomHeader:
    """What a data set is arranged by; empty text for what the file does not say.

    Args:
        instance, series, study, patient, modality: the UIDs, the patient's ID, the modality.
        is_image: whether it is an image, or in so bad a state that it may be one.
        problem: why it cannot be used, and what to do; empty for a sound file.
        storage: UID of the storage class.
        image_type: the values of Image Type.
        palette: whether its pixels are places in a palette.
    """

    instance: str = ""
    series: str = ""
    study: str = ""
    patient: str = ""
    modality: str = ""
    is_image: bool = True
    problem: str = ""
    storage: str = ""
    image_type: tuple[str, ...] = ()
    palette: bool = False


def read_header(path: Path) -> DicomHeader:
    """Read a DICOM file up to its pixels; never raises for a damaged one, which counts as an image with a problem.

    Only objects of storage classes known to hold no image are none, and only if they are whole and do hold none.

    Raises:
        ImportError: if pydicom is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = read_dataset(path, [*_TAGS, _KIND, _COLOURS])
            found: dict[str, Any] = {tag: str(data.get(tag, "") or "") for tag in _TAGS}
            kind = data.get(_KIND) or ()
            palette = str(data.get(_COLOURS) or "") == PALETTE
            words = (kind,) if isinstance(kind, str) else tuple(map(str, kind))
    except ImportError:
        raise
    # On damaged files pydicom raises what its parts raise.
    except Exception as error:
        return DicomHeader(problem=f"{path} is no DICOM file that can be read ({error}); repair or remove it")
    is_image, problem = _kind(path, found["SOPClassUID"], bool(found["Rows"]))
    uids = (found["SOPInstanceUID"], found["SeriesInstanceUID"], found["StudyInstanceUID"])
    return DicomHeader(
        *uids, found["PatientID"], found["Modality"], is_image, problem, found["SOPClassUID"], words, palette
    )


def _kind(path: Path, storage: str, has_rows: bool) -> tuple[bool, str]:
    """Whether a file is an image, and why it cannot be used."""
    if is_raw_data(storage):
        return True, f"{path} is raw data, from which the unprotected image can be made again; remove it"
    if holds_labels(storage) or holds_no_pixels(storage):
        try:
            pixels = _check_object(path.read_bytes())
        except (ValueError, OSError) as error:
            return False, f"{path}: {error}"
        if not pixels or holds_labels(storage):
            return False, ""
    if not has_rows:
        return True, f"{path}: its header has no number of rows, as one that is cut off; get it again from its source"
    return True, ""


class RenamedReferences(Mapping[str, bytes]):
    """Files whose references to some instances follow the instances' new names, each made when asked for.

    Args:
        root: folder of the data set.
        files: sound DICOM files relative to it; those without such references are left out.
        uids: of the instances that are renamed.

    Raises:
        LayoutError: for a file that was changed since its header was read, and cannot be taken apart now.
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


def _taken_apart(content: bytes) -> tuple[int, tuple[Element, ...], Encoding]:
    """Where the data set of a file begins, its elements, and how they are written."""
    meta, start = split_meta(content)
    syntax = _uid(value_of(content, meta, _SYNTAX) or b"")
    if not meta:
        bare = Encoding(has_representations(content, start))
        return start, walk(content, start, bare), bare
    if syntax == _DEFLATED:
        raise ValueError("it is deflated, so that its references cannot follow; store it as Explicit VR Little Endian")
    encoding = _ENCODINGS.get(syntax, Encoding(True))
    return start, walk(content, start, encoding), encoding


def _check_object(content: bytes) -> bool:
    """Whether a file has pixels.

    Raises:
        ValueError: if it cannot be taken apart, as it must be for its references to follow.
    """
    _, elements, encoding = _taken_apart(content)
    check_sequences(content, elements, encoding)
    tags = [element.tag for element in elements]
    if len(set(tags)) != len(tags):
        raise ValueError("an element stands in it twice; the file is damaged")
    return any(tag in _PIXELS for tag in tags)


def _with_renamed_references(content: bytes, uids: Set[str]) -> bytes:
    """A DICOM file with every Referenced SOP Instance UID of renamed instances changed.

    One that has such references loses its icons, which may show the instances as they were. The rest keeps its bytes.
    """
    start, elements, encoding = _taken_apart(content)
    follow, renamed = follow_references(uids), False

    def change(data: Any, tag: int) -> bool:
        nonlocal renamed
        changed = follow(data, tag)
        renamed |= changed and tag == REFERENCED
        return changed

    parts = {element.tag: rewritten(content, element, encoding, change) for element in elements}
    return content[:start] + assembled(content, elements, parts, encoding) if renamed else content


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")
