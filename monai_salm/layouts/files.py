"""The files under a data set's folder: which there are, which are images, which programs left, and how names find them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm.formats import SUFFIXES, UNREAD, find_format

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
# Endings of images in formats of any program, as tables name them.
_ANY_SUFFIX = re.compile(
    r"\.(nii\.gz|nii|png|jpe?g|jpe|jfif|tiff?|bmp|gif|webp|jp2|p[gnpb]m|dcm|ima|np[yz]|mh[ad]|nrrd|mg[hz]|hdr|img|ome\.tiff?)$"
)
# Enough to tell a layout; a data set may have any number of files.
_FILES_A_FOLDER = 20
_FOLDERS = 2000
#: How files of pictures begin that are told by their content.
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


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
        folder, own = root / below, [name for name in files if why_file(name) is None]
        for path in (folder / name for name in (*(name for name in folders if not why_folder(name)), *own)):
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
            path = folder / name
            if not path.is_file() and not dead_link(path):
                raise LayoutError(f"{path} is no file and no folder; remove it")
            yield str(below / name)


def is_image(path: Path) -> bool:
    """Whether a file is an image, and none that a program left; also one in a format that is not read."""
    if is_hidden(path.name):
        return False
    if has_image_name(path.name) or find_format(path) is not None:
        return True
    with suppress(OSError), open(path, "rb") as file:
        return file.read(8).startswith(STARTS)
    return False


def has_image_name(file: str) -> bool:
    """``is_image`` by the name alone, for files that need not exist."""
    return not is_hidden(file) and file.lower().endswith((*SUFFIXES, *UNREAD))


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or, where that says nothing, its first bytes; False if it cannot be read."""
    with suppress(OSError):
        return getattr(find_format(path), "name", "") == "dicom"
    return False


def some_files(root: Path, every: bool = False) -> Iterator[str]:
    """A few files (or ``every`` file) of each folder, relative to the root, without what programs left; never raises.

    A folder that cannot be read is passed over: a data set is recognised by these files, and refused when it is opened.
    """
    for count, (folder, folders, files) in enumerate(os.walk(root)):
        if count == _FOLDERS:
            return
        folders[:] = sorted(name for name in folders if why_folder(name) is None)
        shown = [name for name in sorted(files) if not is_hidden(name)][: None if every else _FILES_A_FOLDER]
        yield from (Path(folder, name).relative_to(root).as_posix() for name in shown)


def stem(file: str) -> str:
    """The name of a file without folders and without the suffix of its format: ``a/b.nii.gz`` -> ``b``."""
    name = PurePosixPath(file).name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def any_stem(file: str) -> str:
    """``stem``, for the suffixes of images of any program."""
    name = PurePosixPath(file).name
    found = _ANY_SUFFIX.search(name.casefold())
    return name[: found.start()] if found else name


class ImageIndex:
    """Finds images, given relative to the root, by the ends of their paths, with or without suffix."""

    def __init__(self, files: Iterable[str]) -> None:
        self._by_name, self._by_plain_name = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for file in files:
            name = PurePosixPath(file).name
            for own in {name, stem(file)}:
                self._by_name[own].append(file)
            self._by_plain_name[_plain(name)].append(file)

    def find(self, text: str, where: str, taken: Collection[str] = ()) -> str | None:
        """The one image whose path ends with a text; None if there is none.

        If no path ends exactly so, the suffix, upper and lower case and the Unicode form may differ, and the path may begin
        with folders above the root. Images that another entry names exactly (``taken``) are left out then.
        """
        fits = self.all(text, taken)
        if len(fits) > 1:
            raise LayoutError(
                f"{where}: {text!r} fits {len(fits)} images: {fits[0]}, {fits[1]}{', ...' if fits[2:] else ''}; write the path"
            )
        return fits[0] if fits else None

    def all(self, text: str, taken: Collection[str] = ()) -> list[str]:
        """All images that ``find`` would choose from."""
        *above, name = PurePosixPath(text.replace("\\", "/")).parts or ("",)
        fits = [file for file in self._by_name.get(name, []) if _ends_with(_folders(file), tuple(above))]
        if not fits:
            alike = [file for file in self._by_plain_name.get(_plain(name), []) if file not in taken]
            folders = tuple(map(_plain, above))
            fits = [file for file in alike if _ends_with(_folders(_plain(file)), folders)]
            # A table may begin with the name of the data set's folder, as it was called elsewhere.
            fits = fits or [file for file in alike if _ends_with(folders, _folders(_plain(file)))]
        return fits


def _folders(file: str) -> tuple[str, ...]:
    return PurePosixPath(file).parts[:-1]


def _ends_with(parts: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return not end or parts[-len(end) :] == end


def _plain(name: str) -> str:
    """A name without the suffix of an image, in one case and one Unicode form."""
    return _ANY_SUFFIX.sub("", unicodedata.normalize("NFC", name).casefold())
