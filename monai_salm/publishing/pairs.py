"""A data set and its protected copy, opened to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_salm.layouts import TRAIN, CaseSequence, Layout, open_layout
from monai_salm.publishing.checks import PathLike
from monai_salm.publishing.manifest import read_manifest


def open_pair(source: PathLike, output: PathLike, layout: str | None = None) -> tuple[Layout, Layout, dict[str, Any]]:
    """Open an original and its protected copy.

    Args:
        source: the original data set.
        output: its protected copy.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.

    Returns:
        The original, the copy, and the copy's public manifest; that is empty for a copy which was not written by ``publish``.

    Raises:
        ValueError: if the original is a protected copy itself.
        LayoutError, FormatError, OSError: if one of them cannot be read.
    """
    clean = open_layout(source, layout)
    if read_manifest(clean):
        raise ValueError(f"{source} is a protected copy, by its manifest: give the original first, then the copy")
    published = clean.reopen(Path(output))
    return clean, published, read_manifest(published)


def clean_test_cases(source: PathLike, layout: str | None = None) -> CaseSequence:
    """The clean cases of a data set to test on: its test split if that has labels, else its training split.

    Args:
        source: the data set.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.

    Raises:
        ValueError: if that split has no labels, or was protected.
        LayoutError, FormatError, OSError: if the data set cannot be read.
    """
    data = open_layout(source, layout)
    split = "test" if "test" in data.splits and data.has_labels("test") else TRAIN
    if split in read_manifest(data).get("splits", ()):
        raise ValueError(f"{data.root} is a protected copy, and its {split} split is protected; test on clean images")
    if not data.has_labels(split):
        raise ValueError(f"{data.root} has no labelled cases to test on")
    return data.dataset(split)
