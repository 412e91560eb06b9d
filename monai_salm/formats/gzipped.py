"""Gzip, read whole within bounds and written so that the same content gives the same file."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from monai_salm.formats.limits import FormatError, read_file

# Voxels with noise hardly repeat but for runs of background, so that looking for repeats is time lost. Share of the
# original left, and time: int16 128^3 with grain: level 1 0.738 in 0.06 s, level 6 0.737 in 0.15 s, runs only 0.784 in
# 0.03 s. On real brains with noise runs only is even smaller than level 1: 0.200 to 0.208 and 0.285 to 0.301.
LEVEL, _STRATEGY = 1, zlib.Z_RLE
_WITH_HEADER, _PIECE = 31, 1 << 24
# Of gzip or zlib.
_EITHER_HEADER = 47


class GzipReader:
    """The decompressed bytes of a gzip file of one or more members; checksums are compared where a member ends.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, content = path, read_file(path)
        self._empty, self._file = not content, gzip.GzipFile(fileobj=io.BytesIO(content))

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer where the file ends; memory is taken for bytes that are there.

        Raises:
            FormatError: if the file is cut off or damaged.
        """
        parts: list[bytes] = []
        try:
            if self._empty:
                raise EOFError("it is empty")
            while size > 0 and (part := self._file.read(min(size, _PIECE))):
                parts.append(part)
                size -= len(part)
        except (EOFError, OSError, zlib.error) as error:
            raise FormatError(f"{self.path}: damaged gzip ({error}); get the file again from its source") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)


def gunzip(packed: bytes, size: int, path: Path) -> bytes:
    """Packed voxels, gzip or zlib, unpacked.

    Args:
        packed: to the end of the file.
        size: what they must come to.
        path: the file, for messages.

    Raises:
        FormatError: if they are damaged, or of another size.
    """
    inflate = zlib.decompressobj(_EITHER_HEADER)
    try:
        raw = inflate.decompress(packed, size + 1)
    except zlib.error as error:
        raise FormatError(f"{path}: damaged voxels ({error}); get the file again from its source") from error
    if len(raw) != size or not inflate.eof:
        raise FormatError(
            f"{path}: its header declares {size} bytes of voxels, and it holds another number; it is damaged"
        )
    return raw


def pack(content: bytes | bytearray) -> bytes:
    """A gzip member without name and time: the same content gives the same bytes."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _WITH_HEADER, zlib.DEF_MEM_LEVEL, _STRATEGY)
    return packer.compress(content) + packer.flush()
