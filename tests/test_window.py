"""Windows: what of each image and channel networks see as 0 to 1, in real units, padding left out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from monai_salm.noise.units import Units, joined, padding_of
from monai_salm.noise.window import (
    CT_WINDOW,
    AutomaticWindow,
    ChannelWindows,
    FixedWindow,
    IntensityWindow,
    PercentileWindow,
    WindowRule,
    rule_from_spec,
)


def ramp(low: float, high: float, shape: tuple[int, ...] = (1, 20, 20), dtype: str = "float64") -> np.ndarray:
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (math.nan, 1), (0, math.inf)])
@pytest.mark.parametrize("kind", [IntensityWindow, FixedWindow])
def test_window_must_be_an_interval(kind: type, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="window must be finite with low < high, got"):
        kind(low, high)


@pytest.mark.parametrize(("low", "high"), [(-1, 50), (0, 101), (50, 50), (99, 1), (math.nan, 99)])
def test_percentiles_must_be_in_order(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="percentiles must be in 0 to 100 with low < high"):
        PercentileWindow(low, high)


def test_window_is_shown_to_networks_as_0_to_1() -> None:
    window = IntensityWindow(-100, 300)
    image = torch.tensor([-1000.0, -100.0, 100.0, 300.0, 5000.0], requires_grad=True)
    shown = window.normalize(image)
    torch.testing.assert_close(shown, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    shown.sum().backward()
    assert image.grad is not None
    # The window's own ends still have a gradient: a black or white pixel can be moved inwards.
    torch.testing.assert_close(image.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]) / 400)


def test_what_is_not_a_number_is_shown_as_black() -> None:
    shown = IntensityWindow(0, 10).normalize(torch.tensor([[[math.nan, math.inf, -math.inf, 5.0]]]))
    assert shown.tolist() == [[[0.0, 1.0, 0.0, 0.5]]]


def test_each_channel_is_shown_by_its_own_window() -> None:
    window = IntensityWindow((0, -100), (10, 300))
    image = torch.tensor([5.0, 100.0]).view(2, 1, 1).expand(2, 3, 4)
    assert set(window.normalize(image).unique().tolist()) == {0.5}
    assert set(window.normalize(image[None]).unique().tolist()) == {0.5}
    assert window.channels(2) == [(0, 10), (-100, 300)]
    with pytest.raises(ValueError, match="the window has 2 channels, the image has 3"):
        window.channels(3)


def test_windows_of_channels_that_are_alike_are_one_window() -> None:
    assert IntensityWindow((0, 0), (255, 255)) == IntensityWindow(0, 255)
    assert hash(IntensityWindow((0, 0), (255, 255))) == hash(IntensityWindow(0, 255))
    assert IntensityWindow(0, 255).channels(3) == [(0, 255)] * 3


def test_fixed_window_is_in_real_units() -> None:
    image = ramp(0, 4000)
    assert FixedWindow(-160, 240).of(image, Units()) == IntensityWindow(-160, 240)
    assert FixedWindow(-160, 240).of(image, Units(intercept=-1024.0)) == IntensityWindow(864, 1264)
    assert FixedWindow(-160, 240).of(image, Units(slope=2.0, intercept=-1000.0)) == IntensityWindow(420, 620)
    assert FixedWindow(-160, 240).of(image, Units(slope=-1.0)) == IntensityWindow(-240, 160), "a falling scale"
    two = Units(slope=(1.0, 4.0), intercept=(0.0, -8.0))
    assert FixedWindow(0, 100).of(np.zeros((2, 4, 4)), two) == IntensityWindow((0, 2), (100, 27))


def test_units_turn_stored_numbers_into_real_ones_and_back() -> None:
    units = Units(slope=(2.0, 0.5), intercept=(-1000.0, 3.0))
    for channel in (0, 1):
        assert units.stored(units.real(7.0, channel), channel) == 7.0
    assert units.real(10, 0) == -980
    assert Units(modality=("CT", "PT")).modality_of(1) == "PT"


def test_channels_from_files_of_their_own_keep_their_units() -> None:
    parts = [Units(slope=1.0, intercept=-1024.0, modality="CT"), Units(slope=3.0, modality="PT")]
    both = joined(parts)
    assert (both.slope, both.intercept, both.modality) == ((1.0, 3.0), (-1024.0, 0.0), ("CT", "PT"))
    assert joined(parts[:1] * 2) == parts[0]


def test_percentiles_are_of_each_image_and_channel() -> None:
    image = np.concatenate([ramp(0, 1000), ramp(-5, 5)])
    window = PercentileWindow(10, 90).of(image, Units())
    np.testing.assert_allclose(window.channels(2), [(100, 900), (-4, 4)], atol=1e-9)
    (bright,) = PercentileWindow(10, 90).of(image[:1] * 3, Units()).channels(1)
    np.testing.assert_allclose(bright, (300, 2700))


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -3.4e38, -2000.0])
def test_padding_takes_no_part_in_percentiles(nothing: float) -> None:
    image = ramp(0, 100, dtype="float32")
    padded = np.full((1, 40, 40), nothing, np.float32)
    padded[:, 10:30, 10:30] = image
    padding = padding_of(padded, Units())
    assert padding is not None
    assert padding.sum() == 1200
    with np.errstate(invalid="ignore"):
        found = PercentileWindow().of(padded, Units(), padding)
    np.testing.assert_allclose(found.channels(1), PercentileWindow().of(image, Units()).channels(1))


def test_the_padding_that_a_file_names_is_padding_anywhere() -> None:
    image = ramp(0, 100)
    image[0, 7, 7] = -2000
    assert padding_of(image, Units()) is None
    padding = padding_of(image, Units(padding=(-2000, -2000)))
    assert padding is not None
    assert np.argwhere(padding).tolist() == [[0, 7, 7]]


def test_a_constant_border_is_padding_where_it_is_an_extreme_value() -> None:
    image = ramp(10, 90)
    for value in (0, 255):
        framed = np.pad(image, ((0, 0), (5, 5), (5, 5)), constant_values=value)
        padding = padding_of(framed, Units())
        assert padding is not None
        assert np.array_equal(padding, framed == value)
    grey = np.pad(image, ((0, 0), (5, 5), (5, 5)), constant_values=50)
    two = np.zeros((1, 16, 16), np.uint8)
    two[0, 5:11, 5:11] = 255
    assert padding_of(two, Units()) is None, "of two values, neither is padding"
    assert padding_of(grey, Units()) is None, "grey in the middle of the range is no padding"
    assert padding_of(np.full((1, 8, 8), 3), Units()) is None, "a constant image is no padding throughout"
    one = np.concatenate([np.pad(image, ((0, 0), (5, 5), (5, 5))), ramp(10, 90, (1, 30, 30))])
    padding = padding_of(one, Units())
    assert padding is not None
    assert padding[0].any()
    assert not padding[1].any(), "each channel has padding of its own"


def test_a_flat_background_still_leaves_a_window() -> None:
    image = np.zeros((1, 100, 100))
    image[0, 50, 50] = 7
    assert PercentileWindow().of(image, Units()) == IntensityWindow(0, 7)
    assert PercentileWindow().of(np.full((1, 4, 4), 3.0), Units()).width >= 1


def test_a_large_image_is_sampled_alike_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_salm.noise.window._SAMPLE", 1000)
    image = np.random.default_rng(1).normal(0, 1, (1, 200, 200))
    first = PercentileWindow(5, 95).of(image, Units())
    assert PercentileWindow(5, 95).of(image, Units()) == first
    np.testing.assert_allclose(first.channels(1), [(-1.64, 1.64)], atol=0.2)


def test_the_automatic_rule_follows_the_kind_of_image() -> None:
    image = ramp(0, 100)
    automatic = AutomaticWindow()
    assert automatic.of(image, Units(picture=True)) == IntensityWindow(0, 255)
    assert automatic.of(image, Units(modality="CT", intercept=-1000.0)) == IntensityWindow(
        CT_WINDOW[0] + 1000, CT_WINDOW[1] + 1000
    )
    assert automatic.of(image, Units(modality="MR")) == PercentileWindow().of(image, Units())
    both = np.concatenate([image - 1000, image * 50])
    found = automatic.of(both, Units(modality=("CT", "PT"))).channels(2)
    assert found[0] == CT_WINDOW
    np.testing.assert_allclose(found[1], (25, 4975))


@pytest.mark.parametrize(
    "image",
    [
        ramp(0, 200),
        ramp(0, 1),
        ramp(0, 4000),
        np.full((1, 4, 4), np.nan),
        np.where(np.eye(20) > 0, -2000.0, ramp(0, 200)),
    ],
)
def test_what_is_called_ct_and_shows_no_air_goes_by_its_own_range(image: np.ndarray) -> None:
    units = Units(modality="CT")
    padding = padding_of(image, units)
    assert AutomaticWindow().of(image, units, padding) == PercentileWindow().of(image, Units(), padding)


def test_each_channel_may_have_a_rule_of_its_own() -> None:
    image = np.concatenate([ramp(0, 100), ramp(0, 4000)])
    rule = ChannelWindows((FixedWindow(-160, 240), PercentileWindow(0, 100)))
    assert rule.of(image, Units()).channels(2) == [(-160, 240), (0, 4000)]
    with pytest.raises(ValueError, match="1 channels, the window rule has 2: give one rule each"):
        rule.of(image[:1], Units())


@pytest.mark.parametrize(
    "rule",
    [
        AutomaticWindow(),
        FixedWindow(-160, 240),
        PercentileWindow(1, 98),
        IntensityWindow(0, 255),
        IntensityWindow((0, 1), (2, 5)),
        ChannelWindows((FixedWindow(0, 1), AutomaticWindow())),
    ],
)
def test_a_rule_comes_back_from_its_plain_values(rule: WindowRule) -> None:
    assert rule_from_spec(json.loads(json.dumps(rule.spec()))) == rule


@pytest.mark.parametrize(
    "spec", [{}, {"kind": "poetry"}, {"kind": "fixed", "low": 3}, {"kind": "fixed", "low": 3, "high": 1}]
)
def test_what_describes_no_rule_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        rule_from_spec(spec)


@pytest.mark.parametrize("count", [1, 3])
def test_a_window_for_two_channels_fits_no_other_number(count: int) -> None:
    window = IntensityWindow((0, 0), (1, 20))
    assert window.width == 20
    with pytest.raises(ValueError, match=rf"has 2 channels, the image has {count}: give one window for each"):
        window.channels(count)
