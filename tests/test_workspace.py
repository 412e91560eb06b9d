"""The working folder keeps what it is given."""

from __future__ import annotations

from pathlib import Path

import torch

from monai_salm.workspace import Workspace


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    tensors = {"encoder": weight, "decoder": weight, "turned": weight.T}
    with Workspace(tmp_path / "work") as workspace:
        workspace.save_tensors("network", tensors)
        loaded = workspace.load_tensors("network")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
