"""The rules that every protected image keeps, measured on the original and the copy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from monai_salm.methods.masks import mask_size
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import apply_codes
from monai_salm.noise.kinds import one_channel
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks
from monai_salm.shared.images import same_values
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError


class NoiseRules:
    """The rules by the settings and the windows that the store records."""

    def __init__(self, store: NoiseStore) -> None:
        settings = store.settings
        self.store, self.epsilon, self.mask_share = store, settings.epsilon, settings.mask_share
        self._known = self._unknown = False

    def found_no_image(self) -> bool:
        """Whether images were looked for in the store and none was there."""
        return self._unknown and not self._known

    def problems(self, before: Array, after: Array, digest: bytes) -> Iterator[str]:
        """The rules that one image breaks, a line each; ``digest`` is that of the protected image."""
        if before.dtype != after.dtype or before.shape != after.shape:
            yield f"is {after.dtype.name} {after.shape}, the original {before.dtype.name} {before.shape}"
            return
        noise = self.store.get(content_digest(before), before.shape)
        both = (one_channel(before), one_channel(after)) if noise is None else (None, None)
        if both[0] is not None and both[1] is not None:  # grey in several channels
            before, after, digest = both[0], both[1], content_digest(both[1])
            noise = self.store.get(content_digest(before), before.shape)
        self._known, self._unknown = self._known or noise is not None, self._unknown or noise is None
        if noise is None:
            yield "the original is not in the store"
        else:
            yield from _differences(noise, before, after, digest)
        yield from self.noise_problems(before, after, None if noise is None else noise.window)

    def noise_problems(self, before: Array, after: Array, window: IntensityWindow | None) -> Iterator[str]:
        """The rules that the noise between an original and its protected image breaks, by the window that the store records."""
        seen = [_seen(*channel) for channel in zip(before, after, _bounds(before, window), strict=True)]
        support = sum(count for count, _, _ in seen)
        if not support:
            yield "is unprotected: it equals the original"
        if support > mask_size(before.size, self.mask_share):
            yield f"noise on {support} elements, more than the mask's {mask_size(before.size, self.mask_share)}"
        if window is None:
            return
        pairs = window.channels(len(before))
        ends = max(abs(end) for pair in pairs for end in pair)
        slack = float(np.spacing(after.dtype.type(ends))) if after.dtype.kind == "f" else 0.0
        for channel, ((low, high), (_, largest, _)) in enumerate(zip(pairs, seen, strict=True)):
            if largest > self.epsilon * (high - low) * (1 + 1e-9) + slack:
                share = largest / (high - low)
                yield f"noise of {share:.4g} of the window in channel {channel} exceeds epsilon {self.epsilon:.4g}"
        if any(outside for _, _, outside in seen):
            yield f"noise outside the window ({window.low}, {window.high})"


def _bounds(image: Array, window: IntensityWindow | None) -> list[tuple[float, float]]:
    """The numbers in which each channel may have noise.

    A float image holds the window's bounds as its type rounds them: float32(0.3) is more than 0.3, and inside.
    """
    if window is None:
        return [(-np.inf, np.inf)] * len(image)
    pairs = window.channels(len(image))
    if image.dtype.kind != "f":
        return pairs
    return [(float(image.dtype.type(low)), float(image.dtype.type(high))) for low, high in pairs]


def _seen(before: Array, after: Array, bounds: tuple[float, float]) -> tuple[int, float, bool]:
    """Of the noise of a channel: how many elements it has, its largest, and whether some is outside the bounds."""
    # 32 bits hold all differences of 16-bit numbers.
    short, (low, high) = before.dtype.kind in "iu" and before.dtype.itemsize <= 2, bounds
    if short and math.isfinite(low):  # integers are compared faster than floats
        low, high = math.ceil(low), math.floor(high)
    support, largest, outside = 0, 0.0, False
    original, protected = before.reshape(-1), after.reshape(-1)
    for part in blocks(original.size):
        values = original[part]
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            noise = np.subtract(protected[part], values, dtype=np.int32 if short else np.float64)
        noise = noise if short else np.nan_to_num(noise)
        there = noise != 0
        support += int(np.count_nonzero(there))
        largest = max(largest, float(noise.max()), -float(noise.min()))
        if not (low <= values.min() and values.max() <= high):
            outside |= bool((there & ((values < low) | (values > high))).any())
    return support, largest, outside


def _differences(noise: Noise, before: Array, after: Array, digest: bytes) -> Iterator[str]:
    """Whether the noise joins the two images, bit for bit, and leads to the protected image that the store knows."""
    if digest == noise.protected and _is_sum(noise, before, after):
        return
    if digest != noise.protected:
        yield "is not the protected image that the store knows"
    try:
        if not _same_bits(noise.apply(before, known=True), after):  # which compares the digest
            yield "is not the original plus its noise in the store"
        elif not _same_bits(noise.remove(after, known=True), before):
            yield "taking its noise off does not give back the original"
    except NoiseStoreError as error:
        yield str(error)


def _is_sum(noise: Noise, before: Array, after: Array) -> bool:
    """Whether two images of integers are joined by the noise; without overflow, taking it off gives back the first.

    Of large images no copy is made, which takes longer than adding.
    """
    if before.dtype.kind not in "iu" or before.dtype.name != noise.dtype or before.shape != noise.codes.shape:
        return False
    flat = [array.reshape(-1) for array in (before, after, noise.codes)]
    try:
        return all(
            np.array_equal(apply_codes(one[part], codes[part], noise.quantum), other[part])
            for one, other, codes in [flat]
            for part in blocks(one.size)
        )
    except OverflowError:
        return False


def _same_bits(first: Array, second: Array) -> bool:
    """Whether two images of one type and shape have the same bits."""
    kind = f"u{first.dtype.itemsize}"
    return same_values(np.ascontiguousarray(first).view(kind), np.ascontiguousarray(second).view(kind))
