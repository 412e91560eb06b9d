"""The interface of every countermeasure: what an adversary does to images, batches or networks to learn in spite of the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, ClassVar

import torch

from monai_salm.learning.augmentation import Batch
from monai_salm.learning.cases import Cases
from monai_salm.learning.trainer import Trainer
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True)
class Resources:
    """What an adversary has beside the published images.

    Args:
        clean: a small clean, labelled set of images that no victim trains on as published; only countermeasures with
            ``needs_clean`` may use it.
        train: trains the victim's architecture from fresh weights on a set, by the victim's recipe and number of steps.
        seed: of everything random.
    """

    clean: Cases
    train: Callable[[Cases], Trainer]
    seed: int

    def generator(self) -> torch.Generator:
        """A fresh source of randomness on the CPU."""
        return torch.Generator().manual_seed(self.seed)


class Countermeasure:
    """Ordinary training, and the base of all countermeasures.

    A subclass is a frozen keyword-only dataclass of settings, and overrides the one method at which it differs. It holds no
    state: one instance serves every victim.
    """

    #: Name in the registry, in reports and on the command line.
    name: ClassVar[str] = "none"
    #: ``"cheap"`` if it costs at most one ordinary training, else ``"costly"``.
    tier: ClassVar[str] = "cheap"
    #: Whether it takes the adversary's small clean set.
    needs_clean: ClassVar[bool] = False
    #: Whether it uses the published images; if not, it is trained once for clean and protected ones.
    uses_published: ClassVar[bool] = True
    #: Whether it starts from a trained victim (``finish``, ``pick``), so that nothing is trained from scratch.
    after_training: ClassVar[bool] = False

    def spec(self) -> dict[str, Any]:
        """Name and settings as plain values, for the report."""
        return {"name": self.name, **(asdict(self) if is_dataclass(self) else {})}

    def without_effect(self, cases: Cases) -> str | None:
        """Why it changes nothing, or cannot be applied, on images like these; None where it can.

        Args:
            cases: the training set; only shapes, task and view matter.
        """
        return None

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        """Change one image, the same way each time; applied to training and test images.

        Args:
            image: ``(channel, *spatial)``, stored units; left as it is.
            window: the intensity window; networks do not see what lies outside.

        Returns:
            An array of the same shape and type, stored units.
        """
        return image

    def filter_cases(self, cases: Cases) -> Cases:
        """The cases with the filter on each image."""
        pairs = zip(cases.images, cases.windows, strict=True)
        return replace(cases, images=[self.filter(image, window) for image, window in pairs])

    def prepare(self, cases: Cases, resources: Resources) -> Cases:
        """Change a training set before training; by default each image by ``filter``.

        Args:
            cases: the published training set; left as it is.
            resources: what else the adversary has.

        Returns:
            The set to train on; its images may be of another type (float32) and its labels other ones.
        """
        return self.filter_cases(cases)

    def augment(self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """Change a batch at random.

        Args:
            inputs: ``(batch, channel, *spatial)``, float32, normalised to [0, 1], on the CPU.
            targets: labels ``(batch,)``, ``(batch, label)`` or ``(batch, *spatial)``.
            generator: source of randomness, on the CPU.

        Returns:
            Inputs and targets of the same shapes.
        """
        return inputs, targets

    def step(
        self, trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Train on one batch, whose parts are those of ``augment``.

        Returns:
            The batch's error before the step, a scalar in [0, 1].
        """
        return trainer.step(*self.augment(inputs, targets, generator))

    def finish(self, trainer: Trainer, resources: Resources) -> None:
        """Change a trained network; nothing by default."""

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        """Choose the epoch whose network counts; the last by default.

        Args:
            held_out: after each epoch, the score on images held out of the published ones.
            held_out_clean: the same on a small clean set, for countermeasures with ``needs_clean``.

        Returns:
            Index of the epoch.
        """
        return -1


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Refuse a setting out of range.

    Raises:
        ValueError: naming the setting, the range and the value.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
