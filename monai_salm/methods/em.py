"""EM: error-minimising noise on all elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.methods.bilevel import BilevelMethod


@dataclass(frozen=True, kw_only=True)
class EM(BilevelMethod):
    """Error-minimising noise (Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021).

    Takes the settings of ``BilevelMethod``, with the defaults of the published code: steps of a tenth of epsilon
    (0.8/255 at 8/255), one surrogate throughout, and an end at a training error of 1 %. Our cap on the rounds, should that
    never come: 50 for images, 20 for volumes. On SALM's schedule, for comparison, it is ``EM(step_size=8/255, num_steps=4,
    surrogate_steps=45, restart_every=1, stop_error=None, rounds=22)``.
    """

    num_steps: int = 20
    surrogate_steps: int = 10
    restart_every: int = 0
    stop_error: float | None = 0.01
    name: ClassVar[str] = "em"
    default_rounds: ClassVar[dict[int, int]] = {2: 50, 3: 20}
    default_steps: ClassVar[int] = 10

    def choose(self, gradient: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> None:
        return None
