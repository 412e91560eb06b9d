"""The copy of a data set in many files: images through a hook, everything else byte for byte, by several threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from monai_salm.formats.base import FormatError
from monai_salm.layouts import FolderLayout
from monai_salm.layouts.files import dead_link
from monai_salm.layouts.units import ImageUnit
from monai_salm.publishing.companions import Companions
from monai_salm.publishing.staging import Staging
from monai_salm.shared.files import atomic_file, copy_file
from monai_salm.shared.progress import Progress, ProgressCallback

T = TypeVar("T")
R = TypeVar("R")
# Of the disk that is written to: what is wrong is not the file at hand, and the next one would fail as well.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class LeftOutError(ValueError):
    """One image that cannot be part of the copy; the others can."""


@dataclass(frozen=True)
class FolderCopy:
    """A copy of a folder data set in a staging folder.

    Args:
        data: the data set.
        staging: where the copy grows.
        units: the images that ``write`` handles.
        write: writes one image's files into ``staging.copy``; raises LeftOutError or FormatError for one that cannot be.
        names: the files of an image in the copy.
        finished: whether an image whose files are there needs nothing else; asked of what an earlier call has written.
        others: what else is copied, see ``companions``.
        replaced: files with other content in the copy.
        stage: for the progress.
        report: called with the progress.
        jobs: threads.
        shard: index and number of the shards; this call does its share of the files.
    """

    data: FolderLayout
    staging: Staging
    units: Sequence[ImageUnit]
    write: Callable[[ImageUnit], None]
    names: Callable[[ImageUnit], tuple[str, ...]]
    finished: Callable[[ImageUnit], bool]
    others: Companions
    replaced: Mapping[str, bytes]
    stage: str
    report: ProgressCallback
    jobs: int = 1
    shard: tuple[int, int] = (0, 1)

    def run(self) -> None:
        """Do this shard's share of what is not there yet.

        Raises:
            OSError: if the disk is full or cannot be written; what is there stays for the next call.
        """
        for folder in self.others.folders:
            (self.staging.copy / folder).mkdir(parents=True, exist_ok=True)
        mine = self._items()[self.shard[0] :: self.shard[1]]
        for item in mine:
            self.staging.fail(_name(item), None)
        waiting = [item for item in mine if not self._done(item)]
        done = len(mine) - len(waiting)
        for item in in_threads(self._do, waiting, self.jobs):
            done += 1
            self.report(Progress(self.stage, done, len(mine), _name(item)))

    def _done(self, item: ImageUnit | str) -> bool:
        if not self.staging.holds(self._files(item)):
            return False
        return isinstance(item, str) or self.finished(item)

    def failures(self) -> dict[str, str] | None:
        """Why images (or other files) are not in the copy, by name; None while some are still to be done."""
        found = {}
        for item in self._items():
            if not self.staging.holds(self._files(item)):
                reason = self.staging.failure(_name(item))
                if reason is None:
                    return None
                found[_name(item)] = reason
        return found

    def remove_incomplete(self, failures: Mapping[str, str]) -> None:
        """Remove what an image of several files left when one of them failed."""
        for item in self._items():
            if _name(item) in failures:
                for file in self._files(item):
                    (self.staging.copy / file).unlink(missing_ok=True)

    def _items(self) -> list[ImageUnit | str]:
        images = {file for unit in self.units for file in unit.files}
        return [*self.units, *(file for file in self.others.copied if file not in images)]

    def _do(self, item: ImageUnit | str) -> ImageUnit | str:
        try:
            if isinstance(item, str):
                self._copy(item)
            else:
                self.write(item)
        except (LeftOutError, FormatError) as error:
            self.staging.fail(_name(item), str(error))
        except OSError as error:
            if not self._of_source(error):
                raise
            self.staging.fail(_name(item), str(error))
        return item

    def _copy(self, file: str) -> None:
        content = self.replaced.get(file)
        if (reason := dead_link(self.data.root / file)) is not None:
            raise LeftOutError(reason)
        if content is None:
            copy_file(self.data.root / file, self.staging.copy / file)
            return
        with atomic_file(self.staging.copy / file) as target:
            target.write(content)

    def _of_source(self, error: OSError) -> bool:
        """Whether it is a file of the data set that cannot be read."""
        if error.errno in _FATAL:
            return False
        # An error of reading itself names no file.
        return not error.filename or not Path(os.fsdecode(error.filename)).is_relative_to(self.staging.folder)

    def _files(self, item: ImageUnit | str) -> tuple[str, ...]:
        return (item,) if isinstance(item, str) else self.names(item)


def in_threads(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R]:
    """The results of some work, in the order of the items, done by several threads; the first error stops it.

    Reading, packing and adding release Python's lock, so that threads share the cores without copies of the noise.

    Args:
        work: called with every item.
        items: what to do.
        jobs: threads.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _name(item: ImageUnit | str) -> str:
    return item if isinstance(item, str) else item.name
