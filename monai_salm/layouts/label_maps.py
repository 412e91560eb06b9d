"""Label maps: read from one file, or from one for each class, onto the grid of their image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel import orientations

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.formats.pictures import places_in_palette
from monai_salm.layouts.files import is_file
from monai_salm.shared.arrays import Array

_AXES: Any = orientations  # which states no types
# A label map and its image may lie this far apart, in voxels: programs round their headers.
_APART = 0.5
#: An image has more values. A label map of more values has neighbours that are alike.
FEW_VALUES = 8
_MOST_VALUES = 400
# JPEG blurs the edge of a mask: values up to this far from black or white, but for a few, are those of two.
_LOSSY, _BLUR, _MOSTLY = (".jpg", ".jpeg", ".jpe", ".jfif"), 64, 0.9


@dataclass(frozen=True)
class LabelParts:
    """A label map in several files of zeros and something else, and the class of each; where they overlap, the last counts."""

    parts: tuple[tuple[str, int], ...]


#: Where a label map stands: a file relative to the data set's root, or one for each class.
LabelMap: TypeAlias = str | LabelParts


def files_of(label: object) -> tuple[str, ...]:
    """The files of a label map; none for any other label."""
    if isinstance(label, LabelParts):
        return tuple(file for file, _ in label.parts)
    return (label,) if isinstance(label, str) else ()


def read_label_map(root: Path, label: LabelMap, case: str) -> Array:
    """Read a label map as it is stored: ``(1, *spatial)``, whole numbers; ``case`` names its case in messages.

    A FormatError says if a file is missing, or holds no classes, or if the parts differ in shape.
    """
    if isinstance(label, str):
        return _read(root / label, case)
    whole: Array | None = None
    for file, number in label.parts:
        part = _read(root / file, case)
        if whole is None:
            whole = np.zeros(part.shape, np.uint8 if max(n for _, n in label.parts) < 256 else np.uint16)
        if part.shape != whole.shape:
            raise FormatError(f"case {case!r}: {root / file} has shape {part.shape[1:]}, others {whole.shape[1:]}")
        whole[part != 0] = number
    assert whole is not None
    return whole


def on_grid_of(label: Array, own: Array | None, image: Array | None, shape: Sequence[int], where: str) -> Array:
    """A label map ``(1, *spatial)`` along the axes of its image of a spatial ``shape``.

    ``own`` and ``image`` are the affines of the label map and of its image, from indices to millimetres, ``(4, 4)``; None where
    a file says nothing. A FormatError says if it lies elsewhere than its image.
    """
    if own is None or image is None or label.ndim != len(shape) + 1:
        return label
    full = (*label.shape[1:], 1)[:3]
    # From indices of the label map to indices of the image.
    steps: Array = np.linalg.solve(image.astype(float), own.astype(float))
    if label.shape[1:] == tuple(shape):
        corners = np.stack([*np.indices((2, 2, 2)).reshape(3, 8) * (np.array(full) - 1)[:, None], np.ones(8)])
        if np.abs((steps - np.eye(4)) @ corners).max() < _APART:
            return label
    turn = _AXES.io_orientation(steps)
    if not np.isnan(turn).any():
        turned = _AXES.apply_orientation(label[0].reshape(full), turn)
        rest = steps @ _AXES.inv_ornt_aff(turn, full) - np.eye(4)
        close = np.abs(rest[:3, :3]).max() < 0.01 and np.abs(rest[:3, 3]).max() < _APART
        if close and turned.shape[: len(shape)] == tuple(shape):
            return np.ascontiguousarray(turned.reshape(shape))[None]
    if np.allclose(own, np.eye(4)) or np.allclose(image, np.eye(4)):  # what programs write that know no geometry
        return label
    raise FormatError(
        f"{where}: the affines differ by more than the order and direction of the axes, so the label map lies elsewhere than its "
        "image; resample it onto the image's grid"
    )


def distinct(values: Array) -> Array:
    """The different values of an array, sorted."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and values.size:
        low = int(values.min())
        return np.flatnonzero(np.bincount(values.ravel().astype(np.int64) - low)) + low
    return np.unique(values)


def looks_like_label_map(image: Array) -> bool:
    """Whether an image ``(channel, *spatial)`` holds few whole values, as label maps do; one of a single value says nothing."""
    first = image[0]
    values = distinct(first)
    if not 1 < len(values) <= _MOST_VALUES or not np.isfinite(values).all() or (values != np.rint(values)).any():
        return False
    if len(values) <= FEW_VALUES:
        return True
    inner, next_ = first[:-1], first[1:]
    shown = inner != values[0]
    return bool(shown.any() and (inner == next_)[shown].mean() > 0.6)


def is_label_map(path: Path, empty: bool = False) -> bool:
    """Whether a file holds what looks like a label map, or (``empty``) a single value; False for one that cannot be read."""
    return look_of(path) in ("map", "empty" if empty else "map")


def look_of(path: Path) -> str:
    """What the content of a file looks like: ``"map"``, ``"empty"`` (a single value) or ``"image"``; empty if it cannot be read."""
    with suppress(FormatError, OSError):
        label = unblurred(path, _one_channel(format_of(path).read(path)))
        return "map" if looks_like_label_map(label) else "empty" if label.min() == label.max() else "image"
    return ""


def _read(path: Path, case: str) -> Array:
    if not is_file(path):
        raise FormatError(f"case {case!r}: its label map is missing: {path}")
    label = unblurred(path, _one_channel(format_of(path).read(path)))
    places = places_in_palette(path.read_bytes()) if format_of(path).pictures else None
    if places is not None:
        return places[None]
    if len(label) == 3 and format_of(path).pictures:
        raise FormatError(
            f"case {case!r}: {path} is a label map in colours, which do not say the number of their class; save class numbers as "
            "grey values or as places in a palette"
        )
    if path.suffix.lower() in _LOSSY and len(distinct(label)) > FEW_VALUES:
        raise FormatError(
            f"case {case!r}: {path} is JPEG, whose compression has blurred its classes into {len(distinct(label))} values; save "
            "label maps as PNG, from what they were before"
        )
    return label


def unblurred(path: Path, label: Array) -> Array:
    """A mask of black and white as it was before JPEG blurred it; any other image as it is."""
    if path.suffix.lower() not in _LOSSY or label.dtype != np.uint8 or label.max() < 255 - _BLUR:
        return label
    values = np.arange(256)
    sure = (values <= _BLUR) | (values >= 255 - _BLUR)
    mask: Array = np.where(values > 127, 255, 0).astype(np.uint8)[label]
    return mask if sure[label].mean() >= _MOSTLY else label


def _one_channel(label: Array) -> Array:
    """A grey label map that was saved in colours, and with transparency, has one channel again."""
    if len(label) in (2, 3, 4) and label.ndim == 3:
        colours = label[:-1] if len(label) in (2, 4) and label[-1].min() == label[-1].max() else label
        if (colours == colours[:1]).all():
            return colours[:1]
    return label
