"""A store that is not the owner's, and a copy that was changed, are never taken for the real ones."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from forged_stores import cut_to_one_element, exchanged, from_copy, replace_noise
from published_samples import make_folder

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, restore, verify
from monai_salm.store.store import NoiseStore

Forge = Callable[[Any], Any]


def outcome(call: Callable[..., Any], *places: Any) -> str:
    """What a call comes to: "ok", or what is wrong."""
    try:
        report = call(*places)
    except (RuntimeError, ValueError) as error:
        return str(error)
    if report.ok:
        return "ok"
    return "\n".join(getattr(report, "problems", None) or map(str, report.failed.values()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set ``set``, its store ``noise.db`` and its copy ``out``."""
    root = tmp_path_factory.mktemp("made")
    data = detect(make_folder(root / "set", "int16"))
    settings: dict[str, Any] = {"window": IntensityWindow(-500, 500), "task": data.task(), "device": "cpu"}
    store = precompute(data.dataset(), root / "noise.db", method=RandomNoise(epsilon=0.05), **settings)
    publish(root / "set", root / "out", store)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of all that, to be changed."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("forge", [cut_to_one_element, exchanged])
def test_noise_that_is_not_as_it_was_made_proves_nothing(folder: Path, forge: Forge) -> None:
    source, copy, store = folder / "set", folder / "out", folder / "noise.db"
    assert outcome(verify, source, copy, store) == "ok"
    replace_noise(store, forge)
    for call, places in (
        (verify, (source, copy)),
        (restore, (copy, folder / "back")),
        (publish, (source, folder / "new")),
    ):
        assert "changed since" in outcome(call, *places, store)
        assert not (call is restore and (folder / "back").exists())
        assert outcome(call, *places, NoiseStore(store, unsigned=True)) != "ok"


def test_copy_with_noise_of_one_element_is_not_verified(folder: Path) -> None:
    """The store says what the protected image is; a copy that was made with less is another image."""
    replace_noise(folder / "noise.db", cut_to_one_element)
    for name in detect(folder / "set").dataset().names:
        path = folder / "set" / name
        image = nibabel.load(path)
        noise = next(noise for noise in NoiseStore(folder / "noise.db") if noise.name == name)
        values = np.asarray(image.dataobj) + noise.codes[0]
        nibabel.save(nibabel.Nifti1Image(values.astype("int16"), image.affine, image.header), folder / "out" / name)
    assert "protected image" in outcome(
        verify, folder / "set", folder / "out", NoiseStore(folder / "noise.db", unsigned=True)
    )


def test_store_made_from_the_public_copy_alone_restores_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = NoiseStore(folder / "noise.db").meta
    with monkeypatch.context() as patch:
        patch.setenv("MONAI_SALM_KEY", str(folder / "another.key"))
        forged = from_copy(folder / "out", folder / "forged.db", meta).path
    assert "another key" in outcome(restore, folder / "out", folder / "back", forged)
    assert "another key" in outcome(publish, folder / "set", folder / "new", forged)
    assert "another key" in outcome(verify, folder / "set", folder / "out", forged)
    assert not (folder / "back").exists()


def test_changed_header_is_not_restored(folder: Path) -> None:
    path = folder / "out" / detect(folder / "out").dataset().names[0]
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(values, image.affine * [[2], [1], [1], [1]], image.header), path)
    assert "header" in outcome(restore, folder / "out", folder / "back", folder / "noise.db")


@pytest.mark.parametrize("name", ["licence.txt", "new.txt", "monai_salm.json.sig"])
@pytest.mark.parametrize("packed", [False, True])
def test_original_under_another_name_is_named(folder: Path, name: str, packed: bool) -> None:
    original = gzip.decompress((folder / "set/training/i1.nii.gz").read_bytes())
    for root in (folder / "set", folder / "out"):
        if name in ("licence.txt",) or root.name == "out":
            (root / name).write_bytes(gzip.compress(original, 1) if packed else original)
    assert f"{name}: holds the image training/i1.nii.gz" in outcome(
        verify, folder / "set", folder / "out", folder / "noise.db"
    )
