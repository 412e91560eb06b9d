"""What every noise method promises, over a table of methods x {2D, 3D} x tasks x stored types."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from monai_salm.digest import content_digest
from monai_salm.intensity import IntensityWindow, code_bounds, make_grid
from monai_salm.masks import mask_size, topk_mask
from monai_salm.methods import EM, METHODS, SALM, BilevelMethod, Method, RandomNoise
from monai_salm.methods.base import Job
from monai_salm.methods.loop import Loop
from monai_salm.methods.starts import class_pattern
from monai_salm.networks import build_network, frozen_copy, seeded
from monai_salm.precompute import precompute
from monai_salm.recipes import Recipe
from monai_salm.store import NoiseStore
from monai_salm.tasks import Classification, Segmentation, Task
from monai_salm.training import TrainingError

Case = dict[str, Any]
CPU = torch.device("cpu")
EPSILON, QUANTA = 8 / 255, 8
RECIPE = Recipe(optimizer="adam", lr=1e-2, batch_size=5, precision="float32")
STILL = replace(RECIPE, optimizer="sgd", lr=0.0)  # surrogates keep the weights they start with
SHORT: dict[str, Any] = {"epsilon": EPSILON, "step_size": 2 / 255, "num_steps": 5, "surrogate_steps": 3, "rounds": 2}
ONE_STEP = {**SHORT, "num_steps": 1, "rounds": 1}
BYTES = IntensityWindow(0, 255)

TABLE: dict[str, Method] = {
    "salm": SALM(num_steps=2, surrogate_steps=3),
    "salm_bounded": SALM(num_steps=2, surrogate_steps=3, mask_scope="sample"),
    "salm_views": SALM(num_steps=2, surrogate_steps=3, views=("none", "augment", "jpeg", "bit_depth")),
    "salm_step": SALM(mask_ratio=0.3, start="zero", **SHORT),
    "salm_sample": SALM(mask_ratio=0.3, mask_scope="sample", start="zero", **SHORT),
    "salm_random": SALM(mask_ratio=0.3, mask_scope="sample", mask_source="random", **SHORT),
    "salm_foreground": SALM(mask_ratio=0.2, mask_source="foreground", **SHORT),
    "salm_classwise": SALM(mask_ratio=0.3, perturb_type="classwise", **SHORT),
    "em": EM(**SHORT),
    "random_noise": RandomNoise(epsilon=EPSILON),
}


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
    window: IntensityWindow = BYTES

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


@pytest.fixture
def make_problem(make_classification: Any, make_segmentation: Any) -> Callable[[str, str], Problem]:
    def make(kind: str, dtype: str = "uint8") -> Problem:
        spatial = (9, 8) if kind.endswith("2d") else (6, 5, 8)
        if kind.startswith("segmentation"):
            cases, task = (
                make_segmentation((*spatial[:-1], 8) if len(spatial) == 2 else (8, 8, 8), 6),
                Segmentation(num_classes=2),
            )
        else:
            cases, task = make_classification(spatial, 8, 2), Classification(num_classes=2)
        if kind.startswith("multilabel"):
            task = Classification(num_classes=3, multi_label=True)
            cases = [{**case, "label": [case["label"], 1 - case["label"], i % 2]} for i, case in enumerate(cases)]
        moved, window = stored_as(cases, dtype)
        return Problem(moved, task, window)

    return make


MakeProblem = Callable[..., Problem]
KINDS = [
    ("classification2d", "uint8"),
    ("classification2d", "int16"),
    ("classification2d", "float32"),
    ("classification3d", "uint8"),
    ("multilabel2d", "uint8"),
    ("multilabel3d", "int16"),
    ("segmentation2d", "uint8"),
    ("segmentation2d", "uint16"),
    ("segmentation3d", "float32"),
]
PER_IMAGE = ("salm_classwise", "salm_views")
FITTING = [(m, k, d) for m in TABLE for k, d in KINDS if m not in PER_IMAGE or k.startswith("classification")]


@pytest.mark.parametrize(("name", "kind", "dtype"), FITTING)
def test_budget_window_and_support(name: str, kind: str, dtype: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, method = make_problem(kind, dtype), TABLE[name]
    store = problem.run(tmp_path, method)
    grid, low, high = make_grid(dtype, problem.window, EPSILON), problem.window.low, problem.window.high
    assert len(store) == len(problem.cases)
    for case in problem.cases:
        image, noise = case["image"], store[content_digest(case["image"])]
        protected = noise.apply(image)
        assert noise.codes.any()
        assert np.abs(noise.codes).max() <= grid.max_code
        assert noise.quantum == grid.quantum
        difference = protected.astype(np.float64) - image.astype(np.float64)
        rounding = np.spacing(np.float32(high)) if dtype == "float32" else 0
        assert np.abs(difference).max() <= EPSILON * problem.window.width + rounding
        outside = (image < np.float32(low)) | (image > np.float32(high))
        assert outside.any()
        assert protected[outside].tobytes() == image[outside].tobytes()
        assert (protected[~outside] >= np.float32(low)).all()
        assert (protected[~outside] <= np.float32(high)).all()
        assert noise.remove(protected).tobytes() == image.tobytes()
        if isinstance(method, SALM) and method.mask_scope == "sample":
            changed = protected.view(f"u{image.itemsize}") != image.view(f"u{image.itemsize}")
            assert 0 < np.count_nonzero(changed) <= mask_size(image.size, method.mask_ratio)


@pytest.mark.parametrize("kind", ["classification2d", "segmentation3d"])
@pytest.mark.parametrize("name", TABLE)
def test_one_seed_gives_the_same_bytes_and_another_does_not(
    name: str, kind: str, make_problem: MakeProblem, tmp_path: Path
) -> None:
    if name in PER_IMAGE and kind.startswith("segmentation"):
        pytest.skip("needs one label per image")
    problem, method = make_problem(kind), TABLE[name]
    first = problem.codes(tmp_path, method, "first")
    torch.manual_seed(5)  # whatever a caller did before must not matter
    again = problem.codes(tmp_path, method, "again")
    other = problem.codes(tmp_path, method, "other", seed=1)
    assert [c.tobytes() for c in first] == [c.tobytes() for c in again]
    settled = method.resolved(problem.task, 2 if kind.endswith("2d") else 3)
    drawn = not isinstance(settled, BilevelMethod) or settled.rounds != 0  # a pattern alone depends on the label only
    assert ([c.tobytes() for c in first] != [c.tobytes() for c in other]) == drawn


# ---------------------------------------------------------------------------------------------------------------------
# One noise step, recomputed by hand against the very surrogate that made it


def expected_step(problem: Problem, network: nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Codes after one step down the gradient from zero noise, on the elements that ``choose`` selects."""
    grid = make_grid(problem.cases[0]["image"].dtype.name, problem.window, EPSILON)
    images = torch.from_numpy(np.stack([case["image"] for case in problem.cases]).astype(np.float32))
    labels = np.stack([problem.task.check_label(c["label"], images.shape[2:], "") for c in problem.cases])
    targets = torch.from_numpy(labels)
    inputs = images.clone().requires_grad_(True)
    logits = frozen_copy(network)(problem.window.normalize(inputs))
    problem.task.loss(logits, targets if targets.is_floating_point() else targets.long()).backward()
    assert inputs.grad is not None
    step = 2 / 255 * problem.window.width / grid.quantum
    lower, upper = code_bounds(images, problem.window, grid)
    moved = -step * inputs.grad.sign() * choose(inputs.grad)
    return torch.minimum(torch.maximum(moved, lower), upper).round().numpy()


@pytest.mark.parametrize("scope", ["step", "sample"])
@pytest.mark.parametrize(
    "kind", ["classification2d", "classification3d", "multilabel2d", "segmentation2d", "segmentation3d"]
)
def test_a_salm_step_moves_the_k_largest_gradients_downhill(
    kind: str, scope: str, make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem(kind)
    spy = Spy(per_voxel if kind.startswith("segmentation") else per_image)
    one_batch = replace(RECIPE, batch_size=len(problem.cases))
    codes = problem.codes(
        tmp_path, SALM(mask_ratio=0.3, mask_scope=scope, start="zero", **ONE_STEP), surrogate=spy, recipe=one_batch
    )
    k = mask_size(codes[0].size, 0.3)
    expected = expected_step(problem, spy.networks[0], lambda gradient: topk_mask(gradient.abs(), k))
    np.testing.assert_array_equal(np.stack(codes), expected)
    assert all(0.5 * k < np.count_nonzero(one) <= k for one in codes)


def test_an_em_step_moves_every_element_downhill(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy()
    one_batch = replace(RECIPE, batch_size=len(problem.cases))
    codes = problem.codes(tmp_path, EM(**ONE_STEP), surrogate=spy, recipe=one_batch)
    np.testing.assert_array_equal(np.stack(codes), expected_step(problem, spy.networks[0], torch.ones_like))


@pytest.mark.parametrize("source", ["gradient", "random", "foreground"])
@pytest.mark.parametrize("scope", ["step", "sample"])
def test_a_step_changes_at_most_k_elements(scope: str, source: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification3d")
    method = SALM(mask_ratio=0.1, mask_scope=scope, mask_source=source, start="zero", **ONE_STEP)
    codes = problem.codes(tmp_path, method)
    k = mask_size(codes[0].size, 0.1)
    assert all(0 < np.count_nonzero(one) <= k for one in codes)
    if source == "foreground":
        for case, one in zip(problem.cases, codes, strict=True):
            assert (case["image"][one != 0] > case["image"].mean()).all()


def test_step_masks_wander_and_sample_masks_stay(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    settings = {**SHORT, "rounds": 3, "step_size": 1 / 255}
    wandering = problem.codes(tmp_path, SALM(mask_ratio=0.1, start="zero", **settings), "step")
    staying = problem.codes(tmp_path, SALM(mask_ratio=0.1, start="zero", mask_scope="sample", **settings), "sample")
    k = mask_size(wandering[0].size, 0.1)
    assert max(np.count_nonzero(one) for one in wandering) > k
    assert max(np.count_nonzero(one) for one in staying) <= k


def test_sources_of_masks_differ(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    chosen = {}
    for source in ("gradient", "random", "foreground"):
        method = SALM(mask_ratio=0.2, start="zero", mask_scope="sample", mask_source=source, **ONE_STEP)
        codes = problem.codes(tmp_path, method, source)
        chosen[source] = np.stack([one != 0 for one in codes]).tobytes()
    assert len(set(chosen.values())) == 3


@pytest.mark.parametrize("name", ["salm_step", "salm_sample", "salm_classwise", "em"])
@pytest.mark.parametrize("kind", ["classification2d", "segmentation2d"])
def test_noise_lowers_the_surrogates_loss(name: str, kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    if name in PER_IMAGE and kind.startswith("segmentation"):
        pytest.skip("needs one label per image")
    problem, method = make_problem(kind), replace(TABLE[name], rounds=1, num_steps=6)
    spy = Spy(per_voxel if kind.startswith("segmentation") else per_image)
    codes = np.stack(problem.codes(tmp_path, method, surrogate=spy))
    images = np.stack([case["image"] for case in problem.cases])
    labels = [problem.task.check_label(c["label"], images.shape[2:], "") for c in problem.cases]

    def loss(batch: np.ndarray) -> float:
        with torch.no_grad():
            logits = spy.networks[0].eval()(problem.window.normalize(torch.from_numpy(batch.astype(np.float32))))
        return float(problem.task.loss(logits, torch.from_numpy(np.stack(labels)).long()))

    assert loss(images + codes) < 0.995 * loss(images)


# ---------------------------------------------------------------------------------------------------------------------
# Units, views, shapes, channels


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


class BackwardsEM(EM):
    """Takes its units in reverse order."""

    def run(self, job: Job) -> int:
        loop = Loop(self, job)
        assert len(loop.units) == 3
        loop.units.reverse()
        return loop.run()


@pytest.mark.parametrize("name", ["salm_step", "salm_sample", "salm_random", "salm_classwise", "em"])
def test_thread_count_does_not_change_noise(name: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    recipe = replace(STILL, batch_size=3)
    with threads(1):
        alone = problem.codes(tmp_path, TABLE[name], "alone", recipe=recipe)
    with threads(3):
        together = problem.codes(tmp_path, TABLE[name], "together", recipe=recipe)
    assert [c.tobytes() for c in alone] == [c.tobytes() for c in together]


def test_units_are_independent_of_each_other(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, method = make_problem("classification2d"), EM(**SHORT)
    recipe = replace(STILL, batch_size=3)
    together = problem.codes(tmp_path, method, "together", recipe=recipe)
    backwards = problem.codes(tmp_path, BackwardsEM(**SHORT), "backwards", recipe=recipe)
    assert [c.tobytes() for c in together] == [c.tobytes() for c in backwards]
    one_unit = Problem(problem.cases[:3], problem.task, problem.window).codes(tmp_path, method, "one", recipe=recipe)
    assert [c.tobytes() for c in together[:3]] == [c.tobytes() for c in one_unit]


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"salm_classwise"}))
def test_images_of_different_shapes_and_types_in_one_set(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    cases = []
    for index, (spatial, dtype) in enumerate(
        [((8, 9), "uint8"), ((12, 7), "uint8"), ((8, 9), "int16"), ((9, 9), "float32")] * 2
    ):
        cases.append({"image": rng.integers(0, 200, (1, *spatial)).astype(dtype), "label": index % 2})
    problem = Problem(cases, Classification(num_classes=2))
    codes = problem.codes(tmp_path, TABLE[name])
    for case, one in zip(cases, codes, strict=True):
        assert one.shape == case["image"].shape
        assert 0 < np.abs(one).max() <= make_grid(case["image"].dtype.name, BYTES, EPSILON).max_code


@pytest.mark.parametrize("name", ["salm_step", "salm_sample", "salm_classwise", "em"])
@pytest.mark.parametrize("spatial", [(8, 8), (5, 6, 6)])
def test_several_channels(name: str, spatial: tuple[int, ...], tmp_path: Path, rng: np.random.Generator) -> None:
    cases = [{"image": rng.integers(0, 256, (3, *spatial)).astype("uint8"), "label": i % 2} for i in range(6)]
    codes = Problem(cases, Classification(num_classes=2)).codes(tmp_path, TABLE[name])
    assert all(one.shape == (3, *spatial) for one in codes)
    if name == "em":
        assert np.stack(codes).any(axis=(0, *range(2, 2 + len(spatial)))).all()
    if name == "salm_sample":  # k counts the elements of all channels together
        assert all(np.count_nonzero(one) <= mask_size(one.size, 0.3) for one in codes)


@pytest.mark.parametrize("kind", ["classification2d", "classification3d", "segmentation2d", "segmentation3d"])
def test_patches_reach_every_voxel_of_the_full_grid(kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(kind)
    shape = problem.cases[0]["image"].shape
    patch = (5, 5) if len(shape) == 3 else (4, 4, 5)
    # One code a step from an even budget: voxels in the overlap of two tiles are moved twice.
    codes = problem.codes(tmp_path, EM(**{**ONE_STEP, "step_size": 3 / 255}), patch_size=patch)
    assert all(one.shape == shape for one in codes)
    moved = np.stack(codes) != 0
    once = np.ones(shape, bool)
    for axis, (side, part) in enumerate(zip(shape[1:], patch, strict=True), start=1):
        overlap = [slice(None)] * len(shape)
        overlap[axis] = slice(side - part, part)
        once[tuple(overlap)] = False
    assert once.any()
    assert moved[problem.roomy() & once].all()
    assert moved[:, ~once].any()


@pytest.mark.parametrize("kind", ["classification2d", "segmentation3d"])
def test_patches_share_one_mask_per_sample(kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(kind)
    size = (4,) * (problem.cases[0]["image"].ndim - 1)
    method = SALM(mask_ratio=0.2, mask_scope="sample", start="zero", **SHORT)
    codes = problem.codes(tmp_path, method, patch_size=size)
    assert all(0 < np.count_nonzero(one) <= mask_size(one.size, 0.2) for one in codes)


def test_resized_images_get_noise_on_their_own_grid(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    codes = problem.codes(tmp_path, EM(**ONE_STEP), view_size=(12, 12))
    assert (np.stack(codes)[problem.roomy()] != 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Class-wise noise


def test_classwise_noise_is_one_per_class_up_to_clipping(make_classification: Any, tmp_path: Path) -> None:
    cases = make_classification((9, 8), 9, 3)
    cases[0]["image"][:, :4] = 255  # has no room above
    cases[3]["image"][:, :4] = 0  # has none below
    problem = Problem(cases, Classification(num_classes=3))
    codes = problem.codes(tmp_path, EM(perturb_type="classwise", **SHORT))
    shared = {}
    for label in range(3):
        members = [i for i in range(9) if i % 3 == label]
        shared[label] = codes[members[-1]]  # images in mid-range can carry all of it
        for index in members:
            image = cases[index]["image"].astype(int)
            np.testing.assert_array_equal(codes[index], np.clip(shared[label], -image, 255 - image))
    assert not np.array_equal(codes[0], codes[3])
    assert not np.array_equal(shared[0], shared[1])
    assert not np.array_equal(shared[1], shared[2])


def test_classwise_noise_grows_over_rounds(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    method = EM(**{**ONE_STEP, "step_size": 1 / 255}, perturb_type="classwise", stop_error=None)
    largest = []
    for rounds in (1, 2, 3):
        codes = problem.codes(tmp_path, replace(method, rounds=rounds), f"rounds{rounds}")
        largest.append(int(np.abs(np.stack(codes)).max()))
    assert largest == [1, 2, 3]


@pytest.mark.parametrize("kind", ["multilabel2d", "segmentation2d"])
def test_classwise_noise_needs_one_label(kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='needs one label per image; use "samplewise"'):
        make_problem(kind).run(tmp_path, EM(perturb_type="classwise", **SHORT))


def test_classwise_noise_needs_images_of_one_shape(tmp_path: Path) -> None:
    shapes = [(1, 8, 8), (1, 9, 8)]
    cases = [{"image": np.arange(np.prod(s), dtype=np.uint8).reshape(s), "label": i} for i, s in enumerate(shapes)]
    problem = Problem(cases, Classification(num_classes=2))
    with pytest.raises(ValueError, match='needs images of one shape and type, without patches; use "samplewise"'):
        problem.run(tmp_path, EM(perturb_type="classwise", **SHORT))


# ---------------------------------------------------------------------------------------------------------------------
# Surrogates


class Recording(TinyNet):
    """Keeps what it is trained on."""

    def __init__(self, **arguments: int) -> None:
        super().__init__(**arguments)
        self.batches: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(x.detach().clone())
        return super().forward(x)


def test_surrogates_train_on_the_noisy_images(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy(Recording)
    everything = replace(RECIPE, batch_size=len(problem.cases))
    problem.run(tmp_path, EM(**{**SHORT, "surrogate_steps": 1}), surrogate=spy, recipe=everything)
    images = torch.from_numpy(np.stack([case["image"] for case in problem.cases]).astype(np.float32))
    clean = problem.window.normalize(images)
    first, second = (torch.cat(network.batches) for network in spy.networks)

    def distances(batch: torch.Tensor) -> torch.Tensor:
        """From each image of a batch to the nearest clean one."""
        return (batch[:, None] - clean[None]).abs().flatten(2).amax(2).amin(1)

    assert (distances(first) == 0).all()
    assert (distances(second) > 1 / 255).all()
    assert (distances(second) <= EPSILON + 1e-6).all()


@pytest.mark.parametrize(("every", "groups"), [(0, [0, 0, 0, 0]), (1, [0, 1, 2, 3]), (2, [0, 0, 1, 1])])
def test_restarts_give_fresh_weights(every: int, groups: list[int], make_problem: MakeProblem, tmp_path: Path) -> None:
    spy = Spy()
    method = EM(**{**SHORT, "rounds": 4, "surrogate_steps": 1}, restart_every=every, stop_error=None)
    make_problem("classification2d").run(tmp_path, method, surrogate=spy, recipe=STILL)
    weights = [network.first.weight.detach().numpy().tobytes() for network in spy.networks]
    order = list(dict.fromkeys(weights))
    assert [order.index(one) for one in weights] == groups


def test_without_restart_training_goes_on(make_problem: MakeProblem, tmp_path: Path) -> None:
    spy = Spy()
    method = EM(**{**SHORT, "rounds": 3, "surrogate_steps": 1, "step_size": EPSILON}, restart_every=0, stop_error=None)
    make_problem("classification2d").run(tmp_path, method, surrogate=spy)
    seen = [network.first.weight.detach() for network in spy.networks]
    # Adam moves every weight by about the learning rate a step, on from where it was.
    assert (seen[1] - seen[0]).abs().max() < 2 * RECIPE.lr
    assert (seen[2] - seen[1]).abs().max() < 2 * RECIPE.lr
    # Only its very first step is just the learning rate, whatever the gradient: the optimiser goes on, too.
    assert (seen[2] - seen[1]).abs().min() < 0.9 * RECIPE.lr


@pytest.mark.parametrize(
    ("every", "names"), [(1, ["vgg11", "resnet10", "vgg11"]), (2, ["resnet10", "resnet10", "vgg11"])]
)
def test_a_pool_of_surrogates_takes_turns_at_restarts(
    every: int, names: list[str], make_classification: Any, tmp_path: Path
) -> None:
    problem = Problem(make_classification((16, 16), 6), Classification(num_classes=2))
    rounds = 4 if every == 1 else 3
    method = SALM(
        **{**SHORT, "rounds": rounds, "num_steps": 1, "surrogate_steps": 1}, restart_every=every, start="zero"
    )
    store = problem.run(tmp_path, method, surrogate=("resnet10", "vgg11"), width=0.05)
    assert store.meta["surrogate"] == ["resnet10", "vgg11"]
    kept = store.networks()
    assert [spec["name"] for spec, _ in kept] == names
    for spec, weights in kept:
        build_network(**spec).load_state_dict(weights)


def test_stop_error_ends_the_rounds(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    for name, stop_error, rounds in (("at once", 0.99, 1), ("never", None, 4)):
        method = EM(**{**SHORT, "rounds": 4}, stop_error=stop_error)
        meta = problem.run(tmp_path, method, name).meta
        assert meta["rounds"] == rounds
        assert len(meta["errors"]) == rounds
        assert all(0 <= error <= 1 for error in meta["errors"])
    problem.cases = [{**case, "label": i // 4} for i, case in enumerate(problem.cases)]  # hard to learn
    method = EM(**{**SHORT, "rounds": 2, "num_steps": 1, "step_size": 1 / 255}, stop_error=0.0)
    meta = problem.run(tmp_path, method, "not reached", recipe=STILL).meta
    assert meta["rounds"] == 2


class BreaksInEvaluation(TinyNet):
    """Its gradients overflow in bfloat16, or in any type, but only in noise steps."""

    types: tuple[torch.dtype, ...] = (torch.bfloat16,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.first(x * 4 - 2)
        if not self.training and features.dtype in self.types:
            features.register_hook(lambda gradient: gradient * torch.inf)
        return self.last(self.second(features.tanh()).tanh()).flatten(2).mean(2)


class AlwaysBreaksInEvaluation(BreaksInEvaluation):
    types = (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("name", ["salm_step", "salm_sample", "salm_classwise"])
def test_noise_steps_fall_back_to_float32_and_say_so(
    name: str, make_problem: MakeProblem, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = make_problem("classification2d")
    recipe = replace(RECIPE, precision="bfloat16", batch_size=3)
    with caplog.at_level(logging.WARNING):
        codes = problem.codes(tmp_path, TABLE[name], surrogate=BreaksInEvaluation, recipe=recipe)
    assert caplog.text.count("gradients of a noise step are not finite in bfloat16 on cpu: going on in float32") == 1
    assert all(one.any() for one in codes)


def test_noise_steps_without_finite_gradients_are_an_error(make_problem: MakeProblem, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gradients of a noise step are not finite in float32: check the images"):
        make_problem("classification2d").run(tmp_path, EM(**SHORT), surrogate=AlwaysBreaksInEvaluation)


# ---------------------------------------------------------------------------------------------------------------------
# Random noise, the exit check, settings


def test_random_noise_is_the_whole_budget_up_or_down(make_classification: Any, tmp_path: Path) -> None:
    problem = Problem(make_classification((32, 32), 3), Classification(num_classes=2))
    for case, codes in zip(problem.cases, problem.codes(tmp_path, RandomNoise(epsilon=EPSILON)), strict=True):
        free = (case["image"] >= QUANTA) & (case["image"] <= 255 - QUANTA)
        assert set(codes[free].tolist()) == {-QUANTA, QUANTA}
        assert 0.4 < (codes[free] > 0).mean() < 0.6


class Wild(Method):
    """Disregards every rule."""

    name = "wild"

    def run(self, job: Job) -> int:
        for number, codes in enumerate(job.workspace.codes(0)):
            codes[...] = 100 if number % 2 else -100
        return 0


def test_the_budget_is_enforced_whatever_a_method_leaves(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    codes = problem.codes(tmp_path, Wild(epsilon=EPSILON))
    assert make_grid("uint8", problem.window, EPSILON).max_code == 7  # of 230 grey levels
    for number, (case, one) in enumerate(zip(problem.cases, codes, strict=True)):
        image = case["image"].astype(int)
        inside = (image >= 10) & (image <= 240)
        assert not one[~inside].any()
        np.testing.assert_array_equal(one[inside], np.clip(7 if number % 2 else -7, 10 - image, 240 - image)[inside])


def test_methods_are_known_by_name() -> None:
    names = {"salm", "em", "rem", "sem", "tap", "lsp", "ar", "interslice_em", "roi_em", "random_noise"}
    assert {name: METHODS[name].name for name in METHODS} == {name: name for name in names}
    spec = SALM(mask_ratio=0.5).spec()
    assert METHODS[spec.pop("name")](**spec) == SALM(mask_ratio=0.5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (RandomNoise, {"epsilon": 0.0}, r"epsilon must be in \(0, 1\], got 0.0"),
        (EM, {"epsilon": 8}, r"epsilon must be in \(0, 1\], got 8"),
        (EM, {"epsilon": float("nan")}, r"epsilon must be in \(0, 1\], got nan"),
        (EM, {"step_size": 0.0}, r"step_size must be in \(0, 1\] or None, got 0.0"),
        (EM, {"step_size": float("nan")}, r"step_size must be in \(0, 1\] or None, got nan"),
        (EM, {"num_steps": 0}, "num_steps must be at least 1, got 0"),
        (EM, {"surrogate_steps": 0}, "surrogate_steps must be at least 1, got 0"),
        (EM, {"rounds": -1}, "rounds must be at least 0, got -1"),
        (EM, {"calibration_steps": -1}, "calibration_steps must be at least 0, got -1"),
        (EM, {"restart_every": -1}, "restart_every must be at least 0, got -1"),
        (EM, {"stop_error": 1.0}, r"stop_error must be in \[0, 1\) or None, got 1.0"),
        (EM, {"perturb_type": "pixelwise"}, "perturb_type must be one of .*, got pixelwise"),
        (SALM, {"mask_ratio": 2}, r"mask_ratio must be in \(0, 1\], got 2"),
        (SALM, {"mask_ratio": 0.0}, r"mask_ratio must be in \(0, 1\], got 0.0"),
        (SALM, {"mask_ratio": float("nan")}, r"mask_ratio must be in \(0, 1\], got nan"),
        (SALM, {"mask_scope": "pixel"}, "mask_scope must be one of .*, got pixel"),
        (SALM, {"mask_source": "saliency"}, "mask_source must be one of .*, got saliency"),
        (
            SALM,
            {"mask_scope": "sample", "perturb_type": "classwise"},
            "one mask per image and .* one noise per class: choose",
        ),
    ],
)
def test_wrong_settings_are_refused_rule_then_value(
    kind: type[BilevelMethod], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_settings_are_frozen_and_by_keyword_only() -> None:
    with pytest.raises(AttributeError):
        SALM().mask_ratio = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        SALM(8 / 255)  # type: ignore[misc]


def test_spied_networks_are_seeded(make_problem: MakeProblem, tmp_path: Path) -> None:
    """The caller's random state is neither used nor changed."""
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    spy = Spy()
    make_problem("classification2d").run(tmp_path, EM(**ONE_STEP), surrogate=spy, recipe=STILL)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tobytes() == numpy_state  # noqa: NPY002
    with seeded(3, CPU):
        assert not torch.equal(TinyNet(2, 1, 2).first.weight, spy.networks[0].first.weight)


@pytest.mark.parametrize("kind", ["segmentation2d", "segmentation3d", "classification2d", "classification3d"])
def test_noise_begins_as_the_pattern_of_its_class(kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    """One step of a tenth of the elements leaves the others as they began, inside a fixed mask only."""
    problem = make_problem(kind)
    whole = problem.codes(tmp_path / "step", SALM(mask_ratio=0.1, start="class", **ONE_STEP))
    part = problem.codes(tmp_path / "sample", SALM(mask_ratio=0.1, mask_scope="sample", start="class", **ONE_STEP))
    for case, one, masked in zip(problem.cases, whole, part, strict=True):
        label = np.asarray(case["label"]).squeeze()
        if label.ndim == 0 and label == 0:  # the plain class: a step begins from nothing
            assert 0 < np.count_nonzero(one) <= mask_size(one.size, 0.1)
            continue
        pattern = class_pattern(label, one.shape[1:], problem.task.num_classes, plain_class=0)
        moved = (np.abs(one) > 0) & (pattern != 0)
        assert np.mean(np.sign(one[0])[moved[0]] == pattern[moved[0]]) > 0.85
        assert 0 < np.count_nonzero(masked) <= mask_size(masked.size, 0.1)


@pytest.mark.filterwarnings("ignore:all 3 images have label 1:UserWarning")
@pytest.mark.parametrize(
    ("labels", "plain"), [([0, 0, 1, 1, 1, 1], 0), ([0, 0, 0, 0, 2, 2], 2), ([1, 1, 1], 1), ([0, 39, 39, 17, 17], 0)]
)
def test_the_rarest_class_present_is_plain(labels: list[int], plain: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [{"image": rng.integers(20, 230, (1, 8, 8), "uint8"), "label": label} for label in labels]
    problem = Problem(cases, Classification(num_classes=40))
    store = problem.run(tmp_path, SALM(num_steps=2, surrogate_steps=2))
    assert (store.meta["method"]["plain_class"], store.meta["method"]["target"], store.meta["rounds"]) == (
        plain,
        "next",
        1,
    )
    for case in cases:
        codes = store[content_digest(case["image"])].codes
        pattern = QUANTA * class_pattern(np.int64(case["label"]), (8, 8), 40, plain)
        assert codes.any()
        assert np.array_equal(codes[0], pattern) == (case["label"] != plain)
