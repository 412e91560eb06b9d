"""The data elements of a DICOM file as byte ranges, so that some can be changed and all others keep their bytes.

pydicom reads the elements, and writes sequences in which something changes. It would leave out lengths of groups, which old files
have, so that the elements of the first level are put together here (DICOM PS3.5, 7).
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from monai_salm.formats.base import require

#: Representations whose explicit header has a length of four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Encoding:
    """How elements are written: with or without their representation, and in which byte order."""

    explicit: bool
    order: str = "<"

    @property
    def flags(self) -> tuple[bool, bool]:
        """The same as pydicom has it: whether representations are left out, and whether the order is little-endian."""
        return not self.explicit, self.order == "<"


@dataclass(frozen=True)
class Element:
    """Where an element stands: its tag, its value, and its end, delimiter included.

    A value stops before the delimiter where its length is ``undefined``. ``vr`` is empty where the encoding leaves it out.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    stop: int
    end: int
    undefined: bool


def tag_name(tag: int) -> str:
    """``(0008,0018) SOP Instance UID``."""
    keyword = require("pydicom.datadict", "dicom", "DICOM").dictionary_description
    number = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
    try:
        return f"{number} {keyword(tag)}"
    except KeyError:
        return number


def walk(content: bytes, start: int, encoding: Encoding, meta: bool = False) -> tuple[Element, ...]:
    """The elements of the first level, or of the file meta information alone (``meta``, group 2), in the order of the file.

    ValueError if an element claims more bytes than there are, or is no element.
    """
    reader = require("pydicom.filereader", "dicom", "DICOM")
    file, elements = io.BytesIO(content), list[Element]()
    file.seek(start)
    outside = (lambda tag, vr, length: tag.group != 2) if meta else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for found in reader.data_element_generator(file, *encoding.flags, stop_when=outside):
                elements.append(_element(found, content, start, file.tell(), encoding))
                start = elements[-1].end
    except ValueError:
        raise
    # pydicom raises what it meets in a damaged file.
    except Exception as error:
        raise _damage(f"the element at byte {start}", error) from error
    if start < len(content) and not meta:
        raise ValueError(f"it ends at byte {len(content)} in the midst of an element; it is cut off")
    return tuple(elements)


def _damage(what: str, error: Exception) -> ValueError:
    why = "sequences are nested too deep" if isinstance(error, RecursionError) else error
    return ValueError(f"{what} cannot be read ({why}); the file is damaged")


def _element(found: Any, content: bytes, start: int, end: int, encoding: Encoding) -> Element:
    """An element that pydicom has read, checked."""
    tag, vr = int(found.tag), content[start + 4 : start + 6] if encoding.explicit else b""
    if encoding.explicit and not (vr.isalpha() and vr.isupper()):
        raise ValueError(f"{tag_name(tag)} at byte {start} has no value representation ({vr!r}); the file is damaged")
    if not found.is_raw:  # a sequence of undefined length
        return Element(tag, vr, start, found.file_tell, end - 8, end, True)
    undefined, value = found.length == _UNDEFINED, int(found.value_tell)
    if not undefined and value + found.length > len(content):
        raise ValueError(
            f"{tag_name(tag)} at byte {start} claims {found.length} bytes, more than the file holds; it is cut off"
        )
    return Element(tag, vr, start, value, end - 8 if undefined else end, end, undefined)


def element_bytes(tag: int, vr: bytes, value: bytes, encoding: Encoding) -> bytes:
    """An element as it stands in a file; the value has even length."""
    head = struct.pack(f"{encoding.order}HH", tag >> 16, tag & 0xFFFF)
    if encoding.explicit and vr not in _LONG:
        return head + vr + struct.pack(f"{encoding.order}H", len(value)) + value
    return head + (vr + b"\0\0" if encoding.explicit else b"") + struct.pack(f"{encoding.order}I", len(value)) + value


#: Given a data set of pydicom and a tag in it, changes that element; whether it did.
Change = Callable[[Any, int], bool]


def rewritten(content: bytes, element: Element, encoding: Encoding, change: Change) -> bytes:
    """An element of the first level with changes in it; one that no change reaches keeps its bytes.

    ValueError if the element is damaged, or would not keep all its other bytes.
    """
    stored = content[element.start : element.end]
    if (element.vr.decode() or _known_vr(element.tag)) not in ("SQ", "UN", "UI"):
        return stored
    reader, writer = (require(f"pydicom.file{name}", "dicom", "DICOM") for name in ("reader", "writer"))

    def written(data: Any) -> bytes:
        file = require("pydicom.filebase", "dicom", "DICOM").DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = encoding.flags
        writer.write_dataset(file, data)
        return bytes(file.getvalue())

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = reader.read_dataset(io.BytesIO(stored), *encoding.flags)
            if not _visit(data, change):
                return stored
            plain = reader.read_dataset(io.BytesIO(stored), *encoding.flags)
            _visit(plain, lambda data, tag: False)
            same, new = written(plain) == stored, written(data)
    # pydicom raises what it meets in a damaged file.
    except Exception as error:
        raise _damage(tag_name(element.tag), error) from error
    if not same:
        raise ValueError(
            f"{tag_name(element.tag)} must be changed and is written in a way that other bytes would change too; save the file "
            "again with another program"
        )
    return new


def _visit(data: Any, change: Change) -> bool:
    """Change elements at every level; whether any was changed."""
    found = False
    for tag in list(data.keys()):
        if change(data, tag):
            found = True
        elif (data.get_item(tag).VR or _known_vr(tag)) == "SQ":
            for item in data[tag].value:
                found |= _visit(item, change)
    return found


def _known_vr(tag: int) -> str:
    """The representation that the DICOM dictionary gives an element."""
    datadict = require("pydicom.datadict", "dicom", "DICOM")
    return str(datadict.dictionary_VR(tag)) if datadict.dictionary_has_tag(tag) else "UN"


def _with_group_lengths(parts: Mapping[int, tuple[bytes, bytes]], encoding: Encoding) -> bytes:
    """Elements (tag -> old and new bytes) one after the other, with the lengths of groups that grew or shrank put right."""
    grown: dict[int, int] = {}
    for tag, (old, new) in parts.items():
        grown[tag >> 16] = grown.get(tag >> 16, 0) + len(new) - len(old)
    written = []
    for tag, (_, new) in parts.items():
        if tag & 0xFFFF == 0 and len(new) >= 12 and grown[tag >> 16]:
            length = struct.unpack(f"{encoding.order}I", new[-4:])[0] + grown[tag >> 16]
            if 0 <= length < 1 << 32:  # a length that was wrong before stays as it is
                new = new[:-4] + struct.pack(f"{encoding.order}I", length)
        written.append(new)
    return b"".join(written)


def assembled(
    content: bytes,
    elements: tuple[Element, ...],
    parts: Mapping[int, bytes],
    encoding: Encoding,
    start: int | None = None,
) -> bytes:
    """The elements of one level one after the other, some replaced; new ones stand where their tag puts them.

    ``parts`` are the new elements by their tags; those without bytes are left out. ``start`` is where the file meta information
    begins: what stands before it is kept, and no element is added to it.
    """
    both: dict[int, tuple[bytes, bytes]] = {}
    missing = sorted(tag for tag in parts if start is None and all(tag != e.tag for e in elements))
    for element in elements:
        while missing and missing[0] < element.tag:
            new = missing.pop(0)
            both[new] = (b"", parts[new])
        old = content[element.start : element.end]
        both[element.tag] = (old, parts.get(element.tag, old))
    both |= {tag: (b"", parts[tag]) for tag in missing}
    return content[: start or 0] + _with_group_lengths(both, encoding)


def value_of(content: bytes, elements: tuple[Element, ...], tag: int) -> bytes | None:
    """The bytes of an element's value; None if it is not there."""
    return next((content[element.value : element.stop] for element in elements if element.tag == tag), None)


def even(value: bytes, padding: bytes) -> bytes:
    """A value of even length, as DICOM asks for."""
    return value + padding if len(value) % 2 else value
