"""Files of every kind that is read, and of every kind that is refused; ``test_formats_table.py`` runs each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import png
import tifffile
from format_samples import (
    dicom_sequence,
    png_chunk,
    random_array,
    read_dicom,
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
from PIL import Image

Make = Callable[[Path], Path]
# The same image in bytes that no reader looks at.
_AGAIN = random_array("uint8", (64, 64)).tobytes()
# Files that are packed come back with the same content; whether also byte for byte, the library decides that packs.
PACKED = ("gz", "png", "npz", "deflated", "RLE", "JPEG 2000 lossless")


# Words that say that an image has colours, and that it is a volume.
COLOURS = (
    "RGB",
    "palette",
    "CMYK",
    "YBR",
    "YCbCr",
    "3 channels",
    "channels last",
    ".ppm",
    "P, ",
    "(h, w, 3)",
    "(3, h, w)",
)
VOLUMES = ("3D", "4D", "5D", "7D", "pages", "frames", "(x, y, z)")


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

    @property
    def channels(self) -> int:
        """How many channels the image has, as the words say."""
        if any(word in self.what for word in ("4D", "5D", "7D")):
            return 2
        grey = "palette of greys" in self.what
        return 3 if not grey and any(word in self.what for word in COLOURS) else 1

    @property
    def spatial_dims(self) -> int:
        """How many axes in space the image has, as the words say."""
        return 3 if any(word in self.what for word in VOLUMES) else 2


@dataclass(frozen=True)
class Refusal:
    """A file that is refused: its format, what it is in words, cause and remedy that the message names, how to make it."""

    format: str
    what: str
    says: str
    make: Make

    @property
    def label(self) -> str:
        return f"{self.format}-{self.what}".replace(" ", "_")


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
    yield Row("meta_image", "3D, .mhd with HeaderSize -1", "int16", lambda f: _at_end(f, 0))
    yield Row("meta_image", "3D, .mhd with .zraw, gz", "int16", lambda f: save_by_itk(f, "image.mhd", packed=True))
    for dtype in ("uint8", "int16", "int32", "float32"):
        yield Row("mgh", "3D, .mgz", dtype, lambda f, d=dtype: save_mgh(f, d))
        yield Row("mgh", "3D, .mgh", dtype, lambda f, d=dtype: save_mgh(f, d, "image.mgh"))
    footer = random_array("uint8", (40,)).tobytes() + b"mri_convert --conform in.mgz out.mgz" * 400 + bytes(90_000)
    yield Row("mgh", "3D, .mgh with a long footer", "int16", lambda f: _longer(save_mgh(f, file="image.mgh"), footer))
    yield Row("mgh", "4D, .mgh", "float32", lambda f: save_mgh(f, "float32", "image.mgh", 2))


def _at_end(folder: Path, before: int, packed: bool = False) -> Path:
    """MetaImage whose header says that the voxels are the last bytes of the data file, with other bytes before them."""
    save_by_itk(folder, "image.mhd")
    text, data = (folder / "image.mhd").read_text(), (folder / "image.raw").read_bytes()
    said = f"HeaderSize = -1\nCompressedData = {packed}\n"
    (folder / "image.mhd").write_text(text.replace("CompressedData = False\n", said))
    (folder / "image.raw").write_bytes(bytes(before) + (zlib.compress(data) if packed else data))
    return folder / "image.mhd"


def _tiff_tags() -> list[tuple[int, int, int, Any, bool]]:
    """Colour profile, places on the Earth, a long text, many numbers."""
    profile, text = bytes(36) + b"acsp" + _AGAIN, b"<OME><Image/></OME>" * 1000
    return [
        (34675, 7, len(profile), profile, True),
        (33922, 12, 600, tuple(number / 7 for number in range(600)), True),
        (270, 2, len(text), text, True),
    ]


def _imagej(folder: Path) -> Path:
    tables = {"LUTs": [np.frombuffer(_AGAIN, np.uint8)[:768].reshape(3, 256)], "Info": "kept " * 500}
    return save_tiff(folder, "uint16", (3, 33, 20), imagej=True, truncate=False, metadata={"axes": "ZYX", **tables})


def _longer(path: Path, content: bytes = _AGAIN) -> Path:
    path.write_bytes(path.read_bytes() + content)
    return path


def _header_longer(path: Path, name: str = "image.hdr") -> Path:
    _longer(path.with_name(name))
    return path


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
    yield Row("tiff", "grey, tags of other programs", "uint8", lambda f: save_tiff(f, extratags=_tiff_tags()))
    yield Row("tiff", "pages of ImageJ, 3D", "uint16", _imagej)
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


XMP_THUMBNAIL = b"<xmpGImg:image>/9j/4AAQSkZJRg&#10;" + b"A" * 60 + b"</xmpGImg:image>"
_EXIF = (b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 14) + bytes(6)).hex().encode()
PNG_THUMBNAILS = (
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_THUMBNAIL),
    (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP_THUMBNAIL)),
    (b"tEXt", b"preview\0/9j/4AAQSkZJRgABAQAA\nAQABAAD" + b"A" * 60),
    (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n    24\n" + _EXIF + b"\n")),
    (
        b"zTXt",
        b"Raw profile type 8bim\0\0" + zlib.compress(b"\n8bim\n    20\n" + b"8BIM\x04\x0c\0\0".hex().encode() + b"\n"),
    ),
    (b"prVW", b"x"),
    (b"abCd", b"\xff\xd8\xff\xe0 and so on"),
    (b"prVt", zlib.compress(_AGAIN)),
    (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(_AGAIN) + _AGAIN.hex().encode())),
)

_BEHIND = "bytes follow the voxels, which may hold the unprotected image ... cut them off, or save it again"
_IN_HEADER = "beside its numbers, such as extensions, which may hold the unprotected image ... save it without them"

REFUSED: tuple[Refusal, ...] = (
    *(
        Refusal(format_, "the image again behind the voxels", _BEHIND, lambda f, make=make: _longer(make(f)))  # type: ignore[misc]
        for format_, make in (
            ("nifti", lambda f: save_nifti(f, suffix=".nii")),
            ("nifti_pair", save_pair),
            ("nrrd", lambda f: save_by_itk(f, "image.nrrd")),
            ("meta_image", lambda f: save_by_itk(f, "image.mha")),
            ("mgh", lambda f: save_mgh(f, file="image.mgh")),
        )
    ),
    *(
        Refusal(
            "nifti",
            f"extension, {what}",
            _IN_HEADER,
            lambda f, comment=comment: save_nifti(f, comment=comment),  # type: ignore[misc]
        )
        for what, comment in {
            "the image again": _AGAIN,
            "DICOM with pixels": b"\x28\0\2\1\2\0\0\0\7\0\xe0\x7f\x10\0\x08\0\0\0" + bytes(8),
            "a picture": b"\x89PNG\r\n\x1a\n",
            "very long": b"<x/>" * (1 << 18),
        }.items()
    ),
    Refusal("nifti_pair", "the image again in the header", _IN_HEADER, lambda f: _header_longer(save_pair(f))),
    Refusal(
        "meta_image",
        "the image again behind the header",
        _IN_HEADER,
        lambda f: _header_longer(save_by_itk(f, "image.mhd"), "image.mhd"),
    ),
    Refusal(
        "nifti",
        "complex voxels",
        "complex voxels (complex64) are not supported ... store plain integers or float32",
        lambda f: _patched(_nii(f), 70, "<hh", 32, 64),
    ),
    Refusal(
        "nifti",
        "6D",
        "shape (2, 2, 2, 1, 2, 2) is not (x, y), (x, y, z) ... split it into files of such a shape",
        lambda f: save_nifti(f, shape=(2, 2, 2, 1, 2, 2)),
    ),
    Refusal(
        "nifti",
        "5D, two time steps",
        "shape (2, 2, 2, 2, 2) is not (x, y), (x, y, z) ... split it into files of such a shape",
        lambda f: save_nifti(f, shape=(2, 2, 2, 2, 2)),
    ),
    Refusal(
        "nifti",
        "header of an .hdr/.img pair",
        "its magic is b'ni1\\x00' ... name the voxels .img and the header .hdr",
        lambda f: _patched(_nii(f), 344, "<4s", b"ni1\0"),
    ),
    Refusal(
        "nifti",
        "size that lies",
        "the header declares 70362301923710 bytes, more than the file of 504 bytes can hold ... it is cut off or damaged",
        lambda f: _patched(_nii(f), 42, "<3h", 32767, 32767, 32767),
    ),
    Refusal(
        "nifti",
        "cut off",
        "the header declares 504 bytes, more than the file of 501 bytes can hold ... it is cut off or damaged",
        lambda f: _cut(_nii(f)),
    ),
    Refusal(
        "nifti", "gzip cut off", "damaged gzip ... get the file again from its source", lambda f: _cut(save_nifti(f))
    ),
    Refusal(
        "nifti",
        "gzip with wrong checksum",
        "damaged gzip ... get the file again from its source",
        lambda f: _flipped(save_nifti(f), -6),
    ),
    Refusal(
        "nifti",
        "no NIfTI",
        "not a NIfTI file (its first bytes are 68656c6c)",
        lambda f: _written(f, "image.nii", b"hello"),
    ),
    Refusal(
        "nifti",
        "empty",
        "it is empty (0 bytes) ... get the file again from its source",
        lambda f: _written(f, "image.nii.gz", b""),
    ),
    Refusal(
        "nifti",
        "pointer of Git LFS",
        "it is the pointer of Git LFS to an image, not the image itself ... fetch the image (git lfs pull)",
        lambda f: _written(f, "image.nii.gz", b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    Refusal(
        "nifti",
        "web page",
        "it is a web page, as a download that failed leaves it ... get the file again from its source",
        lambda f: _written(f, "image.nii.gz", b"<!DOCTYPE html>"),
    ),
    Refusal(
        "nifti_pair",
        "no header",
        "its header image.hdr is missing ... put it beside the file",
        lambda f: _written(f, "image.img", bytes(120)),
    ),
    Refusal(
        "nifti_pair",
        "cut off",
        "the header declares 120 bytes, more than the file of 117 bytes can hold ... it is cut off or damaged",
        lambda f: _cut(save_pair(f)),
    ),
    Refusal(
        "nrrd",
        "text",
        "its voxels are stored as 'ascii', skipping (0, 0) ... save it as raw or gzip",
        lambda f: save_nrrd_text(f, "encoding: ascii"),
    ),
    Refusal(
        "nrrd",
        "four axes in space",
        "axes of sizes (5, 2, 2, 3) are not two or three in space and one of channels ... split the file",
        lambda f: save_nrrd_text(f, "sizes: 5 2 2 3", "dimension: 4"),
    ),
    Refusal(
        "nrrd",
        "voxels elsewhere",
        "its voxels are in '../image.raw' ... put header and voxels into one file, or side by side",
        lambda f: save_nrrd_text(f, "data file: ../image.raw", file="image.nhdr"),
    ),
    Refusal(
        "nrrd",
        "voxels in several files",
        "its voxels are in 'LIST' ... put header and voxels into one file, or side by side",
        lambda f: save_nrrd_text(f, "data file: LIST", file="image.nhdr"),
    ),
    Refusal(
        "nrrd",
        "voxels missing",
        "its voxels are in image.raw, which is missing ... put it beside the header",
        lambda f: save_nrrd_text(f, "data file: image.raw", file="image.nhdr"),
    ),
    Refusal(
        "nrrd",
        "size that lies",
        "the header declares 60000000000099 bytes, more than the file of 159 bytes can hold ... it is cut off or damaged",
        lambda f: save_nrrd_text(f, "sizes: 50000 40000 30000"),
    ),
    Refusal(
        "nrrd",
        "size that lies, gzip",
        "the header declares 60000000000000 bytes, more than the file of ... can hold",
        lambda f: save_nrrd_text(f, "sizes: 50000 40000 30000", "encoding: gzip"),
    ),
    Refusal(
        "nrrd",
        "damaged gzip",
        "damaged voxels ... get the file again from its source",
        lambda f: save_nrrd_text(f, "encoding: gzip"),
    ),
    Refusal(
        "nrrd",
        "no NRRD",
        "not an NRRD file (its first bytes are b'hello')",
        lambda f: _written(f, "image.nrrd", b"hello"),
    ),
    Refusal(
        "meta_image",
        "cut off",
        "the header declares 426 bytes, more than the file of 423 bytes can hold ... it is cut off or damaged",
        lambda f: _cut(save_by_itk(f, "image.mha")),
    ),
    Refusal(
        "meta_image",
        "packed, cut off",
        "its header declares 120 bytes of pixels, but it holds ... it is cut off or damaged",
        lambda f: _cut(save_by_itk(f, "image.mha", packed=True)),
    ),
    Refusal(
        "meta_image",
        "no MetaImage",
        "not a MetaImage file (it has no ElementDataFile)",
        lambda f: _written(f, "image.mha", b"hello"),
    ),
    *(
        Refusal(
            "meta_image",
            f"voxels at the end of their file{', packed' * packed}",
            "its voxels are the last bytes of image.raw ... save it as plain binary data",
            lambda f, packed=packed: _at_end(f, 512 * (not packed), packed),  # type: ignore[misc]
        )
        for packed in (False, True)
    ),
    Refusal(
        "mgh",
        "cut off",
        "the header declares 344 bytes, more than the file of 334 bytes can hold ... it is cut off or damaged",
        lambda f: _cut(save_mgh(f, "uint8", "image.mgh"), 30),
    ),
    Refusal(
        "mgh", "no MGH", "not an MGH file (its first bytes are 68656c6c)", lambda f: _written(f, "image.mgh", b"hello")
    ),
    Refusal(
        "png",
        "interlaced RGB of 16 bits",
        "it is interlaced with 16 bits and colours ... save it without interlacing",
        lambda f: save_png(f, "uint16", 3, interlace=True),
    ),
    Refusal(
        "png",
        "animated",
        "it is animated ... store one image a file",
        lambda f: with_chunk(save_png(f), png_chunk(b"acTL", bytes(8))),
    ),
    Refusal(
        "png",
        "transparent colour of 16 bits",
        "it declares a transparent colour of 16 bits ... save it with an alpha channel or without transparency",
        lambda f: with_chunk(save_png(f, "uint16"), png_chunk(b"tRNS", bytes(2))),
    ),
    Refusal(
        "png",
        "unknown critical chunk",
        "chunk b'CgBI' is not known and may decide what the pixels mean ... save the image again",
        lambda f: with_chunk(save_png(f), png_chunk(b"CgBI", bytes(4))),
    ),
    Refusal(
        "png",
        "thumbnail in EXIF",
        "its eXIf chunk holds a thumbnail of the unprotected image ... remove it first",
        lambda f: with_chunk(save_png(f), png_chunk(b"eXIf", b"II*\0" + struct.pack("<IHI", 8, 0, 14) + bytes(6))),
    ),
    *(
        Refusal(
            "png",
            f"thumbnail in {kind.decode()} {number}",
            f"its {kind.decode()} chunk holds a thumbnail of the unprotected image ... remove it first",
            lambda f, kind=kind, data=data: with_chunk(save_png(f), png_chunk(kind, data)),  # type: ignore[misc]
        )
        for number, (kind, data) in enumerate(PNG_THUMBNAILS)
    ),
    Refusal(
        "png",
        "another file behind its end",
        "bytes follow its end, which may hold the unprotected image ... cut them off, or save it again",
        lambda f: with_chunk(save_png(f), tail=save_png(f).read_bytes()),
    ),
    Refusal(
        "png",
        "size that lies",
        "the header declares 1152921505680588800 bytes, more than the file of ... can hold",
        lambda f: _png_size(save_png(f), 1 << 30, 1 << 30),
    ),
    Refusal(
        "png",
        "one row too many declared",
        "its header declares 42 bytes of pixels, but it holds 36",
        lambda f: _png_size(save_png(f), 5, 7),
    ),
    Refusal("png", "cut off", "cut off at byte 101, before its last chunk", lambda f: _cut(save_png(f))),
    Refusal(
        "png",
        "wrong checksum",
        "the checksum of chunk b'IDAT' at byte 33 is wrong ... get the file again from its source",
        lambda f: _flipped(save_png(f), 45),
    ),
    Refusal(
        "png",
        "no picture",
        "it is no picture of a known format ... get the file again from its source",
        lambda f: _written(f, "image.png", b"hello"),
    ),
    Refusal(
        "tiff",
        "five samples",
        "it has 5 samples a pixel ... store grey or RGB, with or without alpha",
        lambda f: save_tiff(f, shape=(33, 20, 5), photometric="rgb", planarconfig="contig"),
    ),
    Refusal(
        "tiff",
        "Lab",
        "its colours are CIELAB, whose numbers are no intensities ... convert it to grey or RGB",
        lambda f: save_tiff(f, shape=(33, 20, 3), photometric="cielab"),
    ),
    Refusal(
        "tiff",
        "floats of 16 bits",
        "its 16-bit samples are not supported ... store 8, 16 or 32 bits, or floats",
        lambda f: save_tiff(f, "float16"),
    ),
    *(
        Refusal(
            "tiff",
            f"{name} of Photoshop",
            "its tags hold a thumbnail or layers of the unprotected image ... save the image without them",
            lambda f, tag=tag: save_tiff(f, extratags=[(tag[0], 7, len(tag[1]), tag[1], True)]),  # type: ignore[misc]
        )
        for name, tag in {
            "thumbnail": (34377, b"8BIM\x04\x0c\0\0" + struct.pack(">I", 4) + bytes(4)),
            "picture": (700, XMP_THUMBNAIL),
            "layers": (37724, b"Adobe Photoshop Document Data Block\x008BIMLayr" + bytes(8)),
        }.items()
    ),
    Refusal(
        "tiff",
        "the image again in a tag",
        "its tag 65000 has 4,096 bytes that may hold the unprotected image ... save it without that tag",
        lambda f: save_tiff(f, extratags=[(65000, 7, len(_AGAIN), _AGAIN, True)]),
    ),
    Refusal(
        "tiff",
        "the image again in no tag",
        "bytes belong to no tag, strip or tile and may hold the unprotected image ... save the image again",
        lambda f: _longer(save_tiff(f)),
    ),
    Refusal(
        "tiff",
        "pyramid",
        "its pages are of different kinds (a pyramid, thumbnail or mask, perhaps) ... save the full image alone",
        _pyramid,
    ),
    Refusal(
        "tiff",
        "stack with one header",
        "it holds 3 pages behind 1 headers ... save it with a header for each page",
        lambda f: save_tiff(f, shape=(3, 33, 20), truncate=True, metadata={}),
    ),
    Refusal(
        "tiff",
        "cut off",
        "a strip or tile at byte 208 needs 660 bytes, more than is there ... it is cut off",
        lambda f: _tiff_cut(f),
    ),
    Refusal("tiff", "no TIFF", "not a whole TIFF file ... get it again", lambda f: _written(f, "image.tif", b"hello")),
    Refusal(
        "npy", "Python objects", "holds Python objects (a pickle), which could run code ... Store numbers", _objects
    ),
    Refusal("npy", "boolean", "bool numbers are not supported ... store integers or float32", lambda f: _boolean(f)),
    Refusal(
        "npy",
        "4D",
        "shape (2, 2, 2, 2) is not (h, w), (h, w, 3) or (x, y, z) ... store one image a file",
        lambda f: save_npy(f, shape=(2, 2, 2, 2)),
    ),
    Refusal("npy", "cut off", "declares int16 (6, 5, 4), but holds 237 bytes of numbers", lambda f: _cut(save_npy(f))),
    Refusal("npy", "no header", "the header of ... is damaged", lambda f: _written(f, "image.npy", b"hello")),
    Refusal("npz", "two arrays", "holds 2 arrays (a, b) ... Store one image a file", _two_arrays),
    Refusal("npz", "cut off", "not an .npz archive", lambda f: _cut(save_npz(f), 30)),
    Refusal(
        "npz",
        "wrong checksum",
        "'image' is damaged ... get the file again",
        lambda f: _flipped(save_npz(f, packed=False), 200),
    ),
    Refusal("dicom", "no pixels", "it holds no image (no Pixel Data) ... CT Image Storage", _without_pixels),
    Refusal(
        "dicom",
        "palette that is missing",
        "its palette is missing or damaged ... RedPaletteColorLookupTableDescriptor ... convert it to RGB",
        lambda f: _dicom_element(f, PhotometricInterpretation="PALETTE COLOR"),
    ),
    Refusal(
        "dicom",
        "the image again in padding",
        "Data Set Trailing Padding, have more than 256 bytes that are not zero and may hold the unprotected image ... remove them",
        lambda f: _dicom_element(f, DataSetTrailingPadding=_AGAIN),
    ),
    Refusal(
        "dicom",
        "rows that are not shown",
        "bytes behind its pixels ... are not zero and may hold the unprotected image ... remove them",
        lambda f: _changed(save_dicom(f, shape=(40, 40)), Rows=2),
    ),
    Refusal(
        "dicom",
        "palette cut off",
        "its palette is missing or damaged ... convert it to RGB",
        lambda f: _changed(save_dicom_palette(f), BluePaletteColorLookupTableData=b"12"),
    ),
    Refusal(
        "dicom",
        "YBR of one sample",
        "it declares YBR_FULL pixels of shape (1, 6, 5) ... the header is damaged",
        lambda f: _dicom_element(f, PhotometricInterpretation="YBR_FULL"),
    ),
    Refusal(
        "dicom",
        "YBR of 16 bits",
        "its pixels are YBR_FULL of uint16, which is not 8 bits ... convert it to RGB",
        lambda f: save_dicom_ybr(f, bits=16),
    ),
    Refusal(
        "dicom",
        "YBR_RCT, not compressed",
        "its pixels are YBR_RCT and not compressed ... convert it to RGB",
        lambda f: save_dicom_ybr(f, "YBR_RCT"),
    ),
    Refusal(
        "dicom",
        "YBR cut off",
        "its header declares 135 bytes of pixels, but it holds 90 ... it is cut off or damaged",
        lambda f: _changed(save_dicom_ybr(f), Rows=9),
    ),
    Refusal(
        "dicom",
        "high bit not the last",
        "its pixels have 16 bits, 12 of them stored, the highest at 15 ... only whole bytes with the stored bits lowest are read",
        lambda f: _dicom_element(f, BitsStored=12, HighBit=15),
    ),
    Refusal(
        "dicom",
        "1 bit",
        "its pixels have 1 bit, as segmentations have ... save labels as NIfTI",
        lambda f: _dicom_element(f, BitsAllocated=1, BitsStored=1, HighBit=0),
    ),
    Refusal(
        "dicom",
        "signed by a certificate",
        "it is digitally signed, and noise would break the signature ... remove the signature first",
        lambda f: _dicom_element(f, DigitalSignaturesSequence=dicom_sequence(MACIDNumber=1)),
    ),
    Refusal(
        "dicom",
        "float pixels",
        "its pixels are floats ... store integers with a rescale slope",
        lambda f: _dicom_element(f, FloatPixelData=bytes(8)),
    ),
    Refusal(
        "dicom",
        "size that lies",
        "its header declares 8589672450 bytes of pixels, but it holds 60 ... it is cut off or damaged",
        lambda f: _dicom_element(f, Rows=65535, Columns=65535),
    ),
    Refusal(
        "dicom",
        "frames that lie",
        "its header declares 120000000000 bytes of pixels, but it holds 60 ... it is cut off or damaged",
        lambda f: _dicom_element(f, NumberOfFrames=2000000000),
    ),
    Refusal(
        "dicom",
        "size that lies, RLE",
        "the header declares 8589672450 bytes, more than the file of 744 bytes can hold",
        lambda f: _rle_that_lies(f),
    ),
    Refusal(
        "dicom",
        "cut off",
        "(7fe0,0010) Pixel Data at byte 568 claims 60 bytes, more than the file holds ... it is cut off",
        lambda f: _cut(save_dicom(f)),
    ),
    Refusal(
        "dicom",
        "deflate cut off",
        "its deflated data set is cut off ... get it again from its source",
        lambda f: _cut(save_dicom(f, "deflated"), 20),
    ),
    Refusal(
        "dicom",
        "no preamble",
        "not a DICOM file ... get it again from its source",
        lambda f: _written(f, "image.dcm", b"hello"),
    ),
    Refusal(
        "jpeg",
        "cut off",
        "it cannot be decoded ... get the file again from its source",
        lambda f: _cut(save_picture(f), 40),
    ),
    Refusal(
        "jpeg",
        "no picture",
        "it is no picture of a known format ... get the file again from its source",
        lambda f: _written(f, "image.jpg", b"hello"),
    ),
    Refusal(
        "jpeg",
        "empty",
        "it is empty (0 bytes) ... get the file again from its source",
        lambda f: _written(f, "image.jpg", b""),
    ),
    Refusal(
        "jpeg",
        "pointer of Git LFS",
        "it is the pointer of Git LFS to an image, not the image itself ... fetch the image (git lfs pull)",
        lambda f: _written(f, "image.jpg", b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    Refusal(
        "gif", "animated", "it is animated, 2 pictures in one file ... store one image a file", lambda f: _animated(f)
    ),
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
