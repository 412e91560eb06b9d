"""The best label map that is the same for every image: the score of a network that has only learned positions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.evaluation.pipelines.resampling import nearest
from monai_salm.learning.scores import mean_of_table
from monai_salm.learning.tasks import Task
from monai_salm.shared.arrays import Array

# Shares of the training maps that must have a class at a position for the constant map to have it there.
_LEVELS = np.linspace(0.05, 0.95, 19)


def constant_map(labels: Sequence[Array], num_classes: int) -> Array:
    """A label for every position, of the commonest shape: a class where at least a share of the maps has it.

    The share of a class maximises the mean Dice on these maps. Of several classes, the one farthest above its share wins.
    """
    shape = Counter(label.shape for label in labels).most_common(1)[0][0]
    maps = [nearest(label, shape) for label in labels]
    best, lead = np.zeros(shape, labels[0].dtype), np.ones(shape)
    for number in range(1, num_classes):
        share = sum((label == number for label in maps), np.zeros(shape)) / len(maps)
        excess = share / _best_level(share, maps, number)
        best[excess >= lead], lead = number, np.maximum(lead, excess)
    return best


def constant_score(task: Task, labels: Sequence[Array], test_labels: Sequence[Array]) -> float:
    """Headline score of the constant map of training maps on test maps, resized to the shape of each."""
    answer = constant_map(labels, task.num_classes)
    # One case at a time: maps of a whole set of volumes would not fit in memory.
    rows = [task.case_scores([torch.from_numpy(nearest(answer, t.shape))], [t])[0] for t in test_labels]
    return mean_of_table(np.stack(rows))


def _best_level(share: NDArray[np.float64], maps: Sequence[Array], number: int) -> float:
    """The level with the highest mean Dice between the positions above it and the maps that have the class at all."""
    reached = np.searchsorted(_LEVELS, share, side="right")  # levels that a position reaches
    sizes, scores = _above(reached), []
    for label in maps:
        member = label == number
        if member.any():
            scores.append(2 * _above(reached[member]) / (sizes + member.sum()))
    return float(_LEVELS[np.mean(scores, axis=0).argmax()]) if scores else math.inf


def _above(reached: NDArray[np.intp]) -> NDArray[np.int64]:
    """For every level the number of positions that reach it."""
    counts = np.bincount(reached.reshape(-1), minlength=len(_LEVELS) + 1)
    return np.cumsum(counts[::-1])[::-1][1:]
