"""EM: error-minimising noise on all elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from monai_salm.methods.bilevel import BilevelMethod


@dataclass(frozen=True, kw_only=True)
class EM(BilevelMethod):
    """Error-minimising noise (Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021).

    Takes the settings of ``BilevelMethod``. The published schedule is ``EM(step_size=0.8/255, num_steps=20,
    surrogate_steps=10, restart_every=0, stop_error=0.01)``. The defaults here are SALM's, for comparison at equal schedule:
    their steps, as long as the budget, suit a mask and leave EM far weaker than it can be (docs/experiments.md).
    """

    name: ClassVar[str] = "em"

    def choose(self, gradient: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> None:
        return None
