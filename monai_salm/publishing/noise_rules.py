"""The rules that every protected image keeps, measured on the original and the copy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from monai_salm.methods.masks import mask_size
from monai_salm.noise.digest import content_digest
from monai_salm.noise.kinds import one_channel
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array
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

    def problems(self, before: Array, after: Array) -> Iterator[str]:
        """The rules that one image breaks, a line each."""
        if before.dtype != after.dtype or before.shape != after.shape:
            yield f"is {after.dtype.name} {after.shape}, the original {before.dtype.name} {before.shape}"
            return
        noise = self.store.get(content_digest(before), before.shape)
        both = one_channel(before), one_channel(after)
        if noise is None and both[0] is not None and both[1] is not None:  # grey in several channels
            before, after = both[0], both[1]
            noise = self.store.get(content_digest(before), before.shape)
        self._known, self._unknown = self._known or noise is not None, self._unknown or noise is None
        if noise is None:
            yield "the original is not in the store"
        else:
            yield from _differences(noise, before, after)
        yield from self.noise_problems(before, after, None if noise is None else noise.window)

    def noise_problems(self, before: Array, after: Array, window: IntensityWindow | None) -> Iterator[str]:
        """The rules that the noise between an original and its protected image breaks, by the window that the store records."""
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            original = before.astype(np.float64)
            difference = np.nan_to_num(after.astype(np.float64) - original)
        if not difference.any():
            yield "is unprotected: it equals the original"
        support = int(np.count_nonzero(difference))
        if support > mask_size(before.size, self.mask_share):
            yield f"noise on {support} elements, more than the mask's {mask_size(before.size, self.mask_share)}"
        if window is None:
            return
        low, high = window.bounds(len(before), before.ndim - 1)
        ends = np.abs([low, high]).max()
        slack = float(np.spacing(after.dtype.type(ends))) if after.dtype.kind == "f" else 0.0
        largest = np.abs(difference).max(axis=tuple(range(1, before.ndim)), keepdims=True)
        budget = self.epsilon * (high - low)
        for channel in np.flatnonzero(largest > budget * (1 + 1e-9) + slack):
            share = largest.flat[channel] / (high - low).flat[channel]
            yield f"noise of {share:.4g} of the window in channel {channel} exceeds epsilon {self.epsilon:.4g}"
        # A float image holds the window's bounds as its type rounds them: float32(0.3) is more than 0.3, and inside.
        if before.dtype.kind == "f":
            low, high = (end.astype(before.dtype).astype(np.float64) for end in (low, high))
        outside = (original < low) | (original > high)
        if difference[outside].any():
            yield f"noise outside the window ({window.low}, {window.high})"


def _differences(noise: Noise, before: Array, after: Array) -> Iterator[str]:
    """Whether the noise joins the two images, bit for bit, and leads to the protected image that the store knows."""
    if content_digest(after) != noise.protected:
        yield "is not the protected image that the store knows"
    try:
        if noise.apply(before).tobytes() != after.tobytes():
            yield "is not the original plus its noise in the store"
        elif noise.remove(after).tobytes() != before.tobytes():
            yield "taking its noise off does not give back the original"
    except NoiseStoreError as error:
        yield str(error)
