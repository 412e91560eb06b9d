"""Training on the small clean set alone: what an adversary has without the published images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from monai_salm.countermeasures.base import Countermeasure, Means
from monai_salm.learning.cases import Cases


@dataclass(frozen=True, kw_only=True)
class CleanSubset(Countermeasure):
    """Leave the published images aside: a countermeasure that scores no higher has gained nothing from them."""

    name: ClassVar[str] = "clean_subset"
    needs_clean: ClassVar[bool] = True
    uses_published: ClassVar[bool] = False

    def prepare(self, cases: Cases, means: Means) -> Cases:
        return means.known
