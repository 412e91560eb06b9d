"""Which files of a folder are images, told cheaply, and how images are found by names that are not whole paths."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from monai_salm.formats import SUFFIXES, UNREAD, find_format
from monai_salm.layouts.files import LayoutError, is_hidden, why_folder

# Endings of images in formats of any program, as tables name them.
_ANY_SUFFIX = re.compile(
    r"\.(nii\.gz|nii|png|jpe?g|jpe|jfif|tiff?|bmp|gif|webp|jp2|p[gnpb]m|dcm|ima|np[yz]|mh[ad]|nrrd|mg[hz]|hdr|img|ome\.tiff?)$"
)
# Enough to tell a layout; a data set may have any number of files.
_FILES_A_FOLDER = 20
_FOLDERS = 2000
#: How files of pictures begin that are told by their content.
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


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
