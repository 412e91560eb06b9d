"""Pictures of clean and protected images as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_salm.shared.arrays import Array

Picture: TypeAlias = tuple[str, Array, Array]

# Larger planes are thinned out, since every picture is part of the page's file.
LARGEST = 512


def image_figures(shown: Sequence[Picture], window: tuple[float, float], linf: float | None) -> dict[str, Any]:
    """Title, share of the voxels that differ, and four pictures with names of each plane of the images ``shown``.

    The largest change ``linf``, a fraction of the window, becomes black or white. Volumes have three planes.
    """
    gain, figures = 0.5 / linf if linf else 1.0, []
    for name, clean, protected in shown:
        changed = (clean != protected).any(axis=0, keepdims=True)
        for (where, before), (_, after), (_, mask) in zip(*map(planes, (clean, protected, changed)), strict=True):
            row = {
                "clean": to_grey(before, window),
                "protected": to_grey(after, window),
                f"difference times {gain:.0f}": amplified(before, after, gain, window),
                "changed voxels": mask.astype(np.uint8) * np.uint8(255),
            }
            title = f"{name}, {where}" if where else name
            figures.append((title, float(mask.mean()), [(kind, png_uri(thin(grey))) for kind, grey in row.items()]))
    return {"gain": gain, "pictures": figures}


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
