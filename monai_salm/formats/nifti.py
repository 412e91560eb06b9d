"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: voxels are edited in place, everything else keeps its bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from monai_salm._files import atomic_file
from monai_salm.formats.base import Array, FormatError, ImageFormat

_CHUNK = 1 << 20
# What may follow the voxels; more is no NIfTI writer's doing.
_MAX_TRAILING = 1 << 24
# Deflate packs at most 1032 bytes into one.
_MAX_RATIO = 1032
# Size of the header -> class, where its magic stands, the magic of a file that holds header and voxels together.
_VERSIONS = {
    348: (nibabel.Nifti1Header, slice(344, 348), b"n+1\0"),
    540: (nibabel.Nifti2Header, slice(4, 12), b"n+2\0\r\n\x1a\n"),
}
_KINDS = {"V": "colour", "c": "complex", "b": "boolean"}


@dataclass(frozen=True)
class _Voxels:
    """Where the voxels stand in the (decompressed) file and what they are."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def view(self, content: bytearray) -> Array:
        """The voxels as an array ``(x, y[, z[, channel]])`` that shares the content's memory."""
        return np.ndarray(self.shape, self.dtype, buffer=content, offset=self.offset, order="F")


class Nifti(ImageFormat):
    """``.nii`` and ``.nii.gz`` files of rank 2, 3, or 4 with channels last."""

    name = "nifti"
    suffixes = (".nii", ".nii.gz")

    def read(self, path: Path) -> Array:
        content, voxels = _load(path)
        image = _channel_first(voxels.view(content))
        return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))

    def write(self, source: Path, target: Path, image: Array) -> None:
        content, voxels = _load(source)
        stored = _channel_first(voxels.view(content))
        if image.shape != stored.shape or image.dtype != stored.dtype.newbyteorder("="):
            raise FormatError(
                f"{source} holds {stored.dtype.name} {stored.shape}, cannot take {image.dtype.name} {image.shape} in its place"
            )
        stored[...] = image
        with atomic_file(target) as file:
            if not _gzipped(target):
                file.write(content)
                return
            # No name and no time in the gzip header: the same voxels give the same file.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                packed.write(content)

    def frame(self, path: Path) -> bytes:
        content, voxels = _load(path)
        digest = hashlib.sha256(memoryview(content)[: voxels.offset])
        digest.update(memoryview(content)[voxels.end :])
        return digest.digest()


def _gzipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _channel_first(array: Array) -> Array:
    """``(x, y[, z])`` -> ``(1, x, y[, z])`` and ``(x, y, z, channel)`` -> ``(channel, x, y, z)``, as MONAI loads them."""
    return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]


def _load(path: Path) -> tuple[bytearray, _Voxels]:
    """The whole decompressed file and where its voxels are.

    Gzip is read to its end, so that its checksum is compared; memory grows only with bytes that are really there.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            # GzipFile's read and close are all that is used of it.
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if _gzipped(path) else raw
            content = bytearray(file.read(540))
            voxels = _parse(bytes(content), path)
            if voxels.end > size * (_MAX_RATIO if _gzipped(path) else 1):
                raise FormatError(
                    f"{path}: the header declares {voxels.dtype.name} {voxels.shape}, {voxels.end} bytes, more than the file "
                    f"of {size} bytes can hold; it is cut off or damaged"
                )
            while len(content) <= voxels.end + _MAX_TRAILING and (chunk := file.read(_CHUNK)):
                content += chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: damaged gzip ({error}); get the file again from its source") from error
    if len(content) < voxels.end:
        raise FormatError(
            f"{path}: cut off, {len(content)} bytes of the {voxels.end} that its header declares; get it again from its source"
        )
    if len(content) > voxels.end + _MAX_TRAILING:
        raise FormatError(f"{path}: more than {_MAX_TRAILING} bytes follow the voxels; the header is damaged")
    return content, voxels


def _parse(start: bytes, path: Path) -> _Voxels:
    """Read the header and refuse what cannot carry noise."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")} & set(_VERSIONS)
    if not sizes:
        raise FormatError(f"{path}: not a NIfTI file (its first bytes are {start[:4].hex() or 'missing'})")
    header_class, place, magic = _VERSIONS[sizes.pop()]
    if start[place] != magic:
        raise FormatError(
            f"{path}: its magic is {start[place]!r}; only NIfTI with header and voxels in one file is read, "
            "not .hdr/.img pairs or Analyze"
        )
    try:
        header = header_class.from_fileobj(io.BytesIO(start))  # type: ignore[no-untyped-call]
        dtype = header.get_data_dtype()
        voxels = _Voxels(int(header.get_data_offset()), tuple(map(int, header.get_data_shape())), dtype)
        scaling = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError, OSError) as error:
        raise FormatError(f"{path}: bad NIfTI header: {error}") from error
    _check(voxels, scaling, len(header.binaryblock) + 4, path)
    return voxels


def _check(voxels: _Voxels, scaling: tuple[float | None, float | None], least_offset: int, path: Path) -> None:
    kind, dtype = voxels.dtype.kind, voxels.dtype
    if kind not in "iuf" or dtype.itemsize > 8:
        what = _KINDS.get(kind, "extended-precision")
        raise FormatError(f"{path}: {what} voxels ({dtype}) are not supported; store plain integers or float32")
    if len(voxels.shape) not in (2, 3, 4) or min(voxels.shape) < 1:
        raise FormatError(f"{path}: shape {voxels.shape} is not (x, y), (x, y, z) or (x, y, z, channel)")
    if voxels.offset < least_offset:
        raise FormatError(f"{path}: the header places the voxels at byte {voxels.offset}, inside itself; it is damaged")
    slope, intercept = scaling
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        raise FormatError(
            f"{path}: stored values are scaled on loading (scl_slope {slope:g}, scl_inter {intercept:g}). Noise lives on stored "
            "values, and LoadImaged would give SALMProtectd scaled ones; save it unscaled (slope 1, intercept 0)"
        )
