"""What a bilevel method may change in the one loop; every hook here leaves EM's loop as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch

from monai_salm.cases import Slices
from monai_salm.intensity import Array
from monai_salm.tasks import Task

#: Mean loss of the network at hand, in evaluation mode: ``(inputs, targets) -> scalar``, inputs normalised.
Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: A batch as a network sees it: inputs ``(batch, channel, *spatial)``, normalised, and targets.
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Hooks:
    """Places where methods differ. Draws come from the generator given, so that noise stays a function of the seed."""

    #: Rounds where none are given, by spatial dimensions; volumes' rounds cost more.
    default_rounds: ClassVar[dict[int, int]] = {2: 22, 3: 8}
    #: Steps from no noise to the edge of the budget, where no ``step_size`` is given.
    default_steps: ClassVar[int] = 1

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

    def support(self, label: Array, tile: Slices) -> Array | None:
        """Elements of a tile that may ever carry noise, a boolean array of its shape; None for all.

        Args:
            label: the whole label of the case.
            tile: the part of the image in question.
        """
        return None

    def still(self, label: Array) -> bool:
        """Whether the noise of a case stays as it begins: no noise steps are spent on it."""
        return False
