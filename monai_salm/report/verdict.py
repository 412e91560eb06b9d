"""The grade, and one sentence that says what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_salm.report.adversaries import CHOICES, AdversaryScore, adversary_scores, best_of, clean_set_alone
from monai_salm.report.cells import guess_of, names, plain_training, ran_out, whole_sets
from monai_salm.report.pipelines import worst_in_words

#: Share of the clean set's lead over guessing that victims may keep for "unlearnable" and for "hard to learn".
GRADES = ((0.15, "unlearnable"), (0.5, "hard to learn"), (math.inf, "learnable"))


def grade_of(every: Sequence[AdversaryScore], pipelines: Sequence[Mapping[str, Any]] = ()) -> str:
    """``"unlearnable"``, ``"hard to learn"``, ``"learnable"``, or ``"inconclusive"``, by the worst case without clean images.

    One adversary that learns is enough for "learnable"; the better grades need every adversary to be sound. A countermeasure
    or pipeline under which a victim does not learn clean images either is not counted.

    Args:
        every: scores of all adversaries.
        pipelines: rows of ``by_pipeline``.
    """
    tried = [item for item in every if not item.needs_clean]
    ordinary = [row for row in pipelines if row["data"] == "protected" and not row["moot"]]
    recovered = [float(row["recovered"]) for row in ordinary if row["recovered"] is not None]
    if any(share > GRADES[-2][0] for share in (*(item.kept for item in tried), *recovered)):
        return GRADES[-1][1]
    sound = [item for item in tried if not item.moot]
    if not sound or any(item.problem for item in sound) or any(row["problem"] for row in ordinary):
        return "inconclusive"
    # A score that was reached always counts.
    most = max(*recovered, *(item.kept for item in tried if math.isfinite(item.kept)), -math.inf)
    return next(grade for limit, grade in GRADES if most <= limit)


def verdict_of(values: Mapping[str, Any]) -> str:
    """One sentence that says what was measured, with its conditions."""
    guess = guess_of(values)
    every = adversary_scores(values["summary"], guess)
    conditions = _conditions(values, every)
    tried = [item for item in every if not item.needs_clean]
    worst = best_of(tried)
    clean = {row["victim"]: row["last"] for row in reversed(_clean_rows(values["summary"]))}
    if worst is None or not clean:
        return f"Inconclusive: there are no cells for clean and protected images to compare; conditions: {conditions}."
    ordinary = worst_in_words(values)
    ordinary = f"{ordinary}; " if ordinary else ""
    if values["grade"] == "inconclusive":
        problems = dict.fromkeys(f"{i.victim}{_with(i.countermeasure)}: {i.problem}" for i in tried if i.problem)
        problems |= dict.fromkeys(_pipeline_problems(values["pipelines"]))
        listed = "; ".join(list(problems)[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        return (
            f"Inconclusive: some victims prove nothing ({listed or 'no countermeasure left any victim able to learn'}), so that "
            f"nothing follows for protection; {ordinary}the highest score with protected images was {worst.score:.3f} "
            f"{values['metric']}, chance {values['chance']:.3f}; conditions: {conditions}."
        )
    return (
        f"The protected images were {values['grade']} for the victims tried: {ordinary}the worst adversary without clean images "
        f"reached {worst.score:.3f} {values['metric']} ({_who(worst)}), against {clean.get(worst.victim, math.nan):.3f} after clean "
        f"images{_largest_share(tried, worst)}{_clean_set(values['summary'], every, worst)}; conditions: {conditions}."
    )


def _pipeline_problems(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['victim']} in the pipeline {row['pipeline']}: {row['problem']}"
        for row in rows
        if row["data"] == "protected" and row["problem"] and not row["moot"] and row["pipeline"] != "plain"
    ]


def _clean_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Clean rows, those without countermeasure first."""
    return sorted(
        (row for row in whole_sets(rows) if row["data"] == "clean"),
        key=lambda row: bool(row["countermeasure"] != "none"),
    )


def _largest_share(tried: Sequence[AdversaryScore], worst: AdversaryScore) -> str:
    """The share that the grade goes by, which may be another victim's than the highest score."""
    known = [item for item in tried if math.isfinite(item.kept)]
    if not known:
        return ""
    most = max(known, key=lambda item: item.kept)
    whose = "" if most.kept <= worst.kept else f" ({_who(most)})"
    return f", at most {max(most.kept, 0):.0%} of what clean images gain over guessing{whose}"


def _clean_set(rows: Sequence[Mapping[str, Any]], every: Sequence[AdversaryScore], without: AdversaryScore) -> str:
    """The clause about adversaries with a small clean set; empty without any."""
    worst = best_of([item for item in every if item.needs_clean])
    if worst is None:
        return ""
    alone = clean_set_alone(rows, worst.victim)
    end = f"{worst.score:.3f} ({_who(worst)}" + (")" if alone is None else f"; that set alone gives {alone:.3f})")
    if worst.score <= without.score:
        return f"; a small clean set of its own brought an adversary no further, {end}"
    return f"; with a small clean set of its own an adversary reached {end}"


def _who(item: AdversaryScore) -> str:
    return f"{item.victim}{_with(item.countermeasure) or ' without countermeasure'}, {CHOICES[item.chosen]}"


def _with(countermeasure: str) -> str:
    return "" if countermeasure == "none" else f" with {countermeasure}"


def _conditions(values: Mapping[str, Any], every: Sequence[AdversaryScore]) -> str:
    cells, protocol = values["cells"], values["protocol"]
    moot = {item.countermeasure for item in every} - {item.countermeasure for item in every if not item.moot}
    moot |= {row["pipeline"] for row in values["pipelines"] if row["moot"]}
    helped = {cell["countermeasure"] for cell in cells if cell["needs_clean"]}
    tried = [name for name in names(cells, "countermeasure") if name not in (*moot, "none")]
    plain, clean = ", ".join(c for c in tried if c not in helped), ", ".join(c for c in tried if c in helped)
    means = f"countermeasures {plain}" if plain else "no countermeasure, only ordinary training"
    ordinary = ", ".join(names(cells, "pipeline"))
    upto = "at most " if any(cell["stopped"] == "learned" for cell in cells) else ""
    seeds = [row["seeds"] for row in values["summary"]] or [0]
    counts = _span(seeds)
    return (
        f"{', '.join(names(cells, 'victim'))} trained from scratch{_width(protocol)}, {upto}{_epochs(cells, protocol)} epochs"
        f"{_ran_out(values)}, {counts} {'seed' if counts == '1' else 'seeds'}, augmentation {protocol.get('augment', '?')}, "
        f"pipelines {ordinary}, {means}{f', and with a small clean set {clean}' if clean else ''}"
        + (
            f", not counting {', '.join(sorted(moot))}, under which clean images were not learned either"
            if moot
            else ""
        )
    )


def _width(protocol: Mapping[str, Any]) -> str:
    width = protocol.get("width")
    return "" if not isinstance(width, int | float) or width == 1 else f" at {width:g} of the published width"


def _ran_out(values: Mapping[str, Any]) -> str:
    """How many ordinary trainings on protected images ended before the images were learned."""
    cells = values["cells"]
    ordinary = [
        c
        for c in plain_training(cells)
        if c["countermeasure"] == "none" and c["data"] == "protected" and c["stopped"] is not None
    ]
    count = sum(ran_out(cell, values["guessing"], values["protocol"].get("learned")) for cell in ordinary)
    return f" ({count} of {len(ordinary)} on protected images ran out of them)" if count else ""


def _epochs(cells: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> str:
    """Epochs that each victim was allowed, else those that it took."""
    settings = [setting.get("epochs") for setting in (protocol.get("trained") or {}).values()] or [
        protocol.get("epochs")
    ]
    given = [count for count in settings if count is not None]
    for pipeline in (protocol.get("pipelines") or {}).values():
        given += (pipeline.get("epochs") or {}).values()
    return _span(given or [cell["epochs"] for cell in cells if cell["epochs"] is not None])


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "?"
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
