"""File names of the Brain Imaging Data Structure: ``sub-01_ses-2_acq-low_T1w.nii.gz``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from monai_salm.layouts.images import has_image_name, stem

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_SUBJECT_FOLDER = re.compile(r"sub-[a-zA-Z0-9+]+")
_DERIVATIVES = "derivatives"
# What a derivative's name may add to that of the image it was made from.
_ADDED = {"space", "res", "den", "desc", "label", "atlas", "seg", "hemi"}
#: Suffixes of label maps.
SEGMENTATIONS = ("dseg", "mask")


@dataclass(frozen=True)
class BidsName:
    """A BIDS image file, taken apart.

    Args:
        file: relative to the data set's root.
        pipeline: the folder below ``derivatives``; empty for a raw file.
        entities: ``{"sub": "01", ...}``.
        suffix: ``T1w``, ``dseg``, ...
    """

    file: str
    pipeline: str
    entities: dict[str, str]
    suffix: str

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a label map that may be learnt; a brain mask only tells where the brain is."""
        return self.suffix in SEGMENTATIONS and self.entities.get("desc") != "brain"

    @property
    def kind(self) -> str:
        """What segmentations of several subjects have in common, as in ``manual: label-lesion_mask``."""
        added = "_".join(f"{key}-{value}" for key, value in self.entities.items() if key in _ADDED)
        where = self.pipeline or "raw"
        return f"{where}: {added}_{self.suffix}" if added else f"{where}: {self.suffix}"

    def segments(self, image: BidsName) -> bool:
        """Whether this is a segmentation on the grid of a raw image, by its name."""
        own = {key: value for key, value in self.entities.items() if key not in _ADDED}
        spaces = (None, "orig", "individual", "native", image.suffix, image.entities.get("space"))
        shared = {key: value for key, value in image.entities.items() if key in own or key in ("sub", "ses", "run")}
        return own == shared and self.entities.get("space") in spaces


def parse_name(file: str) -> BidsName | None:
    """Take the path of an image apart; None for one that is not of a subject or not named as BIDS asks.

    Args:
        file: relative to the data set's root.
    """
    parts = PurePosixPath(file).parts
    pipeline = ""
    if parts[0] == _DERIVATIVES and len(parts) > 2:
        # A single pipeline may stand in "derivatives" itself.
        pipeline, parts = ("derivatives", parts[1:]) if _SUBJECT_FOLDER.fullmatch(parts[1]) else (parts[1], parts[2:])
    if len(parts) < 2 or not _SUBJECT_FOLDER.fullmatch(parts[0]) or not has_image_name(file):
        return None
    *pairs, suffix = stem(file).split("_")
    matches = [_ENTITY.fullmatch(pair) for pair in pairs]
    entities = {match[1]: match[2] for match in matches if match is not None}
    if len(entities) != len(pairs) or not suffix.isalnum() or f"sub-{entities.get('sub')}" != parts[0]:
        return None
    return BidsName(file, pipeline, entities, suffix)
