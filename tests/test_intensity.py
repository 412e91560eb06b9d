"""Noise stays inside its budget, window and stored type, and comes off again bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_salm.intensity import (
    GRIDS,
    INTEGER_GRIDS,
    Grid,
    IntensityWindow,
    apply_codes,
    apply_codes_tensor,
    code_bounds,
    effective_codes,
    make_grid,
    remove_codes,
    rounding_residual,
)

quick = settings(max_examples=60, deadline=None)
shapes = hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)

WINDOWS = {
    "uint8": (0, 255),
    "int8": (-100, 100),
    "uint16": (0, 4095),
    "int16": (-1000, 1000),
    "int32": (-70_000, 70_000),
    "float32": (-1.5, 2.5),
}
AWKWARD = [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1e-20, 1.0, -1.0, 3.4028235e38, -3.4028235e38, 1.0000001, 0.1]


def images(dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Arrays of a stored type, inside and outside its window, with the floats that arithmetic gets wrong."""
    if dtype != "float32":
        return hnp.arrays(dtype, shapes)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
    inside = st.floats(-1.5, 2.5, width=32)
    return hnp.arrays(dtype, shapes, elements=st.one_of(st.sampled_from(AWKWARD).map(np.float32), inside, finite))


@st.composite
def noisy_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, IntensityWindow, Grid]:
    """An image, wild noise for it, and the window and grid that must tame it."""
    dtype = draw(st.sampled_from(GRIDS))
    window = IntensityWindow(*WINDOWS[dtype])
    grid = make_grid(dtype, window, draw(st.floats(1 / 60, 0.3)))
    image = draw(images(dtype))
    wild = draw(hnp.arrays("int32", image.shape, elements=st.integers(-3 * grid.max_code, 3 * grid.max_code)))
    return image, wild, window, grid


def bits(array: np.ndarray) -> bytes:
    return array.dtype.str.encode() + np.ascontiguousarray(array).tobytes()


@quick
@given(noisy_cases())
def test_effective_codes_keep_budget_window_and_type(
    case: tuple[np.ndarray, np.ndarray, IntensityWindow, Grid],
) -> None:
    image, wild, window, grid = case
    codes = effective_codes(image, wild, window, grid)
    assert codes.dtype == grid.code_dtype
    assert np.abs(codes.astype(np.int64)).max(initial=0) <= grid.max_code
    exact = image.astype(np.float64)
    outside = (exact < window.low) | (exact > window.high)
    assert not codes[outside].any()
    noisy = (exact + codes.astype(np.float64) * grid.quantum)[~outside]
    assert ((noisy >= window.low) & (noisy <= window.high)).all()
    protected = apply_codes(image, codes, grid.quantum)
    assert protected.dtype == image.dtype
    assert bits(protected[codes == 0]) == bits(image[codes == 0])


@quick
@given(noisy_cases())
def test_clipping_takes_no_more_than_it_must(case: tuple[np.ndarray, np.ndarray, IntensityWindow, Grid]) -> None:
    image, wild, window, grid = case
    codes = effective_codes(image, wild, window, grid)
    exact, step = image.astype(np.float64), np.sign(wild)
    one_more = exact + (codes.astype(np.float64) + step) * grid.quantum
    inside = (exact >= window.low) & (exact <= window.high)
    cut = inside & (np.abs(codes.astype(np.int64)) < np.minimum(np.abs(wild), grid.max_code))
    if grid.dtype in INTEGER_GRIDS:
        low, high = max(window.low, np.iinfo(grid.dtype).min), min(window.high, np.iinfo(grid.dtype).max)
    else:
        low, high = window.low, window.high
    assert ((one_more[cut] < low) | (one_more[cut] > high)).all()


@quick
@given(noisy_cases())
def test_noise_comes_off_bit_for_bit(case: tuple[np.ndarray, np.ndarray, IntensityWindow, Grid]) -> None:
    image, wild, window, grid = case
    codes = effective_codes(image, wild, window, grid)
    residual = rounding_residual(image, codes, grid.quantum)
    protected = apply_codes(image, codes, grid.quantum)
    assert bits(remove_codes(protected, codes, grid.quantum, residual)) == bits(image)
    if grid.dtype in INTEGER_GRIDS:
        assert residual is None


@quick
@given(noisy_cases())
def test_numpy_and_torch_give_the_same_bits(case: tuple[np.ndarray, np.ndarray, IntensityWindow, Grid]) -> None:
    image, wild, window, grid = case
    codes = effective_codes(image, wild, window, grid)
    by_torch = apply_codes_tensor(torch.from_numpy(image), torch.from_numpy(codes), grid.quantum).numpy()
    assert bits(by_torch) == bits(apply_codes(image, codes, grid.quantum))


@quick
@given(noisy_cases())
def test_integer_images_get_the_same_noise_when_loaded_as_float32(
    case: tuple[np.ndarray, np.ndarray, IntensityWindow, Grid],
) -> None:
    image, wild, window, grid = case
    assume(grid.dtype in INTEGER_GRIDS and grid.dtype != "int32")
    codes = effective_codes(image, wild, window, grid)
    protected = apply_codes(image, codes, grid.quantum)
    as_float = apply_codes(image.astype(np.float32), codes, grid.quantum)
    np.testing.assert_array_equal(as_float, protected.astype(np.float32))
    np.testing.assert_array_equal(remove_codes(as_float, codes, grid.quantum), image.astype(np.float32))


def test_residual_is_needed_for_low_bits_and_only_then() -> None:
    codes = np.array([100, 0], np.int8)
    tiny = np.array([1e-12, 1e-12], np.float32)
    residual = rounding_residual(tiny, codes, 0.25)
    assert residual is not None
    assert residual[0] != 0
    assert residual[1] == 0  # no noise, nothing lost
    assert bits(remove_codes(apply_codes(tiny, codes, 0.25), codes, 0.25)) != bits(tiny)
    assert rounding_residual(np.array([1.5, -0.0], np.float32), codes, 0.25) is None


def test_noise_of_another_image_does_not_wrap_around() -> None:
    image, codes = np.array([[250]], np.uint8), np.array([[8]], np.int8)
    with pytest.raises(OverflowError, match="another image"):
        apply_codes(image, codes, 1.0)
    with pytest.raises(OverflowError, match="another image"):
        apply_codes_tensor(torch.from_numpy(image), torch.from_numpy(codes), 1.0)


@quick
@given(st.sampled_from(GRIDS), st.floats(1e-6, 1.0), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_grid_is_the_largest_that_keeps_the_budget(dtype: str, epsilon: float, low: float, width: float) -> None:
    window = IntensityWindow(low, low + width)
    budget = epsilon * window.width
    finest = 1.0 if dtype in INTEGER_GRIDS else float(np.spacing(np.float32(max(abs(low), abs(low + width)))))
    if budget < finest * (1 - 1e-6):
        with pytest.raises(ValueError, match="below one step"):
            make_grid(dtype, window, epsilon)
        return
    assume(budget > finest)  # what happens at the edge is a matter of rounding
    grid = make_grid(dtype, window, epsilon)
    assert 1 <= grid.max_code <= budget / grid.quantum * (1 + 1e-6)
    assert (grid.max_code + 1) * grid.quantum > budget
    assert grid.max_code <= np.iinfo(grid.code_dtype).max
    mantissa, _ = math.frexp(grid.quantum)
    assert mantissa == 0.5 or grid.quantum == 1.0


@pytest.mark.parametrize(
    ("dtype", "window", "epsilon"),
    [
        ("uint8", (0, 1), 8 / 255),
        ("uint8", (0, 255), 0.9 / 255),
        ("int16", (-50, 50), 1 / 255),
        ("float32", (1e6, 1e6 + 1), 8 / 255),
    ],
)
def test_budget_below_one_step_is_refused(dtype: str, window: tuple[float, float], epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"below one step of {dtype}.*would vanish.*epsilon >= "):
        make_grid(dtype, IntensityWindow(*window), epsilon)


def test_8_of_255_is_8_grey_levels() -> None:
    assert make_grid("uint8", IntensityWindow(0, 255), 8 / 255) == Grid("uint8", 1.0, 8)
    assert make_grid("uint8", IntensityWindow(0, 255), 1 / 255) == Grid("uint8", 1.0, 1)


@pytest.mark.parametrize("dtype", ["bool", "float64", "complex64", "int64", "uint32", "float16"])
def test_types_that_cannot_carry_noise_are_refused(dtype: str) -> None:
    hint = "A boolean image has no grey levels" if dtype == "bool" else "Convert the image to float32 or int32"
    with pytest.raises(ValueError, match=f"image dtype must be one of .*, got {dtype}. {hint}"):
        make_grid(dtype, IntensityWindow(0, 255), 0.1)


@pytest.mark.parametrize("epsilon", [0, -0.1, 1.01, math.nan, math.inf])
def test_epsilon_is_a_share_of_the_window(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon must be in \(0, 1\], got"):
        make_grid("uint8", IntensityWindow(0, 255), epsilon)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (math.nan, 1), (0, math.inf)])
def test_window_must_be_an_interval(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="window must be finite with low < high, got"):
        IntensityWindow(low, high)


def test_float_bounds_mean_the_same_everywhere() -> None:
    # 0.1 lies between two float32 values, and the one an image holds is the larger.
    window = IntensityWindow(0, 0.1)
    grid = make_grid("float32", window, 0.1)
    image = np.full((1, 2, 2), 0.1, np.float32)
    assert effective_codes(image, np.full(image.shape, -5), window, grid).tolist() == np.full(image.shape, -5).tolist()
    assert not effective_codes(image, np.full(image.shape, 5), window, grid).any()


def test_window_is_shown_to_networks_as_0_to_1() -> None:
    window = IntensityWindow(-100, 300)
    image = torch.tensor([-1000.0, -100.0, 100.0, 300.0, 5000.0], requires_grad=True)
    shown = window.normalize(image)
    torch.testing.assert_close(shown, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    shown.sum().backward()
    assert image.grad is not None
    # The window's own ends still have a gradient: a black or white pixel can be moved inwards.
    torch.testing.assert_close(image.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]) / 400)


@quick
@given(images("float32"))
def test_bounds_are_the_same_for_a_batch_and_for_each_image(image: np.ndarray) -> None:
    window = IntensityWindow(*WINDOWS["float32"])
    grid = make_grid("float32", window, 0.05)
    batch = torch.from_numpy(np.stack([image, image[..., ::-1].copy()]))
    together = code_bounds(batch, window, grid)
    alone = [code_bounds(part, window, grid) for part in batch]
    for side in (0, 1):
        assert torch.equal(together[side], torch.stack([pair[side] for pair in alone]))
