"""Cells of a report (trained victims), and their means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

#: Plain values by name: a cell, a row of means, or a whole report.
Values: TypeAlias = Mapping[str, Any]
Cell: TypeAlias = dict[str, Any]
#: Victim, data, countermeasure and fraction.
Key: TypeAlias = tuple[str, str, str, float]

#: Least lead over guessing, as a share of the way to a perfect score, of a victim that has learned clean images.
LEAST_LEAD = 0.1
# Shares of the way from guessing to a perfect training score. A victim below the first has not learned its training images.
_LEARNED = 0.25
# After ordinary training a victim must be this far, and as far as its peers on clean images less the slack.
_HALFWAY = 0.5
_SLACK = 0.1
# A victim this far knows its training images, unless the protocol says otherwise.
_KNOWN = 0.995
# Under countermeasures that keep training scores low, a victim must be at least this far.
_STIRRED = 0.05

# Fields that cells of a hand-made report may lack.
_OPTIONAL: Cell = {
    "fraction": 1.0,
    "pipeline": "plain",
    "is_surrogate": False,
    "needs_clean": False,
    **dict.fromkeys(
        ("augment", "peak", "early", "early_clean", "interval", "unfiltered", "stopped", "epochs", "seconds")
    ),
}
# Scores of which a seed may have none: their means are over the seeds that have one.
_MEASURED = ("peak", "early", "early_clean", "unfiltered")
# What cells of one victim, of its peers on other images, and of one row of means have in common.
_ONE_VICTIM = itemgetter("victim", "seed", "data", "fraction", "pipeline")
_PEERS = itemgetter("victim", "countermeasure", "pipeline")
_KEY = itemgetter("victim", "data", "countermeasure", "fraction")
_ROW = ("victim", "data", "countermeasure", "fraction", "pipeline")


def complete_cells(cells: Sequence[Values], guessing: float, guess: float) -> list[Cell]:
    """New cells with all fields, ``undertrained`` among them.

    Args:
        cells: as in docs/report.md; numbers that JSON could not hold are None.
        guessing: training score of always giving the commonest answer.
        guess: test score of guessing, the better of chance and majority.

    Raises:
        KeyError: for a cell without victim, seed, data, countermeasure, last or train_score.
    """
    filled: list[Cell] = []
    for cell in cells:
        numbers = {name: math.nan if cell[name] is None else float(cell[name]) for name in ("last", "train_score")}
        names = {name: str(cell[name]) for name in ("victim", "data", "countermeasure")}
        filled.append({"seed": cell["seed"], **_OPTIONAL, **cell, **numbers, **names})
    clean: dict[Any, list[Cell]] = {}
    for cell in filled:
        if cell["data"] == "clean":
            clean.setdefault(_PEERS(cell), []).append(cell)
    ordinary = {_ONE_VICTIM(cell): cell for cell in filled if cell["countermeasure"] == "none"}
    for cell in filled:
        # A countermeasure that starts from a trained victim may take an early epoch: that victim tells about training.
        afterwards = cell["stopped"] is None and not cell.get("curve")
        trained = ordinary.get(_ONE_VICTIM(cell), cell) if afterwards else cell
        cell["undertrained"] = not _has_learned(trained, clean.get(_PEERS(trained), []), guessing, guess)
    return filled


def _has_learned(cell: Cell, clean: Sequence[Cell], guessing: float, guess: float) -> bool:
    """Whether a victim learned its training images, so that its test score means something."""
    score: float = cell["train_score"]
    if cell["countermeasure"] == "none" and cell["pipeline"] == "plain":
        least = guessing + _HALFWAY * (1 - guessing)
        if cell["data"] != "clean" and clean:
            peers = statistics.fmean(peer["train_score"] for peer in clean)
            least = max(least, peers - _SLACK * (1 - guessing))
        return bool(score >= least)
    if score >= guessing + _LEARNED * (1 - guessing):  # false where the score is not a number
        return True
    if not clean:
        return False
    # Countermeasures and augmentation may keep training scores low. There a victim has also learned if its peers on clean
    # images do well on the test set, and it got a quarter as far above guessing in training as they did.
    least = guess + LEAST_LEAD * (1 - guess)
    if cell["data"] == "clean":
        return bool(cell["last"] > least)
    if not statistics.fmean(peer["last"] for peer in clean) > least:
        return False
    lead = statistics.fmean(peer["train_score"] for peer in clean) - guessing
    return score >= guessing + max(_LEARNED * lead, _STIRRED * (1 - guessing))


def ran_out(cell: Values, guessing: float, learned: float | None) -> bool:
    """Whether a victim's epochs ended before it knew its training images (``learned`` of the protocol, None is 0.995)."""
    known = guessing + (learned or _KNOWN) * (1 - guessing)
    return bool(cell["stopped"] == "epochs" and not cell["train_score"] >= known)


def summarise(cells: Sequence[Cell]) -> list[Cell]:
    """One row of means for each victim, data, countermeasure, fraction and pipeline, in the order of the cells."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(itemgetter(*_ROW)(cell), []).append(cell)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(cells: Sequence[Cell]) -> Cell:
    """Means and standard deviations of cells that differ only in their seeds; ``interval`` is the mean interval."""
    row: Cell = {**{name: cells[0][name] for name in _ROW}, "fraction": float(cells[0]["fraction"])}
    row |= {name: any(cell[name] for cell in cells) for name in ("is_surrogate", "needs_clean", "undertrained")}
    row["seeds"] = len(cells)
    further = dict.fromkeys(name for cell in cells for name in cell.get("scores", {}))
    for name in ("last", "train_score", *further):
        found = [cell[name] if name in cell else cell.get("scores", {}).get(name) for cell in cells]
        _put(row, name, [math.nan if value is None else float(value) for value in found])
    for name in _MEASURED:
        numbers = [float(cell[name]) for cell in cells if cell[name] is not None]
        _put(row, name, [value for value in numbers if math.isfinite(value)])
    ends = [cell["interval"] for cell in cells if cell["interval"] and None not in cell["interval"]]
    row["interval"] = [statistics.fmean(values) for values in zip(*ends, strict=True)] if ends else None
    row["stopped"] = {way: sum(cell["stopped"] == way for cell in cells) for way in ("learned", "epochs")}
    return row


def _put(row: Cell, name: str, numbers: Sequence[float]) -> None:
    row[name] = statistics.fmean(numbers) if numbers else None
    # statistics.stdev fails on what is not finite.
    row[f"{name}_sd"] = statistics.stdev(numbers) if len(numbers) > 1 and math.isfinite(row[name]) else None


@dataclass(frozen=True)
class Scores:
    """The rows of plain training, for tables of a column for each victim."""

    rows: Mapping[Key, Values]
    victims: Sequence[str]

    @staticmethod
    def from_rows(rows: Sequence[Values]) -> Scores:
        """The victims are in the order in which they were trained."""
        return Scores({_KEY(row): row for row in plain_training(rows)}, names(rows, "victim"))

    def of(self, data: str, countermeasure: str = "none", fraction: float = 1.0) -> list[Values | None]:
        """The row of each victim."""
        return [self.rows.get((victim, data, countermeasure, fraction)) for victim in self.victims]

    def mixtures(self) -> list[tuple[Any, ...]]:
        """Fraction, rows of the mixtures, and rows of their clean parts alone."""
        kinds = ("protected", "clean_part")
        parts = {part for _, data, way, part in self.rows if part < 1 and data in kinds and way == "none"}
        return [(part, *(self.of(data, "none", part) for data in kinds)) for part in sorted(parts)]


def by_reason(left_out: Sequence[Values]) -> dict[str, list[str]]:
    """Countermeasures that were left out, by the reason."""
    found: dict[str, list[str]] = {}
    for item in left_out:
        found.setdefault(str(item.get("reason")), []).append(str(item.get("countermeasure")))
    return found


def clean_problem(reference: Values | None, score: str, guess: float) -> str:
    """Why a victim of clean images is no reference for others; empty where its lead over guessing is large enough."""
    if reference is None:
        return "no victim of clean images to compare with"
    if reference["undertrained"]:
        return "the victim of clean images is undertrained"
    if reference[score] - guess > LEAST_LEAD * (1 - guess):
        return ""
    early = ", where training stopped early: --all-epochs trains on" if reference["stopped"]["learned"] else ""
    return f"too small a score on clean images ({reference[score]:.3f}, guessing gives {guess:.3f}{early})"


def guess_of(values: Values) -> float:
    """Test score of guessing: the best of chance, majority and, for labels per voxel, the best constant map."""
    return max(values.get(name) or 0.0 for name in ("chance", "majority", "constant"))


def plain_training(rows: Sequence[Values]) -> list[Values]:
    """The cells or rows of plain training; other pipelines are compared among themselves (``pipelines.py``)."""
    return [row for row in rows if row.get("pipeline", "plain") == "plain"]


def finished(cells: Sequence[Values]) -> list[Values]:
    """Cells of ordinary training that say how it ended; countermeasures keep training scores low."""
    plain = plain_training(cells)
    return [cell for cell in plain if cell["countermeasure"] == "none" and cell["stopped"] is not None]


def whole_sets(rows: Sequence[Values]) -> list[Values]:
    """The rows of plain training on whole training sets: no mixtures, no parts of one."""
    return [row for row in plain_training(rows) if row["fraction"] == 1.0 and row["data"] != "clean_part"]


def names(rows: Sequence[Values], what: str) -> list[Any]:
    """The different values of a column, in order."""
    return list(dict.fromkeys(row[what] for row in rows))


def words(name: object) -> str:
    """A field's name for readers: ``"bias_shift"`` -> ``"bias shift"``."""
    return str(name).replace("_", " ")


def mean_and_sd(row: Values | None, score: str, marked: bool = True) -> str:
    """A score for readers: ``0.160 ± 0.014``, ``*`` where a victim is undertrained, ``-`` where there is no number."""
    value = row.get(score) if row else None
    if row is None or value is None or not math.isfinite(value):
        return "-"
    spread = row.get(f"{score}_sd")
    mark = " *" if marked and row.get("undertrained") else ""
    return f"{value:.3f}{'' if spread is None else f' ± {spread:.3f}'}{mark}"
