"""The owner's key, and the seal of a store: one keyed digest of all in it, by which the key tells the store from any other.

The seal is MSet-XOR-Hash (Clarke et al., ASIACRYPT 2003) with keyed BLAKE2b: the XOR of a keyed hash of every row, and of one of
a random nonce. A write changes it by the rows that it changes. So a write never makes a row right that was forged before it.
A row is bound by its checksum, which is compared with the content when the row is read.
"""

from __future__ import annotations

import enum
import os
import secrets
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_salm.noise.noise import NoiseStoreError
from monai_salm.store.file import FORMAT_VERSION, damaged, write

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore

#: Names another file than the one in the user's configuration folder.
VARIABLE = "MONAI_SALM_KEY"
#: What of each table goes into the seal.
SEALED = {
    "meta": "id, checksum",
    "kind": "id, shape, dtype, quantum, code_dtype",
    "noise": "id, kind, checksum",
    "original": "key, place",
    "protected": "key, place",
    "kept": "key, checksum",
    "record": "id, checksum",
    "network": "id, checksum",
}
_SIZE, _TRIES = 32, 20
_SEAL = "SELECT owner, nonce, digest FROM seal"
_ROW, _NONCE, _OWNER = (f"salm{FORMAT_VERSION} {what}".encode() for what in ("row", "nonce", "owner"))


def owner_key_path() -> Path:
    """The file that holds the owner's key, unless one is named: ``$MONAI_SALM_KEY``, or ``owner.key`` in the user's configuration."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"  # an empty name counts as none
    return Path(base) / "monai_salm" / "owner.key"


def read_key(path: Path) -> bytes | None:
    """The owner's key in a file, or None if there is none; NoiseStoreError if it cannot be read, is no key, or others can read it."""
    try:
        mode, key = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoiseStoreError(
            f"the owner's key {path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if len(key) != _SIZE:
        raise NoiseStoreError(
            f"{path} is no owner's key: it has {len(key)} bytes, a key has {_SIZE}. Give the right file: --key FILE, or ${VARIABLE}"
        )
    if os.name == "posix" and mode & 0o077:
        raise NoiseStoreError(f"others can read the owner's key {path} (mode {mode:04o}): chmod 600 {path}")
    return key


def make_key(path: Path) -> bytes:
    """The owner's key in a file, which is made if it is not there; NoiseStoreError as for ``read_key``, or if it cannot be made."""
    key = read_key(path)
    if key is not None:
        return key
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, this never replaces a key that another process has just made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise NoiseStoreError(
            f"the owner's key {path} cannot be made: {error.strerror or error}. Name another file: --key FILE, or ${VARIABLE}"
        ) from error
    made = read_key(path)
    assert made is not None
    return made


class SealState(enum.Enum):
    """What an owner's key says of a store; the value is the reason for not trusting it."""

    PROVED = ""
    UNSIGNED = "is not signed by an owner's key, so anybody may have made it"
    NO_KEY = "is signed by its owner's key, and there is no key in {key}"
    OTHER_KEY = "is signed by another key than {key}"
    CHANGED = "was changed since the owner's key {key} signed it"


def seal_state(store: NoiseStore) -> SealState:
    """Whether a store is as the owner's key signed it; reads all checksums once. NoiseStoreError if it cannot be read."""
    key = read_key(store.key)
    for _ in range(_TRIES):
        found = store.rows(_SEAL)
        if not found:
            return SealState.UNSIGNED
        owner, nonce, digest = found[0]
        if key is None:
            return SealState.NO_KEY
        if owner != _owner(key):
            return SealState.OTHER_KEY
        own = _hash(key, _NONCE, nonce)
        for table, columns in SEALED.items():
            for row in store.rows(f"SELECT {columns} FROM {table}"):
                own ^= _hash(key, _ROW, table, *row)
        if digest == own.to_bytes(_SIZE, "big"):
            return SealState.PROVED
        if store.rows(_SEAL) == found:
            return SealState.CHANGED
        # The owner wrote to it meanwhile, and every write makes another seal.
    raise NoiseStoreError(f"{store.path} is being written to: try again when that is done")


def require_owner(store: NoiseStore) -> None:
    """Refuse a store that the owner's key does not prove, unless it was opened with ``unsigned=True``."""
    state = SealState.PROVED if store.unsigned else seal_state(store)
    if state is not SealState.PROVED:
        raise NoiseStoreError(
            f"{store.path} {state.value.format(key=store.key)}. Give the owner's key (--key FILE, or ${VARIABLE}) or a store from a "
            "backup, or use this one unproved: --unsigned (NoiseStore(path, unsigned=True))"
        )


@contextmanager
def write_sealed(store: NoiseStore) -> Iterator[sqlite3.Connection]:
    """A connection that writes to a store, as ``file.write``; the seal follows what is written.

    NoiseStoreError if the store cannot be written, or is signed by a key that is not at hand.
    """
    with write(store.path) as connection:
        found = connection.execute(_SEAL).fetchone()
        key = read_key(store.key) if found else None
        if found and (key is None or found[0] != _owner(key)):
            if not store.unsigned:
                raise NoiseStoreError(
                    f"{store.path} is signed by its owner's key, which is needed to write to it, and {store.key} is not that key. "
                    f"Give it: --key FILE, or ${VARIABLE}"
                )
            connection.execute("DELETE FROM seal")
            key = None
        if key is None:
            yield connection
            return
        if not isinstance(found[2], bytes) or len(found[2]) != _SIZE:
            raise damaged(store.path, "its signature is cut off")
        changed = _watch(connection, key)
        yield connection
        _store(connection, key, changed[0] ^ int.from_bytes(found[2], "big") ^ _hash(key, _NONCE, found[1]))


def sign(connection: sqlite3.Connection, key: bytes) -> None:
    """Sign a store that has its description alone."""
    checksum = connection.execute("SELECT id, checksum FROM meta").fetchone()
    _store(connection, key, _hash(key, _ROW, "meta", *checksum))


def may_write(store: NoiseStore) -> bool:
    """Whether a write keeps what the owner's key signed: there is no seal, or it is of the key at hand."""
    found, key = store.rows("SELECT owner FROM seal"), read_key(store.key)
    return not found or (key is not None and found[0][0] == _owner(key))


def _watch(connection: sqlite3.Connection, key: bytes) -> list[int]:
    """A number that follows the hashes of all rows that this connection inserts and deletes."""
    changed = [0]

    def toggle(*row: Any) -> None:
        changed[0] ^= _hash(key, _ROW, *row)

    connection.create_function("salm_toggle", -1, toggle)
    connection.execute("PRAGMA recursive_triggers = ON")  # else a row that is replaced is deleted unseen
    for table, columns in SEALED.items():
        for event, sides in (("INSERT", ("NEW",)), ("DELETE", ("OLD",)), ("UPDATE", ("OLD", "NEW"))):
            rows = (", ".join(f"{side}.{column}" for column in columns.split(", ")) for side in sides)
            calls = " ".join(f"SELECT salm_toggle('{table}', {row});" for row in rows)
            # It is in memory, not in the file.
            connection.execute(f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} BEGIN {calls} END")
    return changed


def _store(connection: sqlite3.Connection, key: bytes, rows: int) -> None:
    nonce = secrets.token_bytes(16)
    digest = (rows ^ _hash(key, _NONCE, nonce)).to_bytes(_SIZE, "big")
    connection.execute("INSERT OR REPLACE INTO seal VALUES (0, ?, ?, ?)", (_owner(key), nonce, digest))


def _hash(key: bytes, person: bytes, *values: object) -> int:
    """A keyed hash of plain values of SQLite's."""
    digest = blake2b(repr(values).encode("utf-8", "backslashreplace"), digest_size=_SIZE, key=key, person=person)
    return int.from_bytes(digest.digest(), "big")


def _owner(key: bytes) -> bytes:
    """What tells one key from another without saying it."""
    return blake2b(digest_size=16, key=key, person=_OWNER).digest()
