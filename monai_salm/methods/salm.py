"""SALM: noise inside one mask of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from monai_salm.learning.augmentation import standard_augmentation
from monai_salm.learning.tasks import Task
from monai_salm.methods.base import Batch, BilevelMethod, Loss, Method
from monai_salm.methods.job import Job
from monai_salm.methods.masks import TopK
from monai_salm.methods.perturbations import ClassTexture, ErrorMinimizing, Perturbation
from monai_salm.methods.textures import area_numbers, opponent, stored_periods, texture, waves_of
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import require
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class SALM(Method):
    """Sparsity-Aware Local Masking (arXiv 2403.10573): noise inside one mask of each image, chosen by a surrogate's gradient.

    The mask holds ``round(mask_ratio * elements)`` elements of the image; all others keep their bits. This binds every image of
    every task. What is put inside the mask is the ``perturbation``.

    Args:
        epsilon: budget (L-infinity) as a fraction of each image's window, in (0, 1].
        mask_ratio: share of an image's elements that may carry noise, in (0, 1].
        mask_area: edge of the neighbourhood that gradients are averaged over, elements of what the surrogate sees, odd.
        mask_scope: ``"sample"`` is one mask an image; ``"step"`` is another at each noise step, so that the share holds for
            a step and not for the sum (error-minimising noise only).
        perturbation: what is put inside the mask.
    """

    mask_ratio: float = 0.5
    mask_area: int = field(
        default=7,
        metadata={
            "help": "Edge of the neighbourhood over which gradients are averaged, in elements that the network sees; odd."
        },
    )
    mask_scope: str = field(
        default="sample",
        metadata={
            "help": "sample: one mask for an image. step: another at each step, only with error_minimizing.",
            "values": ("sample", "step"),
        },
    )
    perturbation: Perturbation = ClassTexture()
    name: ClassVar[str] = "salm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mask_ratio <= 1, "mask_ratio", "in (0, 1]", self.mask_ratio)
        known = isinstance(self.perturbation, ClassTexture | ErrorMinimizing)
        require(known, "perturbation", "ClassTexture(...) or ErrorMinimizing(...)", self.perturbation)
        if self.mask_scope == "step" and isinstance(self.perturbation, ClassTexture):
            raise ValueError('mask_scope "step" is for ErrorMinimizing; a texture needs one mask, mask_scope "sample"')
        self.loop()  # refuses what the loop would refuse

    @classmethod
    def published(cls, epsilon: float = 8 / 255, mask_ratio: float = 0.3) -> SALM:
        """The paper's algorithm, as far as its abstract fixes it: error-minimising, the mask chosen at each step.

        Args:
            epsilon: budget as a fraction of each image's window.
            mask_ratio: share of the elements that a step may change.
        """
        return cls(
            epsilon=epsilon, mask_ratio=mask_ratio, mask_area=1, mask_scope="step", perturbation=ErrorMinimizing()
        )

    @property
    def label(self) -> str:
        return f"{self.name} ({self.perturbation.name})"

    @property
    def mask(self) -> TopK:
        """The mask of every image."""
        return TopK(ratio=self.mask_ratio, scope=self.mask_scope, area=self.mask_area)

    def plain_class(self, task: Task, labels: Sequence[Array]) -> int | None:
        # The rarest, so that answering it is right as seldom as can be.
        several = task.kind == "segmentation" or getattr(task, "multi_label", False)
        if several or not isinstance(self.perturbation, ClassTexture) or not self.perturbation.plain:
            return None
        counts = np.bincount([int(label) for label in labels], minlength=task.num_classes)
        return int(np.where(counts > 0, counts, counts.max(initial=0) + 1).argmin())

    def loop(self) -> BilevelMethod:
        if not isinstance(self.perturbation, ClassTexture):
            return MaskedSteps(epsilon=self.epsilon, mask=self.mask, **vars(self.perturbation))
        return MaskedTexture(
            epsilon=self.epsilon,
            mask=self.mask,
            surrogate_steps=self.perturbation.surrogate_steps,
            restart_every=1,
            texture=self.perturbation,
        )


@dataclass(frozen=True, kw_only=True)
class MaskedSteps(BilevelMethod):
    """Error-minimising steps inside a mask."""

    name: ClassVar[str] = "masked_steps"


@dataclass(frozen=True, kw_only=True)
class MaskedTexture(BilevelMethod):
    """A texture of the class inside a mask that a surrogate chooses, which was trained on the clean images.

    Images of the plain class take steps toward the class after theirs instead, as TAP does (Fowl et al., NeurIPS 2021).

    Args:
        texture: the texture's settings.
    """

    step_size: float = 0.25
    num_steps: int = 10
    rounds: int = 1
    texture: ClassTexture = ClassTexture()
    name: ClassVar[str] = "masked_texture"
    has_start: ClassVar[bool] = True
    anneals: ClassVar[bool] = True

    @property
    def trains_on_noise(self) -> bool:
        return self.texture.sees_texture

    def whole_side(self, task: Task, spatial_dims: int) -> int | None:
        # Where an image is significant shows at a low resolution too, and the surrogate is then quick to train.
        return None if task.kind == "segmentation" else {2: 32, 3: 24}[spatial_dims]

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        return standard_augmentation(inputs, targets, generator)

    def aim(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        return task.wrong_target(targets)

    def still(self, label: Array, plain_class: int | None) -> bool:
        # Steps on top of a texture only weaken it; images of the plain class have nothing else.
        return label.ndim > 0 or int(label) != plain_class

    def start(self, image: Array, label: Array, budget: Budget, job: Job) -> Array | None:
        if not self.still(label, job.plain_class):
            return None
        found = self._codes(image, label, budget, job)
        if not label.ndim or np.any(budget.effective_codes(image, np.broadcast_to(found, image.shape))):
            return found
        # All that is labelled lies outside the window: the image is protected as one without labels.
        return self._codes(image, np.zeros_like(label), budget, job)

    def _codes(self, image: Array, label: Array, budget: Budget, job: Job) -> Array:
        task, shape = job.cases.task, image.shape[1:]
        per_voxel = task.kind == "segmentation"
        periods = stored_periods(self.texture, shape, budget.units, per_voxel)
        signs = (_map_signs if per_voxel else _class_signs)(label, shape, periods, job)
        if budget.units.picture:
            signs = signs * opponent(image)
        return signs * budget.grid.limits(image.ndim - 1).astype(budget.grid.code_dtype)


def _class_signs(label: Array, shape: Sequence[int], periods: Sequence[float], job: Job) -> Array:
    """Plus and minus one by the class; of several labels each has areas of its own, and an image of none a texture of its own."""
    wide = [axis for axis, side in enumerate(shape) if side > 1] or [0]  # an axis of one element shows no wave
    sides, periods = [shape[axis] for axis in wide], [periods[axis] for axis in wide]
    count, plain = job.cases.task.num_classes, job.plain_class
    if not getattr(job.cases.task, "multi_label", False):
        waves = waves_of(job.key, count - (plain is not None), len(sides))
        number = int(label) - (plain is not None and int(label) > plain)
        return texture(waves[number], sides, periods).reshape(shape)
    waves, present = waves_of(job.key, count + 1, len(sides)), np.flatnonzero(label)
    textures = np.stack([texture(waves[number], sides, periods) for number in (present if len(present) else [-1])])
    areas = area_numbers(job.key, sides, periods, len(textures))
    return np.take_along_axis(textures, areas[None], 0).reshape(shape)


def _map_signs(label: Array, shape: Sequence[int], periods: Sequence[float], job: Job) -> Array:
    """Each label's texture where it is; the background, which is most of an image, has none, unless there is nothing else."""
    waves = waves_of(job.key, job.cases.task.num_classes, label.ndim, True)
    if not label.any():
        return texture(waves[0], shape, periods)
    signs = np.zeros(shape, np.int8)
    for number in np.unique(label[label > 0]):
        signs = np.where(label == number, texture(waves[int(number)], shape, periods), signs)
    return signs
