"""CutMix: a box pasted in from another case (Yun, Han, Oh, Chun, Choe, Yoo 2019, arXiv 1905.04899)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures._batches import check_alpha, draw_share, per_voxel, random_boxes, step_on_mixture
from monai_salm.countermeasures.base import Countermeasure
from monai_salm.learning.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class CutMix(Countermeasure):
    """Paste one box for the whole batch from a partner, and mix the losses by the area that it really covers.

    Labels per voxel are pasted along with the image.

    Args:
        alpha: of Beta(alpha, alpha), from which the share of the image that stays is drawn; 1 in the paper.
    """

    name: ClassVar[str] = "cutmix"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def step(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        box, share = self.box(inputs.shape[2:], generator)
        partner = torch.randperm(len(inputs), generator=generator)
        mixed = torch.where(box, inputs[partner], inputs)
        if per_voxel(inputs, targets):
            return trainer.step(mixed, torch.where(box[:, 0], targets[partner], targets))
        return step_on_mixture(trainer, mixed, share, targets, targets[partner])

    def box(self, size: Sequence[int], generator: torch.Generator) -> tuple[torch.Tensor, float]:
        """Where the partner shows, ``(1, 1, *size)``, and the share of voxels where it does not."""
        side = (1 - draw_share(self.alpha, generator)) ** (1 / len(size))
        box = random_boxes(1, size, [int(length * side) for length in size], generator)
        return box, 1 - float(box.float().mean())
