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
        """Record finished codes for an image on its stored grid.

        Args:
            image: original ``(channel, *spatial)`` in its stored type.
            codes: effective codes, same shape.
            budget: what the noise keeps to.
            name: the case.

        Raises:
            NoiseStoreError: if the shapes differ (noise is never broadcast).
        """
        if image.shape != codes.shape:
            raise NoiseStoreError(f"case {name!r} is {image.shape}, its noise {codes.shape}: they must be the same")
        quantum = budget.grid.quantum
        image = image.astype(image.dtype.newbyteorder("="), copy=False)  # bits are compared below, in one byte order
        return cls(
            digest=content_digest(image),
            protected=content_digest(apply_codes(image, codes, quantum)),
            name=name,
            dtype=image.dtype.name,
            window=budget.window,
            quantum=quantum,
            codes=codes,
            residual=rounding_residual(image, codes, quantum),
        )

    def apply(self, image: Array, *, known: bool = False) -> Array:
        """Protect the original image.

        Args:
            image: the values that the digest was taken of, in any type that holds the protected values too.
            known: its digest was compared with this noise's, so that its values need no other check.

        Returns:
            A new array of the image's type.

        Raises:
            NoiseStoreError: if the shape differs (noise is never broadcast), a type cannot hold the values, or the result is not
                the protected image that the noise was kept with.
        """
        result, digest = self._moved(image, known, self.quantum)
        if digest != self.protected:
            raise NoiseStoreError(
                f"case {self.name!r}: its noise does not give the protected image that the store knows: it is of another image, or "
                "was changed. Use a store from a backup, or generate the noise again"
            )
        return result

    def remove(self, protected: Array, *, known: bool = False) -> Array:
        """Give back the original bit for bit.

        Args:
            protected: the protected image, in any type that holds both its values and the original's.
            known: its digest was compared with that of this noise's protected image.

        Returns:
            A new array of the protected image's type.

        Raises:
            NoiseStoreError: as for ``apply``, with the original in place of the protected image.
        """
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
        if image.shape != self.codes.shape:
            raise NoiseStoreError(
                f"case {self.name!r} is {image.shape}, its noise {self.codes.shape}: they must be the same"
            )
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


def exact_cast(array: Array, dtype: DTypeLike) -> Array | None:
    """The array of real numbers in another type, or None if a value would change."""
    if array.dtype == np.dtype(dtype):
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
        return cast if np.array_equal(cast, array) else None
