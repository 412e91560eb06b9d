"""What adversaries do to batches, training sets and networks is what the papers say, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import convolve
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from monai_salm.countermeasures import last_layer, operations
from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.countermeasures.batches import CutMix, Cutout, FlipsShifts, Mixup, RandAugment, draw_share, random_boxes
from monai_salm.countermeasures.last_layer import LastLayer, find_last_layer
from monai_salm.countermeasures.orthogonal_projection import OrthogonalProjection, orthonormal
from monai_salm.countermeasures.self_supervised import SelfSupervised
from monai_salm.countermeasures.training import AdversarialTraining, CleanSubset, SelfTraining
from monai_salm.countermeasures.ueraser import UEraser, plasma, plasma_brightness, plasma_contrast, shuffle_channels
from monai_salm.learning.augmentation import standard_augmentation
from monai_salm.learning.cases import Cases, View
from monai_salm.learning.networks import build_network, seeded
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import Trainer, fit
from monai_salm.noise.window import IntensityWindow

CPU = torch.device("cpu")
CLASSES = Classification(num_classes=3)
LABELS = Classification(num_classes=2, multi_label=True)
ORGANS = Segmentation(num_classes=3)
TASKS = {"classes": CLASSES, "labels": LABELS, "organs": ORGANS}
SIZES = {2: (12, 10), 3: (8, 9, 7)}
FLOAT32 = Recipe(optimizer="adam", lr=1e-2, batch_size=8, precision="float32")
ON_BATCHES = (FlipsShifts(), Cutout(), Mixup(), CutMix(), RandAugment(), UEraser(copies=2), AdversarialTraining())
ALL = (*ON_BATCHES, OrthogonalProjection(epochs=2), SelfTraining(), CleanSubset(), LastLayer(num_steps=3))
KINDS = [(item, task) for item in ALL for task in TASKS if (item.name, task) != ("orthogonal_projection", "organs")]


def new(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tiny(nn.Module):
    """Convolution, batch normalisation, and an answer for the image or for every voxel."""

    def __init__(self, task: Task, channels: int, rank: int, norm: bool = True) -> None:
        super().__init__()
        conv = nn.Conv2d if rank == 2 else nn.Conv3d
        norms = nn.BatchNorm2d if rank == 2 else nn.BatchNorm3d
        self.conv = conv(channels, 8, 3, padding=1)
        self.norm = norms(8) if norm else nn.Identity()
        self.last: nn.Module = nn.Linear(8, task.num_classes)
        self.voxels = task.kind == "segmentation"
        if self.voxels:
            self.last = conv(8, task.num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(x)).relu()
        return self.last(features if self.voxels else features.flatten(2).mean(2))


def make_trainer(task: Task = CLASSES, channels: int = 1, rank: int = 2, norm: bool = True, seed: int = 0) -> Trainer:
    with seeded(seed, CPU):
        return Trainer(Tiny(task, channels, rank, norm), task, FLOAT32, CPU, rank)


def make_batch(task: Task, channels: int, rank: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator, size = new(7), SIZES[rank]
    inputs = torch.rand((count, channels, *size), generator=generator)
    if task.kind == "segmentation":
        return inputs, torch.randint(task.num_classes, (count, *size), generator=generator)
    if task == LABELS:
        return inputs, torch.randint(2, (count, task.num_classes), generator=generator).float()
    return inputs, torch.arange(count) % task.num_classes


def make_cases(task: Task, channels: int = 1, rank: int = 2, count: int = 12, kind: str = "full") -> Cases:
    inputs, targets = make_batch(task, channels, rank, count)
    images = [(image * 255).round().numpy().astype(np.uint8) for image in inputs]
    labels = [target.numpy().astype(np.uint8 if task == ORGANS else target.numpy().dtype) for target in targets]
    view = View(kind, SIZES[rank] if kind == "full" else (6,) * rank)
    return Cases(images, labels, [str(c) for c in range(count)], task, [IntensityWindow(0, 255)] * count, view)


def make_resources(known: Cases, seed: int = 3) -> Resources:
    def train(cases: Cases) -> Trainer:
        trainer = make_trainer(cases.task, cases.in_channels, cases.spatial_dims, seed=5)
        list(fit(trainer, cases, 3, seed))
        return trainer

    return Resources(clean=known, train=train, seed=seed)


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


# ---------------------------------------------------------------------------------------------------------------------
# All


@pytest.mark.parametrize(("countermeasure", "name"), KINDS, ids=[f"{item.name}-{name}" for item, name in KINDS])
@pytest.mark.parametrize(("rank", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_each_trains_on_every_kind_of_data_and_is_deterministic(
    countermeasure: Countermeasure, name: str, channels: int, rank: int
) -> None:
    task = TASKS[name]
    cases = make_cases(task, channels, rank, 16)
    known = make_cases(task, channels, rank, 4)
    assert countermeasure.without_effect(cases) is None
    before = [image.copy() for image in cases.images]

    def run(seed: int) -> tuple[list[float], bytes]:
        with seeded(0, CPU):
            trainer = make_trainer(task, channels, rank)
            prepared = countermeasure.prepare(cases, make_resources(known))
            assert (
                prepared.targets([(0, tuple(slice(0, n) for n in SIZES[rank]))]).dtype
                == make_batch(task, 1, 2)[1].dtype
            )
            scores = list(fit(trainer, prepared, 1, seed, step=countermeasure.step))
            countermeasure.finish(trainer, make_resources(known))
        assert trainer.model.training
        assert all(parameter.requires_grad for parameter in trainer.model.parameters())
        assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
        return scores, b"".join(value.numpy().tobytes() for value in trainer.model.state_dict().values())

    first = run(0)
    assert 0 <= first[0][0] <= 1
    torch.rand(3)  # other code draws from the global generator
    assert run(0) == first
    if not isinstance(countermeasure, LastLayer):
        assert run(1)[1] != first[1]
    for image, copy in zip(cases.images, before, strict=True):
        np.testing.assert_array_equal(image, copy)


@pytest.mark.parametrize(
    "countermeasure", [item for item in ON_BATCHES if item.name != "adversarial_training"], ids=str
)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_augmented_batches_keep_shape_type_range_and_the_batch_given(
    countermeasure: Countermeasure, rank: int, task: Task
) -> None:
    inputs, targets = make_batch(task, 3, rank, 64)
    copies = inputs.clone(), targets.clone()
    changed, labels = countermeasure.augment(inputs, targets, new())
    assert torch.equal(inputs, copies[0])
    assert torch.equal(targets, copies[1])
    assert (changed.shape, changed.dtype) == (inputs.shape, inputs.dtype)
    assert (labels.shape, labels.dtype) == (targets.shape, targets.dtype)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1 + 1e-5
    if task != ORGANS:
        assert torch.equal(labels, targets)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlipsShifts(shift=-1), "shift must be at least 0, got -1"),
        (lambda: Cutout(share=2), r"share must be in \(0, 1\], got 2"),
        (lambda: Mixup(alpha=0), "alpha must be positive, got 0"),
        (lambda: CutMix(alpha=float("inf")), "alpha must be positive, got inf"),
        (lambda: RandAugment(num_operations=0), "num_operations must be at least 1, got 0"),
        (lambda: RandAugment(magnitude=31), r"magnitude must be in \[0, 30\], got 31"),
        (lambda: UEraser(copies=0), "copies must be at least 1, got 0"),
        (lambda: UEraser(probability=1.5), r"probability must be in \[0, 1\], got 1.5"),
        (lambda: AdversarialTraining(radius=0), r"radius must be in \(0, 1\], got 0"),
        (lambda: AdversarialTraining(step_size=float("nan")), r"step_size must be in \(0, 1\], got nan"),
        (lambda: AdversarialTraining(num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: OrthogonalProjection(epochs=0), "epochs must be at least 1, got 0"),
        (lambda: OrthogonalProjection(batches=0), "batches must be at least 1, got 0"),
        (lambda: OrthogonalProjection(lr=0), "lr must be positive, got 0"),
        (lambda: LastLayer(num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: LastLayer(lr=-1), "lr must be positive, got -1"),
        (lambda: LastLayer(weight_decay=-1), "weight_decay must be at least 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------------------------------------------------------
# Batches


def test_flips_and_shifts_are_the_standard_augmentation() -> None:
    inputs, targets = make_batch(ORGANS, 1, 3)
    for shift in (1, 2):
        own = FlipsShifts(shift=shift).augment(inputs, targets, new())
        expected = standard_augmentation(inputs, targets, new(), shift)
        assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@pytest.mark.parametrize("size", [(16, 12), (8, 10, 6)])
def test_cutout_makes_holes_of_the_given_size_that_may_hang_over_the_edge(size: tuple[int, ...]) -> None:
    holes = Cutout().augment(torch.ones(400, 2, *size), torch.zeros(400), new())[0] == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    largest = [n // 2 for n in size]
    sides = []
    for hole in holes[:, 0]:
        places = hole.nonzero()
        low, high = places.amin(0), places.amax(0) + 1
        assert int(hole.sum()) == int((high - low).prod())  # a box, without gaps
        sides.append((high - low).tolist())
    assert [max(side[a] for side in sides) for a in range(len(size))] == largest
    assert [min(side[a] for side in sides) for a in range(len(size))] == [(n + 1) // 2 for n in largest]
    whole = sum(side == largest for side in sides) / len(sides)
    assert whole == pytest.approx(np.prod([(n - n // 2 + 1) / n for n in size]), abs=0.1)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    generator = new()
    for alpha in (0.3, 1.0, 4.0):
        shares = np.array([draw_share(alpha, generator) for _ in range(2000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


class Spy:
    """Stands for a trainer: keeps what it is given to train on."""

    def __init__(self, task: Task) -> None:
        self.task, self.device = task, CPU

    def step(self, inputs: torch.Tensor, targets: torch.Tensor, loss: Any = None) -> torch.Tensor:
        self.inputs, self.targets, self.loss = inputs, targets, loss
        return torch.tensor(0.5)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_mixup_is_the_published_formula(rank: int, task: Task) -> None:
    inputs, targets = make_batch(task, 1, rank)
    spy = Spy(task)
    Mixup().step(spy, inputs, targets, new(4))  # type: ignore[arg-type]
    generator = new(4)
    share = draw_share(1.0, generator)
    partner = torch.randperm(8, generator=generator)
    torch.testing.assert_close(spy.inputs, share * inputs + (1 - share) * inputs[partner])
    assert torch.equal(spy.targets, targets if share >= 0.5 else targets[partner])
    logits = torch.randn((8, task.num_classes, *SIZES[rank]) if task == ORGANS else (8, task.num_classes))
    expected = share * task.loss(logits, targets) + (1 - share) * task.loss(logits, targets[partner])
    torch.testing.assert_close(spy.loss(logits), expected)
    if task == CLASSES:  # the same as cross-entropy against mixed labels
        soft = share * F.one_hot(targets, 3) + (1 - share) * F.one_hot(targets[partner], 3)
        torch.testing.assert_close(spy.loss(logits), F.cross_entropy(logits, soft))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_cutmix_mixes_by_the_area_that_the_box_covers(rank: int, task: Task) -> None:
    inputs, targets = make_batch(task, 2, rank)
    for seed in range(8):
        spy = Spy(task)
        CutMix().step(spy, inputs, targets, new(seed))  # type: ignore[arg-type]
        generator = new(seed)
        box, share = CutMix().box(SIZES[rank], generator)
        partner = torch.randperm(8, generator=generator)
        inside = box.expand_as(inputs)
        assert torch.equal(spy.inputs[inside], inputs[partner][inside])
        assert torch.equal(spy.inputs[~inside], inputs[~inside])
        assert share == pytest.approx(1 - int(box.sum()) / np.prod(SIZES[rank]), abs=1e-6)
        if task == ORGANS:
            assert spy.loss is None
            assert torch.equal(spy.targets, torch.where(box[:, 0], targets[partner], targets))
        else:
            logits = torch.randn(8, task.num_classes)
            expected = share * task.loss(logits, targets) + (1 - share) * task.loss(logits, targets[partner])
            torch.testing.assert_close(spy.loss(logits), expected)


@pytest.mark.parametrize("size", [(40, 30), (20, 24, 22)])
def test_a_cutmix_box_inside_the_image_has_the_share_drawn(size: tuple[int, ...]) -> None:
    inside = 0
    for seed in range(100):
        box, share = CutMix().box(size, new(seed))
        sides = [int(n * (1 - draw_share(1.0, new(seed))) ** (1 / len(size))) for n in size]
        assert int(box.sum()) <= np.prod(sides)
        if int(box.sum()) == np.prod(sides):
            inside += 1
            assert share == pytest.approx(draw_share(1.0, new(seed)), abs=0.13)
    assert inside > 4


def test_an_empty_box_is_empty() -> None:
    assert not random_boxes(3, (5, 6), (0, 0), new()).any()


# ---------------------------------------------------------------------------------------------------------------------
# RandAugment

COLUMN = (-1, 1, 1, 1)
TORCHVISION: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "autocontrast": lambda x, level, sign: tv.autocontrast(x),
    "equalize": lambda x, level, sign: tv.equalize(x),
    "solarize": lambda x, level, sign: tv.solarize(x, 1 - level),
    "color": lambda x, level, sign: tv.adjust_saturation(x, 1 + 0.9 * level * sign),
    "posterize": lambda x, level, sign: tv.posterize(x, 8 - round(4 * level)),
    "contrast": lambda x, level, sign: tv.adjust_contrast(x, 1 + 0.9 * level * sign),
    "brightness": lambda x, level, sign: tv.adjust_brightness(x, 1 + 0.9 * level * sign),
    "sharpness": lambda x, level, sign: tv.adjust_sharpness(x, 1 + 0.9 * level * sign),
}


NO_LABELS = torch.zeros(1)


@pytest.mark.parametrize(
    ("name", "channels"), [(n, c) for n in operations.INTENSITY for c in (1, 3) if (n, c) != ("color", 1)]
)
def test_intensity_operations_are_torchvisions(name: str, channels: int) -> None:
    images = torch.rand((6, channels, 40, 30), generator=new()) * 0.6 + 0.1
    images[5] = 64 / 255  # nothing to stretch
    levels, signs = torch.tensor([0, 0.3, 0.6, 1, 0.1, 0.5]), torch.tensor([1.0, -1, 1, -1, -1, 1])
    own = operations.INTENSITY[name](images, levels.view(COLUMN), signs.view(COLUMN))
    rows = zip(images, levels.tolist(), signs.tolist(), strict=True)
    expected = torch.stack([TORCHVISION[name](image, level, sign) for image, level, sign in rows])
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", operations.GEOMETRIC)
@pytest.mark.parametrize("level", [0.3, 1.0])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("mode", "interpolation"), [("bilinear", "BILINEAR"), ("nearest", "NEAREST")])
def test_geometric_operations_are_torchvisions(
    name: str, level: float, axes: tuple[int, int], mode: str, interpolation: str
) -> None:
    image = torch.rand((1, 1, 20, 30), generator=new())
    maps = operations.GEOMETRIC[name](torch.tensor([level]), torch.tensor([axes]), torch.tensor([20, 30]))
    settings: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    column = 1 if axes[0] == 0 else 0  # torchvision has x first
    if name == "rotate":
        settings["angle"] = 30 * level * (1 if axes[0] == 0 else -1)
    elif name == "shear":
        settings["shear"][column] = float(np.degrees(np.arctan(0.3 * level)))
    else:
        settings["translate"][column] = -int(150 / 331 * (20, 30)[axes[0]] * level)
    expected = tv.affine(image, interpolation=getattr(InterpolationMode, interpolation), **settings)
    moved, labels = operations.warp(image, image[:, 0], maps)
    own = moved if mode == "bilinear" else labels[:, None]
    if mode == "nearest":  # a place in the middle between two voxels may be rounded either way
        assert float((own != expected).float().mean()) < 0.01
    else:
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", operations.GEOMETRIC)
@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (2, 1)])
def test_volumes_are_moved_in_the_plane_of_two_axes(name: str, plane: tuple[int, int]) -> None:
    size = torch.tensor([9, 11, 10])
    flat = torch.rand((1, 1, 9, 11, 10), generator=new())
    (still,) = {0, 1, 2} - set(plane)
    operation = operations.GEOMETRIC[name]
    own, _ = operations.warp(flat, NO_LABELS, operation(torch.tensor([0.7]), torch.tensor([plane]), size))
    kept = [axis for axis in range(3) if axis != still]
    maps = operation(torch.tensor([0.7]), torch.tensor([[kept.index(a) for a in plane]]), size[kept])
    for index in range(int(size[still])):
        expected, _ = operations.warp(flat.select(2 + still, index), NO_LABELS, maps)
        torch.testing.assert_close(own.select(2 + still, index), expected, atol=1e-5, rtol=0)


def test_volumes_are_sharpened_by_pillows_kernel() -> None:
    image = torch.rand((1, 1, 6, 7, 8), generator=new())
    kernel = np.ones((3, 3, 3))
    kernel[1, 1, 1] = 5
    smooth = convolve(image[0, 0].numpy().astype(np.float64), kernel / kernel.sum())[1:-1, 1:-1, 1:-1]
    own = operations.INTENSITY["sharpness"](image, torch.ones(1, 1, 1, 1, 1) / 0.9, -torch.ones(1, 1, 1, 1, 1))
    np.testing.assert_allclose(own[0, 0, 1:-1, 1:-1, 1:-1].numpy(), smooth, atol=1e-6)
    edge = torch.ones(6, 7, 8, dtype=torch.bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert torch.equal(own[0, 0][edge], image[0, 0][edge])


@pytest.mark.parametrize("rank", [2, 3])
def test_labels_move_with_images(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_DRAWN_FROM", tuple(operations.GEOMETRIC))
    size = (24, 20) if rank == 2 else (16, 14, 18)
    labels = torch.zeros((32, *size), dtype=torch.long)
    labels[(slice(None), *(slice(2, n // 2 + 1) for n in size))] = 1
    images, moved = RandAugment(num_operations=1, magnitude=20).augment(labels[:, None].float(), labels, new())
    agree = ((images[:, 0] > 0.5) == (moved > 0)).float().flatten(1).mean(1)
    assert float(agree.min()) > 0.97
    assert sum(not torch.equal(a, b) for a, b in zip(moved, labels, strict=True)) > 24


def test_every_image_gets_its_own_operations() -> None:
    image = torch.rand((1, 3, 12, 12), generator=new()) * 0.8
    changed, _ = RandAugment().augment(image.repeat(200, 1, 1, 1), torch.zeros(200), new())
    different = {tuple(one.flatten().tolist()) for one in changed}
    assert 60 < len(different) <= 200
    unchanged = sum(torch.equal(one, image[0]) for one in changed)
    assert unchanged < 10


def test_colour_is_for_three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_DRAWN_FROM", ("identity", "color"))
    for channels in (1, 2, 3):
        images = torch.rand((20, channels, 6, 6), generator=new())
        changed, _ = RandAugment(num_operations=1).augment(images, torch.zeros(20), new())
        assert torch.equal(changed, images) == (channels != 3)


# ---------------------------------------------------------------------------------------------------------------------
# UEraser


@pytest.mark.parametrize("size", [(28, 28), (9, 30), (2, 3), (1, 4), (8, 9, 20)])
def test_plasma_is_smooth_noise_from_0_to_1(size: tuple[int, ...]) -> None:
    noise = plasma((6, 2, *size), new())
    assert noise.shape == (6, 2, *size)
    torch.testing.assert_close(noise.flatten(2).amin(2), torch.zeros(6, 2))
    torch.testing.assert_close(noise.flatten(2).amax(2), torch.ones(6, 2))
    assert len({tuple(one.tolist()) for one in noise.flatten(0, 1).flatten(1)}) == 12
    if min(size) > 4:
        for axis in range(2, noise.ndim):  # neighbours are alike, distant voxels are not
            shift = noise.shape[axis] // 2
            near = (noise.narrow(axis, 1, 4) - noise.narrow(axis, 0, 4)).abs().mean()
            far = (noise.narrow(axis, shift, 4) - noise.narrow(axis, 0, 4)).abs().mean()
            assert near < 0.8 * far


def test_plasma_changes_are_those_of_the_published_code() -> None:
    images = torch.rand((5, 2, 9, 8), generator=new())
    generator = new(1)
    intensity = 0.5 + 0.5 * torch.rand((5, 1, 1, 1), generator=generator)
    expected = (images + (2 * plasma(images.shape, generator) - 1) * intensity).clamp(0, 1)
    torch.testing.assert_close(plasma_brightness(images, new(1)), expected)
    expected = ((images - 0.5) * 4 * plasma(images.shape, new(1)) + 0.5).clamp(0, 1)
    torch.testing.assert_close(plasma_contrast(images, new(1)), expected)


def test_channels_are_shuffled() -> None:
    images = torch.arange(3.0).view(1, 3, 1, 1).expand(50, 3, 4, 4)
    shuffled = shuffle_channels(images, new())
    assert {tuple(one) for one in shuffled[..., 0, 0].tolist()} == {
        (a, b, c) for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3
    }


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_ueraser_trains_on_the_copy_with_the_highest_loss(
    rank: int, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, targets = make_batch(task, 1, rank)
    trainer = make_trainer(task, 1, rank, norm=False)
    generator = new(2)
    copies = [UEraser().augment(inputs, targets, generator) for _ in range(5)]
    taken: list[tuple[torch.Tensor, torch.Tensor]] = []
    monkeypatch.setattr(trainer, "step", lambda *batch: taken.append(batch) or torch.tensor(0.0))
    UEraser().step(trainer, inputs, targets, new(2))
    with torch.no_grad():
        for case in range(len(inputs)):
            losses = [task.loss(trainer.forward(x[case : case + 1]), y[case : case + 1]).item() for x, y in copies]
            assert len(set(losses)) > 1
            worst = copies[int(np.argmax(losses))]
            assert torch.equal(taken[0][0][case], worst[0][case])
            assert torch.equal(taken[0][1][case], worst[1][case])


def test_ueraser_of_one_copy_is_augmentation() -> None:
    inputs, targets = make_batch(CLASSES, 1, 2)
    spy = Spy(CLASSES)
    UEraser(copies=1).step(spy, inputs, targets, new(2))  # type: ignore[arg-type]
    assert torch.equal(spy.inputs, UEraser().augment(inputs, targets, new(2))[0])


# ---------------------------------------------------------------------------------------------------------------------
# Adversarial training


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_attack_stays_in_its_radius_and_raises_the_loss(rank: int, task: Task) -> None:
    inputs, targets = make_batch(task, 1, rank)
    inputs[0], inputs[1] = 0, 1
    trainer = make_trainer(task, 1, rank)
    countermeasure = AdversarialTraining()
    attacked = countermeasure.attack(trainer, inputs, targets, new())
    moved = (attacked - inputs).abs()
    assert float(moved.max()) <= countermeasure.radius + 1e-6
    assert float((moved > countermeasure.radius - 1e-6).float().mean()) > 0.3
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= 1
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    noise = (2 * torch.rand(inputs.shape, generator=new()) - 1) * countermeasure.radius
    with torch.no_grad():
        losses = [
            float(task.loss(trainer.forward(x), targets)) for x in (inputs, (inputs + noise).clamp(0, 1), attacked)
        ]
    assert losses[2] > max(losses[:2])


def test_the_attack_starts_at_random_and_takes_signed_steps() -> None:
    inputs, targets = make_batch(CLASSES, 1, 2)
    trainer = make_trainer(norm=False)
    one = AdversarialTraining(radius=0.1, step_size=0.01, num_steps=1)
    start = (inputs + (2 * torch.rand(inputs.shape, generator=new()) - 1) * 0.1).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(CLASSES.loss(trainer.forward(start), targets), start)
    expected = (start + 0.01 * gradient.sign()).detach()
    expected = torch.minimum(torch.maximum(expected, inputs - 0.1), inputs + 0.1).clamp(0, 1)
    torch.testing.assert_close(one.attack(trainer, inputs, targets, new()), expected)


def test_an_attack_that_overflows_in_bfloat16_goes_on_in_float32() -> None:
    class Overflows(Tiny):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            if logits.dtype == torch.bfloat16:
                logits.register_hook(lambda gradient: gradient * torch.inf)
            return logits

    with seeded(0, CPU):
        trainer = Trainer(Overflows(CLASSES, 1, 2), CLASSES, Recipe(precision="bfloat16"), CPU, 2)
    inputs, targets = make_batch(CLASSES, 1, 2)
    AdversarialTraining().step(trainer, inputs, targets, new())
    assert trainer.precision == "float32"
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# Orthogonal projection


def class_wise(task: Classification, rank: int, count: int = 60) -> Cases:
    """Random images with one fine pattern for each class, or for each label."""
    rng = np.random.default_rng(0)
    cases = make_cases(task, 1, rank, count)
    patterns = rng.choice([-8.0, 8.0], (task.num_classes, 1, *SIZES[rank]))
    weights = [label if label.ndim else np.eye(task.num_classes)[label] for label in cases.labels]
    images = [
        np.clip(rng.uniform(20, 235, patterns.shape[1:]) + np.tensordot(w, patterns, 1), 0, 255).astype(np.uint8)
        for w in weights
    ]
    return Cases(images, cases.labels, cases.names, task, cases.windows, cases.view)


def pixels(cases: Cases) -> torch.Tensor:
    whole = tuple(slice(0, n) for n in cases.view.size)
    return cases.inputs([(case, whole) for case in range(len(cases))]).flatten(1)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", [CLASSES, LABELS], ids=["classes", "labels"])
def test_projected_images_are_orthogonal_to_the_classifier(rank: int, task: Classification) -> None:
    cases, resources = class_wise(task, rank), make_resources(make_cases(task, 1, rank, 4))
    countermeasure = OrthogonalProjection()
    weights = countermeasure.fit_linear(cases, resources.generator())
    projected = countermeasure.prepare(cases, resources)
    assert projected.images[0].dtype == np.float32
    assert projected.images[0].shape == cases.images[0].shape
    assert [len(projected.images), len(projected.images[2:5])] == [60, 3]
    along = pixels(projected) @ F.normalize(weights, dim=1).T
    assert float((pixels(cases) @ F.normalize(weights, dim=1).T).abs().mean()) > 0.1
    assert float(along.abs().max()) < 1e-4
    # What is taken away lies in the span of the weights, and nothing else is.
    removed = pixels(cases) - pixels(projected)
    basis = torch.linalg.svd(weights, full_matrices=False).Vh[: len(orthonormal(weights))]
    torch.testing.assert_close(removed @ basis.T @ basis, removed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [2, 3])
def test_class_wise_noise_no_longer_separates_the_projected_images(rank: int) -> None:
    countermeasure, cases = OrthogonalProjection(), class_wise(CLASSES, rank)
    resources = make_resources(make_cases(CLASSES, 1, rank, 4))
    accuracies, losses = [], []
    target = torch.from_numpy(np.stack(cases.labels))
    for data in (cases, countermeasure.prepare(cases, resources)):
        answers = pixels(data) @ countermeasure.fit_linear(data, new(1)).T
        accuracies.append(float((answers.argmax(1) == target).float().mean()))
        losses.append(float(F.cross_entropy(answers, target)))
    assert accuracies[0] > 0.95
    assert losses[1] > 1.5 * losses[0]
    assert accuracies[1] < accuracies[0] - 0.1


def test_a_basis_leaves_out_what_depends_on_the_rest() -> None:
    weights = torch.randn((3, 20), generator=new())
    weights = torch.cat([weights, -weights.sum(0, keepdim=True), torch.zeros(1, 20)])
    basis = orthonormal(weights)
    assert basis.shape == (3, 20)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(weights @ basis.T @ basis, weights, atol=1e-5, rtol=0)


def test_projection_works_at_the_size_that_networks_see() -> None:
    cases = make_cases(CLASSES, 1, 2, kind="resize")
    cases.images[3] = np.zeros((1, 20, 9), np.uint8)  # type: ignore[index]
    projected = OrthogonalProjection().prepare(cases, make_resources(cases))
    assert {image.shape for image in projected.images} == {(1, 6, 6)}
    scores = list(fit(make_trainer(), projected, 1, 0))
    assert 0 <= scores[0] <= 1


def test_where_projection_cannot_be_applied() -> None:
    countermeasure = OrthogonalProjection()
    assert countermeasure.without_effect(make_cases(CLASSES)) is None
    assert countermeasure.without_effect(make_cases(LABELS)) is None
    assert "not applicable: a linear classifier" in str(countermeasure.without_effect(make_cases(ORGANS)))
    patches = make_cases(CLASSES, kind="patch")
    assert "not applicable: networks see patches" in str(countermeasure.without_effect(patches))


# ---------------------------------------------------------------------------------------------------------------------
# With a small clean set


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    ("task", "kind"), [(CLASSES, "full"), (LABELS, "full"), (ORGANS, "full"), (ORGANS, "patch")], ids=str
)
def test_self_training_takes_the_teachers_labels(rank: int, task: Task, kind: str) -> None:
    cases, known = make_cases(task, 1, rank, 12, kind), make_cases(task, 1, rank, 4, kind)
    resources = make_resources(known)
    prepared = SelfTraining().prepare(cases, resources)
    predictions = resources.train(known).predict(cases)
    assert len(prepared) == len(prepared.labels) == len(prepared.names) == 16
    for case, prediction in enumerate(predictions):
        np.testing.assert_array_equal(prepared.images[case], cases.images[case])
        label = prepared.labels[case]
        assert (label.dtype, label.shape) == (cases.labels[case].dtype, cases.labels[case].shape)
        expected = prediction if task == ORGANS else prediction > 0.5 if task == LABELS else prediction.argmax()
        np.testing.assert_array_equal(label, expected.numpy())
    for own, clean in zip(prepared.labels[12:], known.labels, strict=True):
        assert own is clean


def test_the_clean_subset_is_all_there_is() -> None:
    known = make_cases(CLASSES, count=4)
    assert CleanSubset().prepare(make_cases(CLASSES), make_resources(known)) is known


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("kind", ["full", "patch"])
def test_only_the_last_layer_is_trained_again(rank: int, task: Task, kind: str) -> None:
    trainer = make_trainer(task, 1, rank)
    trainer.model.conv.bias.requires_grad_(False)
    trainer.step(*make_batch(task, 1, rank))
    before = state(trainer)
    known = make_cases(task, 1, rank, 6, kind)
    LastLayer(num_steps=3).finish(trainer, make_resources(known))
    after = state(trainer)
    assert all(torch.equal(before[name], after[name]) == (not name.startswith("last")) for name in before)
    assert [name for name, p in trainer.model.named_parameters() if not p.requires_grad] == ["conv.bias"]
    assert all(module.training for module in trainer.model.modules())
    LastLayer(num_steps=3).finish(trainer, make_resources(known))  # starts afresh, from the same weights
    assert all(torch.equal(after[name], value) for name, value in state(trainer).items())


def test_the_last_layer_learns_what_the_features_know() -> None:
    cases = make_cases(CLASSES, count=30)
    for image, label in zip(cases.images, cases.labels, strict=True):
        image[:] = (image // 4 + 60 * label).astype(np.uint8)
    trainer = make_trainer()
    trainer.recalibrate([pixels(cases).view(-1, 1, *SIZES[2])])
    before = CLASSES.scores(trainer.predict(cases), cases.labels)["accuracy"]
    LastLayer().finish(trainer, make_resources(cases))
    assert CLASSES.scores(trainer.predict(cases), cases.labels)["accuracy"] > max(before, 0.9)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("task", [CLASSES, LABELS], ids=["classes", "labels"])
def test_self_supervised_features_do_not_know_the_labels(rank: int, task: Task) -> None:
    inputs, targets = make_batch(task, 1, rank)
    states = []
    for labels in (targets, targets.flip(0)):
        with seeded(0, CPU):
            trainer = Trainer(Tiny(task, 1, rank), task, FLOAT32, CPU, rank, total_steps=4)
        start = state(trainer)
        for _ in range(3):
            SelfSupervised(share=0.75).step(trainer, inputs, labels, new())
        states.append(state(trainer))
        assert not torch.equal(start["conv.weight"], states[-1]["conv.weight"])
        SelfSupervised(share=0.75).step(trainer, inputs, labels, new())  # the last quarter reads the labels
        after = state(trainer)
        assert all(torch.equal(states[-1][name], after[name]) == (not name.startswith("last")) for name in after)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_self_supervised_features_need_one_answer_an_image() -> None:
    assert SelfSupervised().without_effect(make_cases(CLASSES)) is None
    assert "voxels" in str(SelfSupervised().without_effect(make_cases(ORGANS)))


def test_features_kept_train_the_last_layer_as_the_whole_network_does(monkeypatch: pytest.MonkeyPatch) -> None:
    known, weights = make_cases(CLASSES, count=20), []
    for kept in (True, False):
        trainer = make_trainer()
        passes: list[int] = []
        forward = trainer.forward
        monkeypatch.setattr(trainer, "forward", lambda x, to=passes, run=forward: (to.append(len(x)), run(x))[1])
        if not kept:
            monkeypatch.setattr(last_layer, "_features", lambda *_: None)
        LastLayer(num_steps=10).finish(trainer, make_resources(known))
        assert passes == ([8, 8, 4] if kept else [8] * 10)
        weights.append(state(trainer)["last.weight"])
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


def test_a_last_layer_that_does_not_give_the_answers_itself_is_trained_through_the_network() -> None:
    class Scaled(Tiny):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    with seeded(0, CPU):
        trainer = Trainer(Scaled(CLASSES, 1, 2), CLASSES, FLOAT32, CPU, 2)
    known = make_cases(CLASSES, count=4)
    trainer.model.eval()
    assert last_layer._features(trainer, trainer.model.last, known) is None
    trainer.model.train()
    before = state(trainer)
    LastLayer(num_steps=2).finish(trainer, make_resources(known))
    assert not torch.equal(before["last.weight"], state(trainer)["last.weight"])


@pytest.mark.parametrize("name", ["resnet10", "densenet121", "vgg11", "unet", "segresnet"])
def test_the_last_layer_of_our_networks_gives_the_answers(name: str) -> None:
    with seeded(0, CPU):
        model = build_network(name, 2, 1, 3, width=0.05, image_size=(16, 16)).eval()
    layer, given = find_last_layer(model), []
    layer.register_forward_hook(lambda module, inputs, output: given.append(output))
    answers = model(torch.rand(2, 1, 16, 16))
    assert given[0].shape == answers.shape
    if name != "unet":  # whose last layer is added to what goes into it
        assert torch.equal(given[0], answers)
