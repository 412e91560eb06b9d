"""What noise is to outlive: every view is what the countermeasure of its name does, and gradients flow where noise can reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.intensity import IntensityWindow
from monai_salm.methods.views import VIEWS, cosine_basis, reached, rounds_differently, see

BYTES, EPSILON = IntensityWindow(0, 255), 8 / 255
FILTERS = ("jpeg", "blur", "median", "resample", "bit_depth", "gamma")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def grainy(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth grey levels with grain, ``(2, 1, *shape)``."""
    rng = np.random.default_rng(0)
    ramp = 40 + 150 * np.linspace(0, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.clip(np.rint(ramp + rng.normal(0, 15, (2, 1, *shape))), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(19, 22), (17, 16, 5)])
def test_a_view_is_its_countermeasure(name: str, shape: tuple[int, ...]) -> None:
    images = grainy(shape)
    seen = VIEWS[name](torch.from_numpy(images) / 255, EPSILON, generator()).numpy() * 255
    expected = np.stack([COUNTERMEASURES[name].filter(image, BYTES) for image in images]).astype(float)
    assert seen.shape == expected.shape
    difference = np.abs(seen - expected)
    if name == "jpeg":  # where a coefficient lies between two steps, whole-number transforms may take the other one
        assert np.quantile(difference, 0.95) <= 1.001
    else:
        assert difference.max() <= (2.6 if name == "gamma" else 1.001)  # the slope of gamma is bounded at black


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(16, 18), (8, 9, 10)])
def test_gradients_flow_and_are_finite(name: str, shape: tuple[int, ...]) -> None:
    images = (torch.from_numpy(grainy(shape)) / 255).requires_grad_(True)
    weights = torch.randn(images.shape, generator=generator())
    (gradient,) = torch.autograd.grad((VIEWS[name](images, EPSILON, generator()) * weights).sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient.flatten(1).any(1).all()
    black = torch.zeros_like(images).requires_grad_(True)
    (gradient,) = torch.autograd.grad((VIEWS[name](black, EPSILON, generator()) * weights).sum(), black)
    assert torch.isfinite(gradient).all()


def test_rounding_passes_gradients_only_where_noise_can_carry_over_a_threshold() -> None:
    stored = grainy((16, 16))
    images = (torch.from_numpy(stored) / 255).requires_grad_(True)
    (gradient,) = torch.autograd.grad(VIEWS["bit_depth"](images, EPSILON, generator()).sum(), images)
    near = rounds_differently(stored, BYTES, EPSILON)
    assert 0 < near.sum() < near.size
    assert np.array_equal(gradient.numpy() != 0, near)
    far = torch.full((1, 1, 8, 8), 1 / 3).requires_grad_(True)  # a level itself: nothing can be reached, so all may try
    (gradient,) = torch.autograd.grad(VIEWS["bit_depth"](far, EPSILON, generator()).sum(), far)
    assert (gradient != 0).all()


def test_jpeg_passes_gradients_only_of_coefficients_that_noise_can_move() -> None:
    images = (torch.from_numpy(grainy((8, 8))) / 255).requires_grad_(True)
    weights = torch.randn(images.shape, generator=generator())
    (gradient,) = torch.autograd.grad((VIEWS["jpeg"](images, EPSILON, generator()) * weights).sum(), images)
    coefficients = (cosine_basis() @ gradient @ cosine_basis().T).abs()
    passing = reached(10, EPSILON)
    assert 0 < passing.sum() < 64
    assert coefficients[..., ~passing].max() < 1e-4
    assert coefficients[..., passing].min() > 1e-4


@pytest.mark.parametrize("count", [4, 5, 7, 8])
def test_a_batch_is_seen_through_every_view_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names, calls = ("none", "blur", "median", "gamma"), []
    for name in names:
        monkeypatch.setitem(VIEWS, name, lambda part, *_, name=name: calls.append((name, len(part))) or part)
    images = torch.rand(count, 1, 8, 8, generator=generator())
    seen, labels = see(names, images, torch.arange(count), EPSILON, generator())
    assert sorted(name for name, _ in calls) == sorted(names)
    assert sum(size for _, size in calls) == count
    assert torch.equal(seen, images)
    assert torch.equal(labels, torch.arange(count))


def test_fewer_images_than_views_are_seen_too() -> None:
    seen, labels = see(("jpeg", "blur", "none"), torch.rand(2, 1, 8, 8), torch.arange(2), EPSILON, generator())
    assert (len(seen), labels.tolist()) == (2, [0, 1])


def test_label_maps_move_along() -> None:
    images = torch.rand(6, 1, 9, 10, generator=generator()) + 0.1
    maps = (images[:, 0] * 100).round().long()
    seen, labels = see(("augment", "none"), images, maps, EPSILON, generator())
    assert torch.equal((seen[:, 0] * 100).round().long(), labels)
    assert not torch.equal(labels, maps)
