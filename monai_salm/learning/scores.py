"""Scores of predictions against labels, and their bootstrap intervals, as pure functions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.shared.arrays import Array

# Resamples weighed at once, so that memory stays bounded for large test sets.
_CHUNK_NUMBERS = 1 << 22


def mean_auc(probability: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean one-against-rest area under the ROC curve, over the classes that have both kinds of case; ``(cases, classes)`` each."""
    present = [c for c in range(truth.shape[1]) if 0 < int(truth[:, c].sum()) < len(truth)]
    if not present:
        return float("nan")
    from monai.metrics import compute_roc_auc  # MONAI takes seconds to import, which most commands need not

    values = compute_roc_auc(probability[:, present], truth[:, present], average="none")
    return float(np.mean(np.asarray(values)))


def macro_f1(answers: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean F1 over the classes that are in the labels or the answers; zeros and ones ``(cases, classes)`` each."""
    positive, true = answers > 0.5, truth > 0.5
    hits = (positive & true).sum(0).double()
    total = positive.sum(0).double() + true.sum(0).double()
    return float((2 * hits / total)[total > 0].mean()) if bool((total > 0).any()) else float("nan")


def dice_table(predictions: Sequence[torch.Tensor], targets: Sequence[Array], num_classes: int) -> NDArray[np.float64]:
    """Dice ``(cases, num_classes - 1)`` of label maps; NaN where a class is not in the case's label map."""
    from monai.metrics import compute_dice

    rows = [
        compute_dice(*_one_hot_pair(p, t, num_classes), include_background=False)[0]
        for p, t in zip(predictions, targets, strict=True)
    ]
    return torch.stack(rows).double().numpy()


def mean_surface_distance(predictions: Sequence[torch.Tensor], targets: Sequence[Array], num_classes: int) -> float:
    """Mean symmetric surface distance in voxels, over cases and foreground classes in both label maps; NaN without any."""
    from monai.metrics import compute_average_surface_distance

    values = []
    for prediction, target in zip(predictions, targets, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class that is missing from a map is left out below
            warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of its own call
            pair = _one_hot_pair(prediction, target, num_classes)
            found = compute_average_surface_distance(*pair, include_background=False, symmetric=True)
        values.append(np.asarray(found, np.float64).reshape(-1))
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")


def _one_hot_pair(prediction: torch.Tensor, target: Array, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    from monai.networks.utils import one_hot

    # A copy: label maps that were read from disk may be read-only, of which torch warns.
    maps = prediction.long().cpu(), torch.from_numpy(np.array(target)).long()
    first, second = (one_hot(values[None, None], num_classes) for values in maps)
    return first, second


def label_counts(labels: Sequence[Array]) -> NDArray[np.int64]:
    """How often each class number occurs in arrays of whole numbers."""
    counts = [np.bincount(label.reshape(-1)) for label in labels]
    total = np.zeros(max(map(len, counts)), np.int64)
    for count in counts:
        total[: len(count)] += count
    return total


def mean_of_table(table: NDArray[np.float64]) -> float:
    """Mean over the columns of each column's mean over the rows that have a number."""
    counts = (~np.isnan(table)).sum(0)
    if not counts.any():
        return float("nan")
    return float((np.nansum(table, 0)[counts > 0] / counts[counts > 0]).mean())


def bootstrap_interval(
    table: NDArray[np.float64], resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of ``mean_of_table`` over rows of ``(cases, columns)``; NaN without any number."""
    present = ~np.isnan(table)
    filled, count = np.where(present, table, 0.0), len(table)
    rng, means = np.random.default_rng(seed), []
    chunk = max(1, _CHUNK_NUMBERS // max(1, count))
    for start in range(0, resamples, chunk):
        draws = rng.multinomial(count, np.full(count, 1 / count), size=min(chunk, resamples - start))
        with np.errstate(invalid="ignore"):
            columns = (draws @ filled) / (draws @ present)
        means += [float(row[~np.isnan(row)].mean()) for row in columns if not np.isnan(row).all()]
    if not means:
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
