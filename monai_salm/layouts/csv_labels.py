"""A folder of images with a table that gives their labels and, where there are several, their splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.files import confine, is_file, walk
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.hidden_maps import hidden_maps
from monai_salm.layouts.image_folder import masks_of
from monai_salm.layouts.images import ImageIndex, has_image_name, is_image
from monai_salm.layouts.label_maps import is_label_map
from monai_salm.layouts.labels import (
    IMAGE_COLUMNS,
    MASK_COLUMNS,
    SPLIT_COLUMNS,
    LabelledRow,
    find_column,
    is_nothing,
    label_columns,
    labels_of,
    require_column,
    split_named,
    split_of,
)
from monai_salm.layouts.reading import TABLES, Table, read_table, with_relative_paths
from monai_salm.layouts.roles import shortened
from monai_salm.layouts.stored_images import StoredImage, UnusableImage, channel_files
from monai_salm.layouts.table_images import (
    list_of_images,
    names_of,
    table_below,
    tables_in,
    tells_labels,
    why_misfit,
)
from monai_salm.shared.warn import warn

_SHEETS = (".xlsx", ".xls", ".ods")
_Label: TypeAlias = str | int | list[int] | None


@dataclass(frozen=True)
class Columns:
    """The columns of images, of labels (one, or several of zeros and ones) and of splits; their names tell those not given."""

    image: str | None = None
    labels: tuple[str, ...] = ()
    split: str | None = None


class CsvLabels(FolderLayout):
    """Images and a CSV beside or above them: a column of paths or names, and columns of labels.

    An image is named by its path from the CSV's folder, or by the end of its path, with or without suffix, if only one
    image in the folder fits. A line whose image is not there is a case that cannot be used, and so is a training image without
    a label where others have one. Several tables are read together if their names say the split: ``train.csv``, ``test.csv``.

    Args:
        tables: in one folder; the split of each that is not the only one is in its name.
        columns: which say what.
    """

    name = "csv_labels"
    description = "a folder of images and a CSV with a column of image names and columns of labels"
    specialises = ("mask_folder",)

    def __init__(self, tables: Sequence[Path], columns: Columns = Columns()) -> None:
        self.tables, self.columns, root = tuple(tables), columns, tables[0].parent
        files = [file for file in walk(root) if is_image(root / file)]
        masks = frozenset(label_maps_beside(root, files))
        self._index = ImageIndex(file for file in files if file not in masks)
        self._all = ImageIndex(files)
        written = [read_table(path) for path in tables]
        read = [with_relative_paths(table) for table in written]
        self._absolute = tuple(own.path.name for own, table in zip(written, read, strict=True) if own != table)
        self._taken = self._exactly_named(read, root)
        entries = [entry for table in read for entry in self._entries(table, root, len(tables) > 1)]
        entries = self._without_maps(entries, masks)
        listed = {file for entry in entries for file in entry.image.files}
        entries, numbers = _without_repeated(entries, self._labels(entries, root))
        entries = list(self._usable(entries, numbers))
        cases = [(entry.split, FolderCase(entry.image, label)) for entry, label in zip(entries, numbers, strict=True)]
        if TRAIN not in dict(cases):
            raise LayoutError(f"{tables[0]} has no training images; its rows are for {', '.join(dict(cases))}")
        others = sorted((masks | self._in_columns(entries, root)) - listed)
        listing = [path.name for path in tables]
        super().__init__(root, cases, listing, len(self._names) or None, self._names, masks=others)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        try:
            tables = tables_in(path) if path.is_dir() else [path] if path.suffix.lower() in TABLES else []
        except OSError as error:
            return str(error)
        return None if any(tells_labels(table) for table in tables) else ""

    @classmethod
    def advice(cls, path: Path) -> str:
        sheets = [name for name in names_of(path) if name.lower().endswith(_SHEETS) and not name.startswith((".", "~"))]
        sheet = f"{sheets[0]} may be a table of labels, but is not read; save it as CSV" if sheets else None
        return cls.table_misfit(path) or sheet or (_other_list(path) if path.is_dir() else None) or ""

    @classmethod
    def table_misfit(cls, path: Path) -> str | None:
        """The reason why a table with labels does not fit the images; None if each table fits."""
        folder = path if path.is_dir() else path.parent
        tables = (folder / name for name in names_of(path) if name.lower().endswith(TABLES) and name[0] != ".")
        return next((reason for table in tables if (reason := why_misfit(table)) is not None), None)

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
        tables = [root / table.name for table in self.tables]
        for table in tables:
            if not table.is_file():
                raise LayoutError(f"{table} is missing; give the folder of a copy of {self.root}")
        return type(self)(tables, self.columns)

    def _entries(self, table: Table, root: Path, named: bool) -> Iterator[_Entry]:
        image = require_column(table, self.columns.image, IMAGE_COLUMNS, "image names")
        split = self.columns.split or find_column(table.columns, SPLIT_COLUMNS)
        own = _split_in_name(table.path) if named else None
        for row in table.rows:
            where = table.where(row, image)
            of = own or (split_of(table, row, split) if split else TRAIN)
            yield _Entry(table, row, of, self._image(row.values[image], root, where))

    def _exactly_named(self, tables: Sequence[Table], root: Path) -> frozenset[str]:
        """The files that some line names by their whole path from the root."""
        columns = ((table, self.columns.image or find_column(table.columns, IMAGE_COLUMNS)) for table in tables)
        cells = {row.values.get(column or "", "") for table, column in columns for row in table.rows}
        return frozenset(cell for cell in cells if cell and "\0" not in cell and is_file(root / cell))

    def _image(self, text: str, root: Path, where: str) -> StoredImage:
        file = self._find(text, root, where)
        if is_file(root / file):
            return channel_files([file])
        reason = f"{where}: no image {text!r} in {root}; check the name, or remove the line"
        return UnusableImage(file, (file,), reason)

    def _find(self, text: str, root: Path, where: str, index: ImageIndex | None = None) -> str:
        """The file that a cell names; the path as it stands there if there is none."""
        relative = confine(root, text, where)
        found = None if is_file(root / relative) else (index or self._index).find(relative, where, self._taken)
        return relative if found is None else confine(root, found, where)

    def _without_maps(self, entries: Sequence[_Entry], masks: Collection[str]) -> list[_Entry]:
        """The lines that are not of label maps, which some tables list like images."""
        kept = [entry for entry in entries if entry.image.files[0] not in masks]
        if not kept or len(kept) == len(entries):
            return list(entries)
        aside = [entry.image.name for entry in entries if entry.image.files[0] in masks]
        warn(
            f"{self.tables[0]}: {len(aside)} lines name label maps ({shortened(aside)}), which get no noise and are no cases; they "
            "are copied as they are"
        )
        return kept

    def _labels(self, entries: Sequence[_Entry], root: Path) -> list[_Label]:
        self._names: tuple[str, ...] = ()
        if not entries:
            raise LayoutError(f"{self.tables[0]} has no rows below its header")
        names = label_columns(entries, self.columns.labels, (self.columns.image, self.columns.split))
        self._columns = names
        if len(names) == 1 and self._holds_masks(entries, names[0], root):
            return [self._mask(entry, names[0], root) for entry in entries]
        found = labels_of(entries, names)
        self._names = found.names
        return list(found.labels)

    def _usable(self, entries: Sequence[_Entry], labels: Sequence[object]) -> Iterator[_Entry]:
        """The rows; a training image without a label, where others have one, is a case that cannot be used."""
        labelled = any(label is not None for entry, label in zip(entries, labels, strict=True) if entry.split == TRAIN)
        for entry, label in zip(entries, labels, strict=True):
            if label is None and labelled and entry.split == TRAIN and not isinstance(entry.image, UnusableImage):
                where = entry.table.where(entry.row, self._columns[0])
                reason = f"{where}: the label is missing, and noise is made against labels; fill it in, or take the image out"
                entry = replace(entry, image=UnusableImage(entry.image.name, entry.image.files, reason))
            yield entry

    def _holds_masks(self, entries: Sequence[_Entry], column: str, root: Path) -> bool:
        """Whether a column is named for label maps, or what it says first is a file."""
        if find_column([column], MASK_COLUMNS) is not None:
            return True
        text = next((text for entry in entries if not is_nothing(text := entry.cell(column).text)), "")
        return has_image_name(text) and ".." not in text and is_file(root / text)

    def _in_columns(self, entries: Sequence[_Entry], root: Path) -> frozenset[str]:
        """The label maps that stand in a column of their own beside that of the labels."""
        found = set()
        for entry in entries:
            column = find_column(entry.table.columns, MASK_COLUMNS)
            with suppress(LayoutError):  # of a column that is not read for the labels
                file = None if column is None else self._mask(entry, column, root)
                if file is not None and is_label_map(root / file, empty=True):
                    found.add(file)
        return frozenset(found)

    def _mask(self, entry: _Entry, column: str, root: Path) -> str | None:
        cell = entry.cell(column)
        return None if is_nothing(cell.text) else self._find(cell.text, root, cell.where, self._all)


def label_maps_beside(root: Path, files: Sequence[str]) -> tuple[str, ...]:
    """The files that are label maps of others, by their names or by what they hold."""
    named = masks_of(root, files)
    hidden = hidden_maps(root, [file for file in files if file not in named])
    folders = {folder for folder, _ in hidden.folders}
    return (*named, *hidden.sure, *(file for file in files if str(PurePosixPath(file).parent) in folders))


def _other_list(path: Path) -> str | None:
    """A list of images that is no table, or a table in a folder further down, and what to do."""
    name = list_of_images(path)
    if name is not None:
        return f"{name} seems to list images, but is not read; save it as CSV with a first line of column names, such as image,label"
    try:
        table = table_below(path)
    except OSError:
        return None
    if table is None:
        return None
    return f"{table} gives labels for the images beside it; give {table.parent} in place of {path}"


@dataclass(frozen=True)
class _Entry(LabelledRow):
    """A row and its image."""

    image: StoredImage


def _split_in_name(path: Path) -> str | None:
    """The split that a table's name says: ``train_labels.csv`` -> ``train``."""
    found = {split_named(word) for word in re.split(r"[-_. ]", path.stem)} - {None}
    return found.pop() if len(found) == 1 else None


def _without_repeated(entries: Sequence[_Entry], labels: Sequence[_Label]) -> tuple[list[_Entry], list[_Label]]:
    """The lines and their labels, each image once.

    Raises:
        LayoutError: for an image with two labels or in two splits.
    """
    seen: dict[str, tuple[_Entry, _Label]] = {}
    for entry, label in zip(entries, labels, strict=True):
        first, known = seen.setdefault(entry.image.name, (entry, label))
        if known != label or first.split != entry.split:
            raise LayoutError(
                f"{entry.table.path}, line {entry.row.line}: {entry.image.name} is in {first.table.path.name}, line {first.row.line}, "
                "already, with another label or split; give each image one line, with a column of zeros and ones for each label if "
                "it has several"
            )
    return [entry for entry, _ in seen.values()], [label for _, label in seen.values()]
