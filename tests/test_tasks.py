"""Labels are checked before any work, and scores are what scikit-learn and the formulas say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from monai_salm.learning.tasks import Classification, LabelError, Segmentation, Task, task_from_spec

quick = settings(max_examples=25, deadline=None)
FOUR = Classification(num_classes=4)
MULTI = Classification(num_classes=3, multi_label=True)
ORGANS = Segmentation(num_classes=3)
PLANE = (2, 3)


@pytest.mark.parametrize(
    "label",
    [2, 2.0, np.int16(2), np.array(2), np.array([2]), np.array([[2]]), torch.tensor(2), torch.tensor([2.0]), [2]],
    ids=repr,
)
def test_class_numbers_are_understood_in_any_wrapping(label: object) -> None:
    checked = FOUR.check_label(label, PLANE, "case 'a'")
    assert checked.shape == ()
    assert checked.dtype == np.int64
    assert checked == 2


@pytest.mark.parametrize(
    "label", [[1, 0, 1], np.array([[1], [0], [1]]), torch.tensor([1.0, 0, 1]), (True, False, True)]
)
def test_multi_labels_are_understood_in_any_wrapping(label: object) -> None:
    checked = MULTI.check_label(label, PLANE, "case 'a'")
    assert checked.dtype == np.float32
    assert checked.tolist() == [1, 0, 1]


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor, lambda v: MetaTensor(torch.tensor(v)), lambda v: [v]])
def test_label_maps_are_understood_with_and_without_channel(wrap: Any) -> None:
    values = [[0, 1, 2], [2, 1, 0]]
    checked = ORGANS.check_label(wrap(values), PLANE, "case 'a'")
    assert checked.dtype == np.uint8
    assert checked.tolist() == values
    assert Segmentation(num_classes=300).check_label(wrap(values), PLANE, "case 'a'").dtype == np.int32


GOOD_MAP = np.zeros(PLANE)
BAD_LABELS: list[tuple[Task, object, str]] = [
    (FOUR, None, "the label is missing"),
    (FOUR, 4, "label 4 is outside 0 to 3; check num_classes"),
    (FOUR, -1, "label -1 is outside 0 to 3"),
    (FOUR, 1.5, "label must be whole class numbers"),
    (FOUR, float("nan"), "the label is NaN or infinite"),
    (FOUR, float("inf"), "the label is NaN or infinite"),
    (FOUR, "liver", "label must be a number, got 'liver'; map class names"),
    (FOUR, [0, 1], "label must be one integer, got shape .*multi-label"),
    (FOUR, [], "label must be one integer, got shape"),
    (FOUR, {"a": 1}, "label must be a number"),
    (FOUR, [[0, 1], [2]], "label must be a number"),
    (MULTI, None, "the label is missing"),
    (MULTI, [0, 1], "must be 3 zeros or ones"),
    (MULTI, [0, 1, 2], "must be 3 zeros or ones"),
    (MULTI, [0, 0.5, 1], "must be 3 zeros or ones"),
    (MULTI, [0, np.nan, 1], "NaN"),
    (MULTI, 1, "must be 3 zeros or ones"),
    (ORGANS, None, "the label is missing"),
    (ORGANS, 1, "they must lie on one grid"),
    (ORGANS, np.zeros((3, 2)), "they must lie on one grid"),
    (ORGANS, np.zeros((2, *PLANE)), "they must lie on one grid"),
    (ORGANS, GOOD_MAP + 3, "label 3 is outside 0 to 2"),
    (ORGANS, GOOD_MAP - 1, "label -1 is outside 0 to 2"),
    (ORGANS, GOOD_MAP + 0.5, "whole class numbers"),
    (ORGANS, GOOD_MAP * np.nan, "NaN"),
    (ORGANS, np.full(PLANE, "a"), "label must be a number"),
]


@pytest.mark.parametrize(("task", "label", "message"), BAD_LABELS)
def test_bad_labels_are_refused_naming_the_case(task: Task, label: object, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        task.check_label(label, PLANE, "case 'liver_001'")
    assert str(caught.value).startswith("case 'liver_001': ")


@pytest.mark.parametrize(("kind", "settings"), [(Classification, {}), (Segmentation, {})])
def test_one_class_is_no_problem_to_learn(kind: type[Task], settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        kind(num_classes=1, **settings)


def test_one_yes_or_no_label_is() -> None:
    assert Classification(num_classes=1, multi_label=True).num_classes == 1
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        Classification(num_classes=0, multi_label=True)


@pytest.mark.parametrize("task", [FOUR, MULTI, ORGANS])
def test_spec_survives_json(task: Task) -> None:
    assert task_from_spec(json.loads(json.dumps(task.spec()))) == task


def test_unknown_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'regression'; known: classification, segmentation"):
        task_from_spec({"kind": "regression"})


@quick
@given(st.integers(0, 2**32), st.integers(2, 5), st.booleans())
def test_classification_scores_are_scikit_learns(seed: int, classes: int, rare: bool) -> None:
    rng = np.random.default_rng(seed)
    # Every class but perhaps the last is present; scikit-learn leaves an absent one out of the balance, too.
    present = classes - 1 if rare and classes > 2 else classes
    target = np.concatenate([np.arange(present), rng.integers(0, present, 30)])
    logits = torch.from_numpy(rng.normal(size=(len(target), classes)).round(1)).float()
    task = Classification(num_classes=classes)
    scores = task.scores(list(task.predict(logits)), [np.int64(t) for t in target])
    probability = task.predict(logits).numpy()
    answers = np.where(probability.argmax(1) < present, probability.argmax(1), -1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(target, answers))
    recalls = [np.mean(answers[target == c] == c) for c in range(present)]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if present == classes:
        assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, probability.argmax(1)))
    areas = [roc_auc_score(target == c, probability[:, c]) for c in range(present)]
    assert scores["auc"] == pytest.approx(np.mean(areas))


@quick
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_multi_label_scores_are_scikit_learns(seed: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    fixed = np.array([[0] * labels, [1] * labels])
    target = np.concatenate([fixed, rng.integers(0, 2, (20, labels))]).astype(np.float32)
    logits = torch.from_numpy(rng.normal(size=target.shape)).float()
    task = Classification(num_classes=labels, multi_label=True)
    scores = task.scores(list(task.predict(logits)), list(target))
    answers = (logits > 0).numpy()
    assert scores["accuracy"] == pytest.approx(accuracy_score(target.ravel(), answers.ravel()))
    balanced = [balanced_accuracy_score(target[:, c], answers[:, c]) for c in range(labels)]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    assert scores["auc"] == pytest.approx(roc_auc_score(target, logits.sigmoid().numpy(), average="macro"))


@quick
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(2, 3))
def test_dice_is_twice_the_overlap_over_the_sizes(seed: int, classes: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (5,) * rank
    targets = [rng.integers(0, classes, shape).astype(np.uint8) for _ in range(3)]
    predictions = [torch.from_numpy(rng.integers(0, classes, shape)) for _ in range(3)]
    scores = Segmentation(num_classes=classes).scores(predictions, targets)
    by_class = []
    for c in range(1, classes):
        pairs = [(p.numpy() == c, t == c) for p, t in zip(predictions, targets, strict=True)]
        by_class.append(np.mean([2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in pairs]))
        assert scores[f"dice_{c}"] == pytest.approx(by_class[-1])
    assert scores["dice"] == pytest.approx(np.mean(by_class))
    assert set(scores) == {"dice", *(f"dice_{c}" for c in range(1, classes))}


@pytest.mark.parametrize("task", [FOUR, MULTI, ORGANS])
def test_perfect_answers_score_1_and_wrong_targets_score_0(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    if task.kind == "segmentation":
        target = torch.randint(3, (2, 8, 8), generator=generator)
        right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float() * 20 - 10
        given_targets = list(target.numpy().astype(np.uint8))
    elif task == MULTI:
        target = torch.randint(2, (8, 3), generator=generator).float()
        right, given_targets = target * 20 - 10, list(target.numpy())
    else:
        target = torch.arange(8) % 4
        right = torch.nn.functional.one_hot(target, 4).float() * 20 - 10
        given_targets = list(target.numpy())
    assert task.scores(list(task.predict(right)), given_targets)[task.metric] == 1
    assert task.error(right, target) == 0
    assert task.loss(right, target) < 0.01
    wrong = task.wrong_target(target)
    assert wrong.shape == target.shape
    assert wrong.dtype == target.dtype
    assert (wrong != target).all()
    assert task.error(right, wrong) == 1
    assert task.loss(right, wrong) > 1


def test_baselines() -> None:
    target = [np.int64(c) for c in (0, 0, 0, 1, 2, 3, 0, 0)]
    assert FOUR.baselines(target) == {"chance": 0.25, "majority": 0.625}
    rows = [np.array(row, np.float32) for row in ([1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0])]
    assert MULTI.baselines(rows) == {"chance": 0.5, "majority": pytest.approx((1 + 0.75 + 0.75) / 3)}
    maps = [np.array([[0, 0, 1], [0, 2, 2]], np.uint8)]
    baselines = ORGANS.baselines(maps)
    assert baselines["majority"] == 0  # all background
    assert 0 < baselines["chance"] < 1
    assert ORGANS.baselines([np.array([[1, 1, 1], [1, 0, 2]], np.uint8)])["majority"] == pytest.approx(
        (2 * 4 / 10 + 0) / 2
    )
