"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: voxels are edited in place, everything else keeps its bytes."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from monai_salm._files import atomic_file
from monai_salm.formats.base import Array, FormatError, ImageFormat, require_like
from monai_salm.formats.gzipped import MAX_RATIO, GzipReader, pack
from monai_salm.noise.units import Units

# What may follow the voxels; more is no NIfTI writer's doing.
_MAX_TRAILING = 1 << 24
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
        """The voxels as an array ``(x, y[, z[, channel]])`` or ``(x, y, z, 1, channel)`` that shares the content's memory."""
        return np.ndarray(self.shape, self.dtype, buffer=content, offset=self.offset, order="F")


class Nifti(ImageFormat):
    """``.nii`` and ``.nii.gz`` files of rank 2, 3, 4 with channels last, or 5 with one time step and channels last.

    Noise lives on the numbers as they are stored: a file whose header scales them on loading (``scl_slope``, ``scl_inter``)
    keeps its scaling, and loaders apply it to image and noise alike. Axes are those of the file, ``(x, y, z)``.
    """

    name = "nifti"
    suffixes = (".nii", ".nii.gz")

    def read(self, path: Path) -> Array:
        content, voxels = _load(path)
        return _image(voxels.view(content))

    def write(self, source: Path, target: Path, image: Array) -> None:
        content, voxels = _load(source)
        _save(source, target, content, voxels, image)

    def rewrite(self, source: Path, target: Path, edit: Callable[[Array], Array]) -> None:
        content, voxels = _load(source)
        _save(source, target, content, voxels, edit(_image(voxels.view(content))))

    def native_unit(self, path: Path) -> tuple[float, str] | None:
        # The header names no unit of intensity; a slope of 1, or none, says nothing at all.
        image: Any = nibabel.load(path)  # reads no voxels
        slope = float(image.dataobj.slope)
        return None if slope == 1 else (slope, "units of the scaled file")

    def units(self, path: Path) -> Units:
        image: Any = nibabel.load(path)  # reads no voxels
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        zooms = tuple(float(size) for size in image.header.get_zooms()[:3])
        known = len(zooms) == 3 and all(math.isfinite(size) and size > 0 for size in zooms)
        return Units(slope=slope or 1.0, intercept=intercept, spacing=zooms if known else ())

    def affine(self, path: Path) -> Array | None:
        image: Any = nibabel.load(path)  # reads no voxels
        header, found = image.header, np.asarray(image.affine)
        known = header["sform_code"] > 0 or header["qform_code"] > 0
        return found if known and np.isfinite(found).all() and abs(np.linalg.det(found)) > 1e-12 else None

    def frame(self, path: Path) -> bytes:
        content, voxels = _load(path)
        digest = hashlib.sha256(memoryview(content)[: voxels.offset])
        digest.update(memoryview(content)[voxels.end :])
        return digest.digest()


def _gzipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _channel_first(array: Array) -> Array:
    """``(x, y[, z])`` -> ``(1, x, y[, z])``, ``(x, y, z[, 1], channel)`` -> ``(channel, x, y, z)``, as MONAI loads them."""
    if array.ndim == 5:
        array = array[:, :, :, 0]
    return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]


def _image(stored: Array) -> Array:
    """The stored voxels in their own memory, channel first, C order, native byte order."""
    source = _channel_first(stored)
    image = np.empty(source.shape, stored.dtype.newbyteorder("="))
    _assign(image, source)
    return image


def _assign(target: Array, source: Array) -> None:
    """``target[...] = source``, plane by plane: from first axis fastest to last axis fastest it is three times as fast."""
    for row in range(target.shape[2]):
        target[:, :, row] = source[:, :, row]


def _save(source: Path, target: Path, content: bytearray, voxels: _Voxels, image: Array) -> None:
    """Put the image where the voxels stand in ``content`` and write that."""
    stored = _channel_first(voxels.view(content))
    require_like(source, stored.shape, stored.dtype, image)
    _assign(stored, image)
    with atomic_file(target) as file:
        file.write(pack(content) if _gzipped(target) else content)


def _load(path: Path) -> tuple[bytearray, _Voxels]:
    """The whole decompressed file and where its voxels are.

    Gzip is read to its end, so that its checksum is compared; memory grows only with bytes that are really there.
    """
    size, most = path.stat().st_size, 1
    with open(path, "rb") as plain:
        file: BinaryIO | GzipReader = plain
        if _gzipped(path):
            file, most = GzipReader(path), MAX_RATIO
        content = bytearray(file.read(540))
        voxels = _parse(bytes(content), path)
        if voxels.end > size * most:
            raise FormatError(
                f"{path}: the header declares {voxels.dtype.name} {voxels.shape}, {voxels.end} bytes, more than the file "
                f"of {size} bytes can hold; it is cut off or damaged"
            )
        content += file.read(max(0, voxels.end + _MAX_TRAILING + 1 - len(content)))
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
        # Only asked for, not used: where nibabel cannot tell the scaling, nobody can load the file.
        header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError, OSError) as error:
        raise FormatError(f"{path}: bad NIfTI header: {error}") from error
    _check(voxels, len(header.binaryblock) + 4, path)
    return voxels


def _check(voxels: _Voxels, least_offset: int, path: Path) -> None:
    kind, dtype = voxels.dtype.kind, voxels.dtype
    if kind not in "iuf" or dtype.itemsize > 8:
        what = _KINDS.get(kind, "extended-precision")
        raise FormatError(f"{path}: {what} voxels ({dtype}) are not supported; store plain integers or float32")
    rank = len(voxels.shape)
    if rank not in (2, 3, 4, 5) or min(voxels.shape) < 1 or (rank == 5 and voxels.shape[3] != 1):
        raise FormatError(
            f"{path}: shape {voxels.shape} is not (x, y), (x, y, z), (x, y, z, channel) or (x, y, z, 1, channel); "
            "split it into files of such a shape"
        )
    if voxels.offset < least_offset:
        raise FormatError(f"{path}: the header places the voxels at byte {voxels.offset}, inside itself; it is damaged")
