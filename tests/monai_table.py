"""What was run in MONAI, line by line, as the tables of docs/monai.md.

``python tests/monai_table.py`` writes them anew; ``test_monai_page.py`` holds the page to them. The lines are the rows that the
tests run, so a line that is not run, or a row that is not shown, is found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import test_monai_caches
import test_monai_chains
import test_monai_datasets
import test_monai_files
import test_monai_inverse
import test_monai_loaders
import test_monai_tutorials
from generated_pages import page_between

PAGE = Path(__file__).resolve().parents[1] / "docs" / "monai.md"
BEGIN, END = "<!-- tables: python tests/monai_table.py -->", "<!-- end of tables -->"
PARTS: list[Any] = [
    test_monai_datasets,
    test_monai_loaders,
    test_monai_chains,
    test_monai_inverse,
    test_monai_files,
    test_monai_caches,
    test_monai_tutorials,
]


def table() -> str:
    """All tables as they stand in the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for part in PARTS:
        yield from _section(part.TITLE, [(row.what, row.result, row.remedy) for row in part.ROWS])
    refused = [(row.what, f'refused: "... {row.result} ..."', row.remedy) for row in test_monai_chains.REFUSED]
    yield from _section("In the wrong place", refused)


def _section(title: str, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    yield from (f"### {title}", "", "| what was run | result | remedy, or what to know |", "|---|---|---|")
    yield from (f"| {what} | {result} | {remedy} |" for what, result, remedy in rows)
    yield ""


def page_with(tables: str) -> str:
    """The page with these tables."""
    return page_between(PAGE, BEGIN, END, tables)


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
    sys.exit(0)
