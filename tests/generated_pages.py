"""Pages of docs/ that hold tables which the tests write."""

from __future__ import annotations

from pathlib import Path


def page_between(page: Path, begin: str, end: str, tables: str) -> str:
    """The page with these tables between its two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    return f"{before}{begin}\n\n{tables.strip()}\n\n{end}{rest.partition(end)[2]}"
