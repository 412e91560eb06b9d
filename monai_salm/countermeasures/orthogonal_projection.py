"""Orthogonal projection: remove the directions in which a linear classifier separates the classes.

Sandoval-Segura, Singla, Geiping, Goldblum, Goldstein 2023, "What Can We Learn from Unlearnable Datasets?", NeurIPS,
arXiv 2305.19254. It is strong against noise that is the same in all images of a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.learning.cases import Cases, shuffled_batches
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array, Lazy

_PIXELS = 3 * 32 * 32  # of CIFAR-10, where the paper's learning rate comes from


@dataclass(frozen=True, kw_only=True)
class OrthogonalProjection(Countermeasure):
    """Fit logistic regression to the pixels, and train on images projected onto what is orthogonal to its weights.

    Images are projected at the size that networks see, and may leave the window; test images stay as they are, both
    as in the paper.

    Args:
        epochs: passes of the linear classifier's training.
        batches: in each pass; the paper's 49 (of 1024 images of CIFAR-10), here as many smaller ones of a smaller set.
        lr: of plain gradient descent, for images of 3072 values like CIFAR-10's, and in inverse proportion for others,
            so that a step changes the answers as much; falls to a tenth after a half and after three quarters.
    """

    name: ClassVar[str] = "orthogonal_projection"
    epochs: int = field(default=20, metadata={"in": "[1, inf)"})
    batches: int = field(default=49, metadata={"in": "[1, inf)"})
    lr: float = field(default=0.1, metadata={"in": "(0, inf)"})

    def without_effect(self, cases: Cases) -> str | None:
        if cases.task.kind == "segmentation":
            return "not applicable: a linear classifier of whole images needs labels per image"
        if cases.view.kind == "patch":
            return "not applicable: networks see patches at random places, a linear classifier needs whole images"
        return None

    def prepare(self, cases: Cases, resources: Resources) -> Cases:
        directions = orthonormal(self.fit_linear(cases, resources.generator()))

        def projected(case: int) -> Array:
            image = cases.inputs([(case, _whole(cases))])[0]
            pixels = image.flatten()
            seen: Array = (pixels - directions.T @ (directions @ pixels)).view_as(image).numpy()
            return seen

        # Images are projected when they are read: float32 copies of all might not fit in memory.
        images, windows = Lazy(len(cases), projected), [UnclippedWindow(0.0, 1.0)] * len(cases)
        return replace(cases, images=images, windows=windows)

    def fit_linear(self, cases: Cases, generator: Generator) -> Tensor:
        """Weights ``(class, pixel)`` of logistic regression without bias."""
        size = math.ceil(len(cases) / self.batches)
        steps = math.ceil(len(cases) / size)
        pixels = cases.in_channels * math.prod(cases.view.size)
        weights = torch.zeros((cases.task.num_classes, pixels), requires_grad=True)
        optimizer = torch.optim.SGD([weights], self.lr * _PIXELS / pixels)
        milestones = [self.epochs // 2, self.epochs * 3 // 4]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        members = shuffled_batches(len(cases), size, generator)
        for _ in range(self.epochs):
            for _ in range(steps):
                regions = [(case, _whole(cases)) for case in next(members)]
                inputs = cases.inputs(regions).flatten(1)
                optimizer.zero_grad(set_to_none=True)
                cases.task.loss(inputs @ weights.T, cases.targets(regions)).backward()
                optimizer.step()
            schedule.step()
        return weights.detach()


class UnclippedWindow(IntensityWindow):
    """For values that are normalised already; clipping would undo the projection."""

    def normalize(self, image: Tensor) -> Tensor:
        return image


def orthonormal(weights: Tensor) -> Tensor:
    """An orthonormal basis ``(direction, pixel)`` of the rows of ``(class, pixel)``, by QR; dependent rows are left out."""
    rows = weights.double() / weights.double().norm(dim=1, keepdim=True).clamp_min(1e-30)
    columns, upper = torch.linalg.qr(rows.T)
    basis: Tensor = columns[:, upper.diagonal().abs() > 1e-4].T.float().contiguous()
    return basis


def _whole(cases: Cases) -> tuple[slice, ...]:
    return (slice(None),) * cases.spatial_dims
