"""Cases at another resolution: images by averaging or interpolation, label maps by nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.learning.cases import Cases, View, choose_view
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

#: Brings ``(1, channel, *spatial)`` to a spatial size.
Resize = Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]


def averaged(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Resize ``(batch, channel, *spatial)`` as views do: shrinking averages, so that nothing aliases."""
    return View("resize", size).resize(images)


def interpolated(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Resize ``(batch, channel, *spatial)`` by linear interpolation alone, as ``Spacingd`` does."""
    return F.interpolate(images, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def nearest(labels: Array, size: Sequence[int]) -> Array:
    """Bring a label map to a spatial size by nearest neighbours; the type stays.

    Args:
        labels: class numbers ``spatial``.
        size: the new spatial size.
    """
    if labels.shape == tuple(size):
        return labels
    # What torch's "nearest-exact" picks, for any type of label.
    for axis, (old, new) in enumerate(zip(labels.shape, size, strict=True)):
        labels = labels.take(((np.arange(new) + 0.5) * old / new).astype(np.intp), axis=axis)
    return labels


def resampled(cases: Cases, scale: float, resize: Resize) -> Cases:
    """Bring every case to ``scale`` times the size at which networks see it.

    Args:
        cases: stored units; left as they are.
        scale: new size as a share of the old.
        resize: how images are resampled.

    Returns:
        Cases in [0, 1]. With a patch view each image keeps its own shape, scaled; the patch shrinks where it does not fit.
    """
    shapes = [image.shape[1:] for image in cases.images]
    if cases.view.kind != "patch":
        shapes = [cases.view.size] * len(cases)
    sizes = [tuple(max(1, round(scale * side)) for side in shape) for shape in shapes]
    images = [resize(normalised(cases, index), size)[0].clamp(0, 1).numpy() for index, size in enumerate(sizes)]
    labels = [
        nearest(label, size) if label.ndim > 1 else label for label, size in zip(cases.labels, sizes, strict=True)
    ]
    view = _view_of(cases.view, sizes)
    return replace(cases, images=images, labels=labels, view=view, windows=[IntensityWindow(0.0, 1.0)] * len(cases))


def normalised(cases: Cases, index: int) -> torch.Tensor:
    """One image as networks see it, at its own size: ``(1, channel, *spatial)`` in [0, 1].

    Args:
        cases: stored units.
        index: of the case.
    """
    return cases.windows[index].normalize(torch.from_numpy(np.asarray(cases.images[index]).astype(np.float32))[None])


def _view_of(view: View, sizes: Sequence[tuple[int, ...]]) -> View:
    if view.kind != "patch":
        return View("full", sizes[0])
    smallest = np.min(np.asarray(sizes), axis=0)
    fits = all(side <= least for side, least in zip(view.size, smallest, strict=True))
    return choose_view(sizes, True, view.size if fits else None)
