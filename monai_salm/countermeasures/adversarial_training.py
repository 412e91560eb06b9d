"""Adversarial training (Madry et al. 2018, arXiv 1706.06083), the first known answer to unlearnable examples.

Tao et al. 2021 (arXiv 2102.04716) and Fu et al. 2022 (arXiv 2203.14533) use it against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures.base import Countermeasure
from monai_salm.learning.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Countermeasure):
    """Train on images that projected gradient ascent has made as wrong as it can, from a random start.

    The attack sees the network as it is in training: batch normalisation by the batch's own statistics, whose running
    averages count attacked images too.

    Args:
        radius: of the attack, fraction of the window; 4/255 as Fu et al. (2022) train against noise of 8/255.
        step_size: of one attack step, fraction of the window.
        num_steps: attack steps for each batch.
    """

    name: ClassVar[str] = "adversarial_training"
    tier: ClassVar[str] = "costly"
    radius: float = 4 / 255
    step_size: float = 1 / 255
    num_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("radius", "step_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= 1):
                raise ValueError(f"{name} must be in (0, 1], got {value}")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")

    def step(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        return trainer.step(self.attack(trainer, inputs, targets, generator), targets)

    def attack(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Images within the radius of ``inputs``, and in [0, 1], at which the loss is high.

        Args:
            trainer: holds the network, whose parameters get no gradients.
            inputs: ``(batch, channel, *spatial)``, normalised.
            targets: labels.
            generator: source of randomness, on the CPU.

        Returns:
            A tensor of the inputs' shape, on the trainer's device.
        """
        start = (2 * torch.rand(inputs.shape, generator=generator) - 1) * self.radius
        inputs, targets = inputs.to(trainer.device), targets.to(trainer.device)
        lower, upper = (inputs - self.radius).clamp_min(0), (inputs + self.radius).clamp_max(1)
        attacked = (inputs + start.to(trainer.device)).clamp(lower, upper)
        for _ in range(self.num_steps):
            ascent = self.step_size * _gradient(trainer, attacked, targets).sign()
            attacked = (attacked + ascent).clamp(lower, upper)
        return attacked


def _gradient(trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Gradient of the loss by the inputs alone; in float32 where it is not finite in bfloat16."""
    inputs = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.task.loss(trainer.forward(inputs), targets), inputs)
    if not torch.isfinite(gradient).all():
        trainer.fall_back("gradients of an attack step are not finite")
        return _gradient(trainer, inputs, targets)
    return gradient
