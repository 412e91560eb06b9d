"""Scores of adversaries with the protected images, and the worst case over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_salm.report.cells import LEAST_LEAD, whole_sets

#: The adversary that trains on its clean images alone: its score says nothing of the protection.
CLEAN_ALONE = "clean_subset"
#: How an adversary chooses a network. The peak epoch is not among them: no adversary has the test labels.
CHOICES = {
    "last": "after the last epoch",
    "early": "stopped early by held-out images",
    "unfiltered": "on unfiltered test images",
    "early_clean": "stopped early by clean images",
}


@dataclass(frozen=True, kw_only=True)
class AdversaryScore:
    """Score of one adversary with the protected images, mean over seeds.

    Args:
        victim: architecture.
        countermeasure: of the adversary.
        chosen: which of the scores it is: ``last``, ``early``, ``unfiltered`` or ``early_clean``.
        needs_clean: whether it took a small clean set.
        score: headline score on the clean test set.
        sd: standard deviation over seeds, None for one seed.
        kept: share of the clean set's lead over guessing that it keeps; NaN where there is no such lead.
        problem: why the score cannot speak for the protection; empty where it can.
        moot: under the countermeasure victims do not learn clean images either, so it is no adversary.
    """

    victim: str
    countermeasure: str
    chosen: str
    needs_clean: bool
    score: float
    sd: float | None
    kept: float
    problem: str
    moot: bool


def add_kept(rows: Sequence[dict[str, Any]], guess: float) -> None:
    """Give each row ``kept``: the share of its victim's clean lead over guessing that the last score keeps, or None.

    The clean reference is the same victim on clean images without countermeasure, else with the same countermeasure.
    """
    for row in rows:
        lead, _ = _lead(rows, row, guess)
        row["kept"] = (row["last"] - guess) / lead if math.isfinite(lead) and math.isfinite(row["last"]) else None


def _lead(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], guess: float) -> tuple[float, str]:
    """The clean lead that is the reference of a row, NaN with the reason where there is none."""
    same = [r for r in whole_sets(rows) if r["data"] == "clean" and r["victim"] == row["victim"]]
    clean = {r["countermeasure"]: r for r in same}
    reference = clean.get("none") or clean.get(row["countermeasure"])
    if reference is None:
        return math.nan, "no victim of clean images to compare with"
    if reference["undertrained"]:
        return math.nan, "the victim of clean images is undertrained"
    lead = reference["last"] - guess
    if not lead > LEAST_LEAD * (1 - guess):
        early = ", where training stopped early: --all-epochs trains on" if reference["stopped"]["learned"] else ""
        return (
            math.nan,
            f"too small a score on clean images ({reference['last']:.3f}, guessing gives {guess:.3f}{early})",
        )
    return lead, ""


def adversary_scores(rows: Sequence[Mapping[str, Any]], guess: float) -> list[AdversaryScore]:
    """Every score of an adversary with the fully protected set, of means over seeds; ``guess`` is the score of guessing."""
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
        for chosen in CHOICES:
            score = row.get(chosen)
            if score is None:
                continue
            found.append(
                AdversaryScore(
                    victim=row["victim"],
                    countermeasure=row["countermeasure"],
                    chosen=chosen,
                    needs_clean=row["needs_clean"] or chosen == "early_clean",
                    score=score,
                    sd=row[f"{chosen}_sd"],
                    kept=(score - guess) / lead,
                    problem=problem or ("" if math.isfinite(score) else "the score is not a number"),
                    moot=moot,
                )
            )
    return found


def prevents_learning(row: Mapping[str, Any], peer: Mapping[str, Any], guess: float) -> bool:
    """Whether a victim does not learn clean images under a countermeasure: ``row`` on protected, ``peer`` on clean images."""
    if peer["last"] is None:
        return True
    nothing_learned = not peer["last"] > guess + LEAST_LEAD * (1 - guess)
    return bool(nothing_learned or (row["undertrained"] and peer["undertrained"]))


def worst_cases(rows: Sequence[Mapping[str, Any]], guess: float) -> list[dict[str, Any]]:
    """For each victim the best score of an adversary without clean images and, if tried, with them.

    An adversary with clean images may leave them out, so the second is never below the first. ``alone`` is the score of the
    clean images by themselves.
    """
    every = adversary_scores(rows, guess)
    found = []
    for victim in dict.fromkeys(item.victim for item in every):
        own = [item for item in every if item.victim == victim]
        for with_clean in (False, True) if any(item.needs_clean for item in own) else (False,):
            worst = best_of([item for item in own if with_clean or not item.needs_clean])
            if worst is None:
                continue
            found.append(
                {
                    "victim": victim,
                    "needs_clean": with_clean,
                    "score": worst.score,
                    "sd": worst.sd,
                    "by": worst.countermeasure,
                    "chosen": worst.chosen,
                    "kept": worst.kept,
                    "alone": clean_set_alone(rows, victim) if with_clean else None,
                }
            )
    return found


def best_of(items: Sequence[AdversaryScore]) -> AdversaryScore | None:
    """The highest score, None without any."""
    finite = [item for item in items if math.isfinite(item.score)]
    return max(finite, key=lambda item: item.score) if finite else None


def clean_set_alone(rows: Sequence[Mapping[str, Any]], victim: str) -> float | None:
    """Score of the adversary that trains on its clean images alone, None if it was not tried."""
    found = [r for r in whole_sets(rows) if r["victim"] == victim and r["countermeasure"] == CLEAN_ALONE]
    # It uses no published images: any of its rows has the score.
    found.sort(key=lambda row: bool(row["data"] != "protected"))
    return float(found[0]["last"]) if found else None
