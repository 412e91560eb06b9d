"""Every folder layout, from the original to the protected copy and back, by one set of promises."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layout_samples as samples
import numpy as np
import pytest
from monai.data import Dataset
from monai.transforms import LoadImaged
from PIL import Image

from monai_salm.formats import find_format
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import FolderLayout, detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import PublishError, publish, restore, verify
from monai_salm.store.store import NoiseStore

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "datalist": samples.build_datalist,
    "decathlon": samples.build_decathlon,
    "nnunet": samples.build_nnunet,
    "bids": samples.build_bids,
    "image_folder": samples.build_image_folder,
    "csv_labels": lambda root: samples.build_csv(root, ["image,label", "a,0", "b,1", "c,0", "d,1"]),
    "dicom_tree": samples.build_dicom_tree,
}


def prepared(kind: str, folder: Path) -> tuple[FolderLayout, NoiseStore]:
    if kind == "dicom_tree":
        pytest.importorskip("pydicom")
    data = detect(BUILDERS[kind](folder / "set"))
    assert isinstance(data, FolderLayout)
    assert data.name == kind
    options = {"method": RandomNoise(epsilon=0.05), "task": data.task(), "device": "cpu"}
    return data, precompute(data.dataset(), folder / "noise.db", **options)  # type: ignore[arg-type]


def require_same(before: Path, after: Path) -> None:
    """Files are equal in every byte, or, if they are compressed again, in their voxels and everything around them."""
    if before.read_bytes() == after.read_bytes():
        return
    format_ = find_format(before)
    assert format_ is not None, before
    first, second = format_.read(before), format_.read(after)
    assert (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())
    assert format_.frame(before) == format_.frame(after)


@pytest.mark.parametrize("kind", BUILDERS)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    data, store = prepared(kind, tmp_path)
    report = publish(data.root, tmp_path / "out", store, jobs=2)
    assert report.ok
    assert report.images == len(data.stored_images())
    verified = verify(data.root, tmp_path / "out", store)
    assert (verified.problems, verified.ok) == ([], True)
    copy = data.reopen(tmp_path / "out")
    for before, after in zip(data.dataset(), copy.dataset(), strict=True):
        assert (before["image"] != after["image"]).any()
    restored = restore(tmp_path / "out", tmp_path / "back", store)
    assert (restored.failed, restored.warnings) == ({}, [])
    files = {path.relative_to(data.root) for path in data.root.rglob("*")} - set(map(Path, report.not_copied))
    assert files == {path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*")}
    for file in files:
        if (data.root / file).is_file():
            require_same(data.root / file, tmp_path / "back" / file)


@pytest.mark.parametrize("kind", ["bids", "dicom_tree"])
def test_a_kill_between_a_file_and_its_header_loses_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    data, store = prepared(kind, tmp_path)
    with monkeypatch.context() as patch:
        for module in ("image_changes", "copying"):
            patch.setattr(sys.modules[f"monai_salm.publishing.{module}"], "keep", die)
        with pytest.raises(Killed):
            publish(data.root, tmp_path / "out", store)
    assert publish(data.root, tmp_path / "out", store).ok
    assert verify(data.root, tmp_path / "out", store).ok
    assert restore(tmp_path / "out", tmp_path / "back", store).ok
    for file in data.image_files():
        require_same(data.root / file, tmp_path / "back" / file)


@pytest.mark.parametrize("kind", ["bids", "dicom_tree"])
def test_two_copies_of_one_store_give_back_their_own_headers(kind: str, tmp_path: Path) -> None:
    """The same voxels under other names and descriptions: each copy gets back what was its own."""
    data, store = prepared(kind, tmp_path)
    shutil.copytree(data.root, tmp_path / "other")
    for path in (tmp_path / "other").rglob("*"):
        if path.name == "dataset_description.json":
            path.write_text(path.read_text().replace('"Name": "', '"Name": "Another '))
        elif kind == "dicom_tree" and path.is_file() and (format_ := find_format(path)) and format_.name == "dicom":
            content = path.read_bytes()
            at = content.index(b"\x10\x00\x20\x00LO") + 8  # Patient ID
            path.write_bytes(content[:at] + b"X" + content[at + 1 :])
    for name in ("set", "other"):
        publish(tmp_path / name, tmp_path / f"{name}_out", store)
        assert verify(tmp_path / name, tmp_path / f"{name}_out", store).ok
    for name in ("set", "other"):
        assert restore(tmp_path / f"{name}_out", tmp_path / f"{name}_back", store).ok
        for path in (tmp_path / name).rglob("*"):
            if path.is_file() and not path.name.endswith("_T2w.nii.gz"):  # no split lists these
                require_same(path, tmp_path / f"{name}_back" / path.relative_to(tmp_path / name))


@pytest.mark.parametrize("shape", [(12, 12), (12, 9)])
def test_noise_of_images_whose_axes_the_reader_exchanged(shape: tuple[int, int], tmp_path: Path) -> None:
    """The remedy is named, and is one."""
    rng = np.random.default_rng(0)
    for index in range(4):
        file = tmp_path / "set" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, "uint8")).save(file)
    data = detect(tmp_path / "set")
    files = [{"image": str(tmp_path / "set" / c["name"]), "label": c["label"]} for c in data.dataset()]
    settings: dict[str, Any] = {
        "method": RandomNoise(epsilon=0.05),
        "task": data.task(),
        "window": IntensityWindow(0, 255),
    }

    def made(store: str, **reading: Any) -> NoiseStore:
        load = LoadImaged("image", reader="PILReader", ensure_channel_first=True, **reading)
        return precompute(Dataset(files, load), tmp_path / store, device="cpu", **settings)

    with pytest.raises(PublishError, match=r'reader="PILReader", reverse_indexing=False'):
        publish(tmp_path / "set", tmp_path / "out", made("turned.db"))
    store = made("noise.db", reverse_indexing=False)
    assert publish(tmp_path / "set", tmp_path / "out", store).ok
    assert verify(tmp_path / "set", tmp_path / "out", store).ok


def test_a_store_copied_before_publishing_cannot_undo_and_verify_says_so(tmp_path: Path) -> None:
    data, store = prepared("bids", tmp_path)
    shutil.copy(store.path, tmp_path / "early.db")
    publish(data.root, tmp_path / "out", store)
    problems = verify(data.root, tmp_path / "out", tmp_path / "early.db").problems
    assert "dataset_description.json: the store does not keep the original; publish again" in problems
    assert sum("has no header for this original" in problem for problem in problems) == len(problems) - 1
