"""DICOM images in several files: the slices of a series as one 3D image, in the order of their places in the patient."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from monai_salm.formats.base import FormatError, frame_of, require_like
from monai_salm.formats.dicom.format import Dicom, dicom_differences, write_dicom
from monai_salm.formats.dicom.stacks import Stack, read_header, stacks
from monai_salm.formats.kept_headers import split_head, split_parts
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

_DICOM = Dicom()


@dataclass(frozen=True)
class DicomSeries:
    """One image: a DICOM file, or the single-frame files of a series in the order of their slices.

    Has the methods of ``layouts.stored_images.StoredImage``; several files give ``(1, rows, columns, slices)``.

    Args:
        name: of the case, unique in the data set.
        files: relative to the data set's root, in the order of the slices.
        protected_uids: SOP Instance UIDs of all protected files of the data set; references to them follow their new names.
    """

    name: str
    files: tuple[str, ...]
    protected_uids: frozenset[str] = frozenset()

    def read(self, root: Path) -> Array:
        """The stored image ``(channel, *spatial)``; FormatError if the slices differ in shape or type."""
        if len(self.files) == 1:
            return _DICOM.read(root / self.files[0])
        slices = [_DICOM.read(root / file) for file in self.files]
        for file, image in zip(self.files, slices, strict=True):
            if image.ndim != 3 or image.shape[0] != 1:
                raise FormatError(
                    f"{root / file}: a slice of a series is grey and has one frame, this is {image.shape}"
                )
            if image.shape != slices[0].shape or image.dtype != slices[0].dtype:
                raise FormatError(
                    f"case {self.name!r}: {root / file} is {image.dtype.name} {image.shape}, {root / self.files[0]} is "
                    f"{slices[0].dtype.name} {slices[0].shape}; put series that differ into folders of their own"
                )
        return np.stack(slices, axis=-1)

    def units(self, root: Path, image: Array) -> Units:
        """What the stored numbers of the image mean, by the first file."""
        found = _DICOM.units(root / self.files[0])
        return replace(found, picture=image.dtype == np.uint8 and image.ndim == 3)

    def bounds(self, root: Path) -> tuple[int, int] | None:
        """The least and largest number that every file can hold; None for the whole range of the type."""
        found = [pair for file in self.files if (pair := _DICOM.bounds(root / file)) is not None]
        return (max(low for low, _ in found), min(high for _, high in found)) if found else None

    def write(self, root: Path, output: Path, image: Array) -> None:
        """Write the files under ``output`` with other voxels, as derived instances; each appears only when whole."""
        for file, part in self._split(image):
            write_dicom(root / file, output / file, part, self.protected_uids)

    def differences(self, root: Path, other: Path) -> Iterator[str]:
        """What differs between these files and those of a copy, voxels aside; a line each, with the file's name."""
        for file in self.files:
            for what in dicom_differences(root / file, other / file, self.protected_uids):
                yield f"{file}: {what}"

    def frame(self, root: Path) -> bytes:
        """A digest of everything in the files but the voxels."""
        return frame_of(_DICOM.frame(root / file) for file in self.files)

    def keepsake(self, root: Path) -> bytes | None:
        """What ``restore`` needs beside voxels and noise."""
        kept = [_DICOM.keepsake(root / file) or b"" for file in self.files]
        return json.dumps([len(part) for part in kept]).encode() + b"\n" + b"".join(kept)

    def restore(self, root: Path, output: Path, image: Array, keepsake: bytes | None) -> None:
        """Write the originals of a protected copy's files again."""
        for (file, part), kept in zip(self._split(image), self._parts(keepsake), strict=True):
            _DICOM.restore(root / file, output / file, part, kept)

    def _split(self, image: Array) -> Iterator[tuple[str, Array]]:
        if len(self.files) == 1:
            yield self.files[0], image
            return
        require_like(Path(self.name), (*image.shape[:3], len(self.files)), image.dtype, image)
        for number, file in enumerate(self.files):
            yield file, image[..., number]

    def _parts(self, keepsake: bytes | None) -> Iterator[bytes | None]:
        sizes, kept = split_head(keepsake or b"[]\n", f"case {self.name!r}")
        yield from split_parts(kept, sizes, len(self.files), f"case {self.name!r}")


Unit = TypeVar("Unit", bound=DicomSeries)


def group_series(
    root: Path,
    files: Iterable[str],
    protected_uids: Set[str] | None = None,
    unit: type[Unit] = DicomSeries,  # type: ignore[assignment]
    skipped: list[Stack] | None = None,
) -> list[Unit]:
    """Sort DICOM files into images by their headers: those of one folder, series and shape make one. First files give the order.

    Slices are ordered along the normal of their plane, or by Instance Number where a file does not say where it lies. An image of
    several files has the name of the first by name, and keeps it when other files come.

    Args:
        root: folder of the data set.
        files: relative to it.
        protected_uids: SOP Instance UIDs of all files that will be protected; None: those of ``files``.
        unit: the class to make; it takes what ``DicomSeries`` takes.
        skipped: takes up the files that make no image; None refuses them with a FormatError.
    """
    headers = []
    for file in files:
        try:
            headers.append(read_header(root, file))
        except (FormatError, OSError) as error:
            if skipped is None:
                raise
            skipped.append(Stack((file,), str(error)))
    known = frozenset(protected_uids) if protected_uids is not None else frozenset(h.instance for h in headers)
    units = []
    for stack in stacks(root, headers):
        if not stack.reason:
            units.append(unit(stack.name, stack.files, known))
        elif skipped is None:
            raise FormatError(stack.reason)
        else:
            skipped.append(stack)
    return units
