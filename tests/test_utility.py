"""What a network that knows clean images makes of protected ones: scores, drift and agreement."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from monai_salm.evaluation.utility import mean_utility, utility
from monai_salm.learning.tasks import Classification, Segmentation


def one_hot(answers: list[int], classes: int) -> list[torch.Tensor]:
    return list(torch.eye(classes)[answers] * 0.8 + 0.1)


def test_classification() -> None:
    targets = [np.asarray(v, np.int64) for v in (0, 0, 1, 1)]
    task = Classification(num_classes=3)
    found = utility(task, one_hot([0, 0, 1, 2], 3), one_hot([0, 2, 1, 2], 3), targets)
    assert (found["metric"], found["cases"], found["per_class_score"]) == ("accuracy", 4, "recall")
    assert (found["clean"]["accuracy"], found["protected"]["accuracy"]) == (0.75, 0.5)
    assert found["drift"]["accuracy"] == -0.25
    assert found["per_class"] == {
        "0": {"clean": 1.0, "protected": 0.5, "drift": -0.5},
        "1": {"clean": 0.5, "protected": 0.5, "drift": 0.0},
        "2": {"clean": None, "protected": None, "drift": None},  # no case has it
    }
    assert found["agreement"] == 0.75
    assert found["agreement_dice"] is None
    json.dumps(found, allow_nan=False)


def test_several_labels() -> None:
    targets = [np.array(v, np.float32) for v in ([1, 0], [1, 1])]
    task = Classification(num_classes=2, multi_label=True)
    clean = [torch.tensor(v) for v in ([0.9, 0.2], [0.8, 0.7])]
    protected = [torch.tensor(v) for v in ([0.9, 0.6], [0.3, 0.7])]
    found = utility(task, clean, protected, targets)
    assert (found["clean"]["accuracy"], found["protected"]["accuracy"]) == (1.0, 0.5)
    assert found["per_class"]["0"] == {"clean": 1.0, "protected": 0.5, "drift": -0.5}
    assert found["per_class"]["1"]["drift"] == 0
    assert found["agreement"] == 0.5


@pytest.mark.parametrize("shape", [(8, 8), (6, 6, 6)])
def test_segmentation(shape: tuple[int, ...]) -> None:
    target = np.zeros(shape, np.uint8)
    target[:4], target[4:] = 1, 2
    half = torch.from_numpy(target).clone()
    half[2:4] = 0
    found = utility(Segmentation(num_classes=4), [torch.from_numpy(target)], [half], [target])
    assert found["per_class_score"] == "dice"
    assert found["per_class"]["1"] == {
        "clean": 1.0,
        "protected": pytest.approx(2 / 3),
        "drift": pytest.approx(-1 / 3),
    }
    assert found["per_class"]["2"]["drift"] == 0
    assert found["per_class"]["3"]["drift"] is None  # nowhere in the labels
    assert found["agreement"] == pytest.approx(1 - 2 / shape[0])
    assert found["agreement_dice"] == pytest.approx((2 / 3 + 1) / 2)
    json.dumps(found, allow_nan=False)


def test_equal_predictions_agree() -> None:
    answers = one_hot([0, 1, 1], 2)
    found = utility(Classification(num_classes=2), answers, answers, [np.asarray(v) for v in (0, 1, 0)])
    assert found["agreement"] == 1
    assert set(found["drift"].values()) == {0.0}


def test_mean_over_networks() -> None:
    targets = [np.asarray(v) for v in (0, 0, 1, 1)]
    task = Classification(num_classes=3)
    clean = one_hot([0, 0, 1, 1], 3)
    results = [utility(task, clean, one_hot(noisy, 3), targets) for noisy in ([0, 0, 1, 1], [0, 0, 1, 2], [2, 0, 2, 2])]
    mean = mean_utility(results)
    assert mean is not None
    assert mean["networks"] == 3
    assert (mean["metric"], mean["cases"]) == ("accuracy", 4)
    assert mean["drift"]["accuracy"] == pytest.approx(-(0 + 0.25 + 0.75) / 3)
    assert mean["agreement"] == pytest.approx((1 + 0.75 + 0.25) / 3)
    assert mean["agreement_dice"] is None
    assert mean["per_class"]["1"]["protected"] == pytest.approx(0.5)
    assert mean["per_class"]["2"]["drift"] is None
    assert mean["worst_drift"] == {"accuracy": -0.75, "per_class": -1.0, "class": "1"}
    json.dumps(mean, allow_nan=False)
    assert mean_utility([]) is None
