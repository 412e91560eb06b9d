"""Scores of ordinary trainers with the protected images: recovered shares by pipeline, and the worst pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai_salm.report.cells import Values, clean_problem, mean_and_sd, names, words

_BALANCED = "balanced_accuracy"
#: Heading, the same on the page and in the terminal.
PIPELINES = "Ordinary pipelines"


def by_pipeline(rows: Sequence[Values], values: Values) -> list[dict[str, Any]]:
    """A row for each victim, pipeline and training set without countermeasure.

    ``recovered`` is ``(counted - guess) / (clean - guess)``: ``counted`` is the score that ``recovered_by`` names, ``clean`` that
    of the same victim on clean images in the same pipeline.
    """
    by, shown = recovered_by(rows, values), _ordinary(rows)
    name, guess = "last" if by["score"] == values["metric"] else by["score"], by["guess"]
    clean = {(r["victim"], r["pipeline"]): r for r in shown if r["data"] == "clean"}
    order = list(dict.fromkeys((r["victim"], r["pipeline"]) for r in shown))
    order.sort(key=lambda pair: names(shown, "victim").index(pair[0]))
    found = []
    for row in sorted(shown, key=lambda r: order.index((r["victim"], r["pipeline"]))):
        reference = clean.get((row["victim"], row["pipeline"]))
        problem = clean_problem(reference, name, guess)
        found.append(
            {
                **{key: row[key] for key in ("victim", "pipeline", "data", "seeds", "undertrained")},
                **{key: row.get(key) for key in ("last", "last_sd", "peak", "peak_sd")},
                "counted": row[name],
                "counted_sd": row[f"{name}_sd"],
                "recovered": None if reference is None or problem else _share(row[name], reference[name], guess),
                "problem": problem or ("the victim is undertrained" if row["undertrained"] else ""),
                # A pipeline in which clean images are not learned is not counted.
                "moot": row["pipeline"] != "plain" and bool(problem),
            }
        )
    return found


def recovered_by(rows: Sequence[Values], values: Values) -> dict[str, Any]:
    """The score of recovered shares: ``score``, its ``guess``, and where the guess comes from (``guess_by``)."""
    ordinary = _ordinary(rows)
    if ordinary and all(row.get(_BALANCED) is not None for row in ordinary):
        return {"score": _BALANCED, "guess": values["chance"], "guess_by": "chance"}
    if values.get("constant") is not None:
        return {"score": values["metric"], "guess": values["constant"], "guess_by": "best_constant_map"}
    return {"score": values["metric"], "guess": max(values["chance"], values["majority"]), "guess_by": "guessing"}


def _ordinary(rows: Sequence[Values]) -> list[Values]:
    """Rows of whole sets without countermeasure, of the training sets that every pipeline has."""
    found = [r for r in rows if r["countermeasure"] == "none" and r["fraction"] == 1.0]
    everywhere = {r["data"] for r in found if r["pipeline"] != "plain"} or {"clean", "protected"}
    return [r for r in found if r["data"] in everywhere]


def _share(score: float, clean: float, guess: float) -> float | None:
    share = (score - guess) / (clean - guess)
    return share if math.isfinite(share) else None


def worst_pipeline(rows: Sequence[Values]) -> Values | None:
    """The row of ``by_pipeline`` in which most was recovered from the protected images, None without any."""
    known = [row for row in rows if row["data"] == "protected" and row["recovered"] is not None]
    return max(known, key=lambda row: float(row["recovered"])) if known else None


def worst_in_words(values: Values) -> str:
    """The clause of the verdict that names the worst ordinary pipeline; empty where no share is known."""
    rows, worst = values["pipelines"], values["worst_pipeline"]
    if worst is None:
        return ""
    place = (worst["victim"], worst["pipeline"])
    clean = next(r for r in rows if r["data"] == "clean" and (r["victim"], r["pipeline"]) == place)
    tried = names(rows, "pipeline")
    which = f"the worst of {len(tried)} ordinary pipelines" if len(tried) > 1 else "the only ordinary pipeline tried"
    score, guess = _score_and_guess(values)
    return (
        f"{which} was {worst['pipeline']}, which recovered {max(worst['recovered'], 0):.0%} ({worst['victim']}: {score} "
        f"{worst['counted']:.3f} after protected images, {clean['counted']:.3f} after clean ones, {guess})"
    )


def _score_and_guess(values: Values) -> tuple[str, str]:
    """The score that is counted, and what guessing gives in it, for readers."""
    by = values["recovered_by"]
    guess = "-" if by["guess"] is None else f"{by['guess']:.3f}"
    return words(by["score"]), f"{words(by['guess_by'])} {guess}"


def pipeline_table(values: Values) -> tuple[list[str], list[list[str]]]:
    """The table of pipelines as texts: titles of the columns, and the rows."""
    numbers = {"last epoch": "last", "best epoch": "peak"}
    if values["recovered_by"]["score"] != values["metric"]:
        numbers[_score_and_guess(values)[0]] = "counted"
    rows = [
        [
            *(words(row[name]) for name in ("victim", "pipeline", "data")),
            *(mean_and_sd(row, name, marked=name == "last") for name in numbers.values()),
            "" if row["data"] == "clean" else "-" if row["recovered"] is None else f"{row['recovered']:.2f}",
        ]
        for row in values["pipelines"]
    ]
    return ["victim", "pipeline", "data", *numbers, "recovered"], rows


def pipeline_note(values: Values) -> str:
    """The note on the table's columns."""
    score, guess = _score_and_guess(values)
    return (
        f"Epochs: {values['metric']} on clean test images, the best chosen with the test labels. Recovered: share of the way from "
        f"{guess} to the clean score of the same pipeline, by {score} of the last epoch."
    )
