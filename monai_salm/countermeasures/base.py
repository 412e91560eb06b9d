"""What every countermeasure is: something an adversary does to images, batches or networks to learn in spite of the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.learning.cases import Cases
from monai_salm.learning.trainer import Trainer
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True)
class Means:
    """What an adversary has beside the published images.

    Args:
        known: a small clean, labelled set of images that no victim trains on as published; only countermeasures with
            ``needs_clean`` may touch it.
        train: trains the victim's architecture from fresh weights on a set, by the victim's recipe and number of steps.
        seed: of everything random.
    """

    known: Cases
    train: Callable[[Cases], Trainer]
    seed: int

    def generator(self) -> torch.Generator:
        """A fresh source of randomness on the CPU."""
        return torch.Generator().manual_seed(self.seed)


class Countermeasure:
    """Ordinary training with a difference; this class is ordinary training itself.

    A subclass is a frozen keyword-only dataclass of settings, and overrides the one method at which it differs. It holds no
    state: one instance serves every victim.
    """

    #: Name in the registry, in reports and on the command line.
    name: ClassVar[str] = "none"
    #: ``"cheap"`` if it costs at most one ordinary training, else ``"costly"``.
    tier: ClassVar[str] = "cheap"
    #: Whether it takes the adversary's small clean set.
    needs_clean: ClassVar[bool] = False
    #: Whether it looks at the published images at all; if not, it is trained once for clean and protected ones.
    uses_published: ClassVar[bool] = True
    #: Whether it starts from what ordinary training gave (``finish``, ``pick``), so that nothing is trained from scratch.
    after_training: ClassVar[bool] = False

    def spec(self) -> dict[str, Any]:
        """Name and settings as plain values, for the report."""
        return {"name": self.name, **(asdict(self) if is_dataclass(self) else {})}

    def without_effect(self, cases: Cases) -> str | None:
        """Why it changes nothing, or cannot be applied, on images like these; None where it can.

        Args:
            cases: the training set, whose images need not be read: only shapes, task and view matter.
        """
        return None

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        """Change one image, the same way each time; done to the images trained on and to those met later.

        Args:
            image: ``(channel, *spatial)``, stored units; left as it is.
            window: the intensity window; what lies outside may be clipped, since networks do not see it.

        Returns:
            An array of the same shape and type, stored units.
        """
        return image

    def prepare(self, cases: Cases, means: Means) -> Cases:
        """Change a training set before training; by default each image by ``filter``.

        Args:
            cases: the published training set; left as it is.
            means: what else the adversary has.

        Returns:
            The set to train on; its images may be of another type (float32) and its labels other ones.
        """
        pairs = zip(cases.images, cases.windows, strict=True)
        return replace(cases, images=[self.filter(image, window) for image, window in pairs])

    def augment(
        self, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
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
        """Train on one batch.

        Args:
            trainer: the network in training.
            inputs: as for ``augment``.
            targets: as for ``augment``.
            generator: source of randomness, on the CPU.

        Returns:
            The batch's error before the step, a scalar in [0, 1].
        """
        return trainer.step(*self.augment(inputs, targets, generator))

    def finish(self, trainer: Trainer, means: Means) -> None:
        """Change a network that is trained; nothing by default.

        Args:
            trainer: holds the network.
            means: what else the adversary has.
        """

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        """Choose the epoch whose network is kept; the last by default.

        Args:
            held_out: after each epoch, the score on images held out of the published ones.
            held_out_clean: the same on a small clean set, which only countermeasures with ``needs_clean`` may look at.

        Returns:
            Index of the epoch.
        """
        return -1


def shown(image: Array, window: IntensityWindow) -> tuple[NDArray[np.float64], Array, Array]:
    """What networks see of an image, still in stored units: clipped to the window of each channel, NaN at its low end.

    Args:
        image: ``(channel, *spatial)``, stored units.
        window: of the image.

    Returns:
        The values, and the low end and the width of the window, shaped to be added to them and multiplied with them.
    """
    low, high = window.bounds(len(image), image.ndim - 1)
    values = np.asarray(image, np.float64)
    values = np.clip(np.where(np.isnan(values), low, values), low, high)
    return values, low, high - low


def to_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Bring computed intensities back to the stored type: rounded and clipped for integers, cast for floats.

    Args:
        values: stored units, any shape.
        dtype: the stored type.
    """
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    stored: Array = values.astype(dtype)
    return stored
