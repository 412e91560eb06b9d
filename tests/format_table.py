"""What is read and what is refused, file by file, and the tables of it in docs/formats.md.

``python tests/format_table.py`` writes the tables anew; ``test_formats_table.py`` runs every line and holds the page to it.
"""

from __future__ import annotations

import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import png
import tifffile
from format_samples import (
    dicom_sequence,
    png_chunk,
    read_dicom,
    round_trip,
    save_by_itk,
    save_dicom,
    save_dicom_packed,
    save_dicom_palette,
    save_dicom_words,
    save_dicom_ybr,
    save_mgh,
    save_nifti,
    save_nifti_colours,
    save_npy,
    save_npz,
    save_nrrd_text,
    save_pair,
    save_picture,
    save_png,
    save_tiff,
    set_element,
    with_chunk,
)
from generated_pages import page_between
from PIL import Image

from monai_salm.formats import FormatError, format_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
BEGIN, END = "<!-- tables: python tests/format_table.py -->", "<!-- end of tables -->"
Make = Callable[[Path], Path]
# Files that are packed come back with the same content; whether also byte for byte, the library decides that packs.
PACKED = ("gz", "png", "npz", "deflated", "RLE", "JPEG 2000 lossless")
# What other libraries say, in brackets, changes with their versions.
FOREIGN = re.compile(r"(damaged gzip|is damaged|a whole TIFF file|an .npz archive) \(.*?\)")


@dataclass(frozen=True)
class Row:
    """A file: its format, what it is in words, its type, how to make it, whether the store keeps it whole."""

    format: str
    what: str
    dtype: str
    make: Make
    kept: bool = False

    @property
    def label(self) -> str:
        return f"{self.format}-{self.what}-{self.dtype}".replace(" ", "_")

    @property
    def is_packed(self) -> bool:
        return not self.kept and any(word in f"{self.format} {self.what}" for word in PACKED)


def _nifti() -> Iterator[Row]:
    types = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
    shapes = {"2D": (5, 4), "3D": (5, 4, 3), "4D": (5, 4, 3, 2), "5D, one time step": (5, 4, 3, 1, 2)}
    for what, shape in shapes.items():
        for dtype in types:
            yield Row("nifti", f"{what}, .nii.gz", dtype, lambda f, d=dtype, s=shape: save_nifti(f, d, s))
    for dtype in types:
        yield Row("nifti", "3D, .nii", dtype, lambda f, d=dtype: save_nifti(f, d, suffix=".nii"))
    for suffix in (".nii", ".nii.gz"):
        for version, order in ((1, ">"), (2, "<"), (2, ">")):
            what = f"3D, {suffix}, NIfTI-{version}, {'big' if order == '>' else 'little'}-endian"
            yield Row(
                "nifti",
                what,
                "int16",
                lambda f, s=suffix, v=version, o=order: save_nifti(f, suffix=s, version=v, order=o),
            )
        for scaling in ((2.5, -1024.0), (0.0, 0.0), (float("nan"), float("nan"))):
            what = f"3D, {suffix}, scl_slope {scaling[0]:g}, scl_inter {scaling[1]:g}"
            yield Row("nifti", what, "int16", lambda f, s=suffix, c=scaling: save_nifti(f, suffix=s, scaling=c))
        yield Row(
            "nifti",
            f"3D, {suffix}, bytes after the voxels",
            "int16",
            lambda f, s=suffix: save_nifti(f, suffix=s, tail=b"?"),
        )

    yield Row(
        "nifti",
        "3D, .nii.gz that is not packed",
        "int16",
        lambda f: _renamed(save_nifti(f, suffix=".nii"), "image.nii.gz"),
    )
    yield Row("nifti", "3D, .nii that is packed, gz", "int16", lambda f: _renamed(save_nifti(f), "image.nii"))
    yield Row(
        "nifti",
        "3D, .nii, extension of 900 bytes",
        "int16",
        lambda f: save_nifti(f, suffix=".nii", comment=b"<x/>" * 225),
    )
    yield Row(
        "nifti",
        "7D, further axes of 1, .nii",
        "int16",
        lambda f: save_nifti(f, shape=(5, 4, 3, 1, 1, 2, 1), suffix=".nii"),
    )
    yield Row("nifti", "3D, RGB24, .nii", "uint8", lambda f: save_nifti_colours(f, 3))
    yield Row("nifti", "3D, RGBA32, .nii", "uint8", lambda f: save_nifti_colours(f, 4))
    for dtype in types:
        yield Row("nifti_pair", "3D, .img with .hdr", dtype, lambda f, d=dtype: save_pair(f, d))
    yield Row("nifti_pair", "3D, .img with .hdr, NIfTI-2", "int16", lambda f: save_pair(f, kind=nibabel.Nifti2Pair))
    yield Row(
        "nifti_pair", "3D, .img with .hdr, Analyze 7.5", "int16", lambda f: save_pair(f, kind=nibabel.AnalyzeImage)
    )
    yield Row(
        "nifti_pair",
        "3D, .img with .hdr, SPM99",
        "float32",
        lambda f: save_pair(f, "float32", nibabel.Spm99AnalyzeImage),
    )
    yield Row("nifti_pair", "3D, .img.gz with .hdr.gz", "int16", lambda f: save_pair(f, suffix=".img.gz"))


def _volumes() -> Iterator[Row]:
    types = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
    for format_, suffix in (("nrrd", ".nrrd"), ("meta_image", ".mha")):
        for dtype in types:
            yield Row(format_, f"3D, {suffix}", dtype, lambda f, d=dtype, s=suffix: save_by_itk(f, f"image{s}", d))
            yield Row(
                format_,
                f"3D, {suffix}, packed, gz",
                dtype,
                lambda f, d=dtype, s=suffix: save_by_itk(f, f"image{s}", d, packed=True),
            )
            yield Row(
                format_, f"2D, {suffix}", dtype, lambda f, d=dtype, s=suffix: save_by_itk(f, f"image{s}", d, (5, 4))
            )
        yield Row(
            format_,
            f"3D, {suffix}, 3 channels",
            "float32",
            lambda f, s=suffix: save_by_itk(f, f"image{s}", "float32", channels=3),
        )
        yield Row(
            format_,
            f"2D, {suffix}, RGB",
            "uint8",
            lambda f, s=suffix: save_by_itk(f, f"image{s}", "uint8", (5, 4), channels=3),
        )
    yield Row("nrrd", "3D, .nhdr with .raw", "int16", lambda f: save_by_itk(f, "image.nhdr"))
    yield Row("nrrd", "3D, .nhdr with .raw.gz", "int16", lambda f: save_by_itk(f, "image.nhdr", packed=True))
    yield Row(
        "nrrd",
        "3D, big-endian",
        "int16",
        lambda f: save_nrrd_text(f, "type: short", "endian: big", data=bytes(range(120))),
    )
    yield Row(
        "nrrd",
        "2D, channels last",
        "uint8",
        lambda f: save_nrrd_text(f, "kinds: domain domain RGB-color", "sizes: 5 4 3"),
    )
    yield Row("meta_image", "3D, .mhd with .raw", "int16", lambda f: save_by_itk(f, "image.mhd"))
    yield Row("meta_image", "3D, .mhd with .zraw, gz", "int16", lambda f: save_by_itk(f, "image.mhd", packed=True))
    for dtype in ("uint8", "int16", "int32", "float32"):
        yield Row("mgh", "3D, .mgz", dtype, lambda f, d=dtype: save_mgh(f, d))
        yield Row("mgh", "3D, .mgh", dtype, lambda f, d=dtype: save_mgh(f, d, "image.mgh"))
    yield Row("mgh", "4D, .mgh", "float32", lambda f: save_mgh(f, "float32", "image.mgh", 2))


def _renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def _png() -> Iterator[Row]:
    for dtype in ("uint8", "uint16"):
        for channels, name in ((1, "grey"), (3, "RGB")):
            for alpha in (False, True):
                what = f"{name}{' with alpha' * alpha}"
                yield Row("png", what, dtype, lambda f, d=dtype, c=channels, a=alpha: save_png(f, d, c, a))
    extra = (
        png_chunk(b"tEXt", b"Comment\0kept"),
        png_chunk(b"pHYs", struct.pack(">IIB", 9, 9, 1)),
        png_chunk(b"prVt", b"x"),
    )
    yield Row(
        "png",
        "grey, other chunks, bytes after the end",
        "uint8",
        lambda f: with_chunk(save_png(f), *extra, tail=b"\r\n\0"),
    )
    yield Row("png", "grey, pixels in several chunks", "uint8", lambda f: save_png(f, shape=(50, 40), chunk_limit=100))
    for depth in (1, 2, 4):
        yield Row("png", f"grey, {depth} bits", "uint8", lambda f, d=depth: _bits(f, d), kept=True)
    yield Row("png", "palette", "uint8", lambda f: save_picture(f, "image.png", "P"), kept=True)
    yield Row("png", "palette of greys", "uint8", lambda f: _palette(f), kept=True)
    yield Row(
        "png",
        "palette, one colour transparent",
        "uint8",
        lambda f: save_picture(f, "image.png", "P", transparency=3),
        kept=True,
    )
    yield Row("png", "grey, interlaced", "uint8", lambda f: save_png(f, interlace=True), kept=True)
    yield Row("png", "RGB, interlaced", "uint8", lambda f: save_png(f, channels=3, interlace=True), kept=True)
    yield Row("png", "grey, interlaced", "uint16", lambda f: save_png(f, "uint16", interlace=True), kept=True)
    yield Row(
        "png",
        "grey, one colour transparent",
        "uint8",
        lambda f: with_chunk(save_png(f), png_chunk(b"tRNS", b"\0\1")),
        kept=True,
    )
    yield Row(
        "png", "a JPEG by the wrong name", "uint8", lambda f: save_picture(f, "image.png", format="JPEG"), kept=True
    )


def _pictures() -> Iterator[Row]:
    for mode in ("L", "RGB", "CMYK"):
        yield Row("jpeg", f"{mode}, becomes .png", "uint8", lambda f, m=mode: save_picture(f, mode=m), kept=True)
    photograph = Image.Exif()
    photograph[0x0112] = 6
    yield Row(
        "jpeg",
        "RGB of a camera, turned, progressive, becomes .png",
        "uint8",
        lambda f: save_picture(f, mode="RGB", exif=photograph, dpi=(300, 300), progressive=True),
        kept=True,
    )
    yield Row(
        "jpeg", "a PNG by the wrong name, becomes .png", "uint8", lambda f: save_picture(f, format="PNG"), kept=True
    )
    for mode in ("L", "RGB"):
        yield Row(
            "jpeg2000", f"{mode}, becomes .png", "uint8", lambda f, m=mode: save_picture(f, "image.jp2", m), kept=True
        )
    yield Row("webp", "RGB, becomes .png", "uint8", lambda f: save_picture(f, "image.webp", "RGB"), kept=True)
    for mode in ("L", "RGB", "P", "1"):
        yield Row("bmp", f"{mode}, becomes .png", "uint8", lambda f, m=mode: save_picture(f, "image.bmp", m), kept=True)
    for mode, suffix in (("L", ".pgm"), ("RGB", ".ppm"), ("1", ".pbm")):
        yield Row(
            "netpbm",
            f"{suffix}, becomes .png",
            "uint8",
            lambda f, m=mode, s=suffix: save_picture(f, f"image{s}", m),
            kept=True,
        )
    yield Row("gif", "grey, becomes .png", "uint8", lambda f: save_picture(f, "image.gif"), kept=True)
    yield Row("gif", "palette, becomes .png", "uint8", lambda f: save_picture(f, "image.gif", "P"), kept=True)


def _tiff() -> Iterator[Row]:
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    for dtype in ("uint8", "int8", "uint16", "int16", "float32"):
        yield Row("tiff", "grey", dtype, lambda f, d=dtype: save_tiff(f, d))
        yield Row("tiff", "grey pages", dtype, lambda f, d=dtype: save_tiff(f, d, (3, 33, 20)))
        yield Row("tiff", "RGB", dtype, lambda f, d=dtype: save_tiff(f, d, (33, 20, 3), photometric="rgb"))
    yield Row(
        "tiff",
        "RGB, plane by plane",
        "uint8",
        lambda f: save_tiff(f, shape=(3, 33, 20), **planes),
    )
    yield Row("tiff", "grey, big-endian", "uint16", lambda f: save_tiff(f, "uint16", byteorder=">"))
    yield Row("tiff", "grey, BigTIFF", "uint16", lambda f: save_tiff(f, "uint16", bigtiff=True))
    yield Row("tiff", "grey, strips of 8 rows", "uint16", lambda f: save_tiff(f, "uint16", rowsperstrip=8))
    yield Row("tiff", "grey, tiles", "uint16", lambda f: save_tiff(f, "uint16", tile=(16, 16)))
    yield Row(
        "tiff", "RGB, tiles", "uint8", lambda f: save_tiff(f, shape=(33, 20, 3), photometric="rgb", tile=(16, 16))
    )
    for dtype in ("uint32", "int32", "uint64", "int64", "float64"):
        yield Row("tiff", "grey", dtype, lambda f, d=dtype: save_tiff(f, d))
    for compression in ("lzw", "zlib", "packbits", "jpeg"):
        yield Row(
            "tiff",
            f"RGB, {compression}",
            "uint8",
            lambda f, c=compression: save_tiff(f, shape=(33, 20, 3), photometric="rgb", compression=c),
            kept=True,
        )
    yield Row(
        "tiff", "grey pages, LZW", "uint16", lambda f: save_tiff(f, "uint16", (3, 33, 20), compression="lzw"), kept=True
    )
    yield Row(
        "tiff",
        "grey, tiles, deflate with predictor",
        "uint16",
        lambda f: save_tiff(f, "uint16", tile=(16, 16), compression="zlib", predictor=True),
        kept=True,
    )
    for name, options in {
        "RGB with alpha": {},
        "RGB with alpha, plane by plane": {"shape": (4, 33, 20), "planarconfig": "separate"},
        "RGB with alpha, tiles": {"tile": (16, 16)},
    }.items():
        whole = {"shape": (33, 20, 4), "photometric": "rgb", "extrasamples": ["unassalpha"], **options}
        yield Row("tiff", name, "uint8", lambda f, o=whole: save_tiff(f, **o))
    grey = {"shape": (33, 20, 2), "photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    yield Row("tiff", "grey with alpha", "uint16", lambda f: save_tiff(f, "uint16", **grey))
    alpha = {"shape": (33, 20, 4), "photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "lzw"}
    yield Row("tiff", "RGB with alpha, LZW", "uint8", lambda f: save_tiff(f, **alpha), kept=True)
    yield Row("tiff", "RGB pages", "uint8", lambda f: save_tiff(f, shape=(2, 33, 20, 3), photometric="rgb"))
    for dtype, scale in (("uint8", 257), ("uint16", 250)):
        table = np.arange(256, dtype="uint16") * np.uint16(scale) * np.ones((3, 1), "uint16")
        options = {"photometric": "palette", "colormap": table}
        yield Row("tiff", "palette", dtype, lambda f, o=options: save_tiff(f, **o), kept=True)
    yield Row("tiff", "1 bit", "uint8", lambda f: _bilevel(f), kept=True)
    yield Row(
        "tiff",
        "1 bit, fax",
        "uint8",
        lambda f: save_picture(f, "image.tif", "1", compression="group4"),
        kept=True,
    )
    yield Row("tiff", "CMYK", "uint8", lambda f: save_picture(f, "image.tif", "CMYK"), kept=True)
    yield Row(
        "tiff", "CMYK, LZW", "uint8", lambda f: save_picture(f, "image.tif", "CMYK", compression="tiff_lzw"), kept=True
    )
    yield Row("tiff", "YCbCr", "uint8", lambda f: save_tiff(f, shape=(33, 20, 3), photometric="ycbcr"), kept=True)
    yield Row("tiff", "grey, white is zero", "uint8", lambda f: save_tiff(f, photometric="miniswhite"))


def _numpy() -> Iterator[Row]:
    for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
        yield Row("npy", "(h, w)", dtype, lambda f, d=dtype: save_npy(f, d, (5, 4)))
        yield Row("npy", "(x, y, z)", dtype, lambda f, d=dtype: save_npy(f, d))
        yield Row("npz", "(x, y, z), packed", dtype, lambda f, d=dtype: save_npz(f, d))
    yield Row("npy", "(h, w, 3)", "uint8", lambda f: save_npy(f, "uint8", (6, 5, 3)))
    yield Row("npy", "(3, h, w)", "uint8", lambda f: save_npy(f, "uint8", (3, 18, 17)))
    yield Row("npy", "(x, y, z), first axis fastest", "int16", lambda f: save_npy(f, shape=(6, 5, 4), order="F"))
    yield Row("npy", "(x, y, z), big-endian", "int16", lambda f: save_npy(f, ">i2", (6, 5, 4)))
    yield Row("npz", "(x, y, z), stored", "int16", lambda f: save_npz(f, packed=False))


def _dicom() -> Iterator[Row]:
    for syntax in ("implicit", "explicit", "big-endian", "deflated", "RLE", "JPEG 2000 lossless"):
        for bits, signed in ((8, False), (16, False), (16, True)):
            # Smaller ones JPEG 2000 does not take.
            options = {
                "syntax": syntax,
                "bits": bits,
                "signed": signed,
                "shape": (40, 36) if "JPEG" in syntax else (6, 5),
            }
            name = f"{'int' if signed else 'uint'}{bits}"
            yield Row("dicom", f"grey, {syntax}", name, lambda f, o=options: save_dicom(f, **o))
    for name, options in {
        "grey, 12 of 16 bits": {"stored": 12},
        "grey, white is zero": {"PhotometricInterpretation": "MONOCHROME1"},
        "grey, 7 frames": {"shape": (7, 6, 5)},
        "grey, one frame declared": {"shape": (1, 6, 5)},
        "grey, with overlay and icon": {
            "IconImageSequence": dicom_sequence(Rows=1, Columns=1, BitsAllocated=8, PixelData=b"\0\0"),
            "OverlayBitPosition": 0,
        },
    }.items():
        yield Row("dicom", name, "uint16", lambda f, o=options: save_dicom(f, **o))
    yield Row("dicom", "grey, 12 of 16 bits, sign repeated", "int16", lambda f: save_dicom(f, stored=12, signed=True))
    yield Row(
        "dicom",
        "grey, 12 of 16 bits, zeros above",
        "int16",
        lambda f: save_dicom(f, stored=12, signed=True, zero_filled=True),
    )
    yield Row("dicom", "grey, odd length", "uint8", lambda f: save_dicom(f, bits=8, shape=(5, 5)))
    yield Row("dicom", "grey", "uint32", lambda f: save_dicom(f, bits=32))
    yield Row("dicom", "RGB, pixel by pixel", "uint8", lambda f: save_dicom(f, bits=8, channels=3))
    yield Row("dicom", "RGB, plane by plane", "uint8", lambda f: save_dicom(f, bits=8, channels=3, planar=1))
    yield Row("dicom", "RGB, 2 frames", "uint8", lambda f: save_dicom(f, bits=8, channels=3, shape=(2, 6, 5)))
    yield Row("dicom", "RGB, RLE", "uint8", lambda f: save_dicom(f, "RLE", bits=8, channels=3))
    yield from _dicom_colours()
    yield Row("dicom", "grey, overlay in the pixels", "uint16", lambda f: _overlay(f, 12))
    yield Row("dicom", "grey, data above the stored bits", "int16", lambda f: _overlay(f, 12, signed=True))
    yield Row("dicom", "grey, bytes in big-endian words", "uint8", save_dicom_words, kept=True)
    yield Row("dicom", "grey, no SOP Instance UID", "uint16", lambda f: _dicom_element(f, SOPInstanceUID=""))


def _dicom_colours() -> Iterator[Row]:
    for syntax in ("implicit", "explicit", "big-endian", "deflated", "RLE"):
        yield Row(
            "dicom", f"palette, {syntax}", "uint8", lambda f, s=syntax: save_dicom_palette(f, syntax=s), kept=True
        )
    for what, dtype, options in (
        ("palette, 16 bits a colour", "uint16", {"bits": 16}),
        ("palette, a byte in a word", "uint8", {"words": True}),
        ("palette, 40 entries from 9", "uint8", {"entries": 40, "first": 9}),
        ("palette, 2 frames", "uint8", {"shape": (2, 6, 5)}),
    ):
        yield Row("dicom", what, dtype, lambda f, o=options: save_dicom_palette(f, **o), kept=True)
    for syntax in ("implicit", "explicit", "big-endian", "deflated", "RLE"):
        yield Row("dicom", f"YBR_FULL, {syntax}", "uint8", lambda f, s=syntax: save_dicom_ybr(f, syntax=s), kept=True)
    yield Row("dicom", "YBR_FULL, plane by plane", "uint8", lambda f: save_dicom_ybr(f, planar=1), kept=True)
    yield Row("dicom", "YBR_FULL, 2 frames", "uint8", lambda f: save_dicom_ybr(f, shape=(2, 6, 5)), kept=True)
    yield Row("dicom", "YBR_FULL_422", "uint8", lambda f: save_dicom_ybr(f, "YBR_FULL_422", shape=(6, 4)), kept=True)
    for photometric in ("YBR_FULL", "YBR_FULL_422"):
        yield Row("dicom", f"{photometric}, JPEG", "uint8", lambda f, p=photometric: save_dicom_packed(f, p), kept=True)
    for photometric in ("YBR_RCT", "YBR_ICT"):
        yield Row(
            "dicom",
            f"{photometric}, JPEG 2000",
            "uint8",
            lambda f, p=photometric: save_dicom_packed(f, p, "JPEG2000", irreversible=p == "YBR_ICT", no_jp2=True),
            kept=True,
        )


READ: tuple[Row, ...] = (*_nifti(), *_volumes(), *_png(), *_pictures(), *_tiff(), *_numpy(), *_dicom())


def _patched(path: Path, place: int, layout: str, *values: object) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, place, *values)
    path.write_bytes(content)
    return path


def _cut(path: Path, count: int = 3) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


def _flipped(path: Path, place: int) -> Path:
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
    return path


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _palette(folder: Path) -> Path:
    path = folder / "image.png"
    with path.open("wb") as file:
        png.Writer(2, 2, palette=[(0, 0, 0), (9, 9, 9)], bitdepth=8).write(file, [[0, 1], [1, 0]])
    return path


def _bits(folder: Path, depth: int) -> Path:
    path = folder / "image.png"
    with path.open("wb") as file:
        png.Writer(2, 2, greyscale=True, bitdepth=depth).write(file, [[0, 1], [1, 0]])
    return path


def _pyramid(folder: Path) -> Path:
    path = folder / "image.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((64, 64), "uint8"), subifds=1, photometric="minisblack")
        tiff.write(np.zeros((32, 32), "uint8"), subfiletype=1, photometric="minisblack")
    return path


def _two_arrays(folder: Path) -> Path:
    np.savez(folder / "image.npz", a=np.zeros(2), b=np.zeros(2))
    return folder / "image.npz"


def _objects(folder: Path) -> Path:
    np.save(folder / "image.npy", np.array([None]), allow_pickle=True)
    return folder / "image.npy"


def _overlay(folder: Path, stored: int, signed: bool = False) -> Path:
    """Pixels of 16 bits, of which only the lower ones are the number."""
    changes = {} if signed else {"OverlayBitPosition": stored}
    return _changed(save_dicom(folder, signed=signed), BitsStored=stored, HighBit=stored - 1, **changes)


def _without_pixels(folder: Path) -> Path:
    path = save_dicom(folder)
    data = read_dicom(path)
    del data.PixelData
    data.save_as(path)
    return path


def _dicom_element(folder: Path, **elements: object) -> Path:
    """Set elements after writing, so that pixels stay as they are."""
    return _changed(save_dicom(folder), **elements)


def _changed(path: Path, **elements: object) -> Path:
    data = read_dicom(path)
    for name, value in elements.items():
        set_element(data, name, value)
    data.save_as(path)
    return path


def _nii(folder: Path) -> Path:
    return save_nifti(folder, suffix=".nii")


REFUSED: tuple[Row, ...] = (
    Row("nifti", "complex voxels", "", lambda f: _patched(_nii(f), 70, "<hh", 32, 64)),
    Row("nifti", "6D", "", lambda f: save_nifti(f, shape=(2, 2, 2, 1, 2, 2))),
    Row("nifti", "5D, two time steps", "", lambda f: save_nifti(f, shape=(2, 2, 2, 2, 2))),
    Row("nifti", "header of an .hdr/.img pair", "", lambda f: _patched(_nii(f), 344, "<4s", b"ni1\0")),
    Row("nifti", "size that lies", "", lambda f: _patched(_nii(f), 42, "<3h", 32767, 32767, 32767)),
    Row("nifti", "cut off", "", lambda f: _cut(_nii(f))),
    Row("nifti", "gzip cut off", "", lambda f: _cut(save_nifti(f))),
    Row("nifti", "gzip with wrong checksum", "", lambda f: _flipped(save_nifti(f), -6)),
    Row("nifti", "no NIfTI", "", lambda f: _written(f, "image.nii", b"hello")),
    Row("nifti", "empty", "", lambda f: _written(f, "image.nii.gz", b"")),
    Row(
        "nifti",
        "pointer of Git LFS",
        "",
        lambda f: _written(f, "image.nii.gz", b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    Row("nifti", "web page", "", lambda f: _written(f, "image.nii.gz", b"<!DOCTYPE html>")),
    Row("nifti_pair", "no header", "", lambda f: _written(f, "image.img", bytes(120))),
    Row("nifti_pair", "cut off", "", lambda f: _cut(save_pair(f))),
    Row("nrrd", "text", "", lambda f: save_nrrd_text(f, "encoding: ascii")),
    Row("nrrd", "four axes in space", "", lambda f: save_nrrd_text(f, "sizes: 5 2 2 3", "dimension: 4")),
    Row("nrrd", "voxels elsewhere", "", lambda f: save_nrrd_text(f, "data file: ../image.raw", file="image.nhdr")),
    Row("nrrd", "voxels in several files", "", lambda f: save_nrrd_text(f, "data file: LIST", file="image.nhdr")),
    Row("nrrd", "voxels missing", "", lambda f: save_nrrd_text(f, "data file: image.raw", file="image.nhdr")),
    Row("nrrd", "size that lies", "", lambda f: save_nrrd_text(f, "sizes: 50000 40000 30000")),
    Row("nrrd", "size that lies, gzip", "", lambda f: save_nrrd_text(f, "sizes: 50000 40000 30000", "encoding: gzip")),
    Row("nrrd", "damaged gzip", "", lambda f: save_nrrd_text(f, "encoding: gzip")),
    Row("nrrd", "no NRRD", "", lambda f: _written(f, "image.nrrd", b"hello")),
    Row("meta_image", "cut off", "", lambda f: _cut(save_by_itk(f, "image.mha"))),
    Row("meta_image", "packed, cut off", "", lambda f: _cut(save_by_itk(f, "image.mha", packed=True))),
    Row("meta_image", "no MetaImage", "", lambda f: _written(f, "image.mha", b"hello")),
    Row("mgh", "cut off", "", lambda f: _cut(save_mgh(f, "uint8", "image.mgh"), 30)),
    Row("mgh", "no MGH", "", lambda f: _written(f, "image.mgh", b"hello")),
    Row("png", "interlaced RGB of 16 bits", "", lambda f: save_png(f, "uint16", 3, interlace=True)),
    Row("png", "animated", "", lambda f: with_chunk(save_png(f), png_chunk(b"acTL", bytes(8)))),
    Row(
        "png",
        "transparent colour of 16 bits",
        "",
        lambda f: with_chunk(save_png(f, "uint16"), png_chunk(b"tRNS", bytes(2))),
    ),
    Row("png", "unknown critical chunk", "", lambda f: with_chunk(save_png(f), png_chunk(b"CgBI", bytes(4)))),
    Row(
        "png",
        "thumbnail in EXIF",
        "",
        lambda f: with_chunk(save_png(f), png_chunk(b"eXIf", b"II*\0" + struct.pack("<IHI", 8, 0, 14) + bytes(6))),
    ),
    Row("png", "another file behind its end", "", lambda f: with_chunk(save_png(f), tail=save_png(f).read_bytes())),
    Row("png", "size that lies", "", lambda f: _png_size(save_png(f), 1 << 30, 1 << 30)),
    Row("png", "one row too many declared", "", lambda f: _png_size(save_png(f), 5, 7)),
    Row("png", "cut off", "", lambda f: _cut(save_png(f))),
    Row("png", "wrong checksum", "", lambda f: _flipped(save_png(f), 45)),
    Row("png", "no picture", "", lambda f: _written(f, "image.png", b"hello")),
    Row(
        "tiff", "five samples", "", lambda f: save_tiff(f, shape=(33, 20, 5), photometric="rgb", planarconfig="contig")
    ),
    Row("tiff", "Lab", "", lambda f: save_tiff(f, shape=(33, 20, 3), photometric="cielab")),
    Row("tiff", "floats of 16 bits", "", lambda f: save_tiff(f, "float16")),
    Row("tiff", "pyramid", "", _pyramid),
    Row("tiff", "stack with one header", "", lambda f: save_tiff(f, shape=(3, 33, 20), truncate=True, metadata={})),
    Row("tiff", "cut off", "", lambda f: _tiff_cut(f)),
    Row("tiff", "no TIFF", "", lambda f: _written(f, "image.tif", b"hello")),
    Row("npy", "Python objects", "", _objects),
    Row("npy", "boolean", "", lambda f: _boolean(f)),
    Row("npy", "4D", "", lambda f: save_npy(f, shape=(2, 2, 2, 2))),
    Row("npy", "cut off", "", lambda f: _cut(save_npy(f))),
    Row("npy", "no header", "", lambda f: _written(f, "image.npy", b"hello")),
    Row("npz", "two arrays", "", _two_arrays),
    Row("npz", "cut off", "", lambda f: _cut(save_npz(f), 30)),
    Row("npz", "wrong checksum", "", lambda f: _flipped(save_npz(f, packed=False), 200)),
    Row("dicom", "no pixels", "", _without_pixels),
    Row("dicom", "palette that is missing", "", lambda f: _dicom_element(f, PhotometricInterpretation="PALETTE COLOR")),
    Row(
        "dicom", "palette cut off", "", lambda f: _changed(save_dicom_palette(f), BluePaletteColorLookupTableData=b"12")
    ),
    Row("dicom", "YBR of one sample", "", lambda f: _dicom_element(f, PhotometricInterpretation="YBR_FULL")),
    Row("dicom", "YBR of 16 bits", "", lambda f: save_dicom_ybr(f, bits=16)),
    Row("dicom", "YBR_RCT, not compressed", "", lambda f: save_dicom_ybr(f, "YBR_RCT")),
    Row("dicom", "YBR cut off", "", lambda f: _changed(save_dicom_ybr(f), Rows=9)),
    Row("dicom", "high bit not the last", "", lambda f: _dicom_element(f, BitsStored=12, HighBit=15)),
    Row("dicom", "1 bit", "", lambda f: _dicom_element(f, BitsAllocated=1, BitsStored=1, HighBit=0)),
    Row(
        "dicom",
        "signed by a certificate",
        "",
        lambda f: _dicom_element(f, DigitalSignaturesSequence=dicom_sequence(MACIDNumber=1)),
    ),
    Row("dicom", "float pixels", "", lambda f: _dicom_element(f, FloatPixelData=bytes(8))),
    Row("dicom", "size that lies", "", lambda f: _dicom_element(f, Rows=65535, Columns=65535)),
    Row("dicom", "frames that lie", "", lambda f: _dicom_element(f, NumberOfFrames=2000000000)),
    Row("dicom", "size that lies, RLE", "", lambda f: _rle_that_lies(f)),
    Row("dicom", "cut off", "", lambda f: _cut(save_dicom(f))),
    Row("dicom", "deflate cut off", "", lambda f: _cut(save_dicom(f, "deflated"), 20)),
    Row("dicom", "no preamble", "", lambda f: _written(f, "image.dcm", b"hello")),
    Row("jpeg", "cut off", "", lambda f: _cut(save_picture(f), 40)),
    Row("jpeg", "no picture", "", lambda f: _written(f, "image.jpg", b"hello")),
    Row("jpeg", "empty", "", lambda f: _written(f, "image.jpg", b"")),
    Row(
        "jpeg",
        "pointer of Git LFS",
        "",
        lambda f: _written(f, "image.jpg", b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    Row("gif", "animated", "", lambda f: _animated(f)),
)


def _png_size(path: Path, width: int, height: int) -> Path:
    data = path.read_bytes()
    header = struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:8] + png_chunk(b"IHDR", header) + data[33:])
    return path


def _bilevel(folder: Path) -> Path:
    tifffile.imwrite(folder / "image.tif", np.zeros((8, 8), bool), photometric="minisblack", metadata=None)
    return folder / "image.tif"


def _animated(folder: Path) -> Path:
    first, second = (Image.fromarray(np.full((4, 4), value, "uint8")) for value in (1, 200))
    first.save(folder / "image.gif", save_all=True, append_images=[second])
    return folder / "image.gif"


def _tiff_cut(folder: Path) -> Path:
    """The header comes first in tifffile's files, the pixels last."""
    return _cut(save_tiff(folder), 100)


def _boolean(folder: Path) -> Path:
    np.save(folder / "image.npy", np.zeros((2, 2), bool))
    return folder / "image.npy"


def _rle_that_lies(folder: Path) -> Path:
    path = save_dicom(folder, "RLE")
    data = read_dicom(path)
    data.Rows = data.Columns = 65535
    data.save_as(path)
    return path


def table() -> str:
    """Both tables as they stand in the page."""
    with tempfile.TemporaryDirectory() as temporary:
        return "\n".join([*_read_table(Path(temporary)), "", *_refused_table(Path(temporary))])


def _read_table(folder: Path) -> Iterator[str]:
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for number, row in enumerate(READ):
        place = folder / str(number)
        place.mkdir()
        path = row.make(place)
        round_trip(format_of(path), path, place)
        back = "every byte (kept)" if row.kept else "content" if row.is_packed else "every byte"
        shape = str(format_of(path).read(path).shape)
        groups.setdefault((row.format, row.what, shape, back), []).append(row.dtype)
    yield "| format | file | image | type | comes back |"
    yield "|---|---|---|---|---|"
    for (name, what, shape, back), types in groups.items():
        yield f"| {name} | {what} | {shape} | {', '.join(types)} | {back} |"


def _refused_table(folder: Path) -> Iterator[str]:
    yield "| format | file | refused with |"
    yield "|---|---|---|"
    for number, row in enumerate(REFUSED):
        place = folder / f"refused{number}"
        place.mkdir()
        path = row.make(place)
        try:
            format_of(path).read(path)
        except FormatError as error:
            reason = FOREIGN.sub(r"\1", str(error).replace(f"{path}", path.name))
            yield f"| {row.format} | {row.what} | {reason} |"
        else:
            raise AssertionError(f"{row.label} was not refused")


def page_with(tables: str) -> str:
    """The page with these tables."""
    return page_between(PAGE, BEGIN, END, tables)


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
    sys.exit(0)
