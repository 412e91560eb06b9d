"""The interface of every pipeline: how an ordinary trainer prepares and augments images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch

from monai_salm.countermeasures.base import Limited
from monai_salm.learning.augmentation import Batch
from monai_salm.learning.cases import Cases


@dataclass(frozen=True, kw_only=True)
class Pipeline(Limited):
    """Ordinary training; a subclass adds settings and overrides the hooks that differ.

    A pipeline holds no state: one instance serves every victim.
    """

    #: Name on the command line, and the setting that variants of one family add to it.
    family: ClassVar[str]
    varied: ClassVar[str] = ""
    #: Where the numbers come from.
    source: ClassVar[str]
    #: Ranks of the images it is for.
    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    @property
    def name(self) -> str:
        """Name in reports and on the command line."""
        return f"{self.family} {getattr(self, self.varied):g}" if self.varied else self.family

    @property
    def augments(self) -> bool:
        """Whether batches are changed at random, so that training takes longer."""
        return type(self).augment is not Pipeline.augment

    def spec(self) -> dict[str, Any]:
        """Name, settings and source as plain values, for the report."""
        return {"name": self.name, **asdict(self), "source": self.source}

    def prepare(self, cases: Cases) -> Cases:
        """The deterministic part, done once to the images trained on: cases at the resolution that networks see.

        Resampled images are float32 in [0, 1], with a window of 0 to 1; label maps go by nearest neighbours.
        """
        return cases

    def prepare_test(self, cases: Cases) -> Cases:
        """The deterministic part for test and held-out images, by default that of training; sets the resolution of scores."""
        return self.prepare(cases)

    def augment(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """The random part, done to each batch of training, as ``Countermeasure.augment``; images stay in [0, 1]."""
        return images, targets


@dataclass(frozen=True, kw_only=True)
class Plain(Pipeline):
    """Train on the images as they are."""

    family: ClassVar[str] = "plain"
    source: ClassVar[str] = "the images' intensity window, as MONAI's ScaleIntensityRange"
