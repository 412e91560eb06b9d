"""Dataset layouts: one module a layout. A new one is a new file and one line in ``LAYOUTS``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from monai_salm.formats import FORMATS, find_format
from monai_salm.layouts.base import Case, CaseSequence, Layout
from monai_salm.layouts.bids import Bids
from monai_salm.layouts.csv_labels import CsvLabels
from monai_salm.layouts.datalist import Datalist, Decathlon
from monai_salm.layouts.dicom_tree import DicomTree
from monai_salm.layouts.files import TRAIN, LayoutError, has_image_name, is_file, is_hidden, some_files
from monai_salm.layouts.folder import FolderLayout
from monai_salm.layouts.image_folder import ImageFolder
from monai_salm.layouts.mask_folder import MaskFolder
from monai_salm.layouts.medmnist import MedMNIST
from monai_salm.layouts.nnunet import NnUNet
from monai_salm.layouts.patterns import ARROW, split_patterns
from monai_salm.layouts.reading import json_or_nothing

#: Those that say most about themselves first. All are asked by ``detect``.
LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (MedMNIST, Bids, NnUNet, Decathlon, Datalist, CsvLabels, DicomTree, MaskFolder, ImageFolder)
}
#: Where protected copies have their manifests, relative to the folder.
MANIFESTS = {layout.manifest for layout in LAYOUTS.values()} - {""}


def detect(path: str | os.PathLike[str]) -> Layout:
    """Open a data set whose layout is found out from its files.

    Args:
        path: a folder or a file.

    Raises:
        FileNotFoundError: if there is nothing.
        LayoutError: if no layout fits, or more than one, saying what each looks like; or if the data set is inconsistent.
        FormatError: if one of its files is damaged.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist")
    noted = _noted(place)
    if noted is not None:
        return open_layout(place, noted)
    reasons = {name: layout.misfit(place) for name, layout in LAYOUTS.items()}
    found = [LAYOUTS[name] for name, why in reasons.items() if why is None]
    covered = {name for layout in found for name in layout.specialises}
    candidates = [layout for layout in found if layout.name not in covered]
    if not candidates:
        raise LayoutError(f"{place} {_what_is_lacking(place, reasons)}")
    if len(candidates) > 1:
        what = "; ".join(f"{layout.name}: {layout.description}" for layout in candidates)
        raise LayoutError(f"{place} looks like several layouts ({what}). Say which it is with layout= (--layout)")
    odd = CsvLabels.table_misfit(place) if candidates[0] is ImageFolder else None
    if odd is not None:
        raise LayoutError(
            f"{odd}. The table is not understood, and labels may stand there: correct it or take it out of the folder. If the "
            "folders of images are the classes, say layout='image_folder' (--layout image_folder)"
        )
    data = candidates[0].open(place)
    if data.doubt is not None:
        raise LayoutError(data.doubt)
    return data


def _noted(place: Path) -> str | None:
    """The layout that the manifest of a protected copy names: the copy may lack files that tell the layout."""
    for path in (place / name for name in MANIFESTS if is_file(place / name)):
        noted = json_or_nothing(path).get("layout")
        return noted if isinstance(noted, str) and (noted in LAYOUTS or ARROW in noted) else None
    return None


def _what_is_lacking(place: Path, found: Mapping[str, str | None]) -> str:
    """Why a place has no layout: what speaks for each layout and is not right, or what a beginner's folder lacks."""
    asked = {name: why or LAYOUTS[name].advice(place) for name, why in found.items()}
    reasons = [f"As {name}: {why}" for name, why in asked.items() if why]
    if reasons:
        return f"has no layout this version knows. {'. '.join(reasons)}. docs/layouts.md shows all layouts"
    inside = [path for path in place.iterdir() if not is_hidden(path.name)] if place.is_dir() else []
    if place.is_dir() and not inside:
        return "is an empty folder"
    if any(path.is_file() and find_format(path) for path in inside):
        return (
            "holds images, but nothing says what class they are of: put them into a folder for each class, or beside them "
            "a CSV with a column of file names and one of labels. If it has another layout (docs/layouts.md), name it "
            "with layout= (--layout)"
        )
    files = list(some_files(place)) if place.is_dir() else []
    if files and not any(map(has_image_name, files)):
        kinds = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
        shown = ", ".join(f"{count} with {kind}" for kind, count in kinds.most_common(4))
        known = ", ".join(suffix for format_ in FORMATS.values() for suffix in format_.suffixes)
        return f"has no image in a format that is read ({known}). The files that were looked at: {shown}. Convert them"
    known = "; ".join(f"{name}: {layout.description}" for name, layout in LAYOUTS.items())
    return f"has no layout this version knows ({known}). Name it with layout= (--layout) if it is one of these"


def open_layout(path: str | os.PathLike[str], layout: str | None = None) -> Layout:
    """Open a data set.

    Args:
        path: a folder or a file.
        layout: a name of ``LAYOUTS``; or two patterns, ``"*/imaging.nii.gz -> */segmentation.nii.gz"``, which tell images and
            label maps (``patterns``); None finds it out.

    Raises:
        ValueError: for an unknown layout name.
        FileNotFoundError, LayoutError, FormatError: as for ``detect``.
    """
    if layout is None:
        return detect(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    patterns = split_patterns(layout)
    if patterns is not None:
        return MaskFolder(Path(path), patterns)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout].open(Path(path))


__all__ = [
    "LAYOUTS",
    "MANIFESTS",
    "TRAIN",
    "Case",
    "CaseSequence",
    "FolderLayout",
    "Layout",
    "LayoutError",
    "MedMNIST",
    "detect",
    "open_layout",
]
