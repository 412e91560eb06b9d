"""The one bilevel loop.

Error-minimising noise (EM; Huang et al., "Unlearnable Examples", ICLR 2021): a surrogate network trains on the noisy
images, then every image's noise takes sign-gradient *descent* steps against the frozen surrogate, in turns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from monai_salm.intensity import Array, Grid, IntensityWindow
from monai_salm.methods.base import Job, Method, require
from monai_salm.methods.hooks import Hooks
from monai_salm.methods.loop import Loop
from monai_salm.methods.starts import class_pattern
from monai_salm.tasks import Task


@dataclass(frozen=True, kw_only=True)
class BilevelMethod(Hooks, Method):
    """Error-minimising noise by the bilevel loop; concrete methods say which elements a step may change, and may use the
    other ``Hooks``.

    Args:
        step_size: length of a noise step, fraction of the window's width; None is the method's own share of epsilon: all
            of it for SALM, so that a step puts every element it may change at the edge of its budget.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches the surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps; None is the method's own number (for SALM 1 with a class pattern,
            else 22 for images and 8 for volumes, whose rounds cost more). 0 leaves the noise as it begins.
        restart_every: rounds after which the surrogate starts from fresh weights; 0 is never, as EM's published code.
        stop_error: stop once the surrogate's error on the noisy images is at most this; None never does, for a low
            error is no sign of strong noise (docs/design.md, section 2).
        calibration_steps: batches on which the surrogate's batch normalisation is measured anew before it is frozen; 0
            keeps the running averages of its training, as the published codes do (compared in docs/experiments.md).
        perturb_type: ``"samplewise"`` noise for every image, or ``"classwise"`` one noise for all images of a class.
        start: what noise begins as: ``"zero"``, or ``"class"``, a pattern of full strength that the elements of a class
            share (``starts.class_pattern``).
    """

    step_size: float | None = None
    num_steps: int = 4
    surrogate_steps: int = 45
    rounds: int | None = None
    restart_every: int = 1
    stop_error: float | None = None
    calibration_steps: int = 0
    perturb_type: str = "samplewise"
    start: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.step_size is None or 0 < self.step_size <= 1, "step_size", "in (0, 1] or None", self.step_size)
        for name in ("num_steps", "surrogate_steps"):
            value = getattr(self, name)  # None where a method knows its own number
            require(value is None or value >= 1, name, "at least 1", value)
        require(self.rounds is None or self.rounds >= 0, "rounds", "at least 0", self.rounds)
        require(self.calibration_steps >= 0, "calibration_steps", "at least 0", self.calibration_steps)
        require(self.restart_every >= 0, "restart_every", "at least 0", self.restart_every)
        require(self.stop_error is None or 0 <= self.stop_error < 1, "stop_error", "in [0, 1) or None", self.stop_error)
        known = ("samplewise", "classwise")
        require(self.perturb_type in known, "perturb_type", f"one of {known}", self.perturb_type)
        if self.start is not None:  # a method may leave it open until the task is known
            require(self.start in ("zero", "class"), "start", 'one of ("zero", "class")', self.start)
        if self.rounds == 0 and self.start == "zero":
            raise ValueError('rounds 0 with start "zero" would leave no noise: give rounds, or start "class"')

    @abstractmethod
    def choose(self, gradient: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Elements that this noise step may change.

        Args:
            gradient: of the loss with respect to the noise, ``(batch, channel, *spatial)``.
            image: the images without noise, stored units, same shape.
            generator: source of randomness, on the CPU.

        Returns:
            Boolean tensor of that shape, or None for all elements.
        """

    def resolved(self, task: Task, spatial_dims: int, labels: Sequence[Array] = (), networks: int = 1) -> BilevelMethod:
        if self.start == "class" and getattr(task, "multi_label", False):
            raise ValueError('start "class" needs one label per image or voxel; use "zero"')
        rounds = self.default_rounds[spatial_dims] if self.rounds is None else self.rounds
        return replace(self, rounds=rounds, step_size=self.step)

    def first_noise(
        self, image: Array, label: Array, grid: Grid, window: IntensityWindow, num_classes: int, digest: bytes
    ) -> Array:
        """What noise with ``start="class"`` begins as, in quanta; the budget's edge, whatever the image can carry.

        Args:
            image: stored array ``(channel, *spatial)``.
            label: of the image.
            grid: the stored grid.
            window: the intensity window.
            num_classes: classes in the data set.
            digest: of the image's content, the source of what differs from image to image.

        Returns:
            Array that broadcasts to the image's shape.
        """
        pattern: Array = class_pattern(label, image.shape[1:], num_classes).astype(np.int32) * grid.max_code
        return pattern

    @property
    def step(self) -> float:
        """Length of a noise step, fraction of the window's width."""
        return self.step_size or self.epsilon / self.default_steps

    def surrogate_batches(self, per_epoch: int) -> int:
        """Batches that the surrogate trains on in a round.

        Args:
            per_epoch: batches in a pass over the data set.
        """
        return self.surrogate_steps

    @property
    def fixed_mask_ratio(self) -> float | None:
        """Share of a sample's elements that may ever carry noise, or None if that is not bounded."""
        return None

    def run(self, job: Job) -> int:
        loop = Loop(self, job)
        return loop.run()

    def run_frozen(self, job: Job, surrogates: Sequence[nn.Module]) -> int:
        # Random masks must differ from image to image, and a newcomer is alone in its class.
        seed = job.derive(4, *np.frombuffer(b"".join(job.workspace.digests), np.uint32).tolist())
        loop = Loop(replace(self, perturb_type="samplewise"), replace(job, seed=seed))
        return loop.run_frozen(surrogates)
