"""The files under a data set's folder: which there are, which programs left there, and names that stay inside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

TRAIN = "train"

# Longer than any system takes, whose own error would not name the entry.
_MAX_PATH, _MAX_NAME = 4096, 255

# Folders and files that programs leave, by name in small letters. They are no part of a data set, and never published.
_LEFT_FOLDERS = {
    "a folder of version or data control, which may keep the originals": (
        ".git", ".hg", ".svn", ".bzr", ".jj", ".dvc", ".datalad", "_darcs",
    ),
    "a folder of thumbnails": (
        "@eadir", ".@__thumb", "@__thumb", ".thumbnails", "thumbnails", "thumbs", ".picasaoriginals",
    ),
    "a folder of the system": (
        "$recycle.bin", "#recycle", "@recycle", "lost+found", "system volume information", "__macosx", "#snapshot",
        "@recently-snapshot", "~snapshot", "@tmp",
    ),
    "copies that a notebook left": (".ipynb_checkpoints",),
    "a folder of a program": ("__pycache__",),
}  # fmt: skip
_WHY_FOLDER = {name: why for why, names in _LEFT_FOLDERS.items() for name in names}
_WHY_FILE = {
    **dict.fromkeys(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"), "thumbnails of the images"),
    **dict.fromkeys(("desktop.ini", "icon\r", "autorun.inf"), "a file of the system"),
    "dicomdir": (
        "an index of DICOM instances, whose UIDs and icons a protected copy does not have; make a new one after publishing"
    ),
}
# Hidden files that tell something about the data set.
_KNOWN = (".bidsignore", ".gitattributes", ".gitignore", ".gitmodules", ".zenodo.json")
_BACKUP = re.compile(
    r"(?i).*(~|\.(bak|backup|old|orig|rej|save|sw[a-p]|te?mp|part|partial|crdownload|filepart)\d*)|~\$.*|#.*#"
)


class LayoutError(ValueError):
    """A data set whose layout is unknown, inconsistent or unsafe; the message says where and what to do."""


def why_folder(name: str) -> str | None:
    """The kind of a folder that a program left, by its own name; None for a folder of a data set."""
    found = _WHY_FOLDER.get(name.lower())
    return found or ("a hidden folder" if name.startswith(".") and name != "." else None)


def why_file(name: str) -> str | None:
    """The kind of a file that a program left, by its own name; None for a file of a data set."""
    small = name.lower()
    if small in _WHY_FILE:
        return _WHY_FILE[small]
    if _BACKUP.fullmatch(name):
        return "a backup or a file that was not written to its end"
    return "a hidden file" if name.startswith(".") and small not in _KNOWN else None


def is_hidden(file: str) -> bool:
    """Whether a program left a file; the "._" files of macOS bear an image's name and hold none."""
    return why_file(PurePosixPath(file).name) is not None


def relative_path(root: Path, text: object, where: str) -> str:
    """A path that a data set's own file names, with ``/`` and without ``.`` parts; the file need not exist.

    A LayoutError names the entry (``where``) if the path is no text, absolute or leads out of ``root``.
    """
    if not isinstance(text, str) or not text or "\0" in text:
        raise LayoutError(f"{where}: a path must be text, got {text!r}")
    if len(text) > _MAX_PATH:
        raise LayoutError(f"{where}: a path of {len(text)} characters is too long ({text[:40]!r}...)")
    path = PurePosixPath(text.replace("\\", "/"))
    if any(len(part.encode("utf-8", "surrogatepass")) > _MAX_NAME for part in path.parts):
        raise LayoutError(f"{where}: a name in the path {text[:40]!r}... is too long for a file")
    if path.is_absolute() or text[1:2] == ":" or ".." in path.parts:
        raise LayoutError(
            f"{where}: path {text!r} must be relative and stay inside {root}, or lie there if it is absolute. Move the file there and "
            "correct the entry"
        )
    return path.as_posix()


def confine(root: Path, text: object, where: str) -> str:
    """``relative_path`` of a file that leads out through no link; one that is not there is an error of its case alone, later."""
    relative = relative_path(root, text, where)
    path = root / relative
    if path.is_dir():
        raise LayoutError(f"{where}: {path} is a folder; name a file")
    if not path.resolve().is_relative_to(root.resolve()):
        raise LayoutError(f"{where}: {path} is a link that leads out of {root}; put the file itself there")
    return relative


def from_root(root: Path, value: Any) -> Any:
    """Text, or lists and dictionaries of text, with absolute paths that lie in a folder written relative to the folder."""
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
    """The beginnings of absolute paths in a folder: the folder as it is called, and where its links lead."""
    return root.absolute().as_posix(), root.resolve().as_posix()


def is_file(path: Path) -> bool:
    """Whether there is a file; False too for a name that the system cannot have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def dead_link(path: Path) -> str | None:
    """Why a link that leads nowhere holds no file, and what to do; None for all else."""
    if not path.is_symlink() or path.exists():
        return None
    place = os.readlink(path)
    if "annex/objects" in PurePosixPath(place.replace("\\", "/")).as_posix():
        return f"{path} is a link to content that was not fetched; fetch it (git annex get, datalad get)"
    return f"{path} is a link that leads nowhere ({place}); put the file itself there"


def _walk(root: Path, every: bool = False) -> Iterator[tuple[PurePosixPath, list[str], list[str]]]:
    """Each folder, relative to the root, with its folders and files; those that programs left are looked into for ``every``."""

    def refuse(error: OSError) -> None:
        raise LayoutError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable or take it out of the data set"
        ) from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        yield PurePosixPath(Path(folder).relative_to(root).as_posix()), [*folders], files
        folders[:] = [name for name in folders if every or why_folder(name) is None]


def folders_in(root: Path) -> tuple[str, ...]:
    """All folders of a data set, its own among them as ``.``, sorted; those that programs left are none of it."""
    return tuple(sorted(str(below) for below, _, _ in _walk(root)))


def leftovers(root: Path) -> dict[str, str]:
    """The folders (with a ``/`` at the end) and files that programs left under a folder, with what they are."""
    found: dict[str, str] = {}
    for below, folders, files in _walk(root):
        found |= {f"{below / name}/": why for name in folders if (why := why_folder(name))}
        found |= {str(below / name): why for name in files if (why := why_file(name))}
    return found


def every_file(root: Path) -> tuple[str, ...]:
    """Every file under a folder, those that programs left among them, sorted; links are not followed."""
    return tuple(sorted(str(below / name) for below, _, files in _walk(root, every=True) for name in files))


def walk(root: Path) -> Iterator[str]:
    """Every file of a data set under its folder; what programs left there is none of it.

    Links must stay inside and lead to files. A link that leads nowhere is a file that cannot be read (``dead_link``).
    """
    for below, folders, files in _walk(root):
        own = [name for name in files if why_file(name) is None]
        for path in (root / below / name for name in (*(name for name in folders if not why_folder(name)), *own)):
            if not path.is_symlink() or not path.exists():
                continue
            place = path.resolve()
            # A part of a data set under git-annex has the contents beside it.
            if not place.is_relative_to(root.resolve()) and "/.git/annex/objects/" not in place.as_posix():
                advice = "put the file itself there or remove it"
                raise LayoutError(f"{path} is a link that leads out of the data set; {advice}")
            if place.is_dir():
                raise LayoutError(f"{path} is a link to a folder; put the folder itself there or remove it")
        for name in own:
            path = root / below / name
            if not path.is_file() and not dead_link(path):
                raise LayoutError(f"{path} is no file and no folder; remove it")
            yield str(below / name)
