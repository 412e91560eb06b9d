"""What a store and a copy hold, changed at random as in ``mutations``, with checksums and signatures that fit it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import docs_samples
import numpy as np
from forged_stores import plant
from format_samples import save_dicom, save_picture
from mutations import Kind
from published_samples import make_folder

from monai_salm.formats import FormatError, format_of
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import open_layout
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, verify_copy
from monai_salm.publishing.manifest import read_manifest
from monai_salm.publishing.signing import sign_manifest
from monai_salm.store.as_loaded import find_as_loaded
from monai_salm.store.records import records
from monai_salm.store.rows import COLUMNS, KIND, checksum
from monai_salm.store.store import NoiseStore, NoiseStoreError

#: Between the values of a row.
_MARK = b"\0|\0"
_VALUES = len(KIND) + len(COLUMNS) - 1


def _store(path: Path) -> Path:
    data = open_layout(make_folder(path.with_name("set"), "int16"))
    settings: dict[str, Any] = {"window": IntensityWindow(-500, 500), "task": data.task(), "device": "cpu"}
    precompute(data.dataset(), path, method=RandomNoise(), **settings).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = MEMORY")
    return path


def _use(path: Path) -> None:
    """Read all of a store; the first error is raised after each use was tried."""
    store, errors = NoiseStore(path, unsigned=True), list[NoiseStoreError]()
    uses: list[Callable[[], Any]] = [
        store.check,
        lambda: list(store),
        lambda: store.settings,
        lambda: records(store),
        lambda: store.shapes_of("i0"),
        lambda: find_as_loaded(store, np.full((1, 7, 6, 5), 33, np.float32)),
    ]
    for use in uses:
        try:
            use()
        except NoiseStoreError as error:
            errors.append(error)
    store.close()
    if errors:
        raise errors[0]


def _row(folder: Path) -> Path:
    """The values of a row, beside the store ``row.db``."""
    with closing(sqlite3.connect(_store(folder / "row.db"))) as connection:
        columns = ", ".join([*KIND, *COLUMNS[:-1]])
        row = connection.execute(f"SELECT {columns} FROM noise JOIN kind ON kind.id = noise.kind").fetchone()
    values = [value if isinstance(value, bytes) else b"" if value is None else str(value).encode() for value in row]
    (folder / "row").write_bytes(_MARK.join(values))
    return folder / "row"


def _read_row(path: Path) -> None:
    parts = path.read_bytes().split(_MARK, _VALUES - 1)
    shape, dtype, quantum, code_dtype, *blobs = [*parts, *[b""] * (_VALUES - len(parts))]
    kind: list[Any] = [part.decode("utf-8", "replace") for part in (shape, dtype, quantum, code_dtype)]
    try:
        kind[2] = float(quantum)
    except ValueError:
        kind[2] = 1.0
    row = [*blobs[:-1], blobs[-1] or None]
    with closing(sqlite3.connect(path.with_suffix(".db"))) as connection, connection:
        connection.execute(f"UPDATE kind SET {' = ?, '.join(KIND)} = ?", kind)
        connection.execute(f"UPDATE noise SET {' = ?, '.join(COLUMNS)} = ?", [*row, checksum(*kind, *row)])
    _use(path.with_suffix(".db"))


def _description(folder: Path) -> Path:
    path = folder / "description"
    path.write_text(json.dumps(NoiseStore(_store(folder / "description.db")).meta))
    return path


def _record(folder: Path) -> Path:
    """The record of a published copy, in the store ``record.db``."""
    store = NoiseStore(_store(folder / "record.db"))
    publish(folder / "set", folder / "out", store)
    (folder / "record").write_text(json.dumps(records(store)[-1]))
    return folder / "record"


def _plant(statement: str) -> Callable[[Path], None]:
    """A reader of a file that puts its text into the store beside it and reads the store."""

    def read(path: Path) -> None:
        text = path.read_bytes().decode("utf-8", "replace")
        plant(path.with_suffix(".db"), statement, text, (text,))
        _use(path.with_suffix(".db"))

    return read


def _manifest(folder: Path) -> Path:
    """The manifest of a copy whose owner has the key ``key``."""
    store = NoiseStore(_store(folder / "noise.db"))
    publish(folder / "set", folder / "out", store)
    docs_samples.signing_keys(folder)
    return folder / "out/monai_salm.json"


def _read_manifest(path: Path) -> None:
    layout = open_layout(path.parent)
    read_manifest(layout)


def _read_signed(path: Path) -> None:
    sign_manifest(path, path.parents[1] / "key.pem")
    verify_copy(path.parent, path.parents[1] / "key.pub")


def _keepsake(save: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """What is kept of a file, beside the file."""

    def make(folder: Path) -> Path:
        image = save(folder)
        image = image.rename(image.with_name(f"keepsake{image.suffix}"))
        (folder / "keepsake").write_bytes(format_of(image).keepsake(image) or b"")
        return folder / "keepsake"

    return make


def _read_keepsake(path: Path) -> None:
    (image,) = (file for file in path.parent.glob("keepsake.*"))
    format_, target = format_of(image), path.parent / "restored" / image.name
    target.parent.mkdir(exist_ok=True)
    try:
        format_.restore(image, target, format_.read(image), path.read_bytes())
    finally:
        shutil.rmtree(target.parent)


STORES: dict[str, Kind] = {
    "store": Kind(lambda folder: _store(folder / "noise.db"), _use, (NoiseStoreError,)),
    "store_row": Kind(_row, _read_row, (NoiseStoreError,)),
    "store_description": Kind(_description, _plant("UPDATE meta SET json = ?, checksum = ?"), (NoiseStoreError,)),
    "store_record": Kind(_record, _plant("UPDATE record SET json = ?, checksum = ?"), (NoiseStoreError,)),
    "manifest": Kind(_manifest, _read_manifest, (ValueError,)),
    "manifest_signed": Kind(_manifest, _read_signed, ()),
    "keepsake_dicom": Kind(_keepsake(lambda folder: save_dicom(folder, "deflated")), _read_keepsake, (FormatError,)),
    "keepsake_picture": Kind(_keepsake(save_picture), _read_keepsake, (FormatError,)),
}
