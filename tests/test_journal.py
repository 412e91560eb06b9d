"""The journal of an evaluation: finished work is kept after every kind of stop, and only where it belongs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from monai_salm.evaluation.journal import Journal, JournalError

IDENTITY: dict[str, Any] = {"task": {"kind": "classification"}, "digests": {"clean": "ab"}}


def written(path: Path, cells: int = 3) -> Path:
    with Journal(path, IDENTITY) as journal:
        for number in range(cells):
            journal.add([{"seed": number, "last": 0.5}])
    return path


def test_cells_come_back(tmp_path: Path) -> None:
    path = written(tmp_path / "folder" / "cells.jsonl")
    with Journal(path, IDENTITY) as journal:
        assert [cell["seed"] for cell in journal.cells] == [0, 1, 2]
        journal.add([{"seed": 3, "last": math.nan}, {"seed": 4, "last": 1.0}])
        assert journal.seconds >= 0
    with Journal(path, IDENTITY) as journal:
        assert [cell["seed"] for cell in journal.cells] == [0, 1, 2, 3, 4]
        assert math.isnan(journal.cells[3]["last"])


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_short_is_written_again(cut: int, tmp_path: Path) -> None:
    path = written(tmp_path / "cells.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, IDENTITY) as journal:
        assert [cell["seed"] for cell in journal.cells] == [0, 1]
        journal.add([{"seed": 9}])
    with Journal(path, IDENTITY) as journal:
        assert [cell["seed"] for cell in journal.cells] == [0, 1, 9]


def test_even_the_first_line_may_be_cut_short(tmp_path: Path) -> None:
    path = written(tmp_path / "cells.jsonl", 0)
    path.write_bytes(path.read_bytes()[:-3])
    with Journal(path, IDENTITY) as journal:
        journal.add([{"seed": 0}])
    with Journal(path, IDENTITY) as journal:
        assert len(journal.cells) == 1


def test_another_evaluation_is_refused_and_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "cells.jsonl")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"with digests {'clean': 'ab'}, this one has {'clean': 'cd'}"):
        Journal(path, {**IDENTITY, "digests": {"clean": "cd"}})
    assert path.read_bytes() == before
    Journal(path, IDENTITY).close()


@pytest.mark.parametrize(
    "content", [b"name,value\n1,2\n", b"[1, 2]\n", b'{"a": 1}\n', b'{"format": 1}\n{{\n', b'{"format": 1}\n{"a": 1}\n']
)
def test_other_files_are_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"other\.txt.*name a file that does not exist yet"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == content


def test_a_file_without_an_end_of_line_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"not a line of JSON")
    with pytest.raises(JournalError, match="no journal"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == b"not a line of JSON"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    with Journal(path, IDENTITY), pytest.raises(JournalError, match="in use"):
        Journal(path, IDENTITY)
