"""DICOM pixels that are places in a palette, YBR, or swapped pairs of bytes, brought into RGB or grey in plain order."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from monai_salm.formats.base import require
from monai_salm.formats.dicom.elements import Element, Encoding, assembled, element_bytes, even, value_of
from monai_salm.formats.dicom.pixels import (
    ALLOCATED,
    HIGH_BIT,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    SAMPLES,
    SIGNED,
    STORED,
    YBR,
    PixelLayout,
    parse_layout,
    text,
)
from monai_salm.shared.arrays import Array

PIXELS = 0x7FE00010
_DESCRIPTORS, _TABLES, _SEGMENTS = 0x00281101, 0x00281201, 0x00281221
# What says something of the places in a palette, or of how they are looked up.
_OF_PALETTES = (
    0x00280106, 0x00280107, 0x00280120, 0x00280121, 0x00281199,
    *(base + colour for base in (_DESCRIPTORS, _TABLES, _SEGMENTS) for colour in range(4)),
)  # fmt: skip


def is_coloured(photometric: str) -> bool:
    """Whether pixels are written as RGB that are stored in another way."""
    return photometric == PALETTE or photometric in YBR


def needs_conversion(content: bytes, elements: tuple[Element, ...], encoding: Encoding) -> bool:
    """Whether uncompressed pixels are stored in a form that noise cannot be added to."""
    if is_coloured(text(value_of(content, elements, PHOTOMETRIC))):
        return True
    return _has_swapped_pairs(content, elements, encoding)


def converted(content: bytes, elements: tuple[Element, ...], encoding: Encoding, start: int) -> bytes:
    """An uncompressed file, its data set at ``start``, with pixels as RGB, pixel by pixel, or grey in plain order; or ValueError."""
    layout = parse_layout(lambda tag: value_of(content, elements, tag), encoding.order)
    stored, photometric = _cells(content, elements, encoding, layout), text(value_of(content, elements, PHOTOMETRIC))
    parts: dict[int, bytes] = {}
    if is_coloured(photometric):
        image = layout.image(stored)
        if photometric == PALETTE:
            image = _looked_up(image, content[start:], encoding)
            parts = {element.tag: b"" for element in elements if element.tag in _OF_PALETTES}
        else:
            image = np.moveaxis(rgb(np.moveaxis(image, 0, -1), photometric), -1, 0)
        stored = _pixel_by_pixel(image, encoding)
        parts |= _rgb_elements(image.dtype.itemsize * 8, encoding)
        layout = replace(layout, allocated=image.dtype.itemsize * 8)
    vr = b"OB" if layout.allocated == 8 and encoding.explicit else b"OW"
    parts[PIXELS] = element_bytes(PIXELS, vr, even(stored, b"\0"), encoding)
    return content[:start] + assembled(content, elements, parts, encoding)


def _cells(content: bytes, elements: tuple[Element, ...], encoding: Encoding, layout: PixelLayout) -> bytes:
    """The bytes of the voxels in plain order, every pixel with all its samples."""
    pixels = next(element for element in elements if element.tag == PIXELS)
    stored = content[pixels.value : pixels.stop]
    halved = text(value_of(content, elements, PHOTOMETRIC)) == "YBR_FULL_422"
    needed = layout.size // 3 * 2 if halved else layout.size
    if pixels.undefined or len(stored) < needed:
        raise ValueError(
            f"its header declares {needed} bytes of pixels, but it holds {len(stored)}; it is cut off or damaged"
        )
    if _has_swapped_pairs(content, elements, encoding):
        stored = np.frombuffer(stored[: len(stored) // 2 * 2], "u2").byteswap().tobytes()
    if halved:
        stored = require("pydicom.pixels.utils", "dicom", "DICOM").expand_ybr422(stored[:needed], layout.allocated)
    return stored[: layout.size]


def rgb(pixels: Array, photometric: str) -> Array:
    """Pixels ``(..., 3)`` of 8 bits as RGB; anything but YBR is returned as it is. ValueError if they have more bits."""
    if photometric not in YBR:
        return pixels
    if pixels.dtype != np.uint8:
        raise ValueError(f"its pixels are {photometric} of {pixels.dtype.name}, which is not 8 bits; convert it to RGB")
    known = "YBR_FULL" if photometric.startswith("YBR_FULL") else photometric
    try:
        found: Array = require("pydicom.pixels", "dicom", "DICOM").convert_color_space(pixels, known, "RGB")
    except NotImplementedError as error:
        raise ValueError(f"its pixels are {photometric} and not compressed; convert it to RGB") from error
    return found


def _has_swapped_pairs(content: bytes, elements: tuple[Element, ...], encoding: Encoding) -> bool:
    """Whether pixels of 8 bits stand in words of big-endian order."""
    allocated = value_of(content, elements, ALLOCATED)
    pixels = next(element for element in elements if element.tag == PIXELS)
    return encoding.order == ">" and allocated == b"\0\x08" and pixels.vr == b"OW"


def _rgb_elements(bits: int, encoding: Encoding) -> dict[int, bytes]:
    """The elements that say that pixels are RGB of so many bits, pixel by pixel."""
    numbers = {SAMPLES: 3, PLANAR: 0, ALLOCATED: bits, STORED: bits, HIGH_BIT: bits - 1, SIGNED: 0}
    parts = {
        tag: element_bytes(tag, b"US", number.to_bytes(2, "little" if encoding.order == "<" else "big"), encoding)
        for tag, number in numbers.items()
    }
    return parts | {PHOTOMETRIC: element_bytes(PHOTOMETRIC, b"CS", b"RGB ", encoding)}


def _pixel_by_pixel(image: Array, encoding: Encoding) -> bytes:
    """The bytes of an image ``(3, rows, columns[, frames])``."""
    frames = image[None] if image.ndim == 3 else np.moveaxis(image, -1, 0)
    return np.moveaxis(frames, 1, -1).astype(image.dtype.newbyteorder("<" if encoding.order == "<" else ">")).tobytes()


def _looked_up(places: Array, data_set: bytes, encoding: Encoding) -> Array:
    """The colours ``(3, rows, columns[, frames])`` of places ``(1, rows, columns[, frames])`` (PS3.3 C.7.6.3.1.5)."""
    try:
        data = require("pydicom.filereader", "dicom", "DICOM").read_dataset(io.BytesIO(data_set), *encoding.flags)
        data.file_meta = require("pydicom.dataset", "dicom", "DICOM").FileMetaDataset()
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if encoding.order == "<" else "1.2.840.10008.1.2.2"
        count, first, bits = (int(part) for part in data.RedPaletteColorLookupTableDescriptor)
        for name in ("Red", "Green", "Blue"):
            setattr(data, f"{name}PaletteColorLookupTableDescriptor", [count, 0, bits])
            stored = data.get(f"{name}PaletteColorLookupTableData")
            if bits == 8 and encoding.order == ">" and stored and len(stored) < 2 * count:  # pairs in words
                setattr(data, f"{name}PaletteColorLookupTableData", np.frombuffer(stored, "u2").byteswap().tobytes())
        every = np.arange(count or 1 << 16)
        table = require("pydicom.pixels", "dicom", "DICOM").apply_color_lut(every, data)[:, :3].T
    # pydicom raises what it meets in a damaged palette.
    except Exception as error:
        raise ValueError(f"its palette is missing or damaged ({error}); convert it to RGB") from error
    if places.dtype.kind == "i" and first >= 1 << 15:
        first -= 1 << 16
    # A table of 16 bits is often one of 8 bits, shifted or repeated.
    if bits == 16 and (not (table & 255).any() or (table >> 8 == table & 255).all()):
        table = table >> 8
        bits = 8
    colours: Array = table.astype(np.uint8 if bits == 8 else np.uint16)
    return colours[:, np.clip(places[0].astype(np.int64) - first, 0, colours.shape[1] - 1)]
