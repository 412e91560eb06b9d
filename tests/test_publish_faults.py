"""Faults while a copy is made: kills, full disks, unreadable files, two processes; nothing is lost or half-written."""

from __future__ import annotations

import gzip
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from layout_samples import build_image_folder, save_text

from monai_salm.formats.nifti import Nifti
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect, open_layout
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import PublishError, publish, restore, verify
from monai_salm.publishing.staging import Staging, StagingBusyError
from monai_salm.shared.files import try_lock
from monai_salm.store.store import NoiseStore

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL, no locks and no limits")


def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kill_protect")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of four volumes, ``set``, and its store, ``noise.db``."""
    root = load(monkeypatch).small_folder(tmp_path / "set", cases=4, side=8)
    data = detect(root)
    precompute(
        data.dataset(),
        tmp_path / "noise.db",
        method=RandomNoise(epsilon=0.05),
        task=data.task(),
        window=IntensityWindow(-500, 500),
        device="cpu",
    )
    return tmp_path


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("verb", "kills"),
    [("restore", 2)]
    + [
        pytest.param(verb, 6, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
        for verb in ("generate", "publish", "verify", "restore", "protect", "evaluate")
    ],
)
def test_a_killed_verb_is_never_half_and_ends_the_same(
    verb: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    result = load(monkeypatch).kill_and_compare(kills, 0, tmp_path, lines.append, verb)
    assert (result.kills, result.differing) == (kills, 0), lines
    assert result.jobs >= 1


def limited(source: str, output: str, store: str, size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        publish(source, output, store)
    except OSError:
        sys.exit(3)


@pytest.mark.slow
def test_a_limit_on_file_sizes_leaves_no_copy_and_can_be_resumed(folder: Path) -> None:
    listing = json.loads((folder / "set/dataset.json").read_text())
    (folder / "set/dataset.json").write_text(json.dumps({**listing, "notes": "x" * 20000}))
    context = multiprocessing.get_context("spawn")
    paths = [str(folder / name) for name in ("set", "out/set", "noise.db")]
    process = context.Process(target=limited, args=(*paths, 8000))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert not (folder / "out/set").exists()
    staged = contents(folder / "out/.set.partial/copy")
    assert 0 < len(staged) < len(contents(folder / "set"))
    assert publish(folder / "set", folder / "out/set", folder / "noise.db").ok
    assert verify(folder / "set", folder / "out/set", folder / "noise.db").ok
    assert [path.name for path in (folder / "out").iterdir()] == ["set"]


def test_two_calls_on_one_output(folder: Path) -> None:
    """The second says so and changes nothing, whether it would write the same or something else."""
    output = folder / "out/set"
    with Staging.hold(output, {"verb": "publish"}) as staging:
        staging.copy.mkdir()
        with pytest.raises(StagingBusyError, match="another process is making"):
            publish(folder / "set", output, folder / "noise.db")
        with pytest.raises(StagingBusyError), Staging.hold(output, {"verb": "publish"}):
            pass
        assert staging.copy.is_dir()
    assert publish(
        folder / "set", output, folder / "noise.db"
    ).ok  # what a dead process left of another job is discarded


def racing(source: str, output: str, store: str, queue: Any) -> None:
    try:
        queue.put(publish(source, output, store).ok)
    except Exception as error:  # on every error the test must stop waiting
        queue.put(type(error).__name__)


@pytest.mark.slow
def test_two_processes_on_one_output(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    paths = [str(folder / name) for name in ("set", "out/set", "noise.db")]
    processes = [context.Process(target=racing, args=(*paths, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert True in answers
    assert set(answers) <= {True, "StagingBusyError", "FileExistsError"}
    assert verify(folder / "set", folder / "out/set", folder / "noise.db").ok
    assert [path.name for path in (folder / "out").iterdir()] == ["set"]


def test_a_second_process_looks_at_every_moment_of_a_removal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is known for ours until it is gone; a process that begins in it meanwhile is waited for, not robbed."""
    output, looks = folder / "out/set", []
    unlink = Path.unlink

    def looking(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.parent == staging.folder and path.name not in looks:
            looks.append(path.name)
            staging.require_own()
            Staging(output).remove_finished()
            with staging.finishing() as mine:
                assert not mine
            with suppress(FileNotFoundError):
                unlink(staging.folder / "finish.lock")

    with Staging.hold(output, {"verb": "publish"}) as staging:
        staging.copy.mkdir()
        monkeypatch.setattr(Path, "unlink", looking)
        staging.move_into_place()
    assert looks[0] == "job.json"
    assert looks[-1] == "lock"
    assert output.is_dir()
    assert not staging.folder.exists()


def test_a_process_that_begins_in_a_folder_being_removed_keeps_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = folder / "out/set"
    rmdir = Path.rmdir
    others = []

    def beginning(path: Path) -> None:
        if path == Staging(output).folder and not others:
            others.append(Staging.hold(output, {"verb": "other"}))
            others[0].__enter__()
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", beginning)  # Python 3.10's holds its own os.rmdir
    with Staging.hold(output, {"verb": "publish"}) as staging:
        staging.copy.mkdir()
        staging.move_into_place()
    assert output.is_dir()
    assert (staging.folder / "job.json").is_file()
    others[0].__exit__(None, None, None)
    assert not staging.folder.exists()


def test_locks_that_a_killed_process_left_are_removed_with_their_folder(folder: Path) -> None:
    """It died within the removal, after all but the locks."""
    assert publish(folder / "set", folder / "out/set", folder / "noise.db").ok
    (folder / "out/.set.partial").mkdir()
    for name in ("lock", "shard-0-of-1.lock"):
        (folder / "out/.set.partial" / name).touch()
    Staging(folder / "out/set").remove_finished()
    assert [path.name for path in (folder / "out").iterdir()] == ["set"]


def contending(output: str, queue: Any) -> None:
    answers = set()
    for turn in range(40):
        try:
            Staging(Path(output)).remove_finished()
            with Staging.hold(Path(output), {"job": turn % 2}) as staging:
                staging.copy.mkdir(exist_ok=True)
                with staging.finishing() as mine:
                    if mine:
                        staging.move_into_place()
            answers.add("done")
        except Exception as error:
            answers.add(type(error).__name__)
    queue.put(answers)


@pytest.mark.slow
def test_processes_that_contend_for_one_output_are_told_so_and_nothing_else(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=contending, args=(str(tmp_path / "set"), queue)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    assert set().union(*answers) <= {"done", "StagingBusyError"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removed the file between its opening and the lock: the lock must be on the file that is there now."""
    fcntl = pytest.importorskip("fcntl")
    flock, path = fcntl.flock, tmp_path / "lock"

    def removed_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    os.close(held)


def test_shards_and_threads_give_the_same_copy(folder: Path) -> None:
    one = publish(folder / "set", folder / "one/set", folder / "noise.db")
    publish(folder / "set", folder / "threads/set", folder / "noise.db", jobs=3)
    reports = [
        publish(folder / "set", folder / "shards/set", folder / "noise.db", shard=(index, 3)) for index in (2, 0, 1)
    ]
    assert [report.complete for report in reports] == [False, False, True]
    assert not (folder / "shards/.set.partial").exists()
    assert contents(folder / "one") == contents(folder / "threads") == contents(folder / "shards")
    assert (reports[-1].images, reports[-1].copied) == (one.images, one.copied) == (4, 6)
    for shard in ((0, 2), (1, 2)):
        assert verify(folder / "set", folder / "shards/set", folder / "noise.db", shard=shard).ok
        assert restore(folder / "shards/set", folder / "back/set", folder / "noise.db", shard=shard).ok
    assert (
        detect(folder / "back/set").dataset()[3]["image"].tobytes()
        == detect(folder / "set").dataset()[3]["image"].tobytes()
    )


def test_a_repeated_shard_does_no_work_twice(folder: Path) -> None:
    seen: list[str] = []
    for _ in range(2):
        publish(
            folder / "set",
            folder / "out/set",
            folder / "noise.db",
            shard=(0, 2),
            progress=lambda event: seen.append(event.detail),
        )
    assert len(seen) == len(set(seen)) == 5


BROKEN: dict[str, Callable[[Path], None]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "gone": lambda path: path.unlink(),
    "no image": lambda path: path.write_text("x"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_bad_file_is_listed_and_does_not_stop_the_rest(folder: Path, what: str) -> None:
    BROKEN[what](folder / "set/imagesTr/c1.nii.gz")
    report = publish(folder / "set", folder / "out/set", folder / "noise.db")
    assert not report.ok
    assert set(report.failed) == {"imagesTr/c1.nii.gz"}
    assert "c1.nii.gz" in report.failed["imagesTr/c1.nii.gz"]
    assert report.images == 3
    assert not (folder / "out/set/imagesTr/c1.nii.gz").exists()
    verified = verify(folder / "set", folder / "out/set", folder / "noise.db")
    assert (verified.problems, verified.left_out, verified.ok) == ([], report.failed, False)
    assert verified.checked == 3
    restored = restore(folder / "out/set", folder / "back/set", folder / "noise.db")
    assert (restored.images, restored.failed) == (3, {})
    assert "imagesTr/c1.nii.gz: was never published: " in restored.warnings[0]


def test_protected_images_that_exchanged_their_names_are_not_restored(folder: Path) -> None:
    """Each would get the label of the other."""
    publish(folder / "set", folder / "out/set", folder / "noise.db")
    one, two = (folder / f"out/set/imagesTr/c{number}.nii.gz" for number in (1, 2))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    restored = restore(folder / "out/set", folder / "back/set", folder / "noise.db")
    assert set(restored.failed) == {"imagesTr/c1.nii.gz", "imagesTr/c2.nii.gz"}
    assert all("is not as it was published" in why for why in restored.failed.values())
    assert restored.images == 2


def test_a_copy_that_was_packed_again_is_restored(folder: Path) -> None:
    publish(folder / "set", folder / "out/set", folder / "noise.db")
    path = folder / "out/set/imagesTr/c1.nii.gz"
    before = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(before), 1))
    assert path.read_bytes() != before
    restored = restore(folder / "out/set", folder / "back/set", folder / "noise.db")
    assert restored.failed == {}
    original = (folder / "set/imagesTr/c1.nii.gz").read_bytes()
    assert gzip.decompress((folder / "back/set/imagesTr/c1.nii.gz").read_bytes()) == gzip.decompress(original)


def test_a_protected_image_that_the_copy_lost_is_a_failure_in_every_layout(tmp_path: Path) -> None:
    build_image_folder(tmp_path / "folder")
    lines = ["image,label,split", *(f"{name}/{name}{i}.png,{name},train" for name in ("bad", "ok") for i in range(2))]
    build_image_folder(tmp_path / "table")
    save_text(tmp_path / "table/labels.csv", "\n".join([*lines, "gone.png,ok,test"]))
    for name, layout in (("folder", "image_folder"), ("table", "csv_labels")):
        root, out, store = tmp_path / name, tmp_path / f"out/{name}", tmp_path / f"{name}.db"
        data = open_layout(root, layout)
        precompute(data.dataset(), store, method=RandomNoise(epsilon=0.05), task=data.task(), device="cpu")
        assert publish(root, out, store, layout=layout).ok
        whole = restore(out, tmp_path / "whole" / name, store)
        assert whole.ok
        assert len(whole.warnings) == (name == "table")  # of a line that never had an image
        (out / "ok/ok0.png").unlink()
        restored = restore(out, tmp_path / "back" / name, store)
        assert set(restored.failed) == {"ok/ok0.png"}
        assert restored.images == whole.images - 1


def test_nothing_is_written_if_no_image_can_be_read(folder: Path) -> None:
    for path in (folder / "set/imagesTr").iterdir():
        path.write_text("x")
    with pytest.raises(PublishError, match="nothing was written, for no image could be"):
        publish(folder / "set", folder / "out/set", folder / "noise.db")
    assert not any((folder / "out").iterdir())


def test_bad_cases_are_left_out_of_the_noise_and_of_the_copy(folder: Path) -> None:
    (folder / "set/imagesTr/c1.nii.gz").write_text("x")
    shutil.copy(folder / "set/labelsTr/c2.nii.gz", folder / "set/labelsTr/c3.nii.gz")
    bad = np.full((8, 8, 8), 7, np.uint8)
    import nibabel

    nibabel.save(nibabel.Nifti1Image(bad, np.eye(4)), folder / "set/labelsTr/c2.nii.gz")
    data = detect(folder / "set")
    arguments: dict[str, Any] = {"method": RandomNoise(epsilon=0.05), "task": data.task(), "device": "cpu"}
    arguments["window"] = IntensityWindow(-500, 500)
    with pytest.raises(ValueError, match="c1"):
        precompute(data.dataset(), folder / "strict.db", **arguments)
    store = precompute(data.dataset(), folder / "new.db", skip_bad=True, **arguments)
    skipped = {case["name"]: case["reason"] for case in store.meta["skipped"]}
    assert set(skipped) == {"imagesTr/c1.nii.gz", "imagesTr/c2.nii.gz"}
    assert "label 7" in skipped["imagesTr/c2.nii.gz"]
    report = publish(folder / "set", folder / "out/set", store)
    assert set(report.failed) == set(skipped)
    assert "label 7" in report.failed["imagesTr/c2.nii.gz"]


def test_lost_permission_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite, denied = Nifti.rewrite, folder / "set/imagesTr/c2.nii.gz"

    def guarded(self: Nifti, source: Path, target: Path, edit: Any) -> None:
        if source == denied:
            raise PermissionError(13, "Permission denied", str(source))
        rewrite(self, source, target, edit)

    monkeypatch.setattr(Nifti, "rewrite", guarded)
    report = publish(folder / "set", folder / "out/set", folder / "noise.db")
    assert {name: "Permission denied" in reason for name, reason in report.failed.items()} == {
        "imagesTr/c2.nii.gz": True
    }


def test_a_lock_is_held_by_one_only(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    assert try_lock(tmp_path / "lock", shared=True) is None


def test_record_is_the_owners_alone(folder: Path) -> None:
    from monai_salm.store.records import records

    publish(folder / "set", folder / "out/set", folder / "noise.db")
    (record,) = records(NoiseStore(folder / "noise.db"))
    assert record["output"] == str(folder / "out/set")
    assert record["manifest"] == (folder / "out/set/monai_salm.json").read_text()
    assert str(folder) not in (folder / "out/set/monai_salm.json").read_text()
    assert (folder / "noise.db").stat().st_mode & 0o777 == 0o600
