"""Where a copy grows until it is whole: a hidden folder beside it, which a later call, or another shard, goes on with.

``.<name>.partial/`` holds ``copy/`` (every file in it is whole), ``job.json`` (what is being made), ``failed/`` (a file for
each image that cannot be published) and locks. Nothing else is ever written beside the output.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_salm.shared.disk import DiskFullError, private_folder
from monai_salm.shared.files import atomic_file, partial_beside, sync_folder, try_lock

_OWN = re.compile(
    r"copy|failed|job\.json|lock|finish\.lock|shard-\d+-of-\d+\.lock|replaced\..+|\.job\.json\.[0-9a-f]{8}\.partial"
)
_LOCK = re.compile(r"lock|finish\.lock|shard-\d+-of-\d+\.lock")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
_BEGUN = re.compile(f"{_LOCK.pattern}|{_TEMPORARY.pattern}")


class StagingBusyError(RuntimeError):
    """Another process is making the same copy."""


class Staging:
    """The growing copy of one job, which will stand at ``target``; use ``Staging.hold``."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = partial_beside(target)
        self.copy = self.folder / "copy" / target.name
        self._failed = self.folder / "failed"

    @classmethod
    @contextmanager
    def hold(cls, target: Path, job: dict[str, Any], shard: tuple[int, int] = (0, 1)) -> Iterator[Staging]:
        """Go on with an interrupted copy of the same job (plain JSON values), or start one; what another job left is discarded.

        Raises:
            StagingBusyError: if another process makes this shard, or a copy of another job, right now.
        """
        staging = cls(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        held: list[int] = []
        try:
            for last in (False, False, True):
                try:
                    staging._begin(job, shard, held)
                    break
                except (FileNotFoundError, FileExistsError) as error:  # another process has just removed the folder
                    while held:
                        os.close(held.pop())
                    if last:
                        raise staging._busy("copies") from error
            yield staging
        finally:
            begun = bool(held)
            for descriptor in held:
                os.close(descriptor)
            if begun:
                staging._remove_if_empty()

    def _begin(self, job: dict[str, Any], shard: tuple[int, int], held: list[int]) -> None:
        self.require_own()
        private_folder(self.folder)
        text, place = json.dumps(job, sort_keys=True), self.folder / "job.json"
        other = "a copy of other data or with other noise"

        def is_ours() -> bool:
            return place.is_file() and place.read_text("utf-8") == text

        if not is_ours():
            alone = self._lock("lock", False, other)
            try:
                if not is_ours():  # another shard may have begun in the meantime
                    self._empty(all_but_lock=True)
                    with atomic_file(place, private=True) as file:
                        file.write(text.encode())
            finally:
                os.close(alone)
        held.append(self._lock("lock", True, other))
        if not is_ours():
            raise self._busy(other)
        held.append(self._lock(f"shard-{shard[0]}-of-{shard[1]}.lock", False, "this copy"))
        self.copy.parent.mkdir(exist_ok=True)
        self._failed.mkdir(exist_ok=True)

    def date(self) -> str:
        """The day on which the copy was begun (UTC, ISO 8601), so that an interrupted call ends in the same bytes."""
        began = datetime.fromtimestamp((self.folder / "job.json").stat().st_mtime, timezone.utc)
        return began.date().isoformat()

    def require_own(self) -> None:
        """Refuse a folder that is not ours, of any name: only our own is emptied."""
        folder = self.folder
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{folder} is in the way: it is no folder of monai_salm's. Move it away")
        # In this order: another process may be removing the folder right now, the job's file after all but the locks.
        known = (folder / "job.json").is_file()
        names = [path.name for path in folder.iterdir()]
        known = known or "job.json" in names or all(map(_BEGUN.fullmatch, names))
        foreign = [name for name in names if not _OWN.fullmatch(name)]
        if foreign or not known or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
            raise ValueError(f"{folder} is in the way: it is no interrupted copy of yours. Move it away")

    def remove_finished(self) -> None:
        """Remove what a call has left that was killed after the copy got its name."""
        if not self.target.exists() or self.copy.exists() or not self.folder.exists():
            return
        with suppress(FileNotFoundError):  # another process was first
            self.require_own()
            self._remove_alone()

    def _remove_alone(self) -> None:
        """Remove the staging folder unless another process works in it."""
        alone = try_lock(self.folder / "lock")
        if alone is not None:
            try:
                self.remove()
            finally:
                os.close(alone)

    def _lock(self, name: str, shared: bool, what: str) -> int:
        descriptor = try_lock(self.folder / name, shared=shared)
        if descriptor is None:
            raise self._busy(what)
        return descriptor

    def _busy(self, what: str) -> StagingBusyError:
        return StagingBusyError(f"another process is making {what} at {self.target}; wait or give another output")

    def _settle_replaced(self) -> None:
        """Put an earlier copy back if its place is free; delete it otherwise."""
        replaced = self.folder / f"replaced.{self.target.name}"
        if not replaced.exists():
            return
        if not self.target.exists():
            os.rename(replaced, self.target)
        elif replaced.is_dir():
            shutil.rmtree(replaced)
        else:
            replaced.unlink()

    def holds(self, files: Iterable[str]) -> bool:
        """Whether all of some files of the copy are there, whole."""
        return all((self.copy / file).is_file() for file in files)

    def failure(self, name: str) -> str | None:
        """Why an image cannot be published, if an earlier call or another shard found so."""
        path = self._failure_path(name)
        return str(json.loads(path.read_text("utf-8"))["reason"]) if path.is_file() else None

    def fail(self, name: str, reason: str | None) -> None:
        """Write down that an image cannot be published; None takes it back, so that it is tried again."""
        path = self._failure_path(name)
        if reason is None:
            path.unlink(missing_ok=True)
            return
        with atomic_file(path, private=True) as file:
            file.write(json.dumps({"name": name, "reason": reason}).encode())

    def _failure_path(self, name: str) -> Path:
        return self._failed / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @contextmanager
    def finishing(self) -> Iterator[bool]:
        """Whether this process is the one that puts the copy in its place; others need not wait."""
        try:
            descriptor = try_lock(self.folder / "finish.lock")
        except FileNotFoundError:  # another process has finished, and removed the folder
            descriptor = None
        try:
            yield descriptor is not None and self.copy.exists()
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def sweep(self) -> None:
        """Remove what writers left that were killed half-way through a file."""
        for folder, _, files in os.walk(self.copy.parent):
            for name in files:
                if _TEMPORARY.fullmatch(name):
                    Path(folder, name).unlink()

    def move_into_place(self, beside: Sequence[str] = ()) -> None:
        """Give the whole copy its name, replacing an earlier one, and remove the staging folder.

        ``beside`` names the files that belong beside the copy of a single file; old ones of these names go.
        """
        if self.target.exists():
            self._settle_replaced()
            os.rename(self.target, self.folder / f"replaced.{self.target.name}")
        for name in beside:
            # The old manifest would not fit the new file. The new one first: should this be cut short, what stands
            # under the name is always known to be ours.
            self.target.with_name(name).unlink(missing_ok=True)
            if (self.copy.parent / name).exists():
                os.rename(self.copy.parent / name, self.target.with_name(name))
        os.rename(self.copy, self.target)
        with suppress(DiskFullError):  # the copy is whole and has its name; the same call would find it in the way
            sync_folder(self.target.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the staging folder and all that is in it, but never an earlier copy that has no other place.

        What tells that the folder is ours goes last: another process that looks at it meanwhile, or finds what a killed
        one left of it, knows it for ours. If another process begins in it, it stays, and is that one's.
        """
        self._empty()
        with suppress(OSError):
            self.folder.rmdir()

    def _empty(self, all_but_lock: bool = False) -> None:
        self._settle_replaced()
        for path in sorted(self.folder.iterdir(), key=_removal_order):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not (all_but_lock and path.name == "lock"):
                path.unlink(missing_ok=True)

    def _remove_if_empty(self) -> None:
        """Leave nothing behind of a job that has written nothing."""
        if self.folder.is_dir() and not self.copy.exists() and not any(self._failed.glob("*")):
            with suppress(FileNotFoundError):  # another process was first
                self._remove_alone()


def _removal_order(path: Path) -> tuple[bool, bool, bool]:
    """Other files first, then the job's file, then the locks. The lock that every process needs comes last."""
    name = path.name
    return (name == "lock", _LOCK.fullmatch(name) is not None, name == "job.json")
