"""The grade, and one sentence that says what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai_salm.report.adversaries import CHOICES, adversary_scores, best_of, clean_set_alone
from monai_salm.report.cells import Values, finished, guess_of, names, ran_out, whole_sets
from monai_salm.report.pipelines import worst_in_words

#: Share of the clean set's lead over guessing that victims may keep for "unlearnable" and for "hard to learn".
GRADES = ((0.15, "unlearnable"), (0.5, "hard to learn"), (math.inf, "learnable"))


def grade_of(every: Sequence[Values], pipelines: Sequence[Values] = ()) -> str:
    """``"unlearnable"``, ``"hard to learn"``, ``"learnable"``, or ``"inconclusive"``, by the worst case without clean images.

    One adversary that learns is enough for "learnable"; the better grades need every adversary to be sound. A countermeasure
    or pipeline under which a victim does not learn clean images either is not counted.
    """
    tried = [item for item in every if not item["needs_clean"]]
    ordinary = [row for row in pipelines if row["data"] == "protected" and not row["moot"]]
    recovered = [float(row["recovered"]) for row in ordinary if row["recovered"] is not None]
    if any(share > GRADES[-2][0] for share in (*(item["kept"] for item in tried), *recovered)):
        return GRADES[-1][1]
    sound = [item for item in tried if not item["moot"]]
    if not sound or any(item["problem"] for item in sound) or any(row["problem"] for row in ordinary):
        return "inconclusive"
    # A score that was reached always counts.
    most = max(*recovered, *(item["kept"] for item in tried if math.isfinite(item["kept"])), -math.inf)
    return next(grade for limit, grade in GRADES if most <= limit)


def verdict_of(values: Values) -> str:
    """One sentence that says what was measured, with its conditions."""
    guess = guess_of(values)
    every = adversary_scores(values["summary"], guess)
    conditions = _conditions(values, every)
    tried = [item for item in every if not item["needs_clean"]]
    worst = best_of(tried)
    rows = [row for row in whole_sets(values["summary"]) if row["data"] == "clean"]
    rows.sort(key=lambda row: bool(row["countermeasure"] != "none"))
    clean = {row["victim"]: row["last"] for row in reversed(rows)}  # without countermeasure if there is one
    if worst is None or not clean:
        return f"Inconclusive: there are no cells for clean and protected images to compare; conditions: {conditions}."
    ordinary = worst_in_words(values)
    ordinary = f"{ordinary}; " if ordinary else ""
    if values["grade"] == "inconclusive":
        problems = dict.fromkeys(f"{i['victim']}{_with(i['by'])}: {i['problem']}" for i in tried if i["problem"])
        problems |= dict.fromkeys(_pipeline_problems(values["pipelines"]))
        listed = "; ".join(list(problems)[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        return (
            f"Inconclusive: some victims prove nothing ({listed or 'no countermeasure left any victim able to learn'}), so that "
            f"nothing follows for protection; {ordinary}the highest score with protected images was {worst['score']:.3f} "
            f"{values['metric']}, chance {values['chance']:.3f}; conditions: {conditions}."
        )
    return (
        f"The protected images were {values['grade']} for the victims tried: {ordinary}the worst adversary without clean images "
        f"reached {worst['score']:.3f} {values['metric']} ({_who(worst)}), against {clean.get(worst['victim'], math.nan):.3f} after "
        f"clean images{_largest_share(tried, worst)}{_clean_set(values['summary'], every, worst)}; conditions: {conditions}."
    )


def _pipeline_problems(rows: Sequence[Values]) -> list[str]:
    return [
        f"{row['victim']} in the pipeline {row['pipeline']}: {row['problem']}"
        for row in rows
        if row["data"] == "protected" and row["problem"] and not row["moot"] and row["pipeline"] != "plain"
    ]


def _largest_share(tried: Sequence[Values], worst: Values) -> str:
    """The share that the grade goes by, which may be another victim's than the highest score."""
    known = [item for item in tried if math.isfinite(item["kept"])]
    if not known:
        return ""
    most = max(known, key=lambda item: item["kept"])
    whose = "" if most["kept"] <= worst["kept"] else f" ({_who(most)})"
    return f", at most {max(most['kept'], 0):.0%} of what clean images gain over guessing{whose}"


def _clean_set(rows: Sequence[Values], every: Sequence[Values], without: Values) -> str:
    """The clause about adversaries with a small clean set; empty without any."""
    worst = best_of([item for item in every if item["needs_clean"]])
    if worst is None:
        return ""
    alone = clean_set_alone(rows, worst["victim"])
    end = f"{worst['score']:.3f} ({_who(worst)}" + (")" if alone is None else f"; that set alone gives {alone:.3f})")
    if worst["score"] <= without["score"]:
        return f"; a small clean set of its own brought an adversary no further, {end}"
    return f"; with a small clean set of its own an adversary reached {end}"


def _who(item: Values) -> str:
    return f"{item['victim']}{_with(item['by']) or ' without countermeasure'}, {CHOICES[item['chosen']]}"


def _with(countermeasure: str) -> str:
    return "" if countermeasure == "none" else f" with {countermeasure}"


def _conditions(values: Values, every: Sequence[Values]) -> str:
    cells, protocol = values["cells"], values["protocol"]
    moot = {item["by"] for item in every} - {item["by"] for item in every if not item["moot"]}
    moot |= {row["pipeline"] for row in values["pipelines"] if row["moot"]}
    helped = {cell["countermeasure"] for cell in cells if cell["needs_clean"]}
    tried = [name for name in names(cells, "countermeasure") if name not in (*moot, "none")]
    plain, clean = ", ".join(c for c in tried if c not in helped), ", ".join(c for c in tried if c in helped)
    means = f"countermeasures {plain}" if plain else "no countermeasure, only ordinary training"
    means += f", and with a small clean set {clean}" if clean else ""
    if moot:
        means += f", not counting {', '.join(sorted(moot))}, under which clean images were not learned either"
    width = protocol.get("width")
    size = "" if not isinstance(width, int | float) or width == 1 else f" at {width:g} of the published width"
    upto = "at most " if any(cell["stopped"] == "learned" for cell in cells) else ""
    counts = _span([row["seeds"] for row in values["summary"]] or [0])
    return (
        f"{', '.join(names(cells, 'victim'))} trained from scratch{size}, {upto}{_epochs(cells, protocol)} epochs"
        f"{_ran_out(values)}, {counts} {'seed' if counts == '1' else 'seeds'}, augmentation {protocol.get('augment', '?')}, "
        f"pipelines {', '.join(names(cells, 'pipeline'))}, {means}"
    )


def _ran_out(values: Values) -> str:
    """How many ordinary trainings on protected images ended before the images were learned."""
    ordinary = [cell for cell in finished(values["cells"]) if cell["data"] == "protected"]
    count = sum(ran_out(cell, values["guessing"], values["protocol"].get("learned")) for cell in ordinary)
    return f" ({count} of {len(ordinary)} on protected images ran out of them)" if count else ""


def _epochs(cells: Sequence[Values], protocol: Values) -> str:
    """Epochs that each victim was allowed, else those that it took."""
    given = [setting.get("epochs") for setting in (protocol.get("trained") or {"": protocol}).values()]
    for pipeline in (protocol.get("pipelines") or {}).values():
        given += (pipeline.get("epochs") or {}).values()
    allowed = [count for count in given if count is not None]
    return _span(allowed or [cell["epochs"] for cell in cells if cell["epochs"] is not None])


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "?"
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
