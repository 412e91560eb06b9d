"""The noise store: one SQLite file with every image's effective noise, found by the image's content."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from monai_salm.noise.digest import DIGEST_SIZE
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.noise.window import WindowRule
from monai_salm.store.file import (
    APPLICATION_ID,
    FORMAT_VERSION,
    HeldConnection,
    create_file,
    damaged,
    identity_of,
    open_reader,
    store_error,
)
from monai_salm.store.forking import using_sqlite
from monai_salm.store.packing import RowError
from monai_salm.store.records import StoreSettings, check_records, read_description, reading, settings_of, spec_of
from monai_salm.store.rows import (
    MAX_IMAGES,
    PLACE,
    ROW,
    Row,
    RowCache,
    RowWriter,
    checksum,
    digest_at,
    key_of,
    parse_shape,
    unpack_names,
)
from monai_salm.store.seal import make_key, owner_key_path, sign, write_sealed

__all__ = ["APPLICATION_ID", "FORMAT_VERSION", "Noise", "NoiseStore", "NoiseStoreError", "StoreSettings"]


class NoiseStore:
    """A store of noise, opened when first used and safe to hand to DataLoader workers (fork, spawn or threads).

    Args:
        path: the SQLite file, made by ``precompute`` or ``NoiseStore.create``.
        key: file of the owner's key, by which ``publish``, ``verify`` and ``restore`` know the owner's store. None is
            ``$MONAI_SALM_KEY``, or ``owner.key`` in the user's configuration folder.
        unsigned: let them use a store that the owner's key does not prove. A write to a store of another key takes its
            signature off.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None, unsigned: bool = False
    ) -> None:
        self.path, self.unsigned = Path(path), unsigned
        self.key = owner_key_path() if key is None else Path(key)
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key, "unsigned": self.unsigned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"NoiseStore({str(self.path)!r})"

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], meta: Mapping[str, Any], *, key: str | os.PathLike[str] | None = None
    ) -> NoiseStore:
        """Make an empty store, readable by its owner only and signed by the owner's key, which is made if there is none.

        Args:
            path: must not exist.
            meta: method, task, window, seed and versions, as plain JSON values.
            key: file of the owner's key, as for the store.

        Raises:
            FileExistsError: if the path exists.
            NoiseStoreError: if the file is no owner's key, others can read it, or it cannot be made.
        """
        store, text = cls(path, key=key), json.dumps(meta, sort_keys=True)
        secret = make_key(store.key)
        create_file(store.path, (text, checksum(text)), lambda connection: sign(connection, secret))
        return store

    @property
    def meta(self) -> dict[str, Any]:
        """What the store was made with: ``method, task, window, seed, versions, ...``; NoiseStoreError if it cannot be read."""
        return read_description(self)

    @property
    def settings(self) -> StoreSettings:
        """What every image's noise keeps to; NoiseStoreError if the description cannot be read, or lacks something."""
        return settings_of(self)

    @property
    def window(self) -> WindowRule:
        """The rule that chose each image's window."""
        return self.settings.window

    def __len__(self) -> int:
        return int(self.rows("SELECT count(*) FROM original")[0][0])

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, bytes) and (digest,) in self.rows(digest_at("original"), (key_of(digest),))

    def __iter__(self) -> Iterator[Noise]:
        """All noise, in the order of the digests; one row in memory at a time."""
        for (digest,) in self.rows(f"{digest_at('original', all_of_them=True)} ORDER BY key"):
            noise = self.get(digest) if isinstance(digest, bytes) else None
            if noise is None:
                raise damaged(self.path, "a row cannot be found again by its key")
            yield noise

    def __getitem__(self, digest: bytes) -> Noise:
        noise = self.get(digest)
        if noise is None:
            raise KeyError(digest.hex())
        return noise

    def get(self, digest: bytes, shape: tuple[int, ...] | None = None) -> Noise | None:
        """Noise for the original image with this content digest, or None.

        Args:
            digest: from ``content_digest``.
            shape: the image's; a row that claims another is refused before it takes memory.

        Raises:
            NoiseStoreError: if the store or the row is damaged.
        """
        return self._find("original", digest, shape)

    def get_protected(self, digest: bytes, shape: tuple[int, ...] | None = None) -> Noise | None:
        """Noise that is in the protected image with this content digest, or None; else as ``get``."""
        return self._find("protected", digest, shape)

    def has_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether any stored noise is of this shape (to tell why an image was not found)."""
        return bool(self.rows("SELECT 1 FROM kind WHERE shape = ? LIMIT 1", (json.dumps(list(shape)),)))

    def shapes(self, limit: int = 3) -> list[tuple[int, ...]]:
        """A few of the shapes that the store has noise for."""
        return self._shapes(self.rows(f"SELECT DISTINCT shape FROM kind LIMIT {int(limit)}"))

    def shapes_of(self, name: str) -> list[tuple[int, ...]]:
        """Shapes of the noise of the cases of this name; names need not be unique."""
        query = "SELECT shape, names, length(digests) FROM noise JOIN kind ON kind.id = noise.kind ORDER BY kind.id"
        rows = [row for row in self.rows(query) if name in self._names(*row[1:])]
        return list(dict.fromkeys(self._shapes([(shape,) for shape, *_ in rows])))

    def dtypes(self) -> list[str]:
        """The stored types that the noise was made on."""
        return sorted(str(dtype) for (dtype,) in self.rows("SELECT DISTINCT dtype FROM kind"))

    def add(self, noises: Iterable[Noise]) -> None:
        """Add noise in one transaction: all of it or none. An image already there keeps its noise.

        NoiseStoreError if the file is no store, is damaged or cannot be written, or the noise is not storable.
        """
        with write_sealed(self) as connection:
            writer = RowWriter(connection)
            for noise in noises:
                writer.add(noise)
            writer.finish()

    def add_network(self, spec: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        """Keep a surrogate, for images that come later: the arguments of ``build_network``, and its state dictionary."""
        text = json.dumps(spec, sort_keys=True)
        blob = save_tensors({k: v.detach().cpu().contiguous() for k, v in weights.items()})
        with write_sealed(self) as connection:
            connection.execute(
                "INSERT INTO network (spec, weights, checksum) VALUES (?, ?, ?)", (text, blob, checksum(text, blob))
            )

    def networks(self) -> list[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
        """The surrogates kept by ``add_network``, oldest first, as (spec, state dictionary); NoiseStoreError if one is damaged."""
        found = []
        for spec, weights, stated in self.rows("SELECT spec, weights, checksum FROM network ORDER BY id"):
            with reading(self, "a surrogate does not match its checksum"):
                if stated != checksum(spec, weights):
                    raise ValueError("checksum")
                try:
                    found.append((spec_of(spec), load_tensors(weights)))
                except SafetensorError as error:
                    raise ValueError(str(error)) from error
        return found

    def check(self) -> int:
        """The number of images; reads everything, and raises NoiseStoreError for the first thing that is damaged, or no noise."""
        if self.rows("PRAGMA integrity_check") != [("ok",)]:
            raise damaged(self.path, "SQLite's integrity check fails")
        self.networks()
        check_records(self)
        found = sum(self._check_row(number) for (number,) in self.rows("SELECT id FROM noise ORDER BY id"))
        if found != len(self):
            raise damaged(self.path, f"it holds {found} images, and finds {len(self)} by their keys")
        if not found:
            raise NoiseStoreError(f"{self.path} holds no noise. Fill it with precompute() or `monai-salm generate`")
        return found

    def _check_row(self, number: int) -> int:
        """Unpack a row, and find its images by their keys; how many there are."""
        row = self._read_row(number)
        with self._reading_row(row.shape):
            row.check()
        for index, name in enumerate(row.names):
            original, protected = row.known(index)
            if self.rows(PLACE["original"], (key_of(original),)) != [(number * MAX_IMAGES + index,)]:
                raise damaged(self.path, f"case {name!r} cannot be found again by its key")
            if not self.rows(PLACE["protected"], (key_of(protected),)):
                raise damaged(self.path, f"case {name!r} cannot be found again by its protected image")
        return row.count

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        held = getattr(self._local, "held", None)
        if held is not None:
            self._local.held = None
            held.close()

    def _find(self, table: str, digest: bytes, shape: tuple[int, ...] | None) -> Noise | None:
        place = self._local.cache.place(table, digest) if self._is_open() else None
        if place is None:
            places = self.rows(PLACE[table], (key_of(digest),))
            if not places:
                return None
            place = places[0][0]
            if not isinstance(place, int):
                raise damaged(self.path, "the place of an image is no number")
        number, index = divmod(place, MAX_IMAGES)
        cache: RowCache = self._local.cache
        row = cache.row(number, lambda number: self._read_row(number, shape))
        with self._reading_row(row.shape):
            if shape is not None and row.shape != shape:
                raise RowError(f"it claims the shape {row.shape}, the image has {shape}")
            noise = row.noise(index)
            if digest != (noise.digest if table == "original" else noise.protected):
                raise RowError("it is filed under another image")
        cache.found(table, digest, place)
        return noise

    def _read_row(self, number: int, shape: tuple[int, ...] | None = None) -> Row:
        rows = self.rows(ROW, (number,))
        if not rows:
            raise damaged(self.path, "an image's key leads to no row")
        with self._reading_row(rows[0][0]):
            return Row(rows[0], shape)

    @contextmanager
    def _reading_row(self, shape: object) -> Iterator[None]:
        try:
            yield
        except (RowError, MemoryError) as error:
            what = f"noise of shape {str(shape)[:99]} is not as it was written: {error}"
            raise damaged(self.path, what) from error

    def _shapes(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, ...]]:
        with reading(self, "a row holds no shape"):
            return [parse_shape(text) for (text,) in rows]

    def _names(self, names: bytes, size: int) -> list[str]:
        with reading(self, "a row holds no names"):
            return unpack_names(names, size // (2 * DIGEST_SIZE))

    def _is_open(self) -> bool:
        # A connection is for one process, one thread and one file: precompute replaces a store by renaming.
        held: HeldConnection | None = getattr(self._local, "held", None)
        return held is not None and held.pid == os.getpid() and self._local.file == identity_of(self.path)

    def _connect(self) -> sqlite3.Connection:
        if not self._is_open():
            self.close()
            file = identity_of(self.path)
            self._local.held, self._local.file = HeldConnection(open_reader(self.path)), file
            self._local.cache = RowCache()
        connection: sqlite3.Connection = self._local.held.connection
        return connection

    def rows(self, query: str, values: tuple[object, ...] = (), again: bool = True) -> list[tuple[Any, ...]]:
        """What a query gives, for modules that keep more in a store; NoiseStoreError if the store cannot be read."""
        try:
            with using_sqlite():
                return self._connect().execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            if again and "readonly" in str(error):  # a writer was killed; opening the file again undoes what it left
                self.close()
                return self.rows(query, values, again=False)
            raise store_error(self.path, error) from error
