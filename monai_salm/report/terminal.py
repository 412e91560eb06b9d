"""A report as plain text for the terminal, under the headings of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from monai_salm.report.cautions import BEFORE, DETECTION, LIMITATIONS, warnings_and_findings
from monai_salm.report.pipelines import PIPELINES, pipeline_note, pipeline_table
from monai_salm.report.tables import text_table


def terminal_text(values: Mapping[str, Any]) -> str:
    """Lines of text: the tables, the verdict, warnings, findings and notes (lines that begin with ``"- "``)."""
    warnings, findings = warnings_and_findings(values)
    parts = [
        text_table(values),
        *pipeline_text(values),
        f"Verdict\n{values['verdict']}",
        *_listed(BEFORE, warnings),
        *_listed(DETECTION, findings),
        *_listed(LIMITATIONS, values["notes"]),
    ]
    return "\n\n".join(parts)


def pipeline_text(values: Mapping[str, Any]) -> list[str]:
    """The table of ordinary pipelines, none where nothing was trained without countermeasure."""
    header, rows = pipeline_table(values)
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return ["\n".join([PIPELINES, *lines, pipeline_note(values)])]


def _listed(heading: str, lines: Iterable[str]) -> list[str]:
    """One part, or none without lines."""
    shown = [f"- {line}" for line in lines]
    return ["\n".join([heading, *shown])] if shown else []
