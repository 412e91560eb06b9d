"""What the page draws of trained victims: curves over the epochs, and scores over the share of protected images."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from monai_salm.report.blocks import escape, fold, small, table, words
from monai_salm.report.charts import Axis, Line, chart, colour, epoch_axis, score_axis
from monai_salm.report.tables import mean_and_sd, mixtures

_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def training_curves(values: Mapping[str, Any]) -> str:
    """Curves of ordinary training, one chart a victim; those of each countermeasure folded away.

    Args:
        values: ``UnlearnabilityReport.to_dict()``.
    """
    cells = [c for c in values["cells"] if c["fraction"] == 1.0 and c["data"] != "clean_part" and c.get("curve")]
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        pipeline = cell.get("pipeline", "plain")
        way = cell["countermeasure"] if pipeline == "plain" else pipeline
        groups.setdefault(way, {}).setdefault(cell["victim"], []).append(cell)
    if not groups:
        return ""
    kinds = {data: position for position, data in enumerate(dict.fromkeys(cell["data"] for cell in cells))}
    grids = {way: _grid([_curve(v, way, own, kinds, values) for v, own in by.items()]) for way, by in groups.items()}
    note = (
        f"Solid: {values['metric']} on clean test images. Dashed: training score. Means over the seeds still in training. Protection "
        "shows as a training score that rises while the test score does not."
    )
    first = grids.pop("none", "")
    more = "".join(f"<h3>{escape(words(way))}</h3>{grid}" for way, grid in grids.items())
    return _legend(kinds) + small(note) + first + fold("Training in each pipeline and under each countermeasure", more)


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _legend(kinds: Mapping[str, int]) -> str:
    keys = (
        f'<span><i class="key" style="border-color:{colour(data, position)}"></i>{escape(words(data))}</span> '
        for data, position in kinds.items()
    )
    return f'<p class="keys">{"".join(keys)}</p>'


def _curve(
    victim: str, way: str, cells: Sequence[Mapping[str, Any]], kinds: Mapping[str, int], values: Mapping[str, Any]
) -> str:
    by_data: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_data.setdefault(cell["data"], []).append(cell)
    lines, ends = [], []
    for data, own in by_data.items():
        test, train = mean_curve(own, "curve"), mean_curve(own, "train_curve")
        lines.append(Line(list(enumerate(train, start=1)), colour(data, kinds[data]), dashed=True))
        lines.append(Line(list(enumerate(test, start=1)), colour(data, kinds[data])))
        ends.append(f"{words(data)} ends at {_last(test)}, training {_last(train)}")
    title = victim if way == "none" else f"{victim}, {words(way)}"
    told = f"Test and training scores of {title} by epoch: {'; '.join(ends)}."
    epochs = max(len(line.points) for line in lines)
    drawn = chart(told, lines, epoch_axis(epochs), score_axis(values["metric"]), values["chance"] or 0.0)
    return f"<figure>{drawn}<figcaption>{escape(title)}</figcaption></figure>"


def _last(curve: Sequence[float | None]) -> str:
    return "no number" if not curve or curve[-1] is None else f"{curve[-1]:.2f}"


def mean_curve(cells: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    """Mean over seeds after each epoch, over those that still train: some stop when there is nothing left to learn.

    An epoch in which a seed's score is not a number has none.

    Args:
        cells: one a seed.
        key: ``"curve"`` or ``"train_curve"``.
    """
    ended = object()
    found: list[float | None] = []
    for scores in itertools.zip_longest(*(cell.get(key) or [] for cell in cells), fillvalue=ended):
        there = [score for score in scores if score is not ended]
        found.append(None if None in there else statistics.fmean(there))
    return found


def partly_protected(values: Mapping[str, Any]) -> str:
    """Scores over the share of images that carry noise: of the whole mixture, and of its clean images alone.

    Args:
        values: ``UnlearnabilityReport.to_dict()``.
    """
    found = mixtures(values)
    if not found:
        return ""
    figures, rows = [], []
    share = Axis("share of images that are protected", 0.0, 1.0, _TICKS, "{:.0%}".format)
    for victim, points in found:
        mixed = [(fraction, row and row["last"]) for fraction, row, _ in points]
        alone = [(fraction, row and row["last"]) for fraction, _, row in points]
        lines = [Line(mixed, colour("protected"), dots=True), Line(alone, colour("clean"), dashed=True, dots=True)]
        both = zip(mixed, alone, strict=True)
        told = "; ".join(f"{f:.0%} protected gives {_two(m)}, its clean part {_two(a)}" for (f, m), (_, a) in both)
        drawn = chart(
            f"Scores of {victim}: {told}.", lines, share, score_axis(values["metric"]), values["chance"] or 0.0
        )
        figures.append(f"<figure>{drawn}<figcaption>{escape(victim)}</figcaption></figure>")
        rows += [[victim, f"{f:.0%}", mean_and_sd(m, "last"), mean_and_sd(a, "last")] for f, m, a in points]
    solid, dashed = (f'<i class="key" style="border-color:{colour(data)}' for data in ("protected", "clean"))
    keys = f'{solid}"></i>all images {dashed};border-top-style:dashed"></i>their clean part alone'
    note = (
        "Where both lines are one, the protected images add nothing to the clean ones beside them. Protection of some images does not "
        "keep anyone from learning from the rest."
    )
    header = ["victim", "protected", f"{values['metric']}, all images", "clean part alone"]
    return (
        f"<p>{keys}</p>"
        + small(note)
        + _grid(figures)
        + fold("The numbers", table(header, rows, "Partly protected sets"))
    )


def _two(score: float | None) -> str:
    return "no score" if score is None else f"{score:.2f}"
