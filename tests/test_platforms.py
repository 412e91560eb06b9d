"""Paths of Windows and macOS, as far as they can be tried elsewhere."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest

from monai_salm.layouts.files import LayoutError, relative_path
from monai_salm.noise.budget import budget_of
from monai_salm.noise.noise import Noise
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared import files as _files
from monai_salm.shared.disk import only_owner
from monai_salm.shared.files import atomic_file, temporary_name
from monai_salm.store import file as store_file
from monai_salm.store.store import NoiseStore


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/data/noise.db"), "file:///data/noise.db"),
        (PurePosixPath("/data/100 % sure?/a#b.db"), "file:///data/100%20%25%20sure%3F/a%23b.db"),
        (PureWindowsPath("C:\\Users\\Ann Lee\\noise.db"), "file:///C:/Users/Ann%20Lee/noise.db"),
        # SQLite refuses a host; a Windows share goes into the path, after four slashes.
        (PureWindowsPath("\\\\server\\scans\\noise.db"), "file:////server/scans/noise.db"),
    ],
)
def test_sqlite_is_given_a_uri_that_it_takes(path: PurePosixPath | PureWindowsPath, uri: str) -> None:
    assert store_file.file_uri(path) == uri


def test_sqlite_refuses_a_uri_with_a_host() -> None:
    with pytest.raises(sqlite3.OperationalError, match="invalid uri authority"):
        sqlite3.connect("file://server/scans/noise.db?mode=ro", uri=True)


@pytest.mark.parametrize("folder", ["ü 中文", "a b", "100 %", "what?", "a#b"])
def test_a_store_may_stand_anywhere(folder: str, tmp_path: Path) -> None:
    place = tmp_path / folder
    place.mkdir()
    image, window = np.arange(12, dtype=np.uint8).reshape(1, 3, 4) * 10, IntensityWindow(0, 255)
    store = NoiseStore.create(place / "noise.db", {"window": window.spec()})
    budget = budget_of(image, window, Units(), 0.1)
    store.add([Noise.of(image, np.ones(image.shape, np.int8), budget, "case")])
    assert len(NoiseStore(place / "noise.db")) == 1
    assert [path.name for path in place.iterdir()] == ["noise.db"]


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("images\\a.nii", "images/a.nii"),  # a list written on Windows
        (".\\images\\a.nii", "images/a.nii"),
        ("images/a.nii", "images/a.nii"),
        ("C:\\images\\a.nii", None),
        ("C:a.nii", None),
        ("\\\\server\\images\\a.nii", None),
        ("\\images\\a.nii", None),
        ("..\\a.nii", None),
        ("images\\..\\..\\a.nii", None),
    ],
)
def test_lists_written_on_windows_are_read_and_cannot_lead_out(text: str, relative: str | None, tmp_path: Path) -> None:
    if relative is None:
        with pytest.raises(LayoutError, match="must be relative and stay inside"):
            relative_path(tmp_path, text, "entry 0")
    else:
        assert relative_path(tmp_path, text, "entry 0") == relative


@pytest.mark.parametrize("name", ["a" * 248 + ".nii.gz", "ü" * 120 + ".nii.gz", "中" * 82 + ".nii", "short.nii"])
def test_names_as_long_as_a_file_system_takes_are_written(name: str, tmp_path: Path) -> None:
    assert len(os.fsencode(name)) <= 255
    assert len(os.fsencode(temporary_name(name))) <= 255
    with atomic_file(tmp_path / name) as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_only_posix_has_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # no advisory locks
    first = _files.try_lock(tmp_path / "lock")
    second = _files.try_lock(tmp_path / "lock")
    assert first is not None
    assert second is not None
    os.close(first)
    os.close(second)
    monkeypatch.delattr(os, "fchmod")
    with open(tmp_path / "file", "wb", opener=only_owner):
        pass
