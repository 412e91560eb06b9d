"""The interface of every countermeasure: what an adversary does to images, batches or networks to learn in spite of the noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

from torch import Generator, Tensor

from monai_salm.learning.augmentation import Batch
from monai_salm.learning.cases import Cases
from monai_salm.learning.trainer import Trainer
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array
from monai_salm.shared.settings import require as require


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

    def generator(self) -> Generator:
        """A fresh source of randomness on the CPU."""
        return Generator().manual_seed(self.seed)


class Limited:
    """Base of dataclasses whose settings have limits: ``field(default=0.5, metadata={"in": "(0, 1]"})``."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a setting out of range."""
        for item in fields(self):  # type: ignore[arg-type]
            if "in" in item.metadata:
                interval, value = item.metadata["in"], getattr(self, item.name)
                low, high = (float(end) for end in interval[1:-1].split(","))
                inside = (low <= value if interval[0] == "[" else low < value) and (
                    value <= high if interval[-1] == "]" else value < high
                )
                words = f"at least {low:g}" if interval[0] == "[" else "positive"
                require(inside, item.name, f"in {interval}" if high < math.inf else words, value)


class Countermeasure(Limited):
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
        """Why it changes nothing, or cannot be applied, to images of these shapes, task and view; None where it can."""
        return None

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        """Change one image ``(channel, *spatial)`` of training or test, the same way each time; stored units, shape and type stay.

        Networks do not see what lies outside the window.
        """
        return image

    def filter_cases(self, cases: Cases) -> Cases:
        """The cases with the filter on each image."""
        pairs = zip(cases.images, cases.windows, strict=True)
        return replace(cases, images=[self.filter(image, window) for image, window in pairs])

    def prepare(self, cases: Cases, resources: Resources) -> Cases:
        """The set to train on, of the published one; by default each image by ``filter``.

        Its images may be of another type (float32), and its labels other ones.
        """
        return self.filter_cases(cases)

    def augment(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        """Change a batch at random; shapes stay.

        Inputs are ``(batch, channel, *spatial)``, float32 in [0, 1]; targets ``(batch,)``, ``(batch, label)`` or
        ``(batch, *spatial)``. Both and the generator are on the CPU.
        """
        return inputs, targets

    def step(self, trainer: Trainer, inputs: Tensor, targets: Tensor, generator: Generator) -> Tensor:
        """Train on one batch as ``augment`` takes it; gives the batch's error before the step, a scalar in [0, 1]."""
        return trainer.step(*self.augment(inputs, targets, generator))

    def finish(self, trainer: Trainer, resources: Resources) -> None:
        """Change a trained network; nothing by default."""

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        """Index of the epoch whose network counts; the last by default.

        Both have a score for each epoch: on images held out of the published ones, and on the small clean set.
        """
        return -1
