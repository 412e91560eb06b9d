"""Files are read as stored, rewritten with nothing but their voxels changed, and refused where they are damaged or hostile."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImaged
from nibabel.nifti1 import Nifti1Extension

from monai_salm.formats import FORMATS, FormatError, NpzArchive, find_format, format_of, npz
from monai_salm.noise.digest import content_digest
from monai_salm.shared.arrays import Pages

NIFTI = FORMATS["nifti"]
# Little endian, dim[1] at byte 42, bitpix at 72, scl_slope at 112, magic at 344.
DIM, SLOPE, INTER, OFFSET, MAGIC = 42, 112, 116, 108, 344


def save_nifti(path: Path, array: np.ndarray, version: int = 1, order: str = "<", extra: bytes = b"") -> Path:
    """Write an array unscaled, with an extension, an oblique affine, and bytes after the voxels."""
    affine = np.array([[0.9, 0.1, 0, -7], [-0.1, 1.1, 0, 5], [0, 0, 2.5, 3], [0, 0, 0, 1]])
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = kind.header_class(endianness=order)
    image = kind(array, affine, header, dtype=array.dtype)
    image.header.extensions.append(Nifti1Extension("comment", b"kept as it is"))
    content = image.to_bytes() + extra
    path.write_bytes(gzip.compress(content, mtime=12345) if path.suffix == ".gz" else content)
    return path


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.startswith("float"):
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -30000), min(limits.max, 30000), shape).astype(dtype)


# MONAI tries every reader it has, and this one says that it is not there.
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 1), (5, 4, 3, 2), (5, 4, 3, 1)])
def test_nifti_reads_what_monai_loads(
    tmp_path: Path, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    path = save_nifti(tmp_path / "image.nii.gz", random_array(rng, dtype, shape))
    image = NIFTI.read(path)
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": str(path)})["image"]
    assert image.dtype == np.dtype(dtype)
    assert image.shape == tuple(loaded.shape)
    assert np.array_equal(image, loaded.numpy())
    assert content_digest(image) == content_digest(loaded.numpy())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_nifti_write_changes_the_voxels_alone(
    tmp_path: Path, rng: np.random.Generator, suffix: str, version: int, order: str
) -> None:
    array = random_array(rng, "int16", (4, 3, 2))
    source = save_nifti(tmp_path / "a.nii.gz", array, version, order, b"trailing")
    if suffix != ".nii.gz":
        (tmp_path / f"b{suffix}").write_bytes(source.read_bytes() if suffix.endswith("GZ") else content(source))
        source = tmp_path / f"b{suffix}"
    image = NIFTI.read(source)
    assert image.dtype.isnative
    target, again = tmp_path / f"out{suffix}", tmp_path / f"again{suffix}"
    NIFTI.write(source, target, image + 1)
    NIFTI.write(source, again, image + 1)
    assert np.array_equal(NIFTI.read(target), array[None] + 1)
    assert NIFTI.frame(source) == NIFTI.frame(target)
    unpack = gzip.decompress if suffix.lower().endswith("gz") else bytes
    before, after = unpack(source.read_bytes()), unpack(target.read_bytes())
    offset = int(nibabel.Nifti1Image.from_bytes(before).dataobj.offset) if version == 1 else None
    if offset is not None:
        assert before[:offset] == after[:offset]
    assert b"kept as it is" in after
    assert after.endswith(b"trailing")
    assert target.read_bytes() == again.read_bytes()
    NIFTI.write(target, again, image)
    assert unpack(again.read_bytes()) == before


def test_nifti_gzip_tells_neither_name_nor_time(tmp_path: Path, rng: np.random.Generator) -> None:
    source = save_nifti(tmp_path / "patient.nii.gz", random_array(rng, "uint8", (3, 3)))
    NIFTI.write(source, tmp_path / "smith.nii.gz", NIFTI.read(source))
    head = (tmp_path / "smith.nii.gz").read_bytes()[:10]
    assert head[3] == 0
    assert head[4:8] == b"\0\0\0\0"


def test_nifti_frame_sees_the_header_and_the_tail(tmp_path: Path, rng: np.random.Generator) -> None:
    source = save_nifti(tmp_path / "a.nii", random_array(rng, "uint8", (3, 3)), extra=b"tail")
    frame = NIFTI.frame(source)
    for place in (80, -1):
        changed = bytearray(source.read_bytes())
        changed[place] ^= 1
        (tmp_path / "b.nii").write_bytes(changed)
        assert NIFTI.frame(tmp_path / "b.nii") != frame


@pytest.mark.parametrize("image", [np.zeros((1, 3, 4), "uint8"), np.zeros((1, 3, 3), "int16")])
def test_nifti_refuses_another_shape_or_type(tmp_path: Path, image: np.ndarray) -> None:
    source = save_nifti(tmp_path / "a.nii", np.zeros((3, 3), "uint8"))
    with pytest.raises(FormatError, match=r"a\.nii holds uint8 \(1, 3, 3\), cannot take"):
        NIFTI.write(source, tmp_path / "b.nii", image)
    assert not (tmp_path / "b.nii").exists()


def patched(place: int, layout: str, *values: Any) -> Any:
    def patch(data: bytearray) -> bytearray:
        struct.pack_into(layout, data, place, *values)
        return data

    return patch


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (patched(SLOPE, "<ff", 1.0, float("nan")), "bad NIfTI header"),
        (patched(MAGIC, "<4s", b"ni1\0"), "pair"),
        (patched(0, "<i", 347), "not a NIfTI file"),
        (patched(OFFSET, "<f", 16.0), "header"),
        (patched(OFFSET, "<f", float("nan")), "header"),
        (patched(OFFSET, "<f", float("inf")), "header"),
        (patched(DIM - 2, "<4h", 3, 32767, 32767, 32767), "can hold"),
        (patched(DIM - 2, "<4h", 3, 5, -4, 3), "shape|header"),
        (patched(DIM - 2, "<6h", 5, 2, 2, 2, 2, 2), "shape"),
        (patched(DIM - 2, "<2h", 1, 5), "shape"),
        (patched(70, "<hh", 128, 24), "can hold"),
        (patched(70, "<hh", 32, 64), "complex"),
        (patched(70, "<hh", 1536, 128), "extended-precision|header"),
        (patched(70, "<hh", 1, 1), "header"),
        (lambda data: data[:100], "not a NIfTI file|header"),
        (lambda data: data[:-1], "can hold"),
        (lambda data: bytearray(), "empty"),
        (lambda data: data + bytes((1 << 24) + 1), "follow the voxels"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_refuses_with_a_reason(tmp_path: Path, patch: Any, reason: str, suffix: str) -> None:
    data = bytearray(nibabel.Nifti1Image(np.zeros((5, 4, 3), "uint8"), np.eye(4)).to_bytes())
    damaged = bytes(patch(data))
    path = tmp_path / f"case{suffix}"
    path.write_bytes(gzip.compress(damaged) if suffix == ".nii.gz" else damaged)
    with pytest.raises(FormatError, match=reason if suffix == ".nii" else f"{reason}|cut off") as caught:
        NIFTI.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("scaling", [(0.0, 0.0), (1.0, 0.0), (float("nan"), float("nan"))])
def test_nifti_takes_every_way_to_say_unscaled(tmp_path: Path, scaling: tuple[float, float]) -> None:
    data = bytearray(nibabel.Nifti1Image(np.arange(9, dtype="uint8").reshape(3, 3), np.eye(4)).to_bytes())
    struct.pack_into("<ff", data, SLOPE, *scaling)
    (tmp_path / "a.nii").write_bytes(data)
    assert NIFTI.read(tmp_path / "a.nii").max() == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-8] + bytes([data[-8] ^ 255]) + data[-7:],  # the checksum
        lambda data: data[:-1],
        lambda data: data[:20] + bytes([data[20] ^ 255]) + data[21:],
        lambda data: data + b"garbage",
        lambda data: b"plain text, not gzip",
    ],
)
def test_damaged_gzip_is_refused(tmp_path: Path, rng: np.random.Generator, damage: Any) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", random_array(rng, "int16", (8, 8, 8)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FormatError, match=r"a\.nii\.gz"):
        NIFTI.read(path)


def test_formats_are_found_by_name() -> None:
    assert format_of(Path("x/IMAGE.nii.gz")) is NIFTI
    assert find_format(Path("x/nii.txt")) is None
    with pytest.raises(FormatError, match=r"x\.xyz: not a format .*\.nii"):
        format_of(Path("x.xyz"))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("x.svs", "a slide or a microscope.*export each as TIFF"),
        ("x.PAR", r"Philips.*convert it to NIfTI \(nibabel's parrec2nii"),
        ("x+orig.BRIK.gz", "AFNI.*convert it to NIfTI"),
        ("x.mnc", "MINC.*convert it to NIfTI"),
        ("x.dcm.gz", "packed DICOM; unpack it"),
        ("x.tck", "streamlines: no image"),
        ("x.func.gii", "no image"),
        ("x.hdr", r"its voxels are in an \.img"),
    ],
)
def test_a_file_of_a_known_format_that_is_not_read_is_named(file: str, why: str) -> None:
    with pytest.raises(FormatError, match=f"{re.escape(file)}: it is .*{why}"):
        format_of(Path(file))


# ---------------------------------------------------------------------------------------------------------------------
# .npz


def save_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def save_members(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(f"{name}.npy", raw)
    return path


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float32"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_write_changes_one_array_alone(
    tmp_path: Path, rng: np.random.Generator, dtype: str, order: Any, save: Any
) -> None:
    images = np.asarray(rng.integers(0, 200, (3, 4, 5)), dtype, order=order)
    labels = np.arange(3)[:, None]
    save(tmp_path / "a.npz", train_images=images, train_labels=labels)
    archive = NpzArchive(tmp_path / "a.npz")
    assert archive.keys == ("train_images", "train_labels")
    assert archive.header("train_images") == ((3, 4, 5), np.dtype(dtype))
    assert np.array_equal(archive.array("train_images"), images)
    for name in ("b.npz", "c.npz"):
        archive.write(tmp_path / name, {"train_images": (images + 1).astype(images.dtype.newbyteorder("="))})
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    with np.load(tmp_path / "b.npz") as written, zipfile.ZipFile(tmp_path / "b.npz") as packed:
        assert np.array_equal(written["train_images"], images + 1)
        assert written["train_images"].dtype == images.dtype
        assert np.array_equal(written["train_labels"], labels)
        method = zipfile.ZIP_STORED if save is np.savez else zipfile.ZIP_DEFLATED
        assert {member.compress_type for member in packed.infolist()} == {method}
    NpzArchive(tmp_path / "b.npz").write(tmp_path / "d.npz", {"train_images": images})
    assert NpzArchive(tmp_path / "d.npz").raw("train_images") == archive.raw("train_images")


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_takes_rows_one_by_one_and_none_too_many(tmp_path: Path, rng: np.random.Generator, order: Any) -> None:
    images = np.asarray(rng.integers(0, 200, (3, 4, 5)), ">i2", order=order)
    archive = NpzArchive(save_npz(tmp_path / "a.npz", train_images=images))
    archive.write(tmp_path / "b.npz", {"train_images": (row.astype("i2") + 1 for row in images)})
    with np.load(tmp_path / "b.npz") as written:
        assert np.array_equal(written["train_images"], images + 1)
        assert written["train_images"].dtype == images.dtype
    for wrong in (images[:2], np.concatenate([images, images]), images[:, :3], images.astype("f4")):
        with pytest.raises(FormatError, match=r"'train_images' is .* cannot take"):
            archive.write(tmp_path / "c.npz", {"train_images": iter(wrong)})
    assert not (tmp_path / "c.npz").exists()


def test_a_large_npz_member_is_the_same_from_a_file_as_from_memory(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = rng.integers(0, 200, (3, 40, 50))
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "b.npz")):
        save(tmp_path / name, train_images=images)
        monkeypatch.setattr(npz, "_IN_MEMORY", 100)
        found = NpzArchive(tmp_path / name).array("train_images")
        assert np.array_equal(found, images)
        assert not found.flags.writeable
        assert Pages(found)._map is not None
        monkeypatch.setattr(npz, "TemporaryFile", no_room)
        assert np.array_equal(NpzArchive(tmp_path / name).array("train_images"), images)
        monkeypatch.undo()


def no_room(**_: Any) -> Any:
    raise OSError(28, "No space left on device")


class Trap:
    """Unpickling this would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_npz_with_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    raw = npy_bytes(np.array([Trap(str(mark))], dtype=object))
    archive = NpzArchive(save_members(tmp_path / "a.npz", train_images=raw))
    with pytest.raises(FormatError, match=r"a\.npz: 'train_images' holds Python objects"):
        archive.array("train_images")
    with pytest.raises(FormatError, match="pickle"):
        archive.header("train_images")
    assert not mark.exists()


def header_bytes(text: str) -> bytes:
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (header_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9)}"), "header"),
        (header_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 9999999)}"), "declares"),
        (header_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}") + b"xx", "numbers"),
        (header_bytes("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}") + bytes(16), "numbers"),
        (header_bytes("(" * 5000), "header"),
        (header_bytes("__import__('os').abort()"), "header"),
        (npy_bytes(np.zeros(9, "uint8"))[:-1], "declares"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"", "header"),
    ],
)
def test_npz_member_that_lies_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    archive = NpzArchive(save_members(tmp_path / "a.npz", train_images=raw))
    with pytest.raises(FormatError, match=reason) as caught:
        archive.array("train_images")
    assert "a.npz" in str(caught.value)


def test_npz_damage_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = save_npz(tmp_path / "a.npz", train_images=rng.integers(0, 255, (9, 9, 9), "uint8")).read_bytes()
    cut, flipped = tmp_path / "cut.npz", tmp_path / "flipped.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cut\.npz"):
        NpzArchive(cut)
    place = len(whole) // 2
    flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(FormatError, match=r"flipped\.npz.*damaged"):
        NpzArchive(flipped).array("train_images")


def test_npz_bomb_and_foreign_members_are_refused(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", x=np.zeros(10, "uint8"))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 2**31)  # the uncompressed size in the central directory
    path.write_bytes(data)
    with pytest.raises(FormatError, match="more than the file"):
        NpzArchive(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("../evil.txt", b"x")
    with pytest.raises(FormatError, match=r"no \.npy array"):
        NpzArchive(tmp_path / "b.npz")
    with pytest.raises(FormatError, match="no array 'y'"):
        NpzArchive(save_npz(tmp_path / "c.npz", x=np.zeros(1))).array("y")


@pytest.mark.parametrize("array", [np.zeros((2, 3), "uint8"), np.zeros((2, 2), "int16")])
def test_npz_refuses_another_shape_or_type(tmp_path: Path, array: np.ndarray) -> None:
    archive = NpzArchive(save_npz(tmp_path / "a.npz", x=np.zeros((2, 2), "uint8")))
    with pytest.raises(FormatError, match="cannot take"):
        archive.write(tmp_path / "b.npz", {"x": array})
    assert not (tmp_path / "b.npz").exists()
    assert list(tmp_path.glob(".*")) == []
