"""Scores of networks trained on clean data on protected images: can the owner still use them?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from monai_salm.learning.tasks import Task
from monai_salm.shared.arrays import Array


def utility(
    task: Task,
    predictions_clean: Sequence[torch.Tensor],
    predictions_protected: Sequence[torch.Tensor],
    targets: Sequence[Array],
) -> dict[str, Any]:
    """Compare the answers of one network, trained on clean data, to the same held-out images clean and protected.

    Args:
        task: the learning problem.
        predictions_clean: as ``Trainer.predict`` gives them: a vector of probabilities or a label map a case.
        predictions_protected: of the same images with noise, in the same order.
        targets: labels in canonical form.

    Returns:
        Plain values, see docs/report.md: ``clean`` and ``protected`` scores, ``per_class`` recall or Dice, ``drift``
        (protected less clean, so that a loss is negative), ``agreement`` and ``agreement_dice``.

    Raises:
        ValueError: if the numbers of cases differ or there are none.
    """
    if not len(predictions_clean) == len(predictions_protected) == len(targets) or not len(targets):
        raise ValueError(
            f"give predictions of the same images, at least one: got {len(predictions_clean)} clean and "
            f"{len(predictions_protected)} protected predictions for {len(targets)} labels"
        )
    pair = (predictions_clean, predictions_protected)
    scores = [{k: _finite(v) for k, v in task.scores(p, targets).items()} for p in pair]
    classes = [_per_class(task, p, targets, s) for p, s in zip(pair, scores, strict=True)]
    answers = [[_answer(task, p) for p in predictions] for predictions in pair]
    equal = [float((a == b).float().mean()) for a, b in zip(*answers, strict=True)]
    per_voxel = task.kind == "segmentation"
    # The protected prediction is scored as if the clean one were the truth.
    overlap = task.scores(answers[1], [a.numpy() for a in answers[0]])["dice"] if per_voxel else None
    return {
        "metric": task.metric,
        "cases": len(targets),
        "clean": scores[0],
        "protected": scores[1],
        "drift": _differences(*scores),
        "per_class_score": "dice" if per_voxel else "recall",
        "per_class": {
            name: {"clean": classes[0][name], "protected": classes[1][name], "drift": drift}
            for name, drift in _differences(*classes).items()
        },
        "agreement": float(np.mean(equal)),
        "agreement_dice": _finite(overlap),
    }


def mean_utility(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Average over networks: victims and seeds.

    Args:
        results: results of ``utility``, one a network.

    Returns:
        Means over the networks that have a number, how many ``networks`` there are, and ``worst_drift``: the lowest headline
        drift of any network, and the lowest drift of any class with its class. None without any network.
    """
    if not results:
        return None
    metric = results[0]["metric"]
    drifts = [r["drift"].get(metric) for r in results]
    classes = [(v["drift"], name) for r in results for name, v in r["per_class"].items() if v["drift"] is not None]
    lowest = min(classes, default=(None, None))
    return {
        **_mean(results),
        "networks": len(results),
        "worst_drift": {
            metric: min((d for d in drifts if d is not None), default=None),
            "per_class": lowest[0],
            "class": lowest[1],
        },
    }


def _answer(task: Task, prediction: torch.Tensor) -> torch.Tensor:
    """The class, the yes or no to each label, or the label map."""
    prediction = torch.as_tensor(prediction).detach().cpu()
    if task.kind == "segmentation":
        return prediction.long()
    return prediction > 0.5 if getattr(task, "multi_label", False) else prediction.argmax(0)


def _per_class(
    task: Task, predictions: Sequence[torch.Tensor], targets: Sequence[Array], scores: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Recall of each class (of several labels: of the cases that have it), or Dice of each foreground class."""
    if task.kind == "segmentation":
        return {str(c): scores[f"dice_{c}"] for c in range(1, task.num_classes)}
    answers = np.stack([_answer(task, p).numpy() for p in predictions])
    truth = np.stack(targets)
    result: dict[str, float | None] = {}
    for number in range(task.num_classes):
        has, said = (
            (truth[:, number] > 0.5, answers[:, number]) if truth.ndim > 1 else (truth == number, answers == number)
        )
        hits = said[has]
        result[str(number)] = float(hits.mean()) if len(hits) else None
    return result


def _differences(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, float | None]:
    """``after - before`` of every number that both have."""
    result: dict[str, float | None] = {}
    for name, first in before.items():
        second = after.get(name)
        result[name] = None if first is None or second is None else second - first
    return result


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _mean(values: Sequence[Any]) -> Any:
    """Mean of numbers, entry by entry of dictionaries; anything else is the first one's."""
    first = next((v for v in values if v is not None), None)
    if isinstance(first, Mapping):
        present = [v for v in values if v is not None]
        keys = dict.fromkeys(key for value in present for key in value)
        return {key: _mean([value.get(key) for value in present]) for key in keys}
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return float(np.mean([v for v in values if v is not None]))
    return first
