"""The data elements of a DICOM file as byte ranges, so that some can be changed and all others keep their bytes.

Only what is needed for that is understood: tags, value representations, lengths, sequences and items (DICOM PS3.5, 7).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from monai_salm.formats.base import require

#: Representations whose explicit header has a length of four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# Deeper than any real file; a hostile one must not exhaust the stack.
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Encoding:
    """How elements are written: with or without their representation, and in which byte order."""

    explicit: bool
    order: str = "<"


@dataclass(frozen=True)
class Element:
    """Where an element stands.

    Args:
        tag: group and element number as one.
        vr: its representation; empty where the encoding leaves it out.
        start: of its tag.
        value: of its value.
        stop: of its value; for an undefined length, of the delimiter.
        end: of the element, delimiter included.
        undefined: whether its length is left to a delimiter.
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


def walk(content: bytes, start: int, stop: int, encoding: Encoding, depth: int = 0) -> Iterator[Element]:
    """The elements of one level, in the order of the file.

    Args:
        content: the file.
        start: where the first element begins.
        stop: where the last one must have ended.
        encoding: of the elements.
        depth: how many sequences this is inside of.

    Raises:
        ValueError: if an element claims more bytes than there are, or is no element.
    """
    while start < stop:
        element = _element_at(content, start, stop, encoding, depth)
        yield element
        start = element.end


def _element_at(content: bytes, start: int, stop: int, encoding: Encoding, depth: int) -> Element:
    tag, vr, value, length = _header_at(content, start, stop, encoding)
    if length == _UNDEFINED:
        inner = Encoding(False) if vr == b"UN" else encoding
        end = _end_of_items(content, value, stop, inner, depth + 1)
        return Element(tag, vr, start, value, end - 8, end, True)
    if value + length > stop:
        raise ValueError(
            f"{tag_name(tag)} at byte {start} claims {length} bytes, more than the file holds; it is cut off"
        )
    return Element(tag, vr, start, value, value + length, value + length, False)


def _header_at(content: bytes, start: int, stop: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, representation, where the value starts, and its length."""
    if start + 8 > stop:
        raise ValueError(f"it ends at byte {stop} in the midst of an element; it is cut off")
    group, number = struct.unpack_from(f"{encoding.order}HH", content, start)
    tag = group << 16 | number
    if group == 0xFFFE or not encoding.explicit:
        return tag, b"", start + 8, struct.unpack_from(f"{encoding.order}I", content, start + 4)[0]
    vr = content[start + 4 : start + 6]
    if not (vr.isalpha() and vr.isupper()):
        raise ValueError(f"{tag_name(tag)} at byte {start} has no value representation ({vr!r}); the file is damaged")
    if vr not in _LONG:
        return tag, vr, start + 8, struct.unpack_from(f"{encoding.order}H", content, start + 6)[0]
    if start + 12 > stop:
        raise ValueError(f"it ends at byte {stop} in the midst of an element; it is cut off")
    return tag, vr, start + 12, struct.unpack_from(f"{encoding.order}I", content, start + 8)[0]


def items(content: bytes, start: int, stop: int, encoding: Encoding, depth: int = 0) -> Iterator[Element]:
    """The items of a sequence (or the fragments of compressed pixels), up to the delimiter or ``stop``."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"sequences are nested more than {_MAX_DEPTH} deep; the file is damaged")
    while start < stop:
        tag, _, value, length = _header_at(content, start, stop, replace(encoding, explicit=False))
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise ValueError(f"{tag_name(tag)} at byte {start} stands where an item should; the file is damaged")
        end = inner_end = value + length
        if length == _UNDEFINED:
            inner_end = _end_of_item(content, value, stop, encoding, depth)
            end = inner_end + 8
        if end > stop:
            raise ValueError(f"an item at byte {start} claims {length} bytes, more than there is; the file is cut off")
        yield Element(tag, b"", start, value, inner_end, end, length == _UNDEFINED)
        start = end


def _end_of_items(content: bytes, start: int, stop: int, encoding: Encoding, depth: int) -> int:
    """Where a sequence of undefined length ends, its delimiter included."""
    end = start
    for item in items(content, start, stop, encoding, depth):
        end = item.end
    if content[end : end + 4] != _tag_bytes(_SEQUENCE_END, encoding) or end + 8 > stop:
        raise ValueError(f"the sequence at byte {start} has no end; the file is cut off")
    return end + 8


def _end_of_item(content: bytes, start: int, stop: int, encoding: Encoding, depth: int) -> int:
    """Where the delimiter of an item of undefined length begins."""
    for element in walk(content, start, stop, encoding, depth):
        if element.tag == _ITEM_END:
            return element.start
    raise ValueError(f"the item at byte {start} has no end; the file is cut off")


def element_bytes(tag: int, vr: bytes, value: bytes, encoding: Encoding, undefined: bool = False) -> bytes:
    """An element as it stands in a file; the value has even length."""
    length = _UNDEFINED if undefined else len(value)
    head = _tag_bytes(tag, encoding)
    if not encoding.explicit or tag >> 16 == 0xFFFE:
        head += struct.pack(f"{encoding.order}I", length)
    elif vr in _LONG:
        head += vr + b"\0\0" + struct.pack(f"{encoding.order}I", length)
    else:
        head += vr + struct.pack(f"{encoding.order}H", length)
    return head + value


def _tag_bytes(tag: int, encoding: Encoding) -> bytes:
    return struct.pack(f"{encoding.order}HH", tag >> 16, tag & 0xFFFF)


def is_sequence(element: Element, encoding: Encoding) -> bool:
    """Whether an element holds items; without representations the DICOM dictionary says so."""
    if encoding.explicit and element.vr != b"UN":
        return element.vr == b"SQ"
    if element.undefined:
        return True
    datadict = require("pydicom.datadict", "dicom", "DICOM")
    return (
        not encoding.explicit
        and datadict.dictionary_has_tag(element.tag)
        and datadict.dictionary_VR(element.tag) == "SQ"
    )


#: Given an element that is no sequence and its value, the new value; None removes it.
Change = Callable[[Element, bytes], bytes | None]


def rewritten(content: bytes, element: Element, encoding: Encoding, change: Change, depth: int = 0) -> bytes:
    """An element with values changed wherever in it they stand; what no change reaches keeps its bytes.

    Args:
        content: the file.
        element: of a level that ``encoding`` applies to.
        encoding: of the element.
        change: what to change.
        depth: how many sequences the element is inside of.

    Returns:
        The element's bytes, none if it is removed.
    """
    stored = content[element.start : element.end]
    if not is_sequence(element, encoding):
        value = content[element.value : element.stop]
        new = change(element, value)
        if new is None:
            return b""
        return stored if new == value else element_bytes(element.tag, element.vr, new, encoding)
    if change(element, b"") is None:
        return b""
    inner = Encoding(False) if element.vr == b"UN" else encoding
    parts = []
    for item in items(content, element.value, element.stop, inner, depth + 1):
        below = b"".join(
            rewritten(content, child, inner, change, depth + 1)
            for child in walk(content, item.value, item.stop, inner, depth + 1)
        )
        if below == content[item.value : item.stop]:
            parts.append(content[item.start : item.end])
        else:
            parts.append(element_bytes(_ITEM, b"", below, inner, item.undefined))
            if item.undefined:
                parts.append(element_bytes(_ITEM_END, b"", b"", inner))
    joined = b"".join(parts)
    if joined == content[element.value : element.stop]:
        return stored
    if element.undefined:
        joined += element_bytes(_SEQUENCE_END, b"", b"", inner)
    return element_bytes(element.tag, element.vr, joined, encoding, element.undefined)


def _with_group_lengths(parts: Mapping[int, tuple[bytes, bytes]], encoding: Encoding) -> bytes:
    """Elements one after the other, with the lengths of groups that grew or shrank put right.

    Args:
        parts: tag -> the element's old and new bytes, in the order of the file.
        encoding: of the elements.
    """
    grown: dict[int, int] = {}
    for tag, (old, new) in parts.items():
        grown[tag >> 16] = grown.get(tag >> 16, 0) + len(new) - len(old)
    written = []
    for tag, (_, new) in parts.items():
        if tag & 0xFFFF == 0 and len(new) >= 12 and grown[tag >> 16]:
            length = struct.unpack(f"{encoding.order}I", new[-4:])[0] + grown[tag >> 16]
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
    """The elements one after the other, some replaced by other bytes; new ones stand where their tag puts them.

    Args:
        content: the file.
        elements: of one level.
        parts: tag -> the new element; without bytes it is left out. One that the file does not have is added, but not to
            the file meta information.
        encoding: of the elements.
        start: for the file meta information, where it begins; what stands before is kept.
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
