"""The places where a bilevel method may differ: each is called with what it promises, and does what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_problems import (
    ONE_STEP,
    RECIPE,
    STILL,
    MakeProblem,
    Recording,
    Spy,
    per_voxel,
)
from torch.utils._python_dispatch import TorchDispatchMode

from monai_salm.learning.cases import Slices
from monai_salm.learning.networks import frozen_copy
from monai_salm.learning.tasks import Task
from monai_salm.methods import EM
from monai_salm.methods.base import Batch, Loss
from monai_salm.methods.masks import Mask
from monai_salm.methods.steps import NoiseStep
from monai_salm.methods.work_units import WorkUnit
from monai_salm.shared.arrays import Array

ALL = {"recipe": RECIPE.__class__(optimizer="sgd", lr=0.0, batch_size=8, precision="float32")}


def stacked(problem: Any) -> torch.Tensor:
    return torch.from_numpy(np.stack([case["image"] for case in problem.cases]).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Brighter(EM):
    """Surrogates and noise steps see brighter images, at random; noise steps take the mean of three draws."""

    draws: int = 3

    @property
    def noise_draws(self) -> int:
        return self.draws

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        assert loss(inputs, targets).item() > 0
        return inputs + 1, targets

    def noise_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        return inputs * (1 + torch.rand((), generator=generator)), targets


class Waits(TorchDispatchMode):
    """Counts the numbers that Python asks of tensors: a GPU is waited for at each."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_noise_steps_ask_no_number_in_each_step(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    improve, found = NoiseStep.improve, []

    def counted(step: NoiseStep, unit: WorkUnit) -> float:
        with Waits() as waits:
            error = improve(step, unit)
        found.append((unit.index, waits.count))
        return error

    monkeypatch.setattr(NoiseStep, "improve", counted)
    counts = []
    for steps in (1, 4):
        found.clear()
        method = EM(**{**ONE_STEP, "num_steps": steps, "step_size": 0.5})
        make_problem("classification2d").run(tmp_path / str(steps), method, surrogate=Spy(Recording), **ALL)
        counts.append(sorted(found))
    assert counts[0]
    assert counts[0] == counts[1]


def test_surrogates_train_on_what_the_hook_makes_of_a_batch(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy(Recording)
    problem.run(tmp_path, Brighter(**{**ONE_STEP, "surrogate_steps": 1}), surrogate=spy, **ALL)
    clean = problem.window.normalize(stacked(problem)) + 1
    (batch,) = spy.networks[0].batches
    assert (batch[:, None] - clean[None]).abs().flatten(2).amax(2).amin(1).max() == 0


def test_a_noise_step_follows_the_mean_gradient_over_the_draws(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("segmentation2d"), Spy(per_voxel)
    settings = {**ALL, "recipe": STILL.__class__(optimizer="sgd", lr=0.0, batch_size=6, precision="float32")}
    codes = np.stack(problem.codes(tmp_path, Brighter(**ONE_STEP), surrogate=spy, **settings))
    images = stacked(problem).requires_grad_(True)
    generators = [torch.Generator().manual_seed(_seed(0, 2, 0, 0))]
    network, total = frozen_copy(spy.networks[0]), torch.zeros(())
    for _ in range(3):
        scaled = problem.window.normalize(images) * (1 + torch.rand((), generator=generators[0]))
        total = total + problem.task.loss(network(scaled), problem.targets()) / 3
    (gradient,) = torch.autograd.grad(total, images)
    roomy = problem.roomy() & problem.carriers() & (gradient.abs() > 1e-9).numpy()
    np.testing.assert_array_equal(codes[roomy], (-2 * gradient.sign()).numpy()[roomy])


def _seed(*purpose: int) -> int:
    return int(np.random.SeedSequence(list(purpose)).generate_state(1, np.uint64)[0]) >> 1


class Clean(EM):
    trains_on_noise = False


class Elsewhere(EM):
    """Aims at another class."""

    def noise_targets(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        return 1 - targets


@dataclass(frozen=True, kw_only=True)
class LeftHalf(Mask):
    """The left half of an image."""

    name = "left_half"

    def support(self, label: Array, tile: Slices) -> Array:
        inside = np.zeros([s.stop - s.start for s in tile], bool)
        inside[:, :4] = True
        return inside


class Dark(EM):
    def penalty(self, noise: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        assert float(images.max()) <= 1
        return 1e6 * noise.sum()


def test_surrogates_may_train_on_clean_images(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy(Recording)
    problem.run(tmp_path, Clean(**{**ONE_STEP, "rounds": 3, "surrogate_steps": 1}), surrogate=spy, **ALL)
    clean = problem.window.normalize(stacked(problem))
    for network in spy.networks:
        assert (network.batches[0][:, None] - clean[None]).abs().flatten(2).amax(2).amin(1).max() == 0


def test_noise_aims_where_the_method_says_and_stays_where_it_may(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy()
    codes = np.stack(problem.codes(tmp_path, Elsewhere(mask=LeftHalf(), **ONE_STEP), surrogate=spy, **ALL))
    images = stacked(problem).requires_grad_(True)
    wrong = torch.tensor([1 - case["label"] for case in problem.cases])
    loss = problem.task.loss(frozen_copy(spy.networks[0])(problem.window.normalize(images)), wrong)
    (gradient,) = torch.autograd.grad(loss, images)
    assert not codes[..., 4:].any()
    left = problem.roomy() & problem.carriers() & (np.arange(codes.shape[-1]) < 4)
    np.testing.assert_array_equal(codes[left], (-2 * gradient.sign()).numpy()[left])


def test_a_penalty_joins_the_loss(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification3d")
    codes = np.stack(problem.codes(tmp_path, Dark(**ONE_STEP)))
    assert (codes[problem.roomy() & problem.carriers()] == -2).all()
