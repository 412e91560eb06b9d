"""The finished noise of one image: what the store keeps, and how it is put into the image and taken off again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import apply_and_digest, apply_codes, remove_codes, rounding_residual
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Their sums are exact in float32.
_IN_FLOATS = ("uint8", "int8", "uint16", "int16")


class NoiseStoreError(RuntimeError):
    """The store is missing, damaged, of another format, or does not hold what was asked for."""


@dataclass(frozen=True)
class Noise:
    """The effective noise of one image.

    Args:
        digest: content digest of the original image.
        protected: content digest of the protected image.
        name: the case, for messages.
        dtype: stored type the noise was made on.
        window: intensity window of the image, stored units.
        quantum: stored units per code.
        codes: signed integers of the image's shape ``(channel, *spatial)``.
        residual: see ``grid.rounding_residual``.
    """

    digest: bytes
    protected: bytes
    name: str
    dtype: str
    window: IntensityWindow
    quantum: float
    codes: Array
    residual: Array | None = None

    @classmethod
    def of(cls, image: Array, codes: Array, budget: Budget, name: str) -> Noise:
        """The record of finished codes for an original ``(channel, *spatial)`` in its stored type, within its budget.

        NoiseStoreError if the shapes differ (noise is never broadcast).
        """
        _require_shape(name, image, codes)
        quantum = budget.grid.quantum
        image = image.astype(image.dtype.newbyteorder("="), copy=False)  # bits are compared below, in one byte order
        digest, protected = content_digest(image), content_digest(apply_codes(image, codes, quantum))
        residual = rounding_residual(image, codes, quantum)
        return cls(digest, protected, name, image.dtype.name, budget.window, quantum, codes, residual)

    def apply(self, image: Array, *, known: bool = False) -> Array:
        """Protect the original image, in any type that holds the protected values too; the result is a new array of that type.

        ``known`` says that its digest was compared with this noise's, so that its values need no other check. NoiseStoreError if
        the shape differs (noise is never broadcast), a type cannot hold the values, or the result is not the protected image that
        the noise was kept with.
        """
        result, digest = self._moved(image, known, self.quantum)
        if digest != self.protected:
            raise NoiseStoreError(
                f"case {self.name!r}: its noise does not give the protected image that the store knows: it is of another image, or "
                "was changed. Use a store from a backup, or generate the noise again"
            )
        return result

    def remove(self, protected: Array, *, known: bool = False) -> Array:
        """Give back the original bit for bit; all is as for ``apply``, with the protected image in place of the original."""
        result, digest = self._moved(protected, known, -self.quantum)
        if digest != self.digest:
            raise NoiseStoreError(
                f"case {self.name!r}: taking its noise off does not give the original; the store is damaged. Use one from a backup"
            )
        return result

    def _moved(self, image: Array, known: bool, quantum: float) -> tuple[Array, bytes]:
        """The image with noise in these steps, and its digest. It is added in the stored type, or in a loader's floats."""
        same = known and image.shape == self.codes.shape and self.residual is None
        grid = self.dtype if same and image.dtype == np.float32 and self.dtype in _IN_FLOATS else None
        stored = image if grid else self._on_grid(image)
        try:
            if self.residual is not None and quantum < 0:
                result = self._in_type(remove_codes(stored, self.codes, -quantum, self.residual), image.dtype)
                return result, content_digest(result)
            result, digest = apply_and_digest(stored, self.codes, quantum, grid)
            return self._in_type(result, image.dtype), digest
        except OverflowError as error:
            raise NoiseStoreError(f"case {self.name!r}: {error}") from error

    def _on_grid(self, image: Array) -> Array:
        _require_shape(self.name, image, self.codes)
        stored = exact_cast(image, self.dtype)
        if stored is None:
            raise NoiseStoreError(
                f"case {self.name!r} holds values that {self.dtype}, which its noise was made for, cannot hold"
            )
        return stored

    def _in_type(self, result: Array, dtype: np.dtype[np.generic]) -> Array:
        # Adding in the stored type and then converting gives the same values in every type, or this error.
        cast = exact_cast(result, dtype)
        if cast is None:
            raise NoiseStoreError(
                f"case {self.name!r}: its noise was made for {self.dtype}, and {dtype.name} cannot hold the result exactly. "
                f"Load the image as {self.dtype}, or as float32"
            )
        return cast


def _require_shape(name: str, image: Array, codes: Array) -> None:
    if image.shape != codes.shape:
        raise NoiseStoreError(f"case {name!r} is {image.shape}, its noise {codes.shape}: they must be the same")


def exact_cast(array: Array, dtype: DTypeLike) -> Array | None:
    """The array of real numbers in another type, or None if a value would change."""
    if array.dtype == np.dtype(dtype):
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
        return cast if np.array_equal(cast, array) else None
