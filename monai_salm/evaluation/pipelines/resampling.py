"""Pipelines that train at another resolution: images by averaging or interpolation, label maps by nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.cases import Cases, View, choose_view
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

#: Brings ``(1, channel, *spatial)`` to a spatial size.
Resize = Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Resized(Pipeline):
    """Train and test at ``scale`` times the size; shrinking averages.

    Args:
        scale: new size as a share of the one that networks see in plain training.
    """

    family: ClassVar[str] = "resized"
    source: ClassVar[str] = (
        "torchvision.transforms.Resize, antialiased as by default, and MONAI's Resized with mode area for volumes"
    )

    varied: ClassVar[str] = "scale"

    scale: float = field(default=0.5, metadata={"in": "(0, 4]"})

    def prepare(self, cases: Cases) -> Cases:
        return resampled(cases, self.scale, averaged)


@dataclass(frozen=True, kw_only=True)
class Spacing(Pipeline):
    """Train and test on volumes of voxels ``factor`` times as large along every axis; images are interpolated linearly.

    Args:
        factor: new voxel size as a multiple of the old.
    """

    family: ClassVar[str] = "spacing"
    source: ClassVar[str] = (
        "MONAI's Spacingd with mode (bilinear, nearest), as in the tutorial spleen_segmentation_3d, whose voxels are 1.5 mm"
    )
    ranks: ClassVar[tuple[int, ...]] = (3,)

    varied: ClassVar[str] = "factor"

    factor: float = field(default=1.25, metadata={"in": "[0.25, 8]"})

    def prepare(self, cases: Cases) -> Cases:
        return resampled(cases, 1 / self.factor, interpolated)


def averaged(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Resize ``(batch, channel, *spatial)`` as views do: shrinking averages, so that nothing aliases."""
    return View("resize", size).resize(images)


def interpolated(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Resize ``(batch, channel, *spatial)`` by linear interpolation alone, as ``Spacingd`` does."""
    return F.interpolate(images, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def nearest(array: Array, size: Sequence[int]) -> Array:
    """Bring the last axes to a size by nearest neighbours, as torch's "nearest-exact" does; the type stays."""
    for axis, new in enumerate(size, start=array.ndim - len(size)):
        old = array.shape[axis]
        if old != new:
            array = array.take(((np.arange(new) + 0.5) * old / new).astype(np.intp), axis=axis)
    return array


def resampled(cases: Cases, scale: float, resize: Resize) -> Cases:
    """Cases in [0, 1] at ``scale`` times the size at which networks see them.

    With a patch view each image keeps its own shape, scaled; the patch shrinks where it does not fit.
    """
    shapes = [image.shape[1:] for image in cases.images]
    if cases.view.kind != "patch":
        shapes = [cases.view.size] * len(cases)
    sizes = [tuple(max(1, round(scale * side)) for side in shape) for shape in shapes]
    images = [
        resize(cases.normalized(index, (slice(None),) * cases.spatial_dims)[None], size)[0].clamp(0, 1).numpy()
        for index, size in enumerate(sizes)
    ]
    labels = [
        nearest(label, size) if label.ndim > 1 else label for label, size in zip(cases.labels, sizes, strict=True)
    ]
    view = _view_of(cases.view, sizes)
    return replace(cases, images=images, labels=labels, view=view, windows=[IntensityWindow(0.0, 1.0)] * len(cases))


def _view_of(view: View, sizes: Sequence[tuple[int, ...]]) -> View:
    if view.kind != "patch":
        return View("full", sizes[0])
    smallest = np.min(np.asarray(sizes), axis=0)
    fits = all(side <= least for side, least in zip(view.size, smallest, strict=True))
    return choose_view(sizes, True, view.size if fits else None)
