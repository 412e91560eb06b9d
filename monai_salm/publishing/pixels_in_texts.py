"""Texts that may hold an image: pictures in base64, and long runs of numbers that may be pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import IO

import numpy as np
from numpy.typing import NDArray

_CHUNK, _OVERLAP = 1 << 23, 1 << 16
_BASE64 = re.compile(r"""(?:(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40,}[\s"',]{0,64})+[A-Za-z0-9+/]*""")
# How pictures, gzip, TIFF and NumPy begin in base64, and as much of it as no name or number is.
_PICTURE = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|SUkqA|TU0AK|H4sI|UklGR|XAEAA|k05VTVBZ)[A-Za-z0-9+/]{200}")
# Pixels of DICOM, in its JSON or XML model.
_DICOM = re.compile(r'(?i)7FE000(?:08|09|10)"[^{}]{0,200}\{?[^{}]{0,200}InlineBinary')
_ESCAPES = (
    (re.compile(r"\\u002[bB]"), "+"),
    (re.compile(r"\\u002[fF]|\\/"), "/"),
    (re.compile(r"\\[nrt]|&#(?:10|13|x0?[aAdD]);"), "\n"),
)
_SAME_TAGS = re.compile(r"</(\w+)>\s*<\1>")
_TAG, _ROW_END = re.compile(r"<[^<>]*>"), re.compile(r"</(?:row|table:table-row)>")
_NUMBERS = re.compile(r"""[-+.\deE\s,;|"'\[\]()]+""")
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_KEY = re.compile(r"""([A-Za-z_]\w*)["']?\s*[:=]\s*$""")
# Keys of outlines, run lengths, labels and times.
_ANNOTATION = re.compile(
    r"(?i)seg|count|rle|poin|poly|contour|box|vert|coord|landmark|label|target|class|ind(?:ex|ices)|time"
)
# The fewest numbers of an image, and the fewest rows and columns of one that is written row by row.
_FEWEST, _SIDE = 256, 16
_FEW_VALUES = 9  # fewer are a label map
_LARGEST = 65535
_LOOKED_AT = 1 << 16


def why_text_is_left_out(file: IO[bytes], encoding: str = "latin-1", cells: bool = False) -> str | None:
    """Why a text may show an image; None if it does not.

    Args:
        file: the text.
        encoding: of the text; all that tells an image is ASCII.
        cells: whether it is the XML of a table, whose cells are tags.
    """
    for text in _chunks(file, encoding):
        if cells:
            text = _TAG.sub(" ", _ROW_END.sub("\n", text))
        if _DICOM.search(text):
            return "a text with the pixels of a DICOM file in it"
        if "\\" in text or "&#" in text:
            for pattern, plain in _ESCAPES:
                text = pattern.sub(plain, text)
        if any(_is_binary(found[0]) for found in _BASE64.finditer(text)):
            return "a text with a picture in it, or other binary data (base64)"
        if _holds_pixels(_SAME_TAGS.sub(" ", text)):
            return "a text with long runs of numbers in it, which may be the pixels of images"
    return None


def _chunks(file: IO[bytes], encoding: str) -> Iterator[str]:
    """A text in parts that overlap."""
    tail, wide = "", 1 if encoding == "latin-1" else 4
    while chunk := file.read(wide * _CHUNK):
        text = tail + chunk.decode(encoding, "replace")
        yield text
        tail = text[-_OVERLAP:]


def _is_binary(found: str) -> bool:
    """Whether a run of base64, over line ends, is a picture or long enough to be one; names, digests and run lengths are not."""
    joined = re.sub(r"""[\s"',]""", "", found)
    if _PICTURE.search(joined):
        return True
    kinds = len(set(joined[:_LOOKED_AT]))
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", joined):
        return joined == found.strip() and len(joined) >= 1500 and kinds >= _FEW_VALUES
    return len(joined) >= 1000 and kinds >= 40 and re.search("[p-z]", joined) is not None


def _holds_pixels(text: str) -> bool:
    for found in _NUMBERS.finditer(text):
        if found.end() - found.start() < 2 * _FEWEST - 1:
            continue
        run, before = found[0], text[max(0, found.start() - 99) : found.start()]
        key = _KEY.search(before)
        if key is not None and _ANNOTATION.search(key[1]):
            continue
        if "[" in run or "(" in run or before.endswith(">") or re.search(r"^\s*- ", run, re.MULTILINE):
            pairs = re.search(r"[\[(]\s*[-+.\deE]+\s*,\s*[-+.\deE]+\s*[\])]", run) is not None
            if not pairs and _is_image(_NUMBER.findall(run[: 16 * _LOOKED_AT])):
                return True
        elif _lines_hold_pixels(run.splitlines()):
            return True
    return False


def _lines_hold_pixels(lines: Sequence[str]) -> bool:
    """Whether a line has an image, or some lines have one row of it each."""
    rows = (_NUMBER.findall(line) for line in lines)
    for columns, group in groupby(rows, len):
        if columns >= _FEWEST:
            if any(map(_is_image, group)):
                return True
        elif columns >= _SIDE:
            some = [row for row, _ in zip(group, range(512), strict=False)]
            if len(some) >= _SIDE and _is_matrix(np.array(some, np.float64)):
                return True
    return False


def _is_matrix(values: NDArray[np.float64]) -> bool:
    """Whether rows of numbers have the range of an image in most columns; those of a table differ."""
    if (values != np.round(values)).any() or abs(values).max() > _LARGEST or len(np.unique(values)) < _FEW_VALUES:
        return False
    return bool(4 * np.median(np.ptp(values, axis=0)) >= np.ptp(values))


def _is_image(numbers: Sequence[str]) -> bool:
    """Whether numbers in a row may be an image: many, in a range of intensities, neither sorted nor pairs."""
    values = np.array(numbers[:_LOOKED_AT], np.float64)
    inside = np.concatenate([[False], abs(values) <= _LARGEST, [False]])
    starts, ends = np.flatnonzero(inside[1:] & ~inside[:-1]), np.flatnonzero(~inside[1:] & inside[:-1])
    return any(_are_intensities(values[a:b]) for a, b in zip(starts, ends, strict=True) if b - a >= _FEWEST)


def _are_intensities(values: NDArray[np.float64]) -> bool:
    different, steps = len(np.unique(values)), np.diff(values)
    if different < _FEW_VALUES or (steps >= 0).all() or (steps <= 0).all():
        return False
    if different == len(values) and (values == np.round(values)).all():  # indices
        return False
    if (np.diff(values[::2]) > 0).all() or (np.diff(values[1::2]) > 0).all():  # starts and lengths
        return False
    # Outlines and run lengths are pairs: each number is like the one before the last.
    return not np.median(abs(values[2:] - values[:-2])) < np.median(abs(steps)) / 2
