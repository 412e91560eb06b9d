"""Columns of tables by their names, and the splits that they say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from monai_salm.layouts.files import TRAIN, LayoutError, stem
from monai_salm.layouts.reading import Row, headers_in, read_table

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
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "dataset_split", "data_split", "usage")
# Cells that say that nothing is known.
_NOTHING = ("", "n/a", "na", "nan", "none", "null")
_KEY_COLUMNS = (*IMAGE_COLUMNS, "patient", "patient_id", "subject", "subject_id", "case", "case_id")


def split_named(word: str) -> str | None:
    """``"train"``, ``"val"`` or ``"test"`` for a word that means it, else None."""
    return _SPLIT_OF.get(word.strip().lower())


def find_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column that bears one of the names, the earliest name first; case, blanks and hyphens do not matter."""
    plain = {_plain(column): column for column in columns}
    return next((plain[name] for name in names if name in plain), None)


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def is_nothing(cell: str) -> bool:
    """Whether a cell says that nothing is known."""
    return cell.lower() in _NOTHING


def says_split(column: str) -> bool:
    """Whether a column's name says that its yes and no, or zeros and ones, are of a split."""
    return _FLAG.fullmatch(_plain(column)) is not None


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


def splits_by_table(root: Path, images: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """The one table in a folder with a column of splits, which must have a line for each image or a folder of it, and their splits."""
    found = []
    for path, columns in headers_in(root):
        key, says = find_column(columns, _KEY_COLUMNS), find_column(columns, SPLIT_COLUMNS) is not None
        if key is not None and (says or any(map(says_split, columns))):
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
