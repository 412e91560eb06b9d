"""Scores of networks trained on clean data on protected images: can the owner still use them?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from monai_salm.countermeasures.training import pseudo_labels
from monai_salm.learning.tasks import Task
from monai_salm.shared.arrays import Array


def utility(
    task: Task,
    predictions_clean: Sequence[torch.Tensor],
    predictions_protected: Sequence[torch.Tensor],
    targets: Sequence[Array],
) -> dict[str, Any]:
    """Compare the answers of one network, trained on clean data, to the same held-out images clean and protected.

    Predictions are as ``Trainer.predict`` gives them; docs/report.md says what the values are.
    """
    pair = (predictions_clean, predictions_protected)
    scores = [{k: _finite(v) for k, v in task.scores(p, targets).items()} for p in pair]
    classes = [_per_class(task, p, targets, s) for p, s in zip(pair, scores, strict=True)]
    answers = [pseudo_labels(predictions, targets, task) for predictions in pair]
    equal = [float((a == b).mean(dtype=np.float32)) for a, b in zip(*answers, strict=True)]
    per_voxel = task.kind == "segmentation"
    # The protected prediction is scored as if the clean one were the truth.
    overlap = task.scores([*map(torch.from_numpy, answers[1])], answers[0])["dice"] if per_voxel else None
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
    """Means of the results of ``utility`` over the networks that have a number, and their lowest drifts; None without any."""
    if not results:
        return None
    metric = results[0]["metric"]
    drifts = [r["drift"][metric] for r in results if r["drift"].get(metric) is not None]
    classes = [(v["drift"], name) for r in results for name, v in r["per_class"].items() if v["drift"] is not None]
    lowest = min(classes, default=(None, None))
    return {
        **_mean(results),
        "networks": len(results),
        "worst_drift": {metric: min(drifts, default=None), "per_class": lowest[0], "class": lowest[1]},
    }


def _per_class(
    task: Task, predictions: Sequence[torch.Tensor], targets: Sequence[Array], scores: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Recall of each class (of several labels: of the cases that have it), or Dice of each foreground class."""
    if task.kind == "segmentation":
        return {str(c): scores[f"dice_{c}"] for c in range(1, task.num_classes)}
    answers, truth = (np.stack(given) for given in (pseudo_labels(predictions, targets, task), targets))
    if truth.ndim == 1:
        answers, truth = (given[:, None] == np.arange(task.num_classes) for given in (answers, truth))
    hits = {str(number): answers[truth[:, number] > 0, number] for number in range(task.num_classes)}
    return {number: float(said.mean(dtype=np.float64)) if len(said) else None for number, said in hits.items()}


def _differences(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, float | None]:
    """``after - before`` of every number that both have."""
    pairs = {name: (first, after.get(name)) for name, first in before.items()}
    return {name: None if a is None or b is None else b - a for name, (a, b) in pairs.items()}


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
