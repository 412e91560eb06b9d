"""Files beside the images: those that are known to be harmless are copied, the others have a reason why they are not."""

from __future__ import annotations

import re
import zipfile
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from monai_salm.formats.dicom.headers import read_dataset
from monai_salm.layouts import Layout
from monai_salm.layouts.files import STARTS, dead_link, is_dicom, is_image
from monai_salm.layouts.label_maps import is_label_map
from monai_salm.layouts.roles import names_a_mask
from monai_salm.publishing.pixels_in_texts import why_text_is_left_out

_TEXTS = (
    ".txt", ".md", ".rst", ".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".xml", ".toml", ".ini", ".cfg",
    ".cff", ".bib", ".bval", ".bvec", ".dat", ".lst", ".sha256", ".md5", ".license",
)  # fmt: skip
_TEXT_NAMES = (
    "readme", "license", "licence", "changes", "changelog", "copying", "authors", "citation", "notice", "contributors",
    ".bidsignore", ".gitattributes", ".gitignore", ".gitmodules", "md5sums", "sha256sums", "version",
)  # fmt: skip
# Tables of office and statistics programs. Pictures may be set into them.
_PACKED_TABLES, _BINARY_TABLES = (".xlsx", ".xlsm", ".ods"), (".xls", ".sav", ".dta", ".sas7bdat", ".xpt")
_ARCHIVES = (
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lzma", ".z", ".iso", ".dmg", ".cab", ".tbz", ".txz",
)  # fmt: skip
_PICTURES = re.compile(b"|".join(map(re.escape, STARTS)))
# How texts begin that are not of single bytes.
_ENCODINGS = ((b"\xff\xfe\0\0", "utf-32-le"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL, _HIGH = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f]"), bytes(range(128, 256))
_CHUNK, _MOST = 1 << 22, 64


@dataclass(frozen=True)
class OtherFiles:
    """The files of a data set beside the images that are protected, relative to the root, and the folders of a copy.

    Those that are left out have a reason each; folders that programs left have a ``/`` at the end.
    """

    copied: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


def other_files(data: Layout, splits: Sequence[str], copy: Sequence[str] = ()) -> OtherFiles:
    """Sort the files beside the images of some splits; what fits a pattern of ``copy``, as at a shell, is copied in any case."""
    images, unlisted = set(data.image_files(splits)), set(data.unlisted())
    copied, left_out = [], dict(data.leftovers())
    for file in sorted(set(data.all_files()) - images):
        wanted, path = _fits(file, copy), data.path_of(file)
        reason = None if file not in unlisted or wanted else _why(data.root, file)
        if reason is None and not wanted and _holds_document(path):
            reason = "a document inside of DICOM, which may show the images"
        if reason is None:
            copied.append(file)
        else:
            left_out[file] = reason
    if copy:
        inside = [file for file in set(data.every_file()) - set(data.all_files()) if _fits(file, copy)]
        copied += inside
        left_out = {name: why for name, why in left_out.items() if name not in inside}
    return OtherFiles(tuple(sorted(copied)), left_out, _folders(data, {*copied, *images}))


def all_other_files(data: Layout, without: Iterable[str]) -> OtherFiles:
    """All files under a folder but some, programs' leftovers among them, as ``restore`` takes them over."""
    files = tuple(sorted(set(data.every_file()) - set(without)))
    return OtherFiles(files, {}, _folders(data, set(files)))


def _folders(data: Layout, files: set[str]) -> tuple[str, ...]:
    """The folders of some files, and those that are empty: a folder of files that are all left out must not become a class."""
    needed = {parent.as_posix() for file in files for parent in PurePosixPath(file).parents}
    filled = {parent.as_posix() for file in data.all_files() for parent in PurePosixPath(file).parents}
    return tuple(sorted(needed | (set(data.folders()) - filled)))


def _fits(file: str, patterns: Sequence[str]) -> bool:
    path = PurePosixPath(file)
    names = [path.as_posix(), path.name, *(parent.as_posix() for parent in path.parents)]
    return any(fnmatchcase(name, pattern.rstrip("/")) for name in names for pattern in patterns)


def _why(root: Path, file: str) -> str | None:
    """Why a file that no split lists is not copied; None for one that is known to be harmless."""
    path, name = root / file, PurePosixPath(file).name.lower()
    if (dead := dead_link(path)) is not None:
        return dead
    try:
        if is_image(path):
            named = names_a_mask(file)  # an empty label map has a single number
            return None if named and is_label_map(path, empty=True) else "an image that no split lists"
        if name.endswith(_PACKED_TABLES):
            return _why_packed_table(path)
        if name.endswith(_BINARY_TABLES):
            return "a table with pictures in it" if _holds(path, _PICTURES) else None
        if name.endswith(_ARCHIVES):
            return "an archive, which may hold the originals"
        if name.endswith(_TEXTS) or name in _TEXT_NAMES:
            return _why_text(path)
    except OSError as error:
        return str(error)
    return "not known to be harmless"


def _holds_document(path: Path) -> bool:
    """Whether a file is a PDF, a CDA, a model or another document encapsulated in DICOM."""
    if not is_dicom(path):
        return False
    tags = ["EncapsulatedDocument", "SOPClassUID"]
    try:
        header = read_dataset(path, tags)
    except ImportError:
        raise
    except Exception:  # what pydicom raises for a damaged file; the layout names it
        return False
    return tags[0] in header or str(header.get(tags[1], "")).startswith("1.2.840.10008.5.1.4.1.1.104.")


def _why_text(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(4)
        encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "latin-1")
        file.seek(0)
        if not _is_text(file, encoding):
            return "no text, unlike its name"
        file.seek(0)
        if path.name.lower().endswith((".bval", ".bvec")) and len(file.read(_CHUNK).split(b"\n")) <= 4:
            return None  # one line, or three, of as many numbers as there are volumes
        file.seek(0)
        return why_text_is_left_out(file, encoding)


def _is_text(file: IO[bytes], encoding: str) -> bool:
    """Whether a file is text to its end, without control characters: UTF-8, or single bytes that are mostly ASCII."""
    single = encoding == "latin-1"
    decoder, valid, size, plain = getincrementaldecoder("utf-8" if single else encoding)(), True, 0, 0
    while True:
        chunk, text = file.read(_CHUNK), ""
        try:
            text = decoder.decode(chunk, not chunk) if valid else ""
        except UnicodeDecodeError:
            valid = False
        if _CONTROL.search(chunk.decode("latin-1") if single else text):
            return False
        size, plain = size + len(chunk), plain + len(chunk.translate(None, _HIGH))
        if not chunk:
            return valid or (single and 4 * plain >= 3 * size)


def _why_packed_table(path: Path) -> str | None:
    sheets = re.compile(r"xl/worksheets/[^/]*\.xml|content\.xml|xl/sharedStrings\.xml")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.namelist()
            for name in filter(sheets.fullmatch, parts):
                with archive.open(name) as sheet:
                    if (why := why_text_is_left_out(sheet, cells=True)) is not None:
                        return why.replace("a text", "a table", 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError):
        return "no table, unlike its name"
    pictures = [part for part in parts if "/media/" in part or part.startswith(("Pictures/", "Object"))]
    return f"a table with pictures in it ({pictures[0]})" if pictures else None


def _holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Whether a pattern, at most ``_MOST`` bytes long, occurs in a file."""
    before = b""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            if pattern.search(before + chunk):
                return True
            before = chunk[-_MOST:]
    return False
