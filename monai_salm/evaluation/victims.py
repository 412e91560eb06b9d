"""One victim: a fresh network trained on what the public would get, scored on clean images after every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.learning.augmentation import Augmentation
from monai_salm.learning.cases import Cases
from monai_salm.learning.networks import NetworkFactory, build_network, seeded
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.scores import label_counts, mean_of_table
from monai_salm.learning.trainer import Trainer, fit, steps_per_epoch
from monai_salm.shared.arrays import Array

#: Added to a victim's seed, so that no victim starts from the weights that the noise was made against.
VICTIM_SEED = 1_700_000_000

_EPOCHS = {"none": 15, "standard": 20}
# With fewer steps a network has hardly learned even clean images.
_LEAST_STEPS = {"classification": 240, "segmentation": 1200}
# Training scores of about 1 must last for this many steps before a victim stops: the running averages of batch normalisation
# settle long after the training score (on 44 images, one step a pass, after 200 steps). Sets of few steps a pass wait longer.
_SETTLED_STEPS = {"small": 200, "other": 60}
_SMALL_PASS = 16  # steps


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the victims of one architecture are trained, the same for every training set."""

    network: str | NetworkFactory
    recipe: Recipe
    epochs: int  # at most, of ``epoch_steps`` steps each
    epoch_steps: int  # one pass over the whole training set, however small a part is trained on
    width: float
    device: torch.device
    augment: Augmentation | None
    learned: float | None  # training score at which training ends early; None for never
    patience: int  # epochs in a row that reach ``learned``


@dataclass(frozen=True)
class ScoredSets:
    """The sets that a victim is scored on after every epoch, with the filter of the countermeasure."""

    test: Cases
    held_out: Cases  # training cases, as published
    held_out_clean: Cases  # the same cases


@dataclass(frozen=True)
class Epoch:
    """Scores after one epoch; NaN of held-out cases where there are none."""

    train_score: float
    scores: dict[str, float]  # on the clean test set
    case_scores: NDArray[np.float64]  # headline score on the clean test set, case by case
    held_out: float  # headline score on the held-out cases as published
    held_out_clean: float  # headline score on the same cases, clean


@dataclass(frozen=True)
class Victim:
    """A trained victim: the network, its epochs, and why training ended (``"learned"`` or ``"epochs"``)."""

    trainer: Trainer
    epochs: list[Epoch]
    stopped: str


def default_epochs(cases: Cases, recipe: Recipe, augment: str) -> int:
    """15 passes, 20 with augmentation (``"standard"``), and more for a set so small that these are too few steps."""
    least = math.ceil(_LEAST_STEPS[cases.task.kind] / steps_per_epoch(cases, recipe))
    return max(least, _EPOCHS[augment])


def settled_epochs(patience: int, epoch_steps: int) -> int:
    """The patience that is applied: the protocol's, and more where epochs have few steps."""
    steps = _SETTLED_STEPS["small" if epoch_steps < _SMALL_PASS else "other"]
    return max(patience, math.ceil(steps / epoch_steps))


def train_victim(
    seed: int,
    train: Cases,
    scored: ScoredSets,
    setting: Setting,
    countermeasure: Countermeasure,
    after_epoch: Callable[[Epoch], None],
) -> Victim:
    """Train one network from scratch; the same seed gives every training set the same start and order."""
    epochs: list[Epoch] = []

    def step(trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if setting.augment is not None:
            inputs, targets = setting.augment(inputs, targets, generator)
        return countermeasure.step(trainer, inputs, targets, generator)

    # Networks draw dropout from the global generator too, so the whole training stays inside.
    with seeded(seed, setting.device):
        trainer = _fresh_trainer(train, setting)
        for train_score in fit(trainer, train, setting.epochs, seed, step=step, epoch_steps=setting.epoch_steps):
            epochs.append(_score(trainer, train_score, scored))
            after_epoch(epochs[-1])
            if _has_learned(epochs, setting):
                return Victim(trainer, epochs, "learned")
    return Victim(trainer, epochs, "epochs")


def adversary_resources(clean: Cases, setting: Setting, seed: int) -> Resources:
    """What the adversary has beside the published images: a small clean set and the victim's recipe."""

    def train(cases: Cases) -> Trainer:
        start = seed + 500_000
        with seeded(start, setting.device):
            trainer = _fresh_trainer(cases, setting)
            for _ in fit(trainer, cases, setting.epochs, start, setting.augment, epoch_steps=setting.epoch_steps):
                pass
        return trainer

    return Resources(clean=clean, train=train, seed=seed)


def _fresh_trainer(train: Cases, setting: Setting) -> Trainer:
    channels = (train.spatial_dims, train.in_channels, train.task.num_classes)
    if callable(setting.network):
        names = ("spatial_dims", "in_channels", "out_channels")
        model = setting.network(**dict(zip(names, channels, strict=True)))
    else:
        model = build_network(setting.network, *channels, width=setting.width, image_size=train.view.size)
    steps = setting.epochs * setting.epoch_steps
    return Trainer(model, train.task, setting.recipe, setting.device, train.spatial_dims, total_steps=steps)


def _score(trainer: Trainer, train_score: float, scored: ScoredSets) -> Epoch:
    task, test = trainer.task, scored.test

    def headline(cases: Cases) -> float:
        return mean_of_table(task.case_scores(trainer.predict(cases), cases.labels)) if len(cases) else math.nan

    predictions, published = trainer.predict(test), headline(scored.held_out)
    clean = published if scored.held_out_clean is scored.held_out else headline(scored.held_out_clean)
    table = task.case_scores(predictions, test.labels)
    return Epoch(train_score, task.scores(predictions, test.labels), table, published, clean)


def _has_learned(epochs: Sequence[Epoch], setting: Setting) -> bool:
    last = epochs[-setting.patience :]
    known = setting.learned is not None and all(epoch.train_score >= setting.learned for epoch in last)
    return known and len(last) == setting.patience


def guessing_score(labels: Sequence[Array]) -> float:
    """Training score of always giving the commonest answer, per image or per voxel."""
    if labels[0].dtype.kind == "f":  # multi-label: each label its own commonest answer
        positive = np.stack(labels).mean(axis=0)
        return float(np.maximum(positive, 1 - positive).mean())
    counts = label_counts(labels)
    return float(counts.max() / counts.sum())
