"""The pattern that a class' noise begins as: of full strength, zero on average, its own for each class."""

from __future__ import annotations

import numpy as np
import pytest

from monai_salm.methods import EM, SALM
from monai_salm.methods.starts import class_pattern
from monai_salm.tasks import Classification, Segmentation


@pytest.mark.parametrize(("rank", "count"), [(2, 2), (2, 3), (2, 8), (2, 40), (3, 2), (3, 7), (3, 26), (3, 100)])
def test_classes_have_patterns_of_their_own(rank: int, count: int) -> None:
    patterns = [class_pattern(np.int64(c), (128 if rank == 2 else 32,) * rank, count) for c in range(count)]
    assert all(set(np.unique(pattern)) == {-1, 1} for pattern in patterns)
    assert all(abs(int(pattern.sum(dtype=int))) == 0 for pattern in patterns)
    flat = np.stack([pattern.reshape(-1) for pattern in patterns]).astype(int)
    correlation = flat @ flat.T / flat.shape[1]
    assert np.abs(correlation - np.eye(count)).max() == 0


def test_a_flip_or_a_shift_keeps_a_wave_of_period_two() -> None:
    for number in range(7):
        pattern = class_pattern(np.int64(number), (8, 8, 8), 7)
        for axis in range(3):
            for other in (np.flip(pattern, axis), np.roll(pattern, 1, axis)):
                assert np.array_equal(other, pattern) or np.array_equal(other, -pattern)


def test_label_map_takes_the_pattern_of_each_voxel() -> None:
    label = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    found = class_pattern(label, label.shape, 3)
    for number in range(3):
        whole = class_pattern(np.int64(number), label.shape, 3)
        assert np.array_equal(found[label == number], whole[label == number])


def test_start_depends_on_the_task_unless_given() -> None:
    assert SALM().resolved(Segmentation(num_classes=3), 3).start == "class"
    assert SALM().resolved(Classification(num_classes=3), 2).start == "zero"
    assert EM(start="zero").resolved(Segmentation(num_classes=3), 3).start == "zero"
    with pytest.raises(ValueError, match="one label per image or voxel"):
        SALM(start="class").resolved(Classification(num_classes=3, multi_label=True), 2)
    with pytest.raises(ValueError, match="start must be one of"):
        SALM(start="x")
