"""What a file format offers: the stored grid of one image, and the same file with other voxels."""

from __future__ import annotations

import hashlib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from monai_salm.formats.kept_headers import packed, unpacked
from monai_salm.formats.limits import FormatError as FormatError
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import atomic_file

T = TypeVar("T")
#: Bytes of a file.
Content: TypeAlias = bytes | bytearray | memoryview
_OPENED: ContextVar[dict[tuple[Path, str], Any] | None] = ContextVar("opened files", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """A block in which this thread opens each file once; it does not see later changes of a file."""
    if _OPENED.get() is not None:  # within such a block
        yield
        return
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)


def opened(path: Path, kind: str, open_file: Callable[[Path], T]) -> T:
    """A file as it was opened for this ``kind`` of use, kept to the end of an ``opened_once`` block."""
    files = _OPENED.get()
    if files is None:
        return open_file(path)
    if (path, kind) not in files:
        files[path, kind] = open_file(path)
    found: T = files[path, kind]
    return found


class Opened(ABC):
    """A file that was read."""

    #: Of the image.
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    #: The file as it is, where it is written in another form than it has.
    whole: bytes | None

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def image(self) -> Array:
        """The stored numbers ``(channel, *spatial)``, native byte order, in memory of their own."""

    @abstractmethod
    def files(self, image: Array) -> Mapping[str, Content]:
        """All files to write for another image, by name; the name of the file itself is empty.

        Raises:
            ValueError: if the file cannot hold a number of the image.
        """

    @abstractmethod
    def frame(self) -> bytes:
        """A digest of everything but the voxels."""


class ImageFormat(ABC):
    """Reads and rewrites files that hold one image each; has no state.

    Every method raises ``FormatError`` for a file it cannot handle and ``OSError`` for one it cannot open.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    #: Whether images of 8 bits with two axes are pictures, which are seen from 0 to 255.
    pictures: ClassVar[bool] = False
    #: Suffix of the protected files, where files of this one cannot carry noise; None where the name stays.
    published: ClassVar[str | None] = None
    #: Whether some files are written in another form than they have.
    converts: ClassVar[bool] = False

    def matches(self, path: Path) -> bool:
        """Whether a file is of this format, by its name."""
        return path.name.lower().endswith(self.suffixes)

    def companions(self, path: Path) -> tuple[str, ...]:
        """Names of the files beside this one that are part of the image, such as a header; ``write`` writes them, too."""
        return ()

    @abstractmethod
    def open(self, path: Path) -> Opened:
        """Read a file and refuse what cannot carry noise."""

    def read(self, path: Path) -> Array:
        """The stored numbers, unscaled: ``(channel, *spatial)`` in the stored type, native byte order."""
        return self._opened(path).image()

    def _opened(self, path: Path) -> Opened:
        """``open``, once in an ``opened_once`` block."""
        return opened(path, self.name, self.open)

    def write(self, source: Path, target: Path, image: Array) -> None:
        """Write ``source`` again with other voxels; all else in the file stays byte for byte.

        Args:
            source: the file that ``image`` was read from.
            target: where the new file goes; it appears only when whole.
            image: as ``read`` gives it, same shape and type.
        """
        save(source, target, self._opened(source), image)
        if (files := _OPENED.get()) is not None:  # other voxels were written into what was opened
            files.pop((source, self.name), None)

    def rewrite(self, source: Path, target: Path, edit: Callable[[Array], Array]) -> None:
        """``read``, ``edit`` (returns an image of the same shape and type) and ``write`` in one; the file is opened once."""
        with opened_once():
            self.write(source, target, edit(self.read(source)))

    def bounds(self, path: Path) -> tuple[int, int] | None:
        """The least and largest number that a voxel of this file may hold; None for the whole range of its type."""
        return None

    def native_unit(self, path: Path) -> tuple[float, str] | None:
        """How the file itself scales its numbers: native units in one stored unit, and their name; None if it says nothing."""
        return None

    def units(self, path: Path) -> Units:
        """What the stored numbers mean, as far as the file says it."""
        return Units()

    def affine(self, path: Path) -> Array | None:
        """From the indices of the array's spatial axes to millimetres (right, anterior, superior), ``(4, 4)``; None if unknown."""
        return None

    def frame(self, path: Path) -> bytes:
        """A digest of everything in the file but the voxels: header, geometry, extensions, trailing bytes."""
        return self._opened(path).frame()

    def differences(self, source: Path, protected: Path) -> Iterator[str]:
        """What ``write`` changed beside the voxels and should not have, one line each, without the file's name."""
        if self.frame(source) != self.frame(protected):
            yield "its header or what follows the voxels differs from the original"

    def keepsake(self, source: Path) -> bytes | None:
        """What ``write`` will not take over from ``source``, so that ``restore`` can give it back; None if nothing is lost."""
        file = self._opened(source) if self.converts else None
        return None if file is None or file.whole is None else packed(file.whole, file.size, source)

    def restore(self, protected: Path, target: Path, image: Array, keepsake: bytes | None) -> None:
        """Write the original file again.

        Args:
            protected: what ``write`` wrote.
            target: where the restored file goes; it appears only when whole.
            image: the original voxels, as ``read`` gave them.
            keepsake: what ``keepsake`` gave for the original; here the whole file, if it is not None.
        """
        if keepsake is None:
            self.write(protected, target, image)
            return
        with atomic_file(target) as file:
            file.write(unpacked(keepsake, image, protected))


def save(source: Path, target: Path, opened: Opened, image: Array, **options: Any) -> None:
    """Write an opened file again with another image; it appears only when whole. FormatError if the image does not fit into it."""
    require_like(source, opened.shape, opened.dtype, image)
    try:
        files = opened.files(image, **options)
    except ValueError as error:
        raise FormatError(f"{source}: {error}") from error
    for name, content in files.items():
        with atomic_file(target.parent / name if name else target, size=len(content)) as file:
            file.write(content)


def in_millimetres(steps: Sequence[Array], origin: Array, to_right: bool = False) -> Array | None:
    """The affine of an image, as ``ImageFormat.affine`` gives it; None if its numbers describe no image.

    Args:
        steps: from a voxel to the next along each of three axes, in millimetres.
        origin: place of the first voxel.
        to_right: whether places are given as (right, anterior, superior); else as (left, posterior, superior), as most do.
    """
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = np.stack(steps, 1), origin
    if not to_right:
        found[:2] *= -1
    good = np.isfinite(found).all() and abs(float(np.linalg.det(found))) > 1e-12
    return found if good else None


def known_spacing(sides: Sequence[float]) -> tuple[float, ...]:
    """Millimetres between voxels along each axis, as given; none where one says nothing."""
    return tuple(sides) if all(math.isfinite(side) and side > 0 for side in sides) else ()


def frame_of(frames: Iterable[bytes]) -> bytes:
    """The digest of the frames of several files, which together hold one image."""
    return hashlib.sha256(b"".join(hashlib.sha256(frame).digest() for frame in frames)).digest()


def what_it_is(start: bytes) -> str:
    """The kind of a file that holds no image, by its first bytes (all, if they are few); empty if the kind is not known."""
    if not start:
        return "it is empty (0 bytes); get the file again from its source"
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer of Git LFS to an image, not the image itself; fetch the image (git lfs pull)"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, as a download that failed leaves it; get the file again from its source"
    return ""


def require_like(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], image: Array) -> None:
    """FormatError for an image of another shape or type than the stored one; the byte order does not matter."""
    if image.shape != shape or image.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise FormatError(
            f"{path} holds {dtype.name} {shape}, cannot take {image.dtype.name} {image.shape} in its place"
        )


def require(module: str, extra: str, what: str) -> Any:
    """A module of an optional library, for files of a kind; ImportError says which extra of this package installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} files need {module.partition('.')[0]}: pip install 'monai_salm[{extra}]' ({error})"
        ) from error
