"""What an owner keeps in a store beside the noise: the originals' headers, and a record of every published copy."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from monai_salm.store.file import create_file, damaged, open_reader, store_error, write
from monai_salm.store.rows import checksum


class Rows(Protocol):
    """What is needed of a ``NoiseStore``, which imports this module."""

    path: Path

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]: ...


def keep(store: Rows, parts: Mapping[str, bytes]) -> None:
    """Keep what a published copy lacks, so that ``restore`` can give it back; a part of the same key is replaced.

    Args:
        store: the store.
        parts: key -> bytes.

    Raises:
        NoiseStoreError: if the store cannot be written.
    """
    if not parts:
        return
    with write(store.path) as connection:
        rows = [(key, data, checksum(key, data)) for key, data in parts.items()]
        connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)


def kept(store: Rows, key: str) -> bytes | None:
    """What ``keep`` was given under a key, or None.

    Raises:
        NoiseStoreError: if it is damaged.
    """
    for data, stated in store.rows("SELECT data, checksum FROM kept WHERE key = ?", (key,)):
        if stated != checksum(key, data):
            raise damaged(store.path, f"what it keeps of {key[:200]!r} does not match its checksum")
        return bytes(data)
    return None


def add_record(store: Rows, record: Mapping[str, Any]) -> None:
    """Write down that a copy was published.

    Args:
        store: the store.
        record: plain JSON values.

    Raises:
        NoiseStoreError: if the store cannot be written.
    """
    text = json.dumps(record, sort_keys=True)
    with write(store.path) as connection:
        connection.execute("INSERT INTO record (json, checksum) VALUES (?, ?)", (text, checksum(text)))


def records(store: Rows) -> list[dict[str, Any]]:
    """All records, oldest first.

    Raises:
        NoiseStoreError: if one is damaged.
    """
    found = []
    for text, stated in store.rows("SELECT json, checksum FROM record ORDER BY id"):
        if stated != checksum(text):
            raise damaged(store.path, "a record of a published copy does not match its checksum")
        found.append(dict(json.loads(text)))
    return found


def check_records(store: Rows) -> None:
    """Read all keepsakes and records once.

    Raises:
        NoiseStoreError: at the first that is damaged.
    """
    for (key,) in store.rows("SELECT key FROM kept"):
        kept(store, key)
    records(store)


def copy_without_records(store: Path, target: Path) -> Path:
    """A consistent copy of a store without the record of published copies, which holds paths of the owner's machine.

    Args:
        store: the store; others may be writing to it.
        target: must not exist; readable by its owner only.

    Returns:
        The target.

    Raises:
        NoiseStoreError: if the store cannot be read.
    """
    create_file(target, ("{}", b""))
    reader = open_reader(store)
    try:
        with write(target) as connection:
            for table in ("meta", "kind", "noise", "original", "protected", "network", "kept"):
                connection.execute(f"DELETE FROM {table}")
                for row in reader.execute(f"SELECT * FROM {table}"):
                    connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    except sqlite3.Error as error:
        raise store_error(store, error) from error
    finally:
        reader.close()
    return target
