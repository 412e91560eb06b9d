"""The store returns exactly the noise that was put in, or an error. A changed file never gives wrong noise."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from children import exit_code, exit_codes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import GRIDS, Grid
from monai_salm.noise.window import FixedWindow, IntensityWindow
from monai_salm.store import file as store_file
from monai_salm.store import rows as store_rows
from monai_salm.store.rows import COLUMNS, KIND, Row, RowCache, checksum, kind_of, pack_row
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError

META = {
    "method": {"name": "random_noise", "epsilon": 0.03},
    "window": {"kind": "fixed", "low": 0.0, "high": 255.0},
    "epsilon": 0.03,
    "mask_share": 1.0,
    "seed": 0,
}
WINDOW = IntensityWindow(-7.5, 1e4)
WEIGHTS = {"layer.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


def image_of(dtype: str, rng: np.random.Generator, shape: tuple[int, ...] = (1, 4, 5)) -> np.ndarray:
    """Values all over the type, but far enough from its ends to carry noise."""
    if dtype.startswith("float"):
        image = rng.normal(0, 1, shape) * 10.0 ** rng.uniform(-44, 37, shape)
        image.flat[:4] = (0.0, -0.0, 1e-45, 3e38)
        return image.astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min + 8, info.max - 8, shape, dtype, endpoint=True)


def budget_in(image: np.ndarray, quantum: float = 1.0, window: IntensityWindow = WINDOW) -> Budget:
    """A budget of steps of this size."""
    dtype = np.dtype(image.dtype).newbyteorder("=").name
    return Budget(window, Grid(dtype, quantum, (127,) * len(image)))


def noise_of(
    image: np.ndarray, rng: np.random.Generator, name: str = "case", window: IntensityWindow = WINDOW
) -> Noise:
    """Random codes, none of them zero."""
    codes = rng.integers(1, 8, image.shape, np.int8) * rng.choice(np.array([-1, 1], np.int8), image.shape)
    return Noise.of(image, codes, budget_in(image, 2.0**-5 if image.dtype.kind == "f" else 1.0, window), name)


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return image_of("uint8", rng)


@pytest.fixture
def noise(image: np.ndarray) -> Noise:
    return noise_of(image, np.random.default_rng(1))


@pytest.fixture
def store(tmp_path: Path, noise: Noise) -> NoiseStore:
    """A store of one image and one small surrogate."""
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([noise])
    store.add_network({"name": "resnet10"}, WEIGHTS)
    return store


def same(first: Noise | None, second: Noise) -> bool:
    """Whether two noises are the same to the last bit."""
    if first is None or (first.residual is None) != (second.residual is None):
        return False
    arrays = [(first.codes, second.codes)]
    if first.residual is not None and second.residual is not None:
        arrays.append((first.residual, second.residual))
    settings = [(n.digest, n.protected, n.name, n.dtype, n.quantum, n.window) for n in (first, second)]
    return settings[0] == settings[1] and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays
    )


# ---------------------------------------------------------------------------------------------------------------------
# Noise


@pytest.mark.parametrize("dtype", GRIDS)
def test_noise_comes_back_from_the_store_bit_for_bit(dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    image = image_of(dtype, rng)
    noise = noise_of(image, rng)
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([noise])
    assert same(store.get(content_digest(image)), noise)
    assert same(store.get_protected(content_digest(noise.apply(image))), noise)
    assert len(store) == 1
    assert [n.name for n in store] == ["case"]


@pytest.mark.parametrize("dtype", GRIDS)
def test_taking_noise_off_gives_the_original_bits(dtype: str, rng: np.random.Generator) -> None:
    image = image_of(dtype, rng, (2, 5, 4, 3))
    noise = noise_of(image, rng)
    protected = noise.apply(image)
    assert protected.dtype == image.dtype
    assert (protected != image).any()
    assert noise.remove(protected).tobytes() == image.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    image=hnp.arrays(np.float32, (1, 3, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    exponent=st.integers(-40, 40),
    seed=st.integers(0, 100),
)
def test_any_float_image_comes_back_bit_for_bit(image: np.ndarray, exponent: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(-127, 128, image.shape, np.int8)
    with np.errstate(over="ignore"):
        noise = Noise.of(image, codes, budget_in(image, 2.0**exponent), "case")
        assert noise.remove(noise.apply(image)).tobytes() == image.tobytes()


def test_noise_is_the_same_in_every_type_that_holds_it(rng: np.random.Generator) -> None:
    image = rng.integers(20, 100, (1, 4, 4), np.uint8)
    noise = noise_of(image, rng)
    for dtype in ("uint8", "int8", "int16", "int64", "float16", "float32", "float64", ">i2", ">f4"):
        protected = noise.apply(image.astype(dtype))
        assert protected.dtype == np.dtype(dtype)
        assert np.array_equal(protected, noise.apply(image))
        assert np.array_equal(noise.remove(protected), image)


def test_float_noise_is_that_of_the_stored_type_in_a_wider_one(rng: np.random.Generator) -> None:
    image = (rng.normal(0, 1000, (1, 4, 4)) / 3).astype(np.float32)
    noise = noise_of(image, rng)
    wide = noise.apply(image.astype(np.float64))
    assert wide.dtype == np.float64
    assert wide.astype(np.float32).tobytes() == noise.apply(image).tobytes()
    assert content_digest(wide) == noise.protected


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_byte_order_of_an_image_does_not_matter(byte_order: str, rng: np.random.Generator) -> None:
    image = image_of("float32", rng)
    noise = noise_of(image.astype(f"{byte_order}f4"), np.random.default_rng(1))
    assert same(noise, noise_of(image, np.random.default_rng(1)))
    assert noise.remove(noise.apply(image)).tobytes() == image.tobytes()


def test_type_that_cannot_hold_the_result_is_refused(rng: np.random.Generator) -> None:
    image = np.full((1, 2, 2), 127, np.uint8)
    noise = Noise.of(image, np.ones((1, 2, 2), np.int8), budget_in(image), "liver")
    with pytest.raises(NoiseStoreError, match=r"'liver'.*made for uint8.*int8 cannot hold.*Load the image as uint8"):
        noise.apply(image.astype(np.int8))
    whole_floats = np.full((1, 2, 2), 100, np.float32)
    fractional = Noise.of(whole_floats, np.ones((1, 2, 2), np.int8), budget_in(whole_floats, 0.25), "liver")
    with pytest.raises(NoiseStoreError, match="uint8 cannot hold"):
        fractional.apply(whole_floats.astype(np.uint8))


def test_noise_is_never_broadcast(image: np.ndarray, noise: Noise) -> None:
    for wrong in (image[:, :1], image[0], image[None], np.concatenate([image, image])):
        with pytest.raises(NoiseStoreError, match="must be the same"):
            noise.apply(wrong)
        with pytest.raises(NoiseStoreError, match="must be the same"):
            noise.remove(wrong)
    with pytest.raises(NoiseStoreError, match="must be the same"):
        Noise.of(image, noise.codes[:, :1], budget_in(image), "case")


def test_noise_of_another_image_is_refused_not_wrapped_around(noise: Noise) -> None:
    with pytest.raises(NoiseStoreError, match="another image"):
        noise.apply(np.full(noise.codes.shape, 255, np.uint8) - (noise.codes < 0))


# ---------------------------------------------------------------------------------------------------------------------
# The store


def test_only_the_owner_can_read_a_new_store(tmp_path: Path, noise: Noise) -> None:
    old = os.umask(0)
    try:
        store = NoiseStore.create(tmp_path / "noise.db", META)
        store.add([noise])
    finally:
        os.umask(old)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_create_never_replaces_a_file(store: NoiseStore, noise: Noise) -> None:
    with pytest.raises(FileExistsError):
        NoiseStore.create(store.path, META)
    assert same(store.get(noise.digest), noise)


def test_description_and_surrogates_come_back(store: NoiseStore) -> None:
    assert store.meta == META
    assert store.window == FixedWindow(0, 255)
    assert (store.settings.epsilon, store.settings.mask_share) == (0.03, 1.0)
    ((spec, weights),) = store.networks()
    assert spec == {"name": "resnet10"}
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[k], v) and weights[k].dtype == v.dtype for k, v in WEIGHTS.items())
    assert store.check() == 1


def test_what_is_not_there_is_none_or_a_key_error(store: NoiseStore, noise: Noise) -> None:
    assert store.get(noise.protected) is None
    assert store.get_protected(noise.digest) is None
    assert noise.digest in store
    assert noise.protected not in store
    with pytest.raises(KeyError):
        store[noise.protected]


def test_shapes_and_types_are_told(store: NoiseStore) -> None:
    assert store.shapes() == [(1, 4, 5)]
    assert store.has_shape((1, 4, 5))
    assert not store.has_shape((1, 5, 4))
    assert store.shapes_of("case") == [(1, 4, 5)]
    assert store.shapes_of("other") == []
    assert store.dtypes() == ["uint8"]


def test_first_noise_of_an_image_stays(store: NoiseStore, image: np.ndarray, noise: Noise) -> None:
    store.add([noise_of(image, np.random.default_rng(2), "again")])
    assert same(store.get(noise.digest), noise)


def test_adding_is_all_or_nothing(store: NoiseStore, rng: np.random.Generator) -> None:
    def breaks_down() -> Iterator[Noise]:
        yield noise_of(image_of("uint8", rng), rng)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.add(breaks_down())
    unstorable = replace(noise_of(image_of("uint8", rng), rng), quantum=0.5)
    with pytest.raises(NoiseStoreError, match=r"steps of 0\.5 cannot be on a grid of uint8"):
        store.add([noise_of(image_of("uint8", rng), rng), unstorable])
    assert len(store) == 1


def test_writer_killed_half_way_leaves_the_store_as_it_was(store: NoiseStore, noise: Noise) -> None:
    script = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 2')\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('UPDATE noise SET codes = zeroblob(9)')\n"
        "for _ in range(20):\n"
        "    connection.execute('INSERT INTO network (spec, weights, checksum) VALUES (?, zeroblob(9000), ?)', ('', b''))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert same(store.get(noise.digest), noise)
    done = subprocess.run([sys.executable, "-c", script, str(store.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Path(f"{store.path}-journal").exists()
    assert same(store.get(noise.digest), noise)
    assert same(NoiseStore(store.path).get(noise.digest), noise)
    assert len(store.networks()) == 1


def test_store_is_opened_when_first_used(tmp_path: Path, noise: Noise) -> None:
    store = NoiseStore(tmp_path / "later.db")
    with pytest.raises(NoiseStoreError, match=r"no noise store at .*later\.db: .*make one with"):
        store.get(noise.digest)
    with pytest.raises(NoiseStoreError, match="no noise store"):
        store.add([noise])
    assert not store.path.exists()
    NoiseStore.create(store.path, META).add([noise])
    assert same(store.get(noise.digest), noise)


def test_pickled_store_carries_its_path_only(store: NoiseStore, noise: Noise) -> None:
    assert len(store) == 1  # open
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301 - as DataLoader workers do
    assert copy.path == store.path
    assert len(pickle.dumps(store)) < 1000
    assert same(copy.get(noise.digest), noise)


def test_threads_read_the_same(store: NoiseStore, noise: Noise) -> None:
    results: list[bool] = []

    def read() -> None:
        results.extend(same(store.get(noise.digest), noise) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


def _add_in_process(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    store = NoiseStore(path)
    for index in range(10):
        store.add([noise_of(image_of("uint8", rng), rng, f"{seed}-{index}")])
    shared = image_of("uint8", np.random.default_rng(99))
    store.add([noise_of(shared, np.random.default_rng(98), "shared")])


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_add_at_once_after_a_fork(store: NoiseStore, noise: Noise) -> None:
    assert len(store) == 1  # an open connection crosses the fork
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_in_process, args=(store.path, seed)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    assert exit_codes(workers) == [0, 0]
    assert len(store) == store.check() == 22
    assert same(store.get(noise.digest), noise)


def test_forked_process_opens_its_own_connection(store: NoiseStore, noise: Noise) -> None:
    connection = store._connect()
    pid = os.fork()
    if pid == 0:
        fine = same(store.get(noise.digest), noise) and store._connect() is not connection
        os._exit(0 if fine and not closed(connection) else 1)  # SQLite forbids closing it here
    assert exit_code(pid) == 0
    assert same(store.get(noise.digest), noise)
    assert store._connect() is connection


def closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed" in str(error)
    return False


def test_a_connection_is_closed_with_the_store_that_opened_it(store: NoiseStore) -> None:
    holder = NoiseStore(store.path)
    connection = holder._connect()
    del holder
    assert closed(connection)


def test_a_connection_is_closed_with_the_thread_that_opened_it(store: NoiseStore) -> None:
    found: list[sqlite3.Connection] = []
    thread = threading.Thread(target=lambda: found.append(store._connect()))
    thread.start()
    thread.join()
    assert closed(found[0])
    assert not closed(store._connect())


def test_a_store_in_a_cycle_leaves_no_connection_to_the_garbage_collector(store: NoiseStore) -> None:
    """The frames of an exception make such cycles. Python 3.13 warns if the collector meets a connection that is open."""
    ignored: list[sys.UnraisableHookArgs] = []
    cycle: list[object] = [NoiseStore(store.path)]
    cycle.append(cycle)
    cycle[0]._connect()  # type: ignore[attr-defined]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
        warnings.simplefilter("error")
        patched.setattr(sys, "unraisablehook", ignored.append)
        del cycle
        gc.collect()
    assert not ignored


def test_replaced_store_is_read_anew(store: NoiseStore, noise: Noise, tmp_path: Path, rng: np.random.Generator) -> None:
    assert same(store.get(noise.digest), noise)
    other = NoiseStore.create(tmp_path / "other.db", {**META, "seed": 1})
    replacement = noise_of(image_of("uint8", rng), rng, "other")
    other.add([replacement])
    other.close()
    os.replace(other.path, store.path)
    assert store.get(noise.digest) is None
    assert same(store.get(replacement.digest), replacement)
    assert store.meta["seed"] == 1
    store.path.unlink()
    with pytest.raises(NoiseStoreError, match="no noise store"):
        store.get(replacement.digest)


@pytest.mark.parametrize("exponent", [0, 10, 17, 20, 26])
def test_noise_of_zeros_passes_as_no_bomb(exponent: int) -> None:
    """All zeros is what zstd packs best."""
    for count in (2**exponent, 2**exponent + 1):
        codes = np.zeros((1, count), np.int8)
        noise = Noise(b"d" * 16, b"p" * 16, "zeros", "uint8", WINDOW, 1.0, codes)
        assert np.array_equal(Row((*kind_of(noise), *pack_row([noise]))).noise(0).codes, codes)


def test_closed_store_opens_again(store: NoiseStore, noise: Noise) -> None:
    store.get(noise.digest)
    store.close()
    store.close()
    assert same(store.get(noise.digest), noise)


def test_each_image_in_a_row_keeps_its_window(tmp_path: Path, rng: np.random.Generator) -> None:
    store, noises = NoiseStore.create(tmp_path / "noise.db", META), []
    for number in range(20):
        window = IntensityWindow((0.1, -number), (1 / 3, 1.0 + number)) if number % 2 else WINDOW
        noises.append(noise_of(image_of("int16", rng, (2, 9, 7)), rng, f"case {number}", window))
    store.add(noises)
    assert all(same(store.get(noise.digest, noise.codes.shape), noise) for noise in noises)


def test_small_images_share_rows_and_are_found_one_by_one(tmp_path: Path, rng: np.random.Generator) -> None:
    store, noises = NoiseStore.create(tmp_path / "noise.db", META), []
    for number in range(100):
        dtype, shape = ("uint8", "float32")[number % 2], ((1, 28, 28), (1, 9, 7, 5))[number % 3 > 0]
        noises.append(noise_of(image_of(dtype, rng, shape), rng, f"case {number} \u00e9"))
    store.add(noises)
    assert store.rows("SELECT count(*) < 10 FROM noise") == [(1,)]
    for noise in noises:
        assert same(store.get(noise.digest, noise.codes.shape), noise)
        assert same(store.get_protected(noise.protected), noise)
        assert noise.digest in store
    assert [n.digest for n in store] == sorted(n.digest for n in noises)
    assert store.check() == len(store) == 100
    assert store.shapes_of("case 3 \u00e9") == [noises[3].codes.shape]
    store.add([*noises[::-1], noise_of(image_of("uint8", rng), rng)])
    assert len(store) == 101
    assert all(same(store.get(noise.digest), noise) for noise in noises)


def test_images_whose_digests_begin_alike_are_not_taken_for_each_other(store: NoiseStore, noise: Noise) -> None:
    other = replace(noise, digest=noise.digest[:8] + bytes(8), name="other")
    with pytest.raises(NoiseStoreError, match=r"'other': its digest begins as that of another image"):
        store.add([other])
    assert other.digest not in store
    with pytest.raises(NoiseStoreError, match="filed under another image"):
        store.get(other.digest)
    assert same(store.get(noise.digest), noise)


def test_originals_that_become_one_protected_image_are_both_kept(store: NoiseStore, noise: Noise) -> None:
    other = replace(noise, digest=bytes(16))
    store.add([other])
    assert same(store.get(other.digest), other)
    assert same(store.get_protected(noise.protected), noise)
    assert store.check() == 2


def test_check_finds_an_image_that_cannot_be_restored(store: NoiseStore) -> None:
    change(store.path, "DELETE FROM protected")
    with pytest.raises(NoiseStoreError, match="case 'case' cannot be found again by its protected image"):
        store.check()


# ---------------------------------------------------------------------------------------------------------------------
# Damaged and hostile files


def outcome(path: Path, noise: Noise) -> str:
    """What a store makes of a damaged file, everything asked of it; fails on anything but an error or the truth."""
    asked: list[tuple[str, Callable[[NoiseStore], Any]]] = [
        ("digest", lambda s: s.get(noise.digest, noise.codes.shape)),
        ("protected", lambda s: s.get_protected(noise.protected)),
        ("meta", lambda s: s.meta),
        ("networks", lambda s: s.networks()),
        ("shapes", lambda s: s.shapes()),
    ]
    store, results = NoiseStore(path), []
    for what, ask in asked:
        try:
            answer = ask(store)
        except NoiseStoreError:
            results.append("error")
            continue
        if what in ("digest", "protected"):
            assert answer is None or same(answer, noise), f"wrong noise by {what}"
            results.append("found" if answer else "missing")
        elif what == "meta":
            assert answer == META
    store.close()
    return "error" if "error" in results else ("missing" if "missing" in results else "found")


@pytest.fixture
def small_file(store: NoiseStore) -> Path:
    """A store of small pages, so that every one of its bytes can be tried."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA page_size = 512")
    connection.execute("VACUUM")
    connection.close()
    return store.path


def flip_bytes(path: Path, noise: Noise, flip: int, places: range) -> dict[str, int]:
    """Flip one byte after the other and count what comes of it; the file is left as it was."""
    original = path.read_bytes()
    seen = {"error": 0, "missing": 0, "found": 0}
    for place in places:
        damaged = bytearray(original)
        damaged[place] ^= flip
        path.write_bytes(damaged)
        seen[outcome(path, noise)] += 1
    path.write_bytes(original)
    return seen


def test_no_seventh_byte_flipped_gives_wrong_noise(small_file: Path, noise: Noise) -> None:
    assert outcome(small_file, noise) == "found"
    seen = flip_bytes(small_file, noise, 0xFF, range(0, small_file.stat().st_size, 7))
    assert seen["error"] > 70
    assert seen["missing"] > 0
    assert outcome(small_file, noise) == "found"


@pytest.mark.slow
@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x80])
def test_no_flipped_byte_gives_wrong_noise(small_file: Path, noise: Noise, flip: int) -> None:
    seen = flip_bytes(small_file, noise, flip, range(small_file.stat().st_size))
    print(f"{sum(seen.values())} bytes of a store, each ^ {flip:#x}: {seen}; never wrong noise")
    # Unused bytes of pages change nothing; those of the noise, its key and its tables do.
    assert seen["error"] > 500
    # A key is 16 bytes long: a bit flipped in it makes it another case's.
    assert seen["missing"] >= 16


def test_truncated_file_is_an_error(small_file: Path, noise: Noise) -> None:
    original = small_file.read_bytes()
    for size in range(0, len(original), 97):
        small_file.write_bytes(original[:size])
        # A last page that lost only zeros is read as it was.
        if outcome(small_file, noise) != "error":
            assert not any(original[size:])
            assert size > len(original) - 512


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=3000), header=st.booleans())
def test_random_bytes_are_no_store(content: bytes, header: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("random") / "noise.db"
    path.write_bytes((b"SQLite format 3\0" if header else b"") + content)
    with pytest.raises(NoiseStoreError):
        len(NoiseStore(path))
    with pytest.raises(NoiseStoreError):
        NoiseStore(path).add([])
    assert path.read_bytes().endswith(content)


def test_another_database_is_no_store(tmp_path: Path, noise: Noise) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE patients (name TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for use in (len, lambda s: s.add([noise]), lambda s: s.meta):
        with pytest.raises(NoiseStoreError, match="is not a noise store"):
            use(NoiseStore(path))
    assert path.read_bytes() == before


def test_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NoiseStoreError, match="no noise store at"):
        len(NoiseStore(tmp_path))


def test_other_formats_are_refused(store: NoiseStore, noise: Noise) -> None:
    for version in (1, 6, 8):
        change(store.path, f"PRAGMA user_version = {version}")
        with pytest.raises(
            NoiseStoreError, match=f"store format {version}, this version of monai_salm reads 7: use the"
        ):
            NoiseStore(store.path).get(noise.digest)


def change(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    """What someone with a database tool does to a store."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TRIGGER spy AFTER INSERT ON noise BEGIN DELETE FROM noise; END",),
        ("CREATE VIEW spy AS SELECT * FROM noise",),
        ("CREATE TABLE spy (name TEXT)",),
        ("CREATE INDEX spy ON noise (names)",),
        ("DROP TABLE protected",),
        ("DROP TABLE network",),
        ("ALTER TABLE noise RENAME TO other", "CREATE VIEW noise AS SELECT * FROM other"),
        ("ALTER TABLE noise ADD COLUMN spy TEXT",),
        ("UPDATE sqlite_master SET sql = replace(sql, 'names BLOB NOT NULL', 'names BLOB') WHERE name = 'noise'",),
        ("CREATE VIRTUAL TABLE spy USING fts5 (name)",),
    ],
)
def test_store_with_anything_added_or_removed_is_refused(
    store: NoiseStore, noise: Noise, statements: tuple[str, ...], rng: np.random.Generator
) -> None:
    change(store.path, *statements)
    before = store.path.read_bytes()
    for use in (lambda s: s.get(noise.digest), lambda s: s.add([noise_of(image_of("uint8", rng), rng)]), len):
        with pytest.raises(NoiseStoreError, match="its tables are not those of a store"):
            use(NoiseStore(store.path))
    assert store.path.read_bytes() == before


def forge(store: NoiseStore, noise: Noise, **values: Any) -> None:
    """Replace the row by one with other values and a checksum that fits them."""
    row = dict(zip((*KIND, *COLUMNS), (*kind_of(noise), *pack_row([noise])), strict=True)) | values
    if "checksum" not in values:
        row["checksum"] = checksum(*(row[c] for c in (*KIND, *COLUMNS[:-1])))
    for table, columns in (("kind", KIND), ("noise", COLUMNS)):
        names = ", ".join(f"{c} = ?" for c in columns)
        change(store.path, f"UPDATE {table} SET {names}", values=tuple(row[c] for c in columns))


def frame_of(size: int) -> bytes:
    """A compressed frame of this many zeros; small as it is, it unpacks to all of them."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    chunk, parts = bytes(1 << 24), []
    for start in range(0, size, len(chunk)):
        parts.append(compressor.compress(chunk[: size - start]))
    return b"".join([*parts, compressor.flush()])


def plain(*frames: bytes) -> bytes:
    """Codes that are compressed as they are."""
    return bytes([0]) + struct.pack(f"<{len(frames)}I", *map(len, frames)) + b"".join(frames)


def signs(*frames: bytes, top: int = 8, exceptions: int = 0, packed: bytes = b"") -> bytes:
    """Codes that are packed as symbols of four signs, after exceptions."""
    return struct.pack("<BiII", 1, top, exceptions, len(packed)) + packed + plain(*frames)[1:]


BOMB = b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little")
HOSTILE: dict[str, dict[str, Any]] = {
    "no checksum": {"checksum": b""},
    "wrong type of names": {"names": "case"},
    "names no list": {"names": b'\x00"case"'},
    "names nested": {"names": b"\x00" + b"[" * 100_000},
    "names of other images": {"names": b'\x00["case", "case"]'},
    "names no text": {"names": b"\x00[5]"},
    "names a bomb": {"names": b"\x01" + frame_of(2**28)},
    "digests cut": {"digests": bytes(31)},
    "digests none": {"digests": b""},
    "wrong type of quantum": {"quantum": "1"},
    "wrong type of codes": {"codes": "text"},
    "wrong type of residual": {"residual": 5},
    "wrong type of shape": {"shape": b"[1, 4, 5]"},
    "unknown grid": {"dtype": "object"},
    "unknown codes": {"code_dtype": "U9"},
    "quantum not finite": {"quantum": float("inf")},
    "quantum zero": {"quantum": 0.0},
    "quantum that vanishes": {"quantum": 0.5},
    "shape no list": {"shape": '{"1": 4}'},
    "shape no JSON": {"shape": "[1, 4"},
    "shape nested": {"shape": "[" * 100_000},
    "shape negative": {"shape": "[-1, -4, 5]"},
    "shape fractional": {"shape": "[1.0, 4, 5]"},
    "shape true": {"shape": "[true, 4, 5]"},
    "shape empty": {"shape": "[]"},
    "shape of another image": {"shape": "[1, 5, 4]"},
    "shape oversized": {"shape": "[1, 1000000, 1000000]"},
    "shape overflowing": {"shape": f"[{2**70}, 1, 1]"},
    "shape digits": {"shape": "[" + "9" * 10_000 + "]"},
    "windows none": {"windows": b""},
    "windows of another size": {"windows": bytes(17)},
    "windows a bomb": {"windows": b"\x01" + frame_of(2**28)},
    "windows out of order": {"windows": b"\x00" + struct.pack("<2d", 5, 1)},
    "windows not finite": {"windows": b"\x00" + struct.pack("<2d", 0, float("nan"))},
    "wrong type of windows": {"windows": "[0, 1]"},
    "codes none": {"codes": b""},
    "codes packed in no known way": {"codes": bytes([3]) + bytes(20)},
    "codes not compressed": {"codes": bytes(20)},
    "codes cut": {"codes": plain(frame_of(20)[:-1])},
    "codes too short": {"codes": plain(frame_of(19))},
    "codes a bomb": {"codes": plain(frame_of(2**28))},
    "codes announcing more than there is": {"codes": plain(BOMB)},
    "codes and shape a bomb": {"codes": plain(frame_of(2**28)), "shape": f"[1, {2**14}, {2**14}]"},
    "signs cut": {"codes": signs(frame_of(5))[:4]},
    "signs too many": {"codes": signs(frame_of(6))},
    "signs that are none": {"codes": signs(zstandard.ZstdCompressor().compress(b"\x51" * 5))},
    "signs a bomb": {"codes": signs(frame_of(2**28))},
    "signs larger than their type": {"codes": signs(frame_of(5), top=128)},
    "signs below zero": {"codes": signs(frame_of(5), top=-1)},
    "exceptions cut": {"codes": signs(b"", exceptions=20)},
    "exceptions more than codes": {"codes": signs(frame_of(5), exceptions=21)},
    "exceptions of another size": {"codes": signs(frame_of(5), exceptions=2, packed=b"\x01" + frame_of(9))},
    "exceptions a bomb": {"codes": signs(frame_of(5), exceptions=20, packed=b"\x01" + frame_of(2**28))},
    "exceptions announcing more than there is": {"codes": signs(frame_of(5), exceptions=20, packed=b"\x01" + BOMB)},
    "residual of another size": {"residual": plain(frame_of(3))[1:]},
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE.keys())
def test_forged_row_is_an_error_and_takes_no_memory(store: NoiseStore, noise: Noise, values: dict[str, Any]) -> None:
    forge(store, noise, **values)
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NoiseStoreError, match=r"is damaged: noise of shape .* is not as it was written"):
        NoiseStore(store.path).get(noise.digest, noise.codes.shape)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the bombs hold 2**28 bytes


def test_row_that_claims_more_than_it_can_hold_is_an_error(store: NoiseStore, noise: Noise) -> None:
    """Where no image says what shape to expect, as when a whole store is read."""
    for codes in (signs(*[b""] * 2**12), plain(*[BOMB] * 2**14), plain(*[frame_of(2**18)[:8]] * 2**14)):
        forge(store, noise, codes=codes, shape=f"[1, {2**16}, {2**16}]")
        with pytest.raises(NoiseStoreError, match=r"compressed noise is not of its shape|cannot be unpacked"):
            NoiseStore(store.path).check()


def test_check_takes_no_memory_that_a_row_only_claims(store: NoiseStore, noise: Noise) -> None:
    """A row of few bytes may hold noise of 0 for 2**30 elements: it is unpacked a part at a time."""
    import resource

    parts, shape = 2**12, f"[1, {2**15}, {2**15}]"
    for codes in (signs(*[frame_of(2**18)] * (parts // 4)), plain(*[frame_of(2**18)] * parts)):
        forge(store, noise, codes=codes, shape=shape)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert NoiseStore(store.path).check() == 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_rows_that_are_kept_are_few_and_of_one_file(tmp_path: Path, rng: np.random.Generator) -> None:
    images = [image_of("uint8", rng) for _ in range(400)]
    noises = [noise_of(image, rng) for image in images]
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add(noises)
    cache = RowCache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_rows, "_MOST_KEPT", store._read_row(1).kept_bytes)
        rows = [cache.row(number, store._read_row) for number in (1, 2, 1)]
    assert rows[0].count == 256
    assert len(cache._rows) == 1
    assert all(same(store.get(noise.digest), noise) for noise in noises)
    other = NoiseStore.create(tmp_path / "other.db", META)
    other.add(noises[:1])
    os.replace(other.path, store.path)
    assert store.get(noises[1].digest) is None
    assert same(store.get(noises[0].digest), noises[0])


def test_honest_forgery_is_found(store: NoiseStore, noise: Noise) -> None:
    """The forging above fails for what it forges, not for how it forges."""
    forge(store, noise)
    assert same(store.get(noise.digest, noise.codes.shape), noise)


def test_noise_filed_under_another_image_is_an_error(store: NoiseStore, noise: Noise, rng: np.random.Generator) -> None:
    other = noise_of(image_of("uint8", rng), rng)
    forge(store, noise, digests=other.digest + other.protected, checksum=pack_row([noise])[-1])
    with pytest.raises(NoiseStoreError, match="does not match its checksum"):
        store.get(noise.digest)
    assert store.get(other.digest) is None
    forge(store, noise, digests=other.digest + other.protected)
    for get, digest in ((store.get, noise.digest), (store.get_protected, noise.protected)):
        with pytest.raises(NoiseStoreError, match="filed under another image"):
            get(digest)
    assert noise.digest not in store


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "[" * 100_000,
        "{}",
        *(
            json.dumps({**META, **change})
            for change in (
                {"window": [0, 255]},
                {"window": 3},
                {"window": {"kind": "poetry"}},
                {"window": {"kind": "fixed", "low": 9, "high": 1}},
                {"window": {"kind": "fixed", "low": "a", "high": "b"}},
                {"epsilon": 7},
                {"mask_share": 0},
                {"mask_share": 2},
                {"mask_share": None},
                {"method": None},
            )
        ),
    ],
)
def test_forged_description_is_an_error(store: NoiseStore, text: str) -> None:
    change(store.path, "DELETE FROM meta")
    change(store.path, "INSERT INTO meta VALUES (0, ?, ?)", values=(text, checksum(text)))
    with pytest.raises(NoiseStoreError, match="is damaged"):
        _ = store.window


@pytest.mark.parametrize("weights", [b"", b"\xff" * 100, (10**12).to_bytes(8, "little") + b"{}", "text"])
def test_forged_surrogate_is_an_error(store: NoiseStore, weights: Any) -> None:
    stated = checksum(json.dumps({"name": "resnet10"}), weights)
    change(store.path, "UPDATE network SET weights = ?, checksum = ?", values=(weights, stated))
    with pytest.raises(NoiseStoreError, match="a surrogate does not match"):
        store.networks()


def test_an_error_is_not_hidden_by_a_file_that_is_gone(tmp_path: Path) -> None:
    """Whether the file was cut off is asked while SQLite's own error is told."""
    error = store_file.store_error(tmp_path / "gone.db", sqlite3.DatabaseError("database disk image is malformed"))
    assert "gone.db is damaged: database disk image is malformed. Restore it" in str(error)


def test_store_in_use_says_so_and_is_not_called_damaged(
    store: NoiseStore, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_salm.store.file._WAIT_SECONDS", 0.05)
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NoiseStoreError, match="in use by another process"):
        store.get(noise.digest)
    with pytest.raises(NoiseStoreError, match="in use by another process"):
        store.add([noise])
    connection.close()
    assert same(store.get(noise.digest), noise)
