"""NumPy files of one image: ``.npy``, and ``.npz`` with a single array; headers are parsed, nothing is ever unpickled."""

from __future__ import annotations

import io
import math
from pathlib import Path
from tokenize import TokenError
from typing import TypeAlias

import numpy as np
from numpy.lib import format as npy

from monai_salm.formats.base import Content, FormatError, ImageFormat
from monai_salm.formats.limits import require_claim
from monai_salm.formats.voxels_in_place import VoxelsInPlace
from monai_salm.shared.arrays import Array

# A smaller array whose first axis is three may be a volume.
_LEAST_PICTURE = 16
#: The longest header NumPy itself accepts, and room to spare.
MAX_HEADER = 1 << 16
#: Shape, whether first axis fastest, type, and where the numbers start.
NpyHeader: TypeAlias = tuple[tuple[int, ...], bool, np.dtype[np.generic], int]


def parse_header(raw: Content | Array, what: str) -> NpyHeader:
    """The header at the start of a .npy file, which ``what`` names; FormatError if it is damaged, or not of numbers."""
    file = io.BytesIO(bytes(raw[:MAX_HEADER]))
    try:
        version = npy.read_magic(file)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"version {version} of the .npy format")
        shape, fortran, dtype = readers[version](file)
    except (ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise FormatError(f"the header of {what} is damaged ({error})") from error
    if dtype.hasobject:
        raise FormatError(
            f"{what} holds Python objects (a pickle), which could run code; it is not read. Store numbers"
        )
    if dtype.kind not in "biuf" or any(n < 0 for n in shape):
        raise FormatError(f"{what} is {dtype} {shape}; only arrays of numbers are read")
    return shape, bool(fortran), dtype, file.tell()


def view_numbers(raw: Content | Array, what: str) -> Array:
    """The array of a whole .npy file, sharing its memory; FormatError if it is not of the size that its header declares."""
    shape, fortran, dtype, start = parse_header(raw, what)
    needed = math.prod(shape) * dtype.itemsize
    if len(raw) - start != needed:
        raise FormatError(f"{what} declares {dtype.name} {shape}, {needed} bytes, but holds {len(raw) - start}")
    return np.ndarray(shape, dtype, buffer=raw, offset=start, order="F" if fortran else "C")


def open_numbers(content: bytes, path: Path) -> VoxelsInPlace:
    """An image in a .npy file: ``(h, w)``, ``(h, w, 3)``, ``(3, h, w)`` (colour, not a depth) or ``(x, y, z)``; else FormatError.

    MONAI's ``NumpyReader`` gives colour the shape of the file; load with ``channel_dim=-1`` to get what is read here.
    """
    own = bytearray(content)
    return VoxelsInPlace(own, _channel_first(view_numbers(own, str(path)), path))


class Npy(ImageFormat):
    """``.npy`` files; header, byte order and order of axes stay."""

    name = "npy"
    suffixes = (".npy",)
    pictures = True

    def open(self, path: Path) -> VoxelsInPlace:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(MAX_HEADER)
            shape, _, dtype, offset = parse_header(start, str(path))
            if offset + math.prod(shape) * dtype.itemsize != size:
                raise FormatError(f"{path} declares {dtype.name} {shape}, but holds {size - offset} bytes of numbers")
            require_claim(size, size, path, packed=False)
            return open_numbers(start + file.read(), path)


def _channel_first(array: Array, path: Path) -> Array:
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise FormatError(f"{path}: {array.dtype.name} numbers are not supported; store integers or float32")
    if array.ndim not in (2, 3) or min(array.shape) < 1:
        raise FormatError(f"{path}: shape {array.shape} is not (h, w), (h, w, 3) or (x, y, z); store one image a file")
    if array.ndim == 3 and array.shape[-1] == 3:
        return np.moveaxis(array, -1, 0)
    # Three slices of a volume are no more than three channels, as torch programs save them.
    colours = array.ndim == 3 and array.shape[0] == 3 and min(array.shape[1:]) >= _LEAST_PICTURE
    return array if colours else array[None]
