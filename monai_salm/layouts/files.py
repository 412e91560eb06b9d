"""The files under a data set's folder: which there are, and names that stay inside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm.layouts.base import LayoutError

# Longer than any system takes, whose own error would not name the entry.
_MAX_PATH, _MAX_NAME = 4096, 255


def relative_path(root: Path, text: object, where: str) -> str:
    """Check that a path that a data set's own file names cannot lead out of it, whether there is such a file or not.

    Args:
        root: the folder it must stay in.
        text: the path as the file has it.
        where: the entry, for messages.

    Returns:
        A relative path with ``/``, without ``.`` parts.

    Raises:
        LayoutError: if it is no text, absolute or goes up.
    """
    if not isinstance(text, str) or not text or "\0" in text:
        raise LayoutError(f"{where}: a path must be text, got {text!r}")
    if len(text) > _MAX_PATH:
        raise LayoutError(f"{where}: a path of {len(text)} characters is none ({text[:40]!r}...)")
    parts = PurePosixPath(text.replace("\\", "/"))
    if any(len(part.encode("utf-8", "surrogatepass")) > _MAX_NAME for part in parts.parts):
        raise LayoutError(f"{where}: no file has a name as long as in {text[:40]!r}...")
    drive = len(text) > 1 and text[1] == ":"
    if parts.is_absolute() or drive or ".." in parts.parts:
        raise LayoutError(
            f"{where}: path {text!r} must be relative and stay inside {root}; move the file into the data set"
        )
    return parts.as_posix()


def confine(root: Path, text: object, where: str) -> str:
    """Check the path of a file that a data set's own file names.

    A file that is not there is an error of its case alone, found when it is read: it must not stop the others.

    Args:
        root, text, where: as for ``relative_path``.

    Returns:
        A relative path with ``/``, without ``.`` parts.

    Raises:
        LayoutError: if it is absolute, goes up, leads out through a link, or names a folder.
    """
    relative = relative_path(root, text, where)
    path = root / relative
    if path.is_dir():
        raise LayoutError(f"{where}: {path} is a folder; name a file")
    if not path.resolve().is_relative_to(root.resolve()):
        raise LayoutError(f"{where}: {path} is a link that leads out of {root}; put the file itself there")
    return relative


def from_root(root: Path, value: Any) -> Any:
    """A value of a data set's own file with the absolute paths in it that lie in the folder written relative to the folder.

    Args:
        root: the folder.
        value: text, or lists and dictionaries of such.
    """
    if isinstance(value, Mapping):
        return {key: from_root(root, item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_root(root, item) for item in value]
    path = PurePosixPath(value) if isinstance(value, str) and value.startswith("/") else None
    if path is None or ".." in path.parts:
        return value
    return next((path.relative_to(base).as_posix() for base in _bases(root) if path.is_relative_to(base)), value)


@lru_cache
def _bases(root: Path) -> tuple[str, ...]:
    """What an absolute path in a folder begins with: the folder as it is called, and where its links lead."""
    return root.absolute().as_posix(), root.resolve().as_posix()


def is_file(path: Path) -> bool:
    """Whether there is a file; False too for a name that the system cannot have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_hidden(file: str) -> bool:
    """What systems leave in folders; the "._" files of macOS bear an image's name and hold none."""
    name = PurePosixPath(file).name
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith("._")


def walk_folders(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk``, which passes over what it cannot read, without doing so.

    Raises:
        LayoutError: naming a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise LayoutError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable or take it out of the data set"
        ) from error

    yield from os.walk(root, onerror=refuse)


def walk(root: Path) -> Iterator[str]:
    """Every file under a folder; links must stay inside and lead to files.

    Raises:
        LayoutError: for a link that does not, a device, or a folder that cannot be read.
    """
    for folder, folders, files in walk_folders(root):
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
