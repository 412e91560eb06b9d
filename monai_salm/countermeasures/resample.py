"""Fewer voxels for a moment, too few to hold fine noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.countermeasures.base import Countermeasure, shown, to_stored
from monai_salm.learning.cases import View
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Resample(Countermeasure):
    """Clip to the window, shrink with averaging and enlarge linearly to the old size.

    What images go through in a pipeline that works at a coarser spacing. As a defence against adversarial noise,
    rescaling by a random factor is from Xie, Wang, Zhang, Ren, Yuille 2018 ("Mitigating Adversarial Effects Through
    Randomization").

    Args:
        factor: small side / large side, in (0, 1); small sides are whole numbers, rounded down and at least 1.
    """

    name: ClassVar[str] = "resample"
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be in (0, 1), got {self.factor}")

    def filter(self, image: Array, window: IntensityWindow) -> Array:
        values = torch.from_numpy(shown(image, window)[0])[None]
        small = tuple(max(1, int(n * self.factor)) for n in image.shape[1:])
        for size in (small, image.shape[1:]):
            values = View("resize", size).resize(values)
        return to_stored(values[0].numpy(), image.dtype)
