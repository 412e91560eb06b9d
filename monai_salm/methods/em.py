"""EM: error-minimising noise on all elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monai_salm.methods.base import BilevelMethod


@dataclass(frozen=True, kw_only=True)
class EM(BilevelMethod):
    """Error-minimising noise (Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021).

    SALM's loop with the mask ``Everything()``. Takes the settings of ``BilevelMethod``, with the defaults of the published code:
    steps of a tenth of epsilon (0.8/255 at 8/255), one surrogate throughout, and an end at a training error of 1 %. Where
    that error is never reached, the loop ends after 50 rounds, which is our choice. A round of volumes takes longer: give fewer.
    """

    stop_error: float = 0.01
    rounds: int = 50
    name: ClassVar[str] = "em"
