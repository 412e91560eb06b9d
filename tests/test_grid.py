"""Noise stays inside its budget, window and stored type, and comes off again bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import (
    GRIDS,
    INTEGER_GRIDS,
    Grid,
    apply_and_digest,
    apply_codes,
    make_grid,
    remove_codes,
    rounding_residual,
)
from monai_salm.noise.units import Units
from monai_salm.noise.window import FixedWindow, IntensityWindow, PercentileWindow

quick = settings(max_examples=60, deadline=None)
shapes = hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)

WINDOWS = {
    "uint8": (0, 255),
    "int8": (-100, 100),
    "uint16": (0, 4095),
    "int16": (-1000, 1000),
    "int32": (-70_000, 70_000),
    "uint32": (0, 70_000),
    "int64": (-70_000, 70_000),
    "uint64": (0, 70_000),
    "float32": (-1.5, 2.5),
    "float64": (-1.5, 2.5),
}
AWKWARD = [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1e-20, 1.0, -1.0, 3.4028235e38, -3.4028235e38, 1.0000001, 0.1]
BYTES = IntensityWindow(0, 255)


def images(dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Arrays of a stored type, inside and outside its window, with the floats that arithmetic gets wrong."""
    if dtype in ("int64", "uint64"):  # float64, which budgets are reckoned in, does not hold all of them
        return hnp.arrays(dtype, shapes, elements=st.integers(0 if dtype == "uint64" else -(2**52), 2**52))
    if dtype not in ("float32", "float64"):
        return hnp.arrays(dtype, shapes)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
    inside = st.floats(-1.5, 2.5, width=32)
    return hnp.arrays(dtype, shapes, elements=st.one_of(st.sampled_from(AWKWARD).map(np.float32), inside, finite))


@st.composite
def noisy_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Budget]:
    """An image, wild noise for it, and the budget that must tame it, with windows that differ between channels."""
    dtype = draw(st.sampled_from(GRIDS))
    image = draw(images(dtype))
    low, high = WINDOWS[dtype]
    narrow = [draw(st.sampled_from([1.0, 0.75])) for _ in image]
    window = IntensityWindow((low,) * len(image), tuple(low + (high - low) * share for share in narrow))
    widths = [high - low for low, high in window.channels(len(image))]
    grid = make_grid(dtype, widths, draw(st.floats(1 / 60, 0.3)))
    top = 3 * max(grid.max_codes)
    wild = draw(hnp.arrays("int32", image.shape, elements=st.integers(-top, top)))
    return image, wild, Budget(window, grid)


def bits(array: np.ndarray) -> bytes:
    return array.dtype.str.encode() + np.ascontiguousarray(array).tobytes()


def carriers(image: np.ndarray, budget: Budget) -> np.ndarray:
    """Elements inside their window that are no padding."""
    low, high = budget.window.bounds(len(image), image.ndim - 1)
    exact = image.astype(np.float64)
    free = [free_of_border(channel) for channel in image]
    return (exact >= low) & (exact <= high) & np.stack(free) & (np.abs(exact) < 1e30)


def free_of_border(channel: np.ndarray) -> np.ndarray:
    """Elements that are no constant border: the smallest or else the largest value, on a quarter of the border at least."""
    with np.errstate(over="ignore"):
        known = np.abs(channel.astype(np.float64)) >= 1e30
    faces = [
        (channel.take(i, a).reshape(-1), known.take(i, a).reshape(-1)) for a in range(channel.ndim) for i in (0, -1)
    ]
    border = np.concatenate([values[~marked] for values, marked in faces])
    rest = channel[~known]
    for value in (rest.min(), rest.max()) if border.size else ():
        if np.mean(border == value) >= 0.25 and 0.02 <= np.mean(rest == value) < 1:
            two = len(np.unique(rest)) == 2  # neither is padding then
            return np.ones(channel.shape, bool) if two else channel != value
    return np.ones(channel.shape, bool)


@quick
@given(noisy_cases())
def test_effective_codes_keep_budget_window_and_type(case: tuple[np.ndarray, np.ndarray, Budget]) -> None:
    image, wild, budget = case
    grid = budget.grid
    codes = budget.effective_codes(image, wild)
    assert codes.dtype == grid.code_dtype
    for channel, limit in zip(codes, grid.max_codes, strict=True):
        assert np.abs(channel.astype(np.int64)).max(initial=0) <= limit
    inside = carriers(image, budget)
    assert not codes[~inside].any()
    low, high = budget.window.bounds(len(image), image.ndim - 1)
    noisy = image.astype(np.float64) + codes.astype(np.float64) * grid.quantum
    assert (noisy >= low)[inside].all()
    assert (noisy <= high)[inside].all()
    protected = apply_codes(image, codes, grid.quantum)
    assert protected.dtype == image.dtype
    assert bits(protected[codes == 0]) == bits(image[codes == 0])


@quick
@given(noisy_cases())
def test_clipping_takes_no_more_than_it_must(case: tuple[np.ndarray, np.ndarray, Budget]) -> None:
    image, wild, budget = case
    grid = budget.grid
    codes = budget.effective_codes(image, wild)
    one_more = image.astype(np.float64) + (codes.astype(np.float64) + np.sign(wild)) * grid.quantum
    asked = np.minimum(np.abs(wild), grid.limits(image.ndim - 1))
    cut = carriers(image, budget) & (np.abs(codes.astype(np.int64)) < asked)
    low, high = (np.broadcast_to(ends, image.shape) for ends in budget.window.bounds(len(image), image.ndim - 1))
    if grid.dtype in INTEGER_GRIDS:
        low, high = np.maximum(low, np.iinfo(grid.dtype).min), np.minimum(high, np.iinfo(grid.dtype).max)
    assert ((one_more < low) | (one_more > high))[cut].all()


@quick
@given(noisy_cases())
def test_noise_comes_off_bit_for_bit(case: tuple[np.ndarray, np.ndarray, Budget]) -> None:
    image, wild, budget = case
    quantum = budget.grid.quantum
    codes = budget.effective_codes(image, wild)
    residual = rounding_residual(image, codes, quantum)
    protected = apply_codes(image, codes, quantum)
    assert bits(remove_codes(protected, codes, quantum, residual)) == bits(image)
    if budget.grid.dtype in INTEGER_GRIDS:
        assert residual is None


@quick
@given(noisy_cases())
def test_integer_images_get_the_same_noise_when_loaded_as_float32(case: tuple[np.ndarray, np.ndarray, Budget]) -> None:
    image, wild, budget = case
    assume(budget.grid.dtype in INTEGER_GRIDS and np.dtype(budget.grid.dtype).itemsize <= 2)
    codes, quantum = budget.effective_codes(image, wild), budget.grid.quantum
    protected = apply_codes(image, codes, quantum)
    as_float = apply_codes(image.astype(np.float32), codes, quantum)
    np.testing.assert_array_equal(as_float, protected.astype(np.float32))
    np.testing.assert_array_equal(remove_codes(as_float, codes, quantum), image.astype(np.float32))


def test_the_largest_integers_keep_their_bits() -> None:
    image = np.array([2**64 - 1, 2**63, 2**63 - 1, 7], np.uint64)
    protected = apply_codes(image, np.array([0, 0, 0, -3], np.int8), 1.0)
    assert protected.tolist() == [2**64 - 1, 2**63, 2**63 - 1, 4]
    for codes in ([0, 0, 0, -8], [1, 0, 0, 0], [0, 0, 1, 0]):
        with pytest.raises(OverflowError, match="leaves the range of uint64"):
            apply_codes(image, np.array(codes, np.int8), 1.0)
    with pytest.raises(ValueError, match="up to 2"):
        make_grid("int64", [2.0**60], 0.1, largest=2.0**60)


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


@quick
@given(st.sampled_from(GRIDS), st.floats(1e-6, 1.0), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_grid_is_the_largest_that_keeps_the_budget(dtype: str, epsilon: float, low: float, width: float) -> None:
    budget, largest = epsilon * width, max(abs(low), abs(low + width))
    finest = 1.0 if dtype in INTEGER_GRIDS else float(np.spacing(np.float32(largest)))
    if budget < finest * (1 - 1e-6):
        with pytest.raises(ValueError, match="below one step"):
            make_grid(dtype, [width], epsilon, largest=largest)
        return
    assume(budget > finest)  # what happens at the edge is a matter of rounding
    grid = make_grid(dtype, [width], epsilon, largest=largest)
    (code,) = grid.max_codes
    assert 1 <= code <= budget / grid.quantum * (1 + 1e-6)
    assert (code + 1) * grid.quantum > budget
    assert code <= np.iinfo(grid.code_dtype).max
    mantissa, _ = math.frexp(grid.quantum)
    assert mantissa == 0.5 or grid.quantum == 1.0


def test_each_channel_has_a_budget_of_its_own() -> None:
    grid = make_grid("int16", [400, 4000, 0], 0.01)
    assert grid.max_codes == (4, 40, 0)
    assert grid.limits(2).tolist() == [[[4]], [[40]], [[0]]]
    with pytest.raises(ValueError, match="below one step"):
        make_grid("int16", [4000, 40], 0.01)


@pytest.mark.parametrize(
    ("dtype", "window", "epsilon", "helps"),
    [
        ("uint8", (0, 255), 0.9 / 255, 1 / 255),
        ("int16", (-50, 50), 0.5 / 100, 1 / 100),
        ("uint8", (0, 1), 8 / 255, 1.0),
        ("float32", (1e6, 1e6 + 1), 8 / 255, 1 / 16),
    ],
)
def test_budget_below_one_step_is_refused_and_the_smallest_epsilon_named(
    dtype: str, window: tuple[float, float], epsilon: float, helps: float
) -> None:
    low, high = window
    with pytest.raises(ValueError, match=rf"below one step of {dtype}.*would vanish.*at least {helps:.3g}"):
        make_grid(dtype, [high - low], epsilon, largest=high)
    assert make_grid(dtype, [high - low], helps, largest=high).max_codes[0] >= 1


def test_no_epsilon_helps_a_window_narrower_than_one_step() -> None:
    with pytest.raises(ValueError, match=r"narrower than one step: give a wider window.*more bits"):
        make_grid("int16", [0.5], 0.5)


def test_8_of_255_is_8_grey_levels() -> None:
    assert make_grid("uint8", [255], 8 / 255) == Grid("uint8", 1.0, (8,))
    assert make_grid("uint8", [255], 1 / 255) == Grid("uint8", 1.0, (1,))


@pytest.mark.parametrize("dtype", ["bool", "complex64", "float16"])
def test_types_that_cannot_carry_noise_are_refused(dtype: str) -> None:
    hint = "A boolean image has no grey levels" if dtype == "bool" else "Convert the image to float32"
    with pytest.raises(ValueError, match=f"image dtype must be one of .*, got {dtype}. {hint}"):
        make_grid(dtype, [255], 0.1)


@pytest.mark.parametrize("epsilon", [0, -0.1, 1.01, math.nan, math.inf])
def test_epsilon_is_a_share_of_the_window(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon must be in \(0, 1\], got"):
        make_grid("uint8", [255], epsilon)


def test_epsilon_in_grey_levels_is_told_how_to_write_it() -> None:
    with pytest.raises(ValueError, match="8 grey levels of an 8-bit image are 8 / 255"):
        make_grid("uint8", [255], 8)
    with pytest.raises(TypeError, match="epsilon must be a number, such as 8 / 255"):
        make_grid("uint8", [255], "8/255")  # type: ignore[arg-type]


def test_float_bounds_mean_the_same_everywhere() -> None:
    # 0.1 lies between two float32 values, and the one an image holds is the larger.
    budget = Budget(IntensityWindow(0, 0.1), make_grid("float32", [0.1], 0.1, largest=0.1))
    image = np.linspace(0.05, 0.1, 32, dtype=np.float32).reshape(1, 8, 4)
    assert budget.effective_codes(image, np.full(image.shape, -5))[0, 7, 3] == -5
    assert budget.effective_codes(image, np.full(image.shape, 5))[0, 7, 3] == 0


# ---------------------------------------------------------------------------------------------------------------------
# The budget of an image


def gradient(low: float, high: float, dtype: str, shape: tuple[int, ...] = (1, 8, 8)) -> np.ndarray:
    """All values between two, none of them a border."""
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_whole_numbers_have_one_grid_in_files_and_loaded(dtype: str) -> None:
    image = gradient(0, 255, "uint8").astype(dtype)
    budget = budget_of(image, FixedWindow(0, 255), Units(), 8 / 255)
    assert (budget.grid.quantum, budget.grid.max_codes) == (1.0, (8,))
    assert budget.window == BYTES


def test_channels_of_whole_numbers_beside_others_have_noise_of_whole_numbers() -> None:
    image = np.concatenate([gradient(-1000, 1000, "float32").round(), gradient(0, 20, "float32")])
    budget = budget_of(image, PercentileWindow(0, 100), Units(), 8 / 255)
    step = budget.grid.strides[0]
    assert (step * budget.grid.quantum, budget.grid.strides[1]) == (1.0, 1)
    assert budget.grid.max_codes[0] == 62 * step
    for codes in budget.code_bounds(image):
        assert not (codes[0] % step).any()
    found = budget.effective_codes(image, np.full(image.shape, -(2 * step - 1)))
    assert set(np.unique(found[0])) == {-step, 0}
    alike = np.concatenate([image[:1], image[:1]])
    assert budget_of(alike, PercentileWindow(), Units(), 8 / 255).grid.strides == ()


def test_the_noise_of_an_image_is_a_share_of_its_own_range_in_real_units() -> None:
    """The same anatomy under another scale factor gets the same noise, seen in real units."""
    plain, scaled = gradient(0, 1000, "int16"), gradient(0, 250, "int16")
    for rule in (FixedWindow(0, 1000), PercentileWindow()):
        first = budget_of(plain, rule, Units(), 0.04)
        second = budget_of(scaled, rule, Units(slope=4.0), 0.04)
        assert first.grid.max_codes[0] == pytest.approx(4 * second.grid.max_codes[0], abs=4)


def test_codes_are_shown_as_shares_of_the_window() -> None:
    image = np.concatenate([gradient(-1000, 1000, "int16"), gradient(0, 20_000, "int16")])
    budget = budget_of(image, IntensityWindow((-100, 0), (300, 20_000)), Units(), 0.01)
    assert budget.grid.max_codes == (4, 200)
    assert budget.shares(2) == [1 / 400, 1 / 20_000]
    assert budget.effective_codes(image, np.full(image.shape, 10_000)).max(axis=(1, 2)).tolist() == [4, 200]


def test_a_constant_channel_carries_nothing_beside_one_that_does() -> None:
    image = np.concatenate([gradient(0, 255, "uint8"), np.full((1, 8, 8), 9, np.uint8)])
    budget = budget_of(image, FixedWindow(0, 255), Units(), 8 / 255)
    assert budget.grid.max_codes == (8, 0)
    assert not budget.effective_codes(image, np.full(image.shape, 8))[1].any()
    with pytest.raises(ValueError, match="the image is constant: it has no grey levels"):
        budget_of(image[1:], FixedWindow(0, 255), Units(), 8 / 255)


def test_noise_that_would_drown_the_image_is_refused() -> None:
    faint = gradient(100, 105, "int16")
    with pytest.raises(ValueError, match=r"would drown the image.* to 105.*percentile"):
        budget_of(faint, FixedWindow(0, 1000), Units(), 8 / 255)
    assert budget_of(gradient(100, 200, "int16"), FixedWindow(0, 1000), Units(), 8 / 255).grid.max_codes == (31,)


def test_padding_never_carries_noise() -> None:
    image = gradient(10, 200, "float32", (1, 12, 12))
    image[0, 2, 3], image[0, 5, 5], image[0, 6, 6] = np.nan, np.inf, -3.4e38
    image[0, 8, 8] = -2000
    budget = budget_of(image, PercentileWindow(), Units(padding=(-2000, -2000)), 8 / 255)
    lower, upper = budget.code_bounds(image)
    for place in ((2, 3), (5, 5), (6, 6), (8, 8)):
        assert lower[0][place] == upper[0][place] == 0
    assert ((lower < 0) | (upper > 0)).sum() > 100
    codes = budget.effective_codes(image, np.full(image.shape, 3))
    protected = apply_codes(image, codes, budget.grid.quantum)
    assert bits(protected[codes == 0]) == bits(image[codes == 0])
    residual = rounding_residual(image, codes, budget.grid.quantum)
    assert bits(remove_codes(protected, codes, budget.grid.quantum, residual)) == bits(image)


def test_an_image_of_padding_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing but padding"):
        budget_of(np.full((1, 4, 4), np.nan, np.float32), PercentileWindow(), Units(), 8 / 255)


def test_noise_keeps_to_what_the_file_can_hold() -> None:
    """12 bits in a file of 16: a number beyond them would be cut off on saving."""
    image = gradient(0, 4095, "uint16")
    budget = budget_of(image, FixedWindow(-1000, 5000), Units(limits=(0, 4095)), 0.05)
    codes = budget.effective_codes(image, np.where(image > 2000, 10_000, -10_000))
    protected = apply_codes(image, codes, 1.0)
    assert (int(protected.min()), int(protected.max())) == (0, 4095)
    assert np.abs(codes).max() == 300


@quick
@given(
    st.sampled_from(INTEGER_GRIDS[:4]),
    st.sampled_from(["int8", "int16"]),
    st.sampled_from([1, 2, 64, 65, 300]),
    st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_wide_integers(dtype: str, codes_dtype: str, quantum: int, seed: int) -> None:
    """Near the ends of the type too; the digest is that of the sum, and floats of whole numbers give the same."""
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    near = rng.choice([info.min, info.max, 0], 50) + rng.integers(-40, 40, 50)
    image = np.clip(near, info.min, info.max).astype(dtype)
    codes = rng.choice([-127, -1, 0, 1, 127], 50).astype(codes_dtype)
    wide = image.astype(np.int64) + codes.astype(np.int64) * quantum
    if wide.min() < info.min or wide.max() > info.max:
        with pytest.raises(OverflowError):
            apply_codes(image, codes, quantum)
        wide = np.clip(wide, info.min, info.max)
        codes = np.where(np.abs(wide - image) == np.abs(codes.astype(np.int64) * quantum), codes, 0)
        wide = image + codes.astype(np.int64) * quantum
    for kind, grid in ((image.dtype, None), (np.dtype("float32"), dtype)):
        result, digest = apply_and_digest(image.astype(kind), codes, quantum, grid)
        assert result.dtype == kind
        assert np.array_equal(result, wide)
        assert digest == content_digest(wide)
