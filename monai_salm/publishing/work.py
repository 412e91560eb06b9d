"""One call's part in the making of a copy, of whatever kind: the files, the staging folder, the report."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from monai_salm.layouts import ArchiveLayout, FolderLayout, Layout
from monai_salm.layouts.units import ImageUnit
from monai_salm.publishing.changes import Protection, Removal
from monai_salm.publishing.checks import PublishError, in_the_way
from monai_salm.publishing.companions import Companions
from monai_salm.publishing.folders import FolderCopy, LeftOutError
from monai_salm.publishing.manifest import file_path, manifest_path, signature_path
from monai_salm.publishing.staging import Staging
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress, ProgressCallback


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


#: What ends a copy: given the staging folder and what was left out, to which it may add, returns warnings.
Finish: TypeAlias = Callable[[Staging, dict[str, str]], list[str]]


@dataclass(frozen=True)
class Work:
    """One call's part of the making of a copy.

    Args:
        data: the data set that is copied.
        target: where the copy goes.
        splits: whose images carry noise in one of the two.
        handled: whose images are looked at, ``splits`` among them.
        stage: for the progress.
        jobs: threads.
        shard: index and number of the calls that share the work.
        overwrite: an earlier copy may be replaced.
        report: called with the progress.
        absent: images that are not there, and need not be.
        others: the files beside the images that are handled.
    """

    data: Layout
    target: Path
    splits: Sequence[str]
    handled: Sequence[str]
    stage: str
    jobs: int
    shard: tuple[int, int]
    overwrite: bool
    report: ProgressCallback
    absent: frozenset[str] = frozenset()
    others: Companions = field(default_factory=Companions)

    def names(self) -> list[str]:
        """The images that carry noise."""
        if isinstance(self.data, FolderLayout):
            return [unit.name for unit in self.data.units(self.splits) if unit.name not in self.absent]
        return [name for split in self.splits for name in self.data.dataset(split).names]

    def image_files(self, failed: Mapping[str, str]) -> tuple[str, ...]:
        """The files of these images that are in the copy."""
        if not isinstance(self.data, FolderLayout):
            return (self.target.name,)  # an archive is known by the name it has in its place
        units = self.data.units(self.splits)
        return tuple(dict.fromkeys(file for unit in units if unit.name not in failed for file in unit.published))

    def identity(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What tells this job from any other."""
        return {**job, "splits": list(self.splits), "data": _fingerprint(self.data)}

    def run(
        self,
        identity: dict[str, Any],
        change: Protection | Removal,
        replaced: Mapping[str, bytes],
        finish: Finish,
        warnings: list[str],
    ) -> PublishReport:
        """Do the work and, if all is done, give the copy its name.

        Args:
            identity: of the job.
            change: what happens to images.
            replaced: files with other content in the copy.
            finish: called when all files are there.
            warnings: for the report.
        """
        with Staging.hold(self.target, identity, self.shard) as staging, _discarded_if_wrong(staging, self.shard):
            if isinstance(self.data, FolderLayout):
                failed = self._copy_folder(self.data, staging, change, replaced)
            else:
                failed = self._copy_archive(self.data, staging, change)
            if failed is None:
                return self.outcome({}, warnings, complete=False)
            with staging.finishing() as mine:
                if mine:
                    if in_the_way(self.target) and not self.overwrite:  # since the call began
                        raise FileExistsError(f"{self.target} exists; another process has written it meanwhile")
                    self._refuse_empty(failed)
                    staging.sweep()
                    warnings = [*warnings, *finish(staging, failed)]
                    manifest = manifest_path(self.data, self.target)
                    alone = not isinstance(self.data, FolderLayout)
                    staging.move_into_place([manifest.name, signature_path(manifest).name] if alone else [])
        return self.outcome(failed, warnings, complete=mine)

    def outcome(self, failed: Mapping[str, str], warnings: list[str], complete: bool) -> PublishReport:
        """The report of a call."""
        changed = [name for name in self.names() if name not in failed]
        handled = set(self.data.image_files(self.splits)) if isinstance(self.data, FolderLayout) else set()
        kept = set(self.others.copied) - handled - set(failed)
        place = manifest_path(self.data, self.target) if self.stage == "publish" and complete else None
        report = PublishReport(self.target, len(changed), len(kept), place, warnings, dict(failed), complete)
        return replace(report, not_copied=dict(self.others.left_out))

    def _refuse_empty(self, failed: Mapping[str, str]) -> None:
        if isinstance(self.data, FolderLayout) and set(failed) >= set(self.names()):
            name, reason = next(iter(failed.items()))
            raise PublishError(f"nothing was written, for no image could be. {name}: {reason}")

    def _copy_folder(
        self,
        data: FolderLayout,
        staging: Staging,
        change: Protection | Removal,
        replaced: Mapping[str, bytes],
    ) -> dict[str, str] | None:
        def write(unit: ImageUnit) -> None:
            change.write(unit, data.root, staging.copy)

        def finished(unit: ImageUnit) -> bool:
            return change.finished(unit, data.root, staging.copy)

        @cache
        def names(unit: ImageUnit) -> tuple[str, ...]:
            return change.files(unit, data.root)

        units = [unit for unit in data.units(self.handled) if unit.name not in self.absent]
        work = (self.stage, self.report, self.jobs, self.shard)
        copy = FolderCopy(data, staging, units, write, names, finished, self.others, replaced, *work)
        copy.run()
        failed = copy.failures()
        if failed:
            copy.remove_incomplete(failed)
        return failed

    def _copy_archive(self, data: Layout, staging: Staging, change: Protection | Removal) -> dict[str, str] | None:
        assert isinstance(data, ArchiveLayout)
        if self.shard[0]:  # one file is not worth sharing out
            return {} if staging.holds([""]) else None
        total, done = sum(len(data.dataset(split)) for split in self.handled), 0

        def counted(name: str, image: Array) -> Array:
            nonlocal done
            edited = change.edit(name, image)
            done += 1
            self.report(Progress(self.stage, done, total, name))
            return edited

        if not staging.copy.exists():
            try:
                data.rewrite(staging.copy, counted, self.handled)
            except LeftOutError as error:  # an archive has no file to leave out
                raise PublishError(f"nothing was written: {error}") from error
        return {}


@contextmanager
def _discarded_if_wrong(staging: Staging, shard: tuple[int, int]) -> Iterator[None]:
    """An interrupted copy waits for the next call; one that can never become right does not."""
    try:
        yield
    except ValueError:
        if shard[1] == 1 and staging.folder.is_dir():
            staging.remove()
        raise


def _fingerprint(data: Layout) -> str:
    """Tells whether a data set is as it was when an interrupted call read it, by sizes and times of its files."""
    digest = hashlib.sha256(str(data.root.resolve()).encode("utf-8", "surrogatepass"))
    for file in data.all_files():
        found = os.stat(file_path(data, file), follow_symlinks=file_path(data, file).exists())
        digest.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
