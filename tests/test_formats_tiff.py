"""TIFF: pixels are patched in place, and tifffile and Pillow read what is meant."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from format_samples import random_array, save_npy, save_picture, save_tiff, with_noise
from PIL import Image

from monai_salm.formats import FORMATS, FormatError, base

TIFF, NPY = FORMATS["tiff"], FORMATS["npy"]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((33, 20), {}),
        ((33, 20), {"tile": (16, 16), "byteorder": ">"}),
        ((3, 33, 20), {}),
        ((33, 20, 3), {"photometric": "rgb", "rowsperstrip": 5}),
        ((3, 33, 20), {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
    ],
)
def test_tifffile_reads_the_same_pixels(tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    path, target = save_tiff(tmp_path, "uint16", shape, **options), tmp_path / "noisy.tif"
    image, stored = TIFF.read(path), random_array("uint16", shape)
    assert np.array_equal(stored, tifffile.imread(path))
    TIFF.write(path, target, with_noise(image))
    assert np.array_equal(tifffile.imread(target), with_noise(stored))
    assert len(target.read_bytes()) == len(path.read_bytes())


def test_tags_and_descriptions_stay(tmp_path: Path) -> None:
    path = save_tiff(
        tmp_path, description="kept", resolution=(9, 9), datetime=True, extratags=[(65000, "s", 0, "mine", True)]
    )
    TIFF.write(path, tmp_path / "b.tif", with_noise(TIFF.read(path)))
    with tifffile.TiffFile(path) as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert [(t.code, t.value) for t in before.pages[0].tags] == [(t.code, t.value) for t in after.pages[0].tags]
    assert list(TIFF.differences(path, tmp_path / "b.tif")) == []
    data = bytearray((tmp_path / "b.tif").read_bytes())
    data[data.index(b"kept")] ^= 1
    (tmp_path / "b.tif").write_bytes(data)
    assert len(list(TIFF.differences(path, tmp_path / "b.tif"))) == 1


def test_strips_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = save_tiff(tmp_path, shape=(32, 20), rowsperstrip=16)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["StripOffsets"]
        place, first = tag.valueoffset, tag.value[0]
    data = bytearray(path.read_bytes())
    width = 2 if tag.dtype == 3 else 4
    data[place + width : place + 2 * width] = first.to_bytes(width, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="share bytes"):
        TIFF.read(path)


def test_damage_never_crashes_and_never_takes_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    data = save_tiff(tmp_path, "uint16").read_bytes()
    path = tmp_path / "damaged.tif"
    for place in range(260):
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with suppress(FormatError):
            assert TIFF.read(path).nbytes <= len(data)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(base.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"TIFF files need tifffile: pip install 'monai_salm\[tiff\]'"):
        TIFF.read(save_tiff(tmp_path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_keeps_order_and_byte_order(tmp_path: Path, order: str) -> None:
    path = save_npy(tmp_path, ">i2", order=order)
    NPY.write(path, tmp_path / "b.npy", with_noise(NPY.read(path)))
    before, after = np.load(path), np.load(tmp_path / "b.npy")
    assert (after.dtype, after.flags.f_contiguous) == (before.dtype, order == "F")
    assert np.array_equal(after, with_noise(before))


def test_a_compressed_file_keeps_what_readers_go_by(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = [(274, "H", 1, 6, True)]
    path = save_tiff(
        tmp_path, compression="lzw", description="kept", resolution=(300, 150), resolutionunit=3, extratags=tags
    )
    target = tmp_path / "noisy.tif"
    TIFF.write(path, target, with_noise(TIFF.read(path)))
    with tifffile.TiffFile(target) as written:
        page = written.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert page.description == "kept"
        assert page.get_resolution() == (300, 150)
        assert (page.tags[296].value, page.tags[274].value, page.compression) == (3, 6, 1)
    assert np.array_equal(tifffile.imread(target), with_noise(tifffile.imread(path)))
    assert caplog.text == ""


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_other_colours_become_what_pillow_shows(tmp_path: Path, mode: str) -> None:
    path = save_picture(tmp_path, "image.tif", mode)
    colours = "L" if mode in ("1", "LA") else "RGB"
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert(colours)).reshape(20, 18, -1)
    image = TIFF.read(path)
    assert np.array_equal(image, np.moveaxis(expected, -1, 0))
    TIFF.write(path, tmp_path / "copy.tif", with_noise(image))
    with Image.open(tmp_path / "copy.tif") as picture:
        shown = np.asarray(picture.convert(colours)).reshape(20, 18, -1)
        assert np.array_equal(np.moveaxis(shown, -1, 0), with_noise(image))
        assert (picture.mode in ("RGBA", "LA")) == (mode in ("RGBA", "LA"))
        if mode in ("RGBA", "LA"):
            before = Image.open(path)
            assert np.array_equal(picture.getchannel("A"), before.getchannel("A"))
