"""Names of the files of a protected copy, where images change their format, and the texts that name them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path, PurePosixPath

from monai_salm.formats import SUFFIXES, format_named
from monai_salm.formats.base import FormatError
from monai_salm.layouts.files import from_root, walk
from monai_salm.layouts.reading import encoding_of
from monai_salm.layouts.stored_images import ChannelFiles, StoredImage

#: Texts in which images may be named.
TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".lst")
#: Texts that may name images, too, and are not rewritten.
_OTHER_TEXTS = (".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".md", ".rst", ".tab", ".ndjson", ".list", ".html")
_MAX_TEXT, _MAX_NAME = 1 << 28, 512
# Where a name in a line ends, and what may stand between names, or in them.
_END = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})(?![^\s,;|\"'<>()\[\]:&])", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,;|\"'<>()\[\]=]")
# A string of JSON, or what stands between the delimiters of a table.
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CELL = re.compile(r'"(?:[^"]|"")*"|[^\r\n\t,;|"]+')


def with_published_names(root: Path, images: Iterable[StoredImage]) -> dict[StoredImage, StoredImage]:
    """The images with the files that belong to theirs, and with the names that these have in a protected copy.

    A file that changes its format keeps its stem. Where another file has that name, the new suffix is added to the old one.
    """
    taken: set[str] = set()
    result = {}
    for stored in images:
        result[stored] = stored
        if not isinstance(stored, ChannelFiles):
            continue
        beside, copies = companions_of(root, stored.files), []
        for file in stored.files:
            suffix = getattr(format_named(file), "published", None)
            if suffix is not None:
                taken = taken or {name.lower() for name in walk(root)}
                own = next(own for own in SUFFIXES if file.lower().endswith(own))
                names = (f"{base}{suffix}" for base in chain([file[: -len(own)]], (file + "_" * n for n in count())))
                file = next(name for name in names if name.lower() not in taken)
                taken.add(file.lower())
            copies.append(file)
        published = (*copies, *beside) if tuple(copies) != stored.files else ()
        result[stored] = replace(stored, files=stored.files + beside, copies=published, beside=len(beside))
    return result


def companions_of(root: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Files beside some others that are part of them, each once; what cannot be read says so when the image is read."""
    found: dict[str, None] = {}
    for file in files:
        with suppress(FormatError, OSError):
            names = format_.companions(root / file) if (format_ := format_named(file)) is not None else ()
            found |= dict.fromkeys((PurePosixPath(file).parent / name).as_posix() for name in names)
    return tuple(found)


def rewritten_texts(
    root: Path, files: Iterable[str], renamed: Mapping[str, str], absolute: Sequence[str] = ()
) -> dict[str, bytes]:
    """Tables, JSON and lists that name renamed images, with the new names; all else in them keeps its bytes.

    In the files ``absolute``, absolute paths in the root become relative, so that a copy does not lead to the originals.
    """
    if not renamed and not absolute:
        return {}
    files = list(files)
    rename = _renamer(renamed, files)

    def relative(text: str) -> str:
        bare = text.strip()
        return rename(text.replace(bare, str(from_root(root, bare)), 1) if bare.startswith("/") else text)

    result = {}
    for file in files:
        path = root / file
        named = renamed and file.lower().endswith(TEXTS) and path.is_file() and path.stat().st_size <= _MAX_TEXT
        if named or file in absolute:
            content = path.read_bytes()
            new = _rewritten(
                content, file.lower().endswith((".json", ".jsonl")), rename, relative if file in absolute else None
            )
            if new != content:
                result[file] = new
    return result


def texts_with_old_names(
    root: Path, files: Iterable[str], renamed: Mapping[str, str], rewritten: Mapping[str, bytes]
) -> list[str]:
    """The texts that name a renamed image by its old name in a copy, given those that are ``rewritten`` for the copy."""
    fits, found = _fits(renamed), []
    for file in files if renamed else ():
        path = root / file
        if file.lower().endswith((*TEXTS, *_OTHER_TEXTS)) and path.is_file() and path.stat().st_size <= _MAX_TEXT:
            content = rewritten.get(file) or path.read_bytes()
            text = content.decode(encoding_of(content), "replace")
            ends = (end.end() for end in _END.finditer(text))
            if any(fits(text[start:end]) for end in ends for start in _starts(text, 0, end)):
                found.append(file)
    return found


def _rewritten(
    content: bytes, is_json: bool, rename: Callable[[str], str], relative: Callable[[str], str] | None
) -> bytes:
    """A text in its own encoding with each name, and each cell that is an absolute path, or each string of JSON, changed."""
    encoding = encoding_of(content)
    errors = "surrogatepass" if encoding.startswith("utf-16") else "surrogateescape"
    try:
        text = content.decode(encoding, errors)
    except UnicodeDecodeError:
        return content
    if is_json:
        return _JSON_STRING.sub(lambda found: _in_json(found[0], relative or rename), text).encode(encoding, errors)
    text = re.sub(r"[^\r\n]+", lambda line: _in_line(line[0], rename), text)
    return (_in_cells(text, relative) if relative else text).encode(encoding, errors)


def _in_line(line: str, rename: Callable[[str], str]) -> str:
    """A line of a table or list with its names changed, which may hold blanks and delimiters."""
    done, parts = 0, list[str]()
    for end in (found.end() for found in _END.finditer(line)):
        changed = ((start, rename(line[start:end])) for start in _starts(line, done, end))
        start, new = next(((start, new) for start, new in changed if new != line[start:end]), (end, ""))
        if start < end:
            parts += [line[done:start], new]
            done = end
    return "".join([*parts, line[done:]])


def _starts(text: str, first: int, end: int) -> list[int]:
    """Where a name that ends at a place may begin: the longest name first, those with signs in their folders last."""
    low = max(first, end - _MAX_NAME)
    found = [low, *(low + sign.end() for sign in _BETWEEN.finditer(text[low:end]))]
    return sorted(found, key=lambda start: bool(_BETWEEN.search(text[start:end].replace("\\", "/").rpartition("/")[0])))


def _in_cells(text: str, change: Callable[[str], str]) -> str:
    def renamed(found: re.Match[str]) -> str:
        cell = found[0]
        if cell[0] != '"':
            return change(cell)
        new = change(cell[1:-1])
        return f'"{_in_cells(cell[1:-1], change) if new == cell[1:-1] else new}"'

    return _CELL.sub(renamed, text)


def _in_json(literal: str, change: Callable[[str], str]) -> str:
    try:
        value = json.loads(literal)
    except ValueError:
        return literal
    new = change(value)
    if new == value:
        return literal
    # The beginning that both share stays as it is written, with its escapes.
    same = next((n for n, pair in enumerate(zip(value, new, strict=False)) if pair[0] != pair[1]), len(value))
    kept = literal[1 : len(literal) - 1 - len(value[same:])]
    return f'"{kept}{new[same:]}"' if json.loads(f'"{kept}"') == value[:same] else json.dumps(new)


def _fits(renamed: Mapping[str, str], change: Callable[[str], str] = str) -> Callable[[str], set[str]]:
    """Gives the new names of all files that a text may name, by the end of its path; ``change`` makes names comparable."""
    by_name = defaultdict[str, list[tuple[list[str], str]]](list)
    for old, new in renamed.items():
        *folders, name = change(_plain(old)).split("/")
        by_name[name].append((folders, new))

    def fits(text: str) -> set[str]:
        *folders, name = change(_plain(_bare(text).replace("\\", "/"))).split("/")
        own = [part for part in folders if part not in ("", ".")]
        # The folders must agree as far as both go, from the end.
        ends = ((zip(reversed(own), reversed(parts), strict=False), new) for parts, new in by_name.get(name, []))
        return {new for pairs, new in ends if all(mine == its for mine, its in pairs)}

    return fits


def _renamer(renamed: Mapping[str, str], files: Iterable[str]) -> Callable[[str], str]:
    """Gives a text the new name of the one file that it names, by the end of its path, or leaves it if it may name several.

    Upper and lower case may differ where no file has the name as it is written.
    """
    exact, alike = _fits(renamed), _fits(renamed, str.casefold)
    known = {_plain(PurePosixPath(file).name) for file in files}

    def rename(text: str) -> str:
        bare = _bare(text)
        if not bare.lower().endswith(SUFFIXES):
            return text
        fits = exact(text)
        if not fits and _plain(re.split(r"[/\\]", bare)[-1]) not in known:
            fits = alike(text)
        if len(fits) != 1:
            return text
        # In the form in which the text has it: an encoding of 8 bits knows composed signs alone.
        new = PurePosixPath(fits.pop()).name
        new = unicodedata.normalize("NFC" if unicodedata.is_normalized("NFC", bare) else "NFD", new)
        at = text.rindex(bare) + max(bare.rfind("/"), bare.rfind("\\")) + 1
        return text[:at] + new + text[text.rindex(bare) + len(bare) :]

    return rename


def _bare(text: str) -> str:
    return text.strip().lstrip("\ufeff")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
