"""Large images take little memory: what is done a part at a time gives the bytes of what is done at once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Case, DatasetFactory

from monai_salm import SALM, Classification, precompute
from monai_salm.learning.cases import Cases, KeptInputs, View
from monai_salm.methods import large_images, mask_elements, work_units
from monai_salm.noise.budget import budget_of
from monai_salm.noise.digest import content_digest
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow, PercentileWindow
from monai_salm.shared import blocks


def noise_of(cases: list[Case], path: Path) -> list[bytes]:
    made = precompute(cases, path, task=Classification(num_classes=2), method=SALM(), width=0.05, device="cpu")
    with closing(made) as store:
        found = [store.get(content_digest(case["image"])) for case in cases]
    return [noise.codes.tobytes() for noise in found if noise is not None]


@pytest.mark.parametrize("channels", [1, 2])
def test_noise_of_a_volume_is_the_same_in_slabs(
    make_classification: DatasetFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    cases = make_classification((50, 27, 33), cases=4)
    cases = [{**case, "image": np.concatenate([case["image"]] * channels).astype(np.int16)} for case in cases]
    for case in cases:
        case["image"][1:] = case["image"][1:][:, ::-1]
    monkeypatch.setattr(work_units, "_MOST_ELEMENTS", 1)
    whole = noise_of(cases, tmp_path / "whole.db")
    moved: list[int] = []
    move = large_images.Volume.move
    monkeypatch.setattr(large_images.Volume, "move", lambda self, g: (moved.append(self.case), move(self, g))[1])
    monkeypatch.setattr(large_images, "_LARGE", 0)
    monkeypatch.setattr(mask_elements, "_FEW", 64)
    assert noise_of(cases, tmp_path / "slabs.db") == whole
    assert len(set(moved)) == 2, "the images of the plain class take steps"


def test_noise_of_a_picture_is_the_same_where_it_waits_for_others(
    make_classification: DatasetFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = make_classification((50, 44), cases=4)
    monkeypatch.setattr(work_units, "_MOST_ELEMENTS", 1)
    whole = noise_of(cases, tmp_path / "whole.db")
    moved: list[int] = []
    move = large_images.Picture.move
    monkeypatch.setattr(large_images.Picture, "move", lambda self, g: (moved.append(1), move(self, g))[1])
    monkeypatch.setattr(large_images, "_LARGE_PICTURE", 0)
    monkeypatch.setattr(work_units, "_MOST_WAITING", 1)  # in a batch of several, networks round otherwise
    assert noise_of(cases, tmp_path / "alone.db") == whole
    assert moved, "the images of the plain class take steps"
    moved.clear()
    monkeypatch.setattr(work_units, "_MOST_WAITING", 2**20)
    together = noise_of(cases, tmp_path / "together.db")
    assert moved
    for alone, beside in zip(whole, together, strict=True):
        codes, others = np.frombuffer(alone, np.int8), np.frombuffer(beside, np.int8)
        assert np.count_nonzero(others) > 100
        assert np.mean(codes[codes != 0] == others[codes != 0]) > 0.9, "they do not depend on the images beside them"


@pytest.mark.parametrize("values", ["distinct", "ties", "one", "gaps"])
def test_the_threshold_of_many_scores_is_found_without_sorting_them(
    values: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = rng.normal(0, 1, 5000).astype(np.float32)
    scores = {
        "distinct": drawn,
        "ties": drawn.round(1),
        "one": np.zeros_like(drawn),
        "gaps": np.where(drawn > 0, drawn, np.float32(-1)),
    }[values]
    for k in (1, 2, 2500, 4999, 5000):
        expected = np.sort(scores)[-k]
        monkeypatch.setattr(mask_elements, "_FEW", 10)
        assert mask_elements._kth_largest(scores, k) == expected
        monkeypatch.setattr(mask_elements, "_FEW", 10_000)
        assert mask_elements._kth_largest(scores, k) == expected


@pytest.mark.parametrize("shape", [(1, 1, 90, 70), (2, 3, 20, 21, 22)])
def test_means_over_areas_are_the_same_in_parts(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    whole = mask_elements.local_mean(score.clone(), 7)
    monkeypatch.setattr(mask_elements, "_FEW", 100)
    assert torch.equal(mask_elements.local_mean(score.clone(), 7), whole)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_budget_is_the_same_in_blocks(dtype: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    image = rng.integers(0, 200, (2, 40, 41)).astype(dtype)
    image[:, :6] = image[..., :5] = 0
    found: list[Any] = []
    for size in (blocks.BLOCK, 100):
        monkeypatch.setattr(blocks, "BLOCK", size)
        budget = budget_of(image, PercentileWindow(), Units(), 0.1)
        codes = budget.effective_codes(image, np.full(image.shape, 90))
        found.append((budget, budget.share_inside(image), *(a.tobytes() for a in (codes, *budget.code_bounds(image)))))
    assert found[0] == found[1]
    lower, upper = budget.code_bounds(image)
    np.testing.assert_array_equal(budget.carriers(image), (lower < 0) | (upper > 0))
    assert not codes[:, :6].any(), "padding carries nothing"


def test_inputs_are_made_once_and_stay(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (1, 60, 61)).astype(np.uint8) for _ in range(3)]
    names, windows = [str(n) for n in range(3)], [IntensityWindow(0, 255)] * 3
    cases = Cases(images, [np.array(0)] * 3, names, Classification(num_classes=2), windows, View("resize", (32, 32)))
    room = np.zeros((3, 1, 32, 32), np.float32)
    kept = Cases(**{**vars(cases), "kept": KeptInputs(lambda: room, 3)})
    regions = [(number, (slice(0, 60), slice(0, 61))) for number in (2, 0)]
    expected = cases.inputs(regions)
    assert torch.equal(kept.inputs(regions), expected)
    assert not room[1].any(), "only what is asked for is made"
    images[2][...] = 0
    assert torch.equal(kept.inputs(regions), expected)
