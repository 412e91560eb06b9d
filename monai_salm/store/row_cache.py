"""Rows of small images that were read and checked, kept for the next image in them."""

from __future__ import annotations

from collections.abc import Callable

from monai_salm.store.rows import Row

# Rows that are kept, about 16 KiB each.
_MOST = 2048


class RowCache:
    """The rows that one thread used last, by their number in the store; none of large images, whose noise fills memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    def row(self, number: int, read: Callable[[int], Row]) -> Row:
        """A row that is kept, or what ``read`` gives for its number."""
        row = self._rows.pop(number, None)
        if row is None:
            row = read(number)
        if row.is_small:
            self._rows[number] = row  # the last in order is the last that was used
            if len(self._rows) > _MOST:
                del self._rows[next(iter(self._rows))]
        return row
