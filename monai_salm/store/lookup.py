"""Why an image is not in a store: the likely cause, and what to do about it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import INTEGER_GRIDS
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.noise.window import AutomaticWindow, FixedWindow, IntensityWindow
from monai_salm.shared.arrays import Array
from monai_salm.store.as_loaded import find_as_loaded
from monai_salm.store.records import scales_of
from monai_salm.store.store import NoiseStore

# Each of up to 48 orientations of an image is hashed; for larger ones that would take minutes.
_MAX_ORIENTED = 2**22
_REORDERED = "with its spatial axes in another order"


class ImageNotFoundError(NoiseStoreError):
    """The store has no noise for this image, or did not protect it; the message says the likely cause and what to do."""


@dataclass(frozen=True)
class Lookup:
    """An image ``(channel, *spatial)`` that a transform looks for, as it reached the transform.

    Args:
        name: the case, or ``""``.
        applied: names of the transforms that its metadata says were applied to it.
        protected: looks for the protected image (to restore it), not for the original (to protect it).
    """

    store: NoiseStore
    image: Array
    name: str = ""
    applied: Sequence[str] = ()
    protected: bool = False

    @property
    def transform(self) -> str:
        """The dictionary transform that looks."""
        return "SALMRestored" if self.protected else "SALMProtectd"

    @property
    def where(self) -> str:
        """The case, for the start of a message."""
        return f"case {self.name!r}" if self.name else "an image"

    def find(self, image: Array, other: bool = False) -> Noise | None:
        """Noise of this image; with ``other``, of the kind of image that is not looked for."""
        get = self.store.get_protected if self.protected != other else self.store.get
        return get(content_digest(image), image.shape)


def not_found(lookup: Lookup) -> ImageNotFoundError:
    """The error for an image that is not in the store, with the first cause that fits."""
    cause = next(filter(None, (check(lookup) for check in _CHECKS)))
    path, image = lookup.store.path, lookup.image
    what = f"is not an image that {path} protected" if lookup.protected else f"has no noise in {path}"
    return ImageNotFoundError(f"{lookup.where}, {image.dtype} {image.shape}, {what}: {cause}")


def refuse_protected(lookup: Lookup) -> None:
    """Make sure that an original is no protected image of the store, flipped or turned; noise is never put on noise."""
    cause = _other_side(lookup) or next(_oriented(lookup, other=True), None)
    if cause is not None:
        raise ImageNotFoundError(f"{lookup.where} must not get noise again: {cause}")


def _other_side(lookup: Lookup) -> str | None:
    noise = lookup.find(lookup.image, other=True)
    found = None if noise else find_as_loaded(lookup.store, lookup.image, protected=not lookup.protected)
    noise = found.noise if found else noise
    if noise is None:
        return None
    if lookup.protected:
        return f"it is the original of case {noise.name!r} already, there is nothing to restore. Take SALMRestored out"
    return f"it is case {noise.name!r}, protected already. Feed the originals, or take SALMProtectd out of the chain"


def _empty(lookup: Lookup) -> str | None:
    return None if len(lookup.store) else "the store is empty. Fill it with precompute() or `monai-salm generate`"


def _channel(lookup: Lookup) -> str | None:
    """An axis too many, too few, or in the wrong place."""
    store, shape = lookup.store, lookup.image.shape
    if store.has_shape(shape) or _with_axes_exchanged(lookup):
        return None
    turned = shape[::-1]  # PILReader and PydicomReader exchange the axes
    if store.has_shape((1, *shape)) or store.has_shape((1, *turned)):
        return "it has no channel axis. Use LoadImaged(..., ensure_channel_first=True) or EnsureChannelFirstd before"
    if shape and (store.has_shape((shape[-1], *shape[:-1])) or store.has_shape(turned)):
        return "its channel axis is the last. Use EnsureChannelFirstd before"
    if shape and store.has_shape(shape[1:]):
        return f"it has a batch axis. Place {lookup.transform} in the data set's chain, where images come one by one"
    return None


def _turned(lookup: Lookup) -> str | None:
    found = next(_oriented(lookup, other=False), None) or next(_oriented(lookup, other=True), None)
    return found and f"{found}. {_place(lookup, 'transforms that flip or reorient')}"


def _oriented(lookup: Lookup, other: bool) -> Iterator[str]:
    """Flips and turns of the image that the store knows."""
    image = lookup.image
    rank = image.ndim - 1
    if rank not in (2, 3) or image.size > _MAX_ORIENTED:
        return
    for order in itertools.permutations(range(1, rank + 1)):
        turned = image.transpose(0, *order)
        if not lookup.store.has_shape(turned.shape):
            continue
        for flips in itertools.product((False, True), repeat=rank):
            axes = tuple(axis for axis, flip in enumerate(flips) if flip)
            noise = lookup.find(np.flip(turned, tuple(a + 1 for a in axes)), other)
            moved = [f"{_REORDERED} (back: {tuple(a - 1 for a in order)})"] if order != tuple(sorted(order)) else []
            if axes:
                moved.append(f"flipped along spatial {'axes' if len(axes) > 1 else 'axis'} {', '.join(map(str, axes))}")
            if noise is not None and moved:
                kind = "the protected image of " if lookup.protected != other else ""
                yield f"it is {kind}case {noise.name!r} {' and '.join(moved)}"


def _other_shape(lookup: Lookup) -> str | None:
    store, shape = lookup.store, lookup.image.shape
    named = store.shapes_of(lookup.name) if lookup.name else []
    if shape in named or (not named and store.has_shape(shape)) or _with_axes_exchanged(lookup):
        return None
    shapes = " or ".join(map(str, store.shapes()))
    known = f"its noise there is {named[0]}" if named else f"noise there is of shape {shapes}"
    place = _place(lookup, "transforms that crop, pad or resample (RandSpatialCropd, Resized, Spacingd)")
    return f"{known}. {place}{_if_new(lookup)}"


def _with_axes_exchanged(lookup: Lookup) -> bool:
    """Whether the store has images of this shape with the spatial axes in reverse, as PILReader and PydicomReader load them."""
    channels, *spatial = lookup.image.shape or (0,)
    return len(spatial) > 1 and lookup.store.has_shape((channels, *spatial[::-1]))


def _values(lookup: Lookup) -> str:
    """The shape is right, at least with axes exchanged, and the values are not."""
    image, window = lookup.image, usual_window(lookup.store)
    changes = "transforms that change intensities (ScaleIntensityRanged, NormalizeIntensityd)"
    if not lookup.store.has_shape(image.shape):
        changes = "transforms that resample (Spacingd) or change intensities (ScaleIntensityRanged)"
    place = _place_or_reader(lookup, changes)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        return f"it holds NaN or infinite values, as a division by zero leaves them. {place}"
    low, high = float(image.min()), float(image.max())
    span = f"its values run from {low:g} to {high:g}"
    if window is not None:
        span += f", the store's window is {window.low:g} to {window.high:g}"
        unscaled = np.rint(window.low + image.astype(np.float64) * window.width)
        if low >= 0 and high <= 1 and lookup.find(unscaled) is not None:
            return f"it was rescaled to [0, 1] ({span}). {place}"
    guess = rescaled(image, window)
    if guess is not None:
        return f"it seems to be {guess} ({span}). {place}"
    if image.dtype.kind == "f" and set(lookup.store.dtypes()) <= set(INTEGER_GRIDS) and (np.rint(image) != image).any():
        said = "its values are not whole numbers, those of the stored images are: was it resampled or rescaled?"
        return f"{said} {place}"
    return (
        f"images of this shape are there, but none with these values ({span}): was it changed, compressed with loss or "
        f"loaded by another reader, or is this the store of another data set? {place}{_if_new(lookup)}"
    )


def _if_new(lookup: Lookup) -> str:
    """What to do about an image that is right as it is and came after the store was made; empty where that cannot be."""
    changed = any(name.startswith("Rand") for name in lookup.applied)
    if lookup.protected or changed or (lookup.name and lookup.store.shapes_of(lookup.name)):
        return ""
    joins = 'on_missing="generate" makes its noise (and needs its label)'
    return f". If it is new, {joins if _could_join(lookup) else 'run precompute() with it in the data set'}"


def _could_join(lookup: Lookup) -> bool:
    """Whether the store has what noise for an image of this shape takes (``new_images``)."""
    meta, shape = lookup.store.meta, lookup.image.shape
    try:
        kind, size = meta["view"]["kind"], tuple(meta["view"]["size"])
        if len(shape) != len(size) + 1:
            return False
        if meta["rounds"] > 0:  # else no network is needed
            specs = lookup.store.rows("SELECT spec FROM network LIMIT 1")
            if not specs or json.loads(specs[0][0])["in_channels"] != shape[0]:
                return False
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return False
    if kind == "full":
        return shape[1:] == size
    return kind == "resize" or all(side >= least for side, least in zip(shape[1:], size, strict=True))


def usual_window(store: NoiseStore) -> IntensityWindow | None:
    """The window of all images of a store, stored units; None if each has its own."""
    rule = store.window
    if isinstance(rule, IntensityWindow):
        return rule if isinstance(rule.low, float) else None
    if isinstance(rule, FixedWindow):  # in real units
        return None if len(scales_of(store)) else IntensityWindow(rule.low, rule.high)
    pictures = isinstance(rule, AutomaticWindow) and store.dtypes() == ["uint8"] and len(store.shapes(1)[0]) == 3
    return IntensityWindow(0, 255) if pictures else None


def rescaled(image: Array, window: IntensityWindow | None) -> str | None:
    """Which common change of scale an image's values give away, or None; the window is that of all images of the store, if any."""
    # A window as narrow as the ranges below says nothing, and fractions come from arithmetic.
    narrow = window is not None and window.width <= 4
    if narrow or image.dtype.kind != "f" or image.size == 0 or not (np.rint(image) != image).any():
        return None
    low, high = float(image.min()), float(image.max())
    with np.errstate(invalid="ignore"):  # infinite values are another's business
        mean, std = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    if window is not None and low >= -1 and high <= 1:
        return f"rescaled to [{0 if low >= 0 else -1}, 1]"
    return "normalised to mean 0 and deviation 1" if abs(mean) < 0.01 and abs(std - 1) < 0.01 else None


def _place(lookup: Lookup, what: str) -> str:
    applied = f" (applied to it already: {', '.join(lookup.applied)})" if lookup.applied else ""
    return f"Place {lookup.transform} right after LoadImaged, before {what}{applied}"


def _place_or_reader(lookup: Lookup, what: str) -> str:
    """``_place``; where MONAI notes no transform, the reader itself may show other values than the file holds."""
    if lookup.applied:
        return _place(lookup, what)
    return (
        f"{_place(lookup, what)}. If it is there, the reader shows other values than the file holds (a palette, CMYK, colour DICOM): "
        "read its file with another reader, or train on the published copy (docs/monai.md)"
    )


_CHECKS: tuple[Callable[[Lookup], str | None], ...] = (_other_side, _empty, _channel, _turned, _other_shape, _values)
