"""Reads what data sets say about themselves, JSON and tables, as text that may be damaged or hostile."""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from monai_salm.layouts.files import TRAIN, LayoutError, from_root

#: Suffixes of tables.
TABLES = (".csv", ".tsv")
_MAX_BYTES = 1 << 28
_MAX_COLUMNS = 10_000
_SAID = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;]*\n', re.IGNORECASE)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    A LayoutError says if it is too large, is no JSON object, holds a key twice (readers differ in which one they take), a
    number that JSON has not, such as NaN, or text that is no text.
    """
    text = _as_text(path, _read_bytes(path), "utf-8")

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"the key {_repeated([key for key, _ in pairs])!r} stands in one object twice")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
        if "\\ud" in text.lower():  # an escaped half of a character, which could not be written again
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise LayoutError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def json_or_nothing(path: Path) -> dict[str, Any]:
    """``read_json``; an empty object for what cannot be read."""
    with suppress(LayoutError, OSError):
        return read_json(path)
    return {}


def entry_of(content: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    """A value of a JSON object, which must be there and of a type; ``path`` is the file, for messages."""
    if key not in content:
        raise LayoutError(f"{path} has no {key!r}; its keys are {', '.join(map(repr, content)) or 'none'}")
    value = content[key]
    # JSON's true is no number, though Python counts it as one.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise LayoutError(f"{path}: {key!r} must be of type {kind.__name__}, got {type(value).__name__}")
    return value


class Cell(NamedTuple):
    """The text of a cell of a table, and where it stands, for messages."""

    text: str
    where: str


@dataclass(frozen=True)
class Row:
    """A row of a table: its file, its line there, from 1, and the text of every column, without blanks around it."""

    path: Path
    line: int
    values: dict[str, str]
    split: str = TRAIN

    def cell(self, column: str) -> Cell:
        """The cell in a column; empty where the table has no such column."""
        return Cell(self.values.get(column, ""), f"{self.path}, line {self.line}, column {column!r}")


@dataclass(frozen=True)
class Table:
    """A CSV or TSV file with a header; ``absolute`` if absolute paths in it were made relative."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    absolute: bool = False


def read_table(path: Path, relative: bool = False) -> Table:
    """Read a table: tabs between the columns of a .tsv, else commas, or semicolons where the header has more of them.

    With ``relative``, absolute paths that lie in the table's folder are written relative to it. A LayoutError says if it is too
    large, not text, or has no header, two columns of one name, or a row of another length.
    """
    content = _read_bytes(path)
    text = _as_text(path, content, encoding_of(content))
    delimiter, start = _delimiter(path, text)
    above = text.count("\n", 0, start)
    reader = csv.reader(text[start:].splitlines(keepends=True), delimiter=delimiter)
    try:
        lines = [(reader.line_num + above, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise LayoutError(f"{path} is not a valid table: {error}") from error
    columns = lines[0][1] if lines else []
    if not any(columns) or len(columns) > _MAX_COLUMNS:
        raise LayoutError(f"{path} must begin with a line of column names, found {len(columns)} columns")
    named = [column for column in columns if column]
    if len(set(named)) != len(named):
        raise LayoutError(f"{path}: two columns are named {_repeated(named)!r}; rename one")
    rows, absolute = [], False
    for line, cells in lines[1:]:
        if any(cells) and len(cells) != len(columns):
            raise LayoutError(
                f"{path}, line {line}: {len(cells)} columns, the header has {len(columns)}; quote cells that hold the delimiter"
            )
        # A column without a name is what pandas writes for its index.
        values = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
        own = from_root(path.parent, values) if relative else values
        absolute |= own != values
        if any(cells):
            rows.append(Row(path, line, own))
    return Table(path, tuple(named), tuple(rows), absolute)


def headers_in(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The tables of a folder, sorted, with their column names, at little cost; a file that is none has no columns."""
    for path in (folder / name for name in sorted(os.listdir(folder)) if name.lower().endswith(TABLES)):
        columns: list[str] = []
        with suppress(OSError, ValueError, csv.Error), open(path, "rb") as file:
            content = file.read(1 << 16)
            text = _as_text(path, content, encoding_of(content, whole=False), whole=False)
            delimiter, start = _delimiter(path, text)
            columns = next(csv.reader([text[start:].partition("\n")[0]], delimiter=delimiter), [])
        yield path, tuple(column.strip() for column in columns)


def encoding_of(content: bytes, whole: bool = True) -> str:
    """The encoding of a text or its beginning, as spreadsheet programs write it: UTF-16 with a mark, UTF-8, Windows-1252."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-le" if content.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(content, whole)
            return encoding
    return "utf-8"


def _repeated(items: list[str]) -> str:
    return Counter(items).most_common(1)[0][0]


def _delimiter(path: Path, text: str) -> tuple[str, int]:
    """The delimiter of a table, and where its header begins: below the line with which Excel is told the delimiter."""
    said = _SAID.match(text)
    if said:
        return said[1], said.end()
    return "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=text.partition("\n")[0].count), 0


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise LayoutError(f"{path} is larger than any list of cases ({size} bytes)")
    return path.read_bytes()


def _as_text(path: Path, content: bytes, encoding: str, whole: bool = True) -> str:
    """Text, or its beginning, with the ends of lines that Python's own reading gives."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content, whole).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    if "\0" in text:
        raise LayoutError(f"{path} holds zero bytes; it is no text or is damaged")
    return text.replace("\r\n", "\n").replace("\r", "\n")
