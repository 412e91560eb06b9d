"""Pictures that cannot carry noise as they are stored, decoded into a plain PNG of the same pixels."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from monai_salm.formats.base import what_it_is
from monai_salm.formats.limits import require_size, webp_pixels
from monai_salm.formats.png_chunks import Chunk, pixel_data, png_file

# What Pillow may decode here. A picture is often called by the wrong suffix, so that the name does not choose.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "JPEG2000", "BMP", "PPM")
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ORIENTATION = 0x0112
# Chunks that say how a palette or another number of bits is meant.
_OF_STORAGE = (b"PLTE", b"tRNS", b"sBIT", b"hIST", b"bKGD")


def as_png(content: bytes, kept: list[Chunk] | None = None) -> bytes:
    """A picture as a PNG of 8 or 16 bits, grey or RGB, with alpha where the picture has transparency; ValueError if it has none.

    The colour profile, the resolution and the orientation of photographs are taken over. Thumbnails are not. Of a PNG the ``kept``
    chunks are taken over, less those that a palette needs.
    """
    try:
        require_size(4 * (webp_pixels(content) or 0), len(content))  # its decoder takes memory when the file is opened
        # Warnings are of sizes that Pillow finds suspicious and of elements beside the pixels.
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            warnings.simplefilter("ignore")
            require_size(math.prod(image.size) * (1 if image.mode in ("1", "L") else 4), len(content))
            pictures = getattr(image, "n_frames", 1)
            if pictures > 1 and image.format != "MPO":  # telephones append smaller pictures
                raise ValueError(f"it is animated, {pictures} pictures in one file; store one image a file")
            chunks = _chunks(image) if kept is None else [c for c in kept if c.kind not in _OF_STORAGE]
            return plain_png(_pixels(image), chunks)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"it declares more pixels than any picture ({error}); save an image of this size as TIFF"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            what_it_is(content) or "it is no picture of a known format; get the file again from its source"
        ) from error
    except (OSError, SyntaxError, struct.error, EOFError, IndexError) as error:
        raise ValueError(f"it cannot be decoded ({error}); get the file again from its source") from error


def places_in_palette(content: bytes) -> NDArray[np.uint8] | None:
    """The places in the palette of colours that a picture holds, ``(h, w)``; None without a palette, or for one of grey values.

    In label maps they are the numbers of the classes.
    """
    with suppress(UnidentifiedImageError), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        colours = np.array(image.getpalette() if image.mode == "P" else [], np.uint8).reshape(-1, 3)
        return np.asarray(image, np.uint8) if (colours != colours[:, :1]).any() else None
    return None


def plain_png(pixels: NDArray[np.generic], chunks: list[Chunk]) -> bytes:
    """A PNG of pixels ``(h, w, samples)`` of 8 or 16 bits; the last of two or four samples is alpha.

    ``chunks`` stand between header and pixels; of header, pixels and end only the places are looked at.
    """
    height, width, samples = pixels.shape
    depth = pixels.dtype.itemsize * 8
    own = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[samples], 0, 0, 0),
        b"IDAT": pixel_data(pixels),
        b"IEND": b"",
    }
    kinds = [chunk.kind for chunk in chunks]
    order = chunks if b"IDAT" in kinds else [Chunk(b"IHDR", b""), *chunks, Chunk(b"IDAT", b""), Chunk(b"IEND", b"")]
    written = [chunk for chunk in order if chunk.kind != b"IDAT" or chunk is _first(order, b"IDAT")]
    return png_file(Chunk(chunk.kind, own.get(chunk.kind, chunk.data)) for chunk in written)


def _first(chunks: list[Chunk], kind: bytes) -> Chunk:
    return next(chunk for chunk in chunks if chunk.kind == kind)


def _pixels(image: Image.Image) -> NDArray[np.generic]:
    """The pixels ``(h, w, samples)``."""
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA"):
        image = _without_palette(image)
    elif "transparency" in image.info and image.mode in ("L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    array = np.asarray(image)
    if array.dtype == np.int32 and array.size and array.min() >= 0 and array.max() < 1 << 16:
        array = array.astype(np.uint16)
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ValueError(f"its pixels are of the kind {image.mode!r}; save it as PNG or TIFF of 8 or 16 bits")
    return array.reshape(*array.shape[:2], -1)


def _without_palette(image: Image.Image) -> Image.Image:
    """The colours that the numbers stand for: grey where all that are used are grey."""
    image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    array = np.asarray(image)
    if (array[..., 0] != array[..., 1]).any() or (array[..., 0] != array[..., 2]).any():
        return image
    return image.convert("LA" if image.mode == "RGBA" else "L")


def _chunks(image: Image.Image) -> list[Chunk]:
    """What a picture says beside its pixels and readers go by, as chunks of a PNG."""
    found = Image.Exif()
    orientation = image.getexif().get(_ORIENTATION)
    chunks = []
    profile, dots = image.info.get("icc_profile"), image.info.get("dpi")
    if profile and image.mode in ("L", "RGB"):
        chunks.append(Chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dots and all(0 < float(part) < 1e6 for part in dots):
        chunks.append(Chunk(b"pHYs", struct.pack(">IIB", *(round(float(part) / 0.0254) for part in dots[:2]), 1)))
    if isinstance(orientation, int) and 1 < orientation <= 8:
        found[_ORIENTATION] = orientation
        chunks.append(Chunk(b"eXIf", found.tobytes().removeprefix(b"Exif\0\0")))
    return chunks
