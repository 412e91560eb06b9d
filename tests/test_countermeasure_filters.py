"""Filters do what their names say, against Pillow, torchvision and the formulas, and keep an image's shape and type."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter
from torchvision.transforms.functional import adjust_gamma, gaussian_blur

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.countermeasures.filters import BitDepth, Blur, Gamma, Grayscale, Jpeg, Median, Resample
from monai_salm.learning.cases import Cases, View
from monai_salm.learning.tasks import Classification
from monai_salm.noise.window import IntensityWindow

BYTE = IntensityWindow(0, 255)
SOFT_TISSUE = IntensityWindow(-160, 240)
FILTERS = [Jpeg(), Blur(), Grayscale(), BitDepth(), Median(), Median(size=2), Resample(), Resample(factor=0.3), Gamma()]
SHAPES = [(1, 17, 20), (3, 16, 15), (1, 9, 10, 11), (2, 8, 7, 8), (3, 6, 7, 8), (1, 1, 5)]

every_filter = pytest.mark.parametrize("item", FILTERS, ids=repr)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random_image(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(dtype)


def as_networks_see(image: np.ndarray, window: IntensityWindow) -> np.ndarray:
    return window.normalize(torch.from_numpy(image.astype(np.float64))).numpy()


# ---- what holds for every filter


@every_filter
@every_shape
@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "int32", "float32"])
def test_shape_and_type_stay_and_the_input_is_untouched(
    item: Countermeasure, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    image = random_image(shape, dtype, rng)
    before = image.copy()
    image.flags.writeable = False  # as in a file that is mapped into memory
    result = item.filter(image, BYTE)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    np.testing.assert_array_equal(image, before)
    if min(shape[1:]) > 1 and (shape[0] == 3 or item.name != "grayscale"):
        assert not np.array_equal(result, image)
    np.testing.assert_array_equal(item.filter(image, BYTE), result)


@every_filter
@every_shape
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_what_networks_do_not_see_makes_no_difference(
    item: Countermeasure, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    image = rng.integers(-1000, 1000, shape).astype(dtype)
    clipped = np.clip(image, SOFT_TISSUE.low, SOFT_TISSUE.high).astype(dtype)
    results = [as_networks_see(item.filter(each, SOFT_TISSUE), SOFT_TISSUE) for each in (image, clipped)]
    np.testing.assert_array_equal(*results)


@every_filter
@every_shape
def test_filters_work_in_the_window(item: Countermeasure, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = random_image(shape, "uint8", rng).astype(np.float64)
    expected = item.filter(pixels, BYTE) / 255 * SOFT_TISSUE.width + SOFT_TISSUE.low
    hounsfield = pixels / 255 * SOFT_TISSUE.width + SOFT_TISSUE.low
    np.testing.assert_allclose(item.filter(hounsfield, SOFT_TISSUE), expected, atol=1e-9)


@every_filter
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8, 8)], ids=str)
def test_black_and_white_images_stay_so(item: Countermeasure, dtype: str, shape: tuple[int, ...]) -> None:
    info = np.iinfo(dtype)
    for value in (info.min, info.max):
        image = np.full(shape, value, dtype)
        np.testing.assert_array_equal(item.filter(image, IntensityWindow(info.min, info.max)), image)


# ---- jpeg


def pillow_round_trip(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_jpeg_of_grey_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((2, 17, 20), "uint8", rng)
    result = Jpeg(quality=10).filter(image, BYTE)
    for channel, expected in zip(result, image, strict=True):
        np.testing.assert_array_equal(channel, pillow_round_trip(expected, 10))


def test_jpeg_of_colour_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((3, 16, 16), "uint8", rng)
    expected = pillow_round_trip(image.transpose(1, 2, 0), 30)
    np.testing.assert_array_equal(Jpeg(quality=30).filter(image, BYTE), expected.transpose(2, 0, 1))


def test_jpeg_of_a_volume_goes_slice_by_slice(rng: np.random.Generator) -> None:
    image = random_image((1, 9, 10, 11), "uint8", rng)
    result = Jpeg().filter(image, BYTE)
    for index in range(11):
        np.testing.assert_array_equal(result[0, :, :, index], pillow_round_trip(image[0, :, :, index], 10))


def test_jpeg_takes_pictures_and_volumes_only() -> None:
    with pytest.raises(ValueError, match=r"rank 2 or 3, got \(1, 5\)"):
        Jpeg().filter(np.zeros((1, 5)), BYTE)


# ---- blur


def convolve_with_gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with the sampled Gaussian, cut off at four sigmas, along every spatial axis."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    for axis in range(1, image.ndim):
        padded = np.pad(image, [(radius, radius) if a == axis else (0, 0) for a in range(image.ndim)], mode="edge")
        image = sliding_window_view(padded, 2 * radius + 1, axis) @ (kernel / kernel.sum())
    return image


@every_shape
@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_blur_is_convolution(shape: tuple[int, ...], sigma: float, dtype: str, rng: np.random.Generator) -> None:
    image = random_image(shape, dtype, rng)
    expected = convolve_with_gaussian(image.astype(np.float64), sigma)
    if dtype == "float32":
        np.testing.assert_allclose(Blur(sigma=sigma).filter(image, BYTE), expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(Blur(sigma=sigma).filter(image, BYTE), np.rint(expected))


def test_blur_of_published_code_is_the_identity(rng: np.random.Generator) -> None:
    image = random_image((3, 16, 16), "uint8", rng)
    published = gaussian_blur(torch.from_numpy(image), kernel_size=[3, 3], sigma=[0.1, 0.1])
    np.testing.assert_array_equal(published.numpy(), image)
    np.testing.assert_array_equal(Blur(sigma=0.1).filter(image, BYTE), image)


# ---- grayscale


def test_grayscale_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((3, 40, 50), "uint8", rng)
    result = Grayscale().filter(image, BYTE)
    pillow = np.asarray(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L"))
    for channel in result:
        difference = np.abs(channel.astype(int) - pillow)
        assert difference.max() <= 1  # Pillow's weights have 16 bits, and its halves are rounded up
        assert difference.mean() < 0.01


@pytest.mark.parametrize("shape", [(3, 5, 6), (3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_grayscale_is_the_luminance(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    image = random_image(shape, dtype, rng)
    red, green, blue = image.astype(np.float64)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    tolerance = 0.5 + 1e-9 if dtype != "float32" else 1e-4
    for channel in Grayscale().filter(image, BYTE):
        np.testing.assert_allclose(channel, expected, atol=tolerance)


@pytest.mark.parametrize("item", FILTERS, ids=lambda item: item.name)
def test_each_channel_is_filtered_in_its_own_window(item: Countermeasure, rng: np.random.Generator) -> None:
    image = rng.uniform(-200, 500, (2, 12, 12)).astype(np.float32)
    whole = item.filter(image, IntensityWindow((0, -100), (255, 400)))
    for channel, window in enumerate((IntensityWindow(0, 255), IntensityWindow(-100, 400))):
        np.testing.assert_array_equal(whole[channel : channel + 1], item.filter(image[channel : channel + 1], window))


@pytest.mark.parametrize("item", FILTERS, ids=lambda item: item.name)
def test_nan_is_the_low_end_of_the_window(item: Countermeasure, rng: np.random.Generator) -> None:
    """As networks see it; else a filter would spread it over the image."""
    image = rng.uniform(20, 230, (3, 12, 12)).astype(np.float32)
    image[:, :3] = np.nan
    found = item.filter(image, BYTE)
    np.testing.assert_array_equal(found, item.filter(np.nan_to_num(image), BYTE))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        (1, "no effect: the images have one channel"),
        (2, "no effect: the images have 2 channels"),
        (3, None),
        (4, "no effect: the images have 4 channels"),
    ],
)
def test_grayscale_says_where_it_changes_nothing(channels: int, reason: str | None, rng: np.random.Generator) -> None:
    images = [random_image((channels, 8, 8), "uint8", rng)]
    task = Classification(num_classes=2)
    cases = Cases(images, [np.array(0)], ["a"], task, [BYTE], View("full", (8, 8)))
    assert Grayscale().without_effect(cases) == reason
    assert np.array_equal(Grayscale().filter(images[0], BYTE), images[0]) == (reason is not None)
    others = [item for item in FILTERS if item.name != "grayscale"]
    assert [item.without_effect(cases) for item in others] == [None] * len(others)


# ---- bit depth


@every_shape
@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_bit_depth_is_the_published_formula(
    shape: tuple[int, ...], bits: int, dtype: str, rng: np.random.Generator
) -> None:
    image = random_image(shape, dtype, rng)
    steps = 2**bits - 1
    expected = 255 * (np.round(image / 255 * steps) / steps)
    result = BitDepth(bits=bits).filter(image, BYTE)
    np.testing.assert_allclose(result, expected if dtype == "float32" else np.rint(expected), atol=1e-4)
    assert len(np.unique(result)) <= 2**bits


def test_two_bits_are_four_levels_of_equal_distance() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.unique(BitDepth().filter(ramp, BYTE)).tolist() == [0, 85, 170, 255]


# ---- median


@every_shape
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_median_is_the_neighbourhoods(shape: tuple[int, ...], size: int, dtype: str, rng: np.random.Generator) -> None:
    image = random_image(shape, dtype, rng)
    axes = tuple(range(1, len(shape)))
    padded = np.pad(image, [(0, 0), *[(size // 2, size // 2)] * len(axes)], mode="edge")
    windows = sliding_window_view(padded, [size] * len(axes), axes).reshape(*shape, -1)
    np.testing.assert_array_equal(Median(size=size).filter(image, BYTE), np.median(windows, axis=-1))


def test_median_is_pillows(rng: np.random.Generator) -> None:
    image = random_image((1, 17, 20), "uint8", rng)
    expected = np.asarray(Image.fromarray(image[0]).filter(ImageFilter.MedianFilter(3)))
    np.testing.assert_array_equal(Median().filter(image, BYTE)[0], expected)


def test_median_of_even_size_takes_the_upper_middle() -> None:
    image = np.array([[[0, 0, 0], [0, 10, 20], [0, 30, 40]]], np.uint8)
    assert Median(size=2).filter(image, BYTE)[0, 1:, 1:].tolist() == [[0, 10], [10, 30]]


# ---- resample


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(1, 17, 20), (3, 16, 15)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_resample_is_pillows(shape: tuple[int, ...], factor: float, dtype: str, rng: np.random.Generator) -> None:
    image = random_image(shape, dtype, rng)
    small = tuple(int(n * factor) for n in shape[1:])
    result = Resample(factor=factor).filter(image, BYTE)
    for channel, filtered in zip(image, result, strict=True):
        picture = Image.fromarray(channel.astype(np.float32))
        for size in (small, shape[1:]):
            picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        tolerance = 1e-3 if dtype == "float32" else 0.501
        np.testing.assert_allclose(filtered, np.asarray(picture), atol=tolerance)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_resample_of_a_volume_is_block_means_and_linear_interpolation(dtype: str, rng: np.random.Generator) -> None:
    image = random_image((2, 6, 8, 10), dtype, rng)
    expected = image.astype(np.float64).reshape(2, 3, 2, 4, 2, 5, 2).mean(axis=(2, 4, 6))
    for axis in (1, 2, 3):
        count = expected.shape[axis]
        centres = (np.arange(2 * count) + 0.5) / 2 - 0.5  # of the large voxels, in small voxels

        def interpolate(line: np.ndarray, at: np.ndarray = centres) -> np.ndarray:
            return np.interp(at, np.arange(len(line)), line)

        expected = np.apply_along_axis(interpolate, axis, expected)
    tolerance = 1e-4 if dtype == "float32" else 0.5 + 1e-9
    np.testing.assert_allclose(Resample().filter(image, BYTE), expected, atol=tolerance)


def test_resample_takes_off_what_alternates() -> None:
    checks = np.indices((8, 8, 8)).sum(0)[None] % 2 * 100.0 + 50
    np.testing.assert_allclose(Resample().filter(checks, BYTE), 100)


# ---- gamma


@every_shape
@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_gamma_is_torchvisions(shape: tuple[int, ...], gamma: float, rng: np.random.Generator) -> None:
    image = rng.uniform(0, 1, (3, *shape[1:])).astype(np.float32)
    expected = adjust_gamma(torch.from_numpy(image.reshape(3, 1, -1)), gamma).numpy().reshape(image.shape)
    np.testing.assert_allclose(Gamma(gamma=gamma).filter(image, IntensityWindow(0, 1)), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_gamma_keeps_the_windows_ends_and_rounds_between(dtype: str) -> None:
    image = np.array([[[0, 64, 128, 255]]], dtype)
    expected = 255 * (np.array([0, 64, 128, 255]) / 255) ** 0.5
    result = Gamma(gamma=0.5).filter(image, BYTE)[0, 0]
    np.testing.assert_allclose(result, expected if dtype == "float32" else np.rint(expected), rtol=1e-6)


# ---- settings


@pytest.mark.parametrize(
    ("filter_type", "setting", "value", "rule"),
    [
        (Jpeg, "quality", 0, r"quality must be in \[1, 95\]"),
        (Jpeg, "quality", 96, r"quality must be in \[1, 95\]"),
        *((Blur, "sigma", value, "sigma must be positive") for value in (0.0, -1.0, float("nan"), float("inf"))),
        (BitDepth, "bits", 0, r"bits must be in \[1, 16\]"),
        (BitDepth, "bits", 17, r"bits must be in \[1, 16\]"),
        (Median, "size", 1, "size must be at least 2"),
        *((Resample, "factor", value, r"factor must be in \(0, 1\)") for value in (0.0, 1.0, 2.0, float("nan"))),
        *((Gamma, "gamma", value, "gamma must be positive") for value in (0.0, -1.0, float("nan"), float("inf"))),
    ],
)
def test_settings_are_checked(filter_type: type[Countermeasure], setting: str, value: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}, got {value}$"):
        filter_type(**{setting: value})
