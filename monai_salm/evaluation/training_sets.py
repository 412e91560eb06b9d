"""What victims train on: clean, protected, partly protected and control images of the same cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import Sets
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.tasks import Task
from monai_salm.methods.shortcut_noise import random_codes
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import drawing_digest
from monai_salm.noise.grid import apply_codes
from monai_salm.shared.arrays import Array

#: ``(clean, protected, budget, seed) -> image``; images ``(channel, *spatial)``, stored units and type.
Control: TypeAlias = Callable[[Array, Array, Budget, int], Array]

# Every evaluation holds out the same cases, and puts noise of mixtures and controls into the same ones.
_SPLIT_SEED = 1_700_000_000


def random_noise(clean: Array, protected: Array, budget: Budget, seed: int) -> Array:
    """The clean image with random signs at the full budget; the protected image is not used."""
    return apply_codes(clean, random_codes(clean, budget, seed), budget.grid.quantum)


def random_mask(clean: Array, protected: Array, budget: Budget, seed: int) -> Array:
    """The clean image with the protected one's noise values at random places, clipped to the budget there.

    Sparsity and size of the noise stay, but the places do not follow the gradients.
    """
    quantum = budget.grid.quantum
    with np.errstate(invalid="ignore"):
        codes = np.rint(np.nan_to_num(protected.astype(np.float64) - clean.astype(np.float64)) / quantum)
    lower, upper = budget.code_bounds(clean)
    inside = np.flatnonzero((lower < 0) | (upper > 0))
    words = np.frombuffer(drawing_digest(clean), np.uint32).tolist()
    rng = np.random.default_rng([seed, *words])
    values = rng.permutation(codes[codes != 0])[: len(inside)]
    places = rng.choice(inside, len(values), replace=False)
    moved = np.zeros(clean.size)
    moved[places] = values
    fitting = np.clip(moved.reshape(clean.shape), lower, upper).astype(budget.grid.code_dtype)
    return apply_codes(clean, fitting, quantum)


#: Training sets that any protection has to beat, by name; no countermeasure is applied to them.
CONTROLS: dict[str, Control] = {"random_noise": random_noise, "random_mask": random_mask}


@dataclass(frozen=True)
class TrainingSets:
    """All image sets of an evaluation, and the training sets made of them."""

    images: Mapping[str, Sequence[Array]]  # by role: "clean", "protected", further copies; the same cases in one order
    clean: Cases
    test: Cases
    budgets: Sequence[Budget]  # of each case, for the controls; empty without controls
    held_out: float  # share of the cases that no victim trains on

    def training(self, data: str, fraction: float = 1.0) -> Cases:
        """The cases trained on: of a role or a control, a ``fraction`` with noise; ``"clean_part"`` leaves these out."""
        members = self._members(held_out=False)
        if data == "clean_part":
            return self._cases("clean", members[~self._noisy(members, fraction)])
        return self._cases(data, members, fraction)

    def held_out_cases(self, data: str, fraction: float = 1.0) -> Cases:
        """The cases held out, as published; clean for ``"clean_part"``."""
        return self._cases("clean" if data == "clean_part" else data, self._members(held_out=True), fraction)

    def mixture(self, fraction: float) -> tuple[int, int]:
        """How many cases of a mixture carry the noise, and how many do not."""
        noisy = self._noisy(self._members(held_out=False), fraction)
        return int(noisy.sum()), int((~noisy).sum())

    def _members(self, held_out: bool) -> NDArray[np.intp]:
        ranks = stratified_ranks(self.clean.labels, _SPLIT_SEED)
        return np.flatnonzero((ranks < self.held_out) == held_out)

    def _noisy(self, members: NDArray[np.intp], fraction: float) -> NDArray[np.bool_]:
        """Which of some cases carry the noise; those of a smaller fraction are among those of a larger one."""
        return stratified_ranks([self.clean.labels[i] for i in members], _SPLIT_SEED + 1) < fraction

    def _cases(self, data: str, members: NDArray[np.intp], fraction: float = 1.0) -> Cases:
        clean = self.images["clean"]
        noisy = self._noisy(members, fraction) if len(members) else np.empty(0, bool)
        if data in CONTROLS:
            protected = self.images["protected"]
            images = [CONTROLS[data](clean[i], protected[i], self.budgets[i], _SPLIT_SEED) for i in members]
        else:
            images = [(self.images[data] if noise else clean)[i] for i, noise in zip(members, noisy, strict=True)]
        labels, names, windows = (
            [part[i] for i in members] for part in (self.clean.labels, self.clean.names, self.clean.windows)
        )
        return replace(self.clean, images=images, labels=labels, names=names, windows=windows)


def make_training_sets(sets: Sets, task: Task, budgets: Sequence[Budget], protocol: Protocol) -> TrainingSets:
    """Choose one view that all images fit, and hold cases out."""
    shapes = [image.shape[1:] for role in ("clean", "test") for image in sets[role].images]
    view = choose_view(shapes, task.kind == "segmentation", protocol.patch_size, protocol.view_size)
    clean, test = (
        Cases(images.images, images.labels, images.names, task, images.windows, view)
        for images in (sets["clean"], sets["test"])
    )
    images = {role: given.images for role, given in sets.items() if role != "test"}
    return TrainingSets(images, clean, test, budgets, protocol.held_out)


def stratified_ranks(labels: Sequence[Array], seed: int) -> NDArray[np.float64]:
    """A random rank in (0, 1) for each case: those below a share are that share of all, and about that of each class.

    Labels that are no single number are one class.
    """
    classes = np.array([int(label) if label.ndim == 0 else 0 for label in labels], np.int64)
    within, rng = np.empty(len(labels)), np.random.default_rng(seed)
    for each in np.unique(classes):
        members = np.flatnonzero(classes == each)
        within[rng.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((rng.random(len(labels)), within))  # classes take turns in a random order
    ranks = np.empty(len(labels))
    ranks[order] = (np.arange(len(labels)) + 0.5) / len(labels)
    return ranks
