"""A disk without room is told in one sentence, and what others must not see only the owner can read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from monai_salm.shared.warn import warn

#: Errors of a disk, a quota or a limit on the size of files.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: File systems that cannot allocate: there zeros are written.
_CANNOT_ALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_CHUNK = 1 << 20


class DiskFullError(OSError):
    """There is no room for a file; the message names the file and says what to do."""

    def __str__(self) -> str:
        return str(self.strerror)

    @classmethod
    def of(cls, error: OSError, path: str | os.PathLike[str] | None = None, size: int | None = None) -> DiskFullError:
        """What an error of a write means for the user; ``path`` is the file if the error names none, ``size`` its bytes."""
        place = path or error.filename
        text = f"no room for {place}" if place else "a disk is full"
        if size is not None:
            text += f", which needs {size:,} bytes"
        free = None
        with suppress(OSError, TypeError):
            free = shutil.disk_usage(Path(os.fsdecode(place)).parent).free
        text += "" if free is None else f" ({free:,} are free)"
        why = "a limit on the size of files" if error.errno == errno.EFBIG else os.strerror(error.errno or errno.ENOSPC)
        return cls(error.errno, f"{text}: {why}. Make room and make the same call again", place and os.fsdecode(place))


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise DiskFullError for a full disk while ``path`` is written, which will have ``size`` bytes if that is known."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFullError):
            raise
        raise DiskFullError.of(error, path, size) from error


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file to write; only its owner can read it (0600), also where it was there."""
    return open(path, mode, opener=only_owner)


def only_owner(path: str, flags: int) -> int:
    """Open a file that only its owner can read; an ``opener`` of ``open``."""
    descriptor = os.open(path, flags, 0o600)
    if hasattr(os, "fchmod"):  # Windows has no such modes: a file is as private as its folder
        os.fchmod(descriptor, 0o600)
    return descriptor


def private_folder(path: Path, parents: bool = False) -> None:
    """Make a folder that only its owner can enter (0700), also where it was there."""
    path.mkdir(mode=0o700, parents=parents, exist_ok=True)
    path.chmod(0o700)


def make_private(path: Path) -> None:
    """Let only the owner read a file, or a folder and all that is in it (0600, 0700)."""
    if path.is_file():
        path.chmod(0o600)
        return
    for folder, _, files in os.walk(path):
        os.chmod(folder, 0o700)
        for name in files:
            os.chmod(Path(folder, name), 0o600)


def warn_if_others_can_read(store: Path) -> None:
    """Warn of a noise store that others than its owner can read; on Windows no modes tell."""
    with suppress(OSError):
        if os.name == "posix" and store.stat().st_mode & 0o044:
            warn(
                f"others can read the noise store {store}, which undoes the protection. Make it yours alone: chmod 600 {store}"
            )


def allocate(path: Path, size: int) -> None:
    """Give a file a size and all blocks on the disk, zero at first, so that memory mapped to it can be written.

    A file of another size is emptied first. DiskFullError if there is no room.
    """
    with writing(path, size), open_private(path, "r+b" if path.exists() else "w+b") as file:
        if path.stat().st_size != size:
            file.truncate(0)
        if size and not _allocated(file.fileno(), size):
            if os.fstat(file.fileno()).st_size != size:
                for start in range(0, size, _CHUNK):
                    file.write(bytes(min(_CHUNK, size - start)))
            file.flush()
            os.fsync(file.fileno())


def _allocated(descriptor: int, size: int) -> bool:
    """Whether the system has allocated all blocks of an open file; False where it cannot (macOS, some file systems)."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in _CANNOT_ALLOCATE:
            return False
        raise
    return True
