"""Reports on disk: JSON for programs, CSV for tables, one HTML page for readers; and JSON read back."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from monai_salm.report import SCHEMA, UnlearnabilityReport

__all__ = ["ReportError", "UnlearnabilityReport", "read_report", "write_report"]

_NUMBERS = ("chance", "majority", "guessing", "seconds")
_PARTS = ("metric", "noise", "protocol", "cells", "cost", "detection", "utility", "not_evaluated")


class ReportError(ValueError):
    """A file that is no report, or one of another version."""


def write_report(report: UnlearnabilityReport, folder: str | os.PathLike[str], stem: str = "report") -> dict[str, Path]:
    """Write a report as ``<stem>.json``, ``<stem>.csv`` and ``<stem>.html``, replacing what is there.

    Args:
        report: what ``evaluate`` returned.
        folder: made if it is not there.
        stem: file name without its ending.

    Returns:
        The path of each file by its ending.
    """
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    paths = {ending: base / f"{stem}.{ending}" for ending in ("json", "csv", "html")}
    for ending, path in paths.items():
        getattr(report, f"to_{ending}")(path)
    return paths


def read_report(path: str | os.PathLike[str]) -> UnlearnabilityReport:
    """Read a report's JSON back; pictures are not kept in it.

    Args:
        path: a file that ``write_report`` or ``to_json`` wrote.

    Raises:
        ReportError: if the file is no report of this schema.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise ReportError(f"{path} has report schema {found}, this version reads {SCHEMA}: evaluate again")
    try:
        given: dict[str, Any] = {name: values[name] for name in (*_PARTS, *_NUMBERS)}
        given |= {name: math.nan for name in _NUMBERS if given[name] is None}  # JSON could not hold these
        given |= {"notes": tuple(values.get("notes", ())), "classes": values.get("classes", {})}
        report = UnlearnabilityReport(constant=values.get("constant"), **given)
        report.to_dict()  # a broken cell fails here, not in a half-written page
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ReportError(f"{path} is not a whole report: {error!r}") from error
    return report
