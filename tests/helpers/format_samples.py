"""Small files of every format, made by libraries that the package does not read or write with where there is one."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import png
import pydicom
import SimpleITK
import tifffile
from nibabel.nifti1 import Nifti1Extension
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from monai_salm.formats import ImageFormat, format_of
from monai_salm.shared.arrays import Array

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000 lossless": JPEG2000Lossless,
}
UID = "1.2.840.99999.7.1"


def random_array(dtype: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Numbers over much of a type's range; floats with a NaN, an infinity and a negative zero."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        array = rng.normal(0, 1000, shape).astype(dtype)
        array.flat[:3] = [np.nan, np.inf, -0.0]
        return array
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**40)), min(limits.max, 2**40)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def with_noise(image: Array, bounds: tuple[int, int] | None = None) -> Array:
    """An image in which every finite voxel is another, inside the bounds."""
    if image.dtype.kind == "f":
        return np.where(np.isfinite(image), np.nextafter(image, np.array(np.inf, image.dtype)), image)
    high = bounds[1] if bounds else np.iinfo(image.dtype).max
    one = np.ones((), image.dtype)
    return np.where(image < high, image + one, image - one)


def round_trip(format_: ImageFormat, path: Path, folder: Path) -> bool:
    """Write a file with noise, read, check and restore it; whether every byte came back.

    Everything else that must hold is asserted.
    """
    places = [folder / name for name in ("protected", "again", "restored")]
    for place in places:
        place.mkdir()
    name = path.name if format_.published is None else path.stem + format_.published
    protected, again, restored = places[0] / name, places[1] / name, places[2] / path.name
    image = format_.read(path)
    assert image.dtype.isnative
    assert image.flags.c_contiguous
    noisy = with_noise(image, format_.bounds(path))
    kept = format_.keepsake(path)
    format_.write(path, protected, noisy)
    format_.rewrite(path, again, lambda _: noisy)
    assert all(part.read_bytes() == (places[1] / part.name).read_bytes() for part in places[0].iterdir())
    assert {part.name for part in places[0].iterdir()} == {name, *format_.companions(path)}
    read = format_of(protected).read(protected)
    assert (read.dtype, read.shape, read.tobytes()) == (image.dtype, image.shape, noisy.tobytes())
    assert list(format_.differences(path, protected)) == []
    assert format_of(protected).bounds(protected) == format_.bounds(path)
    format_of(protected).restore(protected, restored, image, kept)
    back = format_.read(restored)
    assert (back.dtype, back.shape, back.tobytes()) == (image.dtype, image.shape, image.tobytes())
    assert format_.frame(restored) == format_.frame(path)
    assert sorted(folder.rglob(".*")) == []
    files = (path.name, *format_.companions(path))
    return all((places[2] / file).read_bytes() == (folder / file).read_bytes() for file in files)


# ---------------------------------------------------------------------------------------------------------------------
# One function a format. Each writes one file and returns its path.


def save_nifti(
    folder: Path,
    dtype: str = "int16",
    shape: Sequence[int] = (5, 4, 3),
    suffix: str = ".nii.gz",
    version: int = 1,
    order: str = "<",
    scaling: tuple[float, float] | None = None,
    tail: bytes = b"",
    comment: bytes = b"kept as it is",
) -> Path:
    """With an extension and an oblique affine."""
    affine = np.array([[0.9, 0.1, 0, -7], [-0.1, 1.1, 0, 5], [0, 0, 2.5, 3], [0, 0, 0, 1]])
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(random_array(dtype, shape), affine, kind.header_class(endianness=order), dtype=np.dtype(dtype))
    image.header.extensions.append(Nifti1Extension("comment", comment))
    content = bytearray(image.to_bytes() + tail)
    if scaling is not None:
        place, layout = (112, "ff") if version == 1 else (176, "dd")
        struct.pack_into(f"{order}{layout}", content, place, *scaling)
    path = folder / f"image{suffix}"
    path.write_bytes(gzip.compress(content, 9, mtime=12345) if suffix == ".nii.gz" else content)
    return path


def save_nifti_colours(folder: Path, samples: int) -> Path:
    """RGB or RGBA voxels."""
    kind = np.dtype([(name, "u1") for name in "RGBA"[:samples]])
    voxels = random_array("uint8", (5, 4, 3, samples)).view(kind)[..., 0]
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "image.nii")
    return folder / "image.nii"


def save_pair(folder: Path, dtype: str = "int16", kind: Any = nibabel.Nifti1Pair, suffix: str = ".img") -> Path:
    """Header and voxels in two files."""
    header = kind.header_class()
    header.set_data_dtype(np.dtype(dtype))
    nibabel.save(kind(random_array(dtype, (5, 4, 3)), np.diag([1, 2, 3, 1.0]), header), folder / f"image{suffix}")
    return folder / f"image{suffix}"


def save_by_itk(
    folder: Path,
    file: str,
    dtype: str = "int16",
    shape: Sequence[int] = (5, 4, 3),
    packed: bool = False,
    channels: int = 1,
) -> Path:
    """NRRD or MetaImage, written by SimpleITK; ``shape`` is ``(x, y[, z])``."""
    array = random_array(dtype, (*shape[::-1], *([channels] if channels > 1 else [])))
    image = SimpleITK.GetImageFromArray(array, isVector=channels > 1)
    image.SetSpacing([0.5, 2.0, 3.0][: len(shape)])
    image.SetMetaData("note", "kept")
    SimpleITK.WriteImage(image, str(folder / file), useCompression=packed)
    return folder / file


def save_nrrd_text(folder: Path, *lines: str, data: bytes = bytes(range(60)), file: str = "image.nrrd") -> Path:
    """An NRRD file of 5 x 4 x 3 bytes, or of what the lines say."""
    own = {line.split(":")[0] for line in lines}
    usual = ("type: uint8", "dimension: 3", "sizes: 5 4 3", "encoding: raw", "endian: little")
    text = "\n".join(["NRRD0004", "# by hand", *(line for line in usual if line.split(":")[0] not in own), *lines])
    (folder / file).write_bytes(text.encode() + b"\n\n" + data)
    return folder / file


def save_mgh(folder: Path, dtype: str = "int16", file: str = "image.mgz", frames: int = 1) -> Path:
    """Written by nibabel."""
    shape = (5, 4, 3, frames) if frames > 1 else (5, 4, 3)
    nibabel.save(nibabel.MGHImage(random_array(dtype, shape), np.diag([1, 2, 3, 1.0])), folder / file)
    return folder / file


def save_png(
    folder: Path,
    dtype: str = "uint8",
    channels: int = 1,
    alpha: bool = False,
    shape: tuple[int, int] = (6, 5),
    **options: Any,
) -> Path:
    """Written by pypng."""
    array = random_array(dtype, (*shape, channels + alpha))
    path = folder / "image.png"
    bits = np.dtype(dtype).itemsize * 8
    with path.open("wb") as file:
        writer = png.Writer(shape[1], shape[0], greyscale=channels == 1, alpha=alpha, bitdepth=bits, **options)
        writer.write(file, array.reshape(shape[0], -1).tolist())
    return path


def save_picture(
    folder: Path, file: str = "image.jpg", mode: str = "L", shape: tuple[int, int] = (20, 18), **options: Any
) -> Path:
    """Written by Pillow; the numbers run smoothly, so that JPEG keeps what they show."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grey = (rows * 9 + columns * 3 + 5).astype("uint8")
    rgb = Image.fromarray(np.stack([grey, 255 - grey, grey // 2], -1))
    picture = Image.fromarray(grey).convert(mode) if mode in ("L", "1", "LA") else rgb.convert(mode)
    picture.save(folder / file, **options)
    return folder / file


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(path: Path, *chunks: bytes, tail: bytes = b"") -> Path:
    """Put chunks behind the header of a PNG file, and bytes behind its end."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:] + tail)
    return path


def save_tiff(folder: Path, dtype: str = "uint8", shape: Sequence[int] = (33, 20), **options: Any) -> Path:
    """Written by tifffile."""
    path = folder / "image.tif"
    options.setdefault("photometric", "minisblack")
    options.setdefault("metadata", None)
    tifffile.imwrite(path, random_array(dtype, shape), **options)
    return path


def save_npy(folder: Path, dtype: str = "int16", shape: Sequence[int] = (6, 5, 4), order: Any = "C") -> Path:
    path = folder / "image.npy"
    np.save(path, np.asarray(random_array(np.dtype(dtype).newbyteorder("=").name, shape), dtype, order=order))
    return path


def save_npz(folder: Path, dtype: str = "int16", shape: Sequence[int] = (6, 5, 4), packed: bool = True) -> Path:
    path = folder / "image.npz"
    (np.savez_compressed if packed else np.savez)(path, image=random_array(dtype, shape))
    return path


def save_dicom(
    folder: Path,
    syntax: str = "explicit",
    bits: int = 16,
    stored: int | None = None,
    signed: bool = False,
    shape: Sequence[int] = (6, 5),
    channels: int = 1,
    planar: int = 0,
    file: str = "image.dcm",
    uid: str = UID,
    zero_filled: bool = False,
    seed: int = 0,
    **elements: Any,
) -> Path:
    """Written by pydicom; ``shape`` is ``(rows, columns)`` or ``(frames, rows, columns)``."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, uid, f"{UID}.9"
    data.ImageType, data.PatientName, data.Modality = ["ORIGINAL", "PRIMARY", "AXIAL"], "Nobody", "OT"
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    stored = stored or bits
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = channels, bits, stored, stored - 1
    data.PixelRepresentation = int(signed)
    data.PhotometricInterpretation = "RGB" if channels == 3 else "MONOCHROME2"
    if channels == 3:
        data.PlanarConfiguration = planar
    for name, value in elements.items():
        set_element(data, name, value)
    private = data.private_block(0x0011, "A MAKER", create=True)
    private.add_new(0x01, "OB", b"\1\2\3\4")
    numbers = _numbers(bits, stored, signed, (*shape, channels), zero_filled, seed)
    cells = numbers.astype(numbers.dtype.newbyteorder(">")) if syntax == "big-endian" else numbers
    if planar:
        cells = np.moveaxis(cells, -1, -3)
    data.PixelData = cells.tobytes() + b"\0" * (cells.nbytes % 2)
    # Eight bits in big-endian words would be swapped.
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    return write_dicom_dataset(folder / file, data, syntax)


def save_dicom_palette(
    folder: Path, bits: int = 8, entries: int = 256, first: int = 0, words: bool = False, **options: Any
) -> Path:
    """With a palette of ``entries`` colours of so many bits; ``words`` stores each of 8 bits in 16."""
    table = np.random.default_rng(1).integers(0, 2**bits, (3, entries)).astype(f"<u{2 if words else bits // 8}")
    order = ">" if options.get("syntax") == "big-endian" else "<"
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, numbers in zip(("Red", "Green", "Blue"), table, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        content = numbers.tobytes() + b"\0" * (numbers.nbytes % 2)
        elements[f"{name}Descriptor"] = [entries % 2**16, first, bits]
        elements[f"{name}Data"] = np.frombuffer(content, "<u2").astype(f"{order}u2").tobytes()
    return save_dicom(folder, **{**options, "bits": 8}, **elements)


def save_dicom_ybr(folder: Path, photometric: str = "YBR_FULL", **options: Any) -> Path:
    """YBR that is not compressed."""
    path = save_dicom(folder, **{"bits": 8, "channels": 3, **options}, PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL_422":
        data = read_dicom(path)
        data.PixelData = data.PixelData[: len(data.PixelData) // 3 * 2]
        data.save_as(path)
    return path


def save_dicom_packed(folder: Path, photometric: str, packing: str = "JPEG", **options: Any) -> Path:
    """Colours that Pillow compressed, as one frame."""
    buffer = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 18, 3)).astype("uint8")
    Image.fromarray(pixels).save(buffer, packing, **options)
    path = save_dicom(folder, bits=8, channels=3, shape=(20, 18), PhotometricInterpretation=photometric)
    data = read_dicom(path)
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if packing == "JPEG" else JPEG2000
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def save_dicom_words(folder: Path) -> Path:
    """Big-endian, with pixels of 8 bits in words."""
    path = save_dicom(folder, "big-endian", bits=8)
    content = path.read_bytes()
    place = content.index(b"\x7f\xe0\x00\x10OB")
    start = place + 12
    swapped = np.frombuffer(content[start:], "u2").byteswap().tobytes()
    path.write_bytes(content[: place + 4] + b"OW" + content[place + 6 : start] + swapped)
    return path


def _numbers(bits: int, stored: int, signed: bool, shape: Sequence[int], zero_filled: bool, seed: int) -> np.ndarray:
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    numbers = np.random.default_rng(seed).integers(low, high, shape).astype(f"{'i' if signed else 'u'}{bits // 8}")
    unsigned = numbers.view(f"u{bits // 8}")
    return unsigned & unsigned.dtype.type(2**stored - 1) if zero_filled else unsigned


def write_dicom_dataset(path: Path, data: Dataset, syntax: str) -> Path:
    data.file_meta = FileMetaDataset()
    compressed = syntax in ("RLE", "JPEG 2000 lossless")
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else SYNTAXES[syntax]
    data.preamble = b"preamble".ljust(128, b"\7")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compressed:
            data.compress(SYNTAXES[syntax], generate_instance_uid=False)
        pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def set_element(data: Dataset, name: str, value: Any) -> None:
    """Set an element by its keyword, also one of the overlay groups, which pydicom does not set so."""
    if name == "OverlayBitPosition":
        data.add_new(0x60000102, "US", value)
    else:
        setattr(data, name, value)


def dicom_sequence(**elements: Any) -> DicomSequence:
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return DicomSequence([item])


def read_dicom(path: Path) -> Dataset:
    return pydicom.dcmread(BytesIO(path.read_bytes()))
