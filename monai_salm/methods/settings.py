"""Settings of the methods that optimise noise against surrogates, and the places where these methods differ."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch

from monai_salm.learning.tasks import Task
from monai_salm.methods.base import Job, Method, require
from monai_salm.methods.masks import Everything, Mask
from monai_salm.noise.budget import Budget
from monai_salm.shared.arrays import Array

#: Mean loss of the network at hand, in evaluation mode: ``(inputs, targets) -> scalar``, inputs normalised.
Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: A batch as a network sees it: inputs ``(batch, channel, *spatial)``, normalised, and targets.
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Hooks:
    """Places where methods differ. Draws come from the generator given, so that noise stays a function of the seed."""

    @property
    def trains_on_noise(self) -> bool:
        """Whether surrogates train on the noisy images (min-min) or on the clean ones."""
        return True

    @property
    def anneals(self) -> bool:
        """Whether the learning rate falls over a round's surrogate training, by the recipe's schedule, or stays."""
        return False

    @property
    def noise_draws(self) -> int:
        """Draws of ``noise_inputs`` over which a noise step's gradient is averaged (expectation over transformation)."""
        return 1

    @property
    def passes(self) -> tuple[int, int]:
        """Network passes (forward and backward) of a training step and of a noise step, to foretell the time."""
        return 1, self.noise_draws

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """What a surrogate's batch becomes before its training step.

        Args:
            loss: of the surrogate in training.
            inputs: ``(batch, channel, *view.size)``, normalised, on the device.
            targets: labels, on the device; to be moved along where they are per voxel.
            generator: source of randomness, on the CPU.
        """
        return inputs, targets

    def noise_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """What the noisy images become before the gradient of a noise step, which flows through; called for every draw.

        Args:
            loss: of the frozen surrogate.
            inputs: ``(batch, channel, *view.size)``, normalised, a differentiable function of the noise.
            targets: what the noise aims at; to be moved along where it is per voxel.
            generator: source of randomness, on the CPU.
        """
        return inputs, targets

    def aim(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """Labels that the noise makes the surrogate answer; by default the true ones."""
        return targets

    def penalty(self, noise: torch.Tensor, images: torch.Tensor) -> torch.Tensor | None:
        """A term that noise steps add to the loss, or None.

        Args:
            noise: ``(batch, channel, *spatial)``, fraction of the window's width, differentiable.
            images: the images without noise, normalised, same shape.
        """
        return None

    @property
    def has_penalty(self) -> bool:
        """Whether the method has a ``penalty``; a noise step of one that has none spends no time on it."""
        return type(self).penalty is not Hooks.penalty

    def start(self, image: Array, label: Array, budget: Budget, digest: bytes, job: Job) -> Array | None:
        """What the noise of a case begins as, in quanta, broadcast to the image's shape; None for no noise.

        Args:
            image: stored array ``(channel, *spatial)``.
            label: of the image, in the task's canonical form.
            budget: what its noise keeps to.
            digest: of the image's content, the source of what differs from image to image.
            job: the data set.
        """
        return None

    def still(self, label: Array, plain_class: int | None) -> bool:
        """Whether the noise of a case stays as it begins: no noise steps are spent on it.

        Args:
            label: of the image.
            plain_class: the class whose images have no texture; None if there is none.
        """
        return False


@dataclass(frozen=True, kw_only=True)
class BilevelMethod(Hooks, Method, ABC):
    """Noise by the one loop: a surrogate trains, then every image's noise takes sign-gradient *descent* steps against it.

    Args:
        step_size: length of a noise step, as a share of epsilon; 1 puts every element it may change at the edge of its budget.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches that the surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps.
        restart_every: rounds after which the surrogate starts from fresh weights; 0 is never, as EM's published code.
        stop_error: stop once the surrogate's error on the noisy images is at most this; 0 never does.
        calibration_steps: batches on which the surrogate's batch normalisation is measured anew before it is frozen; 0
            keeps the running averages of its training, as the published codes do.
        perturb_type: ``"samplewise"`` noise for every image, or ``"classwise"`` one noise for all images of a class.
        mask: which elements a noise step may change.
    """

    step_size: float = field(default=0.1, metadata={"help": "Length of a noise step, as a share of epsilon."})
    num_steps: int = field(default=20, metadata={"help": "Noise steps for an image in each round."})
    surrogate_steps: int = field(default=10, metadata={"help": "Batches that the surrogate trains on in each round."})
    rounds: int = field(default=20, metadata={"help": "Turns of surrogate training and noise steps."})
    restart_every: int = field(
        default=0, metadata={"help": "Rounds after which the surrogate starts from fresh weights; 0 is never."}
    )
    stop_error: float = field(
        default=0.0,
        metadata={"help": "Stop once the surrogate's error on the protected images is at most this; 0 never does."},
    )
    calibration_steps: int = field(
        default=0, metadata={"help": "Batches that measure the surrogate's batch normalisation before noise steps."}
    )
    perturb_type: str = field(
        default="samplewise",
        metadata={"help": "One noise for each image, or one for each class.", "values": ("samplewise", "classwise")},
    )
    mask: Mask = Everything()
    #: Whether the noise begins as something else than zero, so that no steps are needed.
    begins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.step_size <= 1, "step_size", "in (0, 1], a share of epsilon", self.step_size)
        require(self.surrogate_steps >= 1, "surrogate_steps", "at least 1", self.surrogate_steps)
        least = 0 if self.begins else 1
        for name in ("num_steps", "rounds"):
            require(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))
        require(self.calibration_steps >= 0, "calibration_steps", "at least 0", self.calibration_steps)
        require(self.restart_every >= 0, "restart_every", "at least 0", self.restart_every)
        require(0 <= self.stop_error < 1, "stop_error", "in [0, 1)", self.stop_error)
        known = ("samplewise", "classwise")
        require(self.perturb_type in known, "perturb_type", f"one of {known}", self.perturb_type)
        if self.perturb_type == "classwise" and not isinstance(self.mask, Everything):
            raise ValueError(
                'a mask is one for each image and perturb_type "classwise" one noise for each class: choose'
            )

    def whole_side(self, task: Task, spatial_dims: int) -> int | None:
        """Longest side of images that surrogates see whole and unchanged; None is the rule of ``choose_view``."""
        return None

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        if self.mask.name == "region" and task.kind != "segmentation":
            raise ValueError(f"{self.name} needs labels per voxel (segmentation), this is {task.kind}; use em")
