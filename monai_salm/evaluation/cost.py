"""What the noise costs the images: PSNR, SSIM and size of the noise, and the drift of radiomics features."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.metrics import compute_ssim_and_cs
from numpy.typing import NDArray

from monai_salm.evaluation.sets import Floats, ImageSet, difference
from monai_salm.learning.tasks import Task
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

_SSIM_KERNEL = 11
# Voxels for which SSIM is computed at once; about ten arrays of that size are in memory.
_AT_ONCE = 2**20

Sizes: TypeAlias = dict[str, float]

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


def image_cost(
    clean: ImageSet,
    protected: ImageSet,
    task: Task,
    window: IntensityWindow,
    native_scale: float | None = None,
    native_unit: str = "",
) -> dict[str, Any]:
    """Measure every case's noise: means, worst cases, and means of each class (docs/report.md).

    ``psnr`` and ``ssim`` are means over the cases that changed, all else over all. The width of the window is the peak of PSNR
    and the range of SSIM; ``native_scale`` is native units, such as HU, in one stored unit.
    """
    pairs = zip(clean.images, protected.images, _all_ssim(clean.images, protected.images, window), strict=True)
    rows = [{**_sizes(difference(*pair), window), "ssim": value} for *pair, value in pairs]
    named = list(zip(rows, clean.names, strict=True))
    changed = [(row, name) for row, name in named if row["share"] > 0]
    result: dict[str, Any] = {"cases": len(rows), "unchanged": len(rows) - len(changed)}
    result |= {name: _summary(changed, name, min) for name in ("psnr", "ssim")}
    result |= {name: _summary(named, name, max) for name in ("l0", "share", "l2", "linf")}
    result["native"] = None
    if native_scale is not None:
        native = {name: _summary(named, name, max, abs(native_scale)) for name in ("l2", "linf")}
        result["native"] = {"scale": native_scale, "unit": native_unit, **native}
    return {**result, "by_class": _by_class(clean, protected, rows, task, window)}


def _sizes(change: NDArray[np.float64], window: IntensityWindow) -> Sizes:
    """Sizes of a change, ``l2`` and ``linf`` in stored units; PSNR is infinite without any."""
    l0 = int(np.count_nonzero(change))
    squares = float(np.square(change).sum())
    return {
        "psnr": 10 * math.log10(window.width**2 * change.size / squares) if squares > 0 else math.inf,
        "l0": l0,
        "share": l0 / change.size if change.size else 0.0,
        "l2": math.sqrt(squares),
        "linf": float(np.abs(change).max(initial=0)),
    }


def _summary(
    rows: Sequence[tuple[Sizes, str]], name: str, worst_of: Callable[..., Any], scale: float = 1
) -> dict[str, Any]:
    """Mean over some cases and the worst of them."""
    if not rows:
        return {"mean": None, "worst": None, "worst_case": None}
    values = [row[name] * scale for row, _ in rows]
    worst = values.index(worst_of(values))
    return {"mean": float(np.mean(values)), "worst": float(values[worst]), "worst_case": rows[worst][1]}


def _by_class(
    clean: ImageSet, protected: ImageSet, rows: Sequence[Sizes], task: Task, window: IntensityWindow
) -> dict[str, dict[str, Any]]:
    """Sizes by class: of its images, or of its voxels where labels are per voxel."""
    members: dict[int, list[Sizes]] = defaultdict(list)
    for index, label in enumerate(clean.labels):
        if task.kind == "segmentation":
            change = difference(clean.images[index], protected.images[index])
            for number in np.unique(label).tolist():
                members[number].append(_sizes(change[:, label == number], window))
        elif label.ndim:
            for number in np.flatnonzero(label).tolist():
                members[number].append(rows[index])
        else:
            members[int(label)].append(rows[index])
    return {str(number): _class_sizes(members[number]) for number in sorted(members)}


def _class_sizes(rows: Sequence[Sizes]) -> dict[str, Any]:
    changed = [row for row in rows if row["share"] > 0]
    quality = {name: [row[name] for row in changed if name in row] for name in ("psnr", "ssim")}
    return {
        "cases": len(rows),
        "unchanged": len(rows) - len(changed),
        **{name: float(np.mean(values)) if values else None for name, values in quality.items()},
        **{name: float(np.mean([row[name] for row in rows])) for name in ("l0", "share", "l2")},
        "linf": max(row["linf"] for row in rows),
    }


def _all_ssim(clean: Sequence[Array], protected: Sequence[Array], window: IntensityWindow) -> Iterator[float]:
    """SSIM of every case; images of one shape go together as far as memory allows."""
    for shape, group in itertools.groupby(zip(clean, protected, strict=True), key=lambda pair: pair[0].shape):
        pairs = list(group)
        size = max(1, _AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, len(pairs), size):
            before, after = (np.stack(part) for part in zip(*pairs[start : start + size], strict=True))
            yield from ssim(before, after, window)


@torch.inference_mode()
def ssim(clean: Array, protected: Array, window: IntensityWindow) -> list[float]:
    """Structural similarity (Wang et al. 2004) of images ``(case, channel, *spatial)`` in the window, one number a case.

    The mean over all places where MONAI's Gaussian window (11 voxels a side or less, sigma 1.5) lies inside.
    """
    kernel = [min(_SSIM_KERNEL, n - 1 + n % 2) for n in clean.shape[2:]]
    total, places = np.zeros(len(clean)), 0
    # Slabs along the first axis that overlap by the kernel give the same places, in bounded memory.
    length, margin = clean.shape[2], kernel[0] - 1
    step = max(1, _AT_ONCE * length // max(1, clean.size) - margin)
    for start in range(0, length - margin, step):
        pair = [_windowed(images[:, :, start : start + step + margin], window) for images in (clean, protected)]
        sigmas = [1.5] * len(kernel)
        found, _ = compute_ssim_and_cs(pair[0], pair[1], len(kernel), kernel_size=kernel, kernel_sigma=sigmas)
        total += found.double().flatten(1).sum(1).numpy()
        places += found[0].numel()
    return [float(value) for value in total / places]


def _windowed(images: Array, window: IntensityWindow) -> torch.Tensor:
    # Clip in the stored type's own range first: float32 of a clipped value loses nothing that is seen.
    values = np.clip(images.astype(np.float64), window.low, window.high)
    return torch.from_numpy(((values - window.low) / window.width).astype(np.float32))


def radiomics_drift(clean: ImageSet, protected: ImageSet, window: IntensityWindow) -> dict[str, Any]:
    """Compare first-order and gradient features of each image, and of its foreground where labels are per voxel.

    The mean may move by 0.5 % of the window, which is below the noise of scanners. Another feature may move by 0.1 standard
    deviations between cases, half of a small effect (Cohen 1988). The tolerances judge sets, not one patient's measurement.
    """
    whole, inside, where = [], [], []
    for before, after, label, name in zip(clean.images, protected.images, clean.labels, clean.names, strict=True):
        foreground = label > 0 if label.ndim == before.ndim - 1 and label.ndim > 1 else None
        every, some = zip(*(features(image, window, foreground) for image in (before, after)), strict=True)
        whole.append(every)
        if foreground is not None and foreground.any():
            inside.append(some)
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
    """Features in the order of ``FEATURES`` of an image ``(channel, *spatial)`` and of its foreground ``(*spatial)``, if any."""
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


def _of_voxels(values: Floats, slope: Floats, window: IntensityWindow) -> NDArray[np.float64]:
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


def _drifts(pairs: Sequence[Any], names: Sequence[str], window: IntensityWindow) -> dict[str, Any]:
    before, after = np.stack(pairs).swapaxes(0, 1)
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
