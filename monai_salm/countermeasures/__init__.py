"""What an adversary would try; a new countermeasure is one class here and one entry in ``COUNTERMEASURES``."""

from __future__ import annotations

from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.countermeasures.batches import CutMix, Cutout, FlipsShifts, Mixup, RandAugment
from monai_salm.countermeasures.filters import BitDepth, Blur, Gamma, Grayscale, Jpeg, Median, Resample
from monai_salm.countermeasures.last_layer import LastLayer
from monai_salm.countermeasures.orthogonal_projection import OrthogonalProjection
from monai_salm.countermeasures.self_supervised import SelfSupervised
from monai_salm.countermeasures.training import (
    AdversarialTraining,
    CleanSubset,
    EarlyStopping,
    EarlyStoppingClean,
    SelfTraining,
    best_epoch,
)
from monai_salm.countermeasures.ueraser import UEraser

# In the order of reports: ordinary training, filters of the images, changes of the batches, other ways of training, and what
# takes a small clean set.
_ALL: tuple[Countermeasure, ...] = (
    Countermeasure(),
    EarlyStopping(),
    Jpeg(),
    Grayscale(),
    BitDepth(),
    Blur(),
    Median(),
    Resample(),
    Gamma(),
    OrthogonalProjection(),
    FlipsShifts(),
    Cutout(),
    Mixup(),
    CutMix(),
    RandAugment(),
    UEraser(),
    AdversarialTraining(),
    SelfSupervised(),
    EarlyStoppingClean(),
    CleanSubset(),
    LastLayer(),
    SelfTraining(),
)

#: By name, with the settings that ``evaluate`` uses.
COUNTERMEASURES: dict[str, Countermeasure] = {item.name: item for item in _ALL}
#: Names of several: those that cost at most one ordinary training each, and all of them.
TIERS: dict[str, tuple[str, ...]] = {
    "cheap": tuple(item.name for item in _ALL if item.tier == "cheap"),
    "all": tuple(COUNTERMEASURES),
}

__all__ = [
    "COUNTERMEASURES",
    "TIERS",
    "AdversarialTraining",
    "BitDepth",
    "Blur",
    "CleanSubset",
    "Countermeasure",
    "CutMix",
    "Cutout",
    "EarlyStopping",
    "EarlyStoppingClean",
    "FlipsShifts",
    "Gamma",
    "Grayscale",
    "Jpeg",
    "LastLayer",
    "Median",
    "Mixup",
    "OrthogonalProjection",
    "RandAugment",
    "Resample",
    "Resources",
    "SelfSupervised",
    "SelfTraining",
    "UEraser",
    "best_epoch",
]
