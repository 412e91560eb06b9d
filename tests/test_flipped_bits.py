"""No turned bit of a published copy or of a store changes what is read without being found.

The tests turn some bytes. ``python tests/helpers/flipped_bits.py copy`` (or ``owner``, ``store``) turns a bit of every byte.
"""

from __future__ import annotations

from pathlib import Path

import flipped_bits
import pytest

pytest.importorskip("cryptography")
EVERY = [pytest.param(11, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]), 97]


@pytest.mark.parametrize("owner", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_a_turned_bit_of_a_copy_is_found(tmp_path: Path, step: int, owner: bool) -> None:
    counts, unseen = flipped_bits.count_copy(tmp_path, step, owner)
    assert unseen == []
    assert counts[flipped_bits.FOUND] == counts.total() >= 4000 // step


@pytest.mark.parametrize("step", EVERY)
def test_a_turned_bit_of_a_store_is_found_or_changes_nothing(tmp_path: Path, step: int) -> None:
    counts, unseen = flipped_bits.count_store(tmp_path, step)
    assert unseen == []
    assert counts[flipped_bits.FOUND] > 3000 // step
    assert counts.total() >= 10_000 // step
