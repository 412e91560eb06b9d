"""The files under a data set's folder: which there are, and names that stay inside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm.layouts.base import LayoutError
from monai_salm.layouts.leftovers import why_file, why_folder

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
        raise LayoutError(f"{where}: a path of {len(text)} characters is too long ({text[:40]!r}...)")
    parts = PurePosixPath(text.replace("\\", "/"))
    if any(len(part.encode("utf-8", "surrogatepass")) > _MAX_NAME for part in parts.parts):
        raise LayoutError(f"{where}: a name in the path {text[:40]!r}... is too long for a file")
    drive = len(text) > 1 and text[1] == ":"
    if parts.is_absolute() or drive or ".." in parts.parts:
        raise LayoutError(
            f"{where}: path {text!r} must be relative and stay inside {root}, or lie there if it is absolute. Move the file there and "
            "correct the entry"
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
    """Whether a program left a file, see ``leftovers``; the "._" files of macOS bear an image's name and hold none."""
    return why_file(PurePosixPath(file).name) is not None


def dead_link(path: Path) -> str | None:
    """Why a link that leads nowhere holds no file, and what to do; None for all else."""
    if not path.is_symlink() or path.exists():
        return None
    place = os.readlink(path)
    if "annex/objects" in PurePosixPath(place.replace("\\", "/")).as_posix():
        return f"{path} is a link to content that was not fetched; fetch it (git annex get, datalad get)"
    return f"{path} is a link that leads nowhere ({place}); put the file itself there"


def walk_folders(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` without the folders and files that programs leave, see ``leftovers``.

    Raises:
        LayoutError: naming a folder that cannot be read.
    """
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if why_folder(name) is None]
        yield folder, folders, [name for name in files if why_file(name) is None]


def leftovers(root: Path) -> dict[str, str]:
    """The folders (with a ``/`` at the end) and files that programs left under a folder, with what they are."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(root, onerror=_refuse):
        below = Path(folder).relative_to(root)
        reasons = {name: why_folder(name) for name in folders}
        found |= {f"{(below / name).as_posix()}/": why for name, why in reasons.items() if why}
        found |= {(below / name).as_posix(): why for name in files if (why := why_file(name))}
        folders[:] = [name for name in folders if not reasons[name]]
    return found


def every_file(root: Path) -> Iterator[str]:
    """Every file under a folder, those that programs left among them, relative to it; links are not followed."""
    for folder, _, files in os.walk(root, onerror=_refuse):
        for name in files:
            yield Path(folder, name).relative_to(root).as_posix()


def walk(root: Path) -> Iterator[str]:
    """Every file of a data set under its folder; what programs left there is none of it, see ``leftovers``.

    Links must stay inside and lead to files. A link that leads nowhere is a file that cannot be read (``dead_link``).

    Raises:
        LayoutError: for a link that does not, a device, or a folder that cannot be read.
    """
    for folder, folders, files in walk_folders(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and path.exists():
                _require_inside(path, root)
        for name in files:
            path = Path(folder, name)
            if not path.is_file() and not dead_link(path):
                raise LayoutError(f"{path} is neither file nor folder; remove it")
            yield path.relative_to(root).as_posix()


def _require_inside(link: Path, root: Path) -> None:
    place = link.resolve()
    # A part of a data set under git-annex has the contents beside it.
    if not place.is_relative_to(root.resolve()) and "/.git/annex/objects/" not in place.as_posix():
        raise LayoutError(f"{link} is a link that leads out of the data set; put the file itself there or remove it")
    if place.is_dir():
        raise LayoutError(f"{link} is a link to a folder; put the folder itself there or remove it")


def _refuse(error: OSError) -> None:
    raise LayoutError(
        f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable or take it out of the data set"
    ) from error
