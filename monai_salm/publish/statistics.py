"""How visible and how wide-spread the noise of a store is."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from monai_salm.store import Noise, NoiseStore


def noise_statistics(store: NoiseStore) -> dict[str, float | int | None]:
    """Mean peak signal-to-noise ratio and support of a store's noise.

    Args:
        store: the noise.

    Returns:
        ``cases``; ``psnr`` in dB, the peak being the window's width (None if some noise is all zero or there is none);
        ``support``, the share of elements with noise. Both are means over the images.
    """
    width = store.window.width
    psnr, support = _per_image(store, width)
    if not psnr:
        return {"cases": 0, "psnr": None, "support": None}
    mean = float(np.mean(psnr))
    return {"cases": len(psnr), "psnr": mean if math.isfinite(mean) else None, "support": float(np.mean(support))}


def _per_image(noises: Iterable[Noise], width: float) -> tuple[list[float], list[float]]:
    psnr, support = [], []
    for noise in noises:
        error = float(np.mean((noise.codes.astype(np.float64) * noise.quantum) ** 2))
        psnr.append(10 * math.log10(width**2 / error) if error else math.inf)
        support.append(float(np.mean(noise.codes != 0)))
    return psnr, support
