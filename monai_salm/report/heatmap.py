"""The table of scores that adversaries reached, coloured by the share of the clean lead that they keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from monai_salm.report.adversaries import prevents_learning
from monai_salm.report.blocks import words
from monai_salm.report.cells import Key, by_key, guess_of, whole_sets
from monai_salm.report.tables import SURROGATE, UNDERTRAINED, adversary_of, marked, row_label, victims_of
from monai_salm.report.verdict import GRADES

# Blue for protected to orange for learned: told apart by colour-blind readers and in print, and light enough for dark text.
_SCALE = ((0.0, 0x92C5DE), (0.15, 0xD1E5F0), (0.325, 0xF7F7F7), (0.5, 0xFDDBC7), (1.0, 0xF4A582))
_ORDINARY = "ordinary training"
# Early stopping and unfiltered tests are named in a cell where they give this much more.
_WORTH_A_LINE = 0.03

#: Contents of one cell: ``words``, or ``score``, ``colour`` or ``void``, and ``lines`` below the score.
HeatCell: TypeAlias = dict[str, Any]
#: Title and cells.
HeatRow: TypeAlias = tuple[str, list[HeatCell]]


@dataclass(frozen=True)
class _Scores:
    """Rows of a report, and the share of the clean lead that a score keeps."""

    rows: Mapping[Key, Mapping[str, Any]]
    victims: Sequence[str]
    guess: float

    def get(self, victim: str, data: str, countermeasure: str = "none") -> Mapping[str, Any] | None:
        return self.rows.get((victim, data, countermeasure, 1.0))

    def kept(self, victim: str, score: float | None) -> float | None:
        clean = self.get(victim, "clean")
        if clean is None or clean["kept"] is None or score is None:
            return None
        return float((score - self.guess) / (clean["last"] - self.guess))


def heat_map(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of adversaries, columns of victims: the protected score, coloured, with the clean score beside it.

    Gives ``victims`` (titles of the columns), ``parts`` (title and rows each), ``legend`` (colours and their meaning) and
    ``marks``.
    """
    scores = _Scores(by_key(values["summary"]), victims_of(values), guess_of(values))
    parts: list[tuple[str, Iterator[HeatRow]]] = [
        ("Without protection", _reference(scores, values)),
        ("Protected; the adversary has no clean images", _adversaries(scores, values, needs_clean=False)),
        ("Protected; the adversary has a small clean set", _adversaries(scores, values, needs_clean=True)),
        ("Worst case: the best that any adversary reached with the protected images", _worst(scores, values)),
        ("Other training sets", _others(scores, values)),
        ("Left out", _left_out(values, len(scores.victims))),
    ]
    marks = {UNDERTRAINED: "undertrained", SURROGATE: "is_surrogate"}
    steps = ((0.0, "none"), (0.15, "15 %"), (0.5, "50 %"), (1.0, "all of it"))
    return {
        "metric": values["metric"],
        "victims": [marked(values, victim) for victim in scores.victims],
        "parts": [(title, rows) for title, lines in parts if (rows := list(lines))],
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
    row: Mapping[str, Any] | None,
    kept: float | None,
    notes: Sequence[str] = (),
    score: str = "last",
    beside: str = "",
    void: str = "",
) -> HeatCell:
    """One score with its spread; ``void`` says why it proves nothing, ``beside`` stands beside the share kept."""
    value = row.get(score) if row else None
    if row is None or value is None:
        return {"words": "no score" if row else "not trained"}
    spread = row.get(f"{score}_sd")
    cell: HeatCell = {"score": f"{value:.3f}", "spread": "" if spread is None else f" ± {spread:.3f}"}
    share = ""
    if void or row.get("undertrained"):
        cell["void"], share = True, "* undertrained" if row.get("undertrained") else void
    elif kept is not None:
        cell["colour"], share = heat_colour(kept), f"keeps {max(kept, 0):.0%}"
    lines = [", ".join(text for text in (share, beside) if text), *notes]
    return {**cell, "lines": [line for line in lines if line]}


def _of(row: Mapping[str, Any] | None, name: str) -> float | None:
    return row.get(name) if row else None


def _interval(row: Mapping[str, Any] | None) -> list[str]:
    ends = row and row.get("interval")
    return [f"[{ends[0]:.3f}, {ends[1]:.3f}]"] if ends else []


def _reference(scores: _Scores, values: Mapping[str, Any]) -> Iterator[HeatRow]:
    guess = "; ".join(f"{name} {values[name]:.3f}" for name in ("chance", "majority") if values[name] is not None)
    yield "guessing", [{"words": guess}] * len(scores.victims)
    rows = [scores.get(victim, "clean") for victim in scores.victims]
    yield "clean images", [_cell(row, _of(row, "kept"), _interval(row)) for row in rows]


def _adversaries(scores: _Scores, values: Mapping[str, Any], needs_clean: bool) -> Iterator[HeatRow]:
    rows = [row for row in whole_sets(values["summary"]) if row["data"] == "protected"]
    tried = {row["countermeasure"]: row["needs_clean"] for row in rows}
    own = [name for name, needs in tried.items() if needs is needs_clean]
    for name in sorted(own, key=lambda name: bool(name != "none")):
        title = _ORDINARY if name == "none" else words(name)
        yield title, [_protected(scores, victim, name) for victim in scores.victims]
    early, same = ("early_clean", "early_stopping_clean") if needs_clean else ("early", "early_stopping")
    found = [scores.get(victim, "protected") for victim in scores.victims]
    if same not in tried and any(row and row.get(early) is not None for row in found):
        pairs = zip(scores.victims, found, strict=True)
        yield (
            f"{_ORDINARY}, best epoch on {'clean' if needs_clean else 'held-out'} images",
            [_cell(row, scores.kept(v, _of(row, early)), score=early) for v, row in pairs],
        )


def _protected(scores: _Scores, victim: str, name: str) -> HeatCell:
    row, clean = scores.get(victim, "protected", name), scores.get(victim, "clean", name)
    beside, notes = "", _interval(row) if name == "none" else []
    if clean is not None and clean["last"] is not None:
        beside = f"clean {clean['last']:.3f}{' *' if clean['undertrained'] else ''}"
    for other, text in (("unfiltered", "on unfiltered tests"), ("early", "stopped early")):
        better = row and row.get(other)
        if row and better is not None and row["last"] is not None and better > row["last"] + _WORTH_A_LINE:
            notes.append(f"{text} {better:.3f}")
    kept, void = _of(row, "kept"), ""
    # Blue would praise the noise for an effect of the countermeasure.
    low = kept is None or kept <= GRADES[0][0]
    if row and clean and name != "none" and low and prevents_learning(row, clean, scores.guess):
        void = "proves nothing"
    return _cell(row, kept, notes, beside=beside, void=void)


def _worst(scores: _Scores, values: Mapping[str, Any]) -> Iterator[HeatRow]:
    for needs_clean, title in ((False, "without clean images"), (True, "with a small clean set")):
        cases = {case["victim"]: case for case in values["worst_case"] if case["needs_clean"] is needs_clean}
        cells = []
        for victim in scores.victims:
            case = cases.get(victim)
            notes = [f"by {adversary_of(case)}"] if case else []
            if case and case["alone"] is not None:
                notes.append(f"that set alone {case['alone']:.3f}")
            shown = case and {**case, "score_sd": case["sd"]}
            cells.append(_cell(shown, _of(case, "kept"), notes, score="score"))
        if cases:
            yield title, cells


def _others(scores: _Scores, values: Mapping[str, Any]) -> Iterator[HeatRow]:
    rows = whole_sets(values["summary"])
    for data, name in dict.fromkeys((row["data"], row["countermeasure"]) for row in rows):
        if data not in ("clean", "protected"):
            found = [scores.get(victim, data, name) for victim in scores.victims]
            yield row_label(data, name), [_cell(row, _of(row, "kept")) for row in found]


def _left_out(values: Mapping[str, Any], columns: int) -> Iterator[HeatRow]:
    """A row for each reason, with all countermeasures that have it."""
    reasons: dict[str, list[str]] = {}
    for item in values.get("not_evaluated", ()):
        reasons.setdefault(str(item.get("reason")), []).append(words(item.get("countermeasure")))
    for reason, left in reasons.items():
        yield reason, [{"words": ", ".join(left), "columns": columns}]
