"""One victim: a fresh network trained on what the public would get, scored on clean images after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from monai_salm.cases import Cases
from monai_salm.intensity import Array
from monai_salm.networks import NETWORKS, SEGMENTATION_NETWORKS, build_network, seeded
from monai_salm.tasks import Task
from monai_salm.training import Augmentation, Recipe, Trainer, fit, steps_per_epoch

# A victim must never start from the weights that the noise was made against. Surrogates start from 63-bit hashes of the
# job's seed (``Job.derive``), which a victim's seed, a small number plus this one, could meet by a rare accident only.
VICTIM_SEED = 1_700_000_000

_EPOCHS = {"none": 15, "standard": 20}
# Small sets get more passes: with fewer steps than these a network has hardly learned even clean images.
_LEAST_STEPS = {"classification": 240, "segmentation": 1200}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How victims are trained, the same for every cell of an evaluation.

    Args:
        recipe: optimiser, batch size, precision.
        epochs: passes over the training set.
        width: channels as a share of the published architecture's.
        device: where to train.
        augment: changes every batch.
    """

    recipe: Recipe
    epochs: int
    width: float
    device: torch.device
    augment: Augmentation | None


@dataclass(frozen=True)
class Epoch:
    """What one epoch left: the mean training score, and the scores on the clean test set."""

    train_score: float
    scores: dict[str, float]


def choose_victims(names: Sequence[str] | None, task: Task) -> tuple[str, ...]:
    """Check the names of architectures, or name two that fit the task.

    Raises:
        ValueError: for a name that is unknown or answers per voxel where the task asks per image, or the reverse.
    """
    segmentation = task.kind == "segmentation"
    if names is None:
        return ("unet", "segresnet") if segmentation else ("resnet18", "vgg11")
    known = [name for name in NETWORKS if (name in SEGMENTATION_NETWORKS) == segmentation]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown victim {name!r} for {task.kind}; known: {', '.join(known)}")
    return tuple(names)


def default_epochs(cases: Cases, recipe: Recipe, augment: str) -> int:
    """15 passes, 20 with augmentation, and more for a set so small that these would be too few steps.

    Args:
        cases: the training set.
        recipe: gives the batch size.
        augment: ``"none"`` or ``"standard"``.
    """
    least = math.ceil(_LEAST_STEPS[cases.task.kind] / steps_per_epoch(cases, recipe))
    return max(least, _EPOCHS[augment])


def train_victim(
    name: str, seed: int, train: Cases, test: Cases, setting: Setting, after_epoch: Callable[[Epoch], None]
) -> list[Epoch]:
    """Train one network from scratch; the same seed gives every training set the same start and order.

    Args:
        name: architecture, one of ``NETWORKS``.
        seed: of weights, order and augmentation.
        train: training set.
        test: clean test set.
        setting: how to train.
        after_epoch: told of each epoch.
    """
    seed += VICTIM_SEED
    task, epochs = train.task, []
    # Networks draw dropout from the global generator too, so the whole training stays inside.
    with seeded(seed, setting.device):
        channels = (train.spatial_dims, train.in_channels, task.num_classes)
        model = build_network(name, *channels, width=setting.width, image_size=train.view.size)
        steps = setting.epochs * steps_per_epoch(train, setting.recipe)
        trainer = Trainer(model, task, setting.recipe, setting.device, train.spatial_dims, total_steps=steps)
        for train_score in fit(trainer, train, setting.epochs, seed, setting.augment):
            epochs.append(Epoch(train_score, task.scores(trainer.predict(test), test.labels)))
            after_epoch(epochs[-1])
    return epochs


def guessing_score(labels: Sequence[Array]) -> float:
    """Training score of a network that has learned nothing but the commonest answer, per image or per voxel.

    Args:
        labels: in the task's canonical form.
    """
    if labels[0].dtype.kind == "f":  # multi-label: each label its own commonest answer
        positive = np.stack(labels).mean(axis=0)
        return float(np.maximum(positive, 1 - positive).mean())
    counts = np.bincount(np.concatenate([label.reshape(-1) for label in labels]).astype(np.int64))
    return float(counts.max() / counts.sum())
