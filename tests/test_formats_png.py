"""PNG: any filter is undone exactly, all chunks stay, and other programs read what is written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import png
import pytest
from format_samples import png_chunk, random_array, save_png, with_chunk, with_noise
from PIL import Image

from monai_salm.formats import FORMATS, FormatError
from monai_salm.formats.png_chunks import SIGNATURE, filter_rows, split_chunks, unfilter

PNG = FORMATS["png"]


def by_pypng(path: Path) -> np.ndarray:
    """``(h, w, samples)`` as another library reads them."""
    width, height, rows, info = png.Reader(bytes=path.read_bytes()).read()
    return np.array([list(row) for row in rows]).reshape(height, width, info["planes"])


def filtered(pixels: np.ndarray, pixel: int, kinds: list[int]) -> bytes:
    """Filter rows byte by byte, as the PNG specification puts it."""
    lines = b""
    for y, kind in enumerate(kinds):
        lines += bytes([kind])
        for x in range(pixels.shape[1]):
            a = int(pixels[y, x - pixel]) if x >= pixel else 0
            b = int(pixels[y - 1, x]) if y else 0
            c = int(pixels[y - 1, x - pixel]) if y and x >= pixel else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            lines += bytes([(int(pixels[y, x]) - (0, a, b, (a + b) // 2, nearest)[kind]) % 256])
    return lines


@pytest.mark.parametrize("pixel", [1, 2, 3, 4, 6, 8])
def test_every_filter_is_undone(pixel: int) -> None:
    pixels = random_array("uint8", (15, 7 * pixel))
    raw = filtered(pixels, pixel, [0, 1, 2, 3, 4] * 3)
    assert np.array_equal(unfilter(raw, 15, pixel), pixels)
    assert np.array_equal(unfilter(zlib.decompress(filter_rows(pixels, pixel)), 15, pixel), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (1, True), (3, False), (3, True)])
def test_others_read_the_same_pixels(tmp_path: Path, dtype: str, channels: int, alpha: bool) -> None:
    path, target = save_png(tmp_path, dtype, channels, alpha, (30, 20)), tmp_path / "noisy.png"
    image, before = PNG.read(path), by_pypng(path)
    assert np.array_equal(np.moveaxis(image, 0, -1), before[..., :channels])
    PNG.write(path, target, with_noise(image))
    after = by_pypng(target)
    assert np.array_equal(np.moveaxis(with_noise(image), 0, -1), after[..., :channels])
    assert np.array_equal(before[..., channels:], after[..., channels:])
    with Image.open(target) as opened:
        opened.load()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_files_of_pillow(tmp_path: Path, mode: str) -> None:
    shape = {"L": (40, 30), "LA": (40, 30, 2), "RGB": (40, 30, 3), "RGBA": (40, 30, 4), "I;16": (40, 30)}[mode]
    array = np.add.outer(np.arange(40), np.arange(30))
    array = np.broadcast_to(array.reshape(40, 30, *[1] * (len(shape) - 2)), shape).astype(
        "uint16" if mode == "I;16" else "uint8"
    )
    Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / "a.png")
    read = np.moveaxis(PNG.read(tmp_path / "a.png"), 0, -1)
    assert np.array_equal(read, array.reshape(40, 30, -1)[..., : read.shape[-1]])


def test_chunks_keep_bytes_and_order(tmp_path: Path) -> None:
    chunks = [
        png_chunk(b"tIME", bytes(7)),
        png_chunk(b"tEXt", b"Author\0nobody"),
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile")),
    ]
    path = with_chunk(save_png(tmp_path, shape=(50, 40), chunk_limit=99), *chunks, tail=b"\0\n")
    data = path.read_bytes()
    last = png_chunk(b"tEXt", b"Comment\0behind the pixels")
    path.write_bytes(data.replace(png_chunk(b"IEND", b""), last + png_chunk(b"IEND", b"")))
    PNG.write(path, tmp_path / "b.png", with_noise(PNG.read(path)))
    kinds = [chunk.kind for chunk in split_chunks((tmp_path / "b.png").read_bytes())[0]]
    assert kinds == [b"IHDR", b"tIME", b"tEXt", b"iCCP", b"IDAT", b"tEXt", b"IEND"]
    written = (tmp_path / "b.png").read_bytes()
    assert all(chunk in written for chunk in (*chunks, last))
    assert written.endswith(b"\0\n")


def test_the_frame_sees_chunks_alpha_and_tail(tmp_path: Path) -> None:
    path = save_png(tmp_path, alpha=True)
    frame, data = PNG.frame(path), path.read_bytes()
    other = tmp_path / "b.png"
    other.write_bytes(data + b"\n")
    assert PNG.frame(other) != frame
    other.write_bytes(data)
    assert PNG.frame(with_chunk(other, png_chunk(b"tEXt", b"a\0b"))) != frame
    with other.open("wb") as file:
        pixels = by_pypng(path)
        pixels[0, 0, 1] ^= 1
        png.Writer(5, 6, greyscale=True, alpha=True).write(file, pixels.reshape(6, -1).tolist())
    assert list(PNG.differences(path, other)) == ["its header or what follows the voxels differs from the original"]


@pytest.mark.parametrize("tail", [b"x", bytes(17), SIGNATURE, None])
def test_what_follows_the_end_may_not_hold_another_image(tmp_path: Path, tail: bytes | None) -> None:
    path = save_png(tmp_path)
    path.write_bytes(path.read_bytes() + (path.read_bytes() if tail is None else tail))
    with pytest.raises(FormatError, match=r"image\.png: \d+ bytes follow its end, which may hold .*cut them off"):
        PNG.read(path)
    for harmless in (bytes(16), b"\r\n \t"):
        path.write_bytes(path.read_bytes().partition(png_chunk(b"IEND", b""))[0] + png_chunk(b"IEND", b"") + harmless)
        assert PNG.read(path).shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (zlib.compress(bytes(6 * 6))[:-1], "holds"),
        (zlib.compress(bytes(6 * 6) + b"x"), "more"),
        (zlib.compress(bytes([9]) + bytes(35)), "filter"),
        (b"", "can hold"),
        (b"garbage, not deflated", "Error"),
    ],
)
@pytest.mark.parametrize("depth", [8, 16])
def test_pixels_that_lie_are_refused(tmp_path: Path, packed: bytes, reason: str, depth: int) -> None:
    header = struct.pack(">IIBBBBB", 5, 6, depth, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(SIGNATURE + chunks)
    with pytest.raises(FormatError, match=r"a\.png: ") as caught:
        PNG.read(tmp_path / "a.png")
    assert depth == 16 or reason in str(caught.value)


def test_every_cut_and_flipped_byte_is_noticed(tmp_path: Path) -> None:
    data = save_png(tmp_path, "uint16", 3).read_bytes()
    path = tmp_path / "damaged.png"
    for place in range(len(data)):
        path.write_bytes(data[:place])
        with pytest.raises(FormatError, match=r"damaged\.png"):
            PNG.read(path)
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(FormatError, match=r"damaged\.png"):
            PNG.read(path)
