"""Intensity windows, stored grids, and the arithmetic that adds noise to an image and takes it off again.

A *grid* is what a file can hold: uint8 pixels, int16 Hounsfield units, float32. Noise is a whole number (a *code*) of
grid steps (*quanta*), so that saving, reloading, checking and undoing are exact (docs/design.md, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm._blocks import blocks, in_threads
from monai_salm.epsilon import require_epsilon

#: Any NumPy array; shapes and types are stated where one is taken.
Array: TypeAlias = NDArray[Any]

INTEGER_GRIDS = ("uint8", "int8", "uint16", "int16", "int32")
GRIDS = (*INTEGER_GRIDS, "float32")
# Integers up to 2**24 are exact in float32, the type in which noise is optimised.
_EXACT_FLOAT32 = 2**24


@dataclass(frozen=True)
class IntensityWindow:
    """The intensity range, in stored units, that networks see as [0, 1] and inside which noise may live.

    Args:
        low: intensity shown as 0.
        high: intensity shown as 1.

    Raises:
        ValueError: if the bounds are not finite or not in order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"window must be finite with low < high, got ({self.low}, {self.high})")
        # Whatever number was given, what is written of it is the same.
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def width(self) -> float:
        """``high - low``, in stored units."""
        return self.high - self.low

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """Map stored units to [0, 1], clipping what lies outside; differentiable in the closed window.

        Args:
            image: any shape, stored units.

        Returns:
            A tensor of the same shape.
        """
        scaled = (image - self.low) / self.width
        if (
            image.device.type == "cpu" and image.numel()
        ):  # mostly all is inside, and one look is cheaper than what follows
            low, high = torch.aminmax(image.detach())
            if self.low <= float(low) and float(high) <= self.high:
                return scaled
        inside = (image >= self.low) & (image <= self.high)
        # clamp alone has no gradient at 0 and 1 (torch 2.14), where black and saturated voxels lie: they would get no noise.
        return torch.where(inside, scaled, scaled.detach().clamp(0.0, 1.0))


@dataclass(frozen=True)
class Grid:
    """The values a file can hold and the budget of the noise on them.

    Args:
        dtype: name of the stored type, one of ``GRIDS``.
        quantum: size of one noise step in stored units; 1 for integers, a power of two for floats.
        max_code: largest noise, in quanta.
    """

    dtype: str
    quantum: float
    max_code: int

    @property
    def code_dtype(self) -> np.dtype[np.generic]:
        """Smallest signed integer type that holds every code of the budget."""
        for name in ("int8", "int16", "int32"):
            if self.max_code <= np.iinfo(name).max:
                return np.dtype(name)
        raise ValueError(f"max_code must be below 2**31, got {self.max_code}")


def make_grid(dtype: str, window: IntensityWindow, epsilon: float, whole_numbers: bool = False) -> Grid:
    """Choose the noise step for a stored type and express the budget in it.

    For floats the quantum is the smallest power of two for which the budget still fits in a signed byte, so that
    ``code * quantum`` is exact and codes stay small; it is no finer than float32 at the window's ends, where a smaller
    step would be rounded away. A float image of whole numbers only, which is what loaders make of integer files, gets
    the integers' step wherever the budget holds one, so that its noise fits the file as well.

    Args:
        dtype: stored type, one of ``GRIDS``.
        window: the intensity window, stored units.
        epsilon: budget as a fraction of the window width, in (0, 1].
        whole_numbers: a float image holds whole numbers only.

    Raises:
        ValueError: for a type that cannot carry noise, or a budget below one step, which would vanish on saving.
    """
    if dtype not in GRIDS:
        hint = "Convert the image to float32 or int32, whichever holds its values"
        if dtype == "bool":
            hint = "A boolean image has no grey levels to hide noise in"
        raise ValueError(f"image dtype must be one of {', '.join(GRIDS)}, got {dtype}. {hint}")
    require_epsilon(epsilon)
    budget = epsilon * window.width
    quantum = 1.0
    if dtype not in INTEGER_GRIDS and not (whole_numbers and budget >= 1.0):
        finest = float(np.spacing(np.float32(max(abs(window.low), abs(window.high)))))
        quantum = max(2.0 ** math.ceil(math.log2(budget / 127.0)), finest)
    max_code = math.floor(budget / quantum * (1 + 1e-9))
    if max_code < 1:
        raise ValueError(
            f"epsilon {epsilon:.6g} of the window ({window.low:g}, {window.high:g}) is {budget:.3g} stored units, below "
            f"one step of {dtype}: the noise would vanish on saving. Use epsilon >= {quantum / window.width:.3g} or check "
            "the window's units"
        )
    if max_code >= _EXACT_FLOAT32:
        raise ValueError(
            f"epsilon {epsilon:g} is {max_code} steps of {dtype}; at most {_EXACT_FLOAT32} can be optimised"
        )
    return Grid(dtype=dtype, quantum=quantum, max_code=max_code)


def grid_of(image: Array, window: IntensityWindow, epsilon: float) -> Grid:
    """The grid of an image: that of its type, or of whole numbers if a float image holds nothing else.

    Args:
        image: stored array, any shape.
        window: the intensity window, stored units.
        epsilon: budget as a fraction of the window width.

    Raises:
        ValueError: as for ``make_grid``.
    """
    with np.errstate(invalid="ignore"):
        whole = image.dtype.kind == "f" and bool(np.array_equal(np.rint(image), image))
    return make_grid(image.dtype.name, window, epsilon, whole)


def code_bounds(image: torch.Tensor, window: IntensityWindow, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest code each voxel may carry: the budget, kept inside the window and the stored type.

    Voxels outside the window may carry none.

    Args:
        image: any shape, stored units, float32 or float64.
        window: the intensity window.
        grid: the stored grid.

    Returns:
        Two tensors of whole numbers of the image's shape and type, lower (<= 0) and upper (>= 0) bound, in quanta.
    """
    low, high = window.low, window.high
    if grid.dtype in INTEGER_GRIDS:
        info = np.iinfo(grid.dtype)
        low, high = max(low, float(info.min)), min(high, float(info.max))
    else:  # a bound between two float32 values must mean the same here as where float32 images are compared with it
        low, high = float(np.float32(low)), float(np.float32(high))
    inside = (image >= low) & (image <= high)
    lower = torch.ceil((low - image) / grid.quantum).clamp(-grid.max_code, 0)
    upper = torch.floor((high - image) / grid.quantum).clamp(0, grid.max_code)
    return torch.where(inside, lower, 0.0), torch.where(inside, upper, 0.0)


def effective_codes(image: Array, codes: Array, window: IntensityWindow, grid: Grid) -> Array:
    """Enforce the budget, the window and the stored type on finished noise (the exit check of every method).

    Args:
        image: stored array, any shape.
        codes: noise in quanta, same shape.
        window: the intensity window.
        grid: the stored grid.

    Returns:
        Codes of ``grid.code_dtype`` that ``apply_codes`` can add without clipping.
    """
    lower, upper = code_bounds(torch.from_numpy(np.asarray(image, dtype=np.float64)), window, grid)
    return np.clip(codes, lower.numpy(), upper.numpy()).astype(grid.code_dtype)


def apply_codes(image: Array, codes: Array, quantum: float, grid: str | None = None) -> Array:
    """Return ``image + codes * quantum`` in the image's own type, exactly as ``apply_codes_tensor`` does.

    Args:
        image: stored array, any shape.
        codes: integer codes of the same shape.
        quantum: stored units per code.
        grid: an integer type that all the image's values are known to be of, if it was loaded as floats that hold them.

    Raises:
        OverflowError: if the sum leaves the range of an integer image: the noise belongs to another image.
    """
    floats = np.issubdtype(image.dtype, np.floating)
    step = image.dtype.type(quantum) if floats else _whole(quantum, image.dtype)
    bounds = _range(grid or image.dtype.name) if grid or not floats else None
    wide = np.int32 if image.dtype.itemsize <= 2 and codes.dtype.itemsize <= 2 and abs(quantum) <= 2**14 else np.int64
    flat, flat_codes = np.ascontiguousarray(image).reshape(-1), np.ascontiguousarray(codes).reshape(-1)
    total = np.empty(image.shape, image.dtype)
    flat_total = total.reshape(-1)

    def add(part: slice) -> None:
        noise = flat_codes[part].astype(image.dtype if floats else wide)
        if step != 1:
            noise *= step
        if floats and grid is None:
            # Adding a code of 0 would turn -0.0 into 0.0; subtracting it keeps every bit. No integer grid holds -0.0.
            np.subtract(flat[part], np.subtract(image.dtype.type(0), noise, out=noise), out=flat_total[part])
            return
        changed = np.add(flat[part], noise, out=flat_total[part] if floats else noise)
        if bounds and not (bounds[0] <= changed.min() and changed.max() <= bounds[1]):
            raise OverflowError(
                f"image + noise leaves the range of {grid or image.dtype}: the noise was made for another image"
            )
        if not floats:
            flat_total[part] = changed

    in_threads(add, blocks(flat.size), flat.size)
    return total


def apply_codes_tensor(image: torch.Tensor, codes: torch.Tensor, quantum: float) -> torch.Tensor:
    """Torch counterpart of ``apply_codes``; same bits, same device, same type.

    Args:
        image: stored tensor, any shape.
        codes: integer codes of the same shape, on the same device.
        quantum: stored units per code.

    Raises:
        OverflowError: as for ``apply_codes``.
    """
    if image.is_floating_point():
        return image - (0 - codes.to(image.dtype) * quantum)
    total = image.to(torch.int64) + codes.to(torch.int64) * _whole(quantum, image.dtype)
    info = torch.iinfo(image.dtype)
    if total.numel() and (int(total.min()) < info.min or int(total.max()) > info.max):
        raise OverflowError(f"image + noise leaves the range of {image.dtype}: the noise was made for another image")
    return total.to(image.dtype)


@lru_cache
def _range(dtype: str) -> tuple[float, float]:
    info = np.iinfo(dtype)
    return info.min, info.max


def _whole(quantum: float, dtype: object) -> int:
    if quantum != int(quantum):
        raise ValueError(f"noise in steps of {quantum:g} does not fit {dtype}: it was made for floats")
    return int(quantum)


def rounding_residual(image: Array, codes: Array, quantum: float) -> Array | None:
    """What subtracting the noise from a protected float image fails to give back, as XOR of bit patterns.

    Adding noise can push low bits of a float out of its mantissa. The residual lets ``remove_codes`` return the
    original bit for bit.

    Args:
        image: original array.
        codes: integer codes.
        quantum: stored units per code.

    Returns:
        uint32 array, or None where subtraction alone is exact (always for integers).
    """
    if not np.issubdtype(image.dtype, np.floating):
        return None
    bits = np.dtype(f"u{image.dtype.itemsize}")
    back = apply_codes(apply_codes(image, codes, quantum), codes, -quantum)
    residual = np.ascontiguousarray(image).view(bits) ^ np.ascontiguousarray(back).view(bits)
    return residual if residual.any() else None


def remove_codes(
    protected: Array, codes: Array, quantum: float, residual: Array | None = None, grid: str | None = None
) -> Array:
    """Undo ``apply_codes`` bit for bit.

    Args:
        protected: protected array.
        codes: the codes that were added.
        quantum: stored units per code.
        residual: what ``rounding_residual`` gave for the original.
        grid: as for ``apply_codes``.

    Returns:
        The original array.
    """
    back = apply_codes(protected, codes, -quantum, grid)
    if residual is None:
        return back
    return (np.ascontiguousarray(back).view(residual.dtype) ^ residual).view(back.dtype)
