"""Pictures of clean and protected images as data URIs, and charts of the histograms of their values."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_salm.report.charts import Axis, Chart, Line, colour
from monai_salm.shared.arrays import Array

Picture: TypeAlias = tuple[str, Array, Array]

# Larger planes are thinned out, since every picture is part of the page's file.
LARGEST = 512
_BINS = 48


def pictures(
    shown: Sequence[Picture], window: tuple[float, float], gain: float
) -> list[tuple[str, float, list[tuple[str, str]]]]:
    """Title, share of the voxels that differ, and four pictures with names: clean, protected, difference, changed voxels.

    ``shown`` has name, clean and protected image ``(channel, *spatial)`` each, in stored units. Volumes have three planes.
    """
    figures = []
    for name, clean, protected in shown:
        changed = (clean != protected).any(axis=0, keepdims=True)
        for (where, before), (_, after), (_, mask) in zip(
            planes(clean), planes(protected), planes(changed), strict=True
        ):
            row = (
                ("clean", to_grey(before, window)),
                ("protected", to_grey(after, window)),
                (f"difference times {gain:.0f}", amplified(before, after, gain, window)),
                ("changed voxels", mask.astype(np.uint8) * np.uint8(255)),
            )
            title = f"{name}, {where}" if where else name
            share = float(np.count_nonzero(mask)) / mask.size
            figures.append((title, share, [(kind, png_uri(thin(grey))) for kind, grey in row]))
    return figures


def png_uri(grey: NDArray[np.uint8]) -> str:
    """A picture ``(height, width)`` or ``(height, width, 3)`` as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thin(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave out rows and columns of a large picture; interpolation would smooth the noise away."""
    step = -(-max(grey.shape[:2]) // LARGEST)
    return grey[::step, ::step]


def planes(image: Array) -> list[tuple[str, Array]]:
    """Name and plane ``(height, width[, 3])`` of a 2D image, or of the three middle planes of a volume; three channels are colour."""
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


def histograms(shown: Sequence[Picture], window: tuple[float, float]) -> list[Chart]:
    """Charts of the intensities in the window before and after, and of the noise."""
    before = np.concatenate([clean.ravel().astype(np.float64) for _, clean, _ in shown])
    after = np.concatenate([protected.ravel().astype(np.float64) for _, _, protected in shown])
    finite = np.isfinite(before) & np.isfinite(after)
    before, after = before[finite], after[finite]
    noise = (after - before)[after != before] / (window[1] - window[0])
    charts = [_intensities(before, after, window)]
    if len(noise):
        charts.append(_noise(noise, len(noise) / len(before)))
    return charts


def _intensities(before: NDArray[np.float64], after: NDArray[np.float64], window: tuple[float, float]) -> Chart:
    counts = [np.histogram(values, _BINS, window)[0] * (100 / max(1, len(values))) for values in (before, after)]
    edges = np.linspace(*window, _BINS + 1)
    moved = float(np.abs(counts[0] - counts[1]).sum() / 2)
    lines = [
        Line(_outline(edges, counts[0]), colour("clean")),
        Line(_outline(edges, counts[1]), colour("protected"), dashed=True),
    ]
    told = f"Intensities of clean (solid) and protected images (dashed): {moved:.1f} % of the voxels lie in other bars."
    x = Axis("intensity", *window, (window[0], sum(window) / 2, window[1]))
    return Chart(told, told, lines, x, _share_axis("share of voxels", max(float(count.max()) for count in counts)))


def _noise(noise: NDArray[np.float64], support: float) -> Chart:
    reach = float(np.abs(noise).max())
    # An odd number of bars, so that one lies about zero.
    counts, edges = np.histogram(noise, _BINS + 1, (-reach, reach))
    share = counts * (100 / len(noise))
    told = (
        f"Noise at the {support:.1%} of voxels that changed, as a fraction of the window: from {noise.min():.4f} to "
        f"{noise.max():.4f}, mean {noise.mean():.4f}."
    )
    x = Axis("noise, fraction of the window", -reach, reach, (-reach, 0.0, reach), "{:.3f}".format)
    lines = [Line(_outline(edges, share), colour("protected"))]
    return Chart(told, told, lines, x, _share_axis("share of changed voxels", float(share.max())))


def _outline(edges: NDArray[np.float64], heights: NDArray[np.float64]) -> list[tuple[float, float | None]]:
    points: list[tuple[float, float | None]] = [(float(edges[0]), 0.0)]
    for low, high, height in zip(edges, edges[1:], heights, strict=False):
        points += [(float(low), float(height)), (float(high), float(height))]
    return [*points, (float(edges[-1]), 0.0)]


def _share_axis(name: str, largest: float) -> Axis:
    """An axis in percent that ends at the next number of one digit."""
    step = 10.0 ** np.floor(np.log10(largest)) if largest > 0 else 1.0
    top = float(np.ceil(largest / step - 1e-9) * step) if largest > 0 else 1.0
    return Axis(name, 0.0, top, (0.0, top / 2, top), "{:.3g}%".format)


def image_figures(shown: Sequence[Picture], window: tuple[float, float], linf: float | None) -> dict[str, Any]:
    """All that the page shows of the images; the largest change ``linf``, a fraction of the window, becomes black or white."""
    gain = 0.5 / linf if linf else 1.0
    return {"gain": gain, "pictures": pictures(shown, window, gain), "histograms": histograms(shown, window)}
