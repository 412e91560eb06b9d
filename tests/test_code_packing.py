"""Codes come back as they were packed, in little more than the bits that they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_salm.store.packing import PackedCodes, compress_bytes, decompress_bytes, pack_codes


def come_back(codes: np.ndarray) -> bytes:
    """Pack codes, make sure that every image comes back, and return what they were packed to."""
    packed = pack_codes(codes)
    for index, image in enumerate(codes):
        found = PackedCodes(packed, len(codes), image.shape, codes.dtype.name).image(index)
        assert found.dtype == codes.dtype
        np.testing.assert_array_equal(found, image)
    return packed


def strong(shape: tuple[int, ...], share: float, dtype: str = "int8", top: int = 8) -> np.ndarray:
    """Plus or minus the budget on a share of the elements, 0 elsewhere."""
    rng = np.random.default_rng(0)
    return (rng.choice([-top, top], shape) * (rng.random(shape) < share)).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["int8", "int16", "int32"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=2, max_dims=5, max_side=5),
            elements=st.sampled_from([-8, 0, 8]) | st.integers(-127, 127),
        )
    )
)
def test_any_codes_come_back(codes: np.ndarray) -> None:
    come_back(codes)


@pytest.mark.parametrize(("dtype", "top"), [("int8", 127), ("int16", 2**15 - 1), ("int32", 2**24)])
@pytest.mark.parametrize("shape", [(3, 1, 9, 7), (1, 2, 70, 80, 33)])
@pytest.mark.parametrize("others", [0, 0.01, 1])
def test_codes_with_few_and_many_of_other_sizes_come_back(
    dtype: str, top: int, shape: tuple[int, ...], others: float
) -> None:
    """Small and large, with signs alone, with exceptions, and full of them."""
    codes, rng = strong(shape, 0.6, dtype, top), np.random.default_rng(1)
    odd = rng.random(shape) < others
    codes[odd] = rng.integers(-top + 1, top, np.count_nonzero(odd))
    come_back(codes)


@pytest.mark.parametrize(("share", "bits"), [(1.0, 1.0), (0.3, 0.3 + 0.8813), (0.8, 0.8 + 0.7219), (0.0, 0.0)])
def test_large_noise_takes_little_more_than_its_entropy(share: float, bits: float) -> None:
    codes = strong((1, 1, 64, 64, 64), share)
    assert 8 * len(come_back(codes)) / codes.size < bits + 0.02


def test_signs_that_agree_with_their_neighbours_take_less() -> None:
    codes = np.repeat(strong((16, 1, 28, 4), 0.9), 7, axis=-1)
    assert len(come_back(codes)) < len(come_back(strong((16, 1, 28, 28), 0.9))) / 2


def test_exceptions_that_are_regular_come_back() -> None:
    """They are packed so tightly that they would look like a bomb."""
    codes = np.full((1, 1, 2**21), 8, np.int8)
    codes[..., ::16] = 1
    come_back(codes)


@pytest.mark.parametrize("data", [b"", b"a", b"a" * 1000, bytes(range(256))])
def test_bytes_come_back(data: bytes) -> None:
    packed = compress_bytes(data)
    assert decompress_bytes(packed, len(data)) == data
    assert len(packed) <= len(data) + 1
