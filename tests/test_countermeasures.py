"""Countermeasures do what their names say, against Pillow and SciPy, and keep an image's shape and type."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_salm.countermeasures import COUNTERMEASURES, Blur, Jpeg
from monai_salm.intensity import IntensityWindow

BYTE = IntensityWindow(0, 255)
SHAPES = [(1, 17, 20), (3, 16, 16), (1, 9, 10, 11), (2, 8, 8, 8)]


def random_image(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(dtype)


def pillow_round_trip(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("name", COUNTERMEASURES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_shape_and_type_stay_and_the_input_is_untouched(
    name: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    image = random_image(shape, dtype, rng)
    before = image.copy()
    (result,) = COUNTERMEASURES[name].prepare([image], BYTE)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    np.testing.assert_array_equal(image, before)
    assert (name == "none") == np.array_equal(result, image)


def test_jpeg_of_grey_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((1, 17, 20), "uint8", rng)
    np.testing.assert_array_equal(Jpeg(quality=10).apply(image, BYTE)[0], pillow_round_trip(image[0], 10))


def test_jpeg_of_colour_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((3, 16, 16), "uint8", rng)
    expected = pillow_round_trip(np.ascontiguousarray(image.transpose(1, 2, 0)), 30)
    np.testing.assert_array_equal(Jpeg(quality=30).apply(image, BYTE), expected.transpose(2, 0, 1))


def test_jpeg_of_a_volume_goes_slice_by_slice(rng: np.random.Generator) -> None:
    image = random_image((1, 9, 10, 11), "uint8", rng)
    result = Jpeg().apply(image, BYTE)
    for index in range(11):
        expected = pillow_round_trip(np.ascontiguousarray(image[0, :, :, index]), 10)
        np.testing.assert_array_equal(result[0, :, :, index], expected)


def test_jpeg_works_in_the_window(rng: np.random.Generator) -> None:
    pixels = random_image((1, 16, 16), "uint8", rng)
    window = IntensityWindow(-1000, 1000)
    hounsfield = np.rint(pixels / 255 * 2000 - 1000).astype(np.int16)
    expected = np.rint(Jpeg().apply(pixels, BYTE) / 255 * 2000 - 1000)
    np.testing.assert_array_equal(Jpeg().apply(hounsfield, window), expected)


@pytest.mark.parametrize("shape", [(1, 17, 20), (2, 9, 10, 11), (1, 3, 3)])
@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_blur_is_scipys(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> None:
    image = rng.uniform(0, 255, shape).astype(np.float32)
    sigmas = (0, *[sigma] * (len(shape) - 1))
    expected = gaussian_filter(image.astype(np.float64), sigmas, mode="nearest", truncate=4)
    np.testing.assert_allclose(Blur(sigma=sigma).apply(image, BYTE), expected, atol=1e-3)


def test_blur_rounds_integers(rng: np.random.Generator) -> None:
    image = random_image((1, 16, 16), "uint8", rng)
    expected = np.rint(gaussian_filter(image.astype(np.float64), (0, 1, 1), mode="nearest", truncate=4))
    assert np.abs(Blur().apply(image, BYTE).astype(float) - expected).max() <= 1  # float32 may round a tie elsewhere


@pytest.mark.parametrize("quality", [0, 96])
def test_jpeg_quality_is_checked(quality: int) -> None:
    with pytest.raises(ValueError, match=rf"quality must be in \[1, 95\], got {quality}"):
        Jpeg(quality=quality)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_blur_sigma_is_checked(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be positive"):
        Blur(sigma=sigma)
