"""Pieces of a page: escaped text, sections, tables, and nested values of any kind as lists and tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

# Longer rows of numbers are folded away.
_LONG = 12
# Tables of more columns are shrunk in print.
_WIDE = 7
# Headings go no deeper than this.
_DEEPEST = 6


def escape(value: object) -> str:
    """Text that can stand anywhere in a page."""
    return html.escape(str(value))


def words(name: object) -> str:
    """A field's name for readers: ``"bias_shift"`` -> ``"bias shift"``."""
    return str(name).replace("_", " ")


def section(title: str, content: str) -> str:
    """A part of the page with its heading; nothing if it has no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def fold(title: str, content: str) -> str:
    """A part that is opened by a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def small(text: str) -> str:
    """A note below what it is about."""
    return f"<p><small>{escape(text)}</small></p>"


def bullets(texts: Sequence[object]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """A table in a box of its own that scrolls, so that the page does not.

    Args:
        header: titles of the columns.
        rows: a title and texts each.
        caption: read aloud by screen readers.
        kind: class of the table; ``"wide"`` shrinks it in print.
    """
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = (
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(c)}</td>" for c in row[1:]) + "</tr>"
        for row in rows
    )
    return table_box(f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>", caption, kind)


def table_box(content: str, caption: str, kind: str = "") -> str:
    """Rows of a table as a table; it can be reached and scrolled by keyboard."""
    label = f' aria-label="{escape(caption)}"' if caption else ""
    return f'<div class="scroll" tabindex="0" role="region"{label}><table class="{escape(kind)}"{label}>{content}</table></div>'


def number(value: object, unit: str = "") -> str:
    """A value for readers: four digits, ``none`` for what is not there, yes and no."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}{unit}" if abs(value) < 1e4 else f"{value:,.0f}{unit}"
    return f"{value}{unit}"


def flat(value: object) -> str:
    """A value on one line, whatever it holds."""
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(key)} {flat(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value)) or "none"
    return number(value)


def listing(values: Mapping[str, Any]) -> str:
    """Names and values, each value on one line."""
    items = "".join(f"<dt>{escape(words(key))}</dt><dd>{escape(flat(value))}</dd>" for key, value in values.items())
    return f"<dl>{items}</dl>" if items else ""


def nested(values: Mapping[str, Any], level: int = 3) -> str:
    """Show a mapping of which nothing is known but that it holds plain values.

    ``findings`` are a list of sentences; numbers and texts a list of names and values; mappings whose entries are alike, and
    lists of such, tables; other mappings parts with headings.

    Args:
        values: names and plain values.
        level: of the headings.
    """
    simple = {key: value for key, value in values.items() if key != "findings" and _is_simple(value)}
    parts = [bullets(list(map(str, values.get("findings") or ()))), listing(simple)]
    further = {key: value for key, value in values.items() if key not in simple and key != "findings"}
    alike = {
        key: value
        for key, value in further.items()
        if isinstance(value, Mapping) and all(map(_is_simple, value.values()))
    }
    if _is_table(alike):
        parts.append(_shown("", alike, level))
        further = {key: value for key, value in further.items() if key not in alike}
    for key, value in further.items():
        if isinstance(value, list | tuple) and not any(isinstance(item, Mapping) for item in value):
            parts.append(fold(f"{words(key)}: {len(value)} values", f"<p>{escape(flat(value))}</p>"))
        else:
            heading = f"<h{min(level, _DEEPEST)}>{escape(words(key))}</h{min(level, _DEEPEST)}>"
            parts.append(heading + _shown(key, value, level))
    return "".join(parts)


def _shown(key: str, value: Any, level: int) -> str:
    rows = value if isinstance(value, Mapping) else dict(enumerate(value, start=1))
    if _is_table(rows):
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        first = "class" if key == "by_class" else ""
        lines = [[words(name), *(flat(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()]
        return table([first, *map(words, columns)], lines, words(key), "wide" if len(columns) > _WIDE else "")
    if isinstance(value, Mapping):
        return nested(value, level + 1)
    return "".join(
        nested(item, level + 1) if isinstance(item, Mapping) else f"<p>{escape(flat(item))}</p>" for item in value
    )


def _is_simple(value: Any) -> bool:
    """Whether a value fits on one line."""
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, list | tuple):
        short = len(value) <= _LONG or all(isinstance(item, str) for item in value)
        return short and not any(isinstance(item, Mapping | list | tuple) for item in value)
    return True


def _is_table(rows: Mapping[Any, Any]) -> bool:
    """Whether entries are alike: at least two mappings of values on one line that share a name."""
    entries = list(rows.values())
    if len(entries) < 2 or not all(isinstance(e, Mapping) and e and all(map(_is_simple, e.values())) for e in entries):
        return False
    return bool(set.intersection(*(set(entry) for entry in entries)))
