"""What every countermeasure is: something an adversary does to the published images before training on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monai_salm.intensity import Array, IntensityWindow


class Countermeasure(ABC):
    """Changes training images, in the hope that the noise is lost and the anatomy is not.

    A subclass is a frozen dataclass of settings with a ``name`` and ``apply``; one that has to see all images at once
    overrides ``prepare`` as well.
    """

    name: ClassVar[str]

    @abstractmethod
    def apply(self, image: Array, window: IntensityWindow) -> Array:
        """Change one image.

        Args:
            image: ``(channel, *spatial)``, stored units; left as it is.
            window: the intensity window; what lies outside may be clipped, since networks do not see it.

        Returns:
            An array of the same shape and type, stored units.
        """

    def prepare(self, images: Sequence[Array], window: IntensityWindow) -> list[Array]:
        """Change a training set, image by image unless overridden.

        Args:
            images: ``(channel, *spatial)`` each, stored units.
            window: the intensity window.

        Returns:
            As many arrays, of the same shapes and types.
        """
        return [self.apply(image, window) for image in images]


class Identity(Countermeasure):
    """No countermeasure: the published images as they are."""

    name: ClassVar[str] = "none"

    def apply(self, image: Array, window: IntensityWindow) -> Array:
        return image


def to_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Bring computed intensities back to the stored type: rounded and clipped for integers, cast for floats.

    Args:
        values: stored units, any shape.
        dtype: the stored type.
    """
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    stored: Array = values.astype(dtype)
    return stored
