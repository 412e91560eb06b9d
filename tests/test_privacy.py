"""Originals are their owner's alone: modes of files under every umask, stores that others can read, what a kill leaves."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import full_disk
import pytest
from typer.testing import CliRunner

from monai_salm import DataWarning
from monai_salm.cli import app
from monai_salm.jobs.workspace import Workspace
from monai_salm.publishing import publish, restore
from monai_salm.publishing.staging import Staging
from monai_salm.shared.files import leftover_warnings, temporary_folder, try_lock
from monai_salm.store.store import NoiseStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="has no file modes")


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    full_disk.make_all(full_disk.small_set(folder / "set"), folder / "made")
    return folder


def open_to_others(root: Path) -> dict[str, str]:
    """What under a path is not its owner's alone, with its mode."""
    paths = [root, *root.rglob("*")]
    wanted = {path: 0o700 if path.is_dir() else 0o600 for path in paths}
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    return {str(path): oct(mode) for path, mode in modes.items() if mode != wanted[path]}


def test_restored_originals(made: Path, tmp_path: Path, umask: int) -> None:
    restore(made / "made/out", tmp_path / "back", made / "made/noise.db")
    assert open_to_others(tmp_path / "back") == {}
    publish(made / "set", tmp_path / "out", made / "made/noise.db")
    assert stat.S_IMODE((tmp_path / "out/LICENSE.txt").stat().st_mode) == 0o666 & ~umask, "a copy is for others"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("checkpoints", [1, 2])
def test_working_files(
    made: Path, tmp_path: Path, umask: int, checkpoints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies at a checkpoint leaves all its files."""
    saved, left = Workspace.save_checkpoint, [checkpoints]

    def die(self: Workspace, state: dict[str, object]) -> None:
        saved(self, state)
        left[0] -= 1
        if not left[0]:
            raise Killed

    monkeypatch.setattr(Workspace, "save_checkpoint", die)
    monkeypatch.setattr(Workspace, "__exit__", lambda self, *_: None)
    work = tmp_path / "noise.db.work"
    work.mkdir(mode=0o777)
    with pytest.raises(Killed):
        CliRunner().invoke(app, full_disk.arguments("generate", made / "set", made, tmp_path), catch_exceptions=False)
    assert {"images.bin", "labels.bin", "checkpoint.json"} <= {path.name for path in work.iterdir()}
    assert open_to_others(work) == {}


def test_files_of_an_unfinished_restore(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: Staging, beside: object = ()) -> None:
        raise Killed

    monkeypatch.setattr(Staging, "move_into_place", die)
    with pytest.raises(Killed):
        restore(made / "made/out", tmp_path / "back", made / "made/noise.db")
    assert stat.S_IMODE((tmp_path / ".back.partial").stat().st_mode) == 0o700
    assert open_to_others(tmp_path / ".back.partial/copy/back") == {}
    monkeypatch.undo()
    (line,) = leftover_warnings([tmp_path / "another"])
    assert str(tmp_path / ".back.partial") in line
    result = CliRunner().invoke(app, full_disk.arguments("restore", made / "set", made / "made", tmp_path))
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path / '.back.partial'} holds originals" in result.stderr
    assert "make that call" not in result.stderr, "this is that call"
    assert leftover_warnings([tmp_path / "another"]) == []


def test_what_a_killed_run_left_is_named_by_the_next_call(made: Path, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "a.db.work")
    (work.folder / "images.bin").write_bytes(b"originals")
    given = [str(made / "set"), "--store", str(tmp_path / "b.db"), "--method", "random_noise", "--json"]
    result = CliRunner().invoke(app, ["generate", *given])
    assert "warnings" not in json.loads(result.stdout), "it is in use"
    work._unlock()
    result = CliRunner().invoke(app, ["generate", *given])
    assert any(str(work.folder) in line and "delete" in line for line in json.loads(result.stdout)["warnings"])
    assert result.exit_code == 0


def test_temporary_folders_are_named_when_nobody_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert leftover_warnings([]) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "monai_salm-abc").mkdir()
    descriptor = try_lock(tmp_path / "monai_salm-abc/lock")
    assert descriptor is not None
    assert leftover_warnings([]) == []
    os.close(descriptor)
    (line,) = leftover_warnings([])
    assert "monai_salm-abc" in line
    for name, content in (("x.work", None), (".y.partial", "no JSON"), (".z.partial", '{"verb": "publish"}')):
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "job.json").write_text(content)
    assert len(leftover_warnings([tmp_path / "store.db"])) == 1, (
        "folders of others, and unfinished copies, are passed over"
    )


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True)]
)
def test_a_store_that_others_can_read_is_warned_of(made: Path, tmp_path: Path, mode: int, warned: bool) -> None:
    store = tmp_path / "noise.db"
    store.write_bytes((made / "made/noise.db").read_bytes())
    store.chmod(mode)
    if warned:
        with pytest.warns(DataWarning, match=r"others can read the noise store .*chmod 600"):
            len(NoiseStore(store))
    else:
        len(NoiseStore(store))
    for verb, more in (("info", []), ("verify", [made / "made/out", "--store", store])):
        first = [store] if verb == "info" else [made / "set"]
        result = CliRunner().invoke(app, [verb, *map(str, [*first, *more])])
        assert result.exit_code == 0, result.stderr
        assert (result.stderr.count("others can read") == 1) is warned


def test_looking_for_leftovers_makes_no_file_in_a_folder_that_is_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock goes first, and a new one would keep the folder from being removed."""
    folder = tmp_path / "monai_salm-1"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("monai_salm.shared.files._holds_originals", lambda folder: True)
    assert leftover_warnings([tmp_path / "another"]) == []
    assert not list(folder.iterdir())
