"""A folder of images with a table that gives their labels and, where there are several, their splits."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from monai_salm.layouts.columns import IMAGE_COLUMNS, find_column, is_nothing, require_column, split_named, with_splits
from monai_salm.layouts.files import (
    TRAIN,
    ImageIndex,
    LayoutError,
    confine,
    has_image_name,
    is_dicom,
    is_file,
    is_image,
    relative_path,
    some_files,
    walk,
    why_folder,
)
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.label_maps import is_label_map
from monai_salm.layouts.labels import LABEL_COLUMNS, MASK_COLUMNS, label_columns, labels_of
from monai_salm.layouts.maps_among import label_maps_among
from monai_salm.layouts.reading import TABLES, Cell, Row, Table, headers_in, read_table
from monai_salm.layouts.roles import pair, shortened
from monai_salm.layouts.stored_images import StoredImage, UnusableImage, channel_files
from monai_salm.shared.warn import warn

_SHEETS = (".xlsx", ".xls", ".ods")
# Lists of images that are no tables; more bytes are no list that a person wrote.
_LISTS, _MAX_LIST = (".txt", ".lst", ".list", ".dat"), 1 << 22
# Lines of a table, and folders, that are looked into for names of images.
_LOOKED_AT = 20
_Label: TypeAlias = str | int | list[int] | None


@dataclass(frozen=True)
class Columns:
    """The columns of images, of labels (one, or several of zeros and ones) and of splits; their names tell those not given."""

    image: str | None = None
    labels: tuple[str, ...] = ()
    split: str | None = None


class _Entry(NamedTuple):
    """A row and its image."""

    row: Row
    image: StoredImage


class CsvLabels(FolderLayout):
    """Images and a CSV beside or above them: a column of paths or names, and columns of labels.

    Several ``tables`` stand in one folder and have their split in their names; ``columns`` says which of theirs mean what.
    """

    name = "csv_labels"
    description = "a folder of images and a CSV with a column of image names and columns of labels"
    specialises = ("mask_folder",)

    def __init__(self, tables: Sequence[Path], columns: Columns = Columns()) -> None:
        self.tables, self.columns, self.root = tuple(tables), columns, tables[0].parent
        files = [file for file in walk(self.root) if is_image(self.root / file)]
        maps = label_maps_among(self.root, files)
        folders = dict(maps.folders)
        masks = maps.sure.union(file for file in files if str(PurePosixPath(file).parent) in folders)
        self._index, self._all = ImageIndex(file for file in files if file not in masks), ImageIndex(files)
        read = [read_table(path, relative=True) for path in tables]
        self._absolute = tuple(table.path.name for table in read if table.absolute)
        entries = self._without_maps(self._entries(read), masks)
        listed = {file for entry in entries for file in entry.image.files}
        labels, names = self._labels(entries)
        cases = list(self._cases_of(entries, labels))
        if TRAIN not in dict(cases):
            raise LayoutError(f"{tables[0]} has no training images; its rows are for {', '.join(dict(cases))}")
        self.doubt = maps.unlike_at(self.root, self.name) if maps.unlike and maps.unlike[0] in listed else None
        others = sorted((masks | self._in_columns(entries)) - listed)
        super().__init__(self.root, cases, [path.name for path in tables], names, masks=others)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        try:
            tables = tables_in(path) if path.is_dir() else [path] if path.suffix.lower() in TABLES else []
        except OSError as error:
            return str(error)
        return None if any(_why_not(table) is None for table in tables) else ""

    @classmethod
    def advice(cls, path: Path) -> str:
        sheets = [name for name in _names_in(path) if name.lower().endswith(_SHEETS) and name[0] not in ".~"]
        sheet = f"{sheets[0]} may be a table of labels, but is not read; save it as CSV" if sheets else None
        return cls.table_misfit(path) or sheet or (_other_list(path) if path.is_dir() else None) or ""

    @classmethod
    def table_misfit(cls, path: Path) -> str | None:
        """The reason why a table with labels does not fit the images; None if each table fits."""
        folder = path if path.is_dir() else path.parent
        tables = [folder / name for name in _names_in(path) if name.lower().endswith(TABLES) and name[0] != "."]
        return next((reason for table in tables if (reason := _why_not(table))), None)

    @classmethod
    def open(cls, path: Path) -> CsvLabels:
        if path.is_file():
            return cls([path])
        found = tables_in(path)
        if not found:
            raise LayoutError(f"{path} has no CSV with a column of image names ({', '.join(IMAGE_COLUMNS[:5])}, ...)")
        splits = [_split_in_name(table) for table in found]
        if len(found) > 1 and (None in splits or len(set(splits)) < len(splits) or TRAIN not in splits):
            names = ", ".join(table.name for table in found)
            raise LayoutError(f"{path} has several tables of images, {names}; give the path of the one with the labels")
        return cls(found)

    def reopen(self, root: Path) -> CsvLabels:
        return type(self)([self.in_copy(table, root) for table in self.tables], self.columns)

    def _entries(self, tables: Sequence[Table]) -> list[_Entry]:
        asked = self.columns.image
        images = [require_column(table.path, table.columns, asked, IMAGE_COLUMNS) for table in tables]
        cells = {row.values[image] for table, image in zip(tables, images, strict=True) for row in table.rows}
        # Those that some line names by their whole path from the root.
        self._taken = frozenset(cell for cell in cells if is_file(self.root / cell))
        found = []
        for table, image in zip(tables, images, strict=True):
            own = _split_in_name(table.path) if len(tables) > 1 else None
            told = None if own else with_splits(table.rows, self.columns.split, self.columns.labels)
            for row in told or table.rows:
                cell = row.cell(image)
                file = self._find(cell, self._index)
                stored: StoredImage = channel_files([file])
                if not is_file(self.root / file):
                    reason = f"{cell.where}: no image {cell.text!r} in {self.root}; check the name, or remove the line"
                    stored = UnusableImage(file, (file,), reason)
                found.append(_Entry(replace(row, split=own or row.split), stored))
        return found

    def _find(self, cell: Cell, index: ImageIndex) -> str:
        """The file that a cell names; the path as it stands there if there is none."""
        relative = confine(self.root, cell.text, cell.where)
        found = None if is_file(self.root / relative) else index.find(relative, cell.where, self._taken)
        return relative if found is None else confine(self.root, found, cell.where)

    def _without_maps(self, entries: list[_Entry], masks: Collection[str]) -> list[_Entry]:
        """The lines that are not of label maps, which some tables list like images."""
        aside = [entry.image.name for entry in entries if entry.image.files[0] in masks]
        if not aside or len(aside) == len(entries):
            return entries
        warn(
            f"{self.tables[0]}: {len(aside)} lines name label maps ({shortened(aside)}), which get no noise and are no cases; they "
            "are copied as they are"
        )
        return [entry for entry in entries if entry.image.files[0] not in masks]

    def _labels(self, entries: Sequence[_Entry]) -> tuple[Sequence[_Label], tuple[str, ...]]:
        """The label of each entry, and the names of the classes."""
        if not entries:
            raise LayoutError(f"{self.tables[0]} has no rows below its header")
        rows = [entry.row for entry in entries]
        self._label_columns = label_columns(rows, self.columns.labels, (self.columns.image, self.columns.split))
        column = self._label_columns[0]
        if len(self._label_columns) > 1:
            return labels_of(rows, self._label_columns)
        first = next((text for row in rows if not is_nothing(text := row.cell(column).text)), "")
        is_path = has_image_name(first) and ".." not in first and is_file(self.root / first)
        if is_path or find_column([column], MASK_COLUMNS) is not None:
            return [self._mask(row, column) for row in rows], ()
        return labels_of(rows, self._label_columns)

    def _cases_of(self, entries: Sequence[_Entry], labels: Sequence[_Label]) -> Iterator[tuple[str, FolderCase]]:
        """Each image once; a training image without a label, where others have one, is a case that cannot be used."""
        seen: dict[str, tuple[Row, _Label]] = {}
        labelled = any(label is not None for (row, _), label in zip(entries, labels, strict=True) if row.split == TRAIN)
        for (row, image), label in zip(entries, labels, strict=True):
            first, known = seen.setdefault(image.name, (row, label))
            if known != label or first.split != row.split:
                raise LayoutError(
                    f"{row.path}, line {row.line}: {image.name} is in {first.path.name}, line {first.line}, already, with another "
                    "label or split; give each image one line, with a column of zeros and ones for each label if it has several"
                )
            if label is None and labelled and row.split == TRAIN and not isinstance(image, UnusableImage):
                where = row.cell(self._label_columns[0]).where
                reason = f"{where}: the label is missing, and noise is made against labels; fill it in, or take the image out"
                image = UnusableImage(image.name, image.files, reason)
            if first is row:
                yield row.split, FolderCase(image, label)

    def _in_columns(self, entries: Sequence[_Entry]) -> frozenset[str]:
        """The label maps that stand in a column of their own beside that of the labels."""
        found = set()
        for row, _ in entries:
            column = find_column(row.values, MASK_COLUMNS)
            with suppress(LayoutError):  # of a column that is not read for the labels
                file = None if column is None else self._mask(row, column)
                if file is not None and is_label_map(self.root / file, empty=True):
                    found.add(file)
        return frozenset(found)

    def _mask(self, row: Row, column: str) -> str | None:
        cell = row.cell(column)
        return None if is_nothing(cell.text) else self._find(cell, self._all)


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder that name images, samples of submissions to a challenge left out."""
    named = (path for path, columns in headers_in(folder) if find_column(columns, IMAGE_COLUMNS) is not None)
    return [path for path in named if not path.name.lower().startswith("sample")]


def _split_in_name(path: Path) -> str | None:
    """The split that a table's name says: ``train_labels.csv`` -> ``train``."""
    found = {split_named(word) for word in re.split(r"[-_. ]", path.stem)} - {None}
    return found.pop() if len(found) == 1 else None


def _names_in(path: Path) -> list[str]:
    """The files in a folder, or the name of a file."""
    return sorted(os.listdir(path)) if path.is_dir() else [path.name]


def _images_in(folder: Path) -> list[str]:
    """The files of a folder that are named as images."""
    return [file for file in some_files(folder, every=True) if has_image_name(file)]


def _why_not(path: Path) -> str | None:
    """Why a table does not tell labels of the images beside it; None if it does, empty text if it does not seem to."""
    try:
        table, images = read_table(path, relative=True), _images_in(path.parent)
        maps, column = frozenset(pair(images).map_files), find_column(table.columns, IMAGE_COLUMNS)
        if column is None:
            return _why_no_column(table, ImageIndex(images))
        index = ImageIndex(file for file in images if file not in maps)
        # A protected copy may have left out the image of the first line.
        named = (_image_of(row.cell(column), path.parent, index) for row in table.rows if len(table.columns) > 1)
        image = next((image for image in named if image is not None), None)
        if image is None and table.rows and not path.name.lower().startswith("sample"):
            text, where = table.rows[0].cell(column)
            return f"{where}: no image {text!r} in {path.parent}; those of the other lines are missing, too"
    except (LayoutError, OSError) as error:
        return str(error)
    if image is None or is_dicom(path.parent / image):
        return ""
    try:
        if maps:  # beside label maps, a table without labels may give the splits
            label_columns(table.rows, (), ())
    except LayoutError:
        return ""
    return None


def _image_of(cell: Cell, folder: Path, index: ImageIndex) -> str | None:
    """The first image that a cell may name."""
    relative = relative_path(folder, cell.text, cell.where)
    if is_file(folder / relative):
        return relative if has_image_name(relative) else None
    return next(iter(index.all(relative)), None)


def _why_no_column(table: Table, index: ImageIndex) -> str:
    """Why a table has no column of image names by the names of its columns, though something in it speaks for one."""
    if any(index.all(name) for name in table.columns):
        return f"{table.path} names an image in its first line, which must hold names of columns, such as image,label"
    columns = f"its columns are {', '.join(table.columns)}"
    for column in table.columns:
        cells = [text for row in table.rows[:_LOOKED_AT] if (text := row.values[column])]
        # Numbers of another kind, as ages, may be those of images, but not a different one in each line.
        if len(set(cells)) == len(cells) > 1 and sum(bool(index.all(text)) for text in cells) > len(cells) / 2:
            advice = "call that column 'image', and the column of classes 'label'"
            return f"{table.path} names images in its column {column!r}; {advice} ({columns})"
    label = find_column(table.columns, LABEL_COLUMNS)
    lacks = f"but no column of image names ({', '.join(IMAGE_COLUMNS[:5])}, ...)"
    return "" if label is None else f"{table.path} has a column {label!r}, {lacks}; {columns}"


def _other_list(folder: Path) -> str | None:
    """A list of images that is no table, or a table in a folder further down, and what to do."""
    lists = [name for name in _names_in(folder) if name.lower().endswith(_LISTS) and name[0] != "."]
    index = ImageIndex(_images_in(folder) if lists else ())
    for name in lists:
        lines = list[str]()
        with suppress(OSError), open(folder / name, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file.read(_MAX_LIST).splitlines()[:_LOOKED_AT] if line.strip()]
        firsts = [re.split(r"[\s,;:|]", line.strip())[0] for line in lines]
        if lines and sum(bool(index.all(first)) for first in firsts if first) > len(lines) / 2:
            advice = "save it as CSV with a first line of column names, such as image,label"
            return f"{name} seems to list images, but is not read; {advice}"
    with suppress(OSError):
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and why_folder(path.name) is None]
        tables = (table for below in inside[:_LOOKED_AT] for table in tables_in(below))
        table = next((table for table in tables if _why_not(table) is None), None)
        if table is not None:
            return f"{table} gives labels for the images beside it; give {table.parent} in place of {folder}"
    return None
