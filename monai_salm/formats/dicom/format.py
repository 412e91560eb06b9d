"""DICOM: one file is one image; the protected copy is a new, derived instance with everything else as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from monai_salm.formats.base import FormatError, ImageFormat, require_like, save
from monai_salm.formats.dicom.elements import tag_name, walk
from monai_salm.formats.dicom.file import DicomFile, load, packed, split_meta
from monai_salm.formats.dicom.headers import begins_as_dicom, read_dataset
from monai_salm.formats.dicom.units import TAGS, affine_of, units_of
from monai_salm.formats.kept_headers import damaged_keepsake, split_head, unpacked
from monai_salm.formats.kept_headers import packed as kept_of
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import atomic_file

T = TypeVar("T")

_NOBODY: frozenset[str] = frozenset()
_LEVEL = 9
# What a keepsake begins with that is the whole file.
_WHOLE = b"whole\n"


class Dicom(ImageFormat):
    """DICOM files with grey or RGB pixels of 8, 16 or 32 bits, of one frame or several.

    Images are ``(samples, rows, columns)``, of several frames ``(samples, rows, columns, frames)``: the stored numbers,
    before any rescale slope. MONAI's ``PydicomReader`` swaps rows and columns and rescales.

    The copy has a new SOP Instance UID (``file.renamed_uid``), in the file meta information, too; references in the file to it
    (and, with ``write_dicom``, to other protected instances) follow. Image Type begins with DERIVED, and Derivation
    Description says that noise was added. Icon Image Sequence is left out, since it shows the original. Compressed pixels
    become Explicit VR Little Endian; palettes and YBR become RGB. All other elements, private ones included, keep bytes and
    order. ``keepsake`` holds what changed, so that ``restore`` gives the original file byte for byte; a grey or RGB one that
    was compressed or deflated comes back with its elements and pixels, not packed as it was.

    Needs pydicom, the extra ``dicom``.
    """

    name = "dicom"
    suffixes = (".dcm", ".dicom", ".ima")
    pictures = True

    def matches(self, path: Path) -> bool:
        return super().matches(path) or begins_as_dicom(path)

    def open(self, path: Path) -> DicomFile:
        return load(path)

    def bounds(self, path: Path) -> tuple[int, int] | None:
        layout = load(path).layout
        return layout.bounds if layout.stored < layout.allocated else None

    def native_unit(self, path: Path) -> tuple[float, str] | None:
        def unit(header: Any) -> tuple[float, str] | None:
            if header.get("RescaleSlope") is None:
                return None
            name = header.get("RescaleType") or ("HU" if header.get("Modality") == "CT" else "units of the modality")
            return float(header.RescaleSlope), str(name)

        return _of_header(path, ["Modality", "RescaleSlope", "RescaleType"], unit)

    def units(self, path: Path) -> Units:
        return _of_header(path, TAGS, units_of)

    def affine(self, path: Path) -> Array | None:
        return _of_header(path, TAGS, affine_of)

    def differences(self, source: Path, protected: Path) -> Iterator[str]:
        yield from dicom_differences(source, protected)

    def keepsake(self, source: Path) -> bytes | None:
        file = load(source)
        if file.whole is not None:
            return _WHOLE + kept_of(file.whole, file.size, source, _LEVEL)
        head = json.dumps({"before": len(file.before), "syntax": file.syntax, "extended": file.layout.extended})
        kept = head.encode() + b"\n" + file.before + file.after
        return kept_of(kept, file.size, source, _LEVEL)

    def restore(self, protected: Path, target: Path, image: Array, keepsake: bytes | None) -> None:
        if keepsake is None:
            raise FormatError(
                f"{protected}: the store does not have what the original's header was; it is of another version"
            )
        if keepsake.startswith(_WHOLE):
            with atomic_file(target) as written:
                written.write(unpacked(keepsake[len(_WHOLE) :], image, protected))
            return
        kept, before, syntax, extended = _unpacked(keepsake, image, protected)
        # Whether the bits above those stored repeat the sign shows only where a number is negative.
        file = load(protected)
        file = replace(file, layout=replace(file.layout, extended=extended))
        cells = _cells(file, image, protected)
        try:
            content = packed(kept[:before] + cells + kept[before:], syntax)
        except ValueError as error:
            raise damaged_keepsake(str(protected), error) from error
        with atomic_file(target) as written:
            written.write(content)


def write_dicom(source: Path, target: Path, image: Array, protected_uids: Set[str] = _NOBODY) -> None:
    """Write a file again as a derived instance with other voxels, see ``Dicom``; FormatError if the image does not fit into it.

    References to ``protected_uids``, the SOP Instance UIDs of all protected files of the data set, follow their new names.
    """
    save(source, target, load(source), image, uids=protected_uids)


def dicom_differences(source: Path, protected: Path, protected_uids: Set[str] = _NOBODY) -> Iterator[str]:
    """What differs between a protected file and what ``write_dicom`` makes of the source, voxels aside; a line each."""
    original, copy = load(source), load(protected)
    if replace(original.layout, extended=True) != replace(copy.layout, extended=True):
        yield f"its pixels are {copy.layout.dtype.name} {copy.layout.shape}, laid out otherwise than the original's"
        return
    # Overlays in the cells are the original's.
    expected = original.protected(_cells(original, copy.image(), protected), protected_uids)
    if expected == copy.content:
        return
    before, after = dict(_elements(expected, copy)), dict(_elements(copy.content, copy))
    named = [tag for tag in sorted(before.keys() | after.keys()) if before.get(tag) != after.get(tag)]
    for tag in named:
        how = "is missing" if tag not in after else "was added" if tag not in before else "differs"
        yield f"element {tag_name(tag)} {how}"
    if not named:
        yield "its preamble or the order of its elements differs"


def _of_header(path: Path, tags: Sequence[str], answer: Callable[[Any], T]) -> T:
    """What a header says; FormatError for one whose elements cannot be read."""
    try:
        return answer(read_dataset(path, tags))
    except (FormatError, OSError, ImportError):
        raise
    # pydicom raises what it meets in a damaged file.
    except Exception as error:
        raise FormatError(f"{path}: its header cannot be read ({error}); get it again from its source") from error


def _cells(file: DicomFile, image: Array, path: Path) -> bytes:
    require_like(path, file.shape, file.dtype, image)
    try:
        return file.layout.cells(image, file.cells)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error


def _elements(content: bytes, like: DicomFile) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of every element of the first level."""
    meta, start = split_meta(content)
    for element in (*meta, *walk(content, start, like.encoding)):
        yield element.tag, content[element.start : element.end]


def _unpacked(keepsake: bytes, image: Array, path: Path) -> tuple[bytes, int, str, bool | None]:
    """Header and what follows the voxels in one, where the second begins, the transfer syntax, and how cells are filled."""
    values, kept = split_head(unpacked(keepsake, image, path), str(path))
    known = isinstance(values, dict) and type(values.get("before")) is int and type(values.get("syntax")) is str
    if not known or not 0 <= values["before"] <= len(kept) or values.get("extended") not in (True, False, None):
        raise damaged_keepsake(str(path), "its header")
    return kept, values["before"], values["syntax"], values.get("extended")
