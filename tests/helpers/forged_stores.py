"""What someone with a database tool, this package and no owner's key does to a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_salm.layouts import detect
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.rows import RowWriter, checksum
from monai_salm.store.store import Noise, NoiseStore


def replace_noise(path: Path, change: Callable[[list[Noise]], Sequence[Noise]]) -> None:
    """Write other noise into a store, with checksums that fit it."""
    store = NoiseStore(path)
    changed = change(list(store))
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    for table in ("noise", "kind", "original", "protected"):
        connection.execute(f"DELETE FROM {table}")
    writer = RowWriter(connection)
    for noise in changed:
        writer.add(noise)
    writer.finish()
    connection.execute("COMMIT")
    connection.close()


def cut_to_one_element(noises: list[Noise]) -> list[Noise]:
    """The digests stay, and of the noise nearly nothing is left."""
    cut = []
    for noise in noises:
        codes = np.zeros_like(noise.codes)
        place = int(np.flatnonzero(noise.codes)[0])
        codes.flat[place] = noise.codes.flat[place]
        cut.append(replace(noise, codes=codes))
    return cut


def exchanged(noises: list[Noise]) -> list[Noise]:
    """The first two images have each other's noise."""
    first, second, *rest = noises
    return [replace(first, codes=second.codes), replace(second, codes=first.codes), *rest]


def from_copy(copy: Path, store: Path, meta: dict[str, Any]) -> NoiseStore:
    """A store that says of a public copy that it hides other originals."""
    rng, made = np.random.default_rng(0), NoiseStore.create(store, meta)
    budget = Budget(IntensityWindow(-500, 500), Grid("int16", 1.0, (50,)))
    noises = []
    for case in detect(copy).dataset():
        image = case["image"]
        codes = rng.choice(np.array([-5, 5], np.int8), image.shape)
        codes[(image < -400) | (image > 400)] = 0
        noises.append(Noise.of(image - codes, codes, budget, case["name"]))
    made.add(noises)
    return made


def plant(path: Path, statement: str, *values: Any) -> None:
    """Change a store; a value that is a tuple stands for the checksum of what is in it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, [checksum(*value) if isinstance(value, tuple) else value for value in values])
    connection.close()
