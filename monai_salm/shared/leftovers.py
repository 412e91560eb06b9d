"""Folders that hold originals while a call works, and that stay behind when it is killed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_salm.shared.files import try_lock

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
