"""Plain values of any kind for the page's template: texts, tables, and which form a value takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from monai_salm.report.cells import Values, words

#: Header, rows, caption (for screen readers) and class of a table.
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]], str, str]

# Longer rows of numbers are folded away.
_LONG = 12
# Tables of more columns are shrunk in print.
_WIDE = 7


def number(value: object, unit: str = "") -> str:
    """A value for readers: four digits, ``none`` for a missing value, yes and no."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}{unit}" if abs(value) < 1e4 else f"{value:,.0f}{unit}"
    return f"{value}{unit}"


def flat(value: object) -> str:
    """A value on one line."""
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(key)} {flat(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value)) or "none"
    return number(value)


def is_simple(value: Any) -> bool:
    """Whether a value fits on one line."""
    if isinstance(value, list | tuple):
        short = len(value) <= _LONG or all(isinstance(item, str) for item in value)
        return short and not any(isinstance(item, Mapping | list | tuple) for item in value)
    return not (isinstance(value, Mapping) and value)


def is_row(value: Any) -> bool:
    """Whether a value is a mapping of values on one line."""
    return isinstance(value, Mapping) and bool(value) and all(map(is_simple, value.values()))


def table_of(key: str, value: Values | Sequence[Any]) -> Table | None:
    """A table of at least two rows that share a name; None where a mapping or sequence is none."""
    rows = value if isinstance(value, Mapping) else dict(enumerate(value, start=1))
    if len(rows) < 2 or not all(map(is_row, rows.values())) or not set.intersection(*map(set, rows.values())):
        return None
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [[words(name), *(flat(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()]
    header = ["class" if key == "by_class" else "", *map(words, columns)]
    return header, lines, words(key), "wide" if len(columns) > _WIDE else ""
