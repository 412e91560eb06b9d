"""The owner's key: made once, private, and the only thing that makes a store the owner's."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import exit_code, exit_codes
from forged_stores import plant

from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.records import add_record, keep
from monai_salm.store.seal import SEALED, SealState, make_key, read_key, require_owner, seal_state
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError

META = {
    "window": {"kind": "fixed", "low": 0.0, "high": 255.0},
    "epsilon": 0.1,
    "mask_share": 1.0,
    "method": {"name": "x"},
}


def noise_of(seed: int, shape: tuple[int, ...] = (1, 6, 5)) -> Noise:
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 200, shape, np.uint8)
    return Noise.of(
        image, rng.integers(1, 5, shape, np.int8), Budget(IntensityWindow(0, 255), Grid("uint8", 1.0, (20,))), "a"
    )


@pytest.fixture
def store(tmp_path: Path) -> NoiseStore:
    """A store with something in each of its tables."""
    made = NoiseStore.create(tmp_path / "noise.db", META)
    made.add([noise_of(seed) for seed in range(300)])
    made.add([noise_of(400, (1, 9, 9))])
    keep(made, {"scales": b"", "header": b"first"})
    keep(made, {"header": b"second"})
    add_record(made, {"kind": "restore", "output": "x", "files": "y"})
    made.add_network({"name": "resnet10"}, {})
    return made


def test_every_write_of_the_owner_keeps_the_signature(store: NoiseStore) -> None:
    assert seal_state(store) is SealState.PROVED
    assert seal_state(NoiseStore(store.path)) is SealState.PROVED


CHANGES = {
    "meta": "UPDATE meta SET checksum = zeroblob(16)",
    "kind": "UPDATE kind SET quantum = 2 WHERE id = 1",
    "kind of noise": "UPDATE noise SET kind = 2 WHERE id = 1",
    "noise": "UPDATE noise SET checksum = zeroblob(16) WHERE id = 1",
    "noise gone": "DELETE FROM noise WHERE id = 2",
    "original": "DELETE FROM original WHERE key = (SELECT min(key) FROM original)",
    "protected": "UPDATE protected SET place = place + 1 WHERE key = (SELECT min(key) FROM protected)",
    "kept": "DELETE FROM kept WHERE key = 'scales'",
    "kept more": "INSERT INTO kept VALUES ('x', zeroblob(16), zeroblob(0))",
    "record": "DELETE FROM record",
    "network": "DELETE FROM network",
    "signature": "UPDATE seal SET digest = zeroblob(32)",
    "nonce": "UPDATE seal SET nonce = zeroblob(16)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_table_is_found_and_no_write_of_the_owner_hides_it(store: NoiseStore, change: str) -> None:
    assert {name.split()[0] for name in CHANGES} >= set(SEALED)
    plant(store.path, CHANGES[change])
    assert seal_state(store) is SealState.CHANGED
    add_record(store, {"kind": "restore", "output": "x", "files": "y"})
    store.add([noise_of(999)])
    assert seal_state(store) is SealState.CHANGED
    with pytest.raises(NoiseStoreError, match=r"was changed since the owner's key .* signed it.*--unsigned"):
        require_owner(store)
    require_owner(NoiseStore(store.path, unsigned=True))


@pytest.mark.parametrize("writes", [1, 1000])
def test_a_write_meanwhile_is_no_change_by_others(
    store: NoiseStore, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, numbers = store.rows, iter(range(writes))

    def rows_while_others_write(query: str, *values: Any) -> list[tuple[Any, ...]]:
        if "FROM kept" in query and (number := next(numbers, None)) is not None:
            add_record(NoiseStore(store.path), {"kind": "restore", "output": str(number), "files": "y"})
        return rows(query, *values)

    monkeypatch.setattr(store, "rows", rows_while_others_write)
    if writes == 1:
        assert seal_state(store) is SealState.PROVED
    else:
        with pytest.raises(NoiseStoreError, match="is being written to: try again"):
            seal_state(store)


def test_store_of_another_key_is_refused_and_not_written(store: NoiseStore, tmp_path: Path) -> None:
    other = NoiseStore(store.path, key=tmp_path / "other.key")
    assert seal_state(other) is SealState.NO_KEY
    make_key(tmp_path / "other.key")
    assert seal_state(other) is SealState.OTHER_KEY
    with pytest.raises(NoiseStoreError, match=r"signed by its owner's key, which is needed to write"):
        other.add([noise_of(999)])
    assert seal_state(store) is SealState.PROVED
    NoiseStore(store.path, key=tmp_path / "other.key", unsigned=True).add([noise_of(999)])
    assert seal_state(store) is SealState.UNSIGNED
    with pytest.raises(NoiseStoreError, match="not signed by an owner's key"):
        require_owner(store)


def test_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    place, made = tmp_path / "new" / "owner.key", list[bytes]()
    old = os.umask(0)
    try:
        threads = [threading.Thread(target=lambda: made.append(make_key(place))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.umask(old)
    assert len(set(made)) == 1
    assert read_key(place) == made[0]
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in place.parent.iterdir()] == ["owner.key"]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "owner.key"
    make_key(place)
    place.chmod(0o640)
    with pytest.raises(NoiseStoreError, match=r"others can read the owner's key .* chmod 600"):
        NoiseStore.create(tmp_path / "noise.db", META, key=place)
    place.chmod(0o600)
    place.write_bytes(b"short")
    with pytest.raises(NoiseStoreError, match="is no owner's key: it has 5 bytes"):
        NoiseStore.create(tmp_path / "noise.db", META, key=place)
    assert not (tmp_path / "noise.db").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Fork and threads


def read_in_child(store: NoiseStore, noise: Noise, results: Any) -> None:
    try:
        found = store.get(noise.digest)
        store.add([noise_of(os.getpid() + 1000)])
        results.put("ok" if found is not None else "missing")
    except NoiseStoreError as error:
        results.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_children_open_a_store_while_threads_of_the_parent_write_and_read(store: NoiseStore) -> None:
    noise, stop = noise_of(0), threading.Event()

    def write() -> None:
        number = 10_000
        while not stop.is_set():
            store.add([noise_of(number)])
            number += 1

    def read() -> None:
        while not stop.is_set():
            store.get(noise.digest)

    threads = [threading.Thread(target=work) for work in (write, write, read)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    try:
        children = [context.Process(target=read_in_child, args=(store, noise, results)) for _ in range(6)]
        for child in children:
            child.start()
        ended = exit_codes(children)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ended == [0] * 6
    assert [results.get() for _ in children] == ["ok"] * 6
    assert seal_state(store) is SealState.PROVED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_child_that_is_forked_inside_a_write_says_so_at_once_and_harms_nothing(store: NoiseStore) -> None:
    def forks() -> Any:
        yield noise_of(700)
        pid = os.fork()
        if pid == 0:
            try:
                len(NoiseStore(store.path))
            except NoiseStoreError as error:
                os._exit(7 if "forked by a thread that was" in str(error) else 1)
            os._exit(2)
        assert exit_code(pid) == 7
        yield noise_of(701)

    store.add(forks())
    assert store.get(noise_of(701).digest) is not None
    assert seal_state(store) is SealState.PROVED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_child_that_ends_as_a_program_does_leaves_a_large_write_of_its_parent_alone(store: NoiseStore) -> None:
    """Closing the connection at its end, it would undo what the parent has written so far."""
    script = """
import os, sys
from pathlib import Path
from monai_salm.store.file import write

with write(Path(sys.argv[1])) as connection:
    connection.execute("PRAGMA cache_size = 10")  # pages are written to the file before the end
    for index in range(2000):
        connection.execute("INSERT INTO kept VALUES (?, zeroblob(16), zeroblob(3000))", (index,))
        if index == 1000 and (pid := os.fork()) == 0:
            sys.exit()
    os.waitpid(pid, 0)
    connection.execute("INSERT INTO kept VALUES ('last', zeroblob(16), zeroblob(3000))")
"""
    done = subprocess.run([sys.executable, "-c", script, str(store.path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert store.rows("PRAGMA integrity_check") == [("ok",)]
    assert store.rows("SELECT count(*) FROM kept WHERE length(data) = 3000") == [(2001,)]


def test_temporary_triggers_do_not_stay_in_the_file(store: NoiseStore) -> None:
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (0,)
    connection.close()
