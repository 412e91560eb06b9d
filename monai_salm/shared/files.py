"""Files that are whole or not there, and paths that stay where they belong."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from monai_salm.shared.disk import only_owner, writing

_CHUNK = 1 << 20
_LONG_NAME = 200
_LOCK_ATTEMPTS = 100


def work_beside(store: Path) -> Path:
    """The folder in which the noise of a store grows until it is whole."""
    return store.with_name(f"{store.name}.work")


def partial_beside(target: Path) -> Path:
    """The hidden folder in which a copy grows until it is whole."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def atomic_file(path: Path, *, size: int | None = None, private: bool = False) -> Iterator[BinaryIO]:
    """Write a file that appears under its name, in place of any other, only when the block has ended well.

    Args:
        size: bytes that it will have, if that is known; for the message of a full disk.
        private: only the owner can read it.
    """
    temporary = path.with_name(temporary_name(path.name))
    with writing(path, size):
        try:
            with open(temporary, "xb", opener=only_owner if private else None) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    content = text.encode()
    with atomic_file(Path(path), size=len(content)) as file:
        file.write(content)


def temporary_name(name: str) -> str:
    """A hidden name beside a file's own, cut to the 255 bytes that file systems allow."""
    kept = name if len(os.fsencode(name)) <= _LONG_NAME else name[: _LONG_NAME // 4]  # four bytes a character at most
    return f".{kept}.{uuid.uuid4().hex[:8]}.partial"


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock a file for as long as the returned descriptor is open; the lock goes with the process, however it ends.

    The file is made if it is not there; others may hold a ``shared`` lock in the same way. None if another process holds the lock:
    never on systems without advisory locks (Windows).
    """
    for _ in range(_LOCK_ATTEMPTS):
        descriptor = _locked(path, shared)
        if descriptor is None or _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # the file was removed, so a lock on it protects nothing
    return _locked(path, shared)  # a file system that never tells the same of both is believed in the end


def _locked(path: Path, shared: bool) -> int | None:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        import fcntl
    except ImportError:
        return descriptor
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def sync_folder(path: Path) -> None:
    """Make renames inside a folder survive a power cut, where the system allows it."""
    if os.name == "posix":
        sync(path)


def sync(path: Path) -> None:
    """Make a file, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with writing(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file, whole or not at all."""
    with open(source, "rb") as reader, atomic_file(target, size=os.fstat(reader.fileno()).st_size) as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def same_bytes(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes."""
    return filecmp.cmp(first, second, shallow=False)


def inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


_TEMPORARY = "monai_salm-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's place for such, only its owner's, locked while it is used and removed when the block ends."""
    # On Windows, files that are mapped cannot be deleted: the folder may stay.
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, ignore_cleanup_errors=True) as name:
        held = try_lock(Path(name) / "lock")
        try:
            yield Path(name)
        finally:
            if held is not None:
                os.close(held)


def leftover_warnings(places: Iterable[Path]) -> list[str]:
    """A line for each folder with originals in it that a killed call has left, and that is not in use.

    What lies beside the ``places`` (stores and copies) is looked at, and the system's place for temporary folders.
    """
    found = []
    for parent in sorted({place.absolute().parent for place in places}):
        for pattern in ("*.work", "*.work.rank*", ".*.partial"):
            ending = "the same call goes on from there and removes it; if you will not make it again, delete the folder"
            found += [(folder, ending) for folder in _left(parent, pattern)]
    found += [(folder, "delete the folder") for folder in _left(Path(tempfile.gettempdir()), f"{_TEMPORARY}*")]
    return [f"{folder} holds originals and was left by a call that was interrupted: {what}" for folder, what in found]


def _left(parent: Path, pattern: str) -> list[Path]:
    found = []
    for folder in sorted(parent.glob(pattern)):
        with suppress(OSError, ValueError):  # another user's file, or a removed one
            if _holds_originals(folder) and not _in_use(folder):
                found.append(folder)
    return found


def _holds_originals(folder: Path) -> bool:
    """Whether a folder is one of ours with originals in it; an unfinished protected copy has none that stay private."""
    job = folder / "job.json"
    if job.is_file():
        return bool(json.loads(job.read_text("utf-8"))["verb"] == "restore")
    return (folder / "lock").is_file()


def _in_use(folder: Path) -> bool:
    """Whether a process holds one of the locks that one process alone can have."""
    alone = list(folder.glob("shard-*.lock")) if (folder / "job.json").exists() else [folder / "lock"]
    return any(_is_held(lock) for lock in alone)


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock; a lock that is gone belongs to a folder that its process is removing now."""
    try:
        descriptor = os.open(lock, os.O_RDWR)  # never made: the folder could not be removed then
    except FileNotFoundError:
        return True
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except ImportError:  # Windows has no such locks
        return False
    finally:
        os.close(descriptor)
    return False
