"""Rows of small images that were read and checked, kept for the next image in them."""

from __future__ import annotations

from collections.abc import Callable

from monai_salm.store.rows import Row

# Bytes of noise that are kept.
_MOST = 2**25


class RowCache:
    """The rows that one thread used last, by their number in the store; none of large images, whose noise fills memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._size = 0

    def row(self, number: int, read: Callable[[int], Row]) -> Row:
        """A row that is kept, or what ``read`` gives for its number."""
        row = self._rows.pop(number, None)
        if row is None:
            row = read(number)
            self._size += row.kept_bytes
        if row.kept_bytes:
            self._rows[number] = row  # the last in order is the last that was used
            while self._size > _MOST:
                self._size -= self._rows.pop(next(iter(self._rows))).kept_bytes
        return row
