"""The working folder keeps what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_salm.jobs.workspace import Workspace, WorkspaceError


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
