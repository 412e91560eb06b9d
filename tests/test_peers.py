"""The peers of SALM: each keeps the common promises, and does what its paper's formula says, recomputed by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_problems import (
    CPU,
    EPSILON,
    RECIPE,
    SHORT,
    STILL,
    MakeProblem,
    Problem,
    Recording,
    Spy,
    per_image,
    per_voxel,
)

from monai_salm.generate.new_images import generate_noise
from monai_salm.generate.precompute import precompute
from monai_salm.learning import trainer as training
from monai_salm.learning.networks import frozen_copy
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.methods import (
    AR,
    EM,
    LSP,
    METHODS,
    REM,
    SEM,
    TAP,
    InterSliceEM,
    Method,
    RandomNoise,
    Region,
    RoiEM,
    method_from_spec,
)
from monai_salm.methods.adversarial import adversarial
from monai_salm.methods.autoregressive import class_weights, process, residual
from monai_salm.methods.mask_elements import dilated
from monai_salm.methods.separable_patches import upsampled, vertices
from monai_salm.methods.shortcut_noise import scaled
from monai_salm.methods.slice_spectra import slice_distance
from monai_salm.noise.digest import content_digest

QUICK = {**SHORT, "num_steps": 2, "surrogate_steps": 2}
ROBUST = {**QUICK, "attack_steps": 2, "draws": 2, "max_shift": 1}
ONE_STEP = {"epsilon": EPSILON, "step_size": 0.25, "num_steps": 1, "surrogate_steps": 1, "rounds": 1}
PEERS: dict[str, Method] = {
    "rem": REM(**ROBUST),
    "sem": SEM(**ROBUST),
    "tap": TAP(**QUICK),
    "lsp": LSP(epsilon=EPSILON),
    "ar": AR(epsilon=EPSILON),
    "interslice_em": InterSliceEM(**QUICK),
    "roi_em": RoiEM(mask=Region(margin=1), **QUICK),
}
KINDS = [
    ("classification2d", "uint8"),
    ("classification3d", "int16"),
    ("multilabel2d", "uint8"),
    ("segmentation2d", "uint16"),
    ("segmentation3d", "float32"),
]
LABELS = {"classification": Classification(num_classes=2), "segmentation": Segmentation(num_classes=2)}
LABELS["multilabel"] = Classification(num_classes=3, multi_label=True)


def fits(name: str, kind: str) -> bool:
    if name in ("lsp", "ar"):
        return kind.startswith("classification")
    if name == "roi_em":
        return kind.startswith("segmentation")
    return name != "interslice_em" or kind == "segmentation3d"


def test_every_peer_is_in_the_table() -> None:
    assert {type(method) for method in PEERS.values()} == set(METHODS.values()) - {METHODS["salm"], EM, RandomNoise}


@pytest.mark.parametrize(("name", "kind", "dtype"), [(n, k, d) for n in PEERS for k, d in KINDS if fits(n, k)])
def test_promises(name: str, kind: str, dtype: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    """Budget, window, exact undoing, and one seed gives the same bytes, another does not."""
    problem = make_problem(kind, dtype)
    low, high, width = problem.window.low, problem.window.high, problem.window.width
    store = problem.run(tmp_path, PEERS[name], "first")
    rounding = np.spacing(np.float32(high)) if dtype == "float32" else 0
    for case in problem.cases:
        image, noise = case["image"], store[content_digest(case["image"])]
        protected = noise.apply(image)
        assert noise.codes.any()
        assert np.abs(protected.astype(float) - image.astype(float)).max() <= EPSILON * width + rounding
        outside = (image < np.float32(low)) | (image > np.float32(high))
        assert outside.any()
        assert protected[outside].tobytes() == image[outside].tobytes()
        assert ((protected >= np.float32(low)) & (protected <= np.float32(high)))[~outside].all()
        assert noise.remove(protected).tobytes() == image.tobytes()
    first = [store[content_digest(case["image"])].codes.tobytes() for case in problem.cases]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = problem.codes(tmp_path, PEERS[name], "again")
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    other = problem.codes(tmp_path, PEERS[name], "other", seed=1)
    assert first == [c.tobytes() for c in again]
    assert first != [c.tobytes() for c in other]


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in PEERS for k, _ in KINDS if not fits(n, k)])
def test_what_does_not_fit_is_refused_before_any_work(name: str, kind: str) -> None:
    rank = 2 if kind.endswith("2d") else 3
    expected = {
        "lsp": "lsp needs one label per image; use em",
        "ar": "ar needs one label per image; use em",
        "roi_em": r"roi_em needs labels per voxel \(segmentation\), this is classification; use em",
        "interslice_em": "interslice_em (needs labels per voxel|shapes noise across the slices of volumes)",
    }
    with pytest.raises(ValueError, match=expected[name]):
        PEERS[name].require_fit(LABELS[kind[:-2]], rank)


@pytest.mark.parametrize(
    ("method", "step", "values"),
    [
        (EM(), 0.8, {"num_steps": 20, "surrogate_steps": 10, "restart_every": 0, "stop_error": 0.01, "rounds": 50}),
        (REM(), 1.6, {"num_steps": 10, "attack_radius": 0.5, "attack_steps": 10, "draws": 5, "max_shift": 4}),
        (SEM(), 1.6, {"num_steps": 10, "attack_radius": 0.5, "attack_steps": 10, "draws": 5, "stop_error": 0.0}),
        (TAP(), 0.4, {"num_steps": 250, "surrogate_steps": 1200, "rounds": 1, "stop_error": 0.0}),
    ],
)
def test_defaults_are_those_published(method: Any, step: float, values: dict[str, Any]) -> None:
    assert method.step_size * 8 == pytest.approx(step), "as a share of epsilon, published at 8/255"
    assert {name: getattr(method, name) for name in values} == values
    assert method_from_spec(method.spec()) == method


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (REM, {"attack_radius": 0.0}, r"attack_radius must be in \(0, 1\], a share of epsilon, got 0.0"),
        (REM, {"attack_steps": 0}, "attack_steps must be at least 1, got 0"),
        (SEM, {"draws": 0}, "draws must be at least 1, got 0"),
        (TAP, {"max_shift": -1}, "max_shift must be at least 0, got -1"),
        (TAP, {"surrogate_steps": 0}, "surrogate_steps must be at least 1, got 0"),
        (LSP, {"rms": 0.0}, r"rms must be in \(0, 1\], got 0.0"),
        (LSP, {"patches": 0}, "patches must be at least 1, got 0"),
        (AR, {"window_size": 1}, "window_size must be in 2 to 4, got 1"),
        (InterSliceEM, {"slice_axis": 3}, "slice_axis must be 0, 1 or 2, got 3"),
        (InterSliceEM, {"slice_weight": -1.0}, "slice_weight must be at least 0, got -1.0"),
        (RoiEM, {"perturb_type": "classwise"}, "a mask is one for each image"),
    ],
)
def test_wrong_settings_are_refused(kind: type[Method], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


# ---------------------------------------------------------------------------------------------------------------------
# REM, SEM, TAP: one step from zero noise, recomputed by hand with the same draws


def drawn(inputs: torch.Tensor, labels: torch.Tensor, shift: int, generator: torch.Generator) -> Any:
    """Each case flipped and shifted by draws of its own, labels per voxel as well."""
    rank = inputs.ndim - 2
    flips = torch.rand((len(inputs), 1 if rank == 2 else rank), generator=generator) < 0.5
    shifts = torch.randint(2 * shift + 1, (len(inputs), rank), generator=generator)
    moved, moved_labels = [], []
    for case, label, flip, offset in zip(inputs, labels, flips, shifts, strict=True):
        axes = [rank - flips.shape[1] + a for a in range(flips.shape[1]) if flip[a]]
        window = tuple(slice(int(o), int(o) + n) for o, n in zip(offset, case.shape[1:], strict=True))
        moved.append(F.pad(case.flip([a + 1 for a in axes]), [shift] * (2 * rank))[(slice(None), *window)])
        per_voxel_label = label.ndim == rank
        moved_labels.append(F.pad(label.flip(axes), [shift] * (2 * rank))[window] if per_voxel_label else label)
    return torch.stack(moved), torch.stack(moved_labels)


def perturbation(name: str, network: Any, task: Task, inputs: torch.Tensor, labels: Any, generator: Any) -> Any:
    """What the method adds on top of the transformed images."""
    if name == "tap":
        return torch.zeros_like(inputs)
    radius, clean = EPSILON / 2, inputs.detach()
    moved = (clean + (torch.rand(clean.shape, generator=generator) * 2 - 1) * radius).clamp(0, 1)
    for _ in range(0 if name == "sem" else 2):
        moved.requires_grad_(True)
        task.loss(network(moved), labels).backward()
        assert moved.grad is not None
        stepped = moved.detach() + radius / 5 * moved.grad.sign()
        moved = torch.minimum(torch.maximum(stepped, clean - radius), clean + radius).clamp(0, 1)
    return moved - clean


def job_generator(*purpose: int) -> torch.Generator:
    seed = int(np.random.SeedSequence([0, *purpose]).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator().manual_seed(int(seed))


@pytest.mark.parametrize("kind", ["classification2d", "classification3d", "segmentation2d", "multilabel2d"])
@pytest.mark.parametrize("name", ["rem", "sem", "tap"])
def test_a_step_is_that_of_the_formula(name: str, kind: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem(kind)
    spy = Spy(per_voxel if kind.startswith("segmentation") else per_image)
    robust = {"attack_steps": 2, "draws": 2} if name != "tap" else {}
    method = type(PEERS[name])(**ONE_STEP, max_shift=1, **robust)
    recipe = replace(STILL, batch_size=len(problem.cases))
    codes = np.stack(problem.codes(tmp_path, method, surrogate=spy, recipe=recipe))

    images = torch.from_numpy(np.stack([case["image"] for case in problem.cases]).astype(np.float32))
    labels = problem.targets()
    if name == "tap":
        multi = kind.startswith("multilabel")
        labels = 1 - labels if multi else (labels + 1) % problem.task.num_classes
    network, generator = frozen_copy(spy.networks[0]), job_generator(2, 0, 0)
    total = torch.zeros_like(images)
    for _ in range(method.noise_draws):
        noisy = images.clone().requires_grad_(True)
        inputs, targets = drawn(problem.window.normalize(noisy), labels, 1, generator)
        added = perturbation(name, network, problem.task, inputs, targets, generator)
        problem.task.loss(network(inputs + added), targets).backward()
        assert noisy.grad is not None
        total += noisy.grad / method.noise_draws
    step = 0.25 * EPSILON * problem.window.width
    moved = (-step * total.sign()).numpy()
    budgets = [(problem.budget(case), case["image"]) for case in problem.cases]
    clipped = [np.clip(one, *budget.code_bounds(image)) for one, (budget, image) in zip(moved, budgets, strict=True)]
    expected = np.stack(clipped).round()
    clear = (total.abs() > 1e-9).numpy() | (total == 0).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(codes[clear], expected[clear])


def test_an_attack_on_a_linear_loss_reaches_the_corner() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, inputs = torch.randn(4, 1, 5, 6, generator=generator), torch.rand(4, 1, 5, 6, generator=generator)

    def loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (images * weights).sum()

    found = adversarial(loss, inputs, torch.zeros(4), 0.1, 10, generator)
    torch.testing.assert_close(found, (inputs + 0.1 * weights.sign()).clamp(0, 1) - inputs)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["rem", "sem", "tap"])
def test_what_surrogates_train_on(name: str, make_problem: MakeProblem, tmp_path: Path) -> None:
    """Flipped images, in REM and SEM the noisy ones with an attack on top, in TAP the clean ones."""
    problem, spy = make_problem("classification2d"), Spy(Recording)
    method = replace(PEERS[name], rounds=2, surrogate_steps=1, max_shift=0)  # type: ignore[call-arg]
    problem.run(tmp_path, method, surrogate=spy, recipe=replace(STILL, batch_size=8))
    images = np.stack([case["image"] for case in problem.cases]).astype(np.float32)
    clean = problem.window.normalize(torch.from_numpy(images))
    either = torch.cat([clean, clean.flip(-1)])
    for number, network in enumerate(spy.networks[:2]):
        (batch,) = network.batches  # type: ignore[union-attr]
        distance = (batch[:, None] - either[None]).abs().flatten(2).amax(2).amin(1)
        if name == "tap":
            assert distance.max() == 0
        else:
            assert (distance > 0.9 * EPSILON / 2).all()
            assert (distance <= EPSILON / 2 + number * EPSILON + 1e-6).all()


def test_tap_lowers_the_loss_of_the_next_class(make_classification: Any, tmp_path: Path) -> None:
    problem = Problem(make_classification((16, 16), 12, 3), Classification(num_classes=3))
    spy = Spy()
    codes = np.stack(problem.codes(tmp_path, TAP(epsilon=EPSILON, num_steps=30, surrogate_steps=60), surrogate=spy))
    images = np.stack([case["image"] for case in problem.cases])
    labels = torch.tensor([case["label"] for case in problem.cases])

    def loss(batch: np.ndarray, target: torch.Tensor) -> float:
        with torch.no_grad():
            logits = spy.networks[0].eval()(problem.window.normalize(torch.from_numpy(batch.astype(np.float32))))
        return float(F.cross_entropy(logits, target))

    following = (labels + 1) % 3
    assert loss(images + codes, following) < 0.8 * loss(images, following)
    assert loss(images + codes, labels) > loss(images, labels)


def test_taps_surrogate_trains_with_a_falling_learning_rate(
    make_problem: MakeProblem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths, make = [], training.make_schedule
    monkeypatch.setattr(training, "make_schedule", lambda *a: lengths.append(a[2]) or make(*a))
    problem, spy = make_problem("classification2d"), Spy(Recording)
    method = TAP(epsilon=EPSILON, num_steps=1, step_size=0.25, surrogate_steps=30)
    problem.run(tmp_path, method, surrogate=spy)
    assert len(spy.networks[0].batches) == 30  # type: ignore[arg-type]
    assert lengths == [30]


# ---------------------------------------------------------------------------------------------------------------------
# LSP and AR


def grey_cases(spatial: tuple[int, ...], channels: int, count: int, classes: int, seed: int) -> list[dict[str, Any]]:
    """Images in mid-range that say nothing of their class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 160, (count, channels, *spatial)).astype(np.uint8)
    return [{"image": image, "label": index % classes} for index, image in enumerate(images)]


@pytest.mark.parametrize(("spatial", "channels"), [((28, 28), 1), ((16, 12), 3), ((12, 12, 12), 1), ((8, 9, 10), 2)])
def test_lsp_is_linearly_separable_also_on_images_that_come_later(
    spatial: tuple[int, ...], channels: int, tmp_path: Path
) -> None:
    task, classes = Classification(num_classes=5), 5
    problem = Problem(grey_cases(spatial, channels, 120, classes, 0), task)
    codes = np.stack(problem.codes(tmp_path, LSP(epsilon=EPSILON)))
    later = grey_cases(spatial, channels, 10, classes, 1)
    store = problem.run(tmp_path, LSP(epsilon=EPSILON))
    new = np.stack([generate_noise(store, case["image"], case["label"], "new").codes for case in later])

    def features(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch.reshape(len(batch), -1), np.ones((len(batch), 1))], 1).astype(float)

    labels = np.arange(120) % classes
    probe = np.linalg.lstsq(features(codes), np.eye(classes)[labels], rcond=1e-6)[0]
    assert ((features(codes) @ probe).argmax(1) == labels).all()
    assert ((features(new) @ probe).argmax(1) == np.arange(10) % classes).all()
    assert np.sqrt(np.mean(codes.astype(float) ** 2)) == pytest.approx(0.75 * 8, rel=0.05)
    one = codes[0]
    corners = [tuple(int(np.ceil(i * n / 4)) for i in range(4)) for n in spatial]
    for corner in itertools.product(*[range(4)] * len(spatial)):
        spans = [(c[i], c[i + 1] if i < 3 else n) for c, i, n in zip(corners, corner, spatial, strict=True)]
        patch = one[(slice(None), *[slice(a, b) for a, b in spans])]
        assert (patch == patch.reshape(channels, -1)[:, :1].reshape(channels, *[1] * len(spatial))).all()


def test_lsp_patches_follow_the_images_size() -> None:
    lattice = np.arange(16.0).reshape(1, 4, 4)
    large = upsampled(lattice, (1, 32, 64))
    assert np.array_equal(large[:, 4::8, 8::16], lattice)
    assert np.array_equal(upsampled(lattice, (1, 32, 64)), np.kron(lattice[0], np.ones((8, 16)))[None])
    assert upsampled(lattice, (1, 30, 7)).shape == (1, 30, 7)


@pytest.mark.parametrize(("count", "dimensions"), [(8, 3), (8, 16), (100, 48)])
def test_vertices_are_far_apart(count: int, dimensions: int) -> None:
    found = vertices(count, dimensions, np.random.default_rng(0))
    distances = (found[:, None] != found[None]).sum(-1)[np.triu_indices(count, 1)]
    assert set(np.unique(found)) == {-1, 1}
    assert distances.min() >= {3: 1, 16: 7, 48: 16}[dimensions]


def test_too_few_patches_for_the_classes_are_refused(tmp_path: Path) -> None:
    problem = Problem(grey_cases((8, 8), 1, 4, 4, 0), Classification(num_classes=4))
    with pytest.raises(ValueError, match=r"patches 1 give 1 feature\(s\), too few for 4 classes"):
        problem.run(tmp_path, LSP(epsilon=EPSILON, patches=1))


def by_hand(weights: np.ndarray, spatial: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """The recurrence, element by element."""
    window, values = weights.shape[1], rng.standard_normal((len(weights), *(n + 4 for n in spatial)))
    for channel in range(len(weights)):
        for place in itertools.product(*[range(window - 1, n) for n in values.shape[1:]]):
            total = 0.0
            for offset in itertools.product(range(window), repeat=len(spatial)):
                before = tuple(p - (window - 1) + o for p, o in zip(place, offset, strict=True))
                total += weights[(channel, *offset)] * values[(channel, *before)] if before != place else 0.0
            values[(channel, *place)] = total
    return values[(slice(None), *[slice(4, None)] * len(spatial))]


@pytest.mark.parametrize(("spatial", "window"), [((5, 6), 3), ((5, 6), 2), ((3, 4, 3), 3), ((4, 3, 3), 2)])
def test_ar_noise_is_the_recurrence_of_its_class(spatial: tuple[int, ...], window: int) -> None:
    weights = class_weights(3, 2, len(spatial), window, 0)
    assert all(np.allclose(one.reshape(2, -1).sum(1), 1) for one in weights)
    found = process(weights[0], spatial, np.random.default_rng(1))
    np.testing.assert_allclose(found, by_hand(weights[0], spatial, np.random.default_rng(1)), atol=1e-12)
    large = process(weights[0], (12,) * len(spatial), np.random.default_rng(2))
    size = np.sqrt(np.mean(large**2))
    assert np.abs(residual(large, weights[0])).max() < 1e-12
    for other in weights[1:]:
        assert np.abs(residual(large, other)).mean() > 0.1 * size
    assert not np.array_equal(large, process(weights[0], (12,) * len(spatial), np.random.default_rng(3)))


@pytest.mark.parametrize("spatial", [(28, 28), (12, 12, 12)])
def test_the_filter_of_the_class_is_quietest_on_stored_ar_noise(spatial: tuple[int, ...], tmp_path: Path) -> None:
    problem = Problem(grey_cases(spatial, 1, 16, 4, 0), Classification(num_classes=4))
    codes = problem.codes(tmp_path, AR(epsilon=32 / 255))
    weights = class_weights(4, 1, len(spatial), 3, 0)
    answers = [int(np.argmin([np.median(np.abs(residual(one, w))) for w in weights])) for one in codes]
    assert answers == [case["label"] for case in problem.cases]
    assert 0.4 * 32 < np.sqrt(np.mean(np.stack(codes).astype(float) ** 2)) <= 0.58 * 32


def test_scaling_and_clipping() -> None:
    noise = np.array([1.0, -1.0, 7.0, 1.0])
    np.testing.assert_allclose(scaled(noise, 0.5, 8), np.clip(noise * 4 / np.sqrt(13), -8, 8))
    assert scaled(noise, 1.0, 8)[2] == 8


# ---------------------------------------------------------------------------------------------------------------------
# Segmentation


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_distance_is_that_of_the_spectra(axis: int) -> None:
    noise = np.random.default_rng(0).normal(size=(2, 1, 4, 5, 6))
    slices = np.moveaxis(noise, 2 + axis, 2)
    amplitude = np.abs(np.fft.rfft2(slices, norm="ortho"))
    expected = np.abs(np.diff(amplitude, axis=2)).mean()
    assert float(slice_distance(torch.from_numpy(noise), axis)) == pytest.approx(expected, rel=1e-5)
    repeated = torch.from_numpy(np.broadcast_to(noise.take([0], 2 + axis), noise.shape).copy())
    assert float(slice_distance(repeated, axis)) == pytest.approx(0, abs=1e-9)
    zero = torch.zeros(1, 1, 3, 4, 4, requires_grad=True)
    slice_distance(zero, axis).backward()
    assert zero.grad is not None
    assert not zero.grad.any(), "noise begins at zero, where the surrogate's gradient decides alone"
    assert float(slice_distance(torch.ones(1, 1, 1, 1, 1), axis)) == 0


def test_the_inter_slice_term_makes_slices_differ(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem, settings = make_problem("segmentation3d"), {**QUICK, "num_steps": 6, "step_size": 0.125, "rounds": 1}
    found = {}
    for weight in (0.0, 1.0, 100.0):
        method = InterSliceEM(slice_weight=weight, **settings)
        codes = np.stack(problem.codes(tmp_path, method, f"{weight}")).astype(np.float32)
        found[weight] = float(slice_distance(torch.from_numpy(codes), 2))
    assert found[0.0] < found[1.0] < found[100.0]
    plain = problem.codes(tmp_path, EM(**settings), "em")
    none = problem.codes(tmp_path, InterSliceEM(slice_weight=0.0, **settings), "0.0")
    assert [a.tobytes() for a in plain] == [b.tobytes() for b in none]


def region_by_pooling(label: np.ndarray, margin: int, part: str) -> np.ndarray:
    pool = F.max_pool2d if label.ndim == 2 else F.max_pool3d

    def grown(mask: np.ndarray) -> np.ndarray:
        return pool(torch.from_numpy(mask).float()[None, None], 2 * margin + 1, 1, margin)[0, 0].numpy() > 0

    inside = label > 0
    if part == "texture":
        return inside
    return grown(inside) & grown(~inside) if part == "contour" else grown(inside)


@pytest.mark.parametrize("part", ["both", "contour", "texture"])
@pytest.mark.parametrize("shape", [(13, 11), (9, 8, 10)])
def test_the_region_is_the_foreground_with_its_margin(shape: tuple[int, ...], part: str) -> None:
    label = (np.random.default_rng(0).random(shape) > 0.98).astype(np.uint8) * 2
    label[(slice(3, 7),) * len(shape)] = 1
    method = Region(margin=2, part=part)
    whole = tuple(slice(0, n) for n in shape)
    expected = region_by_pooling(label, 2, part)
    assert np.array_equal(method.support(label, whole), expected)
    tile = (slice(2, 7), *[slice(1, 6)] * (len(shape) - 1))
    assert np.array_equal(method.support(label, tile), expected[tile]), "a tile sees what lies beyond its edge"
    assert method.support(np.zeros_like(label), tile).all()
    assert np.array_equal(dilated(label > 0, 0), label > 0)
    assert dilated(label > 0, 99).all()


@pytest.mark.parametrize("kind", ["segmentation2d", "segmentation3d"])
@pytest.mark.parametrize("patch", [None, 4])
def test_noise_stays_in_the_region(
    kind: str,
    patch: int | None,
    make_problem: MakeProblem,
    tmp_path: Path,
) -> None:
    problem = make_problem(kind)
    size = None if patch is None else (patch,) * (problem.cases[0]["image"].ndim - 1)
    codes = problem.codes(tmp_path, RoiEM(mask=Region(margin=1), **SHORT), patch_size=size)
    for case, one in zip(problem.cases, codes, strict=True):
        label = case["label"][0]
        region = region_by_pooling(label, 1, "both") if label.any() else np.ones(label.shape, bool)
        assert not one[0][~region].any()
        assert one[0][region].any()


def test_a_later_image_gets_noise_in_its_region(make_segmentation: Any, tmp_path: Path) -> None:
    cases, task = make_segmentation((8, 8, 8), 4), Segmentation(num_classes=2)
    later = make_segmentation((8, 8, 8), 1, seed=9)[0]
    for method in (RoiEM(mask=Region(margin=1), **QUICK), InterSliceEM(**QUICK)):
        problem = Problem(cases, task)
        store = precompute(
            cases,
            tmp_path / f"{method.name}.db",
            method=method,
            task=task,
            window=problem.window,
            surrogate="unet",
            width=0.05,
            recipe=RECIPE,
            device=CPU,
        )
        noise = generate_noise(store, later["image"], later["label"], "later")
        assert 0 < np.abs(noise.codes).max() <= 8
        if isinstance(method, RoiEM):
            assert not noise.codes[0][~region_by_pooling(later["label"][0], 1, "both")].any()
