"""A protected copy is whole, provable and undoable; and no original leaves unprotected."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImaged
from published_samples import make_archive, make_folder

from monai_salm.formats import format_of
from monai_salm.formats.nifti import Nifti
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import FolderLayout, MedMNIST, detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.noise.grid import Grid
from monai_salm.noise.window import IntensityWindow, PercentileWindow
from monai_salm.publishing import PublishError, check_publishable, noise_statistics, publish, restore, verify
from monai_salm.shared.progress import Progress, show_progress
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError

EPSILON = 0.05
KINDS = ("medmnist", "medmnist3d", "rgb", "int16", "float32")


@dataclass
class Example:
    """A data set, its noise, and where copies go."""

    source: Path
    output: Path
    store: NoiseStore
    single: bool

    @property
    def manifest(self) -> Path:
        return (
            self.output.with_name(self.output.name + ".salm.json") if self.single else self.output / "monai_salm.json"
        )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a data set and its store, made once a kind."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folder = folders[kind] = tmp_path_factory.mktemp(kind)
            shapes = {"medmnist": (8, 8), "medmnist3d": (6, 6, 6), "rgb": (8, 8, 3)}
            source = (
                make_archive(folder / "set.npz", shapes[kind]) if kind in shapes else make_folder(folder / "set", kind)
            )
            data = detect(source)
            window = IntensityWindow(0, 255) if kind in shapes else IntensityWindow(-500, 500)
            method = RandomNoise(epsilon=EPSILON)
            precompute(
                data.dataset(), folder / "noise.db", method=method, task=data.task(), window=window, device="cpu"
            )
        return folders[kind]

    return make


@pytest.fixture
def example(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Example]:
    def make(kind: str) -> Example:
        folder = tmp_path / "in"
        shutil.copytree(made(kind), folder)
        single = (folder / "set.npz").exists()
        name = "set.npz" if single else "set"
        (tmp_path / "out").mkdir()
        return Example(folder / name, tmp_path / "out" / name, NoiseStore(folder / "noise.db"), single)

    return make


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


@pytest.mark.parametrize("kind", KINDS)
def test_copy_is_protected_verified_and_restored(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    reports: list[Progress] = []
    report = publish(ex.source, ex.output, ex.store, progress=reports.append)
    original, copy = detect(ex.source), detect(ex.output)
    assert (report.output, report.manifest) == (ex.output, ex.manifest)
    assert report.warnings == []
    assert set(report.not_copied) == (set() if ex.single else {".DS_Store"})
    steps = report.images if ex.single else report.images + report.copied
    assert [r.done for r in reports] == list(range(1, steps + 1))
    assert report.images == len(original.dataset())

    width, shares = (255 if ex.single else 1000), []
    for before, after in zip(original.dataset(), copy.dataset(), strict=True):
        difference = after["image"].astype(float) - before["image"].astype(float)
        assert after["image"].dtype == before["image"].dtype
        assert 0 < np.abs(difference).max() <= EPSILON * width * (1 + 1e-6)
        assert np.abs(difference).max() > 0.8 * EPSILON * width
        shares.append((difference != 0).mean())
        assert np.array_equal(before["label"], after["label"])
    assert np.mean(shares) > 0.5
    for before, after in zip(original.dataset("test"), copy.dataset("test"), strict=True):
        assert np.array_equal(before["image"], after["image"])

    result = verify(ex.source, ex.output, ex.store)
    assert (result.ok, result.checked, result.problems) == (True, report.images, [])

    back = ex.output.with_name("back" + ex.output.suffix)
    restore(ex.output, back, ex.store.path)
    for before, after in zip(original.dataset(), detect(back).dataset(), strict=True):
        assert before["image"].tobytes() == after["image"].tobytes()
        assert before["image"].dtype == after["image"].dtype
    if isinstance(original, MedMNIST):
        assert list(original.differences(original.reopen(back), splits=())) == []
    else:
        left = unpacked(ex.source)
        assert {name: left[name] for name in left if name != ".DS_Store"} == unpacked(back)
    assert not leftovers(ex.output.parent)
    assert not back.with_name(back.name + ".salm.json").exists()


def unpacked(root: Path) -> dict[str, bytes]:
    """Everything in a folder; gzip may be packed otherwise in a restored copy, what is in it must be the same."""
    files = files_of(root)
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items()}


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")  # MONAI tries every reader it has
@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_store_knows_the_images_that_monai_loads(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    publish(ex.source, ex.output, ex.store)
    load = LoadImaged("image", ensure_channel_first=True)
    for file in detect(ex.source).image_files():
        image = load({"image": str(ex.source / file)})["image"].numpy()
        noise = ex.store.get(content_digest(image))
        assert noise is not None
        published = load({"image": str(ex.output / file)})["image"].numpy()
        assert np.array_equal(noise.apply(image), published)


def test_publishing_twice_gives_the_same_bytes(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    again = ex.output.parent / "again" / ex.output.name  # the manifest holds the name
    publish(ex.source, again, ex.store)
    for file in (*detect(ex.source).all_files(), "monai_salm.json"):
        assert (ex.output / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_manifest_gives_nothing_away(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    publish(ex.source, ex.output, ex.store)
    text = ex.manifest.read_text()
    content = json.loads(text)
    said = {"format_version", "monai_salm", "layout", "notice", "dataset", "splits", "epsilon", "window"}
    assert set(content) == {*said, "files", "other_files", "folders"}
    assert content["epsilon"] == EPSILON
    assert set(content["files"]) == set(detect(ex.output).image_files())
    assert all(len(digest) == 64 for digest in content["files"].values())
    assert str(ex.source.parent) not in text
    assert "seed" not in text
    for noise in ex.store:
        assert noise.digest.hex() not in text


def change_first_image(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the first training image of a copy in place."""
    data = detect(path)
    if isinstance(data, FolderLayout):
        unit = data.stored_images()[0]
        unit.write(path, path, change(unit.read(path).copy()))
        return
    assert isinstance(data, MedMNIST)
    first, scratch = data.dataset().names[0], path.with_name("scratch" + path.suffix)
    data.rewrite(scratch, lambda name, image: change(image.copy()) if name == first else image)
    scratch.replace(path)


def files_of(root: Path) -> dict[str, bytes]:
    """Everything in a folder, or in a file, byte for byte."""
    paths = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def one_step(image: np.ndarray) -> np.ndarray:
    image.flat[0] += 1 if image.flat[0] < 200 else -1
    return image


def far_away(image: np.ndarray) -> np.ndarray:
    image.flat[0] = 128 if abs(int(image.flat[0]) - 128) > 60 else 250
    return image


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_verify_finds_changed_voxels(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    publish(ex.source, ex.output, ex.store)
    change_first_image(ex.output, one_step)
    problems = verify(ex.source, ex.output, ex.store).problems
    assert any("is not the original plus its noise" in p for p in problems)
    assert any("does not match its digest" in p for p in problems)
    change_first_image(ex.output, far_away)
    assert any("exceeds epsilon" in p for p in verify(ex.source, ex.output, ex.store).problems)


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_verify_finds_an_unprotected_copy(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    (shutil.copy if ex.single else shutil.copytree)(ex.source, ex.output)
    result = verify(ex.source, ex.output, ex.store)
    assert not result.ok
    assert sum("is unprotected" in p for p in result.problems) == result.checked > 0
    assert any("missing; publish again" in p for p in result.problems)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text file": (lambda out: (out / "licence.txt").write_text("other"), "licence.txt: differs"),
    "missing file": (lambda out: (out / "licence.txt").unlink(), "licence.txt: missing"),
    "added file": (lambda out: (out / "noise.txt").write_text("x"), "noise.txt: not in the original"),
    "label": (lambda out: shutil.copy(out / "training/l1.nii.gz", out / "training/l0.nii.gz"), "l0.nii.gz: differs"),
    "test image": (
        lambda out: shutil.copy(out / "training/i0.nii.gz", out / "test/i0.nii.gz"),
        "test/i0.nii.gz: differs",
    ),
    "missing image": (lambda out: (out / "training/i0.nii.gz").unlink(), "training/i0.nii.gz: missing"),
    "broken image": (lambda out: (out / "training/i0.nii.gz").write_bytes(b"x"), "not a NIfTI file"),
    "swapped": (
        lambda out: shutil.copy(out / "training/i1.nii.gz", out / "training/i0.nii.gz"),
        "i0.nii.gz': is not the original",
    ),
    "no manifest": (lambda out: (out / "monai_salm.json").unlink(), "missing; publish again"),
    "manifest": (lambda out: (out / "monai_salm.json").write_text("{"), "no manifest"),
    "epsilon": (lambda out: edit_json(out / "monai_salm.json", lambda c: c | {"epsilon": 0.5}), "epsilon is 0.5"),
    "listed files": (
        lambda out: edit_json(out / "monai_salm.json", lambda c: c | {"files": {"a": "b"}}),
        "unknown file a",
    ),
    "case": (
        lambda out: edit_json(out / "dataset.json", lambda c: c | {"training": c["training"][1:]}),
        "dataset.json: differs",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage(example: Callable[[str], Example], damage: str) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    change, problem = DAMAGES[damage]
    change(ex.output)
    result = verify(ex.source, ex.output, ex.store)
    assert not result.ok
    assert any(problem in p for p in result.problems), result.problems


def test_verify_finds_a_changed_header(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    file = ex.output / "training/i0.nii.gz"
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[90] ^= 1
    file.write_bytes(gzip.compress(data))
    assert any("header" in p for p in verify(ex.source, ex.output, ex.store).problems)


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_verify_says_what_is_missing(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    result = verify(ex.source, ex.output, ex.store)
    assert (result.ok, result.checked) == (False, 0)
    assert result.problems == [f"{ex.output} does not exist; check the path, or publish it first"]


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_verify_knows_the_store_of_another_data_set(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    publish(ex.source, ex.output, ex.store)
    other = NoiseStore.create(ex.store.path.with_name("other.db"), ex.store.meta)
    result = verify(ex.source, ex.output, other)
    assert f"none of the {result.checked} images' noise is in {other.path}" in result.problems[0]
    other.add(list(ex.store)[:1])
    assert not any("none of the" in problem for problem in verify(ex.source, ex.output, other).problems)


def test_verify_holds_noise_to_the_size_of_its_mask(example: Callable[[str], Example]) -> None:
    ex = example("medmnist")
    meta = ex.store.meta
    meta["mask_share"] = 0.3
    masked = NoiseStore.create(ex.store.path.with_name("masked.db"), meta)
    masked.add(list(ex.store))
    publish(ex.source, ex.output, masked)
    problems = verify(ex.source, ex.output, masked).problems
    assert problems
    assert all("more than the mask's 19" in p for p in problems)


def test_image_without_noise_is_never_published(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    change_first_image(ex.source, one_step)
    report = publish(ex.source, ex.output, ex.store)
    (name, reason), *others = report.failed.items()
    assert (name, others) == (detect(ex.source).dataset().names[0], [])
    assert f"case {name!r} is not in" in reason
    assert "Generate the noise again" in reason
    assert not (ex.output / name).exists()


def test_an_archive_has_no_image_to_leave_out(example: Callable[[str], Example]) -> None:
    ex = example("medmnist")
    change_first_image(ex.source, one_step)
    with pytest.raises(PublishError, match=r"nothing was written: case 'train\[0\]' is not in"):
        publish(ex.source, ex.output, ex.store)
    assert list(ex.output.parent.iterdir()) == []


def test_publishing_a_protected_copy_is_refused(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    with pytest.raises(PublishError, match="protected copy already, by its manifest"):
        publish(ex.output, ex.output.with_name("twice"), ex.store)
    (ex.output / "monai_salm.json").unlink()
    with pytest.raises(PublishError, match="protected copy already"):
        publish(ex.output, ex.output.with_name("twice"), ex.store)
    assert not ex.output.with_name("twice").exists()


def test_noise_of_another_type_is_refused(example: Callable[[str], Example]) -> None:
    """A fraction of a step would be rounded to no noise at all."""
    ex = example("int16")
    other = NoiseStore.create(ex.store.path.with_name("other.db"), ex.store.meta)
    for case in detect(ex.source).dataset():
        image = case["image"].astype("float32")
        budget = Budget(IntensityWindow(-500, 500), Grid("float32", 0.25, (127,)))
        other.add([Noise.of(image, np.ones(image.shape, "int8"), budget, case["name"])])
    with pytest.raises(PublishError, match=r"i0\.nii\.gz' is stored as int16, its noise was made for float32"):
        publish(ex.source, ex.output, other)


def test_noise_of_zeros_is_refused(example: Callable[[str], Example]) -> None:
    ex = example("medmnist")
    empty = NoiseStore.create(ex.store.path.with_name("empty.db"), ex.store.meta)
    for case in detect(ex.source).dataset():
        budget = Budget(IntensityWindow(0, 255), Grid("uint8", 1.0, (12,)))
        empty.add([Noise.of(case["image"], np.zeros(case["image"].shape, "int8"), budget, case["name"])])
    with pytest.raises(PublishError, match="changes nothing"):
        publish(ex.source, ex.output, empty)
    found = noise_statistics(empty)
    assert (found["cases"], found["psnr"], found["support"]) == (5, None, 0.0)
    assert found["worst"]["psnr"] is None


def test_unsafe_places_are_refused(example: Callable[[str], Example], tmp_path: Path) -> None:
    ex = example("int16")
    inner = ex.source / "protected"
    with pytest.raises(PublishError, match="inside the input"):
        publish(ex.source, inner, ex.store)
    with pytest.raises(PublishError, match="inside the input"):
        publish(ex.source, ex.source, ex.store, overwrite=True)
    with pytest.raises(PublishError, match="inside the output"):
        publish(ex.source, ex.source.parent, ex.store, overwrite=True)
    ex.output.mkdir()
    shutil.copy(ex.store.path, ex.output / "noise.db")
    with pytest.raises(PublishError, match=r"store .* lies inside the output"):
        publish(ex.source, ex.output, ex.output / "noise.db", overwrite=True)
    shutil.rmtree(ex.output)
    (tmp_path / "elsewhere").mkdir()
    ex.output.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="is a link"):
        publish(ex.source, ex.output, ex.store, overwrite=True)
    ex.output.unlink()
    for name in ("noise.db", "backup.bin"):
        shutil.copy(ex.store.path, ex.source / name)
        store = ex.source / name if name == "noise.db" else ex.store
        with pytest.raises(PublishError, match=r"would be (copied|published)"):
            publish(ex.source, ex.output, store)
        (ex.source / name).unlink()
    assert not ex.output.exists()
    assert not inner.exists()


def test_nothing_is_written_into_a_protected_copy(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    for place in (ex.output / "inner", ex.output / "training" / "inner"):
        with pytest.raises(PublishError, match=r"output .*inner lies inside the protected copy"):
            publish(ex.source, place, ex.store)
    publish(ex.source, ex.output.with_name("second"), ex.store)
    with pytest.raises(PublishError, match="lies inside the protected copy"):
        restore(ex.output, ex.output.with_name("second") / "back", ex.store)
    assert verify(ex.source, ex.output, ex.store).ok


def test_an_output_without_a_place_is_refused_before_there_is_any_noise(
    example: Callable[[str], Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = example("int16")
    store = ex.output.with_name("later.db")
    file = ex.output.with_name("notes.txt")
    file.write_text("a file")
    with pytest.raises(PublishError, match=r"notes\.txt is a file"):
        check_publishable(ex.source, file / "deep" / "out", store)
    ex.output.with_name(f".{ex.output.name}.partial").write_text("somebody's")
    with pytest.raises(ValueError, match="is in the way"):
        check_publishable(ex.source, ex.output, store)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PublishError, match="not writable"):
        check_publishable(ex.source, ex.output.with_name("new") / "out", store)


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_existing_output_is_kept_unless_overwritten(example: Callable[[str], Example], kind: str) -> None:
    ex = example(kind)
    publish(ex.source, ex.output, ex.store)
    before = ex.manifest.stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="--overwrite"):
        publish(ex.source, ex.output, ex.store)
    assert ex.manifest.stat().st_mtime_ns == before
    publish(ex.source, ex.output, ex.store, overwrite=True)
    assert ex.manifest.stat().st_mtime_ns != before
    assert verify(ex.source, ex.output, ex.store).ok
    assert not leftovers(ex.output.parent)


def test_overwriting_never_deletes_other_files(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    ex.output.mkdir()
    publish(ex.source, ex.output, ex.store)  # an empty folder is no obstacle
    (ex.output / "training" / "thesis.doc").write_text("precious")
    with pytest.raises(PublishError, match=r"training/thesis\.doc"):
        publish(ex.source, ex.output, ex.store, overwrite=True)
    assert (ex.output / "training" / "thesis.doc").read_text() == "precious"
    single = ex.output.with_name("file")
    single.write_text("precious")
    with pytest.raises(PublishError, match="is a file"):
        publish(ex.source, single, ex.store, overwrite=True)
    assert single.read_text() == "precious"


def test_an_unlisted_array_of_images_is_refused_unless_it_is_named(example: Callable[[str], Example]) -> None:
    ex = example("medmnist")
    with np.load(ex.source) as arrays:
        np.savez(ex.source, **arrays, originals=arrays["train_images"], ids=np.arange(5))
    with pytest.raises(PublishError, match=r"'originals'.*--copy originals"):
        publish(ex.source, ex.output, ex.store)
    assert not ex.output.exists()
    assert publish(ex.source, ex.output, ex.store, copy=["orig*"]).ok


def test_training_image_in_another_split_is_left_out_or_a_warning(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    shutil.copy(ex.source / "training/i0.nii.gz", ex.source / "test/i0.nii.gz")
    assert list(publish(ex.source, ex.output, ex.store).failed) == ["test/i0.nii.gz"]
    assert not (ex.output / "test/i0.nii.gz").exists()
    with np.load(make_archive(ex.output.with_name("set.npz"), (8, 8))) as arrays:
        same = {**arrays, "test_images": arrays["train_images"][:3]}
    np.savez(ex.output.with_name("set.npz"), **same)
    archive = detect(ex.output.with_name("set.npz"))
    store = precompute(
        archive.dataset(), ex.output.with_name("n.db"), method=RandomNoise(), task=archive.task(), device="cpu"
    )
    assert "test[0]" in publish(archive.root, ex.output.with_name("copy.npz"), store).warnings[0]


def test_what_programs_left_beside_a_copy_is_not_restored_as_data(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    assert verify(ex.source, ex.output, ex.store).ok
    (ex.source / "report.pdf").write_text("not harmless")
    (ex.source / "new.txt").write_text("missing in the copy")
    assert verify(ex.source, ex.output, ex.store).problems == ["new.txt: missing from the copy"]


def test_restore_leaves_out_what_the_store_did_not_make(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    publish(ex.source, ex.output, ex.store)
    change_first_image(ex.output, one_step)
    back = ex.output.with_name("back")
    report = restore(ex.output, back, ex.store)
    assert "is not an image that" in report.failed[detect(ex.source).dataset().names[0]]
    assert report.images == 2
    assert not leftovers(back.parent)


def test_restore_refuses_an_archive_that_the_store_did_not_make(example: Callable[[str], Example]) -> None:
    single = example("medmnist")
    publish(single.source, single.output, single.store)
    change_first_image(single.output, one_step)
    with pytest.raises(PublishError, match="is not an image that"):
        restore(single.output, single.output.with_name("back.npz"), single.store)
    assert not leftovers(single.output.parent)


def test_full_disk_leaves_no_copy_and_the_next_call_goes_on(
    example: Callable[[str], Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = example("int16")
    cls = type(format_of(Path("a.nii")))
    rewrite, written = cls.rewrite, []

    def fill_up(self: Nifti, source: Path, target: Path, edit: Callable[[Any], Any]) -> None:
        if written:
            raise OSError(28, "No space left on device", str(target))
        written.append(target)
        rewrite(self, source, target, edit)

    monkeypatch.setattr(cls, "rewrite", fill_up)
    with pytest.raises(OSError, match="No space"):
        publish(ex.source, ex.output, ex.store)
    assert not ex.output.exists()
    stamp = written[0].stat().st_mtime_ns
    monkeypatch.setattr(cls, "rewrite", rewrite)
    assert publish(ex.source, ex.output, ex.store).ok
    assert verify(ex.source, ex.output, ex.store).ok
    assert (
        ex.output / written[0].relative_to(ex.output.with_name(".set.partial") / "copy" / "set")
    ).stat().st_mtime_ns == stamp
    assert [path.name for path in ex.output.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("kind", ["medmnist", "int16"])
def test_overwriting_replaces_nothing_but_copies(example: Callable[[str], Example], kind: str) -> None:
    """A data set of the same names may be somebody's only original."""
    ex = example(kind)
    (shutil.copy if ex.single else shutil.copytree)(ex.source, ex.output)
    with pytest.raises(PublishError, match="no manifest"):
        publish(ex.source, ex.output, ex.store, overwrite=True)
    assert files_of(ex.source) == files_of(ex.output)
    back = ex.output.with_name("back" + ex.output.suffix)
    publish(ex.source, ex.output.with_name("public" + ex.output.suffix), ex.store)
    restore(ex.output.with_name("public" + ex.output.suffix), back, ex.store)
    restore(ex.output.with_name("public" + ex.output.suffix), back, ex.store, overwrite=True)
    if ex.single:
        np.savez(back, train_images=np.zeros((2, 8, 8), "uint8"))
        for foreign in (back.read_bytes(), b"precious"):
            back.write_bytes(foreign)
            with pytest.raises(PublishError, match="no earlier copy of this data set"):
                restore(ex.output.with_name("public" + ex.output.suffix), back, ex.store, overwrite=True)
            assert back.read_bytes() == foreign


def test_incomplete_store_is_refused_before_any_work(example: Callable[[str], Example]) -> None:
    ex = example("int16")
    for index, lacking in enumerate(("window", "epsilon", "method", "mask_share", None)):
        meta = {} if lacking is None else {key: value for key, value in ex.store.meta.items() if key != lacking}
        bare = NoiseStore.create(ex.store.path.with_name(f"bare{index}.db"), meta)
        with pytest.raises(NoiseStoreError, match="its description is not complete"):
            publish(ex.source, ex.output, bare)
        with pytest.raises(NoiseStoreError, match="its description is not complete"):
            verify(ex.source, ex.output, bare)
    assert not ex.output.exists()


def test_verify_takes_a_float_at_the_bound_for_inside(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 0.25, (2, 6, 6, 6)).astype("float32")
    values[:, 3] = 0.3  # float32(0.3) is more than 0.3; not at the border, where it would be padding
    for index, image in enumerate(values):
        (tmp_path / "set").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "set" / f"{index}.nii")
    listing = {"training": [{"image": f"{index}.nii", "label": index} for index in range(2)]}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(listing))
    data = detect(tmp_path / "set")
    window, method = IntensityWindow(0, 0.3), RandomNoise(epsilon=EPSILON)
    store = precompute(
        data.dataset(), tmp_path / "noise.db", method=method, task=data.task(), window=window, device="cpu"
    )
    publish(tmp_path / "set", tmp_path / "out", store)
    difference = detect(tmp_path / "out").dataset()[0]["image"] - data.dataset()[0]["image"]
    assert difference[0, 3].any()
    assert verify(tmp_path / "set", tmp_path / "out", store).problems == []


def test_noise_statistics(example: Callable[[str], Example]) -> None:
    ex = example("medmnist")
    found = noise_statistics(ex.store)
    codes = np.stack([noise.codes for noise in ex.store]).astype(float)
    error = (codes**2).reshape(5, -1).mean(1)
    assert found["cases"] == 5
    assert found["psnr"] == pytest.approx(float(np.mean(10 * np.log10(255**2 / error))))
    assert found["support"] == pytest.approx(float((codes != 0).mean()))


def test_noise_is_measured_against_each_images_own_window_and_the_worst_is_named(tmp_path: Path) -> None:
    """The same noise is loud in an image of little contrast and faint in one of much."""
    images = [np.full((1, 8, 8), level, "int16") for level in (0, 1)]
    windows = (IntensityWindow(0, 1000), IntensityWindow(0, 100))
    meta = {"window": PercentileWindow().spec(), "epsilon": EPSILON, "method": {"name": "x"}, "mask_share": 1.0}
    store = NoiseStore.create(tmp_path / "noise.db", meta)
    for image, window, name in zip(images, windows, ("rich", "poor"), strict=True):
        budget = Budget(window, Grid("int16", 1.0, (5,)))
        store.add([Noise.of(image, np.full(image.shape, 5, "int8"), budget, name)])
    found = noise_statistics(store)
    decibels = [-20 * np.log10(5 / width) for width in (1000, 100)]
    assert found["psnr"] == pytest.approx(np.mean(decibels))
    assert found["worst"] == {"name": "poor", "psnr": pytest.approx(decibels[1])}


def test_verify_holds_each_image_to_its_own_window(tmp_path: Path) -> None:
    """Noise that fits the window of one image is too much in another's, for every mean."""
    rng = np.random.default_rng(0)
    for index, scale in enumerate((100, 30_000)):
        (tmp_path / "set").mkdir(exist_ok=True)
        image = rng.integers(0, scale, (6, 6, 6)).astype("int16")
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "set" / f"{index}.nii")
    listing = {"training": [{"image": f"{index}.nii", "label": index} for index in range(2)]}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(listing))
    data = detect(tmp_path / "set")
    store = precompute(
        data.dataset(), tmp_path / "noise.db", method=RandomNoise(epsilon=EPSILON), task=data.task(), device="cpu"
    )
    publish(tmp_path / "set", tmp_path / "out", store)
    assert verify(tmp_path / "set", tmp_path / "out", store).problems == []

    def louder(image: np.ndarray) -> np.ndarray:
        place = np.unravel_index(np.argmin(np.abs(image.astype(int) - 50)), image.shape)
        image[place] += 30  # little in the other image's window
        return image

    change_first_image(tmp_path / "out", louder)
    assert any("exceeds epsilon" in problem for problem in verify(tmp_path / "set", tmp_path / "out", store).problems)


def test_progress_is_shown_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    time = iter(range(0, 1000, 4))
    with show_progress(clock=lambda: float(next(time))) as report:
        for done in range(1, 11):
            report(Progress("noise", done, 10, f"case [{done}]"))
        report(Progress("read", 3, 0))
    with show_progress(silent=True) as report:
        report(Progress("silent", 1, 2))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "noise: 1/10, case [1]",
        "noise: 2/10, case [2], about 32 s left",
        "noise: 5/10, case [5], about 20 s left",
        "noise: 8/10, case [8], about 8 s left",
        "noise: 10/10, case [10]",
        "read: 3",
    ]


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"copy": "*.pdf"}, TypeError, r"copy must be a sequence of texts, such as \('\*.pdf',\)"),
        ({"splits": "train"}, TypeError, r"splits must be a sequence of texts, such as \('train',\)"),
        ({"job": 2}, TypeError, "unexpected keyword argument 'job'"),
        ({"jobs": 0}, ValueError, "jobs must be at least 1, got 0"),
        ({"shard": (2, 2)}, ValueError, "got 2 of 2"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(
    settings: dict[str, Any], error: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        publish(tmp_path / "nothing", tmp_path / "out", tmp_path / "noise.db", **settings)
