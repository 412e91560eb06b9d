"""A report as plain text for the terminal, under the headings of the page and in its order."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from monai_salm.report.cautions import BEFORE, DETECTION, LIMITATIONS, warnings_and_findings
from monai_salm.report.cells import Values
from monai_salm.report.pipelines import PIPELINES, pipeline_note, pipeline_table
from monai_salm.report.tables import aligned, column_widths, text_table

_WIDTH = 110  # of sentences; tables are as wide as their columns


def terminal_text(values: Values) -> str:
    """Lines of text: the verdict, warnings, tables, findings and notes (lines that begin with ``"- "``)."""
    warnings, findings = warnings_and_findings(values)
    claim, _, conditions = str(values["verdict"]).partition("; conditions: ")
    verdict = f"{claim}." if conditions else claim
    parts = [
        "\n".join(["Verdict", _filled(verdict), *([_filled(f"Conditions: {conditions}")] if conditions else [])]),
        *_listed(BEFORE, warnings),
        *pipeline_text(values),
        text_table(values),
        *_listed(DETECTION, findings),
        *_listed(LIMITATIONS, values["notes"]),
    ]
    return "\n\n".join(parts)


def pipeline_text(values: Values) -> list[str]:
    """The table of ordinary pipelines, none where nothing was trained without countermeasure."""
    header, rows = pipeline_table(values)
    if not rows:
        return []
    table = [header, *rows]
    lines = [aligned(row, column_widths(table)) for row in table]
    return ["\n".join([PIPELINES, *lines, _filled(pipeline_note(values))])]


def _listed(heading: str, lines: Iterable[str]) -> list[str]:
    """One part, or none without lines."""
    shown = [_filled(f"- {line}", "  ") for line in lines]
    return ["\n".join([heading, *shown])] if shown else []


def _filled(text: str, indent: str = "") -> str:
    """A sentence in lines of ``_WIDTH`` characters; a longer word stays whole, so that paths can be copied."""
    return textwrap.fill(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
