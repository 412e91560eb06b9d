"""Countermeasures that train in another way: another epoch, another set, adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.learning.cases import Cases
from monai_salm.learning.tasks import Task
from monai_salm.learning.trainer import Trainer
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Countermeasure):
    """Take the epoch that is best on held-out images, as published (Huang et al. 2021, figure 4)."""

    name: ClassVar[str] = "early_stopping"
    after_training: ClassVar[bool] = True

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        return best_epoch(held_out_clean if self.needs_clean else held_out)


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingClean(EarlyStopping):
    """Take the epoch that is best on a small clean set."""

    name: ClassVar[str] = "early_stopping_clean"
    needs_clean: ClassVar[bool] = True


def best_epoch(scores: Sequence[float]) -> int:
    """Index of the first of the highest scores; the last index if none is a number."""
    values = np.asarray(scores, np.float64)
    return len(values) - 1 if np.isnan(values).all() else int(np.nanargmax(values))


@dataclass(frozen=True, kw_only=True)
class CleanSubset(Countermeasure):
    """Train on the small clean set alone: a countermeasure that scores no higher gains nothing from the published images."""

    name: ClassVar[str] = "clean_subset"
    needs_clean: ClassVar[bool] = True
    uses_published: ClassVar[bool] = False

    def prepare(self, cases: Cases, resources: Resources) -> Cases:
        return resources.clean


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Countermeasure):
    """Train on the published images with a teacher's labels, and on the clean ones with their own.

    The teacher is trained on the clean images alone, and all of its labels are taken (Lee 2013, "Pseudo-Label"; Yarowsky 1995).
    """

    name: ClassVar[str] = "self_training"
    tier: ClassVar[str] = "costly"
    needs_clean: ClassVar[bool] = True

    def prepare(self, cases: Cases, resources: Resources) -> Cases:
        clean = resources.clean
        labels = pseudo_labels(resources.train(clean).predict(cases), clean.labels, cases.task)
        return replace(
            cases,
            images=[*cases.images, *clean.images],
            labels=[*labels, *clean.labels],
            names=[*cases.names, *clean.names],
            windows=[*cases.windows, *clean.windows],
        )


def pseudo_labels(predictions: Sequence[Tensor], like: Sequence[Array], task: Task) -> list[Array]:
    """Turn predictions of a task into labels of its canonical form, of the type of the labels ``like``."""
    if task.kind == "segmentation":
        answers = list(predictions)
    elif like[0].dtype.kind == "f":  # multi-label
        answers = [probability > 0.5 for probability in predictions]
    else:
        answers = [probability.argmax() for probability in predictions]
    return [answer.numpy().astype(like[0].dtype) for answer in answers]


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Countermeasure):
    """Train on images changed by projected gradient ascent, from a random start (Madry et al. 2018, arXiv 1706.06083).

    Tao et al. 2021 (arXiv 2102.04716) and Fu et al. 2022 (arXiv 2203.14533) use it against unlearnable examples. The attack
    sees the network as it is in training: batch normalisation uses the batch's own statistics.

    Args:
        radius: of the attack, fraction of the window; 4/255 as Fu et al. train against noise of 8/255.
        step_size: of one attack step, fraction of the window.
        num_steps: attack steps for each batch.
    """

    name: ClassVar[str] = "adversarial_training"
    tier: ClassVar[str] = "costly"
    radius: float = field(default=4 / 255, metadata={"in": "(0, 1]"})
    step_size: float = field(default=1 / 255, metadata={"in": "(0, 1]"})
    num_steps: int = field(default=10, metadata={"in": "[1, inf)"})

    def step(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        return trainer.step(self.attack(trainer, inputs, targets, generator), targets)

    def attack(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        """Images within the radius of ``inputs``, and in [0, 1], at which the loss is high; on the trainer's device."""
        start = (2 * torch.rand(inputs.shape, generator=generator) - 1) * self.radius
        inputs, targets = inputs.to(trainer.device), targets.to(trainer.device)
        lower, upper = (inputs - self.radius).clamp_min(0), (inputs + self.radius).clamp_max(1)
        attacked = (inputs + start.to(trainer.device)).clamp(lower, upper)
        for _ in range(self.num_steps):
            ascent = self.step_size * _gradient(trainer, attacked, targets).sign()
            attacked = (attacked + ascent).clamp(lower, upper)
        return attacked


def _gradient(trainer: Trainer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the loss by the inputs alone; in float32 where it is not finite in bfloat16."""
    inputs = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.task.loss(trainer.forward(inputs), targets), inputs)
    if not torch.isfinite(gradient).all():
        trainer.fall_back("gradients of an attack step are not finite")
        return _gradient(trainer, inputs, targets)
    return gradient
