"""Scores of adversaries with the protected images, and the worst case over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai_salm.report.cells import LEAST_LEAD, Values, clean_problem, names, whole_sets

#: The adversary that trains on its clean images alone: its score says nothing of the protection.
CLEAN_ALONE = "clean_subset"
#: How an adversary chooses a network. The peak epoch is not among them: no adversary has the test labels.
CHOICES = {
    "last": "after the last epoch",
    "early": "stopped early by held-out images",
    "unfiltered": "on unfiltered test images",
    "early_clean": "stopped early by clean images",
}


def add_kept(rows: Sequence[dict[str, Any]], guess: float) -> None:
    """Give each row ``kept``: the share of its victim's clean lead over guessing that the last score keeps, or None.

    The clean reference is the same victim on clean images without countermeasure, else with the same countermeasure.
    """
    for row in rows:
        lead, _ = _lead(rows, row, guess)
        row["kept"] = (row["last"] - guess) / lead if math.isfinite(lead) and math.isfinite(row["last"]) else None


def _lead(rows: Sequence[Values], row: Values, guess: float) -> tuple[float, str]:
    """The clean lead that is the reference of a row, NaN with the reason where there is none."""
    same = [r for r in whole_sets(rows) if r["data"] == "clean" and r["victim"] == row["victim"]]
    clean = {r["countermeasure"]: r for r in same}
    reference = clean.get("none") or clean.get(row["countermeasure"])
    problem = clean_problem(reference, "last", guess)
    return (math.nan, problem) if reference is None or problem else (reference["last"] - guess, "")


def adversary_scores(rows: Sequence[Values], guess: float) -> Sequence[Values]:
    """Every score of an adversary with the fully protected set, of means over seeds; ``guess`` is the score of guessing.

    ``kept`` is the share of the clean set's lead over guessing, NaN without such a lead; ``problem`` why the score cannot speak
    for the protection; ``moot`` that victims do not learn clean images under the countermeasure either.
    """
    complete = whole_sets(rows)
    clean = {(r["victim"], r["countermeasure"]): r for r in complete if r["data"] == "clean"}
    found = []
    for row in complete:
        if row["data"] != "protected":
            continue
        lead, problem = _lead(rows, row, guess)
        peer = clean.get((row["victim"], row["countermeasure"]))
        if row["undertrained"]:
            problem = problem or "the victim of protected images is undertrained"
        moot = row["countermeasure"] != "none" and peer is not None and prevents_learning(row, peer, guess)
        found += [
            {
                "victim": row["victim"],
                "needs_clean": row["needs_clean"] or chosen == "early_clean",
                "score": score,
                "sd": row[f"{chosen}_sd"],
                "by": row["countermeasure"],
                "chosen": chosen,
                "kept": (score - guess) / lead,
                "problem": problem or ("" if math.isfinite(score) else "the score is not a number"),
                "moot": moot,
            }
            for chosen in CHOICES
            if (score := row.get(chosen)) is not None
        ]
    return found


def prevents_learning(row: Values, peer: Values, guess: float) -> bool:
    """Whether a victim does not learn clean images under a countermeasure: ``row`` on protected, ``peer`` on clean images."""
    if peer["last"] is None:
        return True
    nothing_learned = not peer["last"] > guess + LEAST_LEAD * (1 - guess)
    return bool(nothing_learned or (row["undertrained"] and peer["undertrained"]))


def worst_cases(rows: Sequence[Values], guess: float) -> list[dict[str, Any]]:
    """For each victim the best score of an adversary without clean images and, if tried, with them.

    An adversary with clean images may leave them out, so the second is never below the first. ``alone`` is the score of the
    clean images by themselves.
    """
    every = adversary_scores(rows, guess)
    found = []
    for victim in names(every, "victim"):
        own = [item for item in every if item["victim"] == victim]
        for with_clean in (False, True) if any(item["needs_clean"] for item in own) else (False,):
            worst = best_of([item for item in own if with_clean or not item["needs_clean"]])
            if worst is not None:
                case = {name: value for name, value in worst.items() if name not in ("problem", "moot")}
                alone = clean_set_alone(rows, victim) if with_clean else None
                found.append({**case, "needs_clean": with_clean, "alone": alone})
    return found


def best_of(items: Sequence[Values]) -> Values | None:
    """The highest score, None without any."""
    finite = [item for item in items if math.isfinite(item["score"])]
    return max(finite, key=lambda item: float(item["score"])) if finite else None


def clean_set_alone(rows: Sequence[Values], victim: str) -> float | None:
    """Score of the adversary that trains on its clean images alone, None if it was not tried."""
    found = [r for r in whole_sets(rows) if r["victim"] == victim and r["countermeasure"] == CLEAN_ALONE]
    # It uses no published images: any of its rows has the score.
    found.sort(key=lambda row: bool(row["data"] != "protected"))
    return float(found[0]["last"]) if found else None
