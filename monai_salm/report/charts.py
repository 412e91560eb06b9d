"""Line charts of the page: training curves. The template draws them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_salm.report.cells import Values, words

# Told apart by colour-blind readers too (Okabe and Ito 2008).
_COLOURS = {"clean": "#0072b2", "random_noise": "#666666", "protected": "#d55e00", "random_mask": "#009e73"}
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Chart:
    """Scores by epoch, and the places of their parts in the picture.

    ``title`` is read aloud by screen readers. ``lines`` are drawn in order: scores (a None breaks the line), colour, and whether
    they are of training. ``guess`` is the score of guessing, ``epochs`` the places of numbers.
    """

    caption: str
    title: str
    lines: Sequence[tuple[Sequence[float | None], str, bool]]
    metric: str
    epochs: Sequence[int]
    guess: float

    width, height = 360, 220
    left, right, top, bottom = 40, 348, 12, 186

    def at(self, epoch: float) -> str:
        """Horizontal place of an epoch."""
        return f"{self.left + (self.right - self.left) * (epoch - 1) / (self.epochs[-1] - 1):.1f}"

    def level(self, score: float, below: float = 0.0) -> str:
        """Vertical place of a score."""
        return f"{self.top + (self.bottom - self.top) * (1 - min(max(score, 0.0), 1.0)) + below:.1f}"

    def path(self, scores: Sequence[float | None]) -> str:
        """A line as the path of an SVG."""
        parts, pen = [], "M"
        for epoch, score in enumerate(scores, start=1):
            if score is not None:
                parts.append(f"{pen}{self.at(epoch)} {self.level(score)}")
            pen = "M" if score is None else "L"
        return "".join(parts) + ("h0.1" if len(parts) == 1 else "")  # a path of one point draws nothing


def colour(data: str, position: int = 0) -> str:
    """The colour of a kind of training data, the same in every chart."""
    return _COLOURS.get(data, _MORE_COLOURS[position % len(_MORE_COLOURS)])


def training_curves(values: Values) -> dict[str, Any]:
    """Charts of ordinary training (``first``) and of each pipeline and countermeasure (``more``), with the ``colours``."""
    cells = [c for c in values["cells"] if c["fraction"] == 1.0 and c["data"] != "clean_part" and c.get("curve")]
    groups: dict[str, dict[str, list[Values]]] = {}
    for cell in cells:
        pipeline = cell.get("pipeline", "plain")
        treatment = cell["countermeasure"] if pipeline == "plain" else pipeline
        groups.setdefault(treatment, {}).setdefault(cell["victim"], []).append(cell)
    kinds = {data: position for position, data in enumerate(dict.fromkeys(cell["data"] for cell in cells))}
    charts = {name: [_curves(v, name, own, kinds, values) for v, own in by.items()] for name, by in groups.items()}
    return {
        "colours": [(words(data), colour(data, position)) for data, position in kinds.items()],
        "first": charts.pop("none", []),
        "more": {words(name): found for name, found in charts.items()},
    }


def _curves(victim: str, treatment: str, cells: Sequence[Values], kinds: Mapping[str, int], values: Values) -> Chart:
    lines: list[tuple[list[float | None], str, bool]] = []
    ends = []
    for data in dict.fromkeys(cell["data"] for cell in cells):
        own, shade = [cell for cell in cells if cell["data"] == data], colour(data, kinds[data])
        test, train = mean_curve(own, "curve"), mean_curve(own, "train_curve")
        lines += [(train, shade, True), (test, shade, False)]
        ends.append(f"{words(data)} ends at {_last(test)}, training {_last(train)}")
    caption = victim if treatment == "none" else f"{victim}, {words(treatment)}"
    title = f"Test and training scores of {caption} by epoch: {'; '.join(ends)}."
    last = max(2, *(len(scores) for scores, *_ in lines))
    epochs = sorted({1, (last + 1) // 2, last})
    return Chart(caption, title, lines, values["metric"], epochs, values["chance"] or 0.0)


def _last(curve: Sequence[float | None]) -> str:
    return "no number" if not curve or curve[-1] is None else f"{curve[-1]:.2f}"


def mean_curve(cells: Sequence[Values], key: str) -> list[float | None]:
    """Mean after each epoch over the seeds that still train; None where a seed's score is not a number."""
    ended = object()
    found: list[float | None] = []
    for scores in itertools.zip_longest(*(cell.get(key) or [] for cell in cells), fillvalue=ended):
        there = [score for score in scores if score is not ended]
        found.append(None if None in there else statistics.fmean(there))
    return found
