"""Sequences that make their arrays when asked behave as the lists they stand for."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest

from monai_salm.shared.arrays import ArrayList, Lazy, cut, rows_of


def test_lazy_is_a_sequence_that_makes_each_item_anew() -> None:
    asked: list[int] = []
    lazy = Lazy(4, lambda index: asked.append(index) or index * 10)
    assert (len(lazy), lazy[1], lazy[-1], lazy[np.int64(2)], lazy[1:3]) == (4, 10, 30, 20, [10, 20])
    assert list(lazy) == [0, 10, 20, 30]
    assert asked == [1, 3, 2, 1, 2, 0, 1, 2, 3]
    for outside in (4, -5):
        with pytest.raises(IndexError, match="outside a sequence of 4"):
            lazy[outside]


def test_cut_gives_writable_views_of_one_run_of_bytes() -> None:
    kinds = [(np.dtype("int16"), (2, 3)), (np.dtype("uint8"), (5,)), (np.dtype("float32"), (1, 1, 2))]
    flat = np.zeros(64, np.uint8)
    arrays = cut(flat, [0, 16, 32], lambda index: kinds[index])
    for index, (dtype, shape) in enumerate(kinds):
        arrays[index][...] = index + 1
        assert (arrays[index].dtype, arrays[index].shape) == (dtype, shape)
        assert (arrays[index] == index + 1).all()
    assert flat[16:21].tolist() == [2] * 5
    flat.flags.writeable = False
    assert not cut(flat, [0], lambda index: kinds[0])[0].flags.writeable


def test_rows_gives_back_what_it_took() -> None:
    arrays = [np.asarray(3), np.asarray(-1), np.asarray([1.0, 2.0], np.float32), np.asarray(7, np.int16), np.asarray(9)]
    rows = ArrayList(arrays[:2])
    for array in arrays[2:]:
        rows.append(array)
    assert len(rows) == 5
    for before, after in zip(arrays, rows, strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        np.testing.assert_array_equal(before, after)
    vectors = ArrayList([np.asarray([0, 1], np.float32), np.asarray([1, 1], np.float32)])
    assert [row.tolist() for row in vectors] == [[0, 1], [1, 1]]


def mapped_memory() -> int:
    """Bytes of files that lie in this process's memory."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["rows", "cut"])
def test_pages_of_a_mapped_file_are_let_go_and_keep_what_was_written(way: str) -> None:
    count, size = 128, 1 << 20
    with TemporaryFile() as file:
        file.truncate(count * size)
        flat = np.memmap(file, np.uint8, "r+")
    before = mapped_memory()
    rows = rows_of(flat.reshape(count, size))
    if way == "cut":
        rows = cut(flat, np.arange(count) * size, lambda _: (np.uint8, (size,)))
    for index, row in enumerate(rows):
        row[...] = index + 1
    assert mapped_memory() - before < 32 * size
    assert [int(row[-1]) for row in rows] == [index + 1 for index in range(count)]
    assert mapped_memory() - before < 32 * size
    first = rows[0]
    for row in rows:
        row.max()
    assert first.max() == 1  # a view that is held stays right
