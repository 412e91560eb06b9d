"""Mixup: images and losses of two cases, blended (Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv 1710.09412)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures._batches import check_alpha, draw_share, step_on_mixture
from monai_salm.countermeasures.base import Countermeasure
from monai_salm.learning.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Mixup(Countermeasure):
    """Train on ``share * x + (1 - share) * partner``, with one share for a batch, and mix the losses alike.

    Args:
        alpha: of Beta(alpha, alpha), from which the share is drawn; the paper's 1 for CIFAR-10 is uniform.
    """

    name: ClassVar[str] = "mixup"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def step(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        share = draw_share(self.alpha, generator)
        partner = torch.randperm(len(inputs), generator=generator)
        mixed = torch.lerp(inputs[partner], inputs, share)
        return step_on_mixture(trainer, mixed, share, targets, targets[partner])
