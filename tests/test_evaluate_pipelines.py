"""Victims in several pipelines: trained, scored and kept apart, by balanced accuracy or from the best constant map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.evaluation import evaluating
from monai_salm.evaluation.constant_map import constant_map, constant_score
from monai_salm.evaluation.evaluating import evaluate
from monai_salm.evaluation.predictions import PredictionFolder, predictions_name
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.schedule import training_of
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.noise.window import IntensityWindow, PercentileWindow
from monai_salm.shared.progress import Progress


class Small(torch.nn.Sequential):
    """Two convolutions, for images of any size and rank."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        conv = torch.nn.Conv2d if spatial_dims == 2 else torch.nn.Conv3d
        pool = torch.nn.AdaptiveAvgPool2d(1) if spatial_dims == 2 else torch.nn.AdaptiveAvgPool3d(1)
        layers = [conv(in_channels, 8, 3, padding=1), torch.nn.ReLU(), conv(8, 8, 3, padding=1), torch.nn.ReLU()]
        super().__init__(*layers, pool, torch.nn.Flatten(), torch.nn.Linear(8, out_channels))


class Voxels(torch.nn.Sequential):
    """One convolution that answers per voxel."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        conv = torch.nn.Conv2d if spatial_dims == 2 else torch.nn.Conv3d
        super().__init__(conv(in_channels, out_channels, 3, padding=1))


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of the noise have tests of their own, and would take most of the time."""
    monkeypatch.setattr(evaluating, "detect", lambda *given: {})


def settings(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "task": Classification(num_classes=2),
        "window": IntensityWindow(0, 255),
        "victims": {"small": Small},
        "countermeasures": ("none",),
        "fractions": (1.0,),
        "controls": (),
        "seeds": (0,),
        "epochs": 2,
        "learned": None,
        "recipe": Recipe(optimizer="adam", lr=1e-2, batch_size=16, precision="float32"),
        "device": "cpu",
    }
    return {**values, **changes}


def sets(build: Any = classification_cases, spatial: tuple[int, ...] = (16, 16), cases: int = 24) -> dict[str, Any]:
    clean = build(spatial, cases)
    protected = [{**case, "image": case["image"] ^ 1} for case in clean]
    return {"clean": clean, "protected": protected, "test": build(spatial, 8, seed=1)}


def test_each_pipeline_is_trained_on_clean_and_protected_images() -> None:
    seen: list[Progress] = []
    asked = ("resized 0.5", "nnunet")
    report = evaluate(**sets(), **settings(pipelines=asked, countermeasures=("blur",)), progress=seen.append)
    found = [(cell["pipeline"], cell["data"], cell["countermeasure"]) for cell in report.cells]
    pairs = [(name, data, "none") for name in ("plain", *asked) for data in ("clean", "protected")]
    assert found == [*pairs, ("plain", "clean", "blur"), ("plain", "protected", "blur")]
    assert all(0 <= cell["scores"]["balanced_accuracy"] <= 1 for cell in report.cells)
    assert (seen[-1].done, seen[-1].total) == (16, 16)
    assert any("clean + resized 0.5" in p.detail for p in seen)
    recorded = json.loads(report.to_json())["protocol"]["pipelines"]
    assert list(recorded) == ["plain", *asked]
    assert (recorded["resized 0.5"]["scale"], recorded["nnunet"]["epochs"]) == (0.5, {"small": 2})
    assert [row["pipeline"] for row in report.pipelines()] == [p for p in ("plain", *asked) for _ in range(2)]


def test_pipelines_see_each_image_in_its_own_window() -> None:
    """Ranges that are powers of two times as wide, so that nothing is rounded, teach the same."""

    def ranged(cases: list[dict[str, Any]], base: float) -> list[dict[str, Any]]:
        return [{**c, "image": c["image"].astype(np.float32) * base ** (i % 4)} for i, c in enumerate(cases)]

    given = settings(pipelines=("resized 0.5", "nnunet"), window=PercentileWindow(0, 100))
    alike, many = (
        evaluate(**{role: ranged(cases, base) for role, cases in sets().items()}, **given) for base in (1, 4)
    )
    told = ("pipeline", "data", "curve", "train_curve", "scores")
    assert [[cell[name] for name in told] for cell in many.cells] == [
        [cell[name] for name in told] for cell in alike.cells
    ]


def test_held_out_images_can_be_had_by_none() -> None:
    names = ("resized 0.5", "torchvision")
    report = evaluate(**sets(cases=12), **settings(pipelines=names, epochs=1, held_out=0.0))
    assert {cell["early"] for cell in report.cells} == {None}


def test_batches_of_augmenting_pipelines_get_more_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "collect_cells", lambda *given: ([], 0.0))
    recipe = Recipe(optimizer="adam", lr=1e-2, batch_size=1, precision="float32")
    report = evaluate(**sets(), **settings(pipelines=("nnunet", "resized 0.5"), epochs=None, recipe=recipe))
    epochs = {name: spec["epochs"]["small"] for name, spec in report.protocol["pipelines"].items()}
    assert epochs == {"plain": 15, "nnunet": 20, "resized 0.5": 15}


def test_wrong_pipelines_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown pipeline 'prayer'; known: plain, monai"):
        evaluate(**sets(), **settings(pipelines=("prayer",)))
    with pytest.raises(ValueError, match="pipelines must be a sequence of names, got 'plain'"):
        Protocol(pipelines="plain")
    with pytest.raises(ValueError, match="is for images of rank 3, these have 2"):
        evaluate(**sets(), **settings(pipelines=("spacing",)))


def test_volumes_in_every_pipeline() -> None:
    names = ("monai", "resized 0.5", "nnunet", "torchvision", "spacing 1.25")
    report = evaluate(**sets(spatial=(8, 8, 8), cases=12), **settings(pipelines=names, epochs=1))
    assert {cell["pipeline"] for cell in report.cells} == {"plain", *names}


@pytest.mark.parametrize("spatial", [(16, 16), (8, 8, 8)])
def test_label_maps_are_scored_at_the_pipelines_resolution(spatial: tuple[int, ...]) -> None:
    given = settings(
        task=Segmentation(num_classes=2), victims={"voxels": Voxels}, pipelines=("resized 0.5", "torchvision")
    )
    report = evaluate(**sets(segmentation_cases, spatial, 6), **given)
    assert report.constant is not None
    assert 0 < report.constant < 1
    assert report.to_dict()["recovered_by"]["guess_by"] == "best_constant_map"
    assert all(0 <= cell["scores"]["dice"] <= 1 for cell in report.cells)
    assert len(report.cells) == 6


def test_finished_victims_of_a_pipeline_are_kept(tmp_path: Path) -> None:
    journal = tmp_path / "cells.jsonl"
    both = sets()
    first = evaluate(**both, **settings(pipelines=("plain",)), resume=journal)
    # A journal of a version that knew no pipelines.
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines[1:]:
        for cell in line["cells"]:
            del cell["pipeline"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen: list[Progress] = []
    more = evaluate(**both, **settings(pipelines=("resized 0.5",)), resume=journal, progress=seen.append)
    assert sum("done" in p.detail for p in seen) == 2
    assert [cell["last"] for cell in more.cells[:2]] == [cell["last"] for cell in first.cells]
    assert [cell["pipeline"] for cell in more.cells] == ["plain"] * 2 + ["resized 0.5"] * 2
    assert training_of(more.cells[0]) != training_of(more.cells[2])


def test_predictions_of_each_pipeline_have_a_file(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path / "predictions", "x")
    report = evaluate(**sets(), **settings(pipelines=("resized 0.5",)), predictions=folder)
    names = {predictions_name(cell, "x") for cell in report.cells}
    assert {path.name for path in folder.folder.iterdir()} == names
    assert len(names) == 4


def test_the_best_constant_map_is_what_most_maps_have() -> None:
    always, never, often = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    always[:2] = often[:2] = 1
    often[3] = 2
    labels = [always, always, often, often, often]
    found = constant_map(labels, 3)
    assert np.array_equal(found, often)
    assert constant_score(Segmentation(num_classes=3), labels, [often]) == 1.0
    assert constant_map([never], 3).max() == 0


def test_maps_of_other_shapes_are_brought_to_the_commonest() -> None:
    small, large = np.zeros((4, 4), np.uint8), np.zeros((8, 8), np.uint8)
    small[:2], large[:4] = 1, 1
    assert np.array_equal(constant_map([small, small, large], 2), small)
    assert constant_score(Segmentation(num_classes=2), [small, small, large], [large, small]) == 1.0


def test_the_constant_map_prefers_the_label_with_the_higher_dice() -> None:
    """Balls at random places: few positions are in half of them, and yet the middle of all is worth more than nothing."""
    labels = [case["label"][0] for case in segmentation_cases((24, 24), 30)]
    test = [case["label"][0] for case in segmentation_cases((24, 24), 30, seed=1)]
    task = Segmentation(num_classes=2)
    majority = (np.mean(labels, axis=0) >= 0.5).astype(np.uint8)
    plain = np.nanmean([task.case_scores([torch.from_numpy(majority)], [t])[0] for t in test])
    assert constant_score(task, labels, test) > plain
