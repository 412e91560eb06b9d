"""TIFF without compression: strips and tiles are patched in place, every other byte of the file stays."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_salm.formats.base import FormatError, ImageFormat, Opened, require
from monai_salm.formats.limits import declared_pixels, inflated_size, read_file, require_claim, require_size
from monai_salm.formats.tiff_beside import check_beside
from monai_salm.shared.arrays import Array

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
_MAX_PAGES = 1 << 16
_PHOTOMETRIC = ("MINISWHITE", "MINISBLACK", "RGB")
# Colours that are written as RGB, and how Pillow calls those of several samples.
_CONVERTED = {"PALETTE": "", "SEPARATED": "CMYK", "YCBCR": "YCbCr"}
# Compressions that decoders undo without asking how much there is: deflate, JPEG and JPEG 2000.
_DEFLATE, _JPEG = (8, 32946), (6, 7, 33003, 33004, 33005, 34712)
# Orientation and colour profile, which a compressed file keeps beside description and resolution.
_KEPT = (274, 34675)


@dataclass(frozen=True)
class _Piece:
    """One strip or tile: where it stands in the file, its stored shape, and which part of a page it holds.

    Strips and tiles are ``(rows, columns, samples)``; a tile may reach over the edge of the page.
    """

    offset: int
    stored: tuple[int, int, int]
    row: int
    column: int
    sample: int
    valid: tuple[int, int]


@dataclass(frozen=True)
class _Tiff(Opened):
    """A parsed file: the pages' common shape ``(h, w, samples)`` without alpha, type, and the pieces of each page."""

    content: bytearray
    page: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    pages: Sequence[Sequence[_Piece]]
    whole: bytes | None = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        height, width, samples = self.page
        return (samples, height, width) if len(self.pages) == 1 else (samples, height, width, len(self.pages))

    def parts(self) -> Iterator[tuple[Array, tuple[int | slice, ...]]]:
        """Every piece as an array ``(samples, rows, columns)`` in the content's memory, and its place in the image."""
        for number, pieces in enumerate(self.pages):
            for piece in pieces:
                stored = np.ndarray(piece.stored, self.dtype, buffer=self.content, offset=piece.offset)
                rows, columns = piece.valid
                colours = min(piece.stored[2], self.page[2] - piece.sample)
                if colours < 1:  # a plane of alpha
                    continue
                place = (
                    slice(piece.sample, piece.sample + colours),
                    slice(piece.row, piece.row + rows),
                    slice(piece.column, piece.column + columns),
                )
                page = () if len(self.pages) == 1 else (number,)
                yield np.moveaxis(stored[:rows, :columns, :colours], -1, 0), place + page

    def image(self) -> Array:
        image = np.empty(self.shape, self.dtype.newbyteorder("="))
        for stored, place in self.parts():
            image[place] = stored
        return image

    def files(self, image: Array) -> dict[str, bytearray]:
        for stored, place in self.parts():
            stored[...] = image[place]
        return {"": self.content}

    def frame(self) -> bytes:
        content = bytes(self.content)
        for stored, _ in self.parts():
            stored[...] = 0
        frame = hashlib.sha256(self.content).digest()
        self.content[:] = content
        return frame


class Tiff(ImageFormat):
    """``.tif`` and ``.tiff``: integers of 8 to 64 bits and floats, grey and RGB, strips or tiles.

    Images are ``(1, h, w)``, ``(3, h, w)``, or for several pages of one kind ``(1 or 3, h, w, pages)``. Alpha is kept and never
    part of the image. A compressed file is written plain, with the tags that readers go by: noisy strips are larger than the
    original ones, every offset in the file would move, and offsets inside private tags cannot be found. Palettes, CMYK and YCbCr
    become RGB, and fewer than 8 bits become 8. ``keepsake`` is the whole file then. Needs tifffile, the extra ``tiff``.
    """

    name = "tiff"
    suffixes = (".tif", ".tiff")
    pictures = True
    converts = True

    def open(self, path: Path) -> _Tiff:
        tifffile = require("tifffile", "tiff", "TIFF")
        content = bytearray(read_file(path))
        try:
            with tifffile.TiffFile(io.BytesIO(content)) as tiff:
                pages = list(tiff.pages)
                if not any(_is_converted(page) for page in pages):
                    return _parse(tiff, content)
                plain = bytearray(_plain(tifffile, tiff, pages, len(content)))
            with tifffile.TiffFile(io.BytesIO(plain)) as tiff:
                return replace(_parse(tiff, plain), whole=bytes(content))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        # What tifffile raises on a damaged file is of many kinds.
        except Exception as error:
            raise FormatError(
                f"{path}: not a whole TIFF file ({type(error).__name__}: {error}); get it again"
            ) from error


def _plain(tifffile: Any, tiff: Any, pages: Sequence[Any], size: int) -> bytes:
    """The same pages without compression, with the tags that readers go by."""
    _check_alone(tiff, pages)
    first, kind = pages[0], _named(pages[0].photometric)
    declared = sum(int(page.size) * np.dtype(page.dtype or "u1").itemsize for page in pages)
    require_claim(declared, size)
    if kind == "PALETTE":
        require_size(3 * declared, size)
    for page in pages:
        _check_segments(tiff.filehandle, page)
    if kind not in (*_PHOTOMETRIC, *_CONVERTED):
        raise FormatError(f"its colours are {kind}, whose numbers are no intensities; convert it to grey or RGB")
    extra = [] if kind in _CONVERTED else [int(sample) for sample in first.extrasamples]
    separate = int(first.planarconfig) == 2 and first.samplesperpixel > 1 and kind not in _CONVERTED
    tags = [
        (code, first.tags[code].dtype, first.tags[code].count, first.tags[code].value)
        for code in _KEPT
        if code in first.tags
    ]
    options = {
        "photometric": "rgb" if kind in _CONVERTED else kind.lower(),
        "planarconfig": "separate" if separate else "contig" if extra else None,
        "extrasamples": extra or None,
        "description": first.description or None,
        "metadata": None,
        "software": False,
        "extratags": [(code, int(kind), count, value, True) for code, kind, count, value in tags],
    }
    if {282, 283} <= set(first.tags.keys()) and all(first.tags[code].value[1] for code in (282, 283)):
        options["resolution"] = tuple(first.tags[code].value[0] / first.tags[code].value[1] for code in (282, 283))
        options["resolutionunit"] = int(first.tags[296].value) if 296 in first.tags else 2
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=tiff.byteorder) as writer:
        for page in pages:
            writer.write(_intensities(page), contiguous=False, **options)
    return buffer.getvalue()


def _check_segments(file: Any, page: Any) -> None:
    """Refuse strips and tiles that unpack to more than the header declares, which decoders would take memory for."""
    rows = int(page.tilelength) if page.is_tiled else min(int(page.rowsperstrip), int(page.imagelength))
    columns = int(page.tilewidth) if page.is_tiled else int(page.imagewidth)
    size = rows * columns * int(page.samplesperpixel) * int(page.bitspersample) // 8 + rows
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        packed_by = int(page.compression)
        if packed_by not in (*_DEFLATE, *_JPEG):
            continue
        file.seek(offset)
        content = file.read(count)
        found = declared_pixels(content) if packed_by in _JPEG else None
        if found is not None and found > rows * columns:
            raise FormatError(
                f"a strip or tile declares {found:,} pixels, its header {rows * columns:,}; it is damaged"
            )
        if packed_by in _DEFLATE and inflated_size(content, zlib.MAX_WBITS, size) > size:
            raise FormatError(
                f"a strip or tile holds more than the {size:,} bytes that its header declares; it is damaged"
            )


def _is_converted(page: Any) -> bool:
    """Whether a page is written in another form than it has."""
    return int(page.compression) != 1 or _named(page.photometric) in _CONVERTED or page.bitspersample in (1, 2, 4)


def _intensities(page: Any) -> Array:
    """The pixels of a page: ``(h, w)``, ``(h, w, samples)`` or ``(samples, h, w)``, grey or RGB of whole bytes."""
    array: Array = page.asarray()
    kind, packed_by = _named(page.photometric), int(page.compression)
    if kind == "PALETTE":
        table = np.asarray(page.colormap)
        if not (table & 255).any() or (table >> 8 == table & 255).all():  # a table of 8 bits, shifted or repeated
            table = (table >> 8).astype(np.uint8)
        return np.moveaxis(table[:, array], 0, -1)
    if kind in _CONVERTED and not (kind == "YCBCR" and packed_by != 1):  # tifffile decodes JPEG to RGB
        samples = array if int(page.planarconfig) == 1 else np.moveaxis(array, 0, -1)
        if samples.dtype != np.uint8 or samples.shape[2:] != ({"CMYK": 4}.get(_CONVERTED[kind], 3),):
            raise FormatError(f"its colours are {kind} of shape {samples.shape}; convert it to grey or RGB")
        height, width = samples.shape[:2]
        return np.asarray(Image.frombytes(_CONVERTED[kind], (width, height), samples.tobytes()).convert("RGB"))
    if page.bitspersample in (1, 2, 4):
        return array.astype(np.uint8) * np.uint8(255 // (2**page.bitspersample - 1))
    return array


def _parse(tiff: Any, content: bytearray) -> _Tiff:
    pages = list(tiff.pages)
    if not pages or len(pages) > _MAX_PAGES:
        raise FormatError(f"it has {len(pages)} pages")
    _check_alone(tiff, pages)
    for page in pages:
        _check_page(page)
    first = pages[0]
    dtype = np.dtype(first.dtype).newbyteorder(tiff.byteorder)
    shape = (int(first.imagelength), int(first.imagewidth), int(first.samplesperpixel))
    pieces = [_pieces(page, shape, dtype.itemsize, len(content)) for page in pages]
    shape = (*shape[:2], shape[2] - len(first.extrasamples))
    size = dtype.itemsize
    places = [(piece.offset, piece.offset + int(np.prod(piece.stored)) * size) for page in pieces for piece in page]
    check_beside(tiff, pages, places, content)
    return _Tiff(content, shape, dtype, pieces)


def _check_alone(tiff: Any, pages: Sequence[Any]) -> None:
    """Refuse files in which the pages are not all of one kind, or not all there is."""
    for page in pages:
        same = all(
            getattr(page, name) == getattr(pages[0], name)
            for name in ("imagewidth", "imagelength", "samplesperpixel", "dtype", "photometric", "planarconfig")
        )
        if not same or page.is_reduced or page.is_mask or page.subifds:
            raise FormatError(
                "its pages are of different kinds (a pyramid, thumbnail or mask, perhaps), and noise in one would leave the "
                "image bare in another; save the full image alone"
            )
    declared = 1
    if tiff.is_imagej:
        declared = int((tiff.imagej_metadata or {}).get("images", 1))
    elif pages[0].is_shaped and pages[0].description.startswith("{"):
        whole, page_size = json.loads(pages[0].description).get("shape", []), np.prod(pages[0].shape, dtype=object)
        declared = int(np.prod(whole, dtype=object) // max(1, page_size))
    if declared > len(pages):
        raise FormatError(f"it holds {declared} pages behind {len(pages)} headers; save it with a header for each page")


def _check_page(page: Any) -> None:
    photometric = _named(page.photometric)
    if photometric not in _PHOTOMETRIC:
        raise FormatError(f"its colours are {photometric}, whose numbers are no intensities; convert it to grey or RGB")
    extra = len(page.extrasamples)
    if extra > 1 or int(page.samplesperpixel) - extra != (3 if photometric == "RGB" else 1):
        raise FormatError(f"it has {page.samplesperpixel} samples a pixel; store grey or RGB, with or without alpha")
    if page.dtype is None or np.dtype(page.dtype).name not in _TYPES:
        raise FormatError(f"its {page.bitspersample}-bit samples are not supported; store 8, 16 or 32 bits, or floats")
    if page.bitspersample != 8 * np.dtype(page.dtype).itemsize or int(page.fillorder) != 1:
        raise FormatError("its samples are packed bit by bit or in reversed bits; store whole bytes")
    if int(page.imagedepth) != 1:
        raise FormatError("its pages have a depth; store one slice a page")


def _named(value: Any) -> str:
    return str(getattr(value, "name", value))


def _pieces(page: Any, shape: tuple[int, int, int], itemsize: int, size: int) -> list[_Piece]:
    """Where the strips or tiles of a page are; each must lie in the file and be as long as it should."""
    height, width, samples = shape
    separate = samples > 1 and int(page.planarconfig) == 2
    depth, planes = (1, samples) if separate else (samples, 1)
    rows = int(page.tilelength) if page.is_tiled else min(int(page.rowsperstrip), height)
    columns = int(page.tilewidth) if page.is_tiled else width
    if min(height, width, samples, rows, columns) < 1:
        raise FormatError(f"its header declares shape {shape} in pieces of {rows} x {columns}; it is damaged")
    expected = planes * -(-height // rows) * -(-width // columns)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) != expected or len(counts) != expected:
        raise FormatError(f"it has {len(offsets)} strips or tiles, but its header declares {expected}; it is damaged")
    places = ((p, r, c) for p in range(planes) for r in range(0, height, rows) for c in range(0, width, columns))
    pieces = []
    for (plane, row, column), offset, count in zip(places, offsets, counts, strict=True):
        valid = (min(rows, height - row), min(columns, width - column))
        stored = (rows if page.is_tiled else valid[0], columns, depth)
        needed = stored[0] * stored[1] * depth * itemsize
        if count < needed or offset < 8 or offset + needed > size:
            raise FormatError(
                f"a strip or tile at byte {offset} needs {needed} bytes, more than is there; it is cut off"
            )
        pieces.append(_Piece(int(offset), stored, row, column, plane, valid))
    return pieces
