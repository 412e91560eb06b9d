"""One DICOM file in native form: its bytes, its elements, and where its pixels stand."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_salm.formats.base import FormatError, Opened, opened, require
from monai_salm.formats.dicom.colours import PIXELS, converted, is_coloured, needs_conversion
from monai_salm.formats.dicom.decode import DEFLATED, EXPLICIT, FILE_META, IMPLICIT, NATIVE, SYNTAX, decoded, inflated
from monai_salm.formats.dicom.elements import (
    Change,
    Element,
    Encoding,
    assembled,
    element_bytes,
    even,
    rewritten,
    value_of,
    walk,
)
from monai_salm.formats.dicom.headers import data_start, has_representations
from monai_salm.formats.dicom.pixels import PHOTOMETRIC, PixelLayout, parse_layout, text
from monai_salm.formats.limits import read_file
from monai_salm.shared.arrays import Array

SOP_INSTANCE, REFERENCED, ICON = 0x00080018, 0x00081155, 0x00880200
IMAGE_TYPE, DERIVATION = 0x00080008, 0x00082111
DERIVED_BY = b"Imperceptible noise was added by the owner (monai_salm, arXiv 2403.10573)"
_MEDIA_INSTANCE = 0x00020003
_FLOATS = (0x7FE00008, 0x7FE00009)
_SIGNATURES = 0xFFFAFFFA
_PADDING = 0xFFFCFFFC
# Bytes after the pixels that are no zeros, as scanners leave some, and too few for an image.
_FEW = 256
_MAX_TEXT = 1024
_STORAGE = 0x00080016


def renamed_uid(uid: str) -> str:
    """The UID of the protected copy of an instance; the same for the same UID, everywhere."""
    number = hashlib.blake2b(uid.encode(), digest_size=16, key=b"monai_salm protected SOP instance")
    return f"2.25.{int.from_bytes(number.digest(), 'big')}"


def follow_references(uids: Set[str]) -> Change:
    """A change that renames references to some instances, and takes out icons, which show the originals."""

    def change(data: Any, tag: int) -> bool:
        if tag == ICON:
            del data[tag]
            return True
        uid = text(data.get_item(tag).value) if tag == REFERENCED else ""
        renamed = bool(uid) and uid in uids
        if renamed:
            data.add_new(tag, "UI", renamed_uid(uid))
        return renamed

    return change


def check_sequences(content: bytes, elements: tuple[Element, ...], encoding: Encoding) -> None:
    """ValueError now, not when the file is written, for a sequence that is damaged or cannot be changed alone."""
    for element in elements:
        rewritten(content, element, encoding, lambda data, tag: tag in (ICON, REFERENCED))


@dataclass(frozen=True)
class DicomFile(Opened):
    """A file in native form: not deflated, its pixels not compressed.

    ``meta`` are the elements of the file meta information, ``elements`` those of the data set's first level, in its ``encoding``.
    ``whole`` is the file as it is, where its pixels are of another form than those here.
    """

    content: bytes
    syntax: str
    meta: tuple[Element, ...]
    elements: tuple[Element, ...]
    encoding: Encoding
    pixels: Element
    layout: PixelLayout
    whole: bytes | None = None

    @property
    def before(self) -> bytes:
        """All bytes before the voxels."""
        return self.content[: self.pixels.value]

    @property
    def after(self) -> bytes:
        """All bytes after the voxels, padding first."""
        return self.content[self.pixels.value + self.layout.size :]

    @property
    def cells(self) -> bytes:
        """The bytes of the voxels."""
        return self.content[self.pixels.value : self.pixels.value + self.layout.size]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        return self.layout.dtype

    def image(self) -> Array:
        return self.layout.image(self.cells)

    def files(self, image: Array, uids: Set[str] = frozenset()) -> dict[str, bytes]:
        """The derived instance with another image; references to other protected instances (``uids``) follow their names."""
        return {"": packed(self.protected(self.layout.cells(image, self.cells), uids), self.syntax)}

    def frame(self) -> bytes:
        return hashlib.sha256(b"%d\n" % len(self.before) + self.before + self.after).digest()

    @property
    def uid(self) -> str:
        """Its SOP Instance UID; empty if it has none."""
        return text(self.value(SOP_INSTANCE))

    def value(self, tag: int) -> bytes | None:
        """The bytes of an element's value; None if it is not there."""
        return value_of(self.content, self.elements, tag)

    def protected(self, cells: bytes, uids: Set[str]) -> bytes:
        """The file with other voxels and all that marks it as a derived image; references to ``uids`` follow their new names."""
        change = follow_references((uids | {self.uid}) - {""})
        name = self.uid or hashlib.sha256(self.before + self.after).hexdigest()
        uid = even(renamed_uid(name).encode(), b"\0")
        start, stop = self.pixels.value, self.pixels.value + self.layout.size
        content = self.content[:start] + cells + self.content[stop:]
        parts = {e.tag: rewritten(content, e, self.encoding, change) for e in self.elements if e.tag != SOP_INSTANCE}
        kind, description = _image_type(self.value(IMAGE_TYPE)), _derivation(self.value(DERIVATION))
        parts |= {
            SOP_INSTANCE: element_bytes(SOP_INSTANCE, b"UI", uid, self.encoding),
            IMAGE_TYPE: element_bytes(IMAGE_TYPE, b"CS", kind, self.encoding),
            DERIVATION: element_bytes(DERIVATION, b"ST", description, self.encoding),
        }
        meta = {_MEDIA_INSTANCE: element_bytes(_MEDIA_INSTANCE, b"UI", uid, FILE_META)}
        return assembled(content, self.meta, meta, FILE_META, data_start(content)) + assembled(
            content, self.elements, parts, self.encoding
        )


def load(path: Path) -> DicomFile:
    """Read a file, bring it into native form, and refuse with a FormatError what cannot carry noise."""
    try:
        return opened(path, "dicom file", lambda place: _native(read_file(place)))
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error


def packed(content: bytes, syntax: str) -> bytes:
    """A native file as it is stored: deflated where its transfer syntax says so."""
    if syntax != DEFLATED:
        return content
    start = split_meta(content)[1]
    packer = zlib.compressobj(wbits=-15)
    return content[:start] + even(packer.compress(content[start:]) + packer.flush(), b"\0")


def _native(content: bytes, whole: bytes | None = None) -> DicomFile:
    """The file in native form; ``whole`` is the original where its colours were converted already."""
    original = content
    meta, start = split_meta(content)
    syntax = text(value_of(content, meta, SYNTAX)) or _guessed_syntax(content, start)
    if syntax == DEFLATED:
        content = content[:start] + inflated(content[start:])
    encoding = NATIVE.get(syntax, FILE_META)
    if encoding == FILE_META and not has_representations(content, start):
        encoding = NATIVE[IMPLICIT]  # as programs write that do not know their own transfer syntax
    elements = walk(content, start, encoding)
    _check_elements(content, elements)
    check_sequences(content, elements, encoding)
    if syntax not in NATIVE:
        coloured = is_coloured(text(value_of(content, elements, PHOTOMETRIC)))
        return _native(decoded(content, syntax, meta, elements, encoding), whole or (original if coloured else None))
    if needs_conversion(content, elements, encoding):
        plain = converted(content, elements, encoding, start)
        return _native(packed(plain, syntax), whole or original)
    pixels = next(element for element in elements if element.tag == PIXELS)
    layout = parse_layout(lambda tag: value_of(content, elements, tag), encoding.order)
    if pixels.undefined or layout.size > pixels.stop - pixels.value:
        raise ValueError(
            f"its header declares {layout.size} bytes of pixels, but it holds {pixels.stop - pixels.value}; it is cut off or "
            "damaged"
        )
    behind, padding = content[pixels.value + layout.size : pixels.stop], value_of(content, elements, _PADDING) or b""
    if max(len(part.strip(b"\0")) for part in (behind, padding)) > _FEW:
        raise ValueError(
            f"bytes behind its pixels, or its Data Set Trailing Padding, have more than {_FEW} bytes that are not zero and may "
            "hold the unprotected image; remove them"
        )
    fill = layout.fill(content[pixels.value : pixels.value + layout.size])
    return DicomFile(content, syntax, meta, elements, encoding, pixels, replace(layout, extended=fill), whole)


def split_meta(content: bytes) -> tuple[tuple[Element, ...], int]:
    """The elements of the file meta information, and where the data set begins."""
    place = data_start(content)
    if place is None:
        raise ValueError(
            "not a DICOM file: it has no preamble and no element at its start; get it again from its source"
        )
    elements = walk(content, place, FILE_META, meta=True)
    return elements, elements[-1].end if elements else place


def _guessed_syntax(content: bytes, start: int) -> str:
    """The transfer syntax of a file without file meta information."""
    return EXPLICIT if has_representations(content, start) else IMPLICIT


def _check_elements(content: bytes, elements: tuple[Element, ...]) -> None:
    """Refuse files that hold no image, or one that noise would break."""
    tags = [element.tag for element in elements]
    if len(set(tags)) != len(tags):
        raise ValueError("an element stands in it twice; the file is damaged")
    if any(tag in _FLOATS for tag in tags):
        raise ValueError("its pixels are floats; store integers with a rescale slope")
    if PIXELS not in tags:
        raise ValueError(f"it holds no image (no Pixel Data){_storage(text(value_of(content, elements, _STORAGE)))}")
    if _SIGNATURES in tags:
        raise ValueError("it is digitally signed, and noise would break the signature; remove the signature first")


def _storage(uid: str) -> str:
    """The storage class in words, to go on with; empty for one that is not known."""
    name = str(require("pydicom.uid", "dicom", "DICOM").UID(uid).name)
    return f": {name}" if uid and name != uid else ""


def _image_type(value: bytes | None) -> bytes:
    rest = (value or b"").partition(b"\\")[2] or b"PRIMARY"
    return even(b"DERIVED\\" + rest.rstrip(b" "), b" ")


def _derivation(value: bytes | None) -> bytes:
    old = (value or b"").rstrip(b" \0")
    both = old + b"; " + DERIVED_BY if old else DERIVED_BY
    return even(both if len(both) <= _MAX_TEXT else DERIVED_BY, b" ")
