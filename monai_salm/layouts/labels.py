"""Labels in tables: the columns that hold them, and class names, which become numbers."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from monai_salm.layouts.columns import IMAGE_COLUMNS, SPLIT_COLUMNS, find_column, is_nothing, require_column, says_split
from monai_salm.layouts.files import TRAIN, LayoutError
from monai_salm.layouts.reading import Cell, Row
from monai_salm.shared.warn import warn

LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "class_id", "target", "diagnosis", "dx", "category", "finding",
    "finding_labels", "findings", "pathology", "level", "grade", "group", "condition", "y",
)  # fmt: skip
MASK_COLUMNS = ("mask", "mask_path", "mask_file", "segmentation", "segmentation_path", "label_path", "label_file")
# Answers of yes and no about the patient, which are no labels.
PATIENT_COLUMNS = (
    "sex", "gender", "male", "female", "smoker", "smoking", "age", "fold", "patient", "patient_id",
)  # fmt: skip
# Nothing is known, or the class of those without a finding.
_NO_FINDING = "none"
# What chest X-ray tables write for "uncertain", and 0 and 1, as pandas writes them, too.
_UNCERTAIN, _ANSWERS = ("-1", "-1.0"), {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
#: Largest class number: any more is an identifier in the wrong column.
MAX_CLASS = 65_535
# A small data set may have a class for nearly every image; a large one that does has names in that column.
_FEW_CLASSES = 20
# A name in a list that is written as text.
_QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
# A patient's data and what only names something; no labels, even if they happen to be zeros and ones.
_ASIDE = (*IMAGE_COLUMNS, *SPLIT_COLUMNS, *PATIENT_COLUMNS)

# Columns that come in pairs and say places and sizes in an image, in pixels.
_PLACES = (
    ("x", "y"), ("left", "top"), ("right", "bottom"), ("width", "height"), ("w", "h"), ("xmin", "ymin"), ("xmax", "ymax"),
    ("x_min", "y_min"), ("x_max", "y_max"), ("x1", "y1"), ("x2", "y2"), ("center_x", "center_y"), ("cx", "cy"), ("row", "col"),
)  # fmt: skip
# Fewer numbers than these say nothing about how often they repeat.
_MEASURED = 5


class ClassNumbers(NamedTuple):
    """The label of each cell of a column (a class number, a vector of zeros and ones, or None), and the names of the classes."""

    labels: list[int | list[int] | None]
    names: tuple[str, ...]


def class_numbers(cells: Sequence[Cell]) -> ClassNumbers:
    """Turn a column of classes into numbers.

    Whole numbers from 0 are class numbers already; a LayoutError names the cell of any other number, and a column of numbers
    that hardly ever repeat. Anything else is text, numbered in its sorted order; text joined by ``|`` and lists such as
    ``['a', 'b']`` name several classes of one image. Among other words, "none" is a class.
    """
    texts = [cell.text for cell in cells if not is_nothing(cell.text)]
    numbers = {text: _number(text) for text in texts}
    if texts and None not in numbers.values():
        _require_classes(cells[0].where, [number for text in texts if (number := numbers[text]) is not None])
        for text, where in cells:
            number = numbers.get(text) or 0
            if number != int(number) or not 0 <= number <= MAX_CLASS:
                raise LayoutError(f"{where}: {text!r} is no class; write a whole number from 0 to {MAX_CLASS}, or text")
        return ClassNumbers([None if (n := numbers.get(cell.text)) is None else int(n) for cell in cells], ())
    words = not any(number is not None for number in numbers.values())

    def is_missing(text: str) -> bool:
        return is_nothing(text) and not (texts and words and text.lower() == _NO_FINDING)

    told = [cell for cell in cells if not is_missing(cell.text)]
    several = _several_names(told)
    if several is not None:
        known = tuple(sorted({name for own in several for name in own}))
        _warn_of_case(cells[0].where, known)
        left = iter([int(name in own) for name in known] for own in several)
        return _of_vectors([None if is_missing(cell.text) else next(left) for cell in cells], known)
    texts = [cell.text for cell in told]
    names = tuple(sorted(set(texts)))
    if len(names) > max(_FEW_CLASSES, len(texts) // 2):
        raise LayoutError(
            f"{cells[0].where}: the column has {len(names)} different texts for {len(texts)} images, too many for classes. Name the "
            "column of classes 'label'"
        )
    _warn_of_case(cells[0].where if cells else "", names)
    _warn_of_joined(told, names)
    place = {name: index for index, name in enumerate(names)}
    return ClassNumbers([place.get(cell.text) for cell in cells], names)


def _require_classes(where: str, numbers: Sequence[float]) -> None:
    """Refuse numbers that hardly ever repeat, as measurements and coordinates do; those of classes lie close together."""
    known = sorted(set(numbers))
    rare = len(numbers) >= _MEASURED and len(known) > len(numbers) / 2 and known[-1] >= 2 * len(known)
    if rare or len(known) > max(_FEW_CLASSES, len(numbers) // 2):
        shown = ", ".join(f"{number:g}" for number in known[:3])
        raise LayoutError(
            f"{where}: the column has {len(known)} different numbers ({shown}, ...) for {len(numbers)} images, as measurements "
            "and coordinates have, and classes have not. Name the column of classes 'label', or write the class of each image there"
        )


def _warn_of_case(where: str, names: Iterable[str]) -> None:
    """Warn of two classes whose names differ in upper and lower case alone."""
    alike = defaultdict[str, list[str]](list)
    for name in names:
        alike[name.casefold()].append(name)
    for own in (own for own in alike.values() if len(own) > 1):
        warn(f"{where}: {' and '.join(map(repr, own))} count as {len(own)} classes; if they are one, write them alike")


def _warn_of_joined(cells: Sequence[Cell], names: Sequence[str]) -> None:
    """Warn of a class that names another one and more, as joined labels do."""
    for name, mark in ((name, mark) for name in names for mark in ";," if mark in name):
        part = next((part for part in map(str.strip, name.split(mark)) if part in names), None)
        if part is not None:
            where = next(cell.where for cell in cells if cell.text == name)
            warn(f"{where}: {name!r} and {part!r} count as two classes; if it means several labels, join them by |")
            return


def _several_names(cells: Sequence[Cell]) -> list[set[str]] | None:
    """The names in each cell where cells hold several: in lists as Python writes them, or joined by ``|``."""
    lists = [_listed(cell.text) for cell in cells]
    if any(lists) or any(text[:1] == "[" and text[-1:] == "]" and "," in text for text, _ in cells):
        for (text, where), found in zip(cells, lists, strict=True):
            if found is None:
                raise LayoutError(
                    f"{where}: {text!r} is in a column of lists, and is no list of names in quotes, such as ['a', 'b']. Write it so, "
                    "join the names by | (a|b), or make a column of zeros and ones of each name"
                )
        return [found or set() for found in lists]
    if any("|" in text for text, _ in cells):
        return [{part.strip() for part in text.split("|")} for text, _ in cells]
    return None


def _listed(text: str) -> set[str] | None:
    """The names in a list that Python or pandas wrote as text, such as ``['a', 'b']``; None for any other text."""
    if text[:1] + text[-1:] not in ("[]", "()", "{}") or _QUOTED.sub("", text[1:-1]).replace(",", "").strip():
        return None
    return {(one or other).strip() for one, other in _QUOTED.findall(text)}


def _of_vectors(vectors: Sequence[list[int] | None], names: tuple[str, ...]) -> ClassNumbers:
    """Class numbers if each vector has one 1, else the vectors."""
    if all(sum(vector) == 1 for vector in vectors if vector):
        return ClassNumbers([vector.index(1) if vector else None for vector in vectors], names)
    return ClassNumbers(list(vectors), names)


def _number(text: str) -> float | None:
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and "_" not in text:  # only Python takes 1_2 for a number
            return number
    return None


def label_columns(rows: Sequence[Row], asked: Sequence[str], aside: Sequence[str | None]) -> tuple[str, ...]:
    """The columns that hold labels: those asked for, one of a usual name, or all of zeros and ones but those ``aside``."""
    training = [row for row in rows if row.split == TRAIN] or list(rows)
    path, columns = training[0].path, training[0].values.keys()
    if asked:
        return tuple(require_column(path, columns, name) for name in asked)
    pairs = (tuple(find_column(columns, [name]) for name in pair) for pair in _PLACES)
    places = [name for pair in pairs if None not in pair for name in pair if name is not None]
    single = find_column([name for name in columns if name not in places], (*LABEL_COLUMNS, *MASK_COLUMNS))
    if single is not None:
        return (single,)
    others = [
        name
        for name in columns
        if name not in (*aside, *places) and not (find_column([name], _ASIDE) or says_split(name))
    ]
    # Columns that hold zeros and ones, and nothing else but -1 and empty cells.
    known = {name: [text for row in training if not is_nothing(text := row.cell(name).text)] for name in others}
    candidates = [name for name, texts in known.items() if texts and {*texts} <= {*_ANSWERS, *_UNCERTAIN}]
    # A row that answers nothing is an image without labels, not a reason to take the columns for something else.
    told = [row for row in training if not all(is_nothing(row.cell(name).text) for name in candidates)]
    sure = [name for name in candidates if all(row.cell(name).text in _ANSWERS for row in told)]
    answers = candidates if len(candidates) > 1 else sure
    if not answers:
        seen = f" ({' and '.join(places)} say places or sizes in the image, no classes)" if places else ""
        raise LayoutError(
            f"{path} has no column of labels ({', '.join(LABEL_COLUMNS[:5])}, ...) and no columns of zeros and ones alone; its "
            f"columns are {', '.join(columns)}{seen}. Name the column of classes 'label'"
        )
    return tuple(answers)


def labels_of(rows: Sequence[Row], columns: Sequence[str]) -> ClassNumbers:
    """The labels of rows: of one column its classes; of several a class number if each row has one 1, else vectors.

    Among several columns, an empty cell and -1 ("not mentioned" and "uncertain" of chest X-rays) count as 0, and the labels
    are vectors then.
    """
    if len(columns) == 1:
        found = class_numbers([row.cell(columns[0]) for row in rows])
        if len(found.names) == 1:
            raise LayoutError(
                f"{rows[0].cell(columns[0]).where}: the column has one class, {found.names[0]!r}, and noise needs two or more. If an "
                "empty cell means a class such as healthy, write its name there; else name the column of classes 'label'"
            )
        return found
    vectors, unsure = list[list[int] | None](), False
    for row in rows:
        cells = [row.cell(name) for name in columns]
        odd = [cell for cell in cells if cell.text not in _ANSWERS]
        if all(is_nothing(cell.text) for cell in cells):
            vectors.append(None)
            continue
        for text, where in odd:
            if not is_nothing(text) and text not in _UNCERTAIN:
                raise LayoutError(f"{where}: {text!r} is no answer. Write 0 or 1; an empty cell and -1 count as 0")
        unsure |= bool(odd)
        vectors.append([_ANSWERS.get(cell.text, 0) for cell in cells])
    return ClassNumbers(list(vectors), tuple(columns)) if unsure else _of_vectors(vectors, tuple(columns))
