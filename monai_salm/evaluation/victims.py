"""One victim: a fresh network trained on what the public would get, scored on clean images after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.countermeasures import Countermeasure, Means
from monai_salm.learning.augmentation import Augmentation
from monai_salm.learning.cases import Cases
from monai_salm.learning.networks import NetworkFactory, build_network, seeded
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.scores import label_counts, mean_of_table
from monai_salm.learning.trainer import Trainer, fit, steps_per_epoch
from monai_salm.shared.arrays import Array

# A victim must never start from the weights that the noise was made against. Surrogates start from 63-bit hashes of the
# job's seed (``Job.derive``), which a victim's seed, a small number plus this one, could meet by a rare accident only.
VICTIM_SEED = 1_700_000_000

_EPOCHS = {"none": 15, "standard": 20}
# Small sets get more passes: with fewer steps than these a network has hardly learned even clean images.
_LEAST_STEPS = {"classification": 240, "segmentation": 1200}
# Training scores of about 1 must last for this many steps before a victim stops. Batch normalisation predicts with running
# averages, which settle long after the training score: on 44 images, one step a pass, ResNet-18 and VGG-11 (seed 0) knew their
# training images after a dozen steps, were at chance on the test set, and at 1.00 and 0.98 after 200. Such sets take seconds.
# A set that needs no further passes (``_LEAST_STEPS``) waits for less, one of 30 steps a pass or more for two passes, as ever.
_SETTLED_STEPS = {"small": 200, "other": 60}
_SMALL_PASS = 16  # steps, with which 15 passes are 240


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the victims of one architecture are trained, the same for every training set.

    Args:
        network: architecture's name, or a factory.
        recipe: optimiser, batch size, precision.
        epochs: how often ``epoch_steps`` steps are made, at most.
        epoch_steps: steps between two scores: one pass over the whole training set, however small a part is trained on.
        width: channels as a share of the published architecture's.
        device: where to train.
        augment: changes every batch.
        learned: training score at which training ends early; None for never.
        patience: epochs in a row that reach ``learned`` (``settled_epochs``).
    """

    network: str | NetworkFactory
    recipe: Recipe
    epochs: int
    epoch_steps: int
    width: float
    device: torch.device
    augment: Augmentation | None
    learned: float | None
    patience: int


@dataclass(frozen=True)
class Watched:
    """What a victim is scored on after every epoch.

    Args:
        test: clean test set, filtered as the adversary filters what is met later.
        held_out: training cases held out, as published.
        known: the same cases, clean: the small clean set of an adversary who has one.
    """

    test: Cases
    held_out: Cases
    known: Cases


@dataclass(frozen=True)
class Epoch:
    """What one epoch left.

    Args:
        train_score: mean training score.
        scores: on the clean test set.
        case_scores: headline on the clean test set case by case.
        held_out: headline on the held-out cases as published; NaN without any.
        held_out_clean: headline on the same cases, clean.
    """

    train_score: float
    scores: dict[str, float]
    case_scores: NDArray[np.float64]
    held_out: float
    held_out_clean: float


@dataclass(frozen=True)
class Victim:
    """A victim that is trained: the network, how it went, and why it ended (``"learned"`` or ``"epochs"``)."""

    trainer: Trainer
    epochs: list[Epoch]
    stopped: str


def default_epochs(cases: Cases, recipe: Recipe, augment: str) -> int:
    """15 passes, 20 with augmentation, and more for a set so small that these would be too few steps.

    Args:
        cases: the training set.
        recipe: gives the batch size.
        augment: ``"none"`` or ``"standard"``.
    """
    least = math.ceil(_LEAST_STEPS[cases.task.kind] / steps_per_epoch(cases, recipe))
    return max(least, _EPOCHS[augment])


def settled_epochs(patience: int, epoch_steps: int) -> int:
    """Epochs in a row that must reach ``learned`` before a victim stops: as asked for, and more where epochs are short.

    Args:
        patience: what the protocol asks for.
        epoch_steps: steps of an epoch.
    """
    steps = _SETTLED_STEPS["small" if epoch_steps < _SMALL_PASS else "other"]
    return max(patience, math.ceil(steps / epoch_steps))


def train_victim(
    seed: int,
    train: Cases,
    watched: Watched,
    setting: Setting,
    countermeasure: Countermeasure,
    after_epoch: Callable[[Epoch], None],
) -> Victim:
    """Train one network from scratch; the same seed gives every training set the same start and order.

    Args:
        seed: of weights, order and augmentation, from ``VICTIM_SEED`` on.
        train: training set, prepared by the countermeasure.
        watched: what it is scored on.
        setting: how to train.
        countermeasure: trains on the batches.
        after_epoch: told of each epoch.
    """
    epochs: list[Epoch] = []

    def step(trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if setting.augment is not None:
            inputs, targets = setting.augment(inputs, targets, generator)
        return countermeasure.step(trainer, inputs, targets, generator)

    # Networks draw dropout from the global generator too, so the whole training stays inside.
    with seeded(seed, setting.device):
        trainer = _fresh_trainer(train, setting)
        for train_score in fit(trainer, train, setting.epochs, seed, step=step, epoch_steps=setting.epoch_steps):
            epochs.append(_score(trainer, train_score, watched))
            after_epoch(epochs[-1])
            if _has_learned(epochs, setting):
                return Victim(trainer, epochs, "learned")
    return Victim(trainer, epochs, "epochs")


def train_plainly(train: Cases, setting: Setting, seed: int) -> Trainer:
    """Train a network of the victim's architecture by its recipe, without watching it.

    Args:
        train: training set.
        setting: how to train.
        seed: of weights and order.
    """
    with seeded(seed, setting.device):
        trainer = _fresh_trainer(train, setting)
        for _ in fit(trainer, train, setting.epochs, seed, setting.augment, epoch_steps=setting.epoch_steps):
            pass
    return trainer


def adversary_means(known: Cases, setting: Setting, seed: int) -> Means:
    """What the adversary has beside the published images: a small clean set, and a recipe.

    Args:
        known: the small clean set.
        setting: how victims are trained.
        seed: of the victim; other networks of the adversary start elsewhere.
    """
    return Means(known=known, train=lambda cases: train_plainly(cases, setting, seed + 500_000), seed=seed)


def _fresh_trainer(train: Cases, setting: Setting) -> Trainer:
    channels = (train.spatial_dims, train.in_channels, train.task.num_classes)
    if callable(setting.network):
        names = ("spatial_dims", "in_channels", "out_channels")
        model = setting.network(**dict(zip(names, channels, strict=True)))
    else:
        model = build_network(setting.network, *channels, width=setting.width, image_size=train.view.size)
    steps = setting.epochs * setting.epoch_steps
    return Trainer(model, train.task, setting.recipe, setting.device, train.spatial_dims, total_steps=steps)


def _score(trainer: Trainer, train_score: float, watched: Watched) -> Epoch:
    task, test = trainer.task, watched.test
    predictions = trainer.predict(test)
    published = _headline(trainer, watched.held_out)
    clean = published if watched.known is watched.held_out else _headline(trainer, watched.known)
    table = task.case_scores(predictions, test.labels)
    return Epoch(train_score, task.scores(predictions, test.labels), table, published, clean)


def _headline(trainer: Trainer, cases: Cases) -> float:
    if not len(cases):
        return float("nan")
    return mean_of_table(trainer.task.case_scores(trainer.predict(cases), cases.labels))


def _has_learned(epochs: Sequence[Epoch], setting: Setting) -> bool:
    last = epochs[-setting.patience :]
    if setting.learned is None or len(last) < setting.patience:
        return False
    return all(epoch.train_score >= setting.learned for epoch in last)


def guessing_score(labels: Sequence[Array]) -> float:
    """Training score of a network that has learned nothing but the commonest answer, per image or per voxel.

    Args:
        labels: in the task's canonical form.
    """
    if labels[0].dtype.kind == "f":  # multi-label: each label its own commonest answer
        positive = np.stack(labels).mean(axis=0)
        return float(np.maximum(positive, 1 - positive).mean())
    counts = label_counts(labels)
    return float(counts.max() / counts.sum())
