"""Several victims at once give what one after the other gives, and processes that die are told of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases
from torch import nn

from monai_salm.evaluation.evaluating import evaluate
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.workers import MappedImages, WorkerError
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification
from monai_salm.noise.window import IntensityWindow

SETTINGS: dict[str, Any] = {
    "task": Classification(num_classes=2),
    "window": IntensityWindow(0, 255),
    "protocol": Protocol(
        victims=("resnet10",),
        pipelines=("nnunet",),
        seeds=(0, 1),
        countermeasures=("none", "blur", "cutout"),
        fractions=(0.5,),
        controls=(),
        epochs=2,
        width=0.1,
        recipe=Recipe(optimizer="adam", lr=3e-3, batch_size=16, precision="float32"),
    ),
    "device": "cpu",
}


def sets() -> dict[str, Any]:
    clean = classification_cases(cases=24)
    protected = [{**case, "image": case["image"] ^ 1} for case in clean]
    return {"clean": clean, "protected": protected, "test": classification_cases(cases=8, seed=1)}


@pytest.mark.slow
def test_processes_give_the_same_cells() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = evaluate(**sets(), **SETTINGS).cells
    finally:
        torch.set_num_threads(threads)
    seen: list[int] = []
    torch.set_num_threads(2)
    try:
        together = evaluate(**sets(), **SETTINGS, jobs=2, progress=lambda p: seen.append(p.done)).cells
    finally:
        torch.set_num_threads(threads)
    assert [_timeless(cell) for cell in together] == [_timeless(cell) for cell in alone]
    assert seen[-1] == max(seen)


def _timeless(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "seconds"}


class Deadly(nn.Module):
    """Ends its process, as the system does when memory runs out."""

    def __init__(self, **channels: int) -> None:
        super().__init__()
        os._exit(9)


def test_a_process_that_dies_is_told_of() -> None:
    protocol = Protocol(victims={"deadly": Deadly}, seeds=(0,), countermeasures=("none",), fractions=(1.0,), epochs=1)
    with pytest.raises(WorkerError, match=r"a process that trained a victim was killed.*2 ran at once"):
        evaluate(**sets(), **{**SETTINGS, "protocol": protocol}, jobs=2)


def test_stored_images_are_the_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 99, (1, 3, n)).astype(t) for n, t in ((3, "u1"), (5, "i2"), (2, "f4"), (7, "u2"))]
    stored = MappedImages.write(tmp_path / "x.bin", images)
    assert len(stored) == 4
    for found, image in zip(stored, images, strict=True):
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, image)
    assert len(stored[1:3]) == 2
    np.testing.assert_array_equal(stored[-1], images[-1])
