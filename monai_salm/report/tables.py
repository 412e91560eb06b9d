"""Scores as tables of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from monai_salm.report.adversaries import CHOICES
from monai_salm.report.cells import Scores, Values, mean_and_sd, names, whole_sets, words

#: A part of a table: its title, and rows of a label and one text for each victim, or of one text alone.
Part = tuple[str, list[list[str]]]

# Countermeasures whose rows hold these scores already.
_SAME = {"early": "early_stopping", "early_clean": "early_stopping_clean"}
UNDERTRAINED = "* undertrained: did not learn its own training images, so a poor score is no sign of protection"
SURROGATE = "† architecture that the noise was made against"


def text_table(values: Values) -> str:
    """A row for each kind of data and countermeasure, a column for each victim, mean and standard deviation over seeds.

    The headline score of the last epoch comes first; mixtures, the worst case and the other scores follow.
    """
    scores = Scores.from_rows(values["summary"])
    header = [f"{values['metric']} (last epoch)", *(marked(values, victim) for victim in scores.victims)]
    parts = [(title, part) for title, part in (*_parts(values, scores), *_further(values, scores)) if part]
    rows = [row for _, part in parts for row in part if len(row) > 1]  # a row of one text may run over the columns
    widths = column_widths([header, *rows])
    lines = [aligned(header, widths), "  ".join("-" * width for width in widths)]
    for title, part in parts:
        lines += ["", title] if title else []
        lines += [aligned(row, widths) for row in part]
    marks = "".join(text for row in (header, *rows) for text in row)
    notes = [note for note in (UNDERTRAINED, SURROGATE) if note[0] in marks]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Characters of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table; a row of one text may run over the columns."""
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=len(row) > 1)).rstrip()


def marked(values: Values, victim: str) -> str:
    """A victim's name, with a dagger if the noise was made against its architecture."""
    own = any(row["is_surrogate"] for row in values["summary"] if row["victim"] == victim)
    return f"{victim} †" if own else victim


def row_label(data: str, countermeasure: str) -> str:
    """``"random noise"``, ``"protected + jpeg"``."""
    return words(data) + ("" if countermeasure == "none" else f" + {words(countermeasure)}")


def class_names(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The names of the classes in their order; none if they are not known."""
    return list(next(iter(classes.values()), ()))


def with_class_names(values: Values, names: Sequence[str]) -> dict[str, Any]:
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
        return words(name)
    called = _name_of(number, names)
    return f"{stem}, class {number}" if called == number else f"{stem}, {called}"


def further_scores(cells: Sequence[Values], metric: str) -> list[str]:
    """Scores beside the headline; one class alone is the headline again."""
    found = dict.fromkeys(name for cell in cells for name in cell.get("scores", {}) if name != metric)
    return [] if list(found) == [f"{metric}_1"] else list(found)


def _parts(values: Values, scores: Scores) -> list[Part]:
    guesses = {"chance": "chance", "majority": "majority", "constant": "best constant map"}
    known = {title: values[name] for name, title in guesses.items() if name != "constant" or values[name] is not None}
    guess = [[title, *[_fixed(value)] * len(scores.victims)] for title, value in known.items()]
    shown = dict.fromkeys((row["data"], row["countermeasure"]) for row in whole_sets(values["summary"]))
    ordered = sorted(shown, key=lambda pair: bool(pair[1] != "none"))  # ordinary training first
    mixed = [
        [f"{fraction:.0%} protected, {what}", *(mean_and_sd(row, "last") for row in rows)]
        for fraction, *both in scores.mixtures()
        for what, rows in zip(("all images", "clean part alone"), both, strict=True)
    ]
    return [
        ("", [*guess, *_score_rows(scores, ordered, "last")]),
        ("partly protected: all images, and the clean ones of them alone", mixed),
        ("worst case: the best that any adversary reached with the protected images", _worst_rows(values)),
    ]


def _score_rows(scores: Scores, shown: Iterable[tuple[str, str]], score: str) -> list[list[str]]:
    return [[row_label(*pair), *(mean_and_sd(row, score) for row in scores.of(*pair))] for pair in shown]


def _worst_rows(values: Values) -> list[list[str]]:
    found: list[list[str]] = []
    for title, cases in worst_by_victim(values):
        found.append([title, *(mean_and_sd(case, "score") for case in cases)])
        if any(case and case["alone"] is not None for case in cases):
            found.append(["that set alone", *(mean_and_sd(case, "alone") for case in cases)])
        found += [[f"  {adversary_of(case)} ({case['victim']})"] for case in cases if case]
    return found


def worst_by_victim(values: Values) -> Iterator[tuple[str, list[dict[str, Any] | None]]]:
    """Title, and the worst case of each victim, without clean images and with them."""
    for needs_clean, title in ((False, "without clean images"), (True, "with a small clean set")):
        own = [case for case in values["worst_case"] if case["needs_clean"] is needs_clean]
        cases = {case["victim"]: {**case, "score_sd": case["sd"]} for case in own}
        if cases:
            yield title, [cases.get(victim) for victim in names(values["summary"], "victim")]


def adversary_of(case: Values) -> str:
    """The adversary of a worst case: ``"jpeg, stopped early by held-out images"``."""
    way = "no countermeasure" if case["by"] == "none" else words(case["by"])
    return f"{way}{'' if case['chosen'] == 'last' else ', ' + CHOICES[case['chosen']]}"


def _further(values: Values, scores: Scores) -> list[Part]:
    """The other scores, of ordinary training only: the table would be endless."""
    metric = values["metric"]
    plain = [row for row in whole_sets(values["summary"]) if row["countermeasure"] == "none"]
    shown = dict.fromkeys((row["data"], row["countermeasure"]) for row in plain)
    chosen = {
        "early": "epoch chosen with held-out images of the same kind",
        "early_clean": "epoch chosen with a small clean set",
        "peak": "peak epoch: an oracle, chosen with the test labels",
    }
    tried = names(whole_sets(values["summary"]), "countermeasure")
    titles = {
        name: f"{metric} ({how})"
        for name, how in chosen.items()
        if any(row.get(name) is not None for row in plain) and _SAME.get(name) not in tried
    }
    # Guessing and always giving one answer have the same score here: the mean of the recalls, and half the area.
    known = {"balanced_accuracy": values["chance"], "auc": 0.5}
    for name in further_scores(values["cells"], metric):
        end = f", chance {_fixed(known[name])}" if name in known else ""
        titles[name] = f"{score_title(name, class_names(values.get('classes', {})))} (last epoch{end})"
    return [(title, _score_rows(scores, shown, score)) for score, title in titles.items() if shown]


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
