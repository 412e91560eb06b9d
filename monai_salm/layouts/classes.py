"""Words that data sets use: names of splits and of columns, and class names, which become numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monai_salm.layouts.base import LayoutError

_SPLITS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "ts", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}

IMAGE_COLUMNS = (
    "image", "image_path", "img", "img_path", "file", "filename", "file_name", "filepath", "file_path", "path",
    "image_file", "image_name", "image_index", "image_id", "img_id", "id_code", "id", "name",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "class_id", "target", "diagnosis", "dx", "category", "finding",
    "finding_labels", "findings", "pathology", "level", "grade", "group", "condition", "y",
)  # fmt: skip
MASK_COLUMNS = ("mask", "mask_path", "mask_file", "segmentation", "segmentation_path", "label_path", "label_file")
# Answers of yes and no about the patient, which are no labels.
PATIENT_COLUMNS = (
    "sex", "gender", "male", "female", "smoker", "smoking", "age", "fold", "patient", "patient_id", "is_train",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "dataset_split", "data_split", "usage")
# Cells that say that nothing is known.
_NOTHING = ("", "n/a", "na", "nan", "none", "null")
#: Largest class number: any more is an identifier in the wrong column.
MAX_CLASS = 65_535
# A small data set may have a class for nearly every image; a large one that does has names in that column.
_FEW_CLASSES = 20


@dataclass(frozen=True)
class Cell:
    """The text of a cell of a table, and where it stands, for messages."""

    text: str
    where: str


@dataclass(frozen=True)
class ClassNumbers:
    """The label of each cell of a column (a class number, a vector of zeros and ones, or None), and the names of the classes."""

    labels: list[int | list[int] | None]
    names: tuple[str, ...]


def split_named(word: str) -> str | None:
    """``"train"``, ``"val"`` or ``"test"`` for a word that means it, else None."""
    return _SPLIT_OF.get(word.strip().lower())


def find_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column that bears one of the names, the earliest name first; case, blanks and hyphens do not matter."""
    plain = {_plain(column): column for column in columns}
    return next((plain[name] for name in names if name in plain), None)


def class_numbers(cells: Sequence[Cell]) -> ClassNumbers:
    """Turn a column of classes into numbers.

    Whole numbers from 0 are class numbers already. Anything else is text, numbered in its sorted order; text joined by
    ``|`` names several classes of one image.

    Raises:
        LayoutError: for negative, broken or huge numbers, naming the cell.
    """
    texts = [cell.text for cell in cells if not is_nothing(cell.text)]
    if texts and all(_number(text) is not None for text in texts):
        return ClassNumbers([_class_number(cell) for cell in cells], ())
    if any("|" in text for text in texts):
        parts = [None if is_nothing(cell.text) else {part.strip() for part in cell.text.split("|")} for cell in cells]
        known = tuple(sorted({name for found in parts if found is not None for name in found}))
        labels = [None if found is None else [int(name in found) for name in known] for found in parts]
        return ClassNumbers(list(labels), known)
    names = tuple(sorted(set(texts)))
    if len(names) > max(_FEW_CLASSES, len(texts) // 2):
        raise LayoutError(
            f"{cells[0].where}: the column has {len(names)} different texts for {len(texts)} images, too many for classes. Name the "
            "column of classes 'label'"
        )
    place = {name: index for index, name in enumerate(names)}
    return ClassNumbers([place.get(cell.text) for cell in cells], names)


def is_nothing(cell: str) -> bool:
    """Whether a cell says that nothing is known."""
    return cell.lower() in _NOTHING


def yes_or_no(cell: str) -> int | None:
    """0 or 1 for a cell that says so, as integers or as pandas writes floats."""
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cell)


def _class_number(cell: Cell) -> int | None:
    if is_nothing(cell.text):
        return None
    number = _number(cell.text)
    if number is None or number != int(number) or not 0 <= number <= MAX_CLASS:
        raise LayoutError(
            f"{cell.where}: {cell.text!r} is no class; classes are whole numbers from 0 to {MAX_CLASS}, or text"
        )
    return int(number)


def _number(text: str) -> float | None:
    if "_" in text:  # only Python takes 1_2 for a number
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")
