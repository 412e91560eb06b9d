"""Finds images in a store that a reader shows otherwise than their files hold them.

MONAI's readers exchange axes (PNG, DICOM), give real values in place of stored numbers (NIfTI and DICOM with slope and
intercept), and grey files may be loaded as RGB. Each of these is undone exactly, and is done again to the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monai_salm.noise.digest import content_digest
from monai_salm.noise.noise import Noise
from monai_salm.shared.arrays import Array
from monai_salm.store.records import scales_of
from monai_salm.store.store import NoiseStore

#: What torchvision's ``ToTensor`` makes of pictures of 8 bits.
BYTES_TO_ONE = (1 / 255, 0.0)
# Values of a channel that are compared with a scale before the whole image is.
_SAMPLE = 256
# Ways of scaling several channels that are tried.
_MOST = 64


@dataclass(frozen=True)
class View:
    """How the axes of a stored image lie in a loaded one."""

    channels: tuple[slice, ...]  # parts of the loaded image that each hold all stored channels
    order: tuple[int, ...]  # spatial axes of the loaded image in the order of the file
    reversed: bool = False  # whether the slices of a series are in the opposite order
    flat: bool = False  # whether the loaded image has one axis more, of size 1, at the end

    def of(self, loaded: Array, number: int = 0) -> Array:
        """The stored axes ``(channel, *spatial)`` of a loaded image, in its own memory."""
        part = loaded[self.channels[number]]
        part = (part[..., 0] if self.flat else part).transpose(0, *self.order)
        return part[..., ::-1] if self.reversed else part


class Scale(NamedTuple):
    """Real values of stored numbers: slope and intercept of each channel, ``(channel, 1, ...)``."""

    slope: Array
    intercept: Array

    def stored(self, part: Array) -> Array:
        """The nearest stored numbers of real values ``(channel, *spatial)``."""
        whole = np.empty(part.shape, np.int64)
        for row in range(part.shape[1]):  # a large volume must not be in memory as float64
            real = part[:, row : row + 1].astype(np.float64)
            whole[:, row : row + 1] = np.rint((real - self.intercept) / self.slope)
        return whole

    def real(self, stored: Array, where: Array, dtype: np.dtype[np.generic]) -> Iterator[Array]:
        """Real values at some places, by the arithmetic of nibabel and by that of pydicom and torchvision."""
        slope, intercept = (np.broadcast_to(part, where.shape)[where] for part in (self.slope, self.intercept))
        yield (stored[where] * slope + intercept).astype(dtype)
        single = stored[where].astype(np.float32)
        yield (single * slope.astype(np.float32) + intercept.astype(np.float32)).astype(dtype)
        yield (single / np.float32(255)).astype(dtype)


class Found(NamedTuple):
    """An image that was found: its noise, how its axes were exchanged, how it is stored, and how it was scaled, if it was."""

    noise: Noise
    view: View
    stored: Array
    scale: Scale | None

    @property
    def divided(self) -> bool:
        """Whether it was divided by 255, which no reader of MONAI does."""
        return self.scale is not None and float(self.scale.slope.flat[0]) == BYTES_TO_ONE[0]

    def protect(self, loaded: Array) -> Array:
        """What the reader would give of the protected file, by the image that was found."""
        return self._with(loaded, self.noise.apply(self.stored))

    def restore(self, loaded: Array) -> Array:
        """What the reader would give of the original file."""
        return self._with(loaded, self.noise.remove(self.stored))

    def _with(self, loaded: Array, stored: Array) -> Array:
        """The loaded image with other stored values; all else keeps its bits."""
        where = stored != self.stored
        values = self._shown(stored, where, loaded)
        result = np.array(loaded)
        for number in range(len(self.view.channels)):
            self.view.of(result, number)[where] = values
        return result

    def _shown(self, stored: Array, where: Array, loaded: Array) -> Array:
        if self.scale is None:
            return stored[where]
        before = self.view.of(loaded)[where]
        ways, shown = (list(self.scale.real(image, where, loaded.dtype)) for image in (self.stored, stored))
        return next((after for way, after in zip(ways, shown, strict=True) if np.array_equal(way, before)), shown[0])


def find_as_loaded(store: NoiseStore, loaded: Array, protected: bool = False) -> Found | None:
    """Look for an image ``(channel, *spatial)`` that is not in a store as it is; NoiseStoreError if the store cannot be read."""
    get = store.get_protected if protected else store.get
    scales = None
    for number, view in enumerate(_views(loaded)):
        part = view.of(loaded)
        if not store.has_shape(part.shape):
            continue
        # The first view is often the image as it is, which was looked for.
        noise = get(content_digest(part), part.shape) if number or view.flat else None
        if noise is not None:
            return Found(noise, view, part, None)
        scales = _known_scales(store, loaded) if scales is None else scales
        for scale in _fitting(part, scales):
            stored = scale.stored(part)
            noise = get(content_digest(stored), part.shape)
            if noise is not None:
                return Found(noise, view, stored, scale)
    return None


def _views(loaded: Array) -> Iterator[View]:
    """All ways in which readers lay out the axes of a stored image, the plainest first."""
    rank, single = loaded.ndim - 1, loaded.shape[-1:] == (1,)
    ranks = [rank] * (rank in (2, 3)) + [rank - 1] * (single and rank in (3, 4))
    for channels in _channels(loaded) if ranks else ():
        for axes in ranks:
            flat = axes < rank
            for order in itertools.permutations(range(1, axes + 1)):
                yield View(channels, order, flat=flat)
                if axes == 3:  # a series sorted by numbers, not by places
                    yield View(channels, order, reversed=True, flat=flat)


def _channels(loaded: Array) -> Iterator[tuple[slice, ...]]:
    """Parts of a loaded image that hold all stored channels: the whole, all but alpha, one of three that are alike."""
    yield (slice(None),)
    count = len(loaded)
    if count in (2, 4):
        yield (slice(count - 1),)
    if count in (3, 4) and all(np.array_equal(loaded[0], other) for other in loaded[1:3]):
        yield tuple(slice(channel, channel + 1) for channel in range(3))


def _known_scales(store: NoiseStore, loaded: Array) -> Array:
    """Slopes and intercepts that the loaded image may have, ``(n, 2)``."""
    scales = scales_of(store)
    unit = loaded.dtype.kind == "f" and loaded.size and loaded.min() >= 0 and loaded.max() <= 1
    return np.vstack([scales, BYTES_TO_ONE]) if unit and "uint8" in store.dtypes() else scales


def _fitting(part: Array, scales: Array) -> Iterator[Scale]:
    """The scales by which every channel may be real values of whole stored numbers; tried on a sample of the values."""
    choices = [_fitting_channel(channel, scales) for channel in part] if len(scales) else [()]
    for chosen in itertools.islice(itertools.product(*choices), _MOST):
        pairs = np.asarray(chosen, np.float64).reshape(-1, 2, *[1] * (part.ndim - 1))
        yield Scale(pairs[:, 0], pairs[:, 1])


def _fitting_channel(channel: Array, scales: Array) -> Array:
    step = tuple(slice(None, None, max(1, size // 8)) for size in channel.shape)
    values = np.unique([*channel[step].flat, channel.min(), channel.max()]).astype(np.float64)
    if not np.isfinite(values).all():
        return scales[:0]
    values = values[:: max(1, len(values) // _SAMPLE)]
    slope, intercept = scales[:, :1], scales[:, 1:]
    stored = (values - intercept) / slope
    # float32 rounds the real values.
    error = 1e-3 + (np.abs(values) + np.abs(intercept)) / np.abs(slope) * 2.0**-22
    fits: Array = scales[((np.abs(stored - np.rint(stored)) <= error) & (error < 0.25)).all(axis=1)]
    return fits
