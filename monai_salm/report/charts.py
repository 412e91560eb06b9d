"""Line charts as hand-written SVG: training curves, mixtures, histograms."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Told apart by colour-blind readers too (Okabe and Ito 2008); the protected line is the one to look at.
_COLOURS = {"clean": "#0072b2", "random_noise": "#666666", "protected": "#d55e00", "random_mask": "#009e73"}
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#000000")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 220, 40, 12, 12, 34


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        points: x and y each; a y that is None breaks the line.
        colour: of the stroke.
        dashed: dashed and thin.
        dots: mark each point, for lines of few points.
    """

    points: Sequence[tuple[float, float | None]]
    colour: str
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        name: written beside it.
        low: its begin.
        high: its end, above ``low``.
        ticks: where numbers stand.
        write: how they are written.
    """

    name: str
    low: float
    high: float
    ticks: Sequence[float]
    write: Callable[[float], str] = "{:g}".format


def colour(data: str, position: int = 0) -> str:
    """The colour of a kind of training data, the same in every chart."""
    return _COLOURS.get(data, _MORE_COLOURS[position % len(_MORE_COLOURS)])


def score_axis(metric: str) -> Axis:
    """The vertical axis of all scores, from 0 to 1, so that charts can be compared."""
    return Axis(metric, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def epoch_axis(epochs: int) -> Axis:
    """The horizontal axis of training curves."""
    last = max(2, epochs)
    return Axis("epoch", 1, last, sorted({1, (last + 1) // 2, last}))


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, guess: float | None = None) -> str:
    """Draw lines.

    Args:
        title: read aloud by screen readers: what is shown, and what it comes to.
        lines: drawn in order, the last on top.
        x: horizontal axis.
        y: vertical axis.
        guess: score of guessing, drawn as a dotted line.
    """
    parts = [_frame(x, y)]
    if guess is not None:
        level = _y(guess, y)
        parts.append(
            f'<path d="M{_LEFT} {level:.1f}H{_WIDTH - _RIGHT}" stroke="#000" stroke-dasharray="1 3" fill="none"/>'
        )
        place = level + 12 if guess > 0.1 else level - 4  # below the line, where curves seldom run, if there is room
        parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{place:.1f}" text-anchor="end">guessing</text>')
    for line in lines:
        look = 'stroke-dasharray="4 3" stroke-width="1.2"' if line.dashed else 'stroke-width="2.2"'
        parts.append(f'<path d="{_path(line.points, x, y)}" fill="none" stroke="{line.colour}" {look}/>')
        if line.dots:
            parts += [
                f'<circle cx="{_x(at, x):.1f}" cy="{_y(value, y):.1f}" r="3" fill="{line.colour}"/>'
                for at, value in line.points
                if value is not None
            ]
    text = html.escape(title)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" stroke="#555" fill="none"/>']
    for tick in y.ticks:
        level = _y(tick, y)
        parts.append(f'<path d="M{_LEFT} {level:.1f}H{right}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{level + 4:.1f}" text-anchor="end">{html.escape(y.write(tick))}</text>')
    for tick in x.ticks:
        place = f'x="{_x(tick, x):.1f}" y="{bottom + 15}" text-anchor="{"end" if tick == x.high else "middle"}"'
        parts.append(f"<text {place}>{html.escape(x.write(tick))}</text>")
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x.name)}</text>')
    turned = f'x="{-_HEIGHT / 2 + 10:.0f}" y="9" text-anchor="middle" transform="rotate(-90)"'
    return "".join([*parts, f"<text {turned}>{html.escape(y.name)}</text>"])


def _x(value: float, axis: Axis) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(value, axis)


def _y(value: float, axis: Axis) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - _share(value, axis))


def _share(value: float, axis: Axis) -> float:
    return min(max((value - axis.low) / (axis.high - axis.low), 0.0), 1.0)


def _path(points: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> str:
    parts, pen = [], "M"
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_x(at, x):.1f} {_y(value, y):.1f}")
        pen = "L"
    if len(parts) == 1:  # a path of one point draws nothing
        parts.append("h0.1")
    return "".join(parts)
