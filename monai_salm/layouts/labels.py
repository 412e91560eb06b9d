"""Labels, splits and columns of tables: the words that data sets use for them, and class names, which become numbers."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from monai_salm.layouts.files import TRAIN, LayoutError, stem
from monai_salm.layouts.reading import Cell, Row, headers_in, read_table
from monai_salm.shared.warn import warn

_SPLITS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "ts", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
# Names of columns of yes and no that say a split: is_train, In-Test, val_set.
_FLAG = re.compile(rf"((?:is|in|for)_?)?({'|'.join(_SPLIT_OF)})((?:_?(?:set|split|data))?)")
_YES, _NO = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")

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
    "sex", "gender", "male", "female", "smoker", "smoking", "age", "fold", "patient", "patient_id",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "dataset_split", "data_split", "usage")
# Cells that say that nothing is known, what chest X-ray tables write for "uncertain", and 0 and 1, as pandas writes them, too.
_NOTHING = ("", "n/a", "na", "nan", "none", "null")
# Nothing is known, or the class of those without a finding.
_NO_FINDING = "none"
_UNCERTAIN, _ANSWERS = ("-1", "-1.0"), {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
#: Largest class number: any more is an identifier in the wrong column.
MAX_CLASS = 65_535
# A small data set may have a class for nearly every image; a large one that does has names in that column.
_FEW_CLASSES = 20
# A patient's data and what only names something; no labels, even if they happen to be zeros and ones.
_ASIDE = (*IMAGE_COLUMNS, *SPLIT_COLUMNS, *PATIENT_COLUMNS)

# Columns that come in pairs and say places and sizes in an image, in pixels.
_PLACES = (
    ("x", "y"), ("left", "top"), ("right", "bottom"), ("width", "height"), ("w", "h"), ("xmin", "ymin"), ("xmax", "ymax"),
    ("x_min", "y_min"), ("x_max", "y_max"), ("x1", "y1"), ("x2", "y2"), ("center_x", "center_y"), ("cx", "cy"), ("row", "col"),
)  # fmt: skip
# Fewer numbers than these say nothing about how often they repeat.
_MEASURED = 5

_KEY_COLUMNS = (*IMAGE_COLUMNS, "patient", "patient_id", "subject", "subject_id", "case", "case_id")


class ClassNumbers(NamedTuple):
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


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def class_numbers(cells: Sequence[Cell]) -> ClassNumbers:
    """Turn a column of classes into numbers.

    Whole numbers from 0 are class numbers already; a LayoutError names the cell of any other number, and a column of numbers
    that hardly ever repeat. Anything else is text, numbered in its sorted order; text joined by ``|`` names several classes of
    one image. Among other words, "none" is a class.
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

    texts = [cell.text for cell in cells if not is_missing(cell.text)]
    if any("|" in text for text in texts):
        parts = [None if is_missing(cell.text) else {part.strip() for part in cell.text.split("|")} for cell in cells]
        known = tuple(sorted({name for found in parts if found is not None for name in found}))
        labels = [None if found is None else [int(name in found) for name in known] for found in parts]
        _warn_of_case(cells[0].where, known)
        return ClassNumbers(list(labels), known)
    names = tuple(sorted(set(texts)))
    if len(names) > max(_FEW_CLASSES, len(texts) // 2):
        raise LayoutError(
            f"{cells[0].where}: the column has {len(names)} different texts for {len(texts)} images, too many for classes. Name the "
            "column of classes 'label'"
        )
    _warn_of_case(cells[0].where if cells else "", names)
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


def is_nothing(cell: str) -> bool:
    """Whether a cell says that nothing is known."""
    return cell.lower() in _NOTHING


def _number(text: str) -> float | None:
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and "_" not in text:  # only Python takes 1_2 for a number
            return number
    return None


def require_column(path: Path, columns: Iterable[str], asked: str | None, names: Sequence[str] = ()) -> str:
    """The column of a table that was asked for, or else that has one of some names of columns of images."""
    found = find_column(columns, names) if asked is None else asked
    if found is None or found not in columns:
        lacks = f"no column of image names ({', '.join(names[:5])}, ...)" if asked is None else f"no column {asked!r}"
        raise LayoutError(f"{path} has {lacks}; its columns are {', '.join(columns)}")
    return found


def _split_of(row: Row, column: str) -> str:
    """The split that a row says; an error for any other word."""
    text, where = row.cell(column)
    split = split_named(text)
    if split is None:
        raise LayoutError(f"{where}: {text!r} is no split; write train, val or test")
    return split


def with_splits(rows: Sequence[Row], asked: str | None = None, labels: Sequence[str] = ()) -> list[Row] | None:
    """The rows of a table with their splits, which one column says, or columns of yes and no such as ``is_train``.

    Without a column that says them, None. The column of splits may be ``asked`` for; ``labels`` are no splits.
    """
    if not rows:
        return None
    path, columns = rows[0].path, rows[0].values.keys()
    split = find_column(columns, SPLIT_COLUMNS) if asked is None else require_column(path, columns, asked)
    if split is None:
        flags = _flags(rows, [name for name in columns if name not in labels])
        return [replace(row, split=_flagged(row, flags)) for row in rows] if flags else None
    flag = _FLAG.fullmatch(_plain(split))
    said = (_flagged(row, {split: _SPLIT_OF[flag[2]]}) if flag else _split_of(row, split) for row in rows)
    return [replace(row, split=of) for row, of in zip(rows, said, strict=True)]


def _flags(rows: Sequence[Row], columns: Iterable[str]) -> dict[str, str]:
    """The columns of yes and no that say a split, with it."""
    found, sure = dict[str, str](), False
    for name in columns:
        parts = _FLAG.fullmatch(_plain(name))
        texts = [text for row in rows if not is_nothing(text := row.cell(name).text.lower())]
        bare = parts is not None and not parts[1] and not parts[3]
        # Words such as "test" may name something else.
        if parts is None or (bare and not (texts and {*texts} <= {*_YES, *_NO})):
            continue
        found[name] = _SPLIT_OF[parts[2]]
        sure |= not bare or found[name] == TRAIN
        if parts[2] == "valid" and 2 * sum(text in _YES for text in texts) > len(texts):
            raise LayoutError(
                f"{rows[0].path}: the column {name!r} says yes for most images, as a check of their quality does, and a validation "
                "split does not. Call it 'is_val' if it says the split, else 'usable'"
            )
    if found and not sure:
        name, split = next(iter(found.items()))
        raise LayoutError(
            f"{rows[0].path}: the column {name!r} of yes and no may say the split or something else. Call it 'is_{split}' if it says "
            "the split, else give it another name"
        )
    return found


def _flagged(row: Row, flags: Mapping[str, str]) -> str:
    """The split of a row by columns of yes and no; one that has no column of its own is that of the rows without a yes."""
    yes = set[str]()
    for name, split in flags.items():
        text, where = row.cell(name)
        if text.lower() not in (*_YES, *_NO):
            raise LayoutError(f"{where}: {text!r} is neither yes nor no; write 1 or 0")
        yes |= {split} if text.lower() in _YES else set()
    others = [split for split in (TRAIN, "test", "val") if split not in flags.values()]
    if len(yes) > 1 or not (yes or others):
        raise LayoutError(f"{row.path}, line {row.line}: write 1 in exactly one of {', '.join(flags)}")
    return next(iter(yes or others))


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
    others = [name for name in columns if name not in (*aside, *places) and not _is_aside(name)]
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


def _is_aside(column: str) -> bool:
    """Whether a column holds no labels, even if all its cells are zeros and ones."""
    return find_column([column], _ASIDE) is not None or _FLAG.fullmatch(_plain(column)) is not None


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
    if not unsure and all(sum(vector) == 1 for vector in vectors if vector):
        return ClassNumbers([vector.index(1) if vector else None for vector in vectors], tuple(columns))
    return ClassNumbers(list(vectors), tuple(columns))


def splits_by_table(root: Path, images: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """The one table in a folder with a column of splits, which must have a line for each image or a folder of it, and their splits."""
    found = []
    for path, columns in headers_in(root):
        key, says = find_column(columns, _KEY_COLUMNS), find_column(columns, SPLIT_COLUMNS) is not None
        if key is not None and (says or any(_FLAG.fullmatch(_plain(name)) for name in columns)):
            rows = with_splits(read_table(path, relative=True).rows)
            found += [] if rows is None else [(path, {row.values[key]: row.split for row in rows})]
    if not found:
        return None
    if len(found) > 1:
        raise LayoutError(f"{found[0][0]} and {found[1][0].name} both have a column of splits; leave one there")
    (table, known), splits = found[0], dict[str, str]()
    for image in images:
        place = PurePosixPath(image)
        names = (image, place.name, stem(image), *reversed(place.parts[:-1]))
        name = next((name for name in names if name in known), None)
        if name is None:
            raise LayoutError(f"{table} has a column of splits, but no line for {image}; add one")
        splits[image] = known[name]
    return table.name, splits
