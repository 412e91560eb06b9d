"""Where in a store an image's noise is: rows are found by the first bytes of the digests of the images in them."""

from __future__ import annotations

import sqlite3
from typing import Any

from monai_salm.noise.digest import DIGEST_SIZE
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.store.rows import COLUMNS, KIND, MAX_IMAGES, RowError, images_in_a_row, kind_of, pack_row

# A place is the number of a row, and which of its images it is.
_PLACED = f"JOIN noise ON noise.id = place / {MAX_IMAGES}"
_INDEX = f"place % {MAX_IMAGES}"
#: How an image's row is found, by the table that has its key: of original or of protected images.
ROW = {
    table: f"SELECT {_INDEX}, {', '.join(KIND)}, {', '.join(COLUMNS)} FROM {table} {_PLACED} "
    "JOIN kind ON kind.id = noise.kind WHERE key = ?"
    for table in ("original", "protected")
}
# Noise and places that wait to be written, at most. Places written in order leave no gaps in the file.
_MOST_WAITING, _MOST_PLACES = 2**12, 2**16


def key_of(digest: bytes) -> int:
    """What an image is filed under: the first 8 bytes of its digest as SQLite's signed integer, in the same order.

    The whole digest is in the row and is compared when it is read.
    """
    return int.from_bytes(digest[:8].ljust(8, b"\0"), "big") - 2**63


def digest_at(table: str, all_of_them: bool = False) -> str:
    """The query for the whole digest of the images under a key, or of all."""
    side = 0 if table == "original" else DIGEST_SIZE
    digest = f"substr(digests, {1 + side} + {2 * DIGEST_SIZE} * ({_INDEX}), {DIGEST_SIZE})"
    return f"SELECT {digest} FROM {table} {_PLACED}" + ("" if all_of_them else " WHERE key = ?")


class RowWriter:
    """Writes noise into a store in one transaction; images already there keep their noise.

    Args:
        connection: in a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.waiting: dict[tuple[Any, ...], list[Noise]] = {}
        self.unwritten: dict[int, bytes] = {}
        self.places: dict[str, dict[int, int]] = {"original": {}, "protected": {}}

    def add(self, noise: Noise) -> None:
        """Take noise; it is in the store after ``finish``.

        Raises:
            NoiseStoreError: if it is not storable.
        """
        try:
            kind = kind_of(noise)
            if self._known(noise):
                return
            group = self.waiting.setdefault(kind, [])
            group.append(noise)
            self.unwritten[key_of(noise.digest)] = noise.digest
            if len(group) >= images_in_a_row(noise.codes.size):
                self._write(kind)
        except RowError as error:
            raise NoiseStoreError(f"case {noise.name!r}: {error}") from error
        if sum(map(len, self.waiting.values())) > _MOST_WAITING or len(self.unwritten) > _MOST_PLACES:
            self.finish()

    def finish(self) -> None:
        """Write what still waits."""
        for kind in list(self.waiting):
            self._write(kind)
        for table, places in self.places.items():
            # Two originals may become one protected image; the first stays, as it does for originals.
            self.connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", sorted(places.items()))
            places.clear()
        self.unwritten.clear()

    def _known(self, noise: Noise) -> bool:
        key = key_of(noise.digest)
        stored = self.unwritten.get(key)
        if stored is None:
            row = self.connection.execute(digest_at("original"), (key,)).fetchone()
            stored = row and row[0]
        if stored is not None and stored != noise.digest:
            raise RowError("its digest begins as that of another image in the store, so both cannot be in one")
        return stored is not None

    def _write(self, kind: tuple[Any, ...]) -> None:
        noises = self.waiting.pop(kind)
        marks = ",".join("?" * len(COLUMNS))
        query = f"INSERT INTO noise (kind, {', '.join(COLUMNS)}) VALUES (?,{marks})"
        row = self.connection.execute(query, (self._kind(kind), *pack_row(noises))).lastrowid
        assert row is not None
        for index, noise in enumerate(noises):
            place = row * MAX_IMAGES + index
            self.places["original"][key_of(noise.digest)] = place
            self.places["protected"].setdefault(key_of(noise.protected), place)

    def _kind(self, kind: tuple[Any, ...]) -> int:
        where = " AND ".join(f"{name} = ?" for name in KIND)
        found = self.connection.execute(f"SELECT id FROM kind WHERE {where}", kind).fetchone()
        if found is None:
            query = f"INSERT INTO kind ({', '.join(KIND)}) VALUES (?,?,?,?)"
            return int(self.connection.execute(query, kind).lastrowid or 0)
        return int(found[0])
