"""Small learning problems and tiny surrogates, for the tests of noise methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_salm.data.scan import units_of
from monai_salm.generate.precompute import precompute
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.methods import Method
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.store import NoiseStore

Case = dict[str, Any]
CPU = torch.device("cpu")
EPSILON, QUANTA = 8 / 255, 8
RECIPE = Recipe(optimizer="adam", lr=1e-2, batch_size=5, precision="float32")
STILL = replace(RECIPE, optimizer="sgd", lr=0.0)  # surrogates keep the weights they start with
SHORT: dict[str, Any] = {"epsilon": EPSILON, "step_size": 0.25, "num_steps": 5, "surrogate_steps": 3, "rounds": 2}
ONE_STEP = {**SHORT, "num_steps": 1, "rounds": 1}
BYTES = IntensityWindow(0, 255)


class TinyNet(nn.Module):
    """Smooth, so that every voxel has a gradient; answers per image, or per voxel for segmentation."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, per_voxel: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.first, self.second = conv(in_channels, 6, 3, padding=1), conv(6, 6, 3, padding=1)
        self.last = conv(6, out_channels, 1)
        self.per_voxel = per_voxel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.last(self.second(self.first(x * 4 - 2).tanh()).tanh())
        return logits if self.per_voxel else logits.flatten(2).mean(2) * 8


per_image, per_voxel = TinyNet, partial(TinyNet, per_voxel=True)


class Recording(TinyNet):
    """Keeps what it is trained on."""

    def __init__(self, **arguments: int) -> None:
        super().__init__(**arguments)
        self.batches: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(x.detach().clone())
        return super().forward(x)


@dataclass
class Spy:
    """A surrogate factory that keeps the networks it made; they are trained in place."""

    build: Callable[..., nn.Module] = TinyNet

    def __post_init__(self) -> None:
        self.networks: list[nn.Module] = []

    def __call__(self, **arguments: int) -> nn.Module:
        self.networks.append(self.build(**arguments))
        return self.networks[-1]


@dataclass
class Problem:
    """A data set with its task, in a stored type."""

    cases: list[Case]
    task: Task
    window: Any = BYTES

    def run(self, folder: Path, method: Method, name: str = "noise", **options: Any) -> NoiseStore:
        surrogate = options.pop("surrogate", per_voxel if self.task.kind == "segmentation" else per_image)
        settings: dict[str, Any] = {"recipe": RECIPE, "device": "cpu", "seed": 0, **options}
        return precompute(
            self.cases,
            folder / f"{name}.db",
            method=method,
            task=self.task,
            window=self.window,
            surrogate=surrogate,
            **settings,
        )

    def roomy(self) -> np.ndarray:
        """Voxels that can carry the whole budget either way, of all cases."""
        images, budget = np.stack([case["image"] for case in self.cases]), EPSILON * self.window.width
        return (images > self.window.low + budget) & (images < self.window.high - budget)

    def budget(self, case: Case) -> Budget:
        """What the noise of a case keeps to."""
        image = case["image"]
        return budget_of(image, self.window, units_of(image, image), EPSILON)

    def carriers(self) -> np.ndarray:
        """Voxels that can carry any noise, of all cases."""
        bounds = [self.budget(case).code_bounds(case["image"]) for case in self.cases]
        return np.stack([(lower < 0) | (upper > 0) for lower, upper in bounds])

    def targets(self) -> torch.Tensor:
        """The labels of all cases, as networks are trained with them."""
        labels = [self.task.check_label(c["label"], c["image"].shape[1:], "") for c in self.cases]
        found = torch.from_numpy(np.stack(labels))
        return found if found.is_floating_point() else found.long()

    def codes(self, folder: Path, method: Method, name: str = "noise", **options: Any) -> list[np.ndarray]:
        """The noise of every case, in their order."""
        store = self.run(folder, method, name, **options)
        return [store[content_digest(case["image"])].codes for case in self.cases]


def stored_as(cases: list[Case], dtype: str) -> tuple[list[Case], IntensityWindow]:
    """The same images on another grid, with a row above the window and one below it."""
    scale, offset = {"uint8": (1, 0), "int16": (4, -300), "uint16": (16, 0), "float32": (1 / 256, -0.3)}[dtype]
    moved = []
    for case in cases:
        image = case["image"].copy()
        image[:, 0], image[:, -1] = 255, 0
        moved.append({**case, "image": (image * np.float64(scale) + offset).astype(dtype)})
    return moved, IntensityWindow(10 * scale + offset, 240 * scale + offset)


MakeProblem = Callable[..., Problem]


def problem_of(
    classification: Callable[..., Any], segmentation: Callable[..., Any], kind: str, dtype: str = "uint8"
) -> Problem:
    """A problem of tiny images.

    Args:
        classification: makes the cases of classes, ``conftest.classification_cases``.
        segmentation: makes the cases of label maps, ``conftest.segmentation_cases``.
        kind: ``classification``, ``multilabel`` or ``segmentation``, and ``2d`` or ``3d``.
        dtype: the stored type.
    """
    spatial = (9, 8) if kind.endswith("2d") else (6, 5, 8)
    task: Task = Classification(num_classes=2)
    if kind.startswith("segmentation"):
        cases, task = segmentation((9, 8) if len(spatial) == 2 else (8, 8, 8), 6), Segmentation(num_classes=2)
    else:
        cases = classification(spatial, 8, 2)
    if kind.startswith("multilabel"):
        task = Classification(num_classes=3, multi_label=True)
        cases = [{**case, "label": [case["label"], 1 - case["label"], i % 2]} for i, case in enumerate(cases)]
    moved, window = stored_as(cases, dtype)
    return Problem(moved, task, window)
