"""NIfTI-1 and NIfTI-2, and pairs of header and voxels, plain or gzipped; voxels are edited in place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from monai_salm.formats.base import Content, FormatError, ImageFormat, in_millimetres, known_spacing
from monai_salm.formats.gzipped import pack
from monai_salm.formats.limits import read_header
from monai_salm.formats.voxels_in_place import VoxelsInPlace, read_bounded, read_start, require_header
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

# Units of length that a header may name, in millimetres.
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
_SHORTEST, _HEADER = 348, 540
# The most bytes of extensions, and of what stands in a file of voxels before them, without zeros.
_EXTENSIONS = 1 << 20
_MAX_PAIRED = 1 << 24
# Size of the header -> class, where its magic stands, the magic of one file, and of a pair.
_VERSIONS: dict[int, tuple[Any, slice, bytes, bytes]] = {
    348: (nibabel.Nifti1Header, slice(344, 348), b"n+1\0", b"ni1\0"),
    540: (nibabel.Nifti2Header, slice(4, 12), b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n"),
}
_KINDS = {"c": "complex", "b": "boolean", "f": "extended-precision"}
_COLOURS = (("R", "G", "B"), ("R", "G", "B", "A"))


@dataclass(frozen=True)
class _Voxels:
    """Where the voxels stand in the (decompressed) file and what they are."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def view(self, content: Content) -> Array:
        """The voxels as an array ``(channel, x, y[, z])`` that shares the content's memory."""
        if self.dtype.names:  # colours; transparency is not part of the image
            colours = (len(self.dtype.names), *self.shape)
            return np.ndarray(colours, np.uint8, buffer=content, offset=self.offset, order="F")[:3]
        return _channel_first(np.ndarray(self.shape, self.dtype, buffer=content, offset=self.offset, order="F"))


class Nifti(ImageFormat):
    """``.nii`` and ``.nii.gz`` files of rank 2, 3, 4 with channels last, or more where all but one further axis are 1.

    Noise lives on the numbers as they are stored: a file whose header scales them on loading (``scl_slope``, ``scl_inter``)
    keeps its scaling, and loaders apply it to image and noise alike. Axes are those of the file, ``(x, y, z)``. Whether a file
    is gzipped its first bytes say, not its name.
    """

    name = "nifti"
    suffixes = (".nii", ".nii.gz")

    def open(self, path: Path) -> VoxelsInPlace:
        found: list[_Voxels] = []

        def end(start: bytes) -> int:
            found.append(_voxels(_header(start, path, pair=False), path))
            return found[0].end

        content, gzipped = read_bounded(path, end, _HEADER)
        require_header(content[_SHORTEST : found[0].offset], path, _EXTENSIONS)
        return VoxelsInPlace(content, found[0].view(content), lambda new: {"": pack(new) if gzipped else new})

    def native_unit(self, path: Path) -> tuple[float, str] | None:
        # The header names no unit of intensity; a slope of 1, or none, says nothing at all.
        slope = _scaling(self._header(path))[0]
        return None if slope == 1 else (slope, "units of the scaled file")

    def units(self, path: Path) -> Units:
        header = self._header(path)
        slope, intercept = _scaling(header)
        try:
            millimetres = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0) if "xyzt_units" in header else 1.0
        except KeyError:  # a code of no unit
            millimetres = 1.0
        zooms = [float(size) * millimetres for size in header.get_zooms()[:3]]
        return Units(slope or 1.0, intercept, spacing=known_spacing(zooms) if len(zooms) == 3 else ())

    def affine(self, path: Path) -> Array | None:
        header = self._header(path)
        if "sform_code" not in header or not (header["sform_code"] > 0 or header["qform_code"] > 0):  # Analyze
            return None
        found = np.asarray(header.get_best_affine(), float)
        return in_millimetres(list(found[:3, :3].T), found[:3, 3], to_right=True)

    def _header(self, path: Path) -> Any:
        return _header(read_start(path, _HEADER), path, pair=False)


class NiftiPair(Nifti):
    """``.img`` files with their header in a ``.hdr`` beside them: NIfTI pairs and Analyze 7.5; images as of ``Nifti``."""

    name = "nifti_pair"
    suffixes = (".img", ".img.gz")

    def companions(self, path: Path) -> tuple[str, ...]:
        return (_header_of(path).name,)

    def open(self, path: Path) -> VoxelsInPlace:
        place = _header_of(path)
        voxels = _voxels(self._header(path), place)
        content, gzipped = read_bounded(path, lambda _: voxels.end, 2, plain=voxels.end)
        header = read_header(place)
        require_header(read_start(place, _MAX_PAIRED)[_SHORTEST:], path, _EXTENSIONS)
        require_header(content[: voxels.offset], path, _EXTENSIONS)
        return VoxelsInPlace(
            content, voxels.view(content), lambda new: {"": pack(new) if gzipped else new, place.name: header}, header
        )

    def _header(self, path: Path) -> Any:
        place = _header_of(path)
        return _header(read_start(place, _HEADER), place, pair=True)


def _header_of(path: Path) -> Path:
    """The header that belongs to an .img file."""
    stem = path.name[: path.name.lower().rindex(".img")]
    for suffix in (".hdr", ".HDR", ".hdr.gz", ".HDR.GZ"):
        if (path.parent / f"{stem}{suffix}").is_file():
            return path.parent / f"{stem}{suffix}"
    raise FormatError(f"{path}: its header {stem}.hdr is missing; put it beside the file")


def _channel_first(array: Array) -> Array:
    """``(x, y[, z])`` -> ``(1, x, y[, z])``, ``(x, y, z[, 1], channel)`` -> ``(channel, x, y, z)``, as MONAI loads them."""
    if array.ndim > 4:
        array = array.reshape(*array.shape[:3], -1, order="F")
    return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header says nothing."""
    try:
        slope, intercept = header.get_slope_inter()
    except (AttributeError, NotImplementedError):  # Analyze
        return 1.0, 0.0
    return float(1.0 if slope is None else slope), float(intercept or 0.0)


def _header(start: bytes, path: Path, pair: bool) -> Any:
    """The header of a file, or an error that says what is wrong with it."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")} & set(_VERSIONS)
    if not sizes:
        raise FormatError(f"{path}: not a NIfTI file (its first bytes are {start[:4].hex() or 'missing'})")
    size = sizes.pop()
    header_class, place, single, double = _VERSIONS[size]
    if not pair and start[place] != single:
        raise FormatError(
            f"{path}: its magic is {start[place]!r}: it is the header of a pair, or Analyze; name the voxels .img and the header .hdr"
        )
    if pair and size == 348 and start[place] not in (single, double):
        header_class = nibabel.Spm99AnalyzeHeader
    try:
        header = header_class(start[:size])
        # The value is not used. If nibabel cannot read the scaling, no reader can load the file.
        _scaling(header)
    except (HeaderDataError, ValueError, OverflowError, OSError) as error:
        raise FormatError(f"{path}: bad NIfTI header: {error}") from error
    return header


def _voxels(header: Any, path: Path) -> _Voxels:
    """Where the voxels are; refuses what cannot carry noise."""
    try:
        dtype = header.get_data_dtype()
        found = _Voxels(int(header.get_data_offset()), tuple(map(int, header.get_data_shape())), dtype)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: bad NIfTI header: {error}") from error
    least = 0 if path.name.lower().endswith((".hdr", ".hdr.gz")) else len(header.binaryblock) + 4
    _check(found, least, path)
    return found


def _check(voxels: _Voxels, least_offset: int, path: Path) -> None:
    kind, dtype = voxels.dtype.kind, voxels.dtype
    coloured = dtype.names in _COLOURS
    if not coloured and (kind not in "iuf" or dtype.itemsize > 8):
        what = _KINDS.get(kind, "compound")
        raise FormatError(f"{path}: {what} voxels ({dtype}) are not supported; store plain integers or float32")
    rank, further = len(voxels.shape), [size for size in voxels.shape[3:] if size != 1]
    if rank < 2 or min(voxels.shape) < 1 or len(further) > 1 or (coloured and (rank > 3 and further)):
        raise FormatError(
            f"{path}: shape {voxels.shape} is not (x, y), (x, y, z), (x, y, z, channel) or (x, y, z, 1, channel); "
            "split it into files of such a shape"
        )
    if voxels.offset < least_offset:
        raise FormatError(f"{path}: the header places the voxels at byte {voxels.offset}, inside itself; it is damaged")
