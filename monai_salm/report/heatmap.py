"""The table to look at first: what adversaries reached, coloured by how much of the clean set's lead that is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_salm.report.adversaries import useless
from monai_salm.report.blocks import escape, small, table_box, words
from monai_salm.report.cells import Key, by_key, guess_of, whole
from monai_salm.report.tables import SURROGATE, UNDERTRAINED, marked, row_label, victims_of, who_reached
from monai_salm.report.verdict import GRADES

# Blue for protected to orange for learned: told apart by colour-blind readers and in print, and light enough for dark text.
_SCALE = ((0.0, 0x92C5DE), (0.15, 0xD1E5F0), (0.325, 0xF7F7F7), (0.5, 0xFDDBC7), (1.0, 0xF4A582))
_ORDINARY = "ordinary training"
# Other ways to the network are named where they give this much more; the worst case has them all.
_WORTH_A_LINE = 0.03


@dataclass(frozen=True)
class _Scores:
    """A report's rows, and what is needed to place any score between guessing and clean training."""

    rows: Mapping[Key, Mapping[str, Any]]
    victims: Sequence[str]
    guess: float

    def get(self, victim: str, data: str, countermeasure: str = "none") -> Mapping[str, Any] | None:
        return self.rows.get((victim, data, countermeasure, 1.0))

    def kept(self, victim: str, score: float | None) -> float | None:
        """The share of the victim's clean lead over guessing that a score keeps, None where there is no such lead."""
        clean = self.get(victim, "clean")
        if clean is None or clean["kept"] is None or score is None:
            return None
        return float((score - self.guess) / (clean["last"] - self.guess))


def heat_map(values: Mapping[str, Any]) -> str:
    """Rows of adversaries, columns of victims: the protected score, coloured, with the clean score beside it.

    Args:
        values: ``UnlearnabilityReport.to_dict()``.
    """
    guess = guess_of(values)
    scores = _Scores(by_key(values["summary"]), victims_of(values), guess)
    if not scores.victims:
        return "<p>Nothing was trained.</p>"
    top = "".join(f'<th scope="col">{escape(marked(values, victim))}</th>' for victim in scores.victims)
    parts = [
        ("Without protection", _reference(scores, values)),
        ("Protected; the adversary has no clean images", _adversaries(scores, values, needs_clean=False)),
        ("Protected; the adversary has a small clean set", _adversaries(scores, values, needs_clean=True)),
        ("Worst case: the best that any adversary reached with the protected images", _worst(scores, values)),
        ("Other training sets", _others(scores, values)),
        ("Left out", _left_out(values, len(scores.victims))),
    ]
    body = ""
    for title, lines in parts:
        rows = "".join(lines)
        head = f'<tr><th scope="rowgroup" class="part" colspan="{len(scores.victims) + 1}"><span>{escape(title)}</span></th></tr>'
        body += f"<tbody>{head}{rows}</tbody>" if rows else ""
    first = f'<th scope="col">{escape(values["metric"])} on clean test images</th>'
    return _legend() + table_box(f"<thead><tr>{first}{top}</tr></thead>{body}", "Scores", "heat") + _notes(values)


def heat_colour(kept: float) -> str:
    """The colour of a share of the clean lead, ``#rrggbb``."""
    share = min(max(kept, 0.0), 1.0)
    for (low, first), (high, second) in itertools.pairwise(_SCALE):
        if share <= high:
            part = (share - low) / (high - low)
            mixed = (round(_channel(first, k) * (1 - part) + _channel(second, k) * part) for k in (16, 8, 0))
            return "#" + "".join(f"{value:02x}" for value in mixed)
    raise AssertionError("the scale ends at 1")


def _channel(colour: int, shift: int) -> int:
    return colour >> shift & 255


def _legend() -> str:
    steps = (0.0, "none"), (0.15, "15 %"), (0.5, "50 %"), (1.0, "all of it")
    keys = "".join(
        f'<span><i class="swatch" style="background:{heat_colour(share)}"></i>{text}</span> ' for share, text in steps
    )
    return f'<p class="keys">Share of the clean lead over guessing that is kept: {keys}</p>'


def _notes(values: Mapping[str, Any]) -> str:
    note = (
        "Mean and standard deviation over victim seeds, after the last epoch; in brackets the 95 % bootstrap interval over test cases "
        "(mean of the seeds' intervals). “clean” is the same victim after training on the clean images under the same countermeasure: "
        "where it is low, the countermeasure costs the adversary as well."
    )
    note += (
        " Hatched: the score proves nothing, since the victim is undertrained, or did not learn clean images either."
    )
    marks = [UNDERTRAINED] if any(row["undertrained"] for row in values["summary"]) else []
    marks += [SURROGATE] if any(row["is_surrogate"] for row in values["summary"]) else []
    return small(note) + "".join(map(small, marks))


def _row(title: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{escape(title)}</th>{"".join(cells)}</tr>'


def _cell(
    row: Mapping[str, Any] | None,
    kept: float | None,
    notes: Sequence[str] = (),
    score: str = "last",
    beside: str = "",
    void: str = "",
) -> str:
    """One score: bold, with its spread, the share kept and notes below; hatched where it proves nothing.

    Args:
        row: means over seeds, None where nothing was trained.
        kept: share of the clean lead, which gives the colour.
        notes: further lines.
        score: which of the row's scores.
        beside: stands beside the share.
        void: why the score proves nothing.
    """
    value = row.get(score) if row else None
    if row is None or value is None:
        return '<td class="words">no score</td>' if row else '<td class="words">not trained</td>'
    spread = row.get(f"{score}_sd")
    first = f"<b>{value:.3f}</b>" + ("" if spread is None else f" ± {spread:.3f}")
    look, share = "", ""
    if void or row.get("undertrained"):
        look, share = ' class="void"', "* undertrained" if row.get("undertrained") else void
    elif kept is not None:
        look, share = f' style="background:{heat_colour(kept)}"', f"keeps {max(kept, 0):.0%}"
    lines = [", ".join(text for text in (share, beside) if text), *notes]
    return f"<td{look}>{first}{''.join(f'<small>{escape(line)}</small>' for line in lines if line)}</td>"


def _of(row: Mapping[str, Any] | None, name: str) -> float | None:
    return row.get(name) if row else None


def _interval(row: Mapping[str, Any] | None) -> list[str]:
    ends = row and row.get("interval")
    return [f"[{ends[0]:.3f}, {ends[1]:.3f}]"] if ends else []


def _reference(scores: _Scores, values: Mapping[str, Any]) -> Iterator[str]:
    guess = "; ".join(f"{name} {values[name]:.3f}" for name in ("chance", "majority") if values[name] is not None)
    yield _row("guessing", [f'<td class="words">{escape(guess)}</td>'] * len(scores.victims))
    yield _row(
        "clean images",
        [_cell(row, _of(row, "kept"), _interval(row)) for row in (scores.get(v, "clean") for v in scores.victims)],
    )


def _adversaries(scores: _Scores, values: Mapping[str, Any], needs_clean: bool) -> Iterator[str]:
    rows = [row for row in whole(values["summary"]) if row["data"] == "protected"]
    ways = {row["countermeasure"]: row["needs_clean"] for row in rows}
    for way in sorted(
        (way for way, needs in ways.items() if needs is needs_clean), key=lambda way: bool(way != "none")
    ):
        title = _ORDINARY if way == "none" else words(way)
        yield _row(title, [_protected(scores, victim, way) for victim in scores.victims])
    early, same = ("early_clean", "early_stopping_clean") if needs_clean else ("early", "early_stopping")
    found = [scores.get(victim, "protected") for victim in scores.victims]
    if same not in ways and any(row and row.get(early) is not None for row in found):
        chosen = "clean images" if needs_clean else "held-out images"
        title = f"{_ORDINARY}, best epoch on {chosen}"
        yield _row(
            title,
            [
                _cell(row, scores.kept(v, _of(row, early)), score=early)
                for v, row in zip(scores.victims, found, strict=True)
            ],
        )


def _protected(scores: _Scores, victim: str, way: str) -> str:
    row, clean = scores.get(victim, "protected", way), scores.get(victim, "clean", way)
    beside, notes = "", _interval(row) if way == "none" else []
    if clean is not None and clean["last"] is not None:
        beside = f"clean {clean['last']:.3f}{' *' if clean['undertrained'] else ''}"
    for name, text in (("unfiltered", "on unfiltered tests"), ("early", "stopped early")):
        better = row and row.get(name)
        if row and better is not None and row["last"] is not None and better > row["last"] + _WORTH_A_LINE:
            notes.append(f"{text} {better:.3f}")
    kept, void = _of(row, "kept"), ""
    # Blue would praise the noise for what the countermeasure did; a score that was reached is coloured all the same.
    if row and clean and way != "none" and (kept is None or kept <= GRADES[0][0]) and useless(row, clean, scores.guess):
        void = "proves nothing"
    return _cell(row, kept, notes, beside=beside, void=void)


def _worst(scores: _Scores, values: Mapping[str, Any]) -> Iterator[str]:
    for needs_clean, title in ((False, "without clean images"), (True, "with a small clean set")):
        cases = {case["victim"]: case for case in values["worst_case"] if case["needs_clean"] is needs_clean}
        cells = []
        for victim in scores.victims:
            case = cases.get(victim)
            notes = [f"by {who_reached(case)}"] if case else []
            if case and case["alone"] is not None:
                notes.append(f"that set alone {case['alone']:.3f}")
            shown = case and {**case, "score_sd": case["sd"]}
            cells.append(_cell(shown, _of(case, "kept"), notes, score="score"))
        if cases:
            yield _row(title, cells)


def _others(scores: _Scores, values: Mapping[str, Any]) -> Iterator[str]:
    rows = whole(values["summary"])
    for data, way in dict.fromkeys((row["data"], row["countermeasure"]) for row in rows):
        if data not in ("clean", "protected"):
            found = [scores.get(victim, data, way) for victim in scores.victims]
            yield _row(row_label(data, way), [_cell(row, _of(row, "kept")) for row in found])


def _left_out(values: Mapping[str, Any], columns: int) -> Iterator[str]:
    for item in values.get("not_evaluated", ()):
        reason = escape(item.get("reason"))
        yield _row(words(item.get("countermeasure")), [f'<td class="words" colspan="{columns}">{reason}</td>'])
