"""The labels and splits that the rows of a table give, whatever it is that a row is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.classes import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MASK_COLUMNS,
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
    Cell,
    ClassNumbers,
    class_numbers,
    find_column,
    is_nothing,
    split_named,
    yes_or_no,
)
from monai_salm.layouts.reading import Row, Table

# A patient's data and what only names something; no labels, even if they happen to be zeros and ones.
_ASIDE = (*IMAGE_COLUMNS, *SPLIT_COLUMNS, *PATIENT_COLUMNS)

# What chest X-ray tables write for "uncertain".
_UNCERTAIN = ("-1", "-1.0")


@dataclass(frozen=True)
class LabelledRow:
    """A row of a table, and the split that it is of."""

    table: Table
    row: Row
    split: str

    def cell(self, column: str) -> Cell:
        """What the row says in a column; nothing where its table has no such column."""
        return Cell(self.row.values.get(column, ""), self.table.where(self.row, column))


def require_column(table: Table, asked: str | None, names: Sequence[str], what: str) -> str:
    """The column that was asked for, or else that bears one of some names.

    Raises:
        LayoutError: if there is none.
    """
    columns = ", ".join(table.columns)
    if asked is not None and asked not in table.columns:
        raise LayoutError(f"{table.path} has no column {asked!r}; its columns are {columns}")
    found = asked or find_column(table.columns, names)
    if found is None:
        raise LayoutError(
            f"{table.path} has no column of {what} ({', '.join(names[:5])}, ...); its columns are {columns}"
        )
    return found


def split_of(table: Table, row: Row, column: str) -> str:
    """The split that a row says.

    Raises:
        LayoutError: if the column is missing or says something else.
    """
    if column not in row.values:
        raise LayoutError(f"{table.path} has no column {column!r}; its columns are {', '.join(table.columns)}")
    split = split_named(row.values[column])
    if split is None:
        raise LayoutError(f"{table.where(row, column)}: {row.values[column]!r} is no split; write train, val or test")
    return split


def label_columns(rows: Sequence[LabelledRow], asked: Sequence[str], aside: Sequence[str | None]) -> tuple[str, ...]:
    """The columns that hold labels: those asked for, one of a usual name, or all of zeros and ones.

    Args:
        rows: at least one.
        asked: names of columns; none lets their names and contents tell.
        aside: columns that hold something else.

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


def _is_open(row: LabelledRow, columns: Sequence[str]) -> bool:
    """Whether a row leaves one of several labels open."""
    return any(is_nothing(text) or text in _UNCERTAIN for text in (row.cell(name).text for name in columns))


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
    known = [vector for vector in vectors if vector is not None]
    open_ = [row for row, vector in zip(rows, vectors, strict=True) if vector is not None and _is_open(row, columns)]
    if not open_ and all(sum(vector) == 1 for vector in known):
        return ClassNumbers([None if vector is None else vector.index(1) for vector in vectors], tuple(columns))
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
