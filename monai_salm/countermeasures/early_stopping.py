"""Stopping early: noise is learned before anatomy, but not always before all of it (Huang et al. 2021, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monai_salm.countermeasures.base import Countermeasure


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Countermeasure):
    """Take the epoch that is best on held-out images, as published: what anyone can do."""

    name: ClassVar[str] = "early_stopping"
    after_training: ClassVar[bool] = True

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        return best_epoch(held_out)


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingClean(Countermeasure):
    """Take the epoch that is best on a small clean set, for whoever has one."""

    name: ClassVar[str] = "early_stopping_clean"
    after_training: ClassVar[bool] = True
    needs_clean: ClassVar[bool] = True

    def pick(self, held_out: Sequence[float], held_out_clean: Sequence[float]) -> int:
        return best_epoch(held_out_clean)


def best_epoch(scores: Sequence[float]) -> int:
    """Index of the first of the highest scores; the last index if none is a number.

    Args:
        scores: one an epoch.
    """
    values = np.asarray(scores, np.float64)
    return len(values) - 1 if np.isnan(values).all() else int(np.nanargmax(values))
