"""The table of scores that adversaries reached, coloured by the share of the clean lead that they keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from monai_salm.report.adversaries import prevents_learning
from monai_salm.report.cells import Scores, Values, by_reason, guess_of, whole_sets, words
from monai_salm.report.tables import SURROGATE, UNDERTRAINED, adversary_of, marked, row_label, worst_by_victim
from monai_salm.report.verdict import GRADES

# Blue for protected to orange for learned: told apart by colour-blind readers and in print, and light enough for dark text.
_SCALE = ((0.0, 0x92C5DE), (0.15, 0xD1E5F0), (0.325, 0xF7F7F7), (0.5, 0xFDDBC7), (1.0, 0xF4A582))
_ORDINARY = "ordinary training"
# Early stopping and unfiltered tests are named in a cell where they give this much more.
_WORTH_A_LINE = 0.03

#: Contents of one cell: ``words``, or a row, the name of its ``score``, and what is to be said of it.
HeatCell: TypeAlias = dict[str, Any]
#: Title and cells.
HeatRow: TypeAlias = tuple[str, list[HeatCell]]


def heat_map(values: Values) -> dict[str, Any]:
    """Rows of adversaries, columns of victims: the protected score, coloured, with the clean score beside it.

    Gives ``victims`` (titles of the columns), ``parts`` (title and rows each), ``legend`` (colours and their meaning) and
    ``marks``.
    """
    scores = Scores.from_rows(values["summary"])
    parts = {
        "Without protection": _reference(scores, values),
        "Protected; the adversary has no clean images": _adversaries(scores, values, needs_clean=False),
        "Protected; the adversary has a small clean set": _adversaries(scores, values, needs_clean=True),
        "Worst case: the best that any adversary reached with the protected images": _worst(values),
        "Other training sets": _others(scores, values),
        "Left out": _left_out(values, len(scores.victims)),
    }
    marks = {UNDERTRAINED: "undertrained", SURROGATE: "is_surrogate"}
    steps = ((0.0, "none"), (0.15, "15 %"), (0.5, "50 %"), (1.0, "all of it"))
    return {
        "metric": values["metric"],
        "victims": [marked(values, victim) for victim in scores.victims],
        "parts": [(title, rows) for title, lines in parts.items() if (rows := list(lines))],
        "legend": [(heat_colour(share), text) for share, text in steps],
        "marks": [mark for mark, name in marks.items() if any(row[name] for row in values["summary"])],
    }


def heat_colour(kept: float) -> str:
    """The colour of a share of the clean lead, ``#rrggbb``."""
    share = min(max(kept, 0.0), 1.0)
    for (low, first), (high, second) in itertools.pairwise(_SCALE):
        if share <= high:
            part = (share - low) / (high - low)
            mixed = (round((first >> k & 255) * (1 - part) + (second >> k & 255) * part) for k in (16, 8, 0))
            return "#" + "".join(f"{value:02x}" for value in mixed)
    raise AssertionError("the scale ends at 1")


def _cell(
    row: Values | None, notes: Sequence[str] = (), score: str = "last", beside: str = "", void: str = ""
) -> HeatCell:
    """One score; ``void`` says why it proves nothing, ``beside`` stands beside the share kept, ``notes`` below it."""
    if row is None or row.get(score) is None:
        return {"words": "no score" if row else "not trained"}
    return {"row": row, "score": score, "beside": beside, "notes": notes, "void": void}


def _interval(row: Values | None) -> list[str]:
    ends = row and row.get("interval")
    return [f"[{ends[0]:.3f}, {ends[1]:.3f}]"] if ends else []


def _reference(scores: Scores, values: Values) -> Iterator[HeatRow]:
    guess = "; ".join(f"{name} {values[name]:.3f}" for name in ("chance", "majority") if values[name] is not None)
    yield "guessing", [{"words": guess}] * len(scores.victims)
    yield "clean images", [_cell(row, _interval(row)) for row in scores.of("clean")]


def _adversaries(scores: Scores, values: Values, needs_clean: bool) -> Iterator[HeatRow]:
    guess = guess_of(values)
    rows = [row for row in whole_sets(values["summary"]) if row["data"] == "protected"]
    tried = {row["countermeasure"]: row["needs_clean"] for row in rows}
    own = [name for name, needs in tried.items() if needs is needs_clean]
    for name in sorted(own, key=lambda name: bool(name != "none")):
        pairs = zip(scores.of("protected", name), scores.of("clean", name), strict=True)
        yield _ORDINARY if name == "none" else words(name), [_protected(*pair, name, guess) for pair in pairs]
    early, same = ("early_clean", "early_stopping_clean") if needs_clean else ("early", "early_stopping")
    found = [
        row and {**row, "kept": clean and _kept(row[early], clean, guess)}
        for row, clean in zip(scores.of("protected"), scores.of("clean"), strict=True)
    ]
    if same not in tried and any(row and row[early] is not None for row in found):
        kind = "clean" if needs_clean else "held-out"
        yield f"{_ORDINARY}, best epoch on {kind} images", [_cell(row, score=early) for row in found]


def _kept(score: float | None, clean: Values, guess: float) -> float | None:
    return None if score is None or clean["kept"] is None else (score - guess) / (clean["last"] - guess)


def _protected(row: Values | None, clean: Values | None, name: str, guess: float) -> HeatCell:
    beside, notes, void = "", _interval(row) if name == "none" else [], ""
    if clean is not None and clean["last"] is not None:
        beside = f"clean {clean['last']:.3f}{' *' if clean['undertrained'] else ''}"
    for other, text in (("unfiltered", "on unfiltered tests"), ("early", "stopped early")):
        better = row and row.get(other)
        if row and better is not None and row["last"] is not None and better > row["last"] + _WORTH_A_LINE:
            notes.append(f"{text} {better:.3f}")
    # Blue would praise the noise for an effect of the countermeasure.
    low = row and (row["kept"] is None or row["kept"] <= GRADES[0][0])
    if row and clean and name != "none" and low and prevents_learning(row, clean, guess):
        void = "proves nothing"
    return _cell(row, notes, beside=beside, void=void)


def _worst(values: Values) -> Iterator[HeatRow]:
    for title, cases in worst_by_victim(values):
        cells = []
        for case in cases:
            notes = [f"by {adversary_of(case)}"] if case else []
            if case and case["alone"] is not None:
                notes.append(f"that set alone {case['alone']:.3f}")
            cells.append(_cell(case, notes, score="score"))
        yield title, cells


def _others(scores: Scores, values: Values) -> Iterator[HeatRow]:
    rows = whole_sets(values["summary"])
    for data, name in dict.fromkeys((row["data"], row["countermeasure"]) for row in rows):
        if data not in ("clean", "protected"):
            yield row_label(data, name), [_cell(row) for row in scores.of(data, name)]


def _left_out(values: Values, columns: int) -> Iterator[HeatRow]:
    for reason, left in by_reason(values["not_evaluated"]).items():
        yield reason, [{"words": ", ".join(map(words, left)), "columns": columns}]
