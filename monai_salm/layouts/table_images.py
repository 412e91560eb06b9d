"""Which tables of a folder name its images and their labels, told before they are read whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.files import is_file, relative_path, why_folder
from monai_salm.layouts.images import ImageIndex, has_image_name, is_dicom, some_files
from monai_salm.layouts.labels import IMAGE_COLUMNS, LABEL_COLUMNS, LabelledRow, find_column, label_columns
from monai_salm.layouts.reading import Table, headers_in, read_table, with_relative_paths
from monai_salm.layouts.roles import pair

# Lists of images that are no tables; more bytes are no list that a person wrote.
_LISTS, _MAX_LIST = (".txt", ".lst", ".list", ".dat"), 1 << 22
# Lines of a table, and folders, that are looked into for names of images.
_LOOKED_AT = 20


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder that name images, samples of submissions to a challenge left out."""
    named = (path for path, columns in headers_in(folder) if find_column(columns, IMAGE_COLUMNS) is not None)
    return [path for path in named if not path.name.lower().startswith("sample")]


def tells_labels(path: Path) -> bool:
    """Whether a line of a table names an image that is there, and something may be its label; never raises."""
    try:
        table = with_relative_paths(read_table(path))
        image = _first_image(table)
        if image is not None and _named_maps(path.parent):
            # Beside label maps, a table without labels may give the splits.
            label_columns([LabelledRow(table, row, TRAIN) for row in table.rows], (), ())
    except (LayoutError, OSError):
        return False
    return image is not None and not is_dicom(path.parent / image)


def names_of(path: Path) -> list[str]:
    """The files in a folder, or the name of a file."""
    return sorted(os.listdir(path)) if path.is_dir() else [path.name]


def _first_image(table: Table) -> str | None:
    """The first image that a line of a table names; a protected copy may have left out that of the first line."""
    image, folder = find_column(table.columns, IMAGE_COLUMNS), table.path.parent
    if image is None or len(table.columns) < 2:
        return None
    maps = _named_maps(folder)
    index = ImageIndex(file for file in _image_names(folder) if file not in maps)
    for row in table.rows:
        relative = relative_path(folder, row.values[image], table.where(row, image))
        there = is_file(folder / relative)
        fits = [relative] if there and has_image_name(relative) else [] if there else index.all(relative)
        if fits:
            return fits[0]
    return None


def why_misfit(path: Path) -> str | None:
    """Why a table that seems to hold names or labels of images does not fit the images beside it; None if it does not seem so."""
    try:
        table = with_relative_paths(read_table(path))
        image, label = find_column(table.columns, IMAGE_COLUMNS), find_column(table.columns, LABEL_COLUMNS)
        if image is None:
            return _why_no_column(table, label)
        if path.name.lower().startswith("sample") or not table.rows or _first_image(table) is not None:
            return None
        first = table.rows[0]
        missing = f"no image {first.values[image]!r} in {path.parent}; those of the other lines are missing, too"
        return f"{table.where(first, image)}: {missing}"
    except (LayoutError, OSError) as error:
        return str(error)


def _why_no_column(table: Table, label: str | None) -> str | None:
    """Why a table has no column of image names by the names of its columns, though something in it speaks for one."""
    folder = table.path.parent
    index = ImageIndex(_image_names(folder))
    if any(index.all(name) for name in table.columns):
        return f"{table.path} names an image in its first line, which must hold names of columns, such as image,label"
    for column in table.columns:
        cells = [text for row in table.rows[:_LOOKED_AT] if (text := row.values[column])]
        # Numbers of another kind, as ages, may be those of images, but not a different one in each line.
        if len(set(cells)) == len(cells) > 1 and sum(bool(index.all(text)) for text in cells) > len(cells) / 2:
            return (
                f"{table.path} names images in its column {column!r}; call that column 'image', and the column of classes 'label' "
                f"(its columns are {', '.join(table.columns)})"
            )
    if label is None:
        return None
    lacks = f"no column of image names ({', '.join(IMAGE_COLUMNS[:5])}, ...)"
    return f"{table.path} has a column {label!r}, but {lacks}; its columns are {', '.join(table.columns)}"


def list_of_images(folder: Path) -> str | None:
    """The name of a text in a folder whose lines begin with names of images that are there; None if there is none."""
    lists = [name for name in names_of(folder) if name.lower().endswith(_LISTS) and name[0] != "."]
    if not lists:
        return None
    index = ImageIndex(_image_names(folder))
    for name in lists:
        try:
            with open(folder / name, encoding="utf-8", errors="replace") as file:
                lines = [line for line in file.read(_MAX_LIST).splitlines()[:_LOOKED_AT] if line.strip()]
        except OSError:
            continue
        firsts = [re.split(r"[\s,;:|]", line.strip())[0] for line in lines]
        if lines and sum(bool(index.all(first)) for first in firsts if first) > len(lines) / 2:
            return name
    return None


def table_below(folder: Path) -> Path | None:
    """A table in one of the folders of a folder that gives the labels of the images beside it; None if there is none."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and why_folder(path.name) is None]
    tables = (table for below in inside[:_LOOKED_AT] for table in tables_in(below))
    return next((table for table in tables if tells_labels(table)), None)


def _image_names(folder: Path) -> list[str]:
    return [file for file in some_files(folder, every=True) if has_image_name(file)]


def _named_maps(folder: Path) -> frozenset[str]:
    """Files that are named for the label maps of others."""
    return frozenset(pair(_image_names(folder)).map_files)
