"""Files whose voxels stand in their bytes as an array: they are edited there, and every other byte stays as it is."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_salm.formats.base import Content, FormatError, Opened, what_it_is
from monai_salm.formats.gzipped import open_gzip
from monai_salm.formats.limits import require_claim
from monai_salm.formats.thumbnails import may_hold_image
from monai_salm.shared.arrays import Array

# What may follow the voxels; more is no writer's doing.
_MAX_TRAILING = 1 << 24
# Bytes after the voxels that are no zeros, and too few for an image.
_FEW = 16
# Bytes that are unpacked at a time.
_PIECE = 1 << 20
# The axis of the planes that are copied one by one. Bytes after which addresses share a set of the first-level cache, and how
# many of them fit it.
_ROWS, _SET, _CROWD = 2, 4096, 16


@dataclass(frozen=True)
class VoxelsInPlace(Opened):
    """A file whose voxels stand in its bytes as an array.

    Args:
        content: its bytes, not packed.
        view: the voxels ``(channel, *spatial)``, a view of the content in the stored byte order.
        parts: given the content, all files to write, by name; that of the file itself is empty.
        header: what stands in other files than the content.
    """

    content: Content
    view: Array
    parts: Callable[[Content], Mapping[str, Content]] = field(default=lambda content: {"": content})
    header: bytes = b""
    whole: bytes | None = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.view.shape

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        return self.view.dtype

    def image(self) -> Array:
        image = np.empty(self.shape, self.dtype.newbyteorder("="))
        _assign(image, self.view)
        return image

    def files(self, image: Array) -> Mapping[str, Content]:
        _assign(self.view, image)
        return self.parts(self.content)

    def frame(self) -> bytes:
        content = np.frombuffer(self.content, np.uint8)
        start = _address(self.view) - _address(content)
        extent = self.dtype.itemsize + sum(
            (n - 1) * step for n, step in zip(self.shape, self.view.strides, strict=True)
        )
        between = bytearray()
        if extent > self.view.nbytes:  # other numbers stand between the voxels, such as transparency
            between += content[start : start + extent].data
            np.ndarray(self.shape, self.dtype, between, strides=self.view.strides)[...] = 0
        digest = hashlib.sha256(struct.pack("<3Q", start, extent, len(self.header)))
        for part in (content[:start].data, between, content[start + extent :].data, self.header):
            digest.update(part)
        return digest.digest()


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _assign(target: Array, source: Array) -> None:
    """``target[...] = source``, plane by plane: from first axis fastest to last axis fastest it is three times as fast."""
    axis = max(range(source.ndim), key=lambda axis: (source.shape[axis] > 1, abs(source.strides[axis])))
    # Numbers so far apart share a set of the cache: few of them are taken at a time.
    crowded = axis != _ROWS and source.strides[axis] % _SET == 0
    parts = range(0, source.shape[axis], _CROWD) if crowded else (0,)
    for row, start in itertools.product(range(target.shape[_ROWS]), parts):
        place: list[Any] = [slice(None)] * source.ndim
        place[_ROWS] = row
        if crowded:
            place[axis] = slice(start, start + _CROWD)
        target[tuple(place)] = source[tuple(place)]


def read_bounded(
    path: Path, size_of: Callable[[bytes], int], start: int, plain: int | None = None, footer: int = 0
) -> tuple[memoryview, bool]:
    """A whole file that can be written to, read within bounds, and whether it is gzipped. Its first bytes say that, not its name.

    Gzip is read to its end, so that its checksum is compared; memory is only taken for bytes that are really there. FormatError for a
    file that is damaged, holds fewer bytes, or more that may be an image.

    Args:
        path: the file.
        size_of: given the first bytes, how many the file must have at least.
        start: how many first bytes it needs.
        plain: a file of this size is not gzipped, also where its first bytes are those of gzip.
        footer: how many bytes of the format may follow the voxels, zeros not counted.
    """
    size = path.stat().st_size
    gzipped = size != plain and _is_gzipped(path)
    with open_gzip(path) if gzipped else open(path, "rb") as file:
        begin = file.read(start)
        _require_image(begin, path)
        needed = size_of(begin)
        require_claim(needed, size, path, packed=gzipped)
        content = np.empty(
            max(needed, len(begin)), np.uint8
        ).data  # faster than a bytearray; takes memory where it is filled
        content[: len(begin)] = begin
        filled = len(begin)
        while filled < needed and (count := file.readinto(content[filled : filled + _PIECE])):
            filled += count
        rest = file.read(_MAX_TRAILING + 1)
    if filled < needed:
        raise FormatError(
            f"{path}: cut off, {filled} bytes of the {needed} that its header declares; get it again from its source"
        )
    if filled + len(rest) > needed + _MAX_TRAILING:
        raise FormatError(f"{path}: more than {_MAX_TRAILING} bytes follow the voxels; the header is damaged")
    if len(rest.strip(b"\0")) > _FEW and (not footer or may_hold_image(rest, footer)):
        raise FormatError(
            f"{path}: {len(rest):,} bytes follow the voxels, which may hold the unprotected image; cut them off, or save it again"
        )
    content = memoryview(bytearray().join([content, rest])) if rest else content
    return content, gzipped


def require_header(header: Content, path: Path, most: float = math.inf) -> None:
    """Refuse a part of a header, extensions or comments, that may be an image; FormatError."""
    if may_hold_image(bytes(header), most):
        raise FormatError(
            f"{path}: its header has {len(header):,} bytes beside its numbers, such as extensions, which may hold the unprotected "
            "image; save it without them"
        )


def read_start(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked if it is gzipped; FormatError if it is no image at all."""
    with open_gzip(path) if _is_gzipped(path) else open(path, "rb") as file:
        content = file.read(size)
    _require_image(content, path)
    return content


def _is_gzipped(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _require_image(start: bytes, path: Path) -> None:
    reason = what_it_is(start)
    if reason:
        raise FormatError(f"{path}: {reason}")


def stored_view(
    content: Content, offset: int, sizes: tuple[int, ...], dtype: np.dtype[Any], channels: int | None
) -> Array:
    """Voxels at an offset, the first of their axes fastest, as ``(channel, *spatial)``; ``channels`` is that axis, if there is one."""
    stored = np.ndarray(sizes, dtype, buffer=content, offset=offset, order="F")
    return stored[None] if channels is None else np.moveaxis(stored, channels, 0)
