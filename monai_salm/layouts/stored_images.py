"""The images of a data set on disk: one file each, or several files that make up one image."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError, frame_of
from monai_salm.formats.kept_headers import split_head, split_parts
from monai_salm.layouts.files import dead_link, relative_path
from monai_salm.noise.units import Units, joined
from monai_salm.shared.arrays import Array


@dataclass(frozen=True)
class StoredImage(ABC):
    """One image and the files that hold it.

    ``root`` is the folder of the data set, ``output`` that of the copy, whose sub-folders are there. Methods raise
    ``FormatError`` for files that cannot be handled and ``OSError`` for those that cannot be opened.

    Args:
        name: of the case, unique in the data set.
        files: relative to the data set's root.
        copies: the same files in a protected copy, where their names differ.
    """

    name: str
    files: tuple[str, ...]
    copies: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def published(self) -> tuple[str, ...]:
        """The files in a protected copy."""
        return self.copies or self.files

    def in_copy(self) -> StoredImage:
        """The same image in a protected copy."""
        return replace(self, files=self.published, copies=())

    def originals(self, keepsake: bytes | None) -> tuple[str, ...]:
        """The files that ``restore`` writes."""
        return self.files

    @abstractmethod
    def read(self, root: Path) -> Array:
        """The stored image ``(channel, *spatial)`` in its stored type."""

    @abstractmethod
    def units(self, root: Path, image: Array) -> Units:
        """The meaning of the stored numbers of an image, which ``read`` gave."""

    @abstractmethod
    def write(self, root: Path, output: Path, image: Array) -> None:
        """Write the same files under ``output`` with other voxels, of the same shape and type; each appears only when whole."""

    def rewrite(self, root: Path, output: Path, edit: Callable[[Array], Array]) -> None:
        """``read``, ``edit`` and ``write`` in one, which opens files once where that takes long."""
        self.write(root, output, edit(self.read(root)))

    @abstractmethod
    def differences(self, root: Path, other: Path) -> Iterator[str]:
        """The differences between these files and those of a copy, voxels aside; a line each, with the file's name."""

    @abstractmethod
    def frame(self, root: Path) -> bytes:
        """A digest of everything in these files but the voxels."""

    @abstractmethod
    def keepsake(self, root: Path) -> bytes | None:
        """The bytes that ``restore`` needs beside voxels and noise; None if it needs none."""

    @abstractmethod
    def restore(self, root: Path, output: Path, image: Array, keepsake: bytes | None) -> None:
        """Write the originals of a protected copy's files again, given the original image and its ``keepsake``."""


@dataclass(frozen=True)
class ChannelFiles(StoredImage):
    """An image in one file, or one file for each of its channels (groups of channels), in order.

    Files of several types, as CT of int16 beside PET of float32, are one image of the type that holds all their numbers.

    Args:
        beside: how many of the files, the last ones, are parts of others (headers, or the voxels of a header).
    """

    beside: int = field(default=0, kw_only=True)

    @property
    def images(self) -> tuple[str, ...]:
        """The files that data sets name, one for each channel."""
        return self.files[: len(self.files) - self.beside]

    def originals(self, keepsake: bytes | None) -> tuple[str, ...]:
        return unpack_keepsakes(keepsake, self.images)[1] + self.files[len(self.images) :]

    def read(self, root: Path) -> Array:
        parts = self._parts(root)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def units(self, root: Path, image: Array) -> Units:
        formats = [format_of(root / file) for file in self.images]
        parts = [format_.units(root / file) for format_, file in zip(formats, self.images, strict=True)]
        if len(image) != len(parts) > 1:  # files of several channels each
            parts = [own for own, part in zip(parts, self._parts(root), strict=True) for _ in part]
        found = joined(parts)
        picture = formats[0].pictures and image.dtype == np.uint8 and image.ndim == 3
        return replace(found, picture=picture)

    def write(self, root: Path, output: Path, image: Array) -> None:
        for (file, part), copy in zip(self._split(root, image), self.published, strict=False):
            format_of(root / file).write(root / file, output / copy, part)

    def rewrite(self, root: Path, output: Path, edit: Callable[[Array], Array]) -> None:
        if len(self.images) > 1:
            super().rewrite(root, output, edit)
            return
        file, copy = self.images[0], self.published[0]
        format_of(root / file).rewrite(root / file, output / copy, edit)

    def differences(self, root: Path, other: Path) -> Iterator[str]:
        for file, copy in zip(self.images, self.published, strict=False):
            for what in format_of(root / file).differences(root / file, other / copy):
                yield f"{copy}: {what}"

    def frame(self, root: Path) -> bytes:
        return frame_of(format_of(root / file).frame(root / file) for file in self.images)

    def keepsake(self, root: Path) -> bytes | None:
        kept = [format_of(root / file).keepsake(root / file) for file in self.images]
        return pack_keepsakes(kept, self.images if self.copies else ())

    def restore(self, root: Path, output: Path, image: Array, keepsake: bytes | None) -> None:
        kept, names = unpack_keepsakes(keepsake, self.images)
        for (file, part), own, name in zip(self._split(root, image), kept, names, strict=True):
            format_of(root / file).restore(root / file, output / name, part, own)

    def _parts(self, root: Path) -> list[Array]:
        for path in (root / file for file in self.files):
            if (reason := dead_link(path)) is not None:
                raise FormatError(reason)
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing; put it there, or take its case out of the listing")
        parts = [format_of(root / file).read(root / file) for file in self.images]
        joint = np.result_type(*(part.dtype for part in parts))
        for file, part in zip(self.images, parts, strict=True):
            # Noise on a float is exact in its own type alone, and a float holds no integers that are as long as itself.
            fits = part.dtype == joint if part.dtype.kind == "f" else part.dtype.itemsize < 8 or joint.kind != "f"
            if part.shape[1:] != parts[0].shape[1:] or not fits:
                own, first = (f"{each.dtype.name} {each.shape[1:]}" for each in (part, parts[0]))
                what = f"{root / file} is {own}, {root / self.files[0]} is {first}"
                raise FormatError(f"case {self.name!r}: its channels differ: {what}; store them alike")
        return parts

    def _split(self, root: Path, image: Array) -> Iterator[tuple[str, Array]]:
        if len(self.images) == 1:
            yield self.files[0], image
            return
        start = 0
        for file, part in zip(self.images, self._parts(root), strict=True):
            own = image[start : start + len(part)]
            stored = own.astype(part.dtype)
            if not np.array_equal(stored, own, equal_nan=True):
                raise FormatError(
                    f"case {self.name!r}: the noise of {root / file} does not fit into {part.dtype.name}, which is coarser than "
                    "the other channels; give its channel a wider window, or store it as float32"
                )
            yield file, stored
            start += len(part)


@dataclass(frozen=True)
class UnusableImage(StoredImage):
    """A case that cannot be used: it keeps its place, and each of its methods says why not. No copy has its files.

    Args:
        files: all that belong to it and must not be copied as they are; they need not exist.
        reason: why it cannot be used, and what to do.
    """

    reason: str

    def _fail(self, *_: Any, **__: Any) -> NoReturn:
        raise FormatError(f"case {self.name!r}: {self.reason}")

    read = units = write = differences = frame = keepsake = restore = _fail


def channel_files(files: Sequence[str]) -> ChannelFiles:
    """The image in some files, one for each channel, named for the first."""
    return ChannelFiles(files[0], tuple(files))


def pack_keepsakes(parts: Sequence[bytes | None], names: Sequence[str] = ()) -> bytes | None:
    """The keepsakes of an image's files, with the files' names if those of the copy differ; None if there is no keepsake."""
    if all(part is None for part in parts):
        return None
    sizes = [None if part is None else len(part) for part in parts]
    return json.dumps([sizes, list(names)]).encode() + b"\n" + b"".join(part or b"" for part in parts)


def unpack_keepsakes(packed: bytes | None, files: Sequence[str]) -> tuple[list[bytes | None], tuple[str, ...]]:
    """Undo ``pack_keepsakes``: the keepsakes of the files of a protected copy, and the names of the originals, which stay inside."""
    if packed is None:
        return [None] * len(files), tuple(files)
    head, rest = split_head(packed, files[0])
    if (
        not isinstance(head, list)
        or [type(part) for part in head] != [list, list]
        or len(head[1]) not in (0, len(files))
    ):
        raise FormatError(f"{files[0]}: the store does not keep the names of its originals; take it from a backup")
    parts = split_parts(rest, head[0], len(files), files[0])
    return parts, tuple(relative_path(Path(), name, "the noise store") for name in head[1] or files)
