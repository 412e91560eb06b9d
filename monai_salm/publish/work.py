"""One call's part in the making of a copy, of whatever kind: the files, the staging folder, the report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_salm.formats.base import Array
from monai_salm.layouts import ArchiveLayout, FolderLayout, Layout
from monai_salm.layouts.units import ImageUnit
from monai_salm.progress import Progress, ProgressCallback
from monai_salm.publish.changes import Protection, Removal
from monai_salm.publish.checks import PublishError
from monai_salm.publish.folders import FolderCopy
from monai_salm.publish.manifest import file_path, manifest_path, signature_path
from monai_salm.publish.staging import Staging
from monai_salm.store_records import keep


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
        complete: False while other shards have work to do; the copy has its name only when all are done.
    """

    output: Path
    images: int
    copied: int
    manifest: Path | None
    warnings: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether everything that this call had to do was done."""
        return not self.failed


@dataclass(frozen=True)
class Work:
    """One call's part of the making of a copy."""

    data: Layout
    target: Path
    splits: Sequence[str]
    stage: str
    jobs: int
    shard: tuple[int, int]
    report: ProgressCallback

    def units(self) -> tuple[ImageUnit, ...]:
        return self.data.units(self.splits) if isinstance(self.data, FolderLayout) else ()

    def image_files(self) -> tuple[str, ...]:
        # The file of an archive is known by the name it has in its place.
        return self.data.image_files(self.splits) if isinstance(self.data, FolderLayout) else (self.target.name,)

    def run(
        self,
        job: dict[str, Any],
        change: Protection | Removal,
        replaced: dict[str, bytes | None],
        finish: Callable[[Staging, Mapping[str, str]], None] | None,
        warnings: list[str],
    ) -> PublishReport:
        """Do the work and, if all is done, give the copy its name."""
        identity = {**job, "splits": list(self.splits), "data": _fingerprint(self.data)}
        with Staging.hold(self.target, identity, self.shard) as staging, _discarded_if_wrong(staging, self.shard):
            if isinstance(self.data, FolderLayout):
                originals = {
                    f"file:{file}": (self.data.root / file).read_bytes() for file, new in replaced.items() if new
                }
                if isinstance(change, Protection):
                    keep(change.store, originals)
                failed = self._copy_folder(self.data, staging, change, replaced)
            else:
                failed = self._copy_archive(self.data, staging, change)
            if failed is None:
                return self._report(None, {}, warnings)
            with staging.finishing() as mine:
                if mine:
                    if isinstance(self.data, FolderLayout) and set(failed) >= {unit.name for unit in self.units()}:
                        name, reason = next(iter(failed.items()))
                        raise PublishError(f"nothing was written: no image could be read. {name}: {reason}")
                    staging.sweep()
                    self._remove_manifest_folder(staging)
                    if finish is not None:
                        finish(staging, failed)
                    manifest = manifest_path(self.data, self.target)
                    beside = (
                        [] if isinstance(self.data, FolderLayout) else [manifest.name, signature_path(manifest).name]
                    )
                    staging.move_into_place(beside)
        return self._report(failed if mine else None, failed, warnings, finish is not None)

    def _remove_manifest_folder(self, staging: Staging) -> None:
        """A folder that was made for the manifest alone goes with it."""
        if self.stage == "restore" and isinstance(self.data, FolderLayout):
            folder = (staging.copy / self.data.manifest).parent
            if folder != staging.copy and not any(folder.iterdir()):
                folder.rmdir()

    def _copy_folder(
        self,
        data: FolderLayout,
        staging: Staging,
        change: Protection | Removal,
        replaced: dict[str, bytes | None],
    ) -> dict[str, str] | None:
        def write(unit: ImageUnit) -> None:
            change.write(unit, data.root, staging.copy)

        copy = FolderCopy(data, staging, self.units(), write, replaced, self.stage, self.report, self.jobs, self.shard)
        copy.run()
        failed = copy.failures()
        if failed:
            copy.remove_incomplete(failed)
        return failed

    def _copy_archive(self, data: Layout, staging: Staging, change: Protection | Removal) -> dict[str, str] | None:
        assert isinstance(data, ArchiveLayout)
        if self.shard[0]:  # one file is not worth sharing out
            return {} if staging.holds([""]) else None
        total, done = sum(len(data.dataset(split)) for split in self.splits), 0

        def counted(name: str, image: Array) -> Array:
            nonlocal done
            edited = change.edit(name, image)
            done += 1
            self.report(Progress(self.stage, done, total, name))
            return edited

        if not staging.copy.exists():
            data.rewrite(staging.copy, counted, self.splits)
        return {}

    def _report(
        self, result: Mapping[str, str] | None, failed: Mapping[str, str], warnings: list[str], manifest: bool = False
    ) -> PublishReport:
        changed = (
            self.units()
            if isinstance(self.data, FolderLayout)
            else [name for split in self.splits for name in self.data.dataset(split).names]
        )
        images = len([unit for unit in changed if not isinstance(unit, ImageUnit) or unit.name not in failed])
        others = set(self.data.all_files()) - set(self.data.image_files(self.splits)) - set(failed)
        own = {self.data.manifest} if isinstance(self.data, FolderLayout) else set()
        place = manifest_path(self.data, self.target) if manifest else None
        return PublishReport(self.target, images, len(others - own), place, warnings, dict(failed), result is not None)


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
        found = file_path(data, file).stat()
        digest.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
