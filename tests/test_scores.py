"""Scores against scikit-learn, SciPy and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import binary_erosion, distance_transform_edt
from sklearn.metrics import f1_score, roc_auc_score

from monai_salm.learning.scores import (
    bootstrap_interval,
    dice_table,
    macro_f1,
    mean_auc,
    mean_of_table,
    mean_surface_distance,
)
from monai_salm.learning.tasks import Classification, Segmentation

RNG = np.random.default_rng(0)


def test_auc_and_f1_are_scikit_learns() -> None:
    probability = torch.from_numpy(RNG.dirichlet(np.ones(4), 200)).float()
    labels = RNG.integers(0, 4, 200)
    scores = Classification(num_classes=4).scores(list(probability), [np.asarray(label) for label in labels])
    assert scores["auc"] == pytest.approx(roc_auc_score(labels, probability.numpy(), multi_class="ovr"), abs=1e-6)
    assert scores["f1"] == pytest.approx(f1_score(labels, probability.argmax(1), average="macro"))
    assert scores["accuracy"] == pytest.approx(float((probability.argmax(1).numpy() == labels).mean()))


def test_several_labels() -> None:
    probability = torch.from_numpy(RNG.random((100, 3))).float()
    labels = (RNG.random((100, 3)) < 0.3).astype(np.float32)
    task = Classification(num_classes=3, multi_label=True)
    scores = task.scores(list(probability), list(labels))
    answers = probability.numpy() > 0.5
    assert scores["f1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert scores["auc"] == pytest.approx(roc_auc_score(labels, probability.numpy(), average="macro"), abs=1e-6)
    assert mean_of_table(task.case_scores(list(probability), list(labels))) == pytest.approx(scores["accuracy"])
    assert scores["accuracy"] == pytest.approx(float((answers == labels).mean()))


def test_a_class_that_nobody_has_or_names_counts_not_at_all() -> None:
    truth = torch.tensor([[1, 0, 0], [0, 1, 0]])
    assert macro_f1(truth, truth) == 1.0
    assert np.isnan(macro_f1(truth * 0, truth * 0))
    assert np.isnan(mean_auc(truth.float(), truth * 0))


def _surface_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over both surfaces of the distance to the other, by its definition."""
    edges = [mask & ~binary_erosion(mask) for mask in (first, second)]
    away = [distance_transform_edt(~edge) for edge in edges]
    return float(np.concatenate([away[1][edges[0]], away[0][edges[1]]]).mean())


@pytest.mark.parametrize("shape", [(24, 20), (14, 16, 12)])
def test_surface_distance_is_its_definition(shape: tuple[int, ...]) -> None:
    first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    first[(slice(3, 10),) * len(shape)] = 1
    second[(slice(5, 11),) * len(shape)] = 1
    expected = _surface_distance(first == 1, second == 1)
    assert mean_surface_distance([torch.from_numpy(first)], [second], 2) == pytest.approx(expected, rel=1e-5)
    assert mean_surface_distance([torch.from_numpy(second)], [second], 2) == 0.0
    assert np.isnan(mean_surface_distance([torch.zeros(shape)], [second], 2))
    scores = Segmentation(num_classes=2).final_scores([torch.from_numpy(first)], [second])
    assert scores["surface_distance"] == pytest.approx(expected, rel=1e-5)
    assert {"dice", "dice_1"} < set(scores)


def test_the_table_of_a_segmentation_gives_its_headline() -> None:
    task = Segmentation(num_classes=4)
    targets = [RNG.integers(0, 4, (8, 8)).astype(np.uint8) for _ in range(5)]
    targets[0][targets[0] == 3] = 0
    predictions = [torch.from_numpy(np.where(RNG.random((8, 8)) < 0.6, t, 1)) for t in targets]
    table = task.case_scores(predictions, targets)
    assert table.shape == (5, 3)
    assert np.isnan(table[0, 2])
    assert mean_of_table(table) == pytest.approx(task.scores(predictions, targets)["dice"])


def test_bootstrap_interval_is_the_normal_one_for_many_cases() -> None:
    hits = (np.arange(2000) < 1400).astype(float)[:, None]
    low, high = bootstrap_interval(hits, resamples=4000)
    half = stats.norm.ppf(0.975) * np.sqrt(0.7 * 0.3 / 2000)
    assert (low, high) == (pytest.approx(0.7 - half, abs=0.002), pytest.approx(0.7 + half, abs=0.002))
    assert bootstrap_interval(hits) == bootstrap_interval(hits)
    assert bootstrap_interval(hits, level=0.5)[0] > bootstrap_interval(hits)[0]


def test_bootstrap_leaves_out_what_is_no_number() -> None:
    table = np.array([[1.0, np.nan], [1.0, 0.5], [1.0, 0.5]])
    assert bootstrap_interval(table) == (pytest.approx(0.75), pytest.approx(1.0))  # a draw without the second column
    assert all(np.isnan(end) for end in bootstrap_interval(np.full((3, 1), np.nan)))
    assert bootstrap_interval(np.array([[0.25]])) == (0.25, 0.25)


def test_label_maps_may_be_read_only() -> None:
    """As arrays that were read from disk are; torch would warn, and a warning is an error here."""
    target = np.array([[0, 1], [1, 2]], np.uint8)
    target.setflags(write=False)
    assert dice_table([torch.from_numpy(target.copy())], [target], 3).tolist() == [[1.0, 1.0]]
