"""Which files of a folder are images, told cheaply, and how images are found by names that are not whole paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from monai_salm.formats import FORMATS, find_format
from monai_salm.formats.lossy import why_lossy
from monai_salm.layouts.base import LayoutError
from monai_salm.layouts.files import is_hidden
from monai_salm.layouts.leftovers import why_folder

# Enough to tell a layout; a data set may have any number of files.
_FILES_A_FOLDER = 20
_FOLDERS = 2000
# Images, and films of them, in formats that are not read: cases that are left out, with the reason.
_UNREAD = (
    ".bmp", ".dib", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".heic", ".heif", ".avif", ".jxl", ".tga", ".pcx", ".psd", ".ico",
    ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".img", ".nii.bz2", ".nii.xz", ".nii.zst", ".par", ".isq",
    ".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".czi", ".lif", ".nd2", ".oib", ".oif", ".vsi", ".lsm", ".stk",
    ".avi", ".mp4", ".mov", ".wmv", ".mkv", ".mpg", ".mpeg",
)  # fmt: skip
#: How files of pictures begin that are told by their content.
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


def is_image(path: Path) -> bool:
    """Whether a file is an image, and none that a program left; also one in a format that is not read."""
    return not is_hidden(path.name) and (
        has_image_name(path.name) or find_format(path) is not None or _is_picture(path)
    )


def has_image_name(file: str) -> bool:
    """``is_image`` by the name alone, for files that need not exist."""
    named = file.lower().endswith((*(suffix for suffix in _suffixes() if suffix), *_UNREAD))
    return not is_hidden(file) and (named or why_lossy(Path(file)) is not None)


def _is_picture(path: Path) -> bool:
    """Whether a file begins as pictures do, whatever its name is."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(8).startswith(STARTS)
    except OSError:
        return False


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or, where that says nothing, its first bytes; False if it cannot be read."""
    try:
        found = find_format(path)
    except OSError:
        return False
    return found is not None and found.name == "dicom"


def some_files(root: Path, every: bool = False) -> Iterator[str]:
    """A few files of every folder, relative to the root, without what programs left (``leftovers``); never raises.

    Folders that cannot be read are passed over: the data set is only recognised by these files, and refused when opened.

    Args:
        root: the folder.
        every: all files of the folders that are looked at.
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
    for suffix in sorted(_suffixes(), key=len, reverse=True):
        if suffix and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class ImageIndex:
    """Finds images by the ends of their paths, with or without suffix.

    Args:
        files: the images, relative to the root.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = {}
        for file in files:
            for name in {PurePosixPath(file).name, stem(file)}:
                self._by_name.setdefault(name, []).append(file)

    def find(self, text: str, where: str) -> str | None:
        """The one image whose path ends so; None if there is none.

        Args:
            text: a name, or the end of a path: ``"b"``, ``"b.png"``, ``"a/b"``.
            where: the entry, for messages.

        Raises:
            LayoutError: if several images fit.
        """
        parts = PurePosixPath(text.replace("\\", "/")).parts
        if not parts:
            return None
        folders, name = parts[:-1], parts[-1]
        fits = [
            file
            for file in self._by_name.get(name, [])
            if not folders or PurePosixPath(file).parts[:-1][-len(folders) :] == folders
        ]
        if len(fits) > 1:
            raise LayoutError(
                f"{where}: {text!r} fits {len(fits)} images: {fits[0]}, {fits[1]}{', ...' if fits[2:] else ''}; write the path"
            )
        return fits[0] if fits else None


def _suffixes() -> list[str]:
    return [suffix for format_ in FORMATS.values() for suffix in format_.suffixes]
