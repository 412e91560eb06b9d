"""Means over seeds, and how they are written in tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def summarise(key: tuple[str, str, str], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and standard deviations of one victim's cells, which differ in their seeds.

    Args:
        key: victim, data and countermeasure.
        cells: one a seed; scores that JSON could not hold may be None.
    """
    victim, data, countermeasure = key
    row: dict[str, Any] = {"victim": victim, "data": data, "countermeasure": countermeasure, "seeds": len(cells)}
    further = dict.fromkeys(name for cell in cells for name in cell.get("scores", {}))
    for name in ("last", "peak", "train_score", *further):
        values = [cell[name] if name in cell else cell.get("scores", {}).get(name) for cell in cells]
        numbers = [float("nan") if value is None else float(value) for value in values]
        row[name] = statistics.fmean(numbers)
        # statistics.stdev fails on what is not finite.
        row[f"{name}_sd"] = statistics.stdev(numbers) if len(numbers) > 1 and math.isfinite(row[name]) else None
    row["undertrained"] = any(cell["undertrained"] for cell in cells)
    return row


def mean_and_sd(row: Mapping[str, Any] | None, score: str) -> str:
    """One entry of a table: ``0.160 ± 0.014``, ``*`` where a victim is undertrained, ``-`` where there is no number."""
    if row is None or not math.isfinite(row.get(score, math.nan)):
        return "-"
    spread = "" if row[f"{score}_sd"] is None else f" ± {row[f'{score}_sd']:.3f}"
    return f"{row[score]:.3f}{spread}{' *' if row['undertrained'] else ''}"


def score_title(name: str) -> str:
    """A score's name for readers."""
    if name == "auc":
        return "AUC"
    stem, _, number = name.rpartition("_")
    return f"{stem}, class {number}" if number.isdigit() else name.replace("_", " ")
