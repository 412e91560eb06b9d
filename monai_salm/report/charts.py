"""Line charts of the page: training curves. The template draws them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_salm.report.blocks import words

# Told apart by colour-blind readers too (Okabe and Ito 2008).
_COLOURS = {"clean": "#0072b2", "random_noise": "#666666", "protected": "#d55e00", "random_mask": "#009e73"}
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        points: x and y each; a y that is None breaks the line.
        colour: of the stroke.
        dashed: dashed and thin.
    """

    points: Sequence[tuple[float, float | None]]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its name, its ends, and the places of numbers."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]

    def share(self, value: float) -> float:
        """Where a value lies between the ends, from 0 to 1."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Chart:
    """A chart, and the places of its parts in the picture.

    Args:
        caption: below the chart.
        title: read aloud by screen readers: what is shown, and what it comes to.
        lines: drawn in order, the last on top.
        x: horizontal axis.
        y: vertical axis.
        guess: score of guessing, drawn as a dotted line.
    """

    caption: str
    title: str
    lines: Sequence[Line]
    x: Axis
    y: Axis
    guess: float | None = None

    width, height = 360, 220
    left, right, top, bottom = 40, 348, 12, 186

    def at(self, value: float) -> str:
        """Horizontal place of a value."""
        return f"{self.left + (self.right - self.left) * self.x.share(value):.1f}"

    def level(self, value: float, below: float = 0.0) -> str:
        """Vertical place of a value."""
        return f"{self.top + (self.bottom - self.top) * (1 - self.y.share(value)) + below:.1f}"

    def path(self, line: Line) -> str:
        """A line as the path of an SVG."""
        parts, pen = [], "M"
        for at, value in line.points:
            if value is not None:
                parts.append(f"{pen}{self.at(at)} {self.level(value)}")
            pen = "M" if value is None else "L"
        return "".join(parts) + ("h0.1" if len(parts) == 1 else "")  # a path of one point draws nothing


def colour(data: str, position: int = 0) -> str:
    """The colour of a kind of training data, the same in every chart."""
    return _COLOURS.get(data, _MORE_COLOURS[position % len(_MORE_COLOURS)])


def _score_axis(metric: str) -> Axis:
    return Axis(metric, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def training_curves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Charts of ordinary training (``first``) and of each pipeline and countermeasure (``more``), with the ``colours``."""
    cells = [c for c in values["cells"] if c["fraction"] == 1.0 and c["data"] != "clean_part" and c.get("curve")]
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
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


def _curves(
    victim: str, treatment: str, cells: Sequence[Mapping[str, Any]], kinds: Mapping[str, int], values: Mapping[str, Any]
) -> Chart:
    lines, ends = [], []
    for data in dict.fromkeys(cell["data"] for cell in cells):
        own, shade = [cell for cell in cells if cell["data"] == data], colour(data, kinds[data])
        test, train = mean_curve(own, "curve"), mean_curve(own, "train_curve")
        lines.append(Line(list(enumerate(train, start=1)), shade, dashed=True))
        lines.append(Line(list(enumerate(test, start=1)), shade))
        ends.append(f"{words(data)} ends at {_last(test)}, training {_last(train)}")
    caption = victim if treatment == "none" else f"{victim}, {words(treatment)}"
    title = f"Test and training scores of {caption} by epoch: {'; '.join(ends)}."
    last = max(2, *(len(line.points) for line in lines))
    epochs = Axis("epoch", 1, last, sorted({1, (last + 1) // 2, last}))
    return Chart(caption, title, lines, epochs, _score_axis(values["metric"]), values["chance"] or 0.0)


def _last(curve: Sequence[float | None]) -> str:
    return "no number" if not curve or curve[-1] is None else f"{curve[-1]:.2f}"


def mean_curve(cells: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    """Mean after each epoch over the seeds that still train; None where a seed's score is not a number."""
    ended = object()
    found: list[float | None] = []
    for scores in itertools.zip_longest(*(cell.get(key) or [] for cell in cells), fillvalue=ended):
        there = [score for score in scores if score is not ended]
        found.append(None if None in there else statistics.fmean(there))
    return found
