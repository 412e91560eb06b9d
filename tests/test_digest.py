"""An image is known by its values and shape, for every type that it is loaded in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_salm.noise.digest import canonical, content_digest, drawing_digest
from monai_salm.shared.blocks import BLOCK

quick = settings(max_examples=60, deadline=None)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
integers = st.sampled_from(["uint8", "int8", "uint16", "int16"]).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
floats = hnp.arrays(
    "float32", shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
)


@quick
@given(integers, st.sampled_from(["int32", "int64", "float32", "float64"]))
def test_integers_are_known_in_any_wider_type(image: np.ndarray, wider: str) -> None:
    assert content_digest(image.astype(wider)) == content_digest(image)


@quick
@given(floats)
def test_float32_is_known_in_float64(image: np.ndarray) -> None:
    assert content_digest(image.astype("float64")) == content_digest(image)


@quick
@given(integers | floats)
def test_memory_layout_and_byte_order_do_not_matter(image: np.ndarray) -> None:
    digest = content_digest(image)
    assert content_digest(np.asfortranarray(image)) == digest
    assert content_digest(image.astype(image.dtype.newbyteorder(">"))) == digest
    assert content_digest(np.repeat(image, 2, axis=-1)[..., ::2]) == digest


@quick
@given(integers | floats, st.data())
def test_one_other_value_changes_the_digest(image: np.ndarray, data: st.DataObject) -> None:
    index = data.draw(st.tuples(*(st.integers(0, side - 1) for side in image.shape)))
    changed = image.copy()
    raw = changed.view(f"u{image.dtype.itemsize}")
    raw[index] ^= data.draw(st.integers(1, 2**8 - 1))
    if not np.isfinite(changed).all():
        return
    assert content_digest(changed) != content_digest(image)


@quick
@given(integers | floats)
def test_shape_is_part_of_the_digest(image: np.ndarray) -> None:
    digest = content_digest(image)
    assert content_digest(image[None]) != digest
    if image.ndim > 1:
        assert content_digest(image.reshape(-1)) != digest
    if image.shape != image.shape[::-1]:
        assert content_digest(image.reshape(image.shape[::-1])) != digest


@quick
@given(integers | floats)
def test_canonical_holds_the_same_values(image: np.ndarray) -> None:
    np.testing.assert_array_equal(canonical(image), image)
    assert canonical(image).dtype.itemsize <= max(2, image.dtype.itemsize)


def test_negative_zero_is_another_image() -> None:
    zeros = np.zeros((1, 2, 2), np.float32)
    negative = zeros.copy()
    negative[0, 0, 0] = -0.0
    assert content_digest(negative) != content_digest(zeros)
    assert content_digest(zeros) == content_digest(zeros.astype(np.uint8))


def test_boolean_images_are_zeros_and_ones() -> None:
    image = np.array([[True, False]])
    assert content_digest(image) == content_digest(image.astype(np.uint8))


@pytest.mark.parametrize("image", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_what_is_not_a_real_number_is_refused(image: np.ndarray) -> None:
    with pytest.raises(TypeError, match="an image must hold real numbers, got dtype"):
        content_digest(image)


def test_the_digest_does_not_change_between_versions() -> None:
    # Stores on disk are keyed by it.
    image = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    assert content_digest(image).hex() == "c8c259f8d0da9dc1c86290c069b00c47"
    assert content_digest(np.resize(image, (1, 300, 300))).hex() == "9da5f1e88c6aa5147a78b5c3a47b098b"


def test_what_is_drawn_for_an_image_does_not_change_between_versions() -> None:
    # The same data and seed give the same noise.
    image = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    assert drawing_digest(image).hex() == "b780fb827f600412d5c73ede9f179868"
    assert drawing_digest(np.resize(image, (1, 300, 300))).hex() == "24a454c036aaf35862e83bcb9db6f43c"


def large_image(dtype: str) -> np.ndarray:
    """Several blocks, each of which fits another type."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (2, 300, 400)).astype(np.float64)
    image[0, 200:] = rng.integers(-900, 900, (100, 400))
    image[1, :200] = rng.normal(0, 1, (200, 400)).astype(np.float32)
    return image.astype(dtype)


def test_large_images_are_known_in_any_type_and_layout() -> None:
    image = large_image("float64")
    assert image.size > 2 * BLOCK
    digest = content_digest(image)
    for same in (large_image("float32"), np.asfortranarray(image), image.astype(">f8"), image[:, ::-1].copy()[:, ::-1]):
        assert content_digest(same) == digest
    whole = np.rint(image)
    assert content_digest(whole.astype(np.int16)) == content_digest(whole + 0.0) != digest


def test_every_block_of_a_large_image_counts() -> None:
    image = large_image("float32")
    found = {content_digest(image), content_digest(image.reshape(1, 600, 400))}
    for place in range(0, image.size, BLOCK // 2):
        changed = image.copy()
        changed.reshape(-1)[place] += 1
        found.add(content_digest(changed))
    swapped = image.reshape(-1).copy()
    swapped[:BLOCK], swapped[BLOCK : 2 * BLOCK] = swapped[BLOCK : 2 * BLOCK].copy(), swapped[:BLOCK].copy()
    found.add(content_digest(swapped.reshape(image.shape)))
    assert len(found) == 3 + len(range(0, image.size, BLOCK // 2))


def test_number_of_threads_does_not_matter() -> None:
    image = np.random.default_rng(0).integers(-900, 900, (1, 128, 128, 128)).astype(np.float32)
    threads, found = torch.get_num_threads(), set()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.add(content_digest(image))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize("value", [2.0**31, -(2.0**31), 2.0**31 - 1, 2.0**40, 2.0**15, -1.0, 65535.0, 2.0**63])
def test_whole_numbers_at_the_ends_of_types(value: float) -> None:
    image = np.array([[0.0, value]])
    assert float(canonical(image)[0, 1]) == value
    digest = content_digest(image)
    assert content_digest(image.astype(np.longdouble)) == digest
    if float(np.float32(value)) == value:
        assert content_digest(image.astype(np.float32)) == digest
    if value < 2.0**63:
        assert content_digest(image.astype(np.int64)) == digest


def test_integers_that_no_float_holds_differ() -> None:
    image = np.array([[0, 2**53]])
    assert len({content_digest(image + n) for n in range(4)}) == 4
