"""Pictures of clean and protected images as text that needs no other file, and histograms of their values."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_salm.report.blocks import escape, small
from monai_salm.report.charts import Axis, Line, chart, colour
from monai_salm.shared.arrays import Array

Picture: TypeAlias = tuple[str, Array, Array]

# Larger planes are thinned out, since every picture is part of the page's file.
_LARGEST = 512
_BINS = 48


def pictures(shown: Sequence[Picture], window: tuple[float, float], linf: float | None) -> str:
    """Clean image, protected image, amplified difference and changed voxels side by side; of volumes three planes.

    Args:
        shown: name, clean and protected image ``(channel, *spatial)``, stored units.
        window: intensities shown as black and white.
        linf: largest change as a fraction of the window, which the gain stretches to the ends.
    """
    gain = 0.5 / linf if linf else 1.0
    figures = []
    for name, clean, protected in shown:
        changed = (clean != protected).any(axis=0, keepdims=True)
        for (where, before), (_, after), (_, mask) in zip(
            planes(clean), planes(protected), planes(changed), strict=True
        ):
            title = f"{name}, {where}" if where else name
            row = (
                ("clean", to_grey(before, window)),
                ("protected", to_grey(after, window)),
                (f"difference times {gain:.0f}", amplified(before, after, gain, window)),
                ("changed voxels", mask.astype(np.uint8) * np.uint8(255)),
            )
            figures.append(_figure(title, row, float(np.count_nonzero(mask)) / mask.size))
    note = (
        f"Difference times {gain:.0f} about middle grey; voxels that changed in any channel are white. Pictures larger than "
        f"{_LARGEST} pixels are thinned out."
    )
    return small(note) + f'<div class="grid shots">{"".join(figures)}</div>'


def _figure(title: str, row: Sequence[tuple[str, NDArray[np.uint8]]], changed: float) -> str:
    images = "".join(
        f'<div><img src="{png_uri(thin(grey))}" alt="{escape(f"{title}: {kind}")}">{escape(kind)}</div>'
        for kind, grey in row
    )
    caption = f"<figcaption>{escape(title)}; {changed:.0%} of the voxels shown differ</figcaption>"
    return f'<figure><div class="row">{images}</div>{caption}</figure>'


def png_uri(grey: NDArray[np.uint8]) -> str:
    """A picture ``(height, width)`` or ``(height, width, 3)`` as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thin(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave out rows and columns of a large picture; interpolation would smooth the noise away."""
    step = -(-max(grey.shape[:2]) // _LARGEST)
    return grey[::step, ::step]


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


def histograms(shown: Sequence[Picture], window: tuple[float, float]) -> str:
    """How noise values are spread, and whether the intensities' histogram gives the noise away.

    Args:
        shown: name, clean and protected image each, stored units.
        window: the range of the intensities' histogram; values outside are left out.
    """
    before = np.concatenate([clean.ravel().astype(np.float64) for _, clean, _ in shown])
    after = np.concatenate([protected.ravel().astype(np.float64) for _, _, protected in shown])
    finite = np.isfinite(before) & np.isfinite(after)
    before, after = before[finite], after[finite]
    noise = (after - before)[after != before] / (window[1] - window[0])
    figures = [_intensities(before, after, window)]
    if len(noise):
        figures.append(_noise(noise, len(noise) / len(before)))
    return small("Of the images shown above, all channels and voxels.") + f'<div class="grid">{"".join(figures)}</div>'


def _intensities(before: NDArray[np.float64], after: NDArray[np.float64], window: tuple[float, float]) -> str:
    counts = [np.histogram(values, _BINS, window)[0] * (100 / max(1, len(values))) for values in (before, after)]
    edges = np.linspace(*window, _BINS + 1)
    moved = float(np.abs(counts[0] - counts[1]).sum() / 2)
    lines = [
        Line(_steps(edges, counts[0]), colour("clean")),
        Line(_steps(edges, counts[1]), colour("protected"), dashed=True),
    ]
    top = _round_up(max(float(count.max()) for count in counts))
    told = f"Intensities of clean (solid) and protected images (dashed): {moved:.1f} % of the voxels lie in other bars."
    x = Axis("intensity", *window, (window[0], sum(window) / 2, window[1]))
    drawn = chart(told, lines, x, Axis("share of voxels", 0.0, top, (0.0, top / 2, top), "{:.3g}%".format))
    return f"<figure>{drawn}<figcaption>{escape(told)}</figcaption></figure>"


def _noise(noise: NDArray[np.float64], support: float) -> str:
    reach = float(np.abs(noise).max())
    # An odd number of bars, so that one lies about zero and both signs are treated alike.
    counts, edges = np.histogram(noise, _BINS + 1, (-reach, reach))
    share = counts * (100 / len(noise))
    top = _round_up(float(share.max()))
    told = (
        f"Noise at the {support:.1%} of voxels that changed, as a fraction of the window: from {noise.min():.4f} to "
        f"{noise.max():.4f}, mean {noise.mean():.4f}."
    )
    x = Axis("noise, fraction of the window", -reach, reach, (-reach, 0.0, reach), "{:.3f}".format)
    lines = [Line(_steps(edges, share), colour("protected"))]
    drawn = chart(told, lines, x, Axis("share of changed voxels", 0.0, top, (0.0, top / 2, top), "{:.3g}%".format))
    return f"<figure>{drawn}<figcaption>{escape(told)}</figcaption></figure>"


def _steps(edges: NDArray[np.float64], heights: NDArray[np.float64]) -> list[tuple[float, float | None]]:
    """A histogram's outline."""
    points: list[tuple[float, float | None]] = [(float(edges[0]), 0.0)]
    for low, high, height in zip(edges, edges[1:], heights, strict=False):
        points += [(float(low), float(height)), (float(high), float(height))]
    return [*points, (float(edges[-1]), 0.0)]


def _round_up(value: float) -> float:
    """The next number of one digit, at which an axis may end."""
    if value <= 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / step - 1e-9) * step)
