"""Files that are read and unpacked once while an image is worked on, however many things are asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_OPENED: ContextVar[dict[tuple[Path, str], Any] | None] = ContextVar("opened files", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """A block in which this thread opens each file once; it does not see later changes of a file."""
    if _OPENED.get() is not None:  # within such a block
        yield
        return
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)


def opened(path: Path, kind: str, open_file: Callable[[Path], T]) -> T:
    """What a file was opened as, kept to the end of an ``opened_once`` block.

    Args:
        path: the file.
        kind: what it is opened as.
        open_file: opens it.
    """
    files = _OPENED.get()
    if files is None:
        return open_file(path)
    if (path, kind) not in files:
        files[path, kind] = open_file(path)
    found: T = files[path, kind]
    return found


def forget(path: Path, kind: str) -> None:
    """Open a file again when it is asked for next: other voxels were written into what was opened."""
    files = _OPENED.get()
    if files is not None:
        files.pop((path, kind), None)
