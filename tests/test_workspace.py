"""The working folder keeps what it is given, and nothing that is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_salm.data.scan import scan
from monai_salm.jobs.workspace import NoisyImage, Workspace, WorkspaceError, open_workspace
from monai_salm.jobs.world import ALONE
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.noise.window import IntensityWindow


def taken_in(folder: Path, task: Task | None = None, guest: bool = False) -> tuple[Workspace, list[Any]]:
    """A workspace with three images of two shapes and two types, and the items that it was made of."""
    rng = np.random.default_rng(0)
    kinds = [((1, 8, 9), "uint8"), ((1, 12, 7), "int16"), ((1, 8, 9), "float32")]
    items = [
        {"image": rng.integers(0, 200, shape).astype(dtype), "label": number % 2, "name": f"c{number}"}
        for number, (shape, dtype) in enumerate(kinds)
    ]
    if task is not None and task.kind == "segmentation":
        items = [{**item, "label": (item["image"][0] > 100).astype(np.uint8)} for item in items]
    workspace = Workspace(folder, guest)
    window = IntensityWindow(0, 255)
    workspace.take_in(scan(items, task or Classification(num_classes=2), window, 8 / 255, "image", "label"))
    return workspace, items


@pytest.mark.parametrize("task", [Classification(num_classes=2), Segmentation(num_classes=2)])
def test_images_and_labels_come_back_as_they_were(task: Task, tmp_path: Path) -> None:
    workspace, items = taken_in(tmp_path / "work", task)
    with workspace:
        cases = workspace.cases(task)
        assert cases.names == [item["name"] for item in items]
        for item, image, label in zip(items, cases.images, cases.labels, strict=True):
            assert image.dtype == item["image"].dtype
            np.testing.assert_array_equal(image, item["image"])
            np.testing.assert_array_equal(label, item["label"])


def test_noise_and_masks_are_zero_at_first_and_keep_what_is_written(tmp_path: Path) -> None:
    workspace, items = taken_in(tmp_path / "work")
    with workspace:
        for arrays in (workspace.codes(0), workspace.codes(1), workspace.masks()):
            assert [array.shape for array in arrays] == [item["image"].shape for item in items]
            assert not any(array.any() for array in arrays)
        for number, codes in enumerate(workspace.codes(1)):
            codes[...] = number - 1
        assert [np.unique(codes).tolist() for codes in workspace.codes(1)] == [[-1], [0], [1]]
        assert not any(codes.any() for codes in workspace.codes(0)), "the buffers are apart"


def test_an_image_with_its_noise_is_seen_in_stored_units(tmp_path: Path) -> None:
    workspace, items = taken_in(tmp_path / "work")
    with workspace:
        for codes in workspace.codes(0):
            codes[...] = 2
        seen = workspace.noisy(workspace.cases(Classification(num_classes=2)), workspace.codes(0))
        region = (slice(None), slice(2, 5), slice(1, 4))
        for item, image, budget in zip(items, seen.images, workspace.budgets, strict=True):
            assert isinstance(image, NoisyImage)
            expected = item["image"][region].astype(np.float32) + 2 * np.float32(budget.grid.quantum)
            np.testing.assert_array_equal(image[region], expected)


def test_a_folder_is_kept_from_its_first_round_on_and_resumed(tmp_path: Path) -> None:
    workspace, _ = taken_in(tmp_path / "work")
    with workspace:
        workspace.save_checkpoint({"threads": 1})
        assert not workspace.begun
        workspace.codes(0)[1][...] = 3
        workspace.save_checkpoint({"threads": 1, "rounds": 1})
        assert workspace.begun
    again, _ = taken_in(tmp_path / "work")
    with again:
        assert again.checkpoint() == {"threads": 1, "rounds": 1}
        assert (again.codes(0)[1] == 3).all()
        again.restart()
        assert again.checkpoint() == {}
        assert not again.codes(0)[1].any()
        assert (again.folder / "images.bin").exists()
    assert not again.folder.exists(), "copies of images do not lie about"


def test_a_folder_of_another_rank_is_never_kept(tmp_path: Path) -> None:
    workspace, _ = taken_in(tmp_path / "work", guest=True)
    with workspace:
        workspace.save_checkpoint({"rounds": 1})
    assert not workspace.folder.exists()


def test_a_folder_has_one_user(tmp_path: Path) -> None:
    with (
        Workspace(tmp_path / "work"),
        pytest.raises(WorkspaceError, match="in use by another process; wait for it or give another store"),
    ):
        Workspace(tmp_path / "work")
    Workspace(tmp_path / "work").remove()
    assert not (tmp_path / "work").exists()


def test_folders_of_ranks_that_are_no_more_are_removed(tmp_path: Path) -> None:
    for name in ("noise.db.work.rank1", "noise.db.work.rank12", "noise.db.work.ranks", "other.db.work.rank1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images.bin").write_bytes(b"1")
    with open_workspace(tmp_path / "noise.db", ALONE):
        found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["noise.db.work", "noise.db.work.ranks", "other.db.work.rank1"]


def test_files_of_another_size_are_made_again(tmp_path: Path) -> None:
    workspace, _ = taken_in(tmp_path / "work")
    with workspace:
        (workspace.folder / "codes.0.bin").write_bytes(b"\1" * 5)
        assert not any(codes.any() for codes in workspace.codes(0))


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    tensors = {"encoder": weight, "decoder": weight, "turned": weight.T}
    with Workspace(tmp_path / "work") as workspace:
        workspace.save_tensors("network", tensors)
        loaded = workspace.load_tensors("network")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match=r"s\.db\.work.*cannot be made.*in a folder that can be written"):
        Workspace(tmp_path / "file" / "s.db.work")
