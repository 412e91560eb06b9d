"""Self-supervised features: what a network sees in the published images without their labels, and a last layer that reads it.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", ICML, arXiv 2002.05709.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from monai_salm.countermeasures.base import Countermeasure, require
from monai_salm.countermeasures.last_layer import find_last_layer, only_trainable
from monai_salm.learning.augmentation import per_case, standard_augmentation, uniform
from monai_salm.learning.cases import Cases
from monai_salm.learning.trainer import Trainer

_SHIFT = 8  # sides of an image to one largest shift


@dataclass(frozen=True, kw_only=True)
class SelfSupervised(Countermeasure):
    """Train the features without labels, then the last layer alone with the published labels.

    Two random views of an image shall have features nearer to each other than to those of other images. A view is flipped,
    shifted by up to an eighth of the side, and has another contrast and brightness.

    Args:
        share: of the training steps that are without labels, in (0, 1).
        temperature: of the contrastive loss, above 0.
    """

    name: ClassVar[str] = "self_supervised"
    tier: ClassVar[str] = "costly"  # two views of each image
    share: float = 0.75
    temperature: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.share < 1, "share", "in (0, 1)", self.share)
        require(self.temperature > 0, "temperature", "above 0", self.temperature)

    def without_effect(self, cases: Cases) -> str | None:
        return "not applicable: labels per voxel need features of voxels" if cases.task.kind == "segmentation" else None

    def step(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        layer = find_last_layer(trainer.model)
        if trainer.progress >= self.share:
            with only_trainable(trainer.model, layer):
                return trainer.step(inputs, targets)
        features: list[torch.Tensor] = []
        views = torch.cat([_view(inputs, targets, generator) for _ in range(2)])
        handle = layer.register_forward_pre_hook(lambda module, given: features.append(given[0].flatten(1)))
        try:
            return trainer.step(
                views, targets.repeat(2, *[1] * (targets.ndim - 1)), lambda _: self._loss(features.pop())
            )
        finally:
            handle.remove()

    def _loss(self, features: torch.Tensor) -> torch.Tensor:
        """Cross entropy of finding an image's other view among all views of the batch."""
        unit = F.normalize(features.float())
        alike = (unit @ unit.T / self.temperature).fill_diagonal_(-torch.inf)
        return F.cross_entropy(alike, torch.arange(len(unit), device=unit.device).roll(len(unit) // 2))


def _view(inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    images, _ = standard_augmentation(inputs, targets, generator, max(1, min(inputs.shape[2:]) // _SHIFT))
    contrast = per_case(uniform((len(images),), 0.6, 1.4, generator), images)
    return contrast * images + per_case(uniform((len(images),), -0.2, 0.2, generator), images)
