"""What the noise costs the images: how far they are from the originals, in numbers a reader of images knows."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.metrics import compute_ssim_and_cs
from numpy.typing import NDArray

from monai_salm.evaluation.sets import ImageSet, difference
from monai_salm.learning.tasks import Task
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

_SSIM_KERNEL = 11
# Voxels that SSIM is computed of at once: it holds about ten arrays of that size.
_AT_ONCE = 2**20

Sizes: TypeAlias = dict[str, float]


def image_cost(
    clean: ImageSet,
    protected: ImageSet,
    task: Task,
    window: IntensityWindow,
    native_scale: float | None = None,
    native_unit: str = "",
) -> dict[str, Any]:
    """Measure every case's noise; report means, worst cases and classes.

    Args:
        clean: original images.
        protected: the same images with noise, in the same order.
        task: says what the labels are.
        window: the intensity window; its width is the peak of PSNR and the range of SSIM.
        native_scale: native units per stored unit, such as Hounsfield units of a file with a slope.
        native_unit: name of the native unit.

    Returns:
        Plain values, see docs/report.md. ``psnr`` and ``ssim`` are means over the cases that changed, all else over all.
    """
    rows = [_sizes(difference(*pair), window) for pair in zip(clean.images, protected.images, strict=True)]
    for row, value in zip(rows, _all_ssim(clean.images, protected.images, window), strict=True):
        row["ssim"] = value
    changed = [index for index, row in enumerate(rows) if row["share"] > 0]
    everyone = list(range(len(rows)))
    result: dict[str, Any] = {"cases": len(rows), "unchanged": len(rows) - len(changed)}
    for name in ("psnr", "ssim"):
        result[name] = _summary(rows, name, changed, clean.names, highest=False)
    for name in ("l0", "share", "l2", "linf"):
        result[name] = _summary(rows, name, everyone, clean.names, highest=True)
    result["native"] = None
    if native_scale is not None:
        scaled = [{name: row[name] * abs(native_scale) for name in ("l2", "linf")} for row in rows]
        native = {name: _summary(scaled, name, everyone, clean.names, highest=True) for name in ("l2", "linf")}
        result["native"] = {"scale": native_scale, "unit": native_unit, **native}
    result["by_class"] = _by_class(clean, protected, rows, task, window)
    return result


def _sizes(change: NDArray[np.float64], window: IntensityWindow) -> Sizes:
    """How large a change is, ``l2`` and ``linf`` in stored units; PSNR is infinite without any."""
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
    rows: Sequence[Sizes], name: str, members: Sequence[int], names: Sequence[str], highest: bool
) -> dict[str, Any]:
    """Mean over some cases and the worst of them."""
    if not members:
        return {"mean": None, "worst": None, "worst_case": None}
    values = [rows[index][name] for index in members]
    worst = int(np.argmax(values) if highest else np.argmin(values))
    return {"mean": float(np.mean(values)), "worst": float(values[worst]), "worst_case": names[members[worst]]}


def _by_class(
    clean: ImageSet, protected: ImageSet, rows: Sequence[Sizes], task: Task, window: IntensityWindow
) -> dict[str, dict[str, Any]]:
    """For each class, its images; for labels per voxel, its voxels in each image; for several labels, images that have it."""
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
    """SSIM of every case, images of one shape together as far as memory goes."""
    for shape, group in itertools.groupby(zip(clean, protected, strict=True), key=lambda pair: pair[0].shape):
        pairs = list(group)
        size = max(1, _AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, len(pairs), size):
            before, after = (np.stack(part) for part in zip(*pairs[start : start + size], strict=True))
            yield from ssim(before, after, window)


@torch.inference_mode()
def ssim(clean: Array, protected: Array, window: IntensityWindow) -> list[float]:
    """Structural similarity (Wang et al. 2004) as MONAI computes it, of images as seen in the window.

    Args:
        clean: ``(case, channel, *spatial)``, stored units.
        protected: of the same shape.
        window: what lies outside is clipped; its width is the range of the values.

    Returns:
        The mean over all places where the Gaussian window (11 voxels a side, sigma 1.5; the largest odd number that fits
        for shorter sides) lies inside the image, one number a case.
    """
    kernel = [min(_SSIM_KERNEL, n - 1 + n % 2) for n in clean.shape[2:]]
    total, places = np.zeros(len(clean)), 0
    # Slabs along the first axis that overlap by the kernel give the same places, in bounded memory.
    length, margin = clean.shape[2], kernel[0] - 1
    step = max(1, _AT_ONCE * length // max(1, clean.size) - margin)
    for start in range(0, length - margin, step):
        slab = (slice(None), slice(None), slice(start, start + step + margin))
        pair = [_windowed(images[slab], window) for images in (clean, protected)]
        found, _ = compute_ssim_and_cs(
            pair[0], pair[1], spatial_dims=len(kernel), kernel_size=kernel, kernel_sigma=[1.5] * len(kernel)
        )
        total += found.double().flatten(1).sum(1).numpy()
        places += found[0].numel()
    return [float(value) for value in total / places]


def _windowed(images: Array, window: IntensityWindow) -> torch.Tensor:
    # Clip in the stored type's own range first: float32 of a clipped value loses nothing that is seen.
    values = np.clip(images.astype(np.float64), window.low, window.high)
    return torch.from_numpy(((values - window.low) / window.width).astype(np.float32))
