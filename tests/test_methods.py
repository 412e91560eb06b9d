"""What every noise method promises, over a table of methods x {2D, 3D} x tasks x stored types."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_problems import (
    CPU,
    EPSILON,
    ONE_STEP,
    QUANTA,
    RECIPE,
    SHORT,
    STILL,
    MakeProblem,
    Problem,
    Recording,
    Spy,
    TinyNet,
    per_image,
    per_voxel,
)
from torch import nn

from monai_salm.learning.augmentation import at_half_size
from monai_salm.learning.networks import build_network, frozen_copy, seeded
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import TrainingError
from monai_salm.methods import (
    EM,
    LSP,
    METHODS,
    SALM,
    Adversarial,
    ClassTexture,
    ErrorMinimizing,
    Foreground,
    Method,
    Random,
    RandomNoise,
    Region,
    RoiEM,
    TopK,
    method_from_spec,
    recommended,
)
from monai_salm.methods.job import Job
from monai_salm.methods.mask_elements import class_margin, topk_mask
from monai_salm.methods.masks import mask_size
from monai_salm.methods.perturbations import Perturbation
from monai_salm.methods.textures import stored_periods, texture, waves_of
from monai_salm.methods.work_units import plan_units
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import PercentileWindow


def stepped(mask_ratio: float = 0.3, mask_scope: str = "sample", epsilon: float = EPSILON, **steps: Any) -> SALM:
    """SALM by error-minimising steps, its mask of single elements."""
    steps = {key: value for key, value in {**SHORT, **steps}.items() if key != "epsilon"}
    perturbation = ErrorMinimizing(**{"restart_every": 0, **steps})
    return SALM(epsilon=epsilon, mask_ratio=mask_ratio, mask_area=1, mask_scope=mask_scope, perturbation=perturbation)


TABLE: dict[str, Method] = {
    "salm": SALM(epsilon=EPSILON, mask_ratio=0.3, perturbation=ClassTexture(surrogate_steps=3)),
    "salm_adversarial": SALM(
        epsilon=EPSILON, mask_ratio=0.3, perturbation=Adversarial(num_steps=3, surrogate_steps=3, step_size=0.5)
    ),
    "salm_sample": stepped(),
    "salm_step": stepped(mask_scope="step"),
    "em_random": EM(mask=Random(ratio=0.3), **SHORT),
    "em_foreground": EM(mask=Foreground(ratio=0.2, scope="step"), **SHORT),
    "em_classwise": EM(perturb_type="classwise", **SHORT),
    "em": EM(**SHORT),
    "random_noise": RandomNoise(epsilon=EPSILON),
}


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
PER_IMAGE = ("em_classwise",)
FITTING = [(m, k, d) for m in TABLE for k, d in KINDS if m not in PER_IMAGE or k.startswith("classification")]


@pytest.mark.parametrize(("name", "kind", "dtype"), FITTING)
def test_budget_window_and_support(name: str, kind: str, dtype: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, method = make_problem(kind, dtype), TABLE[name]
    store = problem.run(tmp_path, method)
    low, high = problem.window.low, problem.window.high
    loop = method.loop()
    share = loop.mask.share if loop else 1.0
    assert store.settings.mask_share == share
    assert len(store) == len(problem.cases)
    for case in problem.cases:
        image, noise, budget = case["image"], store[content_digest(case["image"])], problem.budget(case)
        protected = noise.apply(image)
        assert noise.codes.any()
        assert np.abs(noise.codes).max() <= max(budget.grid.max_codes)
        assert (noise.quantum, noise.window) == (budget.grid.quantum, budget.window)
        difference = protected.astype(np.float64) - image.astype(np.float64)
        rounding = np.spacing(np.float32(high)) if dtype == "float32" else 0
        assert np.abs(difference).max() <= EPSILON * problem.window.width + rounding
        outside = (image < np.float32(low)) | (image > np.float32(high))
        assert outside.any()
        assert protected[outside].tobytes() == image[outside].tobytes()
        assert (protected[~outside] >= np.float32(low)).all()
        assert (protected[~outside] <= np.float32(high)).all()
        assert noise.remove(protected).tobytes() == image.tobytes()
        changed = protected.view(f"u{image.itemsize}") != image.view(f"u{image.itemsize}")
        assert 0 < np.count_nonzero(changed) <= mask_size(image.size, share)


@pytest.mark.parametrize("kind", ["classification2d", "segmentation3d"])
@pytest.mark.parametrize("name", TABLE)
def test_one_seed_gives_the_same_bytes_and_another_does_not(
    name: str, kind: str, make_problem: MakeProblem, tmp_path: Path
) -> None:
    if name in PER_IMAGE and kind.startswith("segmentation"):
        pytest.skip("needs one label per image")
    problem, method = make_problem(kind), TABLE[name]
    first = problem.codes(tmp_path, method, "first", recipe=STILL)
    torch.manual_seed(5)  # earlier random draws must not matter
    again = problem.codes(tmp_path, method, "again", recipe=STILL)
    other = problem.codes(tmp_path, method, "other", seed=1, recipe=STILL)
    assert [c.tobytes() for c in first] == [c.tobytes() for c in again]
    assert [c.tobytes() for c in first] != [c.tobytes() for c in other]


# ---------------------------------------------------------------------------------------------------------------------
# One noise step, recomputed by hand against the very surrogate that made it


def with_steps(method: Method, **steps: int) -> Method:
    """A method with other steps, wherever it has them."""
    if isinstance(method, SALM):
        return replace(method, perturbation=replace(method.perturbation, **steps))
    return replace(method, **steps)


def expected_step(problem: Problem, network: nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Codes after one step down the gradient from zero noise, on the elements that ``choose`` selects."""
    images = torch.from_numpy(np.stack([case["image"] for case in problem.cases]).astype(np.float32))
    inputs = problem.window.normalize(images).requires_grad_(True)
    problem.task.loss(frozen_copy(network)(inputs), problem.targets()).backward()
    assert inputs.grad is not None
    step = SHORT["step_size"] * EPSILON * problem.window.width / problem.budget(problem.cases[0]).grid.quantum
    carriers = torch.from_numpy(problem.carriers())
    moved = -step * inputs.grad.sign() * choose((inputs.grad.abs() + 1e-30) * carriers)
    bounds = [problem.budget(case).code_bounds(case["image"]) for case in problem.cases]
    lower, upper = (np.stack([pair[side] for pair in bounds]) for side in (0, 1))
    return np.clip(moved.numpy(), lower, upper).round()


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
    codes = problem.codes(tmp_path, stepped(0.3, scope, **ONE_STEP), surrogate=spy, recipe=one_batch)
    k = mask_size(codes[0].size, 0.3)
    expected = expected_step(problem, spy.networks[0], lambda score: topk_mask(score, k))
    np.testing.assert_array_equal(np.stack(codes), expected)
    assert all(0.5 * k < np.count_nonzero(one) <= k for one in codes)


def test_an_em_step_moves_every_element_downhill(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, spy = make_problem("classification2d"), Spy()
    one_batch = replace(RECIPE, batch_size=len(problem.cases))
    codes = problem.codes(tmp_path, EM(**ONE_STEP), surrogate=spy, recipe=one_batch)
    np.testing.assert_array_equal(np.stack(codes), expected_step(problem, spy.networks[0], torch.ones_like))


@pytest.mark.parametrize("kind", [TopK, Random, Foreground])
@pytest.mark.parametrize("scope", ["step", "sample"])
def test_a_step_changes_at_most_k_elements(scope: str, kind: Any, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification3d")
    codes = problem.codes(tmp_path, EM(mask=kind(ratio=0.1, scope=scope), **ONE_STEP))
    k = mask_size(codes[0].size, 0.1)
    assert all(0 < np.count_nonzero(one) <= k for one in codes)
    if kind is Foreground:
        for case, one in zip(problem.cases, codes, strict=True):
            seen = np.clip((case["image"].astype(float) - problem.window.low) / problem.window.width, 0, 1)
            assert (seen[one != 0] > seen.mean()).all()


def test_step_masks_wander_and_sample_masks_stay(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    wandering = problem.codes(tmp_path, stepped(0.1, "step", rounds=3, step_size=0.125), "step")
    staying = problem.codes(tmp_path, stepped(0.1, "sample", rounds=3, step_size=0.125), "sample")
    k = mask_size(wandering[0].size, 0.1)
    assert max(np.count_nonzero(one) for one in wandering) > k
    assert max(np.count_nonzero(one) for one in staying) <= k


def test_masks_of_other_kinds_are_other_masks(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    chosen = set()
    for kind in (TopK, Random, Foreground):
        codes = problem.codes(tmp_path, EM(mask=kind(ratio=0.2), **ONE_STEP), kind.__name__)
        chosen.add(np.stack([one != 0 for one in codes]).tobytes())
    assert len(chosen) == 3


def test_salm_by_steps_is_em_inside_its_mask(make_problem: MakeProblem, tmp_path: Path) -> None:
    """The mask is an object of its own: both methods share one loop."""
    problem = make_problem("classification2d")
    masked = EM(mask=TopK(ratio=0.3, area=1), stop_error=0.0, **SHORT)
    first, second = problem.codes(tmp_path, stepped(0.3), "salm"), problem.codes(tmp_path, masked, "em")
    assert [c.tobytes() for c in first] == [c.tobytes() for c in second]


# ---------------------------------------------------------------------------------------------------------------------
# SALM's texture


@pytest.mark.parametrize("kind", ["classification2d", "classification3d"])
def test_noise_is_the_texture_of_the_class_inside_the_mask(
    kind: str, make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem(kind)
    store = problem.run(tmp_path, TABLE["salm"])
    key, plain = bytes.fromhex(store.meta["key"]), store.meta["plain_class"]
    assert plain == 0
    (wave,) = waves_of(key, 1, int(kind[-2]))
    for case in problem.cases:
        image, budget = case["image"], problem.budget(case)
        codes = store[content_digest(image)].codes
        periods = stored_periods(ClassTexture(), image.shape[1:], budget.units, False)
        full = texture(wave, image.shape[1:], periods)[None] * max(budget.grid.max_codes)
        expected = budget.effective_codes(image, full)
        inside = codes != 0
        assert 0 < inside.sum() <= mask_size(image.size, 0.3)
        if case["label"] == plain:
            assert not np.array_equal(codes[inside], expected[inside]), "steps, no texture"
        else:
            np.testing.assert_array_equal(codes[inside], expected[inside])
            assert len(set(np.sign(codes[inside]).tolist())) == 2


def test_the_mask_is_where_the_surrogate_looks(make_problem: MakeProblem, tmp_path: Path) -> None:
    """A network that sees the left half of an image alone has no gradient on the right one."""

    class Blind(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x[..., : x.shape[-1] // 2])

    problem = make_problem("classification2d")
    method = SALM(epsilon=EPSILON, mask_ratio=0.3, mask_area=1, perturbation=ClassTexture(surrogate_steps=3))
    for one in problem.codes(tmp_path, method, surrogate=Blind):
        half = one.shape[-1] // 2
        assert one[..., :half].any()
        assert not one[..., half:].any()


def test_a_small_region_of_a_label_map_gets_its_noise(make_problem: MakeProblem, tmp_path: Path) -> None:
    """Noise is where the labels are; the network's gradient may be elsewhere."""
    problem = make_problem("segmentation2d")
    for case in problem.cases:
        case["label"] = np.zeros_like(case["label"])
        case["label"][0, 1, 1] = 1
    codes = problem.codes(tmp_path, SALM(epsilon=EPSILON, mask_ratio=0.1, perturbation=ClassTexture(surrogate_steps=2)))
    assert all(one.any() for one in codes)


@pytest.mark.parametrize("name", ["salm_step", "salm_sample", "em_classwise", "em"])
@pytest.mark.parametrize("kind", ["classification2d", "segmentation2d"])
def test_noise_lowers_the_surrogates_loss(name: str, kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    if name in PER_IMAGE and kind.startswith("segmentation"):
        pytest.skip("needs one label per image")
    problem, method = make_problem(kind), with_steps(TABLE[name], rounds=1, num_steps=6)
    spy = Spy(per_voxel if kind.startswith("segmentation") else per_image)
    codes = np.stack(problem.codes(tmp_path, method, surrogate=spy))
    images = np.stack([case["image"] for case in problem.cases])

    def loss(batch: np.ndarray) -> float:
        with torch.no_grad():
            logits = spy.networks[0].eval()(problem.window.normalize(torch.from_numpy(batch.astype(np.float32))))
        return float(problem.task.loss(logits, problem.targets()))

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


@pytest.mark.parametrize("name", ["salm", "salm_step", "salm_sample", "em_random", "em_classwise", "em"])
def test_thread_count_does_not_change_noise(name: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    recipe = replace(STILL, batch_size=3)
    with threads(1):
        alone = problem.codes(tmp_path, TABLE[name], "alone", recipe=recipe)
    with threads(3):
        together = problem.codes(tmp_path, TABLE[name], "together", recipe=recipe)
    assert [c.tobytes() for c in alone] == [c.tobytes() for c in together]


def test_units_are_independent_of_each_other(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, method = make_problem("classification2d"), EM(**SHORT)
    recipe = replace(STILL, batch_size=3)
    together = problem.codes(tmp_path, method, "together", recipe=recipe)
    with monkeypatch.context() as patch:
        patch.setattr("monai_salm.methods.loop.plan_units", lambda *given: list(reversed(plan_units(*given))))
        backwards = problem.codes(tmp_path, method, "backwards", recipe=recipe)
    assert [c.tobytes() for c in together] == [c.tobytes() for c in backwards]
    one_unit = Problem(problem.cases[:3], problem.task, problem.window).codes(tmp_path, method, "one", recipe=recipe)
    assert [c.tobytes() for c in together[:3]] == [c.tobytes() for c in one_unit]


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"em_classwise"}))
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
        assert 0 < np.abs(one).max() <= QUANTA


@pytest.mark.parametrize("name", ["salm", "salm_sample", "em", "random_noise"])
def test_images_of_any_scale_get_noise_in_proportion(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """The same anatomy from scanners of other scales: each image's noise is a share of its own range."""
    cases = []
    for index in range(6):
        scale = (1, 10, 100)[index % 3]
        image = rng.integers(0, 200, (1, 9, 8)) * scale + 50 * scale
        cases.append({"image": image.astype(np.int16), "label": index // 3})
    problem = Problem(cases, Classification(num_classes=2), PercentileWindow())
    for case, codes in zip(cases, problem.codes(tmp_path, TABLE[name]), strict=True):
        width = problem.budget(case).window.width
        assert np.ptp(case["image"]) * 0.9 < width <= np.ptp(case["image"])
        assert 0.7 * EPSILON * width < np.abs(codes.astype(int)).max() <= EPSILON * width


@pytest.mark.parametrize("name", ["salm", "salm_sample", "em", "random_noise"])
def test_padding_gets_no_noise(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    cases = []
    for index in range(4):
        image = np.full((1, 16, 16), np.nan if index % 2 else -2000, np.float32)
        image[:, 4:12, 3:13] = rng.normal(300, 100, (1, 8, 10))
        cases.append({"image": image, "label": index // 2})
    problem = Problem(cases, Classification(num_classes=2), PercentileWindow())
    for case, codes in zip(cases, problem.codes(tmp_path, TABLE[name]), strict=True):
        inside = np.zeros(codes.shape, bool)
        inside[:, 4:12, 3:13] = True
        assert codes[inside].any()
        assert not codes[~inside].any()
        assert np.count_nonzero(codes) <= mask_size(codes.size, 0.3) or name in ("em", "random_noise")
        assert problem.budget(case).window.width < 1000, "padding is no part of the window"


@pytest.mark.parametrize("name", ["salm", "salm_step", "salm_sample", "em_classwise", "em"])
@pytest.mark.parametrize("spatial", [(8, 8), (5, 6, 6)])
def test_several_channels(name: str, spatial: tuple[int, ...], tmp_path: Path, rng: np.random.Generator) -> None:
    cases = [{"image": rng.integers(0, 256, (3, *spatial)).astype("uint8"), "label": i % 2} for i in range(6)]
    codes = Problem(cases, Classification(num_classes=2)).codes(tmp_path, TABLE[name])
    assert all(one.shape == (3, *spatial) for one in codes)
    if name == "em":
        assert np.stack(codes).any(axis=(0, *range(2, 2 + len(spatial)))).all()
    if name in ("salm", "salm_sample"):  # k counts the elements of all channels together
        assert all(np.count_nonzero(one) <= mask_size(one.size, 0.3) for one in codes)


@pytest.mark.parametrize("kind", ["classification2d", "classification3d", "segmentation2d", "segmentation3d"])
def test_patches_reach_every_voxel_of_the_full_grid(kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(kind)
    shape = problem.cases[0]["image"].shape
    patch = (5, 5) if len(shape) == 3 else (4, 4, 5)
    # One code a step from an even budget: voxels in the overlap of two tiles are moved twice.
    codes = problem.codes(tmp_path, EM(**{**ONE_STEP, "step_size": 0.375}), patch_size=patch)
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


@pytest.mark.parametrize("name", ["salm", "salm_sample"])
@pytest.mark.parametrize("kind", ["classification2d", "segmentation3d"])
def test_patches_share_one_mask_per_sample(kind: str, name: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(kind)
    size = (4,) * (problem.cases[0]["image"].ndim - 1)
    codes = problem.codes(tmp_path, replace(TABLE[name], mask_ratio=0.2), patch_size=size)
    assert all(0 < np.count_nonzero(one) <= mask_size(one.size, 0.2) for one in codes)


def test_resized_images_get_noise_on_their_own_grid(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    codes = problem.codes(tmp_path, EM(**ONE_STEP), view_size=(12, 12))
    assert (np.stack(codes)[problem.roomy()] != 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Class-wise noise


def test_classwise_noise_is_one_per_class_up_to_clipping(make_classification: Any, tmp_path: Path) -> None:
    cases = make_classification((9, 8), 9, 3)
    cases[0]["image"][:, 2:6, 2:6] = 255  # has no room above
    cases[3]["image"][:, 2:6, 2:6] = 0  # has none below
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
    method = EM(**{**ONE_STEP, "step_size": 0.125}, perturb_type="classwise", stop_error=0.0)
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
    with pytest.raises(ValueError, match="needs images of one shape, type and window, without patches; use"):
        problem.run(tmp_path, EM(perturb_type="classwise", **SHORT))


# ---------------------------------------------------------------------------------------------------------------------
# Surrogates


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
    method = EM(**{**SHORT, "rounds": 4, "surrogate_steps": 1}, restart_every=every, stop_error=0.0)
    make_problem("classification2d").run(tmp_path, method, surrogate=spy, recipe=STILL)
    weights = [network.first.weight.detach().numpy().tobytes() for network in spy.networks]
    order = list(dict.fromkeys(weights))
    assert [order.index(one) for one in weights] == groups


def test_without_restart_training_goes_on(make_problem: MakeProblem, tmp_path: Path) -> None:
    spy = Spy()
    method = EM(**{**SHORT, "rounds": 3, "surrogate_steps": 1, "step_size": 1.0}, restart_every=0, stop_error=0.0)
    make_problem("classification2d").run(tmp_path, method, surrogate=spy)
    seen = [network.first.weight.detach() for network in spy.networks]
    # Adam moves every weight by about the learning rate a step, on from where it was.
    assert (seen[1] - seen[0]).abs().max() < 2 * RECIPE.lr
    assert (seen[2] - seen[1]).abs().max() < 2 * RECIPE.lr
    # Only its very first step is just the learning rate, for every gradient: the optimiser goes on, too.
    assert (seen[2] - seen[1]).abs().min() < 0.9 * RECIPE.lr


@pytest.mark.parametrize(
    ("every", "names"), [(1, ["vgg11", "resnet10", "vgg11"]), (2, ["resnet10", "resnet10", "vgg11"])]
)
def test_a_pool_of_surrogates_takes_turns_at_restarts(
    every: int, names: list[str], make_classification: Any, tmp_path: Path
) -> None:
    problem = Problem(make_classification((16, 16), 6), Classification(num_classes=2))
    rounds = 4 if every == 1 else 3
    method = stepped(rounds=rounds, num_steps=1, step_size=0.5, surrogate_steps=1, restart_every=every)
    store = problem.run(tmp_path, method, surrogate=("resnet10", "vgg11"), width=0.05)
    assert store.meta["surrogate"] == ["resnet10", "vgg11"]
    kept = store.networks()
    assert [spec["name"] for spec, _ in kept] == names
    for spec, weights in kept:
        build_network(**spec).load_state_dict(weights)


def test_stop_error_ends_the_rounds(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    for name, stop_error, rounds in (("at once", 0.99, 1), ("never", 0.0, 4)):
        method = EM(**{**SHORT, "rounds": 4}, stop_error=stop_error)
        meta = problem.run(tmp_path, method, name).meta
        assert meta["rounds"] == rounds
        assert len(meta["errors"]) == rounds
        assert all(0 <= error <= 1 for error in meta["errors"])
    problem.cases = [{**case, "label": i // 4} for i, case in enumerate(problem.cases)]  # hard to learn
    method = EM(**{**SHORT, "rounds": 2, "num_steps": 1, "step_size": 0.125}, stop_error=0.001)
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


@pytest.mark.parametrize("name", ["salm", "salm_step", "salm_sample", "em_classwise"])
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

    def maker(self, job: Job) -> Callable[[int], Any]:
        return lambda case: 100 if case % 2 else -100


def test_the_budget_is_enforced_whatever_a_method_leaves(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("classification2d")
    codes = problem.codes(tmp_path, Wild(epsilon=EPSILON))
    assert problem.budget(problem.cases[0]).grid.max_codes == (7,)  # of 230 grey levels
    for number, (case, one) in enumerate(zip(problem.cases, codes, strict=True)):
        image = case["image"].astype(int)
        inside = (image >= 10) & (image <= 240)
        assert not one[~inside].any()
        np.testing.assert_array_equal(one[inside], np.clip(7 if number % 2 else -7, 10 - image, 240 - image)[inside])


def test_methods_are_known_by_name() -> None:
    names = {"salm", "em", "rem", "sem", "tap", "lsp", "ar", "interslice_em", "roi_em", "random_noise"}
    assert {name: METHODS[name].name for name in METHODS} == {name: name for name in names}


@pytest.mark.parametrize(
    "method",
    [*TABLE.values(), SALM(), SALM.published(), RoiEM(mask=Region(margin=1, part="contour"))],
    ids=lambda m: m.label,
)
def test_settings_come_back_from_their_plain_values_complete(method: Method) -> None:
    spec = json.loads(json.dumps(method.spec()))
    assert method_from_spec(spec) == method
    assert "null" not in json.dumps(spec), "no setting waits for the task to be known"
    for name in set(spec) - {"name"}:
        with pytest.raises((KeyError, TypeError)):
            method_from_spec({key: value for key, value in spec.items() if key != name})
    with pytest.raises((KeyError, TypeError)):
        method_from_spec({**spec, "power": 9})


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    "task",
    [Classification(num_classes=2), Classification(num_classes=3, multi_label=True), Segmentation(num_classes=2)],
)
def test_what_is_recommended_keeps_to_one_mask_an_image(task: Task, rank: int) -> None:
    method = recommended(task, rank, epsilon=4 / 255)
    method.require_fit(task, rank)
    assert method.epsilon == 4 / 255
    loop = method.loop()
    assert loop is not None
    assert 0 < loop.mask.share == method.mask_ratio < 1
    assert method_from_spec(method.spec()) == method


def test_small_images_get_a_shorter_period_and_a_larger_mask() -> None:
    small, large = (recommended(Classification(num_classes=2), 2, (64, side)) for side in (28, 64))
    assert small.perturbation == ClassTexture(period=2.0)
    assert (small.mask_ratio, large) == (0.5, SALM())


def test_label_maps_get_noise_that_a_surrogate_takes_for_another_class() -> None:
    assert isinstance(recommended(Segmentation(num_classes=3), 3, (40, 40, 30)).perturbation, ClassTexture)
    method = recommended(Segmentation(num_classes=3), 2, (40, 40))
    assert method.perturbation == Adversarial()
    loop, targets = method.loop(), torch.tensor([0, 1, 2])
    assert loop is not None
    assert not loop.trains_on_noise
    assert loop.noise_targets(Segmentation(num_classes=3), targets).tolist() == [1, 2, 0]


def test_the_mask_of_adversarial_noise_counts_classes_alike() -> None:
    """A large class pulls as strongly as a small one, and a surrogate that is sure still has a slope."""
    logits = torch.full((1, 2, 10, 10), 30.0)
    logits[:, 1] = -30.0
    targets = torch.zeros(1, 10, 10, dtype=torch.long)
    targets[0, 0, 0] = 1
    (slope,) = torch.autograd.grad(class_margin(logits.requires_grad_(True), targets), logits)
    large, small = slope.abs()[:, :, targets[0] == 0].sum(), slope.abs()[:, :, targets[0] == 1].sum()
    assert torch.allclose(large, small)
    assert float(large) == pytest.approx(1.0)
    yes = torch.tensor([[1.0, 0.0]])
    assert float(class_margin(torch.tensor([[3.0, -1.0]]), yes)) == 2.0


@pytest.mark.parametrize("shape", [(8, 6), (7, 9), (6, 7, 5), (1, 9)])
def test_half_the_size_keeps_shape_and_meets_its_labels(shape: tuple[int, ...]) -> None:
    labels = torch.randint(3, (2, *shape))
    images = labels[:, None].float()
    halved, own = at_half_size(images, labels, torch.Generator().manual_seed(0), 1.0)
    assert halved.shape == images.shape
    assert own.shape == labels.shape
    if min(shape) == 1:
        assert torch.equal(halved, images)
        return
    corner = tuple(slice(0, side // 2) for side in shape)
    every = tuple(slice(0, side - side % 2, 2) for side in shape)
    whole = slice(None)
    assert torch.equal(own[(whole, *corner)], labels[(whole, *every)])
    blocks = images[(whole, whole, *(slice(0, side - side % 2) for side in shape))]
    assert float(halved[(whole, whole, *corner)].sum() * 2 ** len(shape)) == pytest.approx(float(blocks.sum()))
    mirrored = halved[(whole, whole, *(slice(0, side - side % 2) for side in shape))]
    assert torch.equal(mirrored, mirrored.flip(tuple(range(2, images.ndim))))
    same, _ = at_half_size(images, labels, torch.Generator(), 0.0)
    assert torch.equal(same, images)


def test_the_published_algorithm_chooses_its_mask_at_each_step() -> None:
    published = SALM.published(mask_ratio=0.2)
    assert (published.mask_scope, published.mask_area, published.mask_ratio) == ("step", 1, 0.2)
    assert isinstance(published.perturbation, ErrorMinimizing)
    loop = published.loop()
    assert loop is not None
    assert loop.mask.share == 1.0, "the share holds for a step, not for an image"


def test_the_name_says_what_is_put_inside_the_mask() -> None:
    assert "class_texture" in SALM().label
    assert "error_minimizing" in SALM.published().label
    assert EM().label == "em"


@pytest.mark.parametrize("perturbation", [ClassTexture(), Adversarial()])
def test_only_the_noise_of_the_paper_has_a_mask_for_each_step(perturbation: Perturbation) -> None:
    with pytest.raises(ValueError, match='"step" is for ErrorMinimizing; others need one mask'):
        SALM(mask_scope="step", perturbation=perturbation)
    with pytest.raises(ValueError, match=r"perturbation must be ClassTexture\(\), Adversarial\(\) or"):
        SALM(perturbation=EM())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        (RoiEM(), Classification(num_classes=2), "needs labels per voxel.*use em"),
        (EM(mask=Region()), Classification(num_classes=2), "needs labels per voxel.*use em"),
        (LSP(), Segmentation(num_classes=2), "needs one label per image; use em"),
    ],
)
def test_a_learning_problem_that_does_not_fit_is_refused(method: Method, task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method.require_fit(task, 2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (RandomNoise, {"epsilon": 0.0}, r"epsilon must be in \(0, 1\], got 0.0"),
        (EM, {"epsilon": 8}, r"epsilon must be in \(0, 1\], got 8"),
        (EM, {"epsilon": float("nan")}, r"epsilon must be in \(0, 1\], got nan"),
        (EM, {"step_size": 0.0}, r"step_size must be in \(0, 1\], a share of epsilon, got 0.0"),
        (EM, {"step_size": 2.0}, r"step_size must be in \(0, 1\], a share of epsilon, got 2.0"),
        (EM, {"step_size": float("nan")}, r"step_size must be in \(0, 1\], a share of epsilon, got nan"),
        (EM, {"num_steps": 0}, "num_steps must be at least 1, got 0"),
        (EM, {"surrogate_steps": 0}, "surrogate_steps must be at least 1, got 0"),
        (EM, {"rounds": 0}, "rounds must be at least 1, got 0"),
        (EM, {"calibration_steps": -1}, "calibration_steps must be at least 0, got -1"),
        (EM, {"restart_every": -1}, "restart_every must be at least 0, got -1"),
        (EM, {"stop_error": 1.0}, r"stop_error must be in \[0, 1\), got 1.0"),
        (EM, {"perturb_type": "pixelwise"}, "perturb_type must be one of .*, got pixelwise"),
        (EM, {"mask": TopK(), "perturb_type": "classwise"}, "one for each image and .* one noise for each class"),
        (SALM, {"mask_ratio": 2}, r"mask_ratio must be in \(0, 1\], got 2"),
        (SALM, {"mask_ratio": 0.0}, r"mask_ratio must be in \(0, 1\], got 0.0"),
        (SALM, {"mask_ratio": float("nan")}, r"mask_ratio must be in \(0, 1\], got nan"),
        (SALM, {"mask_scope": "pixel"}, "mask scope must be one of .*, got pixel"),
        (SALM, {"mask_area": 4}, "mask area must be odd and at least 1, got 4"),
        (SALM, {"perturbation": ErrorMinimizing(num_steps=0)}, "num_steps must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_rule_then_value(kind: type[Method], settings: dict[str, Any], message: str) -> None:
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
