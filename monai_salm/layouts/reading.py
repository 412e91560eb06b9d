"""Reads what data sets say about themselves, JSON and tables, as text that may be damaged or hostile."""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from monai_salm.layouts.base import LayoutError
from monai_salm.layouts.files import from_root

#: Suffixes of tables.
TABLES = (".csv", ".tsv")
_MAX_BYTES = 1 << 28
_MAX_COLUMNS = 10_000


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        LayoutError: if it is too large, is no JSON object, holds a key twice (readers differ in which one they take), a
            number that JSON has not, such as NaN, or text that is no text.
    """

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"the key {_first_repeated([key for key, _ in pairs])!r} stands in one object twice")
        return dict(pairs)

    text = _as_text(path, _read_bytes(path))
    try:
        content = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
        if "\\ud" in text.lower():  # an escaped half of a character, which could not be written again
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise LayoutError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def entry_of(content: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    """A value of a JSON object, which must be there and of a type; ``path`` is the file, for messages."""
    if key not in content:
        raise LayoutError(f"{path} has no {key!r}; its keys are {', '.join(map(repr, content)) or 'none'}")
    value = content[key]
    # JSON's true is no number, though Python counts it as one.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise LayoutError(f"{path}: {key!r} must be of type {kind.__name__}, got {type(value).__name__}")
    return value


@dataclass(frozen=True)
class Row:
    """A row of a table: its line in the file, from 1, and the text of every column, without blanks around it."""

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV or TSV file with a header."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def where(self, row: Row, column: str) -> str:
        """A cell, for messages."""
        return f"{self.path}, line {row.line}, column {column!r}"


def read_table(path: Path) -> Table:
    """Read a table: tabs between the columns of a .tsv, else commas, or semicolons where the header has more of them.

    Text that is not UTF-8 is UTF-16 if it begins with a byte order mark, and else Windows-1252, as Excel writes it.

    Raises:
        LayoutError: if it is too large, not text, or has no header, two columns of one name, or a row of another length.
    """
    text = _table_text(path, _read_bytes(path))
    try:
        return _parse(path, csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(path, text)))
    except csv.Error as error:
        raise LayoutError(f"{path} is not a valid table: {error}") from error


def with_relative_paths(table: Table) -> Table:
    """The table with the absolute paths in it that lie in its folder written relative to that folder."""
    rows = (replace(row, values=from_root(table.path.parent, row.values)) for row in table.rows)
    return replace(table, rows=tuple(rows))


def read_header(path: Path) -> tuple[str, ...]:
    """The column names of a table, at little cost; empty for a file that is none."""
    try:
        with open(path, "rb") as file:
            start = _table_text(path, file.read(1 << 16), whole=False).partition("\n")[0]
        return tuple(_clean(next(csv.reader([start], delimiter=_delimiter(path, start)), [])))
    except (OSError, ValueError, csv.Error):
        return ()


def headers_in(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The tables of a folder with their column names, sorted."""
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith(TABLES):
            yield folder / name, read_header(folder / name)


def _first_repeated(items: Sequence[str]) -> str:
    return next(item for number, item in enumerate(items) if item in items[:number])


def _parse(path: Path, reader: Any) -> Table:
    columns = tuple(_clean(next(reader, [])))
    if not any(columns) or len(columns) > _MAX_COLUMNS:
        raise LayoutError(f"{path} must begin with a line of column names, found {len(columns)} columns")
    named = [column for column in columns if column]
    if len(set(named)) != len(named):
        raise LayoutError(f"{path}: two columns are named {_first_repeated(named)!r}; rename one")
    return Table(path, tuple(named), tuple(_rows(path, columns, reader)))


def _rows(path: Path, columns: tuple[str, ...], reader: Any) -> Iterator[Row]:
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise LayoutError(
                f"{path}, line {reader.line_num}: {len(cells)} columns, the header has {len(columns)}; quote cells that hold "
                "the delimiter"
            )
        # A column without a name is what pandas writes for its index.
        pairs = zip(columns, _clean(cells), strict=True)
        yield Row(reader.line_num, {column: cell for column, cell in pairs if column})


def _clean(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _delimiter(path: Path, text: str) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=text.partition("\n")[0].count)


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise LayoutError(f"{path} is larger than any list of cases ({size} bytes)")
    return path.read_bytes()


def _table_text(path: Path, content: bytes, whole: bool = True) -> str:
    """The text of a table, or of its beginning, in the encodings that spreadsheet programs write."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _as_text(path, content if whole else content[: len(content) // 2 * 2], "utf-16")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(content, whole)
    except UnicodeDecodeError:
        text = _as_text(path, content, "cp1252")
    return _as_lines(path, text)


def _as_text(path: Path, content: bytes, encoding: str = "utf-8-sig") -> str:
    try:
        return _as_lines(path, content.decode(encoding))
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _as_lines(path: Path, text: str) -> str:
    """Text with the ends of lines that Python's own reading gives."""
    if "\0" in text:
        raise LayoutError(f"{path} holds zero bytes; it is no text or is damaged")
    return text.replace("\r\n", "\n").replace("\r", "\n")
