"""Slopes and intercepts of the images of a store: how loaders that give real values are told from others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array
from monai_salm.store.records import Rows, keep, kept

_KEY = "scales"


def keep_scales(store: Rows, units: Iterable[Units]) -> None:
    """Keep the slopes and intercepts that files have; none are kept of files that are not scaled.

    Args:
        store: the store.
        units: of its images.

    Raises:
        NoiseStoreError: if the store cannot be written.
    """
    pairs = {pair for unit in set(units) for pair in _pairs(unit)} - {(1.0, 0.0)}
    if pairs:
        keep(store, {_KEY: np.asarray(sorted(pairs), "<f8").tobytes()})


def scales_of(store: Rows) -> Array:
    """What ``keep_scales`` kept, ``(n, 2)`` of float64: slope and intercept.

    Raises:
        NoiseStoreError: if the store cannot be read.
    """
    return np.frombuffer(kept(store, _KEY) or b"", "<f8").reshape(-1, 2)


def _pairs(units: Units) -> list[tuple[float, float]]:
    """Slope and intercept of each channel."""
    parts = [value if isinstance(value, tuple) else (value,) for value in (units.slope, units.intercept)]
    count = max(map(len, parts))
    slopes, intercepts = (part * count if len(part) == 1 else part for part in parts)
    return list(zip(slopes, intercepts, strict=True))
