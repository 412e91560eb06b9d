"""Headers of DICOM files: they tell the images, those that are no cases, and references to renamed instances."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_salm.formats.dicom.decode import DEFLATED, FILE_META, NATIVE, SYNTAX
from monai_salm.formats.dicom.elements import Element, Encoding, assembled, rewritten, value_of, walk
from monai_salm.formats.dicom.file import REFERENCED, check_sequences, follow_references, split_meta
from monai_salm.formats.dicom.headers import has_representations, read_dataset
from monai_salm.formats.dicom.pixels import PALETTE, text
from monai_salm.formats.dicom.stacks import PROJECTIONS
from monai_salm.layouts.files import LayoutError

# Field of DicomHeader -> keyword.
_TAGS = {
    "instance": "SOPInstanceUID",
    "series": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "patient": "PatientID",
    "modality": "Modality",
    "storage": "SOPClassUID",
}
_ROWS, _KIND, _COLOURS = "Rows", "ImageType", "PhotometricInterpretation"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)

# Storage classes (DICOM PS3.4, annex B.5), each without this root.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Radiotherapy classes that are images; all others of their root are plans, doses, structure sets and records.
_RT_ROOT, _RT_IMAGES = "481.", ("481.1", "481.23", "481.24")
_NO_PIXELS = (
    "66.1", "66.2", "66.3", "66.5", "66.6",  # registrations, fiducials, surfaces, tracts
    "67", "68.1", "68.2",  # real world values, surface scans
    "79.1", "80.1", "90.1", "91.1", "131",  # grids, visual fields, assessments, annotations, structured displays
)  # fmt: skip
# Waveforms, presentation states, measurements of eyes, reports and key objects, encapsulated documents, protocols.
_NO_PIXELS_ROOTS = ("9.", "11.", "78.", "88.", "104.", "200.")
# Pixels that are labels or doses, made from images and no images themselves.
_LABELS = ("66.4", "66.7", "66.8", "481.2")
_RAW = "66"
# Words of Image Type.
_SCOUTS = frozenset(("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"))
_PAGES = frozenset(("SCREEN SAVE", "DOSE_INFO", "DOSE REPORT", "CSA REPORT", "PROTOCOL"))


@dataclass(frozen=True)
class DicomHeader:
    """The parts of a header that arrange a data set; empty text for a part that is missing, and for no ``problem``.

    ``is_image`` is True also for a file in so bad a state that it may be an image. ``storage`` is the UID of the storage class.
    """

    instance: str = ""
    series: str = ""
    study: str = ""
    patient: str = ""
    modality: str = ""
    storage: str = ""
    is_image: bool = True
    problem: str = ""
    image_type: tuple[str, ...] = ()
    palette: bool = False


def read_header(path: Path) -> DicomHeader:
    """Read a DICOM file up to its pixels; never raises for a damaged one, which counts as an image with a problem.

    Only objects of storage classes known to hold no image are none, and only if they are whole and do hold none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = read_dataset(path, [*_TAGS.values(), _ROWS, _KIND, _COLOURS])
            found: dict[str, Any] = {field: str(data.get(tag, "") or "") for field, tag in _TAGS.items()}
            kind, rows = data.get(_KIND) or (), bool(str(data.get(_ROWS, "") or ""))
            found["palette"] = str(data.get(_COLOURS) or "") == PALETTE
            found["image_type"] = (kind,) if isinstance(kind, str) else tuple(map(str, kind))
    except ImportError:
        raise
    except Exception as error:  # on damaged files pydicom raises what its parts raise
        return DicomHeader(problem=f"{path} is no DICOM file that can be read ({error}); repair or remove it")
    found["is_image"], found["problem"] = _kind(path, found["storage"], rows)
    return DicomHeader(**found)


def _kind(path: Path, storage: str, has_rows: bool) -> tuple[bool, str]:
    """Whether a file is an image, and why it cannot be used."""
    if storage == _STORAGE + _RAW:
        return True, f"{path} is raw data, from which the unprotected image can be made again; remove it"
    holds_labels = storage.startswith(_STORAGE) and storage.removeprefix(_STORAGE) in _LABELS
    if holds_labels or holds_no_pixels(storage):
        try:
            if not _has_pixels(path.read_bytes()) or holds_labels:
                return False, ""
        except (ValueError, OSError) as error:
            return False, f"{path}: {error}"
    lacks = "its header has no number of rows; the file may be cut off; get it again from its source"
    return True, "" if has_rows else f"{path}: {lacks}"


def holds_no_pixels(storage: str) -> bool:
    """Whether objects of a storage class (its UID) are known to hold no pixels at all; False for one that is not known."""
    if not storage.startswith(_STORAGE):
        return False
    kind = storage.removeprefix(_STORAGE)
    if kind.startswith(_RT_ROOT):
        return kind not in _RT_IMAGES and kind not in _LABELS
    return kind in _NO_PIXELS or kind.startswith(_NO_PIXELS_ROOTS)


def set_aside(headers: Mapping[str, DicomHeader]) -> dict[str, str]:
    """The images that are no cases among the others, with the reasons, given the headers of all sound images by file.

    These are scouts; palettes among others; and dose reports and other secondary captures, where most images are none and the
    captures are no digitized X-rays among X-rays.
    """
    scouts = {file for file, header in headers.items() if _SCOUTS & set(header.image_type)}
    rest = {file: header for file, header in headers.items() if file not in scouts}
    if not rest:
        return {}
    found = dict.fromkeys(scouts, "a scout (its Image Type says so), from which no case is made")
    palettes = [file for file, header in rest.items() if header.palette]
    if 2 * len(palettes) < len(rest):  # readers show the places, not the colours
        why = "its colours are places in a palette, most images hold theirs; convert it to RGB"
        found |= dict.fromkeys(palettes, why)
    # Pictures of a screen or a page, or digitized films.
    kinds = {file: header.storage.removeprefix(_STORAGE).partition(".")[0] for file, header in rest.items()}
    pages = {file for file, header in rest.items() if _PAGES & set(header.image_type)}
    captures = pages | {file for file, kind in kinds.items() if kind == "7"}
    modalities = Counter(header.modality for file, header in rest.items() if file not in captures)
    if modalities.total() < len(captures):
        return found
    commonest = modalities.most_common(1)[0][0]
    alike = commonest if commonest in PROJECTIONS else None
    others = (file for file in rest if file in captures and (file in pages or rest[file].modality != alike))
    why = f"a secondary capture, as of a dose report, among images of modality {commonest}"
    return found | dict.fromkeys(others, why)


class RenamedReferences(Mapping[str, bytes]):
    """Sound DICOM files that refer to renamed instances (``uids``), with references to the new names, each made when asked for."""

    def __init__(self, root: Path, files: Sequence[str], uids: Set[str]) -> None:
        self._root, self._uids = root, uids
        self._files = {file: file for file in files if self._renamed(file) != (root / file).read_bytes()}

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, file: str) -> bytes:
        return self._renamed(self._files[file])

    def _renamed(self, file: str) -> bytes:
        path = self._root / file
        try:
            return _with_renamed_references(path.read_bytes(), self._uids)
        except ValueError as error:
            raise LayoutError(f"{path}: {error}") from error


def _taken_apart(content: bytes) -> tuple[int, tuple[Element, ...], Encoding]:
    """Where the data set of a file begins, its elements, and how they are written."""
    meta, start = split_meta(content)
    syntax = text(value_of(content, meta, SYNTAX))
    if syntax == DEFLATED:
        raise ValueError("it is deflated, so that its references cannot follow; store it as Explicit VR Little Endian")
    encoding = NATIVE.get(syntax, FILE_META) if meta else Encoding(has_representations(content, start))
    return start, walk(content, start, encoding), encoding


def _has_pixels(content: bytes) -> bool:
    """Whether a file has pixels; an error if it cannot be taken apart, as it must be for its references to follow."""
    _, elements, encoding = _taken_apart(content)
    check_sequences(content, elements, encoding)
    tags = [element.tag for element in elements]
    if len(set(tags)) != len(tags):
        raise ValueError("an element stands in it twice; the file is damaged")
    return any(tag in _PIXELS for tag in tags)


def _with_renamed_references(content: bytes, uids: Set[str]) -> bytes:
    """A DICOM file with the references to renamed instances changed, and then without its icons, which may show the instances."""
    start, elements, encoding = _taken_apart(content)
    follow, changed = follow_references(uids), set[int]()

    def change(data: Any, tag: int) -> bool:
        changed.update([tag] if (new := follow(data, tag)) else [])
        return new

    parts = {element.tag: rewritten(content, element, encoding, change) for element in elements}
    return content[:start] + assembled(content, elements, parts, encoding) if REFERENCED in changed else content
