"""SALM: noise inside one mask of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from monai_salm.learning.augmentation import standard_augmentation
from monai_salm.learning.tasks import Task
from monai_salm.methods.base import Job, Method, require, run, run_frozen
from monai_salm.methods.masks import TopK
from monai_salm.methods.perturbations import ClassTexture, ErrorMinimizing, Perturbation
from monai_salm.methods.settings import Batch, BilevelMethod, Loss
from monai_salm.methods.textures import Wave, area_numbers, drawn_shift, opponent, stored_periods, texture, waves_of
from monai_salm.noise.budget import Budget
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

    def loop(self) -> BilevelMethod:
        """The settings of the loop that makes this noise."""
        if isinstance(self.perturbation, ErrorMinimizing):
            steps = self.perturbation
            return MaskedSteps(
                epsilon=self.epsilon,
                mask=self.mask,
                step_size=steps.step_size,
                num_steps=steps.num_steps,
                surrogate_steps=steps.surrogate_steps,
                rounds=steps.rounds,
                restart_every=steps.restart_every,
            )
        assert isinstance(self.perturbation, ClassTexture)
        return MaskedTexture(
            epsilon=self.epsilon,
            mask=self.mask,
            surrogate_steps=self.perturbation.surrogate_steps,
            restart_every=1,
            texture=self.perturbation,
        )


@run.register
def _run(method: SALM, job: Job) -> int:
    return run(method.loop(), job)


@run_frozen.register
def _run_frozen(method: SALM, job: Job, surrogates: Sequence[nn.Module]) -> int:
    return run_frozen(method.loop(), job, surrogates)


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
    begins: ClassVar[bool] = True

    @property
    def trains_on_noise(self) -> bool:
        return self.texture.sees_texture

    @property
    def anneals(self) -> bool:
        return True

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

    def start(self, image: Array, label: Array, budget: Budget, digest: bytes, job: Job) -> Array | None:
        if not self.still(label, job.plain_class):
            return None
        found = self._codes(image, label, budget, digest, job)
        if not label.ndim or np.any(budget.effective_codes(image, np.broadcast_to(found, image.shape))):
            return found
        # All that is labelled lies outside the window: the image is protected as one without labels.
        return self._codes(image, np.zeros_like(label), budget, digest, job)

    def _codes(self, image: Array, label: Array, budget: Budget, digest: bytes, job: Job) -> Array:
        signs = _signs(label, image.shape[1:], budget, digest, job, self.texture)
        if budget.units.picture:
            signs = signs * opponent(image)
        return signs * budget.grid.limits(image.ndim - 1).astype(np.int32)


def _signs(
    label: Array, shape: tuple[int, ...], budget: Budget, digest: bytes, job: Job, setting: ClassTexture
) -> Array:
    """Plus and minus one by the class, and 0 where no class has a texture, for the spatial shape of an image."""
    task = job.cases.task
    per_voxel = task.kind == "segmentation"
    periods: Sequence[float] = stored_periods(setting, shape, budget.units, per_voxel)
    shift = drawn_shift(job.key, digest, setting.shifts)
    if per_voxel:
        return _map_signs(label, periods, waves_of(job.key, task.num_classes, label.ndim, True), shift)
    wide = [axis for axis, side in enumerate(shape) if side > 1] or [0]  # an axis of one element shows no wave
    sides, periods = [shape[axis] for axis in wide], [periods[axis] for axis in wide]
    if getattr(task, "multi_label", False):
        waves = waves_of(job.key, task.num_classes + 1, len(sides))
        return _shared_signs(np.flatnonzero(label), sides, periods, waves, job.key, shift).reshape(shape)
    number, plain = int(label), job.plain_class
    waves = waves_of(job.key, task.num_classes - (plain is not None), len(sides))
    return texture(waves[number - (plain is not None and number > plain)], sides, periods, shift).reshape(shape)


def _map_signs(label: Array, periods: Sequence[float], waves: Sequence[Wave], shift: float) -> Array:
    """Each label's texture where it is; the background, which is most of an image, has none, unless there is nothing else."""
    if not label.any():
        return texture(waves[0], label.shape, periods, shift)
    signs = np.zeros(label.shape, np.int8)
    for number in np.unique(label[label > 0]):
        signs = np.where(label == number, texture(waves[int(number)], label.shape, periods, shift), signs)
    return signs


def _shared_signs(
    positive: Array, shape: Sequence[int], periods: Sequence[float], waves: Sequence[Wave], key: bytes, shift: float
) -> Array:
    """The textures of all positive labels, each in areas of its own; an image without any has a texture of its own."""
    if not len(positive):
        return texture(waves[-1], shape, periods, shift)
    areas = area_numbers(key, shape, periods, len(positive))
    signs = np.zeros(shape, np.int8)
    for turn, number in enumerate(positive):
        signs = np.where(areas == turn, texture(waves[int(number)], shape, periods, shift), signs)
    return signs
