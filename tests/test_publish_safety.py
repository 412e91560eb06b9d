"""What publish, restore and verify must never do: lose what is not theirs, trust the public copy, give an original away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docs_samples
import nibabel
import numpy as np
import pytest
from published_samples import make_archive, make_folder

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import PublishError, publish, restore, verify
from monai_salm.publishing.copy_job import CopyJob
from monai_salm.publishing.staging import Staging
from monai_salm.store.records import records
from monai_salm.store.store import NoiseStore


def protect(source: Path, store: Path, splits: tuple[str, ...] = ("train",), **settings: Any) -> NoiseStore:
    data = detect(source)
    window = IntensityWindow(0, 255) if source.is_file() else IntensityWindow(-500, 500)
    options = {"method": RandomNoise(epsilon=0.05), "task": data.task(), "window": window, "device": "cpu", **settings}
    return precompute(data.cases(splits), store, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder data set ``set``, its store ``noise.db`` and its copy ``out``."""
    make_folder(tmp_path / "set", "int16")
    publish(tmp_path / "set", tmp_path / "out", protect(tmp_path / "set", tmp_path / "noise.db"))
    return tmp_path


def test_restore_overwrites_only_what_it_wrote(folder: Path) -> None:
    store = folder / "noise.db"
    before = (folder / "set/licence.txt").read_text()
    (folder / "out/licence.txt").write_text("damaged")
    with pytest.raises(PublishError, match=r"may be an original|would be deleted"):
        restore(folder / "out", folder / "set", store, overwrite=True)
    assert (folder / "set/licence.txt").read_text() == before
    report = restore(folder / "out", folder / "back", store)
    assert report.warnings == ["licence.txt: is not as it was published"]
    restore(folder / "out", folder / "back", store, overwrite=True)
    shutil.rmtree(folder / "back")
    shutil.copytree(folder / "set", folder / "back")
    with pytest.raises(PublishError, match=r"may be an original|would be deleted"):
        restore(folder / "out", folder / "back", store, overwrite=True)


def test_archive_of_another_data_set_is_never_restored_over(tmp_path: Path) -> None:
    source, other = make_archive(tmp_path / "set.npz", (8, 8)), make_archive(tmp_path / "other.npz", (8, 8))
    publish(source, tmp_path / "out.npz", protect(source, tmp_path / "noise.db"))
    before = other.read_bytes()
    with pytest.raises(PublishError, match="may be an original"):
        restore(tmp_path / "out.npz", other, tmp_path / "noise.db", overwrite=True)
    assert other.read_bytes() == before


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (6, 6, 6)])
@pytest.mark.parametrize("value", [0, 25, 255])
def test_a_blank_image_of_an_archive_is_protected_with_the_others(
    tmp_path: Path, shape: tuple[int, ...], value: int
) -> None:
    with np.load(make_archive(tmp_path / "set.npz", shape), allow_pickle=False) as file:
        arrays = dict(file)
    arrays["train_images"][2] = value
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    source, copy, store = tmp_path / "set.npz", tmp_path / "out.npz", tmp_path / "noise.db"
    assert publish(source, copy, protect(source, store, window=None)).ok
    assert verify(source, copy, store).ok
    with np.load(copy, allow_pickle=False) as file:
        noise = file["train_images"][2].astype(int) - value
    assert 0 < np.abs(noise).max() <= 0.05 * 255
    restore(copy, tmp_path / "back.npz", store)
    with np.load(tmp_path / "back.npz", allow_pickle=False) as file:
        assert np.array_equal(file["train_images"], arrays["train_images"])


def test_a_copy_of_an_archive_has_its_ending(tmp_path: Path) -> None:
    source = make_archive(tmp_path / "set.npz", (8, 8))
    store = protect(source, tmp_path / "noise.db")
    with pytest.raises(PublishError, match=r"give an output with this ending, not .*out"):
        publish(source, tmp_path / "out", store)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "file"])
def test_what_stands_where_the_staging_folder_goes_is_left_alone(folder: Path, kind: str) -> None:
    precious = folder / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    place = folder / ".new.partial"
    if kind == "link":
        place.symlink_to(precious)
    elif kind == "folder":
        precious.rename(place)
        precious = place
    else:
        place.write_text("years of work")
    with pytest.raises(ValueError, match="is in the way"):
        publish(folder / "set", folder / "new", folder / "noise.db")
    assert (place if kind == "file" else precious / "thesis.txt").read_text() == "years of work"


def test_overwritten_store_that_was_used_is_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    protect(folder / "set", folder / "noise.db", overwrite=True, seed=1)
    assert "is now" in caplog.text
    assert restore(folder / "out", folder / "back", folder / "noise.db.old1").ok
    protect(folder / "set", folder / "noise.db", overwrite=True, seed=2)
    assert not (folder / "noise.db.old2").exists(), "nothing was published with it"


def test_splits_are_found_in_the_images_and_not_in_the_manifest(tmp_path: Path) -> None:
    make_folder(tmp_path / "set", "int16")
    splits = ("train", "test")
    store = protect(tmp_path / "set", tmp_path / "noise.db", splits)
    publish(tmp_path / "set", tmp_path / "out", store, splits=splits)
    manifest = tmp_path / "out/monai_salm.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "splits": ["train"]}))
    for name in ("a", "b"):
        report = restore(tmp_path / "out", tmp_path / name, store)
        assert "record of the copy" in report.warnings[0]
        for split in splits:
            pairs = zip(detect(tmp_path / "set").dataset(split), detect(tmp_path / name).dataset(split), strict=True)
            assert all(before["image"].tobytes() == after["image"].tobytes() for before, after in pairs)
        manifest.unlink(missing_ok=True)


def test_a_split_other_than_train_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "set", "int16")
    store = protect(tmp_path / "set", tmp_path / "noise.db", ("test",))
    publish(tmp_path / "set", tmp_path / "out", store, splits=("test",))
    assert verify(tmp_path / "set", tmp_path / "out", store).ok
    assert restore(tmp_path / "out", tmp_path / "back", store).images == 1


def edited(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def edit(manifest: Path) -> None:
        content = change(json.loads(manifest.read_text()))
        manifest.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    return edit


EDITS: dict[str, Callable[[Path], Any]] = {
    "version": edited(lambda c: {**c, "monai_salm": "9.9.9"}),
    "format": edited(lambda c: {**c, "format_version": 1}),
    "added key": edited(lambda c: {**c, "author": "somebody"}),
    "splits": edited(lambda c: {**c, "splits": ["train", "test"]}),
    "signature": lambda manifest: manifest.with_name(manifest.name + ".sig").write_text("bogus"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_edit_of_the_manifest_is_found(folder: Path, edit: str) -> None:
    assert verify(folder / "set", folder / "out", folder / "noise.db").ok
    EDITS[edit](folder / "out/monai_salm.json")
    assert not verify(folder / "set", folder / "out", folder / "noise.db").ok


def test_a_kill_after_the_last_rename_is_cleaned_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(self: Staging) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "remove", die)
        patch.setattr(Staging, "_remove_if_empty", lambda self: None)
        with pytest.raises(Killed):
            publish(folder / "set", folder / "out", folder / "noise.db", overwrite=True)
    assert (folder / ".out.partial").exists()
    assert publish(folder / "set", folder / "out", folder / "noise.db", overwrite=True).ok
    assert not (folder / ".out.partial").exists()
    assert verify(folder / "set", folder / "out", folder / "noise.db").ok


def test_an_earlier_copy_that_was_moved_aside_is_never_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the two renames, and then a call that cannot succeed: the earlier copy stands again."""

    class Killed(BaseException):
        pass

    rename, before = os.rename, (folder / "out/monai_salm.json").read_bytes()

    def die_at_the_second(source: Any, target: Any) -> None:
        if Path(target) == folder / "out":
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die_at_the_second)
        with pytest.raises(Killed):
            publish(folder / "set", folder / "out", folder / "noise.db", overwrite=True)
    assert not (folder / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(CopyJob, "_refuse_empty", lambda self, failed: int("x"))
        with pytest.raises(ValueError, match="invalid literal"):
            publish(folder / "set", folder / "out", folder / "noise.db", overwrite=True)
    assert (folder / "out/monai_salm.json").read_bytes() == before
    assert verify(folder / "set", folder / "out", folder / "noise.db").ok


def test_more_shards_than_images_and_repeated_ones(folder: Path) -> None:
    for index in (*range(12), 3, 11):
        assert publish(folder / "set", folder / "shards", folder / "noise.db", shard=(index, 12)).ok
    stamp = (folder / "shards").stat().st_ino
    assert publish(folder / "set", folder / "shards", folder / "noise.db", shard=(0, 12), overwrite=True).complete
    assert (folder / "shards").stat().st_ino == stamp
    for index in range(12):
        assert verify(folder / "set", folder / "shards", folder / "noise.db", shard=(index, 12)).ok
        assert restore(folder / "shards", folder / "back", folder / "noise.db", shard=(index, 12)).ok
    assert len([r for r in records(NoiseStore(folder / "noise.db")) if r["output"].endswith("shards")]) == 1


def test_images_unlike_the_rest_and_repeated_ones_are_listed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", "int16")
    flat = np.random.default_rng(9).integers(-400, 400, (7, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(flat, np.eye(4)), root / "training/i2.nii.gz")
    shutil.copy(root / "training/i0.nii.gz", root / "training/i1.nii.gz")
    store = protect(root, tmp_path / "noise.db", skip_bad=True)
    skipped = {case["name"]: case["reason"] for case in store.meta["skipped"]}
    assert "2D and 3D mixed" in skipped["training/i2.nii.gz"] or "label" in skipped["training/i2.nii.gz"]
    assert "same image with different labels" in skipped["training/i1.nii.gz"]
    report = publish(root, tmp_path / "out", store)
    assert set(report.failed) == set(skipped)


def test_nothing_secret_gets_into_the_copy(folder: Path) -> None:
    (folder / "set/key.pem").write_text("secret")
    with pytest.raises(PublishError, match="would be published"):
        publish(folder / "set", folder / "new", folder / "noise.db", sign_key=folder / "set/key.pem")
    archive = make_archive(folder / "a.npz", (8, 8))
    protect(archive, folder / "a.db")
    (folder / "b.npz.salm.json").write_text("mine")
    with pytest.raises(FileExistsError, match="without its archive"):
        publish(archive, folder / "b.npz", folder / "a.db")
    assert (folder / "b.npz.salm.json").read_text() == "mine"


def test_output_may_be_the_folder_one_is_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    publish(folder / "set", ".", folder / "noise.db")
    assert verify(folder / "set", folder / "empty", folder / "noise.db").ok


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_store_that_cannot_be_written_is_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PublishError, match="cannot be written"):
        publish(folder / "set", folder / "new", folder / "noise.db")
    assert not (folder / "new").exists()


def test_the_same_copy_signed_and_unsigned(folder: Path) -> None:
    """Both have one manifest; neither must be taken for a changed copy of the other."""
    pytest.importorskip("cryptography")
    docs_samples.signing_keys(folder)
    publish(folder / "set", folder / "signed/out", folder / "noise.db", sign_key=folder / "key.pem")
    for name in ("out", "signed/out"):
        assert verify(folder / "set", folder / name, folder / "noise.db").ok


@pytest.mark.parametrize(("change", "said"), [(None, "no manifest"), ({"splits": ["nowhere"]}, "names the splits")])
def test_a_broken_manifest_hides_nothing_else(folder: Path, change: dict[str, Any] | None, said: str) -> None:
    manifest = folder / "out/monai_salm.json"
    manifest.write_text("{}" if change is None else json.dumps({**json.loads(manifest.read_text()), **change}))
    shutil.copy(folder / "set/training/i0.nii.gz", folder / "out/training/i0.nii.gz")
    problems = verify(folder / "set", folder / "out", folder / "noise.db").problems
    assert any("is unprotected" in problem for problem in problems)
    assert any(said in problem for problem in problems)
