"""Rows of small images that were read and checked, kept for the next image in them."""

from __future__ import annotations

from collections.abc import Callable

from monai_salm.store.rows import Row

# Bytes of noise that are kept, and images whose places are.
_MOST, _MOST_PLACES = 2**25, 2**17


class RowCache:
    """The rows that one thread used last, by their number in the store; none of large images, whose noise fills memory."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._size = 0
        self._places: dict[tuple[str, bytes], int] = {}

    def place(self, table: str, digest: bytes) -> int | None:
        """The place of an image that was found before."""
        return self._places.get((table, digest))

    def found(self, table: str, digest: bytes, place: int) -> None:
        """Keep the place of an image: those that are found once have it for good."""
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        self._places[table, digest] = place

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
