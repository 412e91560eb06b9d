"""A full disk ends each verb in one sentence, and the same call goes on when there is room."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import full_disk
import numpy as np
import pytest

from monai_salm.shared.disk import DiskFullError, allocate, writing
from monai_salm.shared.files import atomic_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no mounts and no file modes")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set ``set``, and in ``made`` what all verbs write of it."""
    folder = tmp_path_factory.mktemp("made")
    full_disk.make_all(full_disk.small_set(folder / "set"), folder / "made")
    return folder


class FullAt:
    """``os.fsync`` that finds the disk full at one of its calls, as where blocks are allocated late."""

    def __init__(self, number: int) -> None:
        self.left, self.sync = number, os.fsync

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(descriptor)


@pytest.mark.parametrize("growth", [4.0, pytest.param(1.1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("verb", ["generate", "publish", "restore"])
def test_a_disk_that_is_full_at_some_write(
    made: Path, tmp_path: Path, verb: str, growth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, full = 1, 0
    while True:
        disk = tmp_path / str(number)
        disk.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", FullAt(number))
            wrong = full_disk.fill(verb, made / "set", made / "made", disk, patch.undo)
        if wrong is None:
            break
        assert wrong == [], number
        full, number = full + 1, max(number + 1, int(growth * number))
    assert full >= 2


def run_on_small_disks(folder: Path, verbs: str, steps: int) -> dict[str, dict[str, int]]:
    script = Path(full_disk.__file__)
    command = ["unshare", "-rm", sys.executable, str(script), str(folder), verbs, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    return dict(found)


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_small_disks(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("may not mount a disk")
    found = run_on_small_disks(tmp_path, ",".join(full_disk.VERBS), 12)
    assert all(count >= 4 for count in found["full"].values()), found


def test_working_files_have_all_their_blocks(tmp_path: Path) -> None:
    path = tmp_path / "codes.bin"
    allocate(path, 1 << 20)
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks * 512 >= 1 << 20
    np.memmap(path, np.uint8, "r+")[5] = 7
    allocate(path, 1 << 20)
    assert path.read_bytes()[5] == 7, "what is there stays"
    allocate(path, 1 << 10)
    assert path.read_bytes() == bytes(1 << 10)


@pytest.mark.parametrize("error", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_the_system_cannot_allocate_zeros_are_written(
    tmp_path: Path, error: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(error, "")

    if error is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    path = tmp_path / "codes.bin"
    allocate(path, (3 << 20) + 5)
    assert path.stat().st_blocks * 512 >= 3 << 20
    assert path.read_bytes() == bytes((3 << 20) + 5)
    path.write_bytes(b"\1" * ((3 << 20) + 5))
    allocate(path, (3 << 20) + 5)
    assert path.read_bytes()[:1] == b"\1"


def test_no_room_for_a_working_file_is_told_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(DiskFullError, match=r"codes.bin, which needs 1,048,576 bytes .*same call again"):
        allocate(tmp_path / "codes.bin", 1 << 20)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_by_name_and_remedy(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFullError, match=r"no room for .*a.txt.*Make room") as told, atomic_file(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert told.value.errno == number
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError), writing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "")
