"""FreeSurfer's MGH and MGZ; voxels are edited in place."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, ImageFormat, in_millimetres, known_spacing
from monai_salm.formats.gzipped import pack
from monai_salm.formats.voxels_in_place import VoxelsInPlace, read_bounded, read_start, stored_view
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

_HEADER = 284
# Parameters of the scan, commands, and tables of colours that may follow the voxels, without zeros.
_FOOTER = 1 << 16
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


class Mgh(ImageFormat):
    """``.mgh`` and ``.mgz`` volumes, ``(1, x, y, z)``, of several frames ``(frame, x, y, z)``."""

    name = "mgh"
    suffixes = (".mgh", ".mgz")

    def open(self, path: Path) -> VoxelsInPlace:
        def end(start: bytes) -> int:
            sizes, dtype = _parse(start, path)
            return _HEADER + math.prod(sizes) * dtype.itemsize

        content, gzipped = read_bounded(path, end, _HEADER, footer=_FOOTER)
        sizes, dtype = _parse(bytes(content[:_HEADER]), path)
        image = stored_view(content, _HEADER, sizes, dtype, 3)
        return VoxelsInPlace(content, image, lambda new: {"": pack(new) if gzipped else new})

    def units(self, path: Path) -> Units:
        start = read_start(path, _HEADER)
        _parse(start, path)
        good, *sides = struct.unpack_from(">h3f", start, 28)
        return Units(spacing=known_spacing(sides) if good else ())

    def affine(self, path: Path) -> Array | None:
        start = read_start(path, _HEADER)
        sizes, _ = _parse(start, path)
        good, *numbers = struct.unpack_from(">h15f", start, 28)
        sides, turns, centre = np.array(numbers[:3]), np.reshape(numbers[3:12], (3, 3)), np.array(numbers[12:])
        steps = turns * sides[:, None]
        origin = centre - np.array(sizes[:3]) / 2 @ steps
        return in_millimetres(list(steps), origin, to_right=True) if good else None


def _parse(start: bytes, path: Path) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Sizes of the four axes, and the type."""
    version, *sizes, code = struct.unpack_from(">6i", start) if len(start) == _HEADER else (0, 0, 0)
    if version != 1:
        raise FormatError(f"{path}: not an MGH file (its first bytes are {start[:4].hex()})")
    if code not in _TYPES or min(sizes) < 1:
        raise FormatError(f"{path}: voxels of type {code} and shape {tuple(sizes)} are not supported; save it as NIfTI")
    return tuple(sizes), np.dtype(_TYPES[code])
