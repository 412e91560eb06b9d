"""How far the noise moves what is measured in images: first-order and gradient features, clean against protected."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_salm.evaluation.sets import ImageSet
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

_BINS = 64
#: Largest mean drift of the mean intensity, as a fraction of the window.
MEAN_TOLERANCE = 0.005
#: Largest mean drift of any other feature, in standard deviations between cases.
OTHER_TOLERANCE = 0.1
#: Features and their units.
FEATURES = {
    "mean": "stored units",
    "standard_deviation": "stored units",
    "skewness": "",
    "entropy": "bits",
    "gradient_mean": "stored units per voxel",
    "gradient_standard_deviation": "stored units per voxel",
}


def radiomics_drift(clean: ImageSet, protected: ImageSet, window: IntensityWindow) -> dict[str, Any]:
    """Compare features of each image before and after.

    Features are taken of the image clipped to the window, all channels together: mean, standard deviation, skewness, entropy
    of a histogram of 64 bins, and mean and standard deviation of the gradient's length (central differences). A drift is
    ``abs(protected - clean)``.

    Tolerances: the mean may move by 0.5 % of the window, which is 1 to 2 grey levels of 256 or 2 HU of a window of 400
    and below the noise of scanners; another feature by 0.1 standard deviations between cases, half of what is called a
    small effect (Cohen 1988), so that groups of patients which differ in a feature still do. They judge whole sets of cases,
    not one patient's measurement.

    Args:
        clean: original images; with one label a voxel, features are taken inside the foreground as well.
        protected: the same images with noise, in the same order.
        window: the intensity window.

    Returns:
        Plain values, see docs/report.md.
    """
    whole: list[list[NDArray[np.float64]]] = [[], []]
    inside: list[list[NDArray[np.float64]]] = [[], []]
    where: list[str] = []
    for before, after, label, name in zip(clean.images, protected.images, clean.labels, clean.names, strict=True):
        foreground = label > 0 if label.ndim == before.ndim - 1 and label.ndim > 1 else None
        for position, image in enumerate((before, after)):
            every, some = features(image, window, foreground)
            whole[position].append(every)
            if some is not None:
                inside[position].append(some)
        if foreground is not None and foreground.any():
            where.append(name)
    return {
        "cases": len(clean),
        "tolerance": {"mean": MEAN_TOLERANCE, "others": OTHER_TOLERANCE},
        "features": _drifts(whole, clean.names, window),
        "foreground": {"cases": len(where), "features": _drifts(inside, where, window)} if where else None,
    }


def features(
    image: Array, window: IntensityWindow, foreground: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The features of one image, in the order of ``FEATURES``.

    Args:
        image: ``(channel, *spatial)``, stored units.
        window: the intensity window.
        foreground: ``(*spatial)``; None for none.

    Returns:
        Features of the whole image and of the foreground (None without one).
    """
    values = np.clip(image, window.low, window.high).astype(np.float32)
    slope = np.zeros_like(values)
    for axis in range(1, image.ndim):
        if image.shape[axis] > 1:
            slope += np.gradient(values, axis=axis) ** 2
    np.sqrt(slope, out=slope)
    some = None
    if foreground is not None and foreground.any():
        some = _of_voxels(values[:, foreground], slope[:, foreground], window)
    return _of_voxels(values, slope, window), some


def _of_voxels(values: NDArray[np.float32], slope: NDArray[np.float32], window: IntensityWindow) -> NDArray[np.float64]:
    mean = values.mean(dtype=np.float64)
    centred = values - mean
    variance = float(np.square(centred).mean())
    # A constant image has no skewness; one that is constant up to rounding should have none either.
    skew = float((centred**3).mean()) / variance**1.5 if variance > (1e-6 * window.width) ** 2 else 0.0
    bins = np.minimum(((values - window.low) * (_BINS / window.width)).astype(np.int64), _BINS - 1)
    share = np.bincount(bins.reshape(-1), minlength=_BINS) / bins.size
    share = share[share > 0]
    entropy = max(0.0, -float((share * np.log2(share)).sum()))
    return np.array(
        [mean, np.sqrt(variance), skew, entropy, slope.mean(dtype=np.float64), slope.std(dtype=np.float64)], np.float64
    )


def _drifts(pair: list[list[NDArray[np.float64]]], names: list[str], window: IntensityWindow) -> dict[str, Any]:
    before, after = (np.stack(part) for part in pair)
    drift = np.abs(after - before)
    spread = before.std(axis=0, ddof=1) if len(before) > 1 else np.zeros(len(FEATURES))
    result = {}
    for column, (name, unit) in enumerate(FEATURES.items()):
        # A feature that does not vary between cases has no scale: any drift is out of tolerance.
        sd = float(spread[column])
        tolerance = MEAN_TOLERANCE * window.width if name == "mean" else OTHER_TOLERANCE * sd
        # Sums in another order are no drift.
        outside = drift[:, column] > tolerance + 1e-6 * np.abs(before[:, column])
        mean = float(drift[:, column].mean())
        worst = int(drift[:, column].argmax())
        result[name] = {
            "unit": unit,
            "clean": float(before[:, column].mean()),
            "drift": mean,
            "bias": float((after - before)[:, column].mean()),
            "worst": float(drift[worst, column]),
            "worst_case": names[worst],
            "between_case_sd": sd,
            "relative": mean / sd if sd > 0 else None,
            "tolerance": tolerance,
            "within": mean <= tolerance + 1e-6 * abs(float(before[:, column].mean())),
            "share_outside": float(outside.mean()),
        }
    return result
