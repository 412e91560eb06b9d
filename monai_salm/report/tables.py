"""Scores as tables of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai_salm.report.adversaries import CHOICES
from monai_salm.report.cells import by_key, names, whole_sets

#: A part of a table: its title, and rows of a label and one text for each victim, or of one text alone.
Part = tuple[str, list[list[str]]]

# Countermeasures whose rows hold these scores already.
_SAME = {"early": "early_stopping", "early_clean": "early_stopping_clean"}
UNDERTRAINED = "* undertrained: did not learn its own training images, so a poor score is no sign of protection"
SURROGATE = "† architecture that the noise was made against"


def text_table(values: Mapping[str, Any]) -> str:
    """A row for each kind of data and countermeasure, a column for each victim, mean and standard deviation over seeds.

    The headline score of the last epoch comes first; mixtures, the worst case and the other scores follow.
    """
    header = [f"{values['metric']} (last epoch)", *(marked(values, victim) for victim in victims_of(values))]
    parts = [(title, part) for title, part in (*_parts(values), *_further(values)) if part]
    rows = [row for _, part in parts for row in part if len(row) > 1]  # a row of one text may run over the columns
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=len(row) > 1)).rstrip()

    lines = [line(header), "  ".join("-" * width for width in widths)]
    for title, part in parts:
        lines += ["", title] if title else []
        lines += [line(row) for row in part]
    notes = [
        note for note in (UNDERTRAINED, SURROGATE) if any(note[0] in text for row in (header, *rows) for text in row)
    ]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def victims_of(values: Mapping[str, Any]) -> list[str]:
    """The victims, in the order in which they were trained."""
    return names(values["summary"], "victim")


def marked(values: Mapping[str, Any], victim: str) -> str:
    """A victim's name, with a dagger if the noise was made against its architecture."""
    own = any(row["is_surrogate"] for row in values["summary"] if row["victim"] == victim)
    return f"{victim} †" if own else victim


def row_label(data: str, countermeasure: str) -> str:
    """``"random noise"``, ``"protected + jpeg"``."""
    return data.replace("_", " ") + ("" if countermeasure == "none" else f" + {countermeasure.replace('_', ' ')}")


def mean_and_sd(row: Mapping[str, Any] | None, score: str) -> str:
    """One entry of a table: ``0.160 ± 0.014``, ``*`` where a victim is undertrained, ``-`` where there is no number."""
    value = row.get(score) if row else None
    if row is None or value is None or not math.isfinite(value):
        return "-"
    spread = row.get(f"{score}_sd")
    return f"{value:.3f}{'' if spread is None else f' ± {spread:.3f}'}{' *' if row.get('undertrained') else ''}"


def class_names(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The names of the classes in their order; none if they are not known."""
    return list(next(iter(classes.values()), ()))


def with_class_names(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """``cost`` or ``utility`` of a report, with the name of the class beside each class number."""
    found = dict(values)
    for key in ("by_class", "per_class"):
        if isinstance(rows := found.get(key), Mapping):
            found[key] = {
                number: {"name": name, **row} if (name := _name_of(number, names)) != number else row
                for number, row in rows.items()
            }
    return found


def _name_of(number: str, names: Sequence[str]) -> str:
    return names[int(number)] if number.isdecimal() and int(number) < len(names) else number


def score_title(name: str, names: Sequence[str] = ()) -> str:
    """A score's name for readers."""
    if name in ("auc", "f1"):
        return name.upper()
    stem, _, number = name.rpartition("_")
    if not number.isdigit():
        return name.replace("_", " ")
    called = _name_of(number, names)
    return f"{stem}, class {number}" if called == number else f"{stem}, {called}"


def further_scores(cells: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Scores beside the headline; one class alone is the headline again."""
    found = dict.fromkeys(name for cell in cells for name in cell.get("scores", {}) if name != metric)
    return [] if list(found) == [f"{metric}_1"] else list(found)


def mixtures(values: Mapping[str, Any]) -> list[tuple[str, list[tuple[float, Any, Any]]]]:
    """For each victim with mixtures: fraction, row of the mixture, row of its clean part; clean and protected set at the ends."""
    rows = by_key(values["summary"])
    found = []
    for victim in victims_of(values):
        own = {f for v, data, c, f in rows if v == victim and c == "none" and data in ("protected", "clean_part")}
        parts = sorted(f for f in own if f < 1)
        clean, protected = (rows.get((victim, data, "none", 1.0)) for data in ("clean", "protected"))
        between = [
            (f, rows.get((victim, "protected", "none", f)), rows.get((victim, "clean_part", "none", f))) for f in parts
        ]
        if between:
            found.append((victim, [(0.0, clean, clean), *between, (1.0, protected, None)]))
    return found


def _parts(values: Mapping[str, Any]) -> list[Part]:
    victims, rows = victims_of(values), by_key(values["summary"])
    guesses = {"chance": "chance", "majority": "majority", "constant": "best constant map"}
    known = {title: values[name] for name, title in guesses.items() if name != "constant" or values[name] is not None}
    guess = [[title, *[_fixed(value)] * len(victims)] for title, value in known.items()]
    shown = dict.fromkeys((row["data"], row["countermeasure"]) for row in whole_sets(values["summary"]))
    ordered = sorted(shown, key=lambda pair: bool(pair[1] != "none"))  # ordinary training first
    return [
        ("", [*guess, *_score_rows(rows, victims, ordered, "last")]),
        ("partly protected: all images, and the clean ones of them alone", _mixture_rows(values)),
        ("worst case: the best that any adversary reached with the protected images", _worst_rows(values)),
    ]


def _score_rows(
    rows: Mapping[Any, Mapping[str, Any]], victims: Sequence[str], shown: Iterable[tuple[str, str]], score: str
) -> list[list[str]]:
    return [
        [row_label(data, way), *(mean_and_sd(rows.get((victim, data, way, 1.0)), score) for victim in victims)]
        for data, way in shown
    ]


def _mixture_rows(values: Mapping[str, Any]) -> list[list[str]]:
    by_victim = dict(mixtures(values))
    found: dict[tuple[float, str], dict[str, str]] = {}
    for victim, points in by_victim.items():
        for fraction, mixture, part in points[1:-1]:
            found.setdefault((fraction, "all images"), {})[victim] = mean_and_sd(mixture, "last")
            found.setdefault((fraction, "clean part alone"), {})[victim] = mean_and_sd(part, "last")
    return [
        [f"{fraction:.0%} protected, {what}", *(texts.get(victim, "-") for victim in victims_of(values))]
        for (fraction, what), texts in sorted(found.items(), key=lambda item: (item[0][0], item[0][1]))
    ]


def _worst_rows(values: Mapping[str, Any]) -> list[list[str]]:
    found: list[list[str]] = []
    for needs_clean, title in ((False, "without clean images"), (True, "with a small clean set")):
        cases = {case["victim"]: case for case in values["worst_case"] if case["needs_clean"] is needs_clean}
        own = [cases.get(victim) for victim in victims_of(values)]
        if not cases:
            continue
        found.append([title, *(mean_and_sd(case and {**case, "score_sd": case["sd"]}, "score") for case in own)])
        if any(case and case["alone"] is not None for case in own):
            found.append(["that set alone", *(mean_and_sd(case, "alone") for case in own)])
        found += [[f"  {adversary_of(case)} ({case['victim']})"] for case in cases.values()]
    return found


def adversary_of(case: Mapping[str, Any]) -> str:
    """The adversary of a worst case: ``"jpeg, stopped early by held-out images"``."""
    way = "no countermeasure" if case["by"] == "none" else str(case["by"]).replace("_", " ")
    return f"{way}{'' if case['chosen'] == 'last' else ', ' + CHOICES[case['chosen']]}"


def _further(values: Mapping[str, Any]) -> list[Part]:
    """The other scores, of ordinary training only: the table would be endless."""
    metric, cells = values["metric"], values["cells"]
    plain = [row for row in whole_sets(values["summary"]) if row["countermeasure"] == "none"]
    shown = dict.fromkeys((row["data"], row["countermeasure"]) for row in plain)
    titles = {
        "early": f"{metric} (epoch chosen with held-out images of the same kind)",
        "early_clean": f"{metric} (epoch chosen with a small clean set)",
        "peak": f"{metric} (peak epoch: an oracle, chosen with the test labels)",
    }
    tried = names(whole_sets(values["summary"]), "countermeasure")
    titles = {
        name: title
        for name, title in titles.items()
        if any(row.get(name) is not None for row in plain) and _SAME.get(name) not in tried
    }
    # Guessing and always giving one answer have the same score here: the mean of the recalls, and half the area.
    known = {"balanced_accuracy": values["chance"], "auc": 0.5}
    for name in further_scores(cells, metric):
        end = f", chance {_fixed(known[name])}" if name in known else ""
        titles[name] = f"{score_title(name, class_names(values.get('classes', {})))} (last epoch{end})"
    rows, victims = by_key(values["summary"]), victims_of(values)
    return [(title, _score_rows(rows, victims, shown, score)) for score, title in titles.items() if shown]


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
