"""Deflated data sets and compressed pixels of DICOM files, brought into native form."""

from __future__ import annotations

import io
import warnings
import zlib
from contextlib import suppress
from typing import Any

import numpy as np

from monai_salm.formats.base import require
from monai_salm.formats.dicom.colours import PIXELS, rgb
from monai_salm.formats.dicom.elements import Element, Encoding, assembled, element_bytes, even, value_of
from monai_salm.formats.dicom.headers import data_start
from monai_salm.formats.dicom.pixels import PHOTOMETRIC, PLANAR, YBR, parse_layout
from monai_salm.formats.dicom.streams import check_frames
from monai_salm.formats.limits import MAX_RATIO, inflated_size, max_image_bytes, require_claim, require_size

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


def inflated(data: bytes) -> bytes:
    """A deflated data set as it was.

    Raises:
        ValueError: if it is damaged, or larger than any real one.
    """
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
    """The file with its compressed pixels decoded, in Little Endian; YBR becomes RGB.

    Args:
        content: the file.
        syntax: its transfer syntax.
        meta: the elements of the file meta information.
        elements: those of the data set.
        encoding: of the data set.

    Raises:
        ValueError: if no decoder here can read them.
    """
    layout = parse_layout(lambda tag: value_of(content, elements, tag), "<")
    require_claim(layout.size, len(content))
    check_frames(content, elements, layout, syntax)
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
