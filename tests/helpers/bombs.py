"""Small files that claim, or unpack to, gigabytes. Each maker writes one into a folder and returns its path."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from format_samples import png_chunk, save_dicom, save_tiff
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

#: What a bomb unpacks to: more than any test machine should use.
HUGE = 3 << 30
_BLOCK = 1 << 24


def _deflated(size: int = HUGE, first: bytes = b"") -> tuple[bytes, int]:
    """A raw deflate stream of some bytes and then zeros, and the CRC-32 of what is in it; in time that does not count."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = start + block * (size // _BLOCK) + packer.flush()
    checksum = zlib.crc32(first)
    for _ in range(size // _BLOCK):
        checksum = zlib.crc32(bytes(_BLOCK), checksum)
    return stream, checksum


def zlib_zeros(size: int = HUGE, first: bytes = b"") -> bytes:
    """A zlib stream of some bytes and then zeros."""
    low, high = 1, 0
    for byte in first:
        low = (low + byte) % 65521
        high = (high + low) % 65521
    high = (high + low * size) % 65521
    return b"\x78\xda" + _deflated(size, first)[0] + struct.pack(">HH", high, low)


def gzip_zeros(size: int = HUGE, first: bytes = b"") -> bytes:
    """A gzip file of some bytes and then zeros."""
    stream, checksum = _deflated(size, first)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stream + struct.pack("<II", checksum, (len(first) + size) % 2**32)


def _nifti_header(shape: tuple[int, ...]) -> bytes:
    image = nibabel.Nifti1Header()
    image.set_data_dtype("int16")
    image.set_data_shape(shape)
    image["vox_offset"], image["magic"] = 352, b"n+1"
    return bytes(image.binaryblock) + bytes(4)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def nifti(folder: Path, shape: tuple[int, ...] = (1024, 1024, 1536), name: str = "image.nii.gz") -> Path:
    return _written(folder / name, gzip_zeros(first=_nifti_header(shape)))


def nifti_trailing(folder: Path) -> Path:
    return nifti(folder, (4, 4, 4))


def nifti_claim(folder: Path) -> Path:
    return _written(folder / "image.nii.gz", gzip.compress(_nifti_header((32000, 32000, 32000)) + bytes(1000)))


def nifti_sparse(folder: Path) -> Path:
    """Not packed, with a file of the size that it claims, which takes no room on the disk."""
    path = _written(folder / "image.nii", _nifti_header((8192, 8192, 128)))
    with open(path, "r+b") as file:
        file.truncate(352 + 8192 * 8192 * 128 * 2)
    return path


def pair(folder: Path) -> Path:
    (folder / "image.hdr").write_bytes(_nifti_header((1024, 1024, 1536))[:344] + b"ni1\0")
    return _written(folder / "image.img.gz", gzip_zeros())


def mgz(folder: Path) -> Path:
    header = struct.pack(">7i", 1, 1024, 1024, 1536, 1, 4, 0).ljust(284, b"\0")
    return _written(folder / "image.mgz", gzip_zeros(first=header))


def nrrd(folder: Path, sizes: str = "1024 1024 3072") -> Path:
    head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: {sizes}\nencoding: gzip\nendian: little\n\n"
    return _written(folder / "image.nrrd", head.encode() + gzip_zeros())


def nrrd_trailing(folder: Path) -> Path:
    return nrrd(folder, "4 4 4")


def mha(folder: Path, sizes: str = "1024 1024 3072") -> Path:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_UCHAR\nCompressedData = True\n"
    return _written(folder / "image.mha", head.encode() + b"ElementDataFile = LOCAL\n" + zlib_zeros())


def mha_trailing(folder: Path) -> Path:
    return mha(folder, "4 4 4")


def png(folder: Path, width: int = 49152, depth: int = 8, colour: int = 0, interlace: int = 0) -> Path:
    header = struct.pack(">IIBBBBB", width, HUGE // 49152, depth, colour, 0, 0, interlace)
    chunks = png_chunk(b"IHDR", header) + (png_chunk(b"PLTE", bytes(3)) if colour == 3 else b"")
    pixels = png_chunk(b"IDAT", zlib_zeros()) + png_chunk(b"IEND", b"")
    return _written(folder / "image.png", b"\x89PNG\r\n\x1a\n" + chunks + pixels)


def png_trailing(folder: Path) -> Path:
    return png(folder, 4)


def png_palette(folder: Path) -> Path:
    return png(folder, colour=3)


def png_bits(folder: Path) -> Path:
    return png(folder, depth=1)


def png_interlaced(folder: Path) -> Path:
    return png(folder, interlace=1)


def gif(folder: Path) -> Path:
    """Claims 65,000 x 65,000 pixels."""
    return _picture(folder / "image.gif", "GIF", lambda raw: raw.replace(struct.pack("<HH", 64, 64), b"\xe8\xfd" * 2))


def jpeg(folder: Path) -> Path:
    return _picture(folder / "image.jpg", "JPEG", lambda raw: raw.replace(b"\x08\0\x40\0\x40", b"\x08\xfd\xe8\xfd\xe8"))


def jpeg2000(folder: Path) -> Path:
    return _picture(folder / "image.jp2", "JPEG2000", lambda raw: raw.replace(struct.pack(">I", 64), b"\0\0\xfd\xe8"))


def _picture(path: Path, kind: str, change: Callable[[bytes], bytes]) -> Path:
    buffer = BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(buffer, kind)
    new = change(buffer.getvalue())
    assert new != buffer.getvalue()
    return _written(path, new)


def webp(folder: Path) -> Path:
    """A constant image of the largest size that WebP has, 268 million pixels."""
    buffer = BytesIO()
    Image.new("RGB", (16383, 16383)).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return _written(folder / "image.webp", buffer.getvalue())


def dicom_deflated(folder: Path) -> Path:
    path = save_dicom(folder, "explicit", bits=8, shape=(49152, 65535 // 49152 * 8))
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    content = path.read_bytes()
    start = content.index(b"\x08\0\x08\0CS")
    head = content[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    head = head.replace(b"\x10\0UI\x14\0" + b"1.2.840.10008.1.2.1.99", b"\x10\0UI\x16\0" + b"1.2.840.10008.1.2.1.99")
    assert head != content[:start]
    body = content[start : content.index(b"\xe0\x7f\x10\0")]
    return _written(path, head + _deflated(first=body + b"\xe0\x7f\x10\0OB\0\0" + struct.pack("<I", HUGE))[0])


def _encapsulated(folder: Path, syntax: UID, frame: bytes, **options: Any) -> Path:
    path = save_dicom(folder, bits=8, **options)
    data = dcmread(path)
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    dcmwrite(path, data, enforce_file_format=True)
    return path


def dicom_rle(folder: Path) -> Path:
    """Runs of 128 zeros for an image of 30 pixels."""
    return _encapsulated(folder, RLELossless, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * (HUGE // 128))


def dicom_rle_claim(folder: Path) -> Path:
    """Runs of 128 zeros for an image that needs them all."""
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * (HUGE // 128)
    path = _encapsulated(folder, RLELossless, frame)
    content = path.read_bytes()
    rows, columns = content.index(b"\x28\0\x10\0US\2\0"), content.index(b"\x28\0\x11\0US\2\0")
    both = bytearray(content)
    both[rows + 8 : rows + 10], both[columns + 8 : columns + 10] = b"\0\xc0", b"\xff\xff"
    return _written(path, bytes(both))


def dicom_jpeg(folder: Path) -> Path:
    return _encapsulated(folder, JPEGBaseline8Bit, jpeg(folder).read_bytes())


def dicom_jpeg2000(folder: Path) -> Path:
    content = jpeg2000(folder).read_bytes()
    return _encapsulated(folder, JPEG2000Lossless, content[content.index(b"\xff\x4f\xff\x51") :])


def tiff(folder: Path, sides: tuple[int, int] = (49152, 65536)) -> Path:
    return _tiff(folder, sides, 8, zlib_zeros())


def tiff_trailing(folder: Path) -> Path:
    return tiff(folder, (16, 16))


def tiff_jpeg(folder: Path) -> Path:
    return _tiff(folder, (16, 16), 7, jpeg(folder).read_bytes())


def tiff_strips(folder: Path) -> Path:
    """Claims a strip for each of four billion rows."""
    path = save_tiff(folder)
    content = bytearray(path.read_bytes())
    for tag in (273, 279):
        at = next(p for p in range(8, len(content)) if content[p : p + 2] == struct.pack("<H", tag))
        content[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFF0)
    return _written(path, bytes(content))


def _tiff(folder: Path, sides: tuple[int, int], compression: int, packed: bytes) -> Path:
    """A TIFF of one strip, 8 bits, grey."""
    entries = [
        (256, 4, sides[1]), (257, 4, sides[0]), (258, 3, 8), (259, 3, compression), (262, 3, 1),
        (273, 4, 0), (277, 3, 1), (278, 4, sides[0]), (279, 4, len(packed)),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    entries[5] = (273, 4, start)
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return _written(
        folder / "image.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + packed
    )


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npz(folder: Path, shape: tuple[int, ...] = (1024, 1024, 3072), name: str = "image.npz") -> Path:
    return _zip(folder / name, "image.npy", _npy_header(shape))


def npz_trailing(folder: Path) -> Path:
    return npz(folder, (4, 4, 4))


def _zip(path: Path, name: str, first: bytes) -> Path:
    stream, checksum = _deflated(first=first)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    sizes = struct.pack("<III", checksum, len(stream), len(first) + HUGE)
    local = (
        b"PK\3\4" + struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", len(name), 0) + name.encode()
    )
    central = b"PK\1\2" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 33) + sizes
    central += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(stream), 0)
    return _written(path, local + stream + central + end)


#: Name -> maker.
BOMBS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        nifti, nifti_trailing, nifti_claim, nifti_sparse, pair, mgz, nrrd, nrrd_trailing, mha, mha_trailing,
        png, png_trailing, png_palette, png_bits, png_interlaced, gif, jpeg, jpeg2000, webp,
        dicom_deflated, dicom_rle, dicom_rle_claim, dicom_jpeg, dicom_jpeg2000,
        tiff, tiff_trailing, tiff_jpeg, tiff_strips, npz, npz_trailing,
    )
}  # fmt: skip
