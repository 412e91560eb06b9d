"""What an adversary would try; a new countermeasure is one file here and one entry in ``COUNTERMEASURES``."""

from __future__ import annotations

from monai_salm.countermeasures.adversarial_training import AdversarialTraining
from monai_salm.countermeasures.base import Countermeasure, Means
from monai_salm.countermeasures.bit_depth import BitDepth
from monai_salm.countermeasures.blur import Blur
from monai_salm.countermeasures.clean_subset import CleanSubset
from monai_salm.countermeasures.cutmix import CutMix
from monai_salm.countermeasures.cutout import Cutout
from monai_salm.countermeasures.early_stopping import EarlyStopping, EarlyStoppingClean
from monai_salm.countermeasures.flips_shifts import FlipsShifts
from monai_salm.countermeasures.gamma import Gamma
from monai_salm.countermeasures.grayscale import Grayscale
from monai_salm.countermeasures.jpeg import Jpeg
from monai_salm.countermeasures.last_layer import LastLayer
from monai_salm.countermeasures.median import Median
from monai_salm.countermeasures.mixup import Mixup
from monai_salm.countermeasures.orthogonal_projection import OrthogonalProjection
from monai_salm.countermeasures.rand_augment import RandAugment
from monai_salm.countermeasures.resample import Resample
from monai_salm.countermeasures.self_training import SelfTraining
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
    "Means",
    "Median",
    "Mixup",
    "OrthogonalProjection",
    "RandAugment",
    "Resample",
    "SelfTraining",
    "UEraser",
]
