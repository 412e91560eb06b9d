"""How large a noise store is beside dense float32 noise.

    python benchmarks/store_size.py [STORE ...] [--cases 4000] [--json]

Makes stores of noise as the methods leave it (for each shape and both mask scopes; drawn, not optimised) and takes the size of
their files; of a store given as argument, the size of the file, with and without the surrogate networks that it keeps for new
images. Drawn signs are independent of each other, which is the hardest case: signs of optimised noise follow the image.
Then it opens a store of many small images and looks one up.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from monai_salm.noise.digest import DIGEST_SIZE
from monai_salm.noise.noise import Noise
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.store import NoiseStore

SHAPES = {(1, 28, 28): 4000, (1, 28, 28, 28): 64, (1, 256, 256, 128): 1}
AIMS = {"step": 16, "sample": 24}
#: One mask a sample of small images.
SMALL_AIM = 20
TOP = 8


def drawn_codes(scope: str, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Codes of one image: signs of the budget, on 30 % of the elements for ``sample``; one in a thousand is smaller."""
    signs = rng.integers(0, 2, shape, np.int8) * 2 - 1
    codes = signs * np.where(rng.random(shape) < 1e-3, rng.integers(1, TOP, shape), TOP)
    if scope == "sample":
        chosen = np.zeros(math.prod(shape), bool)
        chosen[rng.permutation(chosen.size)[: round(0.3 * chosen.size)]] = True
        codes *= chosen.reshape(shape)
    return codes.astype(np.int8)


def drawn_store(path: Path, scope: str, shape: Sequence[int], cases: int) -> Path:
    """A store of drawn noise."""
    rng = np.random.default_rng(0)

    def noises() -> Iterator[Noise]:
        for case in range(cases):
            codes = drawn_codes(scope, shape, rng)
            digests = rng.bytes(DIGEST_SIZE), rng.bytes(DIGEST_SIZE)
            yield Noise(*digests, f"train[{case}]", "uint8", IntensityWindow(0, 255), 1.0, codes)

    NoiseStore.create(path, {}).add(noises())
    return path


def size_of(path: Path) -> dict[str, Any]:
    """What a store takes, beside dense float32 noise."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    shapes = connection.execute(
        f"SELECT shape, sum(length(digests) / {2 * DIGEST_SIZE}) FROM noise JOIN kind ON kind.id = noise.kind GROUP BY shape"
    ).fetchall()
    networks = connection.execute("SELECT coalesce(sum(length(weights)), 0) FROM network").fetchone()[0]
    codes = connection.execute("SELECT sum(length(codes)) FROM noise").fetchone()[0]
    connection.close()
    elements, file = sum(math.prod(json.loads(shape)) * count for shape, count in shapes), path.stat().st_size
    return {
        "cases": sum(count for _, count in shapes),
        "elements": elements,
        "file_bytes": file,
        "network_bytes": networks,
        "code_bits_per_element": 8 * codes / elements,
        "bits_per_element": 8 * (file - networks) / elements,
        "ratio": 4 * elements / (file - networks),
        "ratio_with_networks": 4 * elements / file,
    }


def measure(stores: Sequence[Path] = (), cases: int = SHAPES[1, 28, 28]) -> dict[str, Any]:
    """Sizes of drawn stores and of those given.

    Args:
        stores: of real noise.
        cases: images of 28x28 to draw; fewer make the file's fixed part weigh more.

    Returns:
        ``{"drawn": [...], "real": [...]}``, a dictionary a store.
    """
    found: dict[str, Any] = {"drawn": [], "real": []}
    for shape, usual in SHAPES.items():
        count = cases if len(shape) == 3 else usual
        for scope, aim in AIMS.items():
            folder = Path(tempfile.mkdtemp(prefix="store-size-"))
            try:
                size = size_of(drawn_store(folder / "noise.db", scope, shape, count))
            finally:
                shutil.rmtree(folder)
            aim = SMALL_AIM if len(shape) == 3 and scope == "sample" else aim
            found["drawn"].append({"scope": scope, "shape": list(shape), "aim": aim, **size})
    for path in stores:
        method = NoiseStore(path).meta.get("method", {})
        scope = method.get("mask_scope")
        found["real"].append({"store": path.name, "scope": scope, "aim": AIMS.get(scope), **size_of(path)})
    return found


def opening(cases: int, repeats: int = 7) -> dict[str, Any]:
    """Milliseconds until a store of many images of 28x28 gives the noise of one: opened, and looked up in.

    All images have one image's codes, so that drawing takes no hours; their digests differ.
    """
    folder = Path(tempfile.mkdtemp(prefix="store-opening-"))
    try:
        rng, path = np.random.default_rng(0), folder / "noise.db"
        codes = drawn_codes("sample", (1, 28, 28), rng)
        digests = rng.bytes(2 * DIGEST_SIZE * cases)

        def digest(number: int) -> bytes:
            return digests[DIGEST_SIZE * number : DIGEST_SIZE * (number + 1)]

        noises = (
            Noise(digest(2 * n), digest(2 * n + 1), f"train[{n}]", "uint8", IntensityWindow(0, 255), 1.0, codes)
            for n in range(cases)
        )
        NoiseStore.create(path, {}).add(noises)
        times = []
        for repeat in range(repeats):
            start = time.perf_counter()
            assert NoiseStore(path).get(digest(2 * (repeat * cases // repeats)), codes.shape) is not None
            times.append(1e3 * (time.perf_counter() - start))
        return {"cases": cases, "file_bytes": path.stat().st_size, "open_ms": median(times), "open_most_ms": max(times)}
    finally:
        shutil.rmtree(folder)


def table(found: dict[str, Any]) -> Iterator[str]:
    """The figures as lines of text."""
    yield f"{'noise':32} {'cases':>6} {'codes, bit':>10} {'file, bit':>10} {'ratio':>7} {'aim':>5} {'with networks':>14}"
    for row in (*found["drawn"], *found["real"]):
        what = row.get("store") or "x".join(map(str, row["shape"][1:]))
        yield (
            f"{what + ' ' + str(row['scope']):32} {row['cases']:6} {row['code_bits_per_element']:10.3f} "
            f"{row['bits_per_element']:10.3f} {row['ratio']:7.2f} {row['aim'] or '-':>5} {row['ratio_with_networks']:14.2f}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", type=Path, help="stores of real noise")
    parser.add_argument("--cases", type=int, default=SHAPES[1, 28, 28], help="images of 28x28 to draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--open", type=int, default=1_000_000, help="images of the store that is opened")
    given = parser.parse_args(arguments)
    found = measure(given.stores, given.cases)
    opened = opening(given.open)
    tables = {f"{kind}_table": rows for kind, rows in found.items()} | {"opening_table": [opened]}
    lines = [*table(found), f"{opened['cases']} images: opened and looked up in {opened['open_ms']:.1f} ms (aim: 50)"]
    print(json.dumps(tables) if given.json else "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
