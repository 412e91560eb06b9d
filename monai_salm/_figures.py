"""Pictures and curves for the report as text that needs no other file: PNG data URIs and hand-written SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.generic]

# Told apart by colour-blind readers too (Okabe and Ito 2008); the protected curve is the one to look at.
COLOURS = {"clean": "#0072b2", "random_noise": "#666666", "protected": "#d55e00"}
_MORE_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 220, 40, 12, 12, 34


def colour(data: str, position: int = 0) -> str:
    """The colour of a kind of training data, the same in every figure."""
    return COLOURS.get(data, _MORE_COLOURS[position % len(_MORE_COLOURS)])


def png_uri(grey: NDArray[np.uint8]) -> str:
    """A picture ``(height, width)`` or ``(height, width, 3)`` as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def planes(image: Array) -> list[tuple[str, Array]]:
    """What of an image is shown: all of a 2D one, the three middle planes of a volume.

    Args:
        image: ``(channel, *spatial)``; three channels are shown as colour, else the first.

    Returns:
        A name and an array ``(height, width)`` or ``(height, width, 3)`` each.
    """
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    if image.ndim == 3:
        return [("", shown)]
    middle = [n // 2 for n in image.shape[1:]]
    return [(f"plane {middle[axis]} of axis {axis + 1}", np.take(shown, middle[axis], axis=axis)) for axis in range(3)]


def to_grey(values: Array, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Intensities as 8-bit grey, the window running from black to white."""
    low, high = window
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(np.nan_to_num(scaled), 0, 1) * 255).astype(np.uint8)


def amplified(clean: Array, protected: Array, gain: float, window: tuple[float, float]) -> NDArray[np.uint8]:
    """The difference of two pictures, multiplied by ``gain``, about middle grey."""
    change = (protected.astype(np.float64) - clean.astype(np.float64)) / (window[1] - window[0])
    return np.rint(np.clip(np.nan_to_num(0.5 + gain * change), 0, 1) * 255).astype(np.uint8)


def curves_svg(
    title: str, curves: Mapping[str, tuple[Sequence[float | None], Sequence[float | None]]], chance: float, metric: str
) -> str:
    """Test scores (solid) and training scores (dashed) over the epochs, one colour for each kind of training data.

    Args:
        title: read aloud by screen readers.
        curves: for each kind of data the test scores and the training scores, one an epoch.
        chance: drawn as a dotted line.
        metric: name of the vertical axis.
    """
    epochs = max(2, *(len(test) for test, _ in curves.values()))
    parts = [_axes(epochs, metric)]
    y = _y(chance)
    parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#000" stroke-dasharray="1 3" fill="none"/>')
    label = y + 12 if chance > 0.1 else y - 4  # below the line, where curves seldom run, if there is room
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{label:.1f}" text-anchor="end">chance</text>')
    for position, (data, (test, train)) in enumerate(curves.items()):
        stroke = colour(data, position)
        parts.append(
            f'<path d="{_path(train, epochs)}" fill="none" stroke="{stroke}" stroke-dasharray="4 3" stroke-width="1"/>'
        )
        parts.append(f'<path d="{_path(test, epochs)}" fill="none" stroke="{stroke}" stroke-width="2.2"/>')
    text = html.escape(title)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'


def _axes(epochs: int, metric: str) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" stroke="#555" fill="none"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for epoch in sorted({1, (epochs + 1) // 2, epochs}):
        parts.append(f'<text x="{_x(epoch - 1, epochs):.1f}" y="{bottom + 15}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epoch</text>')
    parts.append(
        f'<text x="{-_HEIGHT / 2 + 10:.0f}" y="9" text-anchor="middle" transform="rotate(-90)">{html.escape(metric)}</text>'
    )
    return "".join(parts)


def _x(index: int, epochs: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * index / (epochs - 1)


def _y(score: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(max(score, 0.0), 1.0))


def _path(scores: Sequence[float | None], epochs: int) -> str:
    """An SVG path through the scores; one that is missing breaks the line."""
    parts, pen = [], "M"
    for index, score in enumerate(scores):
        if score is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_x(index, epochs):.1f} {_y(score):.1f}")
        pen = "L"
    if len(parts) == 1:  # a path of one point draws nothing
        parts.append("h0.1")
    return "".join(parts)
