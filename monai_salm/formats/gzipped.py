"""Gzip, read whole within bounds and written so that the same content gives the same file on the same machine.

ISA-L (the extra ``fast``) reads twice and writes three times as fast as zlib. Files of the two differ in their packed bytes only.
"""

from __future__ import annotations

import importlib
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from monai_salm.formats.limits import FormatError, read_file

# Voxels with noise hardly repeat but for runs of background, so that looking for repeats is time lost. Share of the
# original left, and time: int16 128^3 with grain: level 1 0.738 in 0.06 s, level 6 0.737 in 0.15 s, runs only 0.784 in
# 0.03 s. On real brains with noise runs only is even smaller than level 1: 0.200 to 0.208 and 0.285 to 0.301.
LEVEL, _STRATEGY = 1, zlib.Z_RLE
_WITH_HEADER = 31
# Of gzip or zlib.
_EITHER_HEADER = 47
_MAGIC = b"\x1f\x8b"
# Packed bytes that are unpacked at a time, and unpacked bytes at most: both fit the processor's cache.
_FED, _PIECE = 1 << 18, 1 << 20


@cache
def _deflate() -> Any:
    """The fastest library that is installed, which has the functions of zlib."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


class GzipReader:
    """The decompressed bytes of a gzip file of one or more members; checksums are compared where a member ends.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._packed, self._place = path, memoryview(read_file(path)), 0
        self._member: Any = None

    def read(self, size: int, content: bytearray | None = None) -> bytearray:
        """The next ``size`` bytes, fewer where the file ends; memory is taken for bytes that are there.

        Args:
            size: how many.
            content: what they are added to; None is nothing.

        Raises:
            FormatError: if the file is cut off or damaged.
        """
        found = bytearray() if content is None else content
        end = len(found) + size
        try:
            while len(found) < end and (self._member or self._begins()):
                found += self._unpacked(min(end - len(found), _PIECE))
        except (EOFError, zlib.error, _deflate().error) as error:
            raise FormatError(f"{self.path}: damaged gzip ({error}); get the file again from its source") from error
        return found

    def _begins(self) -> bool:
        """Begin the next member, if there is one; zeros may stand before it."""
        place = self._place
        while place and place < len(self._packed) and not self._packed[place]:
            place += 1
        self._place = place
        if place and place == len(self._packed):
            return False
        if place == len(self._packed):
            raise EOFError("it is empty")
        if bytes(self._packed[place : place + 2]) != _MAGIC:
            raise EOFError("other bytes follow it" if place else "it does not begin as gzip does")
        self._member = _deflate().decompressobj(_WITH_HEADER)
        return True

    def _unpacked(self, most: int) -> bytes:
        """The next bytes of a member, at most so many; it may take more than one call to get some."""
        fed = self._packed[self._place : self._place + _FED]
        if not fed:
            raise EOFError("it is cut off")
        part: bytes = self._member.decompress(fed, most)
        ended = self._member.eof
        self._place += len(fed) - len(self._member.unused_data if ended else self._member.unconsumed_tail)
        if ended:
            self._member = None
        return part


def gunzip(packed: bytes, size: int, path: Path) -> bytes:
    """Packed voxels, gzip or zlib, unpacked.

    Args:
        packed: to the end of the file.
        size: what they must come to.
        path: the file, for messages.

    Raises:
        FormatError: if they are damaged, or of another size.
    """
    inflate = _deflate().decompressobj(_EITHER_HEADER)
    try:
        raw: bytes = inflate.decompress(packed, size + 1)
    except (zlib.error, _deflate().error) as error:
        raise FormatError(f"{path}: damaged voxels ({error}); get the file again from its source") from error
    if len(raw) != size or not inflate.eof:
        raise FormatError(
            f"{path}: its header declares {size} bytes of voxels, and it holds another number; it is damaged"
        )
    return raw


def pack(content: bytes | bytearray) -> bytes:
    """A gzip member without name and time: the same content gives the same bytes."""
    strategy = (zlib.DEF_MEM_LEVEL, _STRATEGY) if _deflate() is zlib else ()
    packer = _deflate().compressobj(LEVEL, zlib.DEFLATED, _WITH_HEADER, *strategy)
    packed: bytes = packer.compress(content) + packer.flush()
    return packed
