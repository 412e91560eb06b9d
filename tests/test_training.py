"""Training is deterministic, learns, and does not go on with gradients that are not numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from monai_salm.learning.augmentation import standard_augmentation
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.networks import build_network, seeded
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import Recipe, choose_precision, default_recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import Trainer, TrainingError, fit, steps_per_epoch
from monai_salm.noise.window import IntensityWindow

CPU = torch.device("cpu")
TWO = Classification(num_classes=2)
FLOAT32 = Recipe(optimizer="adam", lr=1e-2, batch_size=8, precision="float32")


def as_cases(items: list[dict[str, Any]], task: Task, patch_size: tuple[int, ...] | None = None) -> Cases:
    shapes = [item["image"].shape[1:] for item in items]
    labels = [task.check_label(item["label"], shape, item["name"]) for item, shape in zip(items, shapes, strict=True)]
    view = choose_view(shapes, task.kind == "segmentation", patch_size)
    names = [item["name"] for item in items]
    return Cases([item["image"] for item in items], labels, names, task, [IntensityWindow(0, 255)] * len(items), view)


class Tiny(nn.Module):
    """One convolution, mean, one layer."""

    def __init__(self, spatial_dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.conv, self.last, self.rank = conv(1, 8, 3, 2), nn.Linear(8, 2), spatial_dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x).relu().flatten(2).mean(2))


class BreaksInBfloat16(Tiny):
    """Overflows as 3D convolutions on some CPUs do: the loss is finite, its gradients are not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv(x)
        if features.dtype == torch.bfloat16:
            features.register_hook(lambda gradient: gradient * torch.inf)
        return self.last(features.relu().flatten(2).mean(2))


def weights_after(cases: Cases, seed: int, augment: Any = None, recipe: Recipe = FLOAT32) -> tuple[list[float], bytes]:
    with seeded(0, CPU):
        trainer = Trainer(Tiny(cases.spatial_dims), cases.task, recipe, CPU, cases.spatial_dims, total_steps=9)
        scores = list(fit(trainer, cases, 3, seed, augment))
    return scores, b"".join(value.numpy().tobytes() for value in trainer.model.state_dict().values())


@pytest.mark.parametrize("augment", [None, standard_augmentation])
def test_fit_is_deterministic_for_a_seed(classification_2d: list[Any], augment: Any) -> None:
    cases = as_cases(classification_2d, TWO)
    first = weights_after(cases, 0, augment)
    torch.rand(5)  # other code draws from the global generator
    assert weights_after(cases, 0, augment) == first
    assert weights_after(cases, 1, augment)[1] != first[1]


@pytest.mark.parametrize("spatial", [(16, 16), (8, 8, 8)])
def test_fit_learns(make_classification: Callable[..., list[Any]], spatial: tuple[int, ...]) -> None:
    cases = as_cases(make_classification(spatial, 16), TWO)
    recipe = Recipe(optimizer="adam", lr=3e-2, batch_size=8, precision="float32")
    with seeded(0, CPU):
        trainer = Trainer(Tiny(len(spatial)), TWO, recipe, CPU, len(spatial))
        scores = list(fit(trainer, cases, 40, 0))
    assert scores[-1] > 0.9
    assert all(0 <= score <= 1 for score in scores)
    predicted = TWO.scores(trainer.predict(cases), cases.labels)
    assert predicted["accuracy"] > 0.9


def test_learning_rate_falls_along_a_cosine(classification_2d: list[Any]) -> None:
    cases = as_cases(classification_2d, TWO)
    steps = 2 * steps_per_epoch(cases, FLOAT32)
    trainer = Trainer(Tiny(), TWO, FLOAT32, CPU, 2, total_steps=steps)
    list(fit(trainer, cases, 2, 0))
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0)
    steady = Trainer(Tiny(), TWO, FLOAT32, CPU, 2)
    list(fit(steady, cases, 1, 0))
    assert steady.optimizer.param_groups[0]["lr"] == FLOAT32.lr


@pytest.mark.parametrize("spatial", [(16, 16), (12, 12, 12)])
@pytest.mark.parametrize("patch", [None, 8])
def test_segmentation_is_predicted_whole(
    make_segmentation: Callable[..., list[Any]], spatial: tuple[int, ...], patch: int | None
) -> None:
    task = Segmentation(num_classes=2)
    patch_size = None if patch is None else (patch,) * len(spatial)
    cases = as_cases(make_segmentation(spatial, 4), task, patch_size)
    recipe = Recipe(optimizer="adam", lr=1e-2, batch_size=4, precision="float32")
    with seeded(0, CPU):
        trainer = Trainer(build_network("unet", len(spatial), 1, 2, width=0.05), task, recipe, CPU, len(spatial))
        before = task.scores(trainer.predict(cases), cases.labels)["dice"]
        list(fit(trainer, cases, 12 if patch is None else 4, 0))
    predictions = trainer.predict(cases)
    assert [tuple(p.shape) for p in predictions] == [spatial] * 4
    assert task.scores(predictions, cases.labels)["dice"] > before


def test_predict_takes_few_large_images_at_once(classification_2d: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = as_cases(classification_2d, TWO)
    with seeded(0, CPU):
        trainer = Trainer(Tiny(), TWO, FLOAT32, CPU, 2)
    expected = trainer.predict(cases)
    seen: list[int] = []
    forward = trainer.forward
    monkeypatch.setattr(trainer, "forward", lambda inputs: (seen.append(len(inputs)), forward(inputs))[1])
    for voxels, size in ((3 * 16 * 16 + 5, 3), (10, 1)):
        monkeypatch.setattr("monai_salm.learning.trainer._PREDICTED_VOXELS", voxels)
        seen.clear()
        torch.testing.assert_close(torch.stack(trainer.predict(cases)), torch.stack(expected))
        assert max(seen) == size


def test_predict_may_be_given_other_images(classification_2d: list[Any]) -> None:
    cases = as_cases(classification_2d, TWO)
    with seeded(0, CPU):
        trainer = Trainer(Tiny(), TWO, FLOAT32, CPU, 2)
    own = torch.stack(trainer.predict(cases))
    others = torch.stack(trainer.predict(cases, [image[..., ::-1].copy() for image in cases.images]))
    assert trainer.model.training
    assert own.shape == (24, 2)
    torch.testing.assert_close(own.sum(1), torch.ones(24))
    assert not torch.equal(own, others)


def test_recalibration_measures_the_statistics_of_the_weights_as_they_are() -> None:
    with seeded(0, CPU):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten(), nn.Linear(4 * 36, 2))
    trainer = Trainer(model, TWO, FLOAT32, CPU, 2)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(8, 1, 8, 8, generator=generator) * scale for scale in (1, 2, 3)]
    trainer.step(batches[0] * 50, torch.arange(8) % 2)
    weights = [p.clone() for p in model.parameters()]
    trainer.recalibrate(batches)
    with torch.no_grad():
        features = [model[0](batch).transpose(0, 1).flatten(1) for batch in batches]
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([f.mean(1) for f in features]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([f.var(1) for f in features]).mean(0))
    assert norm.momentum == 0.3
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_not_finite_bfloat16_gradients_fall_back_to_float32_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.rand(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 0, 1])
    recipe = Recipe(precision="bfloat16", lr=0.1)
    with seeded(0, CPU):
        trainer = Trainer(BreaksInBfloat16(), TWO, recipe, CPU, 2)
    with seeded(0, CPU):
        plain = Trainer(BreaksInBfloat16(), TWO, Recipe(precision="float32", lr=0.1), CPU, 2)
    with caplog.at_level(logging.WARNING):
        trainer.step(inputs, targets)
    assert "gradients of a training step are" in caplog.text
    assert "in bfloat16 on cpu: going on in float32" in caplog.text
    assert trainer.precision == "float32"
    plain.step(inputs, targets)
    for own, expected in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.isfinite(own).all()
        assert torch.equal(own, expected)
    caplog.clear()
    trainer.step(inputs, targets)
    assert not caplog.records


def test_bfloat16_that_works_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(Tiny(), TWO, Recipe(precision="bfloat16"), CPU, 2)
    trainer.step(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert trainer.precision == "bfloat16"
    assert not caplog.records
    assert trainer.forward(torch.rand(4, 1, 8, 8)).dtype == torch.float32


def test_not_finite_float32_gradients_are_an_error() -> None:
    trainer = Trainer(Tiny(), TWO, FLOAT32, CPU, 2)
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(
        TrainingError, match=r"gradients of a training step are nan in float32: .*lower the learning rate"
    ):
        trainer.step(torch.full((2, 1, 8, 8), torch.nan), torch.tensor([0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize("spatial", [(7, 6), (5, 6, 7)])
@pytest.mark.parametrize("channels", [1, 2])
def test_augmentation_moves_labels_with_images(spatial: tuple[int, ...], channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 5, (16, *spatial), generator=generator)
    images = labels[:, None].float().repeat(1, channels, *[1] * len(spatial))
    moved, targets = standard_augmentation(images, labels, generator)
    assert moved.shape == images.shape
    assert targets.dtype == labels.dtype
    assert torch.equal(moved, targets[:, None].float().expand_as(moved))
    changed = [not torch.equal(a, b) for a, b in zip(moved, images, strict=True)]
    assert sum(changed) > 8
    # Each is the original, flipped or not, shifted by at most 2 with zeros coming in: its middle is found again.
    core = tuple(slice(2, n - 2) for n in spatial)
    for before, after in zip(labels, targets, strict=True):
        starts = np.ndindex(*[5] * len(spatial))
        windows = [after[tuple(slice(s, s + n - 4) for s, n in zip(at, spatial, strict=True))] for at in starts]
        flips = [[], [-1]] if len(spatial) == 2 else [[a for a in (0, 1, 2) if bits >> a & 1] for bits in range(8)]
        kept = [before.flip(axes)[core] for axes in flips]
        assert any(torch.equal(window, middle) for window in windows for middle in kept)


def test_augmentation_leaves_labels_of_whole_images_alone() -> None:
    images = torch.rand(8, 1, 6, 6)
    for targets in (torch.arange(8), torch.rand(8, 3)):
        assert standard_augmentation(images, targets, torch.Generator().manual_seed(0))[1] is targets


def test_augmentation_is_each_cases_own() -> None:
    image = torch.arange(36.0).reshape(1, 1, 6, 6) + 1
    moved, _ = standard_augmentation(image.repeat(64, 1, 1, 1), torch.zeros(64), torch.Generator().manual_seed(0))
    assert len({tuple(one.flatten().tolist()) for one in moved}) > 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lion"}, "optimizer must be sgd or adam, got 'lion'"),
        ({"precision": "float16"}, "precision must be auto, bfloat16 or float32, got 'float16'"),
        ({"lr": -1.0}, "lr must be positive, got -1.0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"clip": 0.0}, "clip must be positive, got 0.0"),
        ({"clip": float("nan")}, "clip must be positive, got nan"),
    ],
)
def test_wrong_recipes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_default_recipes() -> None:
    organs = Segmentation(num_classes=2)
    assert default_recipe(TWO, 2) == Recipe()
    assert default_recipe(TWO, 3).optimizer == "adam"
    assert default_recipe(organs, 2).batch_size > default_recipe(organs, 3).batch_size


def test_precision_and_device_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("bfloat16", CPU, 3) == "bfloat16"
    assert choose_precision("auto", CPU, 3) == "float32"
    assert resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(ValueError, match="device cuda:1 asked for, but torch finds no CUDA device; use --device cpu"):
        resolve_device("cuda:1")


def test_an_epoch_visits_every_case_or_voxel() -> None:
    task = Segmentation(num_classes=2)
    rng = np.random.default_rng(0)
    items = [
        {"image": rng.integers(0, 9, (1, 16, 16)).astype(np.uint8), "label": np.zeros((16, 16)), "name": str(i)}
        for i in range(10)
    ]
    recipe = Recipe(batch_size=4)
    assert steps_per_epoch(as_cases(items, task), recipe) == 3
    assert steps_per_epoch(as_cases(items, task, (8, 8)), recipe) == 10
    assert steps_per_epoch(as_cases(items, task), Recipe(batch_size=100)) == 1


def test_the_learning_rate_falls_in_steps() -> None:
    recipe = Recipe(optimizer="adam", lr=1e-3, schedule="steps", batch_size=8, precision="float32")
    trainer = Trainer(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), TWO, recipe, CPU, 2, total_steps=8)
    rates = []
    for _ in range(8):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.step(torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long))
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2)
    with pytest.raises(ValueError, match="schedule must be cosine or steps, got 'linear'"):
        Recipe(schedule="linear")


def test_a_loss_of_ones_own_and_a_step_of_ones_own(classification_2d: list[Any]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    trainer = Trainer(model, TWO, Recipe(optimizer="adam", lr=0.1, precision="float32"), CPU, 2)
    bias = model[1].bias
    assert isinstance(bias, nn.Parameter)
    before = bias.detach().clone()
    trainer.step(torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long), loss=lambda logits: logits[:, 1].sum())
    assert bias.detach()[0] == before[0]
    assert bias.detach()[1] < before[1]
    seen: list[int] = []

    def step(trainer: Trainer, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(len(inputs))
        return torch.tensor(0.25)

    cases = as_cases(classification_2d, TWO)
    assert list(fit(trainer, cases, 2, 0, step=step, epoch_steps=3)) == [0.75, 0.75]
    assert len(seen) == 6


def forward_and_gradient(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor, Trainer]:
    with seeded(0, CPU):
        trainer = Trainer(Tiny(), TWO, recipe, CPU, 2)
    inputs = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    logits = trainer.forward(inputs)
    return logits.detach(), torch.autograd.grad(logits.sum(), inputs)[0], trainer


def test_a_network_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def compiled(network: nn.Module, **settings: Any) -> nn.Module:
        asked.append(settings)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    logits, gradient, trainer = forward_and_gradient(replace(FLOAT32, compile=True))
    expected, slope, _ = forward_and_gradient(FLOAT32)
    assert torch.equal(logits, expected)
    assert torch.equal(gradient, slope)
    trainer.forward(torch.rand((4, 1, 8, 8)))
    trainer.forward(torch.rand((4, 1, 8, 8)), Tiny())
    assert asked == [{"mode": "default", "dynamic": False}] * 2, "its own network and another"


@pytest.mark.slow
def test_a_compiled_network_computes_the_same() -> None:
    logits, gradient, _ = forward_and_gradient(replace(FLOAT32, compile=True))
    expected, slope, _ = forward_and_gradient(FLOAT32)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(gradient, slope, atol=1e-5)
