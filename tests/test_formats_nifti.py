"""NIfTI beyond the basics: scaling is kept, one time step is passed over, gzip is read within bounds and only once."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from format_samples import random_array, save_nifti, with_noise

from monai_salm.formats import FORMATS, FormatError, gzipped, limits
from monai_salm.formats.base import opened_once
from monai_salm.formats.gzipped import open_gzip, pack

NIFTI = FORMATS["nifti"]


@pytest.mark.parametrize("scaling", [(2.0, -1024.0), (0.5, 0.0), (1.0, -1024.0)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_noise_on_scaled_files_is_scaled_on_loading(tmp_path: Path, scaling: tuple[float, float], suffix: str) -> None:
    path, target = save_nifti(tmp_path, scaling=scaling, suffix=suffix), tmp_path / f"noisy{suffix}"
    image = NIFTI.read(path)
    assert image.dtype == np.int16
    NIFTI.write(path, target, with_noise(image))
    before, after = nibabel.load(path), nibabel.load(target)
    assert (after.dataobj.slope, after.dataobj.inter) == scaling
    change = with_noise(image)[0].astype(float) - image[0]
    assert np.array_equal(after.get_fdata() - before.get_fdata(), change * scaling[0])


def test_one_time_step_is_passed_over(tmp_path: Path) -> None:
    path = save_nifti(tmp_path, shape=(5, 4, 3, 1, 2))
    stored = random_array("int16", (5, 4, 3, 1, 2))
    assert np.array_equal(NIFTI.read(path), np.moveaxis(stored[:, :, :, 0], -1, 0))


@pytest.fixture(params=["standard library", "ISA-L"])
def deflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reading and writing by one library, whichever are installed."""
    if request.param == "ISA-L":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(gzipped, "_fast", lambda name, slow: slow)


def test_gzip_is_the_same_by_every_library(deflate: Any, tmp_path: Path) -> None:
    """What one library packs, every library reads; the same content gives the same bytes."""
    content = random_array("int16", (61, 52, 130)).tobytes() + bytes(100_000)
    packed = pack(content)
    assert packed == pack(bytearray(content))
    assert gzip.decompress(packed) == content
    with open_gzip(save_gzip(tmp_path, gzip.compress(content, 6) + packed + bytes(7))) as file:
        assert file.read(1000) == content[:1000]
        assert file.read(len(content)) == content[1000:] + content[:1000]
        assert file.read() == content[1000:]
        assert file.read(1) == b""


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-8],
        lambda data: data[:5],
        lambda data: data + b"garbage",
        lambda data: data + data[:-4],
        lambda data: data[:-1] + b"\7",
        lambda data: data[:-8] + b"abcd" + data[-4:],
        lambda data: data[: len(data) // 2] + b"\xff" * 20 + data[len(data) // 2 + 20 :],
    ],
)
def test_damaged_gzip_is_a_message_by_every_library(deflate: Any, tmp_path: Path, damage: Any) -> None:
    path = save_gzip(tmp_path, damage(pack(random_array("int16", (40, 40, 40)).tobytes())))
    with pytest.raises(FormatError, match=r"a\.gz: damaged gzip"), open_gzip(path) as file:
        file.read(1 << 30)


def test_a_file_is_opened_once_within_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, seen = save_nifti(tmp_path), type(NIFTI).open, list[Path]()
    monkeypatch.setattr(type(NIFTI), "open", lambda self, path: seen.append(path) or opened(self, path))
    with opened_once():
        image, frame = NIFTI.read(path), NIFTI.frame(path)
        with opened_once():
            assert np.array_equal(NIFTI.read(path), image)
        assert seen == [path]
        NIFTI.write(path, tmp_path / "b.nii.gz", with_noise(image))
        assert seen == [path]
        assert np.array_equal(NIFTI.read(path), image)  # not what was written
    assert NIFTI.frame(path) == frame == NIFTI.frame(tmp_path / "b.nii.gz")
    seen.clear()
    NIFTI.rewrite(path, tmp_path / "b.nii.gz", with_noise)
    assert seen == [path]


def test_an_edit_of_another_shape_writes_nothing(tmp_path: Path) -> None:
    path = save_nifti(tmp_path)
    with pytest.raises(FormatError, match="cannot take"):
        NIFTI.rewrite(path, tmp_path / "b.nii.gz", lambda image: image[:, 1:])
    assert not (tmp_path / "b.nii.gz").exists()


def save_gzip(folder: Path, content: bytes) -> Path:
    (folder / "a.gz").write_bytes(content)
    return folder / "a.gz"


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_gzip_of_several_members_is_read_whole(tmp_path: Path, piece: int) -> None:
    parts = [b"", b"one" * 5, bytes(random_array("uint8", (500,))), b""]
    path = save_gzip(tmp_path, b"".join(map(gzip.compress, parts)) + bytes(20))
    pieces = []
    with open_gzip(path) as file:
        while part := file.read(piece):
            assert len(part) <= piece
            pieces.append(part)
    assert b"".join(pieces) == b"".join(parts)


def test_packing_is_deterministic_gzip() -> None:
    content = random_array("uint8", (1000,)).tobytes() + bytes(1000)
    assert gzip.decompress(pack(content)) == content
    assert pack(content) == pack(bytearray(content))
    assert pack(content)[3:8] == bytes(5)  # no name, no time
    assert zlib.decompress(pack(b""), 31) == b""


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A small image followed by very many zeros is refused after the bytes that an image may have behind it."""
    content = save_nifti(tmp_path, suffix=".nii").read_bytes()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(pack(content + bytes(1 << 26)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FormatError, match="follow the voxels"):
        NIFTI.read(path)
    assert limits.MAX_RATIO == 1032


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_native_unit_is_the_scaling(tmp_path: Path, suffix: str) -> None:
    scaled = save_nifti(tmp_path, scaling=(0.5, -1024.0), suffix=suffix)
    assert NIFTI.native_unit(scaled) == (0.5, "units of the scaled file")
    assert NIFTI.native_unit(save_nifti(tmp_path, scaling=(1.0, -1024.0), suffix=suffix)) is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scaling", [None, (2.0, -1024.0), (0.0, 7.0)])
def test_the_header_says_what_the_numbers_mean(
    tmp_path: Path, version: int, scaling: tuple[float, float] | None
) -> None:
    """A slope of 0 is no scaling, by the standard; the size of a voxel is in millimetres along each stored axis."""
    units = NIFTI.units(save_nifti(tmp_path, version=version, scaling=scaling))
    assert (units.slope, units.intercept) == (scaling if scaling == (2.0, -1024.0) else (1.0, 0.0))
    assert units.spacing == pytest.approx((0.906, 1.105, 2.5), abs=0.001)
    assert NIFTI.units(save_nifti(tmp_path, shape=(5, 4))).spacing == (), "a picture has no thickness"


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_the_size_of_a_voxel_is_told_in_millimetres(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "i.nii")
    assert NIFTI.units(tmp_path / "i.nii").spacing == pytest.approx((2 * factor, 3 * factor, 4 * factor))


def test_a_code_of_no_unit_counts_as_millimetres(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([2.0, 2, 2, 1])), path)
    content = bytearray(path.read_bytes())
    content[123] = 7  # xyzt_units
    path.write_bytes(content)
    assert NIFTI.units(path).spacing == (2, 2, 2)
