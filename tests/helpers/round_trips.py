"""The whole way of a data set, from the originals and back to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import FolderLayout, detect
from monai_salm.methods import RandomNoise
from monai_salm.publishing import publish, restore, verify


def run(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The answer of the command line as JSON, and its exit code as it should be."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def there_and_back(root: Path) -> FolderLayout:
    """Protect, verify, restore; the bytes of files that are not packed come back."""
    data, folder = detect(root), root.parent
    assert isinstance(data, FolderLayout)
    store = precompute(data.dataset(), folder / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    assert publish(root, folder / "out", store).ok
    found = verify(root, folder / "out", store)
    assert (found.problems, found.ok) == ([], True)
    for before, after in zip(data.dataset(), data.reopen(folder / "out").dataset(), strict=True):
        assert before["image"].dtype == after["image"].dtype
        assert not np.array_equal(before["image"], after["image"], equal_nan=True)
    restored = restore(folder / "out", folder / "back", store)
    assert (restored.failed, restored.warnings) == ({}, [])
    for path in root.rglob("*"):
        if path.is_file() and path.read_bytes()[:2] != b"\x1f\x8b":
            assert (folder / "back" / path.relative_to(root)).read_bytes() == path.read_bytes()
    return data
