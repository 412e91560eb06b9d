"""Training sets of an evaluation: controls are what they say, nothing held out is trained on, mixtures are nested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import classification_cases, segmentation_cases

from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import ImageSet
from monai_salm.evaluation.training_sets import (
    TrainingSets,
    make_training_sets,
    random_mask,
    random_noise,
    stratified_ranks,
)
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

WINDOW = IntensityWindow(0, 255)


def budget(image: Array) -> Budget:
    return budget_of(image, WINDOW, Units(), 8 / 255)


def make_sets(cases: int = 40, held_out: float = 0.1, task: Task | None = None) -> TrainingSets:
    task = task or Classification(num_classes=2)
    make = classification_cases if task.kind == "classification" else segmentation_cases
    clean, test = make(cases=cases), make(cases=4, seed=1)

    def image_set(role: str, data: list[dict[str, Any]], change: int = 0) -> ImageSet:
        images: list[Array] = [case["image"] + np.uint8(change) for case in data]
        labels = [task.check_label(case["label"], case["image"].shape[1:], "x") for case in data]
        names = [case["name"] for case in data]
        return ImageSet(role, images, labels, names, [WINDOW] * len(data), [Units()] * len(data))

    sets = {
        "clean": image_set("clean", clean),
        "protected": image_set("protected", clean, 3),
        "other": image_set("other", clean, 5),
        "test": image_set("test", test),
    }
    budgets = [budget(image) for image in sets["clean"].images]
    return make_training_sets(sets, task, budgets, Protocol(held_out=held_out))


def changes(sets: TrainingSets, data: str, fraction: float = 1.0) -> dict[str, int]:
    """How much each case trained on differs from the clean one, by name."""
    clean = dict(zip(sets.clean.names, sets.images["clean"], strict=True))
    cases = sets.training(data, fraction)
    return {n: int(np.ptp(i.astype(int) - clean[n]) or (i.astype(int) - clean[n]).flat[0]) for n, i in _pairs(cases)}


def _pairs(cases: Any) -> list[tuple[str, Array]]:
    return list(zip(cases.names, cases.images, strict=True))


def test_held_out_cases_are_in_no_training_set() -> None:
    sets = make_sets()
    held = set(sets.held_out_cases("clean").names)
    assert len(held) == 4
    labels = [int(label) for label in sets.held_out_cases("clean").labels]
    assert labels.count(0) == labels.count(1) == 2
    for data, fraction in (
        ("clean", 1.0),
        ("protected", 1.0),
        ("protected", 0.4),
        ("clean_part", 0.4),
        ("random_mask", 1.0),
    ):
        assert not held & set(sets.training(data, fraction).names)
        assert set(sets.held_out_cases(data, fraction).names) == held
    assert len(make_sets(held_out=0).held_out_cases("protected")) == 0
    assert len(make_sets(held_out=0).training("clean")) == 40


def test_mixtures_are_nested_and_their_clean_part_is_the_rest() -> None:
    sets = make_sets()
    carrying = {f: {n for n, c in changes(sets, "protected", f).items() if c} for f in (0.2, 0.4, 0.6, 0.8, 1.0)}
    assert [len(names) for names in carrying.values()] == [7, 14, 22, 29, 36]
    assert carrying[0.2] < carrying[0.4] < carrying[0.6] < carrying[0.8] < carrying[1.0]
    for fraction in (0.2, 0.8):
        part = sets.training("clean_part", fraction)
        assert set(part.names) == carrying[1.0] - carrying[fraction]
        assert not any(changes(sets, "clean_part", fraction).values())


def test_copies_and_held_out_images_are_as_published() -> None:
    sets = make_sets()
    assert set(changes(sets, "other").values()) == {5}
    clean = dict(zip(sets.clean.names, sets.images["clean"], strict=True))
    for data, change in (("protected", 3), ("other", 5), ("clean", 0), ("clean_part", 0)):
        for name, image in _pairs(sets.held_out_cases(data)):
            np.testing.assert_array_equal(image.astype(int), clean[name].astype(int) + change)


def test_label_maps_stay_with_their_images() -> None:
    sets = make_sets(24, task=Segmentation(num_classes=2))
    part = sets.training("clean_part", 0.5)
    for name, label in zip(part.names, part.labels, strict=True):
        np.testing.assert_array_equal(label, sets.clean.labels[sets.clean.names.index(name)])
    assert len(sets.held_out_cases("clean")) == 2


def test_ranks_are_even_in_every_class() -> None:
    labels = [np.asarray(v) for v in [0] * 10 + [1] * 5]
    ranks = stratified_ranks(labels, 0)
    np.testing.assert_allclose(sorted(ranks), (np.arange(15) + 0.5) / 15)
    for share in (0.2, 0.4, 0.6, 0.8):
        assert (int((ranks[:10] < share).sum()), int((ranks[10:] < share).sum())) == (10 * share, 5 * share)
    assert not np.array_equal(ranks, stratified_ranks(labels, 1))


def test_small_classes_still_give_the_shares_asked_for() -> None:
    labels = [np.asarray(index // 4) for index in range(36)]  # nine classes of four
    ranks = stratified_ranks(labels, 0)
    assert [int((ranks < share).sum()) for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)] == [4, 7, 14, 22, 29, 36]
    assert max(np.bincount([int(label) for label, rank in zip(labels, ranks, strict=True) if rank < 0.4])) == 2


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("shape", [(1, 12, 12), (2, 6, 6, 6)])
def test_random_mask_keeps_the_noise_and_moves_it(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(20, 230, shape).astype(dtype)
    noise = rng.integers(-8, 9, shape) * (rng.random(shape) < 0.3)
    moved = random_mask(clean, (clean + noise).astype(dtype), budget(clean), 0)
    found = moved.astype(int) - clean.astype(int)
    assert moved.dtype == clean.dtype
    np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(noise, axis=None))
    assert not np.array_equal(found, noise)
    np.testing.assert_array_equal(moved, random_mask(clean, (clean + noise).astype(dtype), budget(clean), 0))


def test_random_mask_stays_in_the_window() -> None:
    clean = np.array([[[0, 0, 0, 0, 255, 255, 90, 91]]], np.int16)
    noise = np.array([[[8, 8, 8, 8, -8, -8, 8, -8]]], np.int16)
    moved = random_mask(clean, clean + noise, budget(clean), 3)
    assert moved.min() >= 0
    assert moved.max() <= 255
    outside = np.array([[[-500, 600, 100, 100]]], np.int16)
    moved = random_mask(outside, outside + np.array([[[0, 0, 5, 5]]], np.int16), budget(outside), 3)
    np.testing.assert_array_equal(moved, [[[-500, 600, 105, 105]]])


def test_controls_leave_padding_alone() -> None:
    rng = np.random.default_rng(0)
    clean = rng.uniform(20, 230, (1, 16, 16)).astype(np.float32)
    clean[:, :4] = np.nan
    protected = clean + np.float32(4) * (rng.random(clean.shape) < 0.3).astype(np.float32)
    for control in (random_noise, random_mask):
        made = control(clean, protected, budget(clean), 0)
        np.testing.assert_array_equal(np.isnan(made), np.isnan(clean))
        assert 0 < np.nanmax(np.abs(made - clean)) < 8.001  # of float32


def test_random_noise_uses_the_whole_budget() -> None:
    image = np.random.default_rng(0).integers(20, 230, (1, 32, 32)).astype(np.uint8)
    result = random_noise(image, image, budget(image), 0)
    assert set(np.unique(result.astype(int) - image)) == {-8, 8}
    np.testing.assert_array_equal(result, random_noise(image, image, budget(image), 0))
    assert not np.array_equal(result, random_noise(image, image, budget(image), 1))
