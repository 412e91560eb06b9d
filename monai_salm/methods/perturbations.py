"""What SALM puts inside its mask: settings of the kinds of perturbation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from monai_salm.shared.settings import require


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Settings of what is put inside a mask."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class ErrorMinimizing(Perturbation):
    """Steps that lower a surrogate's loss, as the paper does (arXiv 2403.10573).

    Args:
        step_size: length of a noise step, as a share of epsilon.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches that the surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps.
        restart_every: rounds after which the surrogate starts from fresh weights; 0 is never.
    """

    step_size: float = 1.0
    num_steps: int = 4
    surrogate_steps: int = 45
    rounds: int = 22
    restart_every: int = 1
    name: ClassVar[str] = "error_minimizing"


@dataclass(frozen=True, kw_only=True)
class ClassTexture(Perturbation):
    """A texture of the class that survives resampling and augmentation (ours; docs/methods.md).

    Args:
        period: shortest period, in elements of the training resolution.
        train_side: pixels of the shorter side of that resolution (2D); images up to twice that size are halved.
        train_spacing: millimetres of a voxel of that resolution at least (3D).
        plain: whether the rarest class has no texture, so that networks take clean images for it; the noise of its images are
            steps that make the surrogate see the next class.
        sees_texture: whether the surrogate that chooses the masks trains on textured images and is asked about them. Its masks
            then cover what the texture stands for, which segmentation needs.
        surrogate_steps: batches that the surrogate trains on before it chooses the masks.
    """

    period: float = field(
        default=4.0,
        metadata={"help": "Shortest period, in elements of the resolution at which networks will be trained."},
    )
    train_side: int = field(
        default=224, metadata={"help": "Least pixels of the shorter side at which networks will be trained (2D)."}
    )
    train_spacing: float = field(
        default=1.0, metadata={"help": "Millimetres of a voxel at which networks will be trained, at least (3D)."}
    )
    plain: bool = field(
        default=True,
        metadata={"help": "Whether the rarest class has no texture, so that networks take clean images for it."},
    )
    sees_texture: bool = field(
        default=False, metadata={"help": "Whether the network that chooses the masks trains on textured images."}
    )
    surrogate_steps: int = 100
    name: ClassVar[str] = "class_texture"

    def __post_init__(self) -> None:
        require(
            2 <= self.period < math.inf,
            "period",
            "finite and at least 2 elements of the training resolution",
            self.period,
        )
        require(self.train_side >= 1, "train_side", "at least 1", self.train_side)
        require(self.train_spacing > 0, "train_spacing", "above 0", self.train_spacing)
        require(self.surrogate_steps >= 1, "surrogate_steps", "at least 1", self.surrogate_steps)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Perturbation):
    """Steps that make a surrogate, trained on the clean images, see another class (Fowl et al., NeurIPS 2021).

    Args:
        step_size: length of a noise step, as a share of epsilon.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches that a surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps, each with another surrogate.
    """

    step_size: float = 0.3
    num_steps: int = 8
    surrogate_steps: int = 200
    rounds: int = 2
    name: ClassVar[str] = "adversarial"


PERTURBATIONS: dict[str, type[Perturbation]] = {
    kind.name: kind for kind in (ClassTexture, ErrorMinimizing, Adversarial)
}
