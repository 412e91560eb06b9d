"""One call's part in the making of a copy: the files of a folder or a single file, the staging folder, the report."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from monai_salm.formats.base import FormatError
from monai_salm.layouts import TRAIN, Layout, MedMNIST
from monai_salm.layouts.files import dead_link
from monai_salm.layouts.stored_images import StoredImage
from monai_salm.noise.noise import NoiseStoreError
from monai_salm.publishing.image_changes import LeftOutError, Protection, Removal
from monai_salm.publishing.manifest import PathLike
from monai_salm.publishing.other_files import OtherFiles
from monai_salm.publishing.preconditions import PublishError, in_the_way
from monai_salm.publishing.searching import in_threads
from monai_salm.publishing.signing import signature_path
from monai_salm.publishing.staging import Staging
from monai_salm.shared.arrays import Array
from monai_salm.shared.disk import FULL
from monai_salm.shared.files import atomic_file, copy_file
from monai_salm.shared.progress import Progress, ProgressCallback
from monai_salm.shared.settings import require_texts

# Errors of the disk that is written to: the file at hand is not at fault, and the next one would fail as well.
_FATAL = FULL | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}

#: Ends a copy: takes the staging folder and the images left out, to which it may add; returns warnings.
Finish: TypeAlias = Callable[[Staging, dict[str, str]], list[str]]


@dataclass(frozen=True, kw_only=True)
class PublishSettings:
    """The keywords of ``publish``, as it explains them.

    TypeError for one text as ``splits`` or ``copy``; ValueError for less than one thread, or an index that is no shard's.
    """

    splits: Sequence[str] = (TRAIN,)
    copy: Sequence[str] = ()
    overwrite: bool = False
    jobs: int = 1
    shard: tuple[int, int] = (0, 1)
    sign_key: PathLike | None = None
    dataset_version: str | None = None

    def __post_init__(self) -> None:
        require_texts(splits=self.splits, copy=self.copy)
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        index, count = self.shard
        if not 0 <= index < count:
            raise ValueError(f"the shard's index must be from 0 to one less than their number, got {index} of {count}")


@dataclass(frozen=True)
class PublishReport:
    """What ``publish`` or ``restore`` wrote.

    Args:
        output: the new folder or file.
        images: images that were changed.
        copied: files that were copied as they are.
        manifest: the public manifest; None for a restored copy.
        warnings: what the owner should look at.
        failed: images and files that could not be taken over, by name, with the reason; they are not in the copy.
        not_copied: files that no split lists and that are not known to be harmless, and folders (with a ``/`` at the end) that
            programs left, with the reasons; they are not in the copy.
        complete: False while other shards have work to do; the copy has its name only when all are done.
    """

    output: Path
    images: int
    copied: int
    manifest: Path | None
    warnings: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    not_copied: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything that this call had to do was done."""
        return not self.failed


@dataclass(frozen=True)
class CopyJob:
    """One call's part of the making of a copy of ``data`` at ``target``.

    ``splits`` are those whose images carry noise in one of the two; ``handled`` those whose images are changed, if they are not
    ``absent``. ``others`` are the files beside these images, some of which are ``replaced`` by other content.
    """

    stage: str
    data: Layout
    target: Path
    splits: Sequence[str]
    handled: Sequence[str]
    change: Protection | Removal
    settings: PublishSettings
    report: ProgressCallback
    others: OtherFiles
    replaced: Mapping[str, bytes] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """The images that carry noise."""
        return [name for name in self.data.names(self.splits) if name not in self.absent]

    def identity(self, **asked: Any) -> dict[str, Any]:
        """The identity of the job: all that was asked for, and the sizes and times of the data set's files."""
        digest = hashlib.sha256(str(self.data.root.resolve()).encode("utf-8", "surrogatepass"))
        for file in self.data.all_files():
            path = self.data.path_of(file)
            found = os.stat(path, follow_symlinks=path.exists())
            digest.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogatepass"))
        return {**asked, "verb": self.stage, "splits": list(self.splits), "data": digest.hexdigest()}

    def run(self, identity: dict[str, Any], finish: Finish, warnings: list[str]) -> PublishReport:
        """Do the work and, if all is done, ``finish`` the copy and give it its name."""
        shard, single = self.settings.shard, self.data.single_file
        with Staging.hold(self.target, identity, shard) as staging, _discarded_if_wrong(staging, shard):
            failed = self._copy_single_file(single, staging) if single else _FolderCopy(self, staging).run()
            if failed is None:
                return self.outcome({}, warnings, complete=False)
            with staging.finishing() as mine:
                if mine:
                    if in_the_way(self.target) and not self.settings.overwrite:  # since the call began
                        raise FileExistsError(f"{self.target} exists; another process has written it meanwhile")
                    self._refuse_empty(failed)
                    staging.sweep()
                    warnings = [*warnings, *finish(staging, failed)]
                    manifest = self.data.manifest_path(self.target)
                    staging.move_into_place([manifest.name, signature_path(manifest).name] if single else [])
        return self.outcome(failed, warnings, complete=mine)

    def outcome(self, failed: Mapping[str, str], warnings: list[str], complete: bool) -> PublishReport:
        """The report of a call."""
        changed = [name for name in self.names() if name not in failed]
        copied = set(self.others.copied) - set(self.data.image_files(self.splits)) - set(failed)
        place = self.data.manifest_path(self.target) if self.stage == "publish" and complete else None
        counts, left_out = (len(changed), len(copied)), dict(self.others.left_out)
        return PublishReport(self.target, *counts, place, warnings, dict(failed), complete, left_out)

    def _refuse_empty(self, failed: Mapping[str, str]) -> None:
        if failed and set(failed) >= set(self.names()):
            name, reason = next(iter(failed.items()))
            raise PublishError(f"nothing was written, for no image could be. {name}: {reason}")

    def _copy_single_file(self, data: MedMNIST, staging: Staging) -> dict[str, str] | None:
        if self.settings.shard[0]:  # one file is not worth sharing out
            return {} if staging.holds([""]) else None
        total, done = sum(len(data.dataset(split)) for split in self.handled), 0

        def counted(name: str, image: Array) -> Array:
            nonlocal done
            edited = self.change.edit(name, image)
            done += 1
            self.report(Progress(self.stage, done, total, name))
            return edited

        if not staging.copy.exists():
            try:
                data.rewrite(staging.copy, counted, self.handled)
            except LeftOutError as error:  # an archive has no file to leave out
                what = (
                    "An archive has no file to leave out: take the image and its label out of it, and protect it again"
                )
                raise PublishError(f"nothing was written: {error}. {what}") from error
        return {}


@dataclass(frozen=True)
class _FolderCopy:
    """The copy of a data set in many files: images through ``CopyJob.change``, everything else byte for byte, in threads."""

    work: CopyJob
    staging: Staging

    def run(self) -> dict[str, str] | None:
        """Do this shard's share of what is not there yet.

        Returns:
            Why images (or other files) are not in the copy, by name; None while some are still to be done.

        Raises:
            OSError: if the disk is full or cannot be written; what is there stays for the next call.
        """
        work = self.work
        for folder in work.others.folders:
            (self.staging.copy / folder).mkdir(parents=True, exist_ok=True)
        mine = self._items[work.settings.shard[0] :: work.settings.shard[1]]
        for item in mine:
            self.staging.fail(_name(item), None)
        waiting = [item for item in mine if not self._is_done(item)]
        done = len(mine) - len(waiting)
        try:
            for item in in_threads(self._do, waiting, work.settings.jobs):
                done += 1
                work.report(Progress(work.stage, done, len(mine), _name(item)))
        except BaseException:  # what is finished stays finished when another image stops the call
            with suppress(OSError, ValueError, NoiseStoreError):
                work.change.flush()
            raise
        work.change.flush()
        return self._failures()

    def _failures(self) -> dict[str, str] | None:
        found = {}
        for item in self._items:
            if not self.staging.holds(self._files[item]):
                reason = self.staging.failure(_name(item))
                if reason is None:
                    return None
                found[_name(item)] = reason
        for item in self._items:
            if _name(item) in found:  # an image of several files may have left some
                for file in self._files[item]:
                    (self.staging.copy / file).unlink(missing_ok=True)
        return found

    @cached_property
    def _items(self) -> list[StoredImage | str]:
        """The images that are handled, and the other files."""
        handled = self.work.data.stored_images(self.work.handled)
        images = [stored for stored in handled if stored.name not in self.work.absent]
        files = {file for stored in images for file in stored.files}
        return [*images, *(file for file in self.work.others.copied if file not in files)]

    @cached_property
    def _files(self) -> dict[StoredImage | str, tuple[str, ...]]:
        """The files of each in the copy."""
        change, root = self.work.change, self.work.data.root
        return {item: (item,) if isinstance(item, str) else change.files(item, root) for item in self._items}

    def _is_done(self, item: StoredImage | str) -> bool:
        if not self.staging.holds(self._files[item]):
            return False
        return isinstance(item, str) or self.work.change.finished(item, self.work.data.root, self.staging.copy)

    def _do(self, item: StoredImage | str) -> StoredImage | str:
        try:
            if isinstance(item, str):
                self._copy(item)
            else:
                self.work.change.write(item, self.work.data.root, self.staging.copy)
        except (LeftOutError, FormatError) as error:
            self.staging.fail(_name(item), str(error))
        except OSError as error:
            # An error of reading itself names no file.
            own = error.filename and Path(os.fsdecode(error.filename)).is_relative_to(self.staging.folder)
            if error.errno in _FATAL or own:
                raise
            self.staging.fail(_name(item), str(error))
        return item

    def _copy(self, file: str) -> None:
        content, source = self.work.replaced.get(file), self.work.data.root / file
        if (reason := dead_link(source)) is not None:
            raise LeftOutError(reason)
        if content is None:
            copy_file(source, self.staging.copy / file)
            return
        with atomic_file(self.staging.copy / file) as target:
            target.write(content)


def _name(item: StoredImage | str) -> str:
    return item if isinstance(item, str) else item.name


@contextmanager
def _discarded_if_wrong(staging: Staging, shard: tuple[int, int]) -> Iterator[None]:
    """An interrupted copy waits for the next call; one that can never become right does not."""
    try:
        yield
    except ValueError:
        if shard[1] == 1 and staging.folder.is_dir():
            staging.remove()
        raise
