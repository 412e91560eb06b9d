"""NumPy .npz archives, read without np.load, so that no pickle is ever met, and written deterministically."""

from __future__ import annotations

import errno
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from monai_salm.formats.base import Content, FormatError, ImageFormat
from monai_salm.formats.limits import MAX_RATIO, require_claim, require_size
from monai_salm.formats.npy import MAX_HEADER, open_numbers, parse_header, view_numbers
from monai_salm.formats.voxels_in_place import VoxelsInPlace
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import atomic_file

# A time that any zip reader takes; the same for every archive, so that the same arrays give the same file.
_TIME = (1980, 1, 1, 0, 0, 0)
# Larger members are not unpacked into memory.
_IN_MEMORY, _CHUNK = 1 << 24, 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile raises where headers are damaged; an undecodable name is a ValueError.
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError)


class NpzArchive:
    """A .npz file: named arrays, each read when asked for; FormatError if it is no archive of .npy members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file begins
                raise
            raise self._error(f"not an .npz archive ({error})") from error
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise self._error("two members have the same name")
        for member in members:
            self._check_member(member)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the arrays, in the order of the file."""
        return tuple(name.removesuffix(".npy") for name in self._members)

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
        """Shape and type of an array, without reading it."""
        shape, _, dtype, _ = parse_header(self._start(key), self._named(key))
        return shape, dtype

    def size(self, key: str) -> int:
        """Bytes of a member once unpacked."""
        return self._member(key).file_size

    def raw(self, key: str) -> bytes:
        """The bytes of a member, its checksum compared."""
        with zipfile.ZipFile(self.path) as archive, self._translated(key):
            return archive.read(self._members[f"{key}.npy"])

    def frame(self, key: str) -> bytes:
        """The bytes of a member before the numbers: type, order and shape."""
        start = self._start(key)
        return start[: parse_header(start, self._named(key))[3]]

    def array(self, key: str) -> Array:
        """An array as it is stored; read-only. A large one is unpacked into a temporary file, not into memory."""
        size = self._member(key).file_size
        shape, _, dtype, start = parse_header(self._start(key), self._named(key))
        if start + math.prod(shape) * dtype.itemsize != size:
            raise self._error(f"{key!r} declares {dtype.name} {shape}, but holds {size - start} bytes of numbers")
        large = size > _IN_MEMORY
        mapped = self._mapped(key) if large else None
        return view_numbers(self.raw(key) if mapped is None else mapped, self._named(key))

    def same(self, key: str, other: NpzArchive) -> bool:
        """Whether a member has the same bytes in another archive."""
        if self._member(key).file_size != other._member(key).file_size:
            return False
        return all(one == two for one, two in zip(self._chunks(key), other._chunks(key), strict=True))

    def write(self, target: Path, replaced: Mapping[str, Array | Iterable[Array]]) -> None:
        """Write the archive again with other numbers in some arrays, of the stored shape and type; the rest keeps its bytes.

        ``replaced`` gives by key an array, or the parts along its first axis, in order.
        """
        with atomic_file(target) as file:
            self.pack(file, replaced)

    def pack(self, file: BinaryIO, replaced: Mapping[str, Array | Iterable[Array]]) -> None:
        """``write`` into an open file."""
        with zipfile.ZipFile(file, "w") as archive:
            for name, member in self._members.items():
                key = name.removesuffix(".npy")
                info = zipfile.ZipInfo(name, _TIME)
                info.compress_type, info.file_size = member.compress_type, member.file_size
                info.external_attr = 0o600 << 16
                with archive.open(info, "w") as place:
                    for part in self._edited(key, replaced[key]) if key in replaced else self._chunks(key):
                        place.write(part)

    def _edited(self, key: str, rows: Array | Iterable[Array]) -> Iterator[bytes]:
        """A member with other numbers, piece by piece."""
        shape, fortran, dtype, _ = parse_header(self._start(key), self._named(key))
        yield self.frame(key)
        if fortran:  # the rows do not lie one after the other
            whole = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows))
            self._require_like(key, whole, shape, dtype)
            yield whole.astype(dtype, copy=False).tobytes("F")
            return
        count = 0
        for count, row in enumerate(rows if len(shape) else [np.asarray(rows)], start=1):  # noqa: B007 - counted
            self._require_like(key, np.asarray(row), shape[1:], dtype)
            yield np.asarray(row).astype(dtype, copy=False).tobytes()
        if count != (shape[0] if shape else 1):
            raise self._error(f"{key!r} is {dtype.name} {shape}, cannot take {count} rows in its place")

    def _require_like(self, key: str, new: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        if new.shape != shape or new.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise self._error(f"{key!r} is {dtype.name} {shape}, cannot take {new.dtype.name} {new.shape} in its place")

    def _start(self, key: str) -> bytes:
        return next(self._chunks(key, MAX_HEADER), b"")

    def _chunks(self, key: str, size: int = _CHUNK) -> Iterator[bytes]:
        """The bytes of a member, piece by piece; its checksum is compared at the end."""
        with zipfile.ZipFile(self.path) as archive, self._translated(key), archive.open(self._member(key)) as file:
            while chunk := file.read(size):
                yield chunk

    def _mapped(self, key: str) -> Array | None:
        """The bytes of a member in a private temporary file; None if the disk has no room for it."""
        with suppress(OSError), TemporaryFile(prefix="monai_salm-") as file:
            for chunk in self._chunks(key):
                file.write(chunk)
            file.flush()
            return np.memmap(file, np.uint8, "r")
        return None

    def _member(self, key: str) -> zipfile.ZipInfo:
        if f"{key}.npy" not in self._members:
            raise self._error(f"no array {key!r}; it has {', '.join(self.keys)}")
        return self._members[f"{key}.npy"]

    def _check_member(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        if not name.endswith(".npy"):
            raise self._error(f"member {name!r} is no .npy array")
        if member.flag_bits & 1:
            raise self._error(f"member {name!r} is encrypted")
        if member.compress_type not in _METHODS:
            raise self._error(f"member {name!r} is compressed in a way NumPy does not use ({member.compress_type})")
        size = self.path.stat().st_size
        if member.compress_size > size or member.file_size > MAX_RATIO * member.compress_size + 1024:
            raise self._error(
                f"member {name!r} declares {member.file_size} bytes, more than the file of {size} can hold"
            )
        require_size(member.file_size, member.compress_size, self.path / name, image=False)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """What zipfile raises on damaged data becomes a ``FormatError`` that names file and array."""
        self._member(key)
        try:
            yield
        except FormatError:
            raise
        except (*_DAMAGED, zlib.error, EOFError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise self._error(f"{key!r} is damaged ({error}); get the file again") from error

    def _named(self, key: str) -> str:
        return f"{self.path}: {key!r}"

    def _error(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: {what}")


class Npz(ImageFormat):
    """``.npz`` archives that hold one array of any name. They are packed again, and the array's header stays.

    Archives of several arrays are data sets, not images (see the MedMNIST layout).
    """

    name = "npz"
    suffixes = (".npz",)

    def open(self, path: Path) -> VoxelsInPlace:
        archive = NpzArchive(path)
        key = _only_key(archive)
        require_claim(archive.size(key), path.stat().st_size, path)

        def parts(content: Content) -> dict[str, Content]:
            with io.BytesIO() as file:
                archive.pack(file, {key: view_numbers(content, str(path))})
                return {"": file.getvalue()}

        return replace(open_numbers(archive.raw(key), path), parts=parts, header=key.encode())


def _only_key(archive: NpzArchive) -> str:
    if len(archive.keys) != 1:
        raise FormatError(
            f"{archive.path} holds {len(archive.keys)} arrays ({', '.join(archive.keys[:5])}); an image file holds one. "
            "Store one image a file"
        )
    return archive.keys[0]
