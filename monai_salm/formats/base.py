"""What a file format offers: the stored grid of one image, and the same file with other voxels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.generic]


class FormatError(ValueError):
    """A file that is damaged, hostile, or of a kind that cannot carry noise; the message names it and says why."""


class ImageFormat(ABC):
    """Reads and rewrites files that hold one image each; has no state.

    Every method raises ``FormatError`` for a file it cannot handle and ``OSError`` for one it cannot open.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def matches(self, path: Path) -> bool:
        """Whether a file's name ends as this format's do."""
        return path.name.lower().endswith(self.suffixes)

    @abstractmethod
    def read(self, path: Path) -> Array:
        """The stored numbers, unscaled: ``(channel, *spatial)`` in the stored type, native byte order."""

    @abstractmethod
    def write(self, source: Path, target: Path, image: Array) -> None:
        """Write ``source`` again with other voxels; all else in the file stays byte for byte.

        Args:
            source: the file that ``image`` was read from.
            target: where the new file goes; it appears only when whole.
            image: as ``read`` gives it, same shape and type.
        """

    @abstractmethod
    def frame(self, path: Path) -> bytes:
        """A digest of everything in the file but the voxels: header, geometry, extensions, trailing bytes."""
