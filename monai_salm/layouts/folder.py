"""What layouts that are folders share: which files there are, the copy, and the comparison."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from monai_salm._files import copy_file, same_bytes
from monai_salm.formats import find_format, format_of
from monai_salm.formats.base import Array, FormatError
from monai_salm.layouts.base import TRAIN, Edit, Layout, LayoutError


class FolderLayout(Layout):
    """A data set of many files under one folder; subclasses say which files are images and which are labels."""

    root: Path

    @abstractmethod
    def label_files(self) -> tuple[str, ...]:
        """Files that hold labels, relative to the root."""

    @abstractmethod
    def listing_files(self) -> tuple[str, ...]:
        """Files that list the cases, relative to the root."""

    def all_files(self) -> tuple[str, ...]:
        return tuple(sorted(_walk(self.root)))

    def unlisted(self) -> tuple[str, ...]:
        listed = {*self.image_files(self.splits), *self.label_files(), *self.listing_files()}
        return tuple(file for file in self.all_files() if file not in listed and not _is_hidden(file))

    def unlisted_images(self) -> Iterator[tuple[str, Array]]:
        for file in self.unlisted():
            format_ = find_format(Path(file))
            if format_ is None:
                continue
            try:
                yield file, format_.read(self.root / file)
            except FormatError:
                continue

    def rewrite(self, output: Path, edit: Edit, splits: Sequence[str] = (TRAIN,)) -> None:
        images = set(self.image_files(splits))
        files = self.all_files()
        output.mkdir(parents=True)
        for folder in sorted(_folders(self.root)):
            (output / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            source, target = self.root / file, output / file
            if file in images:
                format_ = format_of(source)
                format_.write(source, target, edit(file, format_.read(source)))
            else:
                copy_file(source, target)

    def differences(self, other: Layout, splits: Sequence[str] = (TRAIN,), ignore: Sequence[str] = ()) -> Iterator[str]:
        mine, theirs = set(self.all_files()), set(other.all_files()) - set(ignore)
        yield from (f"{file}: missing" for file in sorted(mine - theirs))
        yield from (f"{file}: not in the original data set" for file in sorted(theirs - mine))
        edited = set(self.image_files(splits))
        for file in sorted(mine & theirs):
            a, b = self.root / file, other.root / file
            try:
                if file not in edited:
                    if not same_bytes(a, b):
                        yield f"{file}: differs from the original"
                elif format_of(a).frame(a) != format_of(b).frame(b):
                    yield f"{file}: its header or what follows the voxels differs from the original"
            except (FormatError, OSError) as error:
                yield f"{file}: {error}"


def confine(root: Path, text: object, where: str) -> str:
    """Check a path that a data set's own file names, and return it relative to the root.

    Args:
        root: the folder it must stay in.
        text: the path as the file has it.
        where: the entry, for messages.

    Returns:
        A relative path with ``/``, without ``.`` parts.

    Raises:
        LayoutError: if it is absolute, goes up, leads out through a link, or names no file.
    """
    if not isinstance(text, str) or not text or "\0" in text:
        raise LayoutError(f"{where}: a path must be text, got {text!r}")
    parts = PurePosixPath(text.replace("\\", "/"))
    drive = len(text) > 1 and text[1] == ":"
    if parts.is_absolute() or drive or ".." in parts.parts:
        raise LayoutError(
            f"{where}: path {text!r} must be relative and stay inside {root}; move the file into the data set"
        )
    path = root / parts
    if not path.is_file():
        raise LayoutError(f"{where}: {path} does not exist")
    if not path.resolve().is_relative_to(root.resolve()):
        raise LayoutError(f"{where}: {path} is a link that leads out of {root}; put the file itself there")
    return parts.as_posix()


def _is_hidden(file: str) -> bool:
    """What macOS leaves in folders; its "._" files bear an image's name and hold none."""
    name = PurePosixPath(file).name
    return name == ".DS_Store" or name.startswith("._")


def _walk(root: Path) -> Iterator[str]:
    """Every file under a folder; links must stay inside and lead to files."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                if not path.resolve().is_relative_to(root.resolve()):
                    raise LayoutError(
                        f"{path} is a link that leads out of the data set; put the file itself there or remove it"
                    )
                if path.is_dir():
                    raise LayoutError(f"{path} is a link to a folder; put the folder itself there or remove it")
        for name in files:
            path = Path(folder, name)
            if not path.is_file():
                raise LayoutError(f"{path} is neither file nor folder; remove it")
            yield path.relative_to(root).as_posix()


def _folders(root: Path) -> Iterator[str]:
    for folder, _, _ in os.walk(root):
        yield Path(folder).relative_to(root).as_posix()
