"""Plain values of any kind as blocks for the page's template: lists, tables, parts with headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

#: Kind and contents: ``("bullets", texts)``, ``("listing", names and texts)``, ``("table", Table)``, ``("fold", title, text)``,
#: ``("part", level, title, blocks)`` or ``("text", text)``.
Block: TypeAlias = tuple[Any, ...]
#: Header, rows, caption (for screen readers) and class of a table.
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]], str, str]

# Longer rows of numbers are folded away.
_LONG = 12
# Tables of more columns are shrunk in print.
_WIDE = 7
# Headings go no deeper than this.
_DEEPEST = 6


def words(name: object) -> str:
    """A field's name for readers: ``"bias_shift"`` -> ``"bias shift"``."""
    return str(name).replace("_", " ")


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


def listing(values: Mapping[str, Any]) -> Block:
    """Names and values, each value on one line."""
    return "listing", [(words(key), flat(value)) for key, value in values.items()]


def nested(values: Mapping[str, Any], level: int = 3) -> list[Block]:
    """Blocks of a mapping of plain values, with headings from ``level`` on.

    ``findings`` are a list of sentences; numbers and texts a list of names and values; mappings with common names, and lists
    of such, tables; other mappings parts with headings.
    """
    simple = {key: value for key, value in values.items() if key != "findings" and _is_simple(value)}
    blocks: list[Block] = []
    if values.get("findings"):
        blocks.append(("bullets", list(map(str, values["findings"]))))
    if simple:
        blocks.append(listing(simple))
    further = {key: value for key, value in values.items() if key not in simple and key != "findings"}
    alike = {
        key: value
        for key, value in further.items()
        if isinstance(value, Mapping) and all(map(_is_simple, value.values()))
    }
    if _is_table(alike):
        blocks += _blocks("", alike, level)
        further = {key: value for key, value in further.items() if key not in alike}
    for key, value in further.items():
        if isinstance(value, list | tuple) and not any(isinstance(item, Mapping) for item in value):
            blocks.append(("fold", f"{words(key)}: {len(value)} values", flat(value)))
        else:
            blocks.append(("part", min(level, _DEEPEST), words(key), _blocks(key, value, level)))
    return blocks


def _blocks(key: str, value: Any, level: int) -> list[Block]:
    rows = value if isinstance(value, Mapping) else dict(enumerate(value, start=1))
    if _is_table(rows):
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        first = "class" if key == "by_class" else ""
        lines = [[words(name), *(flat(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()]
        kind = "wide" if len(columns) > _WIDE else ""
        return [("table", ([first, *map(words, columns)], lines, words(key), kind))]
    if isinstance(value, Mapping):
        return nested(value, level + 1)
    parts = (nested(item, level + 1) if isinstance(item, Mapping) else [("text", flat(item))] for item in value)
    return [block for part in parts for block in part]


def _is_simple(value: Any) -> bool:
    """Whether a value fits on one line."""
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, list | tuple):
        short = len(value) <= _LONG or all(isinstance(item, str) for item in value)
        return short and not any(isinstance(item, Mapping | list | tuple) for item in value)
    return True


def _is_table(rows: Mapping[Any, Any]) -> bool:
    """Whether entries are at least two mappings of values on one line that share a name."""
    entries = list(rows.values())
    if len(entries) < 2 or not all(isinstance(e, Mapping) and e and all(map(_is_simple, e.values())) for e in entries):
        return False
    return bool(set.intersection(*(set(entry) for entry in entries)))
