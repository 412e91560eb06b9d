"""Labels, splits and columns of tables: the words that data sets use for them, and class names, which become numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.images import stem
from monai_salm.layouts.reading import Row, Table, headers_in, read_table, with_relative_paths

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
# A patient's data and what only names something; no labels, even if they happen to be zeros and ones.
_ASIDE = (*IMAGE_COLUMNS, *SPLIT_COLUMNS, *PATIENT_COLUMNS)

_KEY_COLUMNS = (*IMAGE_COLUMNS, "patient", "patient_id", "subject", "subject_id", "case", "case_id")
# Chest X-ray tables write this for "uncertain".
_UNCERTAIN = ("-1", "-1.0")


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


@dataclass(frozen=True)
class LabelledRow:
    """A row of a table, and the split that it is of."""

    table: Table
    row: Row
    split: str

    def cell(self, column: str) -> Cell:
        """The cell of the row in a column; empty where its table has no such column."""
        return Cell(self.row.values.get(column, ""), self.table.where(self.row, column))


def require_column(table: Table, asked: str | None, names: Sequence[str], what: str) -> str:
    """The column that was asked for, or else that has one of some names; an error if there is none."""
    columns = ", ".join(table.columns)
    if asked is not None and asked not in table.columns:
        raise LayoutError(f"{table.path} has no column {asked!r}; its columns are {columns}")
    found = asked or find_column(table.columns, names)
    if found is None:
        lacks = f"no column of {what} ({', '.join(names[:5])}, ...)"
        raise LayoutError(f"{table.path} has {lacks}; its columns are {columns}")
    return found


def split_of(table: Table, row: Row, column: str) -> str:
    """The split that a row says; an error for any other word."""
    if column not in row.values:
        raise LayoutError(f"{table.path} has no column {column!r}; its columns are {', '.join(table.columns)}")
    split = split_named(row.values[column])
    if split is None:
        raise LayoutError(f"{table.where(row, column)}: {row.values[column]!r} is no split; write train, val or test")
    return split


def label_columns(rows: Sequence[LabelledRow], asked: Sequence[str], aside: Sequence[str | None]) -> tuple[str, ...]:
    """The columns that hold labels: those asked for, one of a usual name, or all of zeros and ones but those ``aside``.

    Raises:
        LayoutError: if there are none.
    """
    training = [row for row in rows if row.split == TRAIN] or list(rows)
    table = training[0].table
    if asked:
        return tuple(require_column(table, name, (), "labels") for name in asked)
    single = find_column(table.columns, LABEL_COLUMNS) or find_column(table.columns, MASK_COLUMNS)
    if single is not None:
        return (single,)
    others = [name for name in table.columns if name not in aside and find_column([name], _ASIDE) is None]
    candidates = [name for name in others if _may_answer([row.cell(name).text for row in training])]
    # A row that answers nothing is an image without labels, not a reason to take the columns for something else.
    told = [row for row in training if not all(is_nothing(row.cell(name).text) for name in candidates)]
    sure = [name for name in candidates if all(yes_or_no(row.cell(name).text) is not None for row in told)]
    answers = candidates if len(candidates) > 1 else sure
    if not answers:
        raise LayoutError(
            f"{table.path} has no column of labels ({', '.join(LABEL_COLUMNS[:5])}, ...) and no columns of zeros and ones alone; its "
            f"columns are {', '.join(table.columns)}. Name the column of classes 'label'"
        )
    return tuple(answers)


def _may_answer(texts: Sequence[str]) -> bool:
    """Whether a column holds zeros and ones, and nothing else but -1 and empty cells."""
    known = [text for text in texts if not is_nothing(text)]
    return bool(known) and all(yes_or_no(text) is not None or text in _UNCERTAIN for text in known)


def labels_of(rows: Sequence[LabelledRow], columns: Sequence[str]) -> ClassNumbers:
    """The labels of rows: of one column its classes; of several a class number if each row has one 1, else vectors.

    Among several columns, an empty cell and -1 ("not mentioned" and "uncertain" of chest X-rays) count as 0, and the labels
    are vectors then.

    Raises:
        LayoutError: for a cell that is no label.
    """
    if len(columns) == 1:
        return class_numbers([row.cell(columns[0]) for row in rows])
    vectors = [_answers(row, columns) for row in rows]
    cells = (row.cell(name).text for row, vector in zip(rows, vectors, strict=True) if vector for name in columns)
    unsure = any(is_nothing(text) or text in _UNCERTAIN for text in cells)
    if not unsure and all(sum(vector) == 1 for vector in vectors if vector):
        return ClassNumbers([vector.index(1) if vector else None for vector in vectors], tuple(columns))
    return ClassNumbers(list(vectors), tuple(columns))


def _answers(row: LabelledRow, columns: Sequence[str]) -> list[int] | None:
    cells = [row.cell(name) for name in columns]
    if all(is_nothing(cell.text) for cell in cells):
        return None
    result = []
    for cell in cells:
        answer = 0 if is_nothing(cell.text) or cell.text in _UNCERTAIN else yes_or_no(cell.text)
        if answer is None:
            raise LayoutError(
                f"{cell.where}: {cell.text!r} is no answer. Write 0 or 1; an empty cell and -1 count as 0"
            )
        result.append(answer)
    return result


@dataclass(frozen=True)
class SplitTable:
    """A table that says which split each case is in, by the name of the case."""

    path: Path
    splits: dict[str, str]

    @classmethod
    def find(cls, root: Path, images: Sequence[str]) -> SplitTable | None:
        """The one table in a folder with a column of splits and a line for each case, given an image of each.

        Raises:
            LayoutError: if a table has a column of splits and a line for some images alone, or if there are two tables.
        """
        found = []
        for path, columns in headers_in(root):
            key, split = find_column(columns, _KEY_COLUMNS), find_column(columns, SPLIT_COLUMNS)
            if key is not None and split is not None:
                table = with_relative_paths(read_table(path))
                found.append(cls(path, {row.values[key]: split_of(table, row, split) for row in table.rows}))
        if not found:
            return None
        if len(found) > 1:
            raise LayoutError(f"{found[0].path} and {found[1].path.name} both have a column of splits; leave one there")
        missing = [image for image in images if found[0]._name(image) is None]
        if missing:
            raise LayoutError(f"{found[0].path} has a column of splits, but no line for {missing[0]}; add one")
        return found[0]

    def split_of(self, image: str) -> str:
        """The split of the case of an image."""
        return self.splits.get(self._name(image) or "", TRAIN)

    def _name(self, image: str) -> str | None:
        """The name of an image in the table: its path, its name, or a folder that it is in."""
        path = PurePosixPath(image)
        names = (path.as_posix(), path.name, stem(image), *reversed(path.parts[:-1]))
        return next((name for name in names if name in self.splits), None)
