"""What a store holds beside the noise: its description, the originals' headers, and a record of every published copy."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_salm.noise.units import Units
from monai_salm.noise.window import WindowRule, rule_from_spec
from monai_salm.shared.arrays import Array
from monai_salm.store.file import create_file, damaged, open_reader, store_error, write
from monai_salm.store.forking import using_sqlite
from monai_salm.store.rows import checksum
from monai_salm.store.seal import write_sealed

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore


@dataclass(frozen=True)
class StoreSettings:
    """What the noise of a store keeps to, by its description.

    Args:
        window: the rule that chose each image's window.
        epsilon: budget, as a fraction of the window's width.
        method: the settings of the noise method, as plain values.
        mask_share: largest share of an image's elements that its noise may touch.
    """

    window: WindowRule
    epsilon: float
    method: dict[str, Any]
    mask_share: float


@contextmanager
def reading(store: NoiseStore, what: str) -> Iterator[None]:
    """Say of plain values that are not what was written that the store is damaged: ``what``, with the cause."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(store.path, f"{what} ({str(error)[:200]!r})") from error


def read_description(store: NoiseStore) -> dict[str, Any]:
    """The description of a store; NoiseStoreError if it cannot be read."""
    rows = store.rows("SELECT json, checksum FROM meta")
    with reading(store, "its description does not match its checksum"):
        if len(rows) != 1 or rows[0][1] != checksum(rows[0][0]):
            raise ValueError("checksum")
        return _dictionary(rows[0][0])


def settings_of(store: NoiseStore) -> StoreSettings:
    """What every image's noise keeps to; NoiseStoreError if the description lacks something."""
    meta = read_description(store)
    with reading(store, "its description is not complete"):
        rule, epsilon, method = rule_from_spec(meta["window"]), float(meta["epsilon"]), meta["method"]
        share = float(meta["mask_share"])
        if not 0 < epsilon <= 1 or not 0 < share <= 1:
            raise ValueError(f"epsilon {epsilon}, mask_share {share}")
        if not isinstance(method, dict) or not isinstance(method.get("name"), str):
            raise TypeError("method")
        return StoreSettings(rule, epsilon, method, share)


def skipped_of(store: NoiseStore) -> dict[str, str]:
    """The cases that were left out when the noise was made, with the reasons; NoiseStoreError if they cannot be read."""
    with reading(store, "its description of the cases that were left out cannot be read"):
        return {str(case["name"]): str(case["reason"]) for case in read_description(store).get("skipped", [])}


def spec_of(text: str) -> dict[str, Any]:
    """The arguments of ``build_network`` from their JSON text; TypeError or ValueError if they are none."""
    spec = _dictionary(text)
    if not isinstance(spec.get("name"), str):
        raise TypeError("spec")
    return spec


def _dictionary(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("it is not a dictionary")
    return found


def keep(store: NoiseStore, parts: Mapping[str, bytes]) -> None:
    """Keep parts (key -> bytes) that a published copy lacks, for ``restore``; a part of the same key is replaced."""
    if not parts:
        return
    with write_sealed(store) as connection:
        rows = [(key, checksum(key, data), data) for key, data in parts.items()]
        connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)


def kept(store: NoiseStore, key: str) -> bytes | None:
    """What ``keep`` was given under a key, or None; NoiseStoreError if it is damaged."""
    for data, stated in store.rows("SELECT data, checksum FROM kept WHERE key = ?", (key,)):
        if not isinstance(key, str) or not isinstance(data, bytes) or stated != checksum(key, data):
            raise damaged(store.path, f"what it keeps of {str(key)[:200]!r} does not match its checksum")
        return bytes(data)
    return None


def keep_scales(store: NoiseStore, units: Iterable[Units]) -> None:
    """Keep the slopes and intercepts that files have: how loaders that give real values are told from others."""
    pairs = {pair for unit in set(units) for pair in _scales(unit)} - {(1.0, 0.0)}
    if pairs:
        keep(store, {"scales": np.asarray(sorted(pairs), "<f8").tobytes()})


def _scales(units: Units) -> list[tuple[float, float]]:
    """Slope and intercept of each channel; one pair where all have the same."""
    slopes, intercepts = (value if isinstance(value, tuple) else (value,) for value in (units.slope, units.intercept))
    count = max(len(slopes), len(intercepts))
    return list(zip(slopes * (count // len(slopes)), intercepts * (count // len(intercepts)), strict=True))


def scales_of(store: NoiseStore) -> Array:
    """What ``keep_scales`` kept, ``(n, 2)`` of float64: slope and intercept; NoiseStoreError if it cannot be that."""
    content = kept(store, "scales") or b""
    if len(content) % 16:
        raise damaged(store.path, "the slopes and intercepts that it keeps are cut off")
    found = np.frombuffer(content, "<f8").reshape(-1, 2)
    if not np.isfinite(found).all() or not found[:, 0].all():
        raise damaged(store.path, "the slopes and intercepts that it keeps are none")
    return found


def add_record(store: NoiseStore, record: Mapping[str, Any]) -> None:
    """Write down that a copy was published, as plain JSON values."""
    text = json.dumps(record, sort_keys=True)
    with write_sealed(store) as connection:
        connection.execute("INSERT INTO record (json, checksum) VALUES (?, ?)", (text, checksum(text)))


def records(store: NoiseStore) -> list[dict[str, Any]]:
    """All records, oldest first; NoiseStoreError if one is damaged."""
    found = []
    for text, stated in store.rows("SELECT json, checksum FROM record ORDER BY id"):
        if stated != checksum(text):
            raise damaged(store.path, "a record of a published copy does not match its checksum")
        with reading(store, "a record of a published copy cannot be read"):
            found.append(_record(text))
    return found


def _record(text: str) -> dict[str, Any]:
    """A record from its JSON text; an error if anything that is read of it is of another kind."""
    record = _dictionary(text)
    for name, fits in _RECORDS.get(record["kind"], {}).items():
        if not fits(record[name]):
            raise TypeError(f"{name} is {type(record[name]).__name__}")
    return record


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _names(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


# What is read of each kind of record.
_RECORDS: dict[str, dict[str, Callable[[object], bool]]] = {
    "publish": {
        **dict.fromkeys(("output", "manifest", "job"), _is_text),
        **dict.fromkeys(("splits", "folders"), _are_texts),
        **dict.fromkeys(("files", "failed", "renamed"), _names(_is_text)),
        "signature": lambda value: value is None or _is_text(value),
    },
    "restore": dict.fromkeys(("output", "files"), _is_text),
    "classes": {"classes": _names(_names(lambda count: type(count) is int))},
}


def check_records(store: NoiseStore) -> None:
    """Read all keepsakes and records once, and which cases were left out; NoiseStoreError at the first that is damaged."""
    skipped_of(store)
    for (key,) in store.rows("SELECT key FROM kept"):
        kept(store, key)
    scales_of(store)
    records(store)


def copy_without_records(store: Path, target: Path) -> Path:
    """A consistent copy, at a new path, of a store without its records, which hold paths of the owner's machine.

    Others may be writing to the store. The copy is readable by its owner only, and no key signs it.
    """
    create_file(target, ("{}", b""))
    with using_sqlite():
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
