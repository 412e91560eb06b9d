"""Deflated data sets and compressed pixels of DICOM files, brought into native form."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np

from monai_salm.formats.base import require
from monai_salm.formats.dicom.colours import PIXELS, rgb
from monai_salm.formats.dicom.elements import Element, Encoding, assembled, element_bytes, even, value_of
from monai_salm.formats.dicom.headers import data_start
from monai_salm.formats.dicom.pixels import PHOTOMETRIC, PLANAR, YBR, PixelLayout, parse_layout
from monai_salm.formats.limits import (
    MAX_RATIO,
    declared_pixels,
    inflated_size,
    max_image_bytes,
    require_claim,
    require_size,
)

SYNTAX = 0x00020010
FILE_META = Encoding(True)
IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
#: Transfer syntaxes whose pixels are not compressed.
NATIVE = {
    IMPLICIT: Encoding(False),
    EXPLICIT: FILE_META,
    DEFLATED: FILE_META,
    "1.2.840.10008.1.2.2": Encoding(True, ">"),
}
_EXTENDED = "1.2.840.10008.1.2.4.51"
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
# Deflated data sets that cannot be larger need not be counted before memory is taken.
_SMALL = 1 << 26
_RLE = "1.2.840.10008.1.2.5"
_HEADER = struct.Struct("<16I")
# Two bytes of RLE give at most 128; frames that cannot be larger are not counted.
_RATIO = 64
# What holds next to nothing is packed more tightly than this.
_TIGHT = 48


def inflated(data: bytes) -> bytes:
    """A deflated data set as it was; ValueError if it is damaged, or larger than any real one."""
    inflate = zlib.decompressobj(-15)
    try:
        if MAX_RATIO * len(data) > _SMALL:
            require_size(inflated_size(data, -15, max_image_bytes()), len(data))
        plain = inflate.decompress(data, MAX_RATIO * len(data) + 1)
    except zlib.error as error:
        raise ValueError(f"its deflated data set is damaged ({error}); get it again from its source") from error
    if not inflate.eof:
        raise ValueError("its deflated data set is cut off; get it again from its source")
    return plain


def decoded(
    content: bytes, syntax: str, meta: tuple[Element, ...], elements: tuple[Element, ...], encoding: Encoding
) -> bytes:
    """The file with its compressed pixels decoded, in Little Endian; YBR becomes RGB. ValueError if no decoder here can read them."""
    layout = parse_layout(lambda tag: value_of(content, elements, tag), "<")
    require_claim(layout.size, len(content))
    _check_frames(content, elements, layout, syntax)
    array, photometric = _decode(content, syntax)
    array, photometric = rgb(array, photometric), "RGB" if photometric in YBR else photometric
    samples = layout.samples
    if array.size * array.dtype.itemsize != layout.size or array.dtype.itemsize * 8 != layout.allocated:
        raise ValueError(f"its pixels decode to {array.dtype.name} {array.shape}, not what its header declares")
    cells = even(array.astype(array.dtype.newbyteorder("<")).tobytes(), b"\0")
    parts = {
        PHOTOMETRIC: element_bytes(PHOTOMETRIC, b"CS", even(photometric.encode(), b" "), encoding),
        PIXELS: element_bytes(PIXELS, b"OB" if layout.allocated == 8 else b"OW", cells, encoding),
        **dict.fromkeys(_OFFSET_TABLES, b""),
    }
    if samples > 1:
        parts[PLANAR] = element_bytes(PLANAR, b"US", b"\0\0", encoding)
    plain = {
        SYNTAX: element_bytes(
            SYNTAX, b"UI", even((EXPLICIT if encoding.explicit else IMPLICIT).encode(), b"\0"), FILE_META
        )
    }
    return assembled(content, meta, plain, FILE_META, data_start(content)) + assembled(
        content, elements, parts, encoding
    )


def _check_frames(content: bytes, elements: tuple[Element, ...], layout: PixelLayout, syntax: str) -> None:
    """Refuse, with a ValueError, compressed frames that unpack to more than the header of the file declares."""
    pixels, stored = layout.rows * layout.columns, value_of(content, elements, PIXELS) or b""
    needed = pixels * layout.samples * layout.allocated // 8
    if syntax == _RLE:
        require_size(layout.size, len(stored), tight=_TIGHT)
    for frame in _frames(stored, layout.frames):
        found = declared_pixels(frame)
        if found is not None and found > pixels:
            raise ValueError(
                f"a compressed frame declares {found:,} pixels, its header {pixels:,}; it is damaged, get it again from its source"
            )
        if syntax == _RLE and len(frame) * _RATIO > _SMALL and _rle_size(frame, 2 * needed) > 2 * needed:
            raise ValueError(
                f"a compressed frame holds more than twice the {needed:,} bytes that its header declares; it is damaged, get it "
                "again from its source"
            )


def _frames(stored: bytes, count: int) -> Iterator[bytes]:
    """The frames; what pydicom raises on damage is left to the decoder, which meets it again."""
    try:
        yield from require("pydicom.encaps", "dicom", "DICOM").generate_frames(stored, number_of_frames=count)
    except Exception:
        return


def _rle_size(frame: bytes, most: int) -> int:
    """Bytes that a frame of RLE unpacks to (PS3.5 annex G), counted as far as ``most``."""
    if len(frame) < _HEADER.size:
        return 0
    count, size = _HEADER.unpack_from(frame)[0], 0
    places = [*_HEADER.unpack_from(frame)[1 : min(count, 15) + 1], len(frame)]
    for start, stop in pairwise(places):
        place = start
        while place < min(stop, len(frame)) and size <= most:
            code = frame[place]
            size += 257 - code if code > 128 else code + 1 if code < 128 else 0
            place += 2 if code > 128 else code + 2 if code < 128 else 1
    return size


def _decode(content: bytes, syntax: str) -> tuple[np.ndarray[Any, Any], str]:
    """The pixels as stored, and their colours."""
    pydicom = require("pydicom", "dicom", "DICOM")
    pixels = require("pydicom.pixels", "dicom", "DICOM")
    try:
        # Warnings are about other elements.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            array, info = _first_decoded(pixels.get_decoder(syntax), dataset, syntax)
    # Decoders raise what they like on damaged data; those written in Rust panic with what is no Exception.
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        why = " ".join(str(error).split())
        raise ValueError(
            f"its compressed pixels (transfer syntax {syntax}) cannot be decoded ({why}); decompress it first, or install "
            "the decoders: pip install 'monai_salm[dicom]'"
        ) from error
    return array, str(info["photometric_interpretation"])


def _first_decoded(decoder: Any, dataset: Any, syntax: str) -> tuple[np.ndarray[Any, Any], Any]:
    """What the first decoder gives that can read the pixels.

    GDCM ends the process where JPEG is damaged. It is asked where no other decoder is, and for JPEG of 12 bits.
    """
    plugins = sorted(decoder.available_plugins, key=lambda name: bool(name == "gdcm"))
    plugins = plugins if syntax == _EXTENDED else [name for name in plugins if name != "gdcm"] or plugins
    for name in plugins[:-1]:
        with suppress(Exception):
            found: tuple[np.ndarray[Any, Any], Any] = decoder.as_array(dataset, raw=True, decoding_plugin=name)
            return found
    last: tuple[np.ndarray[Any, Any], Any] = decoder.as_array(
        dataset, raw=True, decoding_plugin=plugins[-1] if plugins else ""
    )
    return last
