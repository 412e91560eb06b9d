"""How visible and how widespread the noise of a store is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from monai_salm.noise.noise import Noise
from monai_salm.shared.blocks import columns
from monai_salm.store.store import NoiseStore


def noise_statistics(store: NoiseStore) -> dict[str, Any]:
    """Peak signal-to-noise ratio and support of a store's noise, each image measured against its own window.

    Args:
        store: the noise.

    Returns:
        ``cases``; ``psnr``, the mean in dB (None if some noise is all zero or there is none); ``worst``, the name and PSNR of
        the image whose noise is easiest to see (None without images); ``support``, the mean share of elements with noise.
    """
    names, psnr, support = [], [], []
    for noise in store:
        names.append(noise.name)
        psnr.append(image_psnr(noise))
        support.append(np.count_nonzero(noise.codes) / noise.codes.size)
    if not psnr:
        return {"cases": 0, "psnr": None, "worst": None, "support": None}
    least = int(np.argmin(psnr))
    return {
        "cases": len(psnr),
        "psnr": _finite(float(np.mean(psnr))),
        "worst": {"name": names[least], "psnr": _finite(psnr[least])},
        "support": float(np.mean(support)),
    }


def image_psnr(noise: Noise) -> float:
    """PSNR of one image's noise in dB, the peak of each channel being the width of its window; infinite for no noise."""
    rows, parts = columns(noise.codes)
    squares = np.zeros(len(rows))
    for part in parts:  # of large volumes no copy is made
        squares += np.square(rows[:, part], dtype=np.float64).sum(1)
    low, high = (bound.reshape(-1) for bound in noise.window.bounds(len(noise.codes), noise.codes.ndim - 1))
    error = float(np.mean(squares / rows.shape[1] * (noise.quantum / (high - low)) ** 2))
    return -10 * math.log10(error) if error else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
