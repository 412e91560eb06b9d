"""What several countermeasures do with batches: boxes, mixtures of two batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from monai_salm.learning.trainer import Trainer


def per_voxel(inputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether labels ``(batch, *spatial)`` belong to voxels.

    Args:
        inputs: ``(batch, channel, *spatial)``.
        targets: its labels.
    """
    return targets.ndim == inputs.ndim - 1


def random_boxes(count: int, size: Sequence[int], sides: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Boxes with centres anywhere in the image, so that a part may hang over the edge, as of Cutout and CutMix.

    Args:
        count: how many.
        size: spatial size of the images.
        sides: of the boxes, voxels.
        generator: source of randomness, on the CPU.

    Returns:
        ``(count, 1, *size)``, true inside.
    """
    inside = torch.ones((count, 1, *[1] * len(size)), dtype=torch.bool)
    for axis, (length, side) in enumerate(zip(size, sides, strict=True)):
        start = torch.randint(length, (count, 1), generator=generator) - side // 2
        position = torch.arange(length)
        covered = (position >= start) & (position < start + side)
        inside = inside & covered.view(count, 1, *[length if a == axis else 1 for a in range(len(size))])
    return inside


def check_alpha(alpha: float) -> None:
    """Refuse what no Beta distribution has.

    Raises:
        ValueError: unless it is positive and finite.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be positive, got {alpha}")


def draw_share(alpha: float, generator: torch.Generator) -> float:
    """A share in [0, 1] from Beta(alpha, alpha); torch has no public one that takes a generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def step_on_mixture(
    trainer: Trainer, mixed: torch.Tensor, share: float, targets: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """Train with ``share * loss(targets) + (1 - share) * loss(others)``; the error is against the larger share.

    For cross-entropy this is the loss against mixed one-hot labels (Zhang et al. 2018), and it serves any other loss.

    Args:
        trainer: the network in training.
        mixed: ``(batch, channel, *spatial)``, normalised.
        share: of ``targets``, in [0, 1].
        targets: labels of the one batch.
        others: labels of the other.
    """
    first, second = targets.to(trainer.device), others.to(trainer.device)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return share * trainer.task.loss(logits, first) + (1 - share) * trainer.task.loss(logits, second)

    return trainer.step(mixed, first if share >= 0.5 else second, loss)
