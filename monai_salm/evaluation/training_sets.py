"""What victims train on: the clean, the protected, the control and the partly protected images of the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_salm.evaluation.controls import CONTROLS
from monai_salm.evaluation.sets import ImageSet
from monai_salm.learning.cases import Cases, View, choose_view
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Which cases are held out, which carry the noise in a mixture and where random noise goes is the same in every evaluation.
_SPLIT_SEED = 1_700_000_000


@dataclass(frozen=True)
class TrainingSets:
    """All image sets of an evaluation, and the training sets made of them.

    Args:
        images: by role: ``"clean"``, ``"protected"``, further copies; the same cases in the same order.
        labels: of these cases, in the task's canonical form.
        names: of these cases.
        test: clean images that are in none of them.
        task: the learning problem.
        windows: the intensity window of each of these cases.
        budgets: what the noise of each of these cases keeps to, for the controls.
        view: how networks see a case.
        held_out: share of the cases that no victim trains on.
    """

    images: Mapping[str, Sequence[Array]]
    labels: Sequence[Array]
    names: Sequence[str]
    test: Cases
    task: Task
    windows: Sequence[IntensityWindow]
    budgets: Sequence[Budget]
    view: View
    held_out: float

    def training(self, data: str, fraction: float = 1.0) -> Cases:
        """The cases trained on.

        Args:
            data: a role, a control, or ``"clean_part"``.
            fraction: share of the cases that carry the noise; for ``"clean_part"`` these are left out.
        """
        members = self._members(held_out=False)
        if data == "clean_part":
            return self._cases("clean", members[~self._noisy(members, fraction)])
        return self._cases(data, members, fraction)

    def held_out_cases(self, data: str, fraction: float = 1.0) -> Cases:
        """The cases held out, as their publisher gave them; for ``"clean_part"`` they are clean.

        Args:
            data: as for ``training``.
            fraction: as for ``training``.
        """
        return self._cases("clean" if data == "clean_part" else data, self._members(held_out=True), fraction)

    def mixture(self, fraction: float) -> tuple[int, int]:
        """How many cases of a mixture carry the noise, and how many do not."""
        noisy = self._noisy(self._members(held_out=False), fraction)
        return int(noisy.sum()), int((~noisy).sum())

    def _members(self, held_out: bool) -> NDArray[np.intp]:
        ranks = stratified_ranks(self.labels, _SPLIT_SEED)
        return np.flatnonzero((ranks < self.held_out) == held_out)

    def _noisy(self, members: NDArray[np.intp], fraction: float) -> NDArray[np.bool_]:
        """Which of some cases carry the noise; those of a smaller fraction are among those of a larger one."""
        return stratified_ranks([self.labels[i] for i in members], _SPLIT_SEED + 1) < fraction

    def _cases(self, data: str, members: NDArray[np.intp], fraction: float = 1.0) -> Cases:
        clean = self.images["clean"]
        noisy = self._noisy(members, fraction) if len(members) else np.empty(0, bool)
        if data in CONTROLS:
            protected, seed = self.images["protected"], _SPLIT_SEED
            images = [CONTROLS[data](clean[i], protected[i], self.budgets[i], seed) for i in members]
        else:
            images = [(self.images[data] if noise else clean)[i] for i, noise in zip(members, noisy, strict=True)]
        return replace(
            self.test,
            images=images,
            labels=[self.labels[i] for i in members],
            names=[self.names[i] for i in members],
            windows=[self.windows[i] for i in members],
        )


def make_training_sets(
    sets: Mapping[str, ImageSet],
    task: Task,
    budgets: Sequence[Budget],
    held_out: float,
    patch_size: Sequence[int] | None,
    view_size: Sequence[int] | None,
) -> TrainingSets:
    """Choose one view that all images fit, and hold cases out.

    Args:
        sets: ``"clean"``, ``"protected"``, ``"test"`` and further copies, checked against each other.
        task: the learning problem.
        budgets: what the noise of each training case keeps to; empty without controls.
        held_out: share of the cases that no victim trains on.
        patch_size: train on patches of this size.
        view_size: resize images to this size.
    """
    clean, test = sets["clean"], sets["test"]
    shapes = [image.shape[1:] for image in (*clean.images, *test.images)]
    view = choose_view(shapes, task.kind == "segmentation", patch_size, view_size)
    return TrainingSets(
        images={role: images.images for role, images in sets.items() if role != "test"},
        labels=clean.labels,
        names=clean.names,
        test=Cases(test.images, test.labels, test.names, task, test.windows, view),
        task=task,
        windows=clean.windows,
        budgets=budgets,
        view=view,
        held_out=held_out,
    )


def stratified_ranks(labels: Sequence[Array], seed: int) -> NDArray[np.float64]:
    """A random rank in (0, 1) for each case: those below a share are that share of all, and of each class as nearly as can be.

    Args:
        labels: in the task's canonical form; labels that are no single number are one class.
        seed: of the order.
    """
    classes = np.array([int(label) if label.ndim == 0 else 0 for label in labels], np.int64)
    within, rng = np.empty(len(labels)), np.random.default_rng(seed)
    for each in np.unique(classes):
        members = np.flatnonzero(classes == each)
        within[rng.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((rng.random(len(labels)), within))  # classes take turns; which comes first is left to chance
    ranks = np.empty(len(labels))
    ranks[order] = (np.arange(len(labels)) + 0.5) / len(labels)
    return ranks
