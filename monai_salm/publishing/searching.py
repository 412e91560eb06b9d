"""The search of a copy for the bytes, or the voxels, of an image that is to be protected; only hashes are kept in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from monai_salm.formats import FORMATS, FormatError, ImageFormat, find_format
from monai_salm.layouts import Layout
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import file_sha256

T = TypeVar("T")
R = TypeVar("R")
# Fewer different values are a label map or nothing at all, and no sign of an image.
_FEW_VALUES = 9
_CHUNK = 1 << 20
# Bytes of large pictures, whose memory would be given back to the system and cleared anew each time.
_PICTURE = 1 << 24
# How files begin, and where -> the format that reads them under any name.
_STARTS = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (344, b"n+1\0", "nifti"),
    (4, b"n+2\0", "nifti"),
    (0, b"\x1f\x8b", "nifti"),  # gzip, which NIfTI is packed with most often
    (0, b"NRRD", "nrrd"),
    (0, b"ObjectType", "meta_image"),
    (128, b"DICM", "dicom"),
)


def in_threads(work: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """The results of some work, in the order of the items, done by several threads; the first error stops it.

    Reading, packing and adding release Python's lock, so that threads share the cores without copies of the noise.
    """
    bytearray(_PICTURE)  # once this is freed, the C library keeps freed memory of up to its size for the next picture
    if jobs == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(work, items)


def find_unprotected(
    data: Layout, splits: Sequence[str], files: Iterable[str], root: Path, jobs: int
) -> dict[str, str]:
    """Files that hold an image of some splits, which is to be protected, by their bytes or by their voxels, with the reasons.

    ``files`` are all that carry no noise, relative to ``root``: the data set's own, or that of a copy of it.
    """
    originals = [file for file in data.image_files(splits) if data.path_of(file).is_file()]
    protected = set(originals)
    waiting = [file for file in files if file not in protected and (root / file).is_file()]
    if not waiting:
        return {}
    found = _same_bytes(data.root, originals, root, waiting)
    found |= _packed(data.root, originals, root, [file for file in waiting if file not in found])
    waiting = [file for file in waiting if file not in found]
    seen = dict(zip(waiting, in_threads(fingerprints, [root / file for file in waiting], jobs), strict=True))
    wanted = {one for own in seen.values() for one in own}
    voxels: dict[tuple[int, int], str] = {}
    if wanted:
        of_originals = in_threads(fingerprints, [data.root / file for file in originals], jobs)
        for file, own in zip(originals, of_originals, strict=True):
            voxels |= dict.fromkeys(own & wanted, file)
    for file, own in seen.items():
        hits = sorted(voxels[one] for one in own & set(voxels))
        found |= {file: hits[0]} if hits else {}
    why = "which is to be protected, and would show it as it is; take it out of the data set"
    return {file: f"holds the image {original}, {why}" for file, original in sorted(found.items())}


def _same_bytes(source: Path, originals: Sequence[str], root: Path, files: Sequence[str]) -> dict[str, str]:
    """Files with the bytes of an original; only those of one size are read."""
    sizes = {file: (root / file).stat().st_size for file in files}
    known = set(sizes.values())
    alike = (file for file in originals if 0 < (source / file).stat().st_size in known)
    digests = {file_sha256(source / file): file for file in alike}
    lengths = {(source / file).stat().st_size for file in digests.values()}
    near = [file for file, size in sizes.items() if size in lengths]
    return {file: digests[digest] for file in near if (digest := file_sha256(root / file)) in digests}


def _packed(source: Path, originals: Sequence[str], root: Path, files: Sequence[str]) -> dict[str, str]:
    """Zip archives that an original lies in, by its size and checksum; nothing is unpacked."""
    members: dict[str, set[tuple[int, int]]] = {}
    for file in files:
        if zipfile.is_zipfile(root / file):
            try:
                with zipfile.ZipFile(root / file) as archive:
                    members[file] = {(one.file_size, one.CRC) for one in archive.infolist() if one.file_size}
            except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
                continue
    sizes = {size for own in members.values() for size, _ in own}
    near = ((file, (source / file).stat().st_size) for file in originals)
    sums = {(size, _checksum(source / file)): file for file, size in near if size in sizes}
    return {file: sums[one] for file, own in members.items() for one in sorted(own) if one in sums}


def _checksum(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def fingerprints(path: Path) -> frozenset[tuple[int, int]]:
    """Count and hash of the numbers of the image in a file, and of each channel; none for what is no image or a label map.

    They are the same in any type, order of axes and format.
    """
    image = _image_in(path)
    if image is None:
        return frozenset()
    channels = [_fingerprint(channel) for channel in image if _has_many_values(channel)]
    count, total = sum(count for count, _ in channels), sum(value for _, value in channels)
    return frozenset([*channels, (count, total % 2**64)]) if channels else frozenset()


def _image_in(path: Path) -> Array | None:
    """The image in a file by its name, or else by its first bytes: a name may hide what is there."""
    for find in (find_format, _by_content):
        with suppress(FormatError, OSError):
            format_ = find(path)
            if format_ is not None:
                return format_.read(path)
    return None


def _by_content(path: Path) -> ImageFormat | None:
    with open(path, "rb") as file:
        start = file.read(352)
    return next((FORMATS[name] for at, mark, name in _STARTS if start[at : at + len(mark)] == mark), None)


def _has_many_values(channel: Array) -> bool:
    some = channel.reshape(-1)[:: max(1, channel.size // 4096)]
    return len(np.unique(some)) >= _FEW_VALUES or len(np.unique(channel)) >= _FEW_VALUES


def _fingerprint(channel: Array) -> tuple[int, int]:
    """Count and hash of the finite numbers of an array, in any order and type: the sum of a hash of each."""
    count, total, flat = 0, 0, channel.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        values = flat[start : start + _CHUNK].astype(np.float64) + 0.0  # -0.0 becomes 0.0
        values = values[np.isfinite(values)]
        count += len(values)
        total += int(_mixed(values.view(np.uint64)).sum(dtype=np.uint64))
    return count, total % 2**64


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each number (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
