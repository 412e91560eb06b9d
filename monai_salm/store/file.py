"""The SQLite file under a noise store: its schema, and opening it without trusting what is in it."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from monai_salm.noise.noise import NoiseStoreError
from monai_salm.shared.disk import warn_if_others_can_read
from monai_salm.store.forking import forked_inside, using_sqlite

#: SQLite's application_id ("SALM") and user_version: how a store is told from any other database.
APPLICATION_ID = 0x53414C4D
FORMAT_VERSION = 7
# Checksums come first: SQLite reads a long row only as far as it is asked for.
SCHEMA = {
    "meta": "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), json TEXT NOT NULL, checksum BLOB NOT NULL)",
    "kind": """CREATE TABLE kind (
    id INTEGER PRIMARY KEY, shape TEXT NOT NULL, dtype TEXT NOT NULL, quantum REAL NOT NULL, code_dtype TEXT NOT NULL
)""",
    "noise": """CREATE TABLE noise (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, checksum BLOB NOT NULL, digests BLOB NOT NULL, names BLOB NOT NULL,
    windows BLOB NOT NULL, codes BLOB NOT NULL, residual BLOB
)""",
    "original": "CREATE TABLE original (key INTEGER PRIMARY KEY, place INTEGER NOT NULL)",
    "protected": "CREATE TABLE protected (key INTEGER PRIMARY KEY, place INTEGER NOT NULL)",
    "kept": "CREATE TABLE kept (key TEXT PRIMARY KEY, checksum BLOB NOT NULL, data BLOB NOT NULL) WITHOUT ROWID",
    "record": "CREATE TABLE record (id INTEGER PRIMARY KEY, json TEXT NOT NULL, checksum BLOB NOT NULL)",
    "network": "CREATE TABLE network (id INTEGER PRIMARY KEY, checksum BLOB NOT NULL, spec TEXT NOT NULL, weights BLOB NOT NULL)",
    "seal": """CREATE TABLE seal (
    id INTEGER PRIMARY KEY CHECK (id = 0), owner BLOB NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL
)""",
}
_WAIT_SECONDS, _PAUSE_SECONDS = 60, 0.1
# Small: rows of small images end anywhere in a page, and what is left of it is lost.
_PAGE_SIZE = 1024
_GIVE = "Give the file that precompute() or `monai-salm generate` wrote"
_MAGIC, _HEADER_SIZE = b"SQLite format 3\0", 100


class HeldConnection:
    """A connection that is closed when this object has no references left, for example when its thread ends.

    Python 3.13 warns of connections that are left to the garbage collector.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.pid = connection, os.getpid()
        # Not __del__: of a cycle (a store that an exception's frames hold) the garbage collector finalizes the oldest first,
        # and that is the connection. What a weak reference calls is called before them all.
        self._finalizer = weakref.finalize(self, _close, connection, self.pid)
        # A daemon thread may be within a query when Python exits.
        self._finalizer.atexit = not threading.current_thread().daemon

    def close(self) -> None:
        """Close the connection; one that came through a fork is left open."""
        self._finalizer()


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        with using_sqlite():
            connection.close()
    else:
        # It came through a fork. SQLite would undo in the file what the parent is writing, so that not even the end of this
        # process may close it: one reference stays for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def create_file(
    path: Path, description: tuple[str, bytes], finish: Callable[[sqlite3.Connection], None] = lambda connection: None
) -> None:
    """Make a store file, whole or not at all, that only its owner can read; FileExistsError if the path exists.

    The description is the JSON text of what the store is made with, and its checksum. ``finish`` may write more.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with _transaction(path) as connection:
            for statement in SCHEMA.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            connection.execute("INSERT INTO meta VALUES (0, ?, ?)", description)
            finish(connection)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a store file for reading only; NoiseStoreError if it is not there or is no store. Any thread may close the connection."""
    require_file(path)
    with _telling(path):
        try:
            return _open(path, "ro")
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
        # A writer was killed half-way: what it left is undone by the next connection that may write.
        _look(path)
        return _open(path, "ro")


@contextmanager
def write(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes to an existing store; what the block does is committed whole or not at all."""
    require_file(path)
    with _telling(path):
        _look(path)  # before it is written to: a trigger in a foreign file must never run
    with _transaction(path) as connection:
        yield connection


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: Exception) -> NoiseStoreError:
    """What an error of SQLite's means for the user of the store."""
    text = str(error)
    meanings = {
        "locked": f"{path} is in use by another process ({text}): try again when it is done",
        "readonly": f"{path} cannot be written ({text}): make the file and its folder writable, or copy the store",
        "full": f"no room for {path} ({text}): make room and make the same call again; it is as it was before",
        "unable to open": f"{path} cannot be used ({text}): check its permissions",
    }
    meanings["disk I/O"] = meanings["full"]  # beyond a limit on the size of files
    meaning = next((meaning for word, meaning in meanings.items() if word in text), None)
    return NoiseStoreError(meaning) if meaning else _cut_off(path) or damaged(path, text)


def damaged(path: Path, what: str) -> NoiseStoreError:
    """The error for a file that is not as it was written."""
    return NoiseStoreError(f"{path} is damaged: {what}. Restore it from a backup or generate it again")


def _cut_off(path: Path) -> NoiseStoreError | None:
    """The error for a file that is shorter than its own header says, as an interrupted copy is; None if it is not."""
    try:
        with open(path, "rb") as file:
            header, size = file.read(_HEADER_SIZE), path.stat().st_size
    except OSError:  # asked while another error is told, which must not be hidden
        return None
    if size and not header.startswith(_MAGIC):
        return None
    # https://www.sqlite.org/fileformat.html, section 1.3: the size of a page at byte 16, the number of pages at byte 28.
    page, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    whole = pages * (65_536 if page == 1 else page)
    if size and size >= whole:
        return None
    held = f"holds {size:,} of its {whole:,} bytes" if size else "is empty"
    return NoiseStoreError(f"{path} is cut off: it {held}. Copy it again from where it is whole, or generate it again")


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    start, pid = time.monotonic(), os.getpid()
    _require_own_locks(path)
    with using_sqlite(), _telling(path):
        connection = sqlite3.connect(_uri(path, "rw"), uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a file that is still empty
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            if os.getpid() == pid:  # a child that was forked inside leaves its parent's transaction alone
                connection.execute("COMMIT")
        finally:
            _close(connection, pid)  # undoes what was not committed
    # Those who wait for SQLite's lock look for it every tenth of a second; one who writes without a pause keeps them out.
    time.sleep(min(_PAUSE_SECONDS, (time.monotonic() - start) / 10))


def _require_own_locks(path: Path) -> None:
    if forked_inside():
        raise NoiseStoreError(
            f"{path} cannot be opened in this process: it was forked by a thread that was reading or writing a store. Start "
            "processes before or after, or with the method spawn"
        )


def _open(path: Path, mode: str) -> sqlite3.Connection:
    _require_own_locks(path)
    with using_sqlite():
        connection = sqlite3.connect(_uri(path, mode), uri=True, timeout=_WAIT_SECONDS, check_same_thread=False)
        try:
            _inspect(path, connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _look(path: Path) -> None:
    with using_sqlite():
        _open(path, "rw").close()


def _uri(path: Path, mode: str) -> str:
    return f"{file_uri(path.resolve())}?mode={mode}"


def file_uri(path: PurePath) -> str:
    """An absolute path as the URI that SQLite takes, which may have no host: that of a Windows share goes into the path."""
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else "file:////" + uri.removeprefix("file://")


def require_file(path: Path) -> None:
    """Refuse a path at which there is no file."""
    if not path.is_file():
        if path.is_dir():
            raise NoiseStoreError(f"no noise store at {path}: it is a folder; give the path of the store's file")
        raise NoiseStoreError(
            f"no noise store at {path}: give the path of the one you have, or make one with precompute() or `monai-salm generate`"
        )
    warn_if_others_can_read(path)


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells the file at a path from another that took its place; None if there is none."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        return None


def _inspect(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse other databases, and those with triggers, views or anything else that a store has not."""
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        # SQLite's own indices of primary keys have no text.
        objects = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type != 'index' OR sql IS NOT NULL"
        ).fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise _cut_off(path) or NoiseStoreError(f"{path} is not a noise store: {error}. {_GIVE}") from error
    if application != APPLICATION_ID:
        raise _cut_off(path) or NoiseStoreError(
            f"{path} is not a noise store (application id {application:#x}). {_GIVE}"
        )
    if version != FORMAT_VERSION:
        raise NoiseStoreError(
            f"{path} has store format {version}, this version of monai_salm reads {FORMAT_VERSION}: use the version that wrote it, "
            "or make the noise again"
        )
    if sorted(objects, key=repr) != sorted(SCHEMA.items(), key=repr):
        foreign = [str(name)[:80] for name, sql in objects if SCHEMA.get(name) != sql]
        missing = SCHEMA.keys() - {name for name, _ in objects}
        raise damaged(path, f"its tables are not those of a store ({', '.join(sorted([*foreign, *missing]))})")
