"""One bit of every byte of a published copy, or of a store, is turned: what is found, and what changes unseen.

python tests/helpers/flipped_bits.py copy
python tests/helpers/flipped_bits.py store
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docs_samples
import numpy as np
from published_samples import make_folder

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, verify, verify_copy
from monai_salm.store.records import add_record, keep, records
from monai_salm.store.seal import require_owner
from monai_salm.store.store import NoiseStore, NoiseStoreError

#: What came of a turned bit: an error, nothing at all, or other content without a word.
FOUND, SAME, UNSEEN = "found", "same content", "changed unseen"


def published(folder: Path, sign: bool = True) -> Path:
    """A published copy ``out`` of a small data set, and the key ``key.pub`` of its owner."""
    data = detect(make_folder(folder / "set", "int16"))
    settings: dict[str, Any] = {"window": IntensityWindow(-500, 500), "task": data.task(), "device": "cpu"}
    store = precompute(data.dataset(), folder / "noise.db", method=RandomNoise(), **settings)
    docs_samples.signing_keys(folder, "key")
    publish(folder / "set", folder / "out", store, sign_key=folder / "key.pem" if sign else None)
    return folder / "out"


def sealed_store(folder: Path) -> Path:
    """A store with something in every table."""
    published(folder)
    store = NoiseStore(folder / "noise.db")
    keep(store, {"a": b"kept header" * 9})
    add_record(store, {"kind": "restore", "output": "x", "files": "y"})
    store.add_network({"name": "resnet10"}, {})
    store.close()
    return store.path


def content_of(path: Path) -> object:
    """All that a store gives to its owner; NoiseStoreError if it is not as the owner's key signed it."""
    store = NoiseStore(path)
    try:
        require_owner(store)
        store.check()
        noises = [(n.digest, n.protected, n.name, str(n.dtype), n.codes.tobytes(), repr(n.window)) for n in store]
        kept = store.rows("SELECT key, data FROM kept ORDER BY key")
        return store.meta, noises, kept, list(records(store)), repr(store.networks())
    finally:
        store.close()


def turned(paths: list[Path], step: int = 1) -> Iterator[tuple[Path, int]]:
    """Every ``step``-th byte of some files with one of its bits turned, one at a time; the files end as they were."""
    rng, count = np.random.default_rng(0), 0
    for path in paths:
        content = path.read_bytes()
        for at in range(len(content)):
            bit = 1 << int(rng.integers(8))
            count += 1
            if count % step:
                continue
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            yield path, at
        path.write_bytes(content)


def count_copy(folder: Path, step: int = 1, owner: bool = False) -> tuple[Counter[str], list[str]]:
    """How many turned bits of a copy are found, and where those are that are not.

    By a reader, who has the signature; or by the owner of a copy without one, who has the originals and the store.
    """
    copy = published(folder, sign=not owner)

    def look(_: Path) -> str:
        report = (
            verify(folder / "set", copy, folder / "noise.db") if owner else verify_copy(copy, folder / "key.pub")[0]
        )
        return UNSEEN if report.ok else FOUND

    return _counted(turned(sorted(path for path in copy.rglob("*") if path.is_file()), step), look)


def count_store(folder: Path, step: int = 1) -> tuple[Counter[str], list[str]]:
    """The same for a store: what its owner reads, who has the key."""
    path = sealed_store(folder)
    expected = content_of(path)

    def look(path: Path) -> str:
        try:
            return SAME if content_of(path) == expected else UNSEEN
        except NoiseStoreError:
            return FOUND

    return _counted(turned([path], step), look)


def _counted(turns: Iterator[tuple[Path, int]], look: Callable[[Path], str]) -> tuple[Counter[str], list[str]]:
    counts, unseen = Counter[str](), []
    for path, at in turns:
        outcome = look(path)
        counts[outcome] += 1
        if outcome == UNSEEN:
            unseen.append(f"{path.name}, byte {at}")
    return counts, unseen


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.environ["MONAI_SALM_KEY"] = f"{name}/owner.key"
        counts = {"copy": count_copy, "owner": partial(count_copy, owner=True), "store": count_store}
        counted = counts[sys.argv[1]](Path(name), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(*counted, f"{time.monotonic() - start:.0f} s")
