"""The registry of countermeasures: each is documented, tried on every kind of data, and gives nothing away but what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.countermeasures import COUNTERMEASURES, TIERS
from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import Trainer
from monai_salm.noise.window import IntensityWindow

DOCS = Path(__file__).parents[1] / "docs"
RECIPE = Recipe(optimizer="adam", lr=1e-3, batch_size=4, precision="float32")


def test_names_and_tiers() -> None:
    assert [item.name for item in COUNTERMEASURES.values()] == list(COUNTERMEASURES)
    assert next(iter(COUNTERMEASURES)) == "none"
    assert TIERS["all"] == tuple(COUNTERMEASURES)
    costly = {"ueraser", "adversarial_training", "self_supervised", "self_training"}
    assert set(TIERS["all"]) - set(TIERS["cheap"]) == costly


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_each_is_documented_and_has_plain_settings(name: str) -> None:
    countermeasure = COUNTERMEASURES[name]
    assert f"`{name}`" in (DOCS / "evaluation.md").read_text("utf-8")
    assert countermeasure.spec()["name"] == name
    assert all(isinstance(value, str | int | float) for value in countermeasure.spec().values())
    if name != "none":
        assert dataclasses.is_dataclass(countermeasure)
        assert type(countermeasure).__dataclass_params__.frozen  # type: ignore[attr-defined]


def _cases(task: Task, spatial: tuple[int, ...], channels: int) -> Cases:
    make = classification_cases if task.kind == "classification" else segmentation_cases
    items: list[dict[str, Any]] = make(spatial, 6)
    images = [np.repeat(item["image"], channels, axis=0) for item in items]
    labels = [task.check_label(item["label"], spatial, "x") for item in items]
    view = choose_view([spatial], task.kind == "segmentation")
    return Cases(images, labels, [item["name"] for item in items], task, [IntensityWindow(0, 255)] * 6, view)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spatial", [(12, 12), (8, 8, 8)])
@pytest.mark.parametrize("task", [Classification(num_classes=2), Segmentation(num_classes=2)])
@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_each_trains_on_every_kind_of_data(name: str, task: Task, spatial: tuple[int, ...], channels: int) -> None:
    countermeasure, cases = COUNTERMEASURES[name], _cases(task, spatial, channels)
    reason = countermeasure.without_effect(cases)
    if reason is not None:
        assert reason.startswith(("no effect: ", "not applicable: "))
        return

    def network() -> Trainer:
        rank = len(spatial)
        conv = torch.nn.Conv2d if rank == 2 else torch.nn.Conv3d
        if task.kind == "segmentation":
            model = torch.nn.Sequential(conv(channels, 4, 3, padding=1), torch.nn.ReLU(), conv(4, task.num_classes, 1))
        else:
            size = channels * int(np.prod(spatial))
            model = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(size, 4), torch.nn.Linear(4, task.num_classes)
            )
        return Trainer(model, task, RECIPE, torch.device("cpu"), rank)

    resources = Resources(clean=cases, train=lambda train: network(), seed=0)
    prepared = countermeasure.prepare(cases, resources)
    assert len(prepared) >= len(cases)
    assert len(prepared.labels) == len(prepared.names) == len(prepared.windows) == len(prepared)
    trainer, generator = network(), resources.generator()
    regions = [(case, tuple(slice(0, n) for n in spatial)) for case in range(4)]
    inputs, targets = prepared.inputs(regions), prepared.targets(regions)
    error = countermeasure.step(trainer, inputs, targets, generator)
    assert 0 <= float(error) <= 1
    countermeasure.finish(trainer, resources)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert countermeasure.pick([0.1, 0.9, 0.5], [0.2, 0.1, 0.7]) in (-1, 1, 2)
    filtered = countermeasure.filter(cases.images[0], cases.windows[0])
    assert (filtered.shape, filtered.dtype) == (cases.images[0].shape, cases.images[0].dtype)


def test_ordinary_training_is_nothing_else() -> None:
    cases = _cases(Classification(num_classes=2), (8, 8), 1)
    plain = Countermeasure()
    image = cases.images[0]
    assert plain.filter(image, cases.windows[0]) is image
    assert plain.spec() == {"name": "none"}
