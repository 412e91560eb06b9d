"""Fixtures that any test may use: seeded randomness, and small data sets that a tiny network learns quickly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

# Before torch: each of several test processes, and what it starts, takes one core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

Case: TypeAlias = dict[str, Any]
DatasetFactory: TypeAlias = Callable[..., list[Case]]

_BACKGROUND, _CONTRAST, _GRAIN = 60.0, 50.0, 8.0


def _stripes(shape: Sequence[int], kind: int, phase: float) -> np.ndarray:
    """A wave in [-1, 1]: ``kind`` sets the axis it runs along and, once the axes are used up, its period."""
    axis, period = kind % len(shape), 4.0 * (1 + kind // len(shape))
    wave = np.sin(2 * np.pi * np.arange(shape[axis]) / period + phase)
    return np.broadcast_to(wave.reshape([-1 if a == axis else 1 for a in range(len(shape))]), tuple(shape))


def _to_uint8(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add grain, so that no two images are equal, and store as a channel-first uint8 image."""
    grainy = image + rng.normal(0, _GRAIN, image.shape)
    return np.clip(np.rint(grainy), 0, 255).astype(np.uint8)[None]


def classification_cases(
    spatial: Sequence[int] = (16, 16), cases: int = 24, num_classes: int = 2, seed: int = 0
) -> list[Case]:
    """Images whose class shows in the direction and period of their stripes, at a phase that means nothing.

    Args:
        spatial: image shape without the channel, any rank.
        cases: how many; classes take turns, so they are balanced.
        num_classes: how many classes.
        seed: another seed gives another split of the same problem.

    Returns:
        A list of ``{"image": uint8 (1, *spatial), "label": int, "name": str}``.
    """
    rng = np.random.default_rng(seed)
    result = []
    for index in range(cases):
        label = index % num_classes
        stripes = _stripes(spatial, label, rng.uniform(0, 2 * np.pi))
        image = _BACKGROUND + 20 * label + _CONTRAST * (1 + stripes)
        result.append({"image": _to_uint8(image, rng), "label": label, "name": f"case_{seed}_{index:03d}"})
    return result


def segmentation_cases(
    spatial: Sequence[int] = (16, 16), cases: int = 12, num_classes: int = 2, seed: int = 0
) -> list[Case]:
    """Images of one ball per foreground class, at a random place; its class shows in its brightness.

    Args:
        spatial: image shape without the channel, any rank, at least 8 a side.
        cases: how many.
        num_classes: how many classes, background (0) included. A later ball may cover part of an earlier one.
        seed: another seed gives another split of the same problem.

    Returns:
        A list of ``{"image": uint8 (1, *spatial), "label": uint8 (1, *spatial), "name": str}``.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in spatial), indexing="ij"))
    column = (-1, *(1 for _ in spatial))
    result = []
    for index in range(cases):
        label = np.zeros(tuple(spatial), np.uint8)
        for number in range(1, num_classes):
            radius = min(spatial) * rng.uniform(0.2, 0.3)
            centre = np.array([rng.uniform(radius, side - 1 - radius) for side in spatial]).reshape(column)
            label[((grid - centre) ** 2).sum(0) <= radius**2] = number
        image = _BACKGROUND + (220 - _BACKGROUND) * label / (num_classes - 1)
        result.append({"image": _to_uint8(image, rng), "label": label[None], "name": f"case_{seed}_{index:03d}"})
    return result


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small gain nothing from a second thread, and on a busy machine they wait for it many times over."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests sign stores with a key of their own, not with the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_SALM_KEY", str(tmp_path_factory.mktemp("key") / "owner.key"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What other processes leave in the system's temporary folder is not found by tests."""
    own = str(tmp_path_factory.mktemp("system"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", own)
        patch.setattr(tempfile, "tempdir", own)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded NumPy generator, new for each test."""
    return np.random.default_rng(0)


# The factories keep no state, so one a session is enough, and Hypothesis tests may use them.
@pytest.fixture(scope="session")
def make_classification() -> DatasetFactory:
    """``make_classification(spatial=(16, 16), cases=24, num_classes=2, seed=0)``: see ``classification_cases``."""
    return classification_cases


@pytest.fixture(scope="session")
def make_segmentation() -> DatasetFactory:
    """``make_segmentation(spatial=(16, 16), cases=12, num_classes=2, seed=0)``: see ``segmentation_cases``."""
    return segmentation_cases


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Any]:
    """``make_problem("segmentation3d", "float32")``: see ``method_problems.problem_of``."""
    from method_problems import problem_of  # imports the package, which most tests of this file do not wait for

    return partial(problem_of, classification_cases, segmentation_cases)


@pytest.fixture
def classification_2d() -> list[Case]:
    """24 images of 16 x 16 in 2 classes."""
    return classification_cases((16, 16))


@pytest.fixture
def classification_3d() -> list[Case]:
    """16 images of 12 x 12 x 12 in 2 classes."""
    return classification_cases((12, 12, 12), cases=16)


@pytest.fixture
def segmentation_2d() -> list[Case]:
    """12 images of 16 x 16 with a background and one ball."""
    return segmentation_cases((16, 16))


@pytest.fixture
def segmentation_3d() -> list[Case]:
    """8 images of 12 x 12 x 12 with a background and one ball."""
    return segmentation_cases((12, 12, 12), cases=8)
