"""What the methods without a network share: noise that is a function of the class, the image's content and the seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from monai_salm.learning.tasks import Task
from monai_salm.methods.base import Method
from monai_salm.methods.job import Job
from monai_salm.noise.digest import drawing_digest
from monai_salm.noise.grid import require
from monai_salm.shared.arrays import Array

#: Noise of any scale: ``(shape (channel, *spatial), class, generator of the image's own) -> floats of that shape``.
Drawer: TypeAlias = Callable[[Sequence[int], int, np.random.Generator], Array]


@dataclass(frozen=True, kw_only=True)
class Shortcut(Method):
    """Noise that tells the class by itself. The papers bound its L2 norm; here it has that norm's root mean square, as a
    share of the L-infinity budget, and is then clipped to the budget.

    Args:
        rms: root mean square of the noise before it is clipped, as a share of epsilon, in (0, 1].
    """

    rms: float = field(
        default=0.75, metadata={"help": "Root mean square of the noise before it is clipped, as a share of epsilon."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.rms <= 1, "rms", "in (0, 1]", self.rms)

    @abstractmethod
    def drawer(self, num_classes: int, channels: int, rank: int, seed: int) -> Drawer:
        """What makes the noise of single images; equal for equal arguments, so that later images get their class' noise.

        Args:
            num_classes: classes in the data set.
            channels: of every image.
            rank: spatial dimensions.
            seed: of the classes' parameters.
        """

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        if task.kind != "classification" or getattr(task, "multi_label", False):
            raise ValueError(f"{self.name} needs one label per image; use em, rem, sem, tap or salm")

    def maker(self, job: Job) -> Callable[[int], Array]:
        cases = job.cases
        draw = self.drawer(cases.task.num_classes, cases.in_channels, cases.spatial_dims, job.seed)

        def make(case: int) -> Array:
            image, budget = cases.images[case], job.workspace.budgets[case]
            noise = draw(image.shape, int(cases.labels[case]), own_generator(image, job.seed))
            limits = budget.grid.limits(image.ndim - 1)
            return budget.effective_codes(image, np.rint(scaled(noise, self.rms, 1.0) * limits).astype(np.int32))

        return make


def own_generator(image: Array, seed: int) -> np.random.Generator:
    """Random numbers of an image, by its content and the seed."""
    return np.random.default_rng([seed, *np.frombuffer(drawing_digest(image), np.uint32).tolist()])


def scaled(noise: Array, rms: float, budget: float) -> Array:
    """Noise of this root mean square, as a share of the budget, clipped to the budget."""
    size = float(np.sqrt(np.mean(np.square(noise, dtype=np.float64))))
    clipped: Array = np.clip(noise * (rms * budget / size), -budget, budget)
    return clipped
