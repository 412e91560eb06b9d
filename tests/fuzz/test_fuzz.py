"""Files, and what stores keep, are changed at random: they are read, or end in an error of the package's own that names the file.

``corpus`` keeps the files that once ended in anything else. A longer search, with other changes:

    FUZZ_SECONDS=60 FUZZ_SEED=7 pytest -m slow tests/fuzz
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated_stores import STORES
from mutations import CHANGES, FILES, Change, Kind, changed, draw

KINDS = {**FILES, **STORES}
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
# Seconds of each kind in the slow test, the seed of its changes, and memory above what is in use that reading may take.
SECONDS, SEED = int(os.environ.get("FUZZ_SECONDS", "5")), int(os.environ.get("FUZZ_SEED", "0"))
MEMORY = 1 << 30
_PAGE = resource.getpagesize()


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Any larger allocation is a MemoryError, which is no error of the package's own."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    resource.setrlimit(resource.RLIMIT_AS, before)


_CHANGES = st.lists(
    st.tuples(st.sampled_from(CHANGES), st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4
)


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    path = KINDS[name].make(tmp_path)
    content = path.read_bytes()

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_CHANGES)
    def check(changes: list[Change]) -> None:
        path.write_bytes(changed(content, changes))
        KINDS[name].outcome(path)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_changed_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    kind, rng = KINDS[name], np.random.default_rng(SEED)
    path = kind.make(tmp_path)
    content, end = path.read_bytes(), time.monotonic() + SECONDS
    while time.monotonic() < end:
        changes = draw(rng)
        path.write_bytes(changed(content, changes))
        _require_outcome(kind, path, changes)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_a_file_that_was_once_found_is_read_or_refused(tmp_path: Path, file: Path) -> None:
    kind = KINDS[file.name.split("-")[0]]
    path = kind.make(tmp_path)
    path.write_bytes(file.read_bytes())
    _require_outcome(kind, path, file.name)


def _require_outcome(kind: Kind, path: Path, changes: Any) -> None:
    try:
        kind.outcome(path)
    except Exception as error:
        raise AssertionError(f"{changes}: {type(error).__name__}: {error}") from error
