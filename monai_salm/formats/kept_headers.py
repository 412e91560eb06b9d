"""What a store keeps of an original so that ``restore`` gives it back: packed, and unpacked within bounds."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import zstandard

from monai_salm.formats.limits import FormatError
from monai_salm.shared.arrays import Array

# What is kept of an image has at most so many times its bytes (numbers as text), and what stands beside the voxels; or it is
# packed no more tightly than this.
_MOST_TIMES, _MOST_BESIDE, _MOST_RATIO = 8, 1 << 24, 256


def packed(content: bytes, image_size: int, path: Path, level: int = 3) -> bytes:
    """The part of a file that its protected copy lacks, as a keepsake; FormatError if ``unpacked`` would refuse it."""
    kept = zstandard.ZstdCompressor(level=level).compress(content)
    if not _fits(len(content), len(kept), image_size):
        raise FormatError(
            f"{path}: {len(content):,} bytes beside its voxels are more than any image has; save it without them"
        )
    return kept


def unpacked(keepsake: bytes, image: Array, path: Path) -> bytes:
    """The inverse of ``packed``; FormatError for a keepsake that is damaged, or larger than that of this image can be."""
    try:
        size = zstandard.frame_content_size(keepsake)
        if size < 0 or not _fits(size, len(keepsake), image.nbytes):
            raise ValueError(f"it claims {size:,} bytes for an image of {image.nbytes:,}")
        return zstandard.ZstdDecompressor().decompress(keepsake)
    except (zstandard.ZstdError, ValueError) as error:
        raise damaged_keepsake(str(path), error) from error


def _fits(size: int, packed_size: int, image_size: int) -> bool:
    """Whether so many bytes can be what is kept of an image: hardly packed, or not much more than the image."""
    return size <= max(_MOST_RATIO * packed_size, _MOST_TIMES * image_size + _MOST_BESIDE)


def split_head(content: bytes, what: str) -> tuple[Any, bytes]:
    """The line of JSON that a keepsake of several parts begins with, and the parts; ``what`` names the image in errors."""
    head, _, rest = content.partition(b"\n")
    try:
        return json.loads(head), rest
    except (ValueError, RecursionError) as error:
        raise damaged_keepsake(what, error) from error


def split_parts(content: bytes, sizes: object, count: int, what: str) -> list[bytes | None]:
    """So many parts that stand one after the other in a keepsake, by their sizes in the store; None where one has none."""
    known = isinstance(sizes, list) and all(size is None or (type(size) is int and size >= 0) for size in sizes)
    if not known or not isinstance(sizes, list) or len(sizes) != count or sum(n or 0 for n in sizes) != len(content):
        raise damaged_keepsake(what, f"sizes of {count} files do not match")
    ends = list(accumulate(size or 0 for size in sizes))
    return [None if n is None else content[end - n : end] for n, end in zip(sizes, ends, strict=True)]


def damaged_keepsake(what: str, why: object) -> FormatError:
    """The error for what the store keeps of a file or a case, which it names."""
    return FormatError(f"{what}: what the store keeps of the original is damaged ({why}); take the store from a backup")
