"""Classification and segmentation: their labels, loss, error and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from monai_salm.learning.scores import (
    dice_table,
    label_counts,
    macro_f1,
    mean_auc,
    mean_of_table,
    mean_surface_distance,
)
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks


class LabelError(ValueError):
    """A label that is missing, of the wrong shape, or out of range."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A learning problem: how labels are checked and how a network's output is scored.

    Args:
        num_classes: classes (for segmentation background included), or labels of a multi-label problem; at least 2,
            or 1 for multi-label.
    """

    num_classes: int
    kind: ClassVar[str]
    metric: ClassVar[str]

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")

    def spec(self) -> dict[str, Any]:
        """The task as plain values, for ``task_from_spec``."""
        return {"kind": self.kind, **asdict(self)}

    @abstractmethod
    def check_label(self, label: object, spatial_shape: Sequence[int], where: str) -> Array:
        """Return a case's label in canonical form.

        Args:
            label: as the data set has it.
            spatial_shape: shape of the image without its channel.
            where: the case, for error messages.

        Raises:
            LabelError: naming the case, what is wrong and what is expected.
        """

    @abstractmethod
    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch, ``logits (batch, out_channels, ...)`` in float32."""

    @abstractmethod
    def error(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Share of wrong answers in a batch, a scalar in [0, 1]."""

    @abstractmethod
    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Predictions for ``scores``: probabilities, or the label map of a segmentation."""

    @abstractmethod
    def scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> dict[str, float]:
        """Score the predictions of a whole test set, one item a case; ``self.metric`` is the headline."""

    @abstractmethod
    def case_scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> NDArray[np.float64]:
        """The headline case by case, ``(cases, columns)``: ``mean_of_table`` of it is the headline (NaN: no number)."""

    def final_scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> dict[str, float]:
        """As ``scores``, with scores that take too long for every epoch."""
        return self.scores(predictions, targets)

    @abstractmethod
    def baselines(self, targets: Sequence[Array]) -> dict[str, float]:
        """Headline score of guessing (``chance``) and of always answering the commonest class (``majority``)."""

    @abstractmethod
    def wrong_target(self, target: torch.Tensor) -> torch.Tensor:
        """A consistent wrong answer for every target (class-permuted, as TAP uses; Fowl et al. 2021)."""


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One label per image, or several yes/no labels with ``multi_label=True``.

    Args:
        num_classes: number of classes, or of labels.
        multi_label: labels are vectors of zeros and ones.
    """

    multi_label: bool = False
    kind: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        if not self.multi_label:
            super().__post_init__()
        elif self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")

    def check_label(self, label: object, spatial_shape: Sequence[int], where: str) -> Array:
        values = _label_array(label, where)
        if self.multi_label:
            if values.size != self.num_classes or not np.isin(values, (0, 1)).all():
                raise LabelError(
                    f"{where}: a multi-label label must be {self.num_classes} zeros or ones, got {values.tolist()}"
                )
            return values.reshape(-1).astype(np.float32)
        if values.size != 1:
            if values.shape[values.ndim - len(spatial_shape) :] == tuple(spatial_shape):
                raise LabelError(
                    f"{where}: label must be one integer, got a label map of shape {values.shape}: for labels per voxel "
                    "give task=Segmentation(num_classes=...)"
                )
            raise LabelError(
                f"{where}: label must be one integer, got shape {values.shape}; is this a multi-label set? "
                "Of a one-hot vector give the number of the class (argmax)"
            )
        return _class_indices(values.reshape(()), self.num_classes, where)

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target)

    def error(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            return ((logits > 0) != (target > 0.5)).float().mean()
        return (logits.argmax(1) != target).float().mean()

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> dict[str, float]:
        probability = torch.stack([p.float().cpu() for p in predictions])
        answers, truth = self._answers(probability), self._truth(targets)
        hits = answers == truth
        values = (0, 1) if self.multi_label else (1,)
        recalls = [hits[truth[:, c] == v, c].float().mean() for c in range(truth.shape[1]) for v in values]
        return {
            "accuracy": mean_of_table(self.case_scores(predictions, targets)),
            "balanced_accuracy": float(torch.stack(recalls).nanmean()),
            "auc": mean_auc(probability, truth),
            "f1": macro_f1(answers, truth),
        }

    def case_scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> NDArray[np.float64]:
        answers = self._answers(torch.stack([p.float().cpu() for p in predictions]))
        hits = (answers == self._truth(targets)).double()
        # One label an image is hit or missed; of several labels each counts.
        return (hits.mean(1) if self.multi_label else hits.amin(1))[:, None].numpy()

    def _truth(self, targets: Sequence[Array]) -> torch.Tensor:
        target = torch.from_numpy(np.stack(targets))
        return (target > 0.5).long() if self.multi_label else F.one_hot(target, self.num_classes)

    def _answers(self, probability: torch.Tensor) -> torch.Tensor:
        """Zeros and ones, ``(cases, classes)``."""
        return (probability > 0.5).long() if self.multi_label else F.one_hot(probability.argmax(1), self.num_classes)

    def baselines(self, targets: Sequence[Array]) -> dict[str, float]:
        values = np.stack(targets)
        if self.multi_label:
            positive = values.mean(axis=0)
            return {"chance": 0.5, "majority": float(np.maximum(positive, 1 - positive).mean())}
        return {"chance": 1 / self.num_classes, "majority": float(np.bincount(values).max() / len(values))}

    def wrong_target(self, target: torch.Tensor) -> torch.Tensor:
        return 1 - target if self.multi_label else (target + 1) % self.num_classes


@dataclass(frozen=True, kw_only=True)
class Segmentation(Task):
    """One label per voxel; class 0 is the background.

    Args:
        num_classes: classes with the background.
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "dice"

    def check_label(self, label: object, spatial_shape: Sequence[int], where: str) -> Array:
        values = _label_array(label, where)
        shape = tuple(spatial_shape)
        if values.shape == (1, *shape):
            values = values[0]
        if values.shape != shape:
            raise LabelError(
                f"{where}: label map has shape {values.shape}, its image {shape}; they must lie on one grid"
            )
        classes = np.empty(shape, np.uint8 if self.num_classes <= 256 else np.int32)
        flat, found = np.ascontiguousarray(values).reshape(-1), classes.reshape(-1)
        try:
            for part in blocks(flat.size):  # 64 bits for each voxel of a volume take a lot of room
                found[part] = _class_indices(flat[part], self.num_classes, where)
        except LabelError:
            _class_indices(values, self.num_classes, where)  # names what the whole map holds
            raise
        return classes

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from monai.losses import DiceCELoss

        loss: torch.Tensor = DiceCELoss(to_onehot_y=True, softmax=True)(logits, target[:, None])
        return loss

    def error(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (_likeliest(logits) != target).float().mean()

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return _likeliest(logits).to(torch.uint8 if self.num_classes <= 256 else torch.int32)

    def scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> dict[str, float]:
        table = self.case_scores(predictions, targets)
        named = {f"dice_{c + 1}": mean_of_table(column[:, None]) for c, column in enumerate(table.T)}
        return {"dice": mean_of_table(table), **named}

    def case_scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> NDArray[np.float64]:
        return dice_table(predictions, targets, self.num_classes)

    def final_scores(self, predictions: Sequence[torch.Tensor], targets: Sequence[Array]) -> dict[str, float]:
        distance = mean_surface_distance(predictions, targets, self.num_classes)
        return {**self.scores(predictions, targets), "surface_distance": distance}

    def baselines(self, targets: Sequence[Array]) -> dict[str, float]:
        commonest, guess = int(label_counts(targets).argmax()), np.random.default_rng(0)
        tables: list[list[Array]] = [[], []]
        for target in targets:  # one case at a time: maps of a whole set of volumes would not fit in memory
            random_map = torch.from_numpy(guess.integers(0, self.num_classes, target.shape))
            for table, answer in zip(tables, (random_map, torch.full(target.shape, commonest)), strict=True):
                table.append(self.case_scores([answer], [target])[0])
        chance, majority = (mean_of_table(np.stack(table)) for table in tables)
        return {"chance": chance, "majority": majority}

    def wrong_target(self, target: torch.Tensor) -> torch.Tensor:
        return (target + 1) % self.num_classes


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The class of every voxel; ``argmax`` is 9 times as slow on the CPU (torch 2.14)."""
    return logits.max(1).indices


TASKS = {task.kind: task for task in (Classification, Segmentation)}


def task_from_spec(spec: Mapping[str, Any]) -> Task:
    """Rebuild a task from ``Task.spec``.

    Raises:
        ValueError: for an unknown kind.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    if kind not in TASKS:
        raise ValueError(f"unknown task {kind!r}; known: {', '.join(TASKS)}")
    return TASKS[kind](**settings)


def _label_array(label: object, where: str) -> Array:
    if label is None:
        raise LabelError(f"{where}: the label is missing; set label_key to the key that the items keep it under")
    try:
        values = label.detach().cpu().numpy() if isinstance(label, torch.Tensor) else np.asarray(label)
    except ValueError:  # a ragged list
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise LabelError(f"{where}: label must be a number, got {label!r}; map class names to 0, 1, 2, ...")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise LabelError(f"{where}: the label is NaN or infinite")
    return values


def _class_indices(values: Array, num_classes: int, where: str) -> NDArray[np.int64]:
    indices = values.astype(np.int64)
    if not np.array_equal(indices, values):
        raise LabelError(
            f"{where}: label must be whole class numbers, got {np.unique(values)[:5].tolist()}; "
            "was it interpolated or scaled with the image? Load labels as they are stored"
        )
    if indices.size and (indices.min() < 0 or indices.max() >= num_classes):
        wrong = indices.min() if indices.min() < 0 else indices.max()
        masks = num_classes == 2 and set(np.unique(indices)) <= {0, 255}
        hint = (
            "a mask of 0 and 255 must be divided by 255"
            if masks
            else "check num_classes, and that classes count from 0"
        )
        raise LabelError(f"{where}: label {wrong} is outside 0 to {num_classes - 1}; {hint}")
    return indices
