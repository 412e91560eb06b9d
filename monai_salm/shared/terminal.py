"""Text as a terminal may show it: names of files may hold signs that move its cursor or begin a line."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

# Control characters, halves of characters (of names that are no UTF-8), separators of lines and paragraphs.
_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))
# They turn the direction of the text that follows.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """One line of text with control characters, ends of lines among them, written as escapes such as ``\\n``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(sign) for sign in text)


def all_printable(value: Any) -> Any:
    """Plain values, mappings and lists with ``printable`` in place of each text and key."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {all_printable(key): all_printable(item) for key, item in value.items()}
    return [all_printable(item) for item in value] if isinstance(value, list | tuple) else value


def _escaped(sign: str) -> str:
    unsafe = unicodedata.category(sign) in _CATEGORIES or sign in _DIRECTIONS
    return sign.encode("unicode_escape").decode() if unsafe else sign
