"""Networks see every case and every voxel, whole, resized or in patches."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_salm.learning.cases import Cases, View, choose_view, shuffled_batches
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.noise.window import IntensityWindow

quick = settings(max_examples=50, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("shapes", "per_voxel", "options", "view"),
    [
        ([(28, 28)] * 3, False, {}, View("full", (28, 28))),
        ([(28, 28)] * 3, True, {}, View("full", (28, 28))),
        ([(28, 28, 28)], False, {}, View("full", (28, 28, 28))),
        ([(28, 28), (30, 20)], False, {}, View("resize", (28, 20))),
        ([(512, 512)] * 2, False, {}, View("resize", (224, 224))),
        ([(512, 300), (400, 200)], False, {}, View("resize", (224, 200))),
        ([(96, 96, 40)] * 2, False, {}, View("resize", (64, 64, 40))),
        ([(512, 512)] * 2, True, {}, View("patch", (224, 224))),
        ([(96, 96, 40)] * 2, True, {}, View("patch", (64, 64, 32))),
        ([(96, 96, 10), (80, 80, 12)], True, {}, View("patch", (64, 64, 10))),
        ([(28, 28)] * 2, False, {"patch_size": (16, 8)}, View("patch", (16, 8))),
        ([(28, 28)] * 2, False, {"view_size": (56, 14)}, View("resize", (56, 14))),
    ],
)
def test_view_fits_the_data_set(
    shapes: list[tuple[int, ...]], per_voxel: bool, options: dict[str, tuple[int, ...]], view: View
) -> None:
    assert choose_view(shapes, per_voxel, **options) == view


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": (29, 8)}, r"patch_size \(29, 8\) is larger than the smallest image \(28, 20\)"),
        ({"patch_size": (8, 8, 8)}, r"patch_size must be 2 positive numbers, got \(8, 8, 8\)"),
        ({"patch_size": (8, 0)}, "patch_size must be 2 positive numbers"),
        ({"view_size": (8,)}, "view_size must be 2 positive numbers"),
        ({"view_size": (8, 8)}, "labels per voxel do not allow; give patch_size"),
        ({"view_size": (8, 8), "patch_size": (8, 8)}, "give patch_size or view_size, not both"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_view([(28, 28), (30, 20)], True, **options)


def test_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="view kind must be full, resize or patch, got 'half'"):
        View("half", (8, 8))


sides = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20)), min_size=2, max_size=3)


@quick
@given(sides)
def test_tiles_cover_every_voxel(sizes: list[tuple[int, int]]) -> None:
    patch, shape = tuple(p for p, _ in sizes), tuple(p + more for p, more in sizes)
    seen = np.zeros(shape, int)
    tiles = View("patch", patch).tiles(shape)
    for tile in tiles:
        assert seen[tile].shape == patch
        seen[tile] += 1
    assert seen.min() >= 1
    if all(n % p == 0 for n, p in zip(shape, patch, strict=True)):
        assert seen.max() == 1


@quick
@given(sides, st.integers(0, 2**32))
def test_random_regions_are_patches_inside_the_image(sizes: list[tuple[int, int]], seed: int) -> None:
    patch, shape = tuple(p for p, _ in sizes), tuple(p + more for p, more in sizes)
    region = View("patch", patch).random_region(shape, generator(seed))
    assert np.zeros(shape)[region].shape == patch
    assert View("full", patch).random_region(shape, generator(seed)) == tuple(slice(0, n) for n in shape)


def test_random_regions_reach_both_ends() -> None:
    draw = generator()
    starts = {tuple(s.start for s in View("patch", (4, 4)).random_region((6, 6), draw)) for _ in range(300)}
    assert starts == set(itertools.product(range(3), range(3)))


@quick
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**32))
def test_every_case_is_visited_in_each_pass(count: int, batch_size: int, seed: int) -> None:
    batches = shuffled_batches(count, batch_size, generator(seed))
    visited = list(itertools.chain.from_iterable(next(batches) for _ in range(3 * count)))
    for start in range(0, len(visited) - count, count):
        assert sorted(visited[start : start + count]) == list(range(count))
    assert len(next(batches)) == min(count, batch_size)
    again = shuffled_batches(count, batch_size, generator(seed))
    assert list(itertools.chain.from_iterable(next(again) for _ in range(3 * count))) == visited


def test_passes_have_different_orders() -> None:
    batches = shuffled_batches(20, 20, generator())
    assert next(batches) != next(batches)


def small_set(shapes: list[tuple[int, ...]], view: View, per_voxel: bool = False) -> Cases:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    if per_voxel:
        labels = [rng.integers(0, 3, shape[1:]).astype(np.uint8) for shape in shapes]
        task: Classification | Segmentation = Segmentation(num_classes=3)
    else:
        labels = [np.array(i % 2, np.int64) for i in range(len(shapes))]
        task = Classification(num_classes=2)
    windows = [IntensityWindow(0, 255)] * len(shapes)
    return Cases(images, labels, [str(i) for i in range(len(shapes))], task, windows, view)


def shown(image: np.ndarray) -> np.ndarray:
    """As networks see it, in the window 0 to 255."""
    return image.astype(np.float32) / np.float32(255)


def test_whole_images_arrive_as_they_are_in_their_window() -> None:
    cases = small_set([(2, 5, 6)] * 3, View("full", (5, 6)))
    whole = (slice(0, 5), slice(0, 6))
    batch = cases.inputs([(2, whole), (0, whole)])
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.numpy(), shown(np.stack([cases.images[2], cases.images[0]])))
    assert cases.targets([(2, whole), (1, whole)]).tolist() == [0, 1]
    assert cases.targets([(2, whole)]).dtype == torch.int64
    assert (len(cases), cases.spatial_dims, cases.in_channels) == (3, 2, 2)


def test_each_image_and_channel_is_seen_in_a_window_of_its_own() -> None:
    cases = small_set([(2, 4, 4)] * 3, View("full", (4, 4)))
    windows = [IntensityWindow(0, 255), IntensityWindow(100, 200), IntensityWindow((0, 50), (10, 60))]
    cases = replace(cases, windows=windows)
    whole = (slice(0, 4), slice(0, 4))
    batch = cases.inputs([(case, whole) for case in range(3)]).numpy()
    assert batch.min() >= 0
    assert batch.max() <= 1
    for image, window, seen in zip(cases.images, windows, batch, strict=True):
        for channel, (low, high) in enumerate(window.channels(2)):
            expected = np.clip((image[channel].astype(float) - low) / (high - low), 0, 1)
            np.testing.assert_allclose(seen[channel], expected, atol=1e-6)


def test_a_longest_side_may_be_given() -> None:
    assert choose_view([(128, 100)] * 2, False, whole_side=64) == View("resize", (64, 64))
    assert choose_view([(128, 100)] * 2, True, whole_side=64) == View("patch", (64, 64))
    assert choose_view([(64, 50)] * 2, False, whole_side=64) == View("full", (64, 50))


def test_mixed_shapes_are_resized_each_on_its_own() -> None:
    shapes = [(1, 8, 8), (1, 5, 6), (1, 8, 8)]
    cases = small_set(shapes, choose_view([s[1:] for s in shapes], False))
    whole = [(i, tuple(slice(0, n) for n in s[1:])) for i, s in enumerate(shapes)]
    batch = cases.inputs(whole)
    assert batch.shape == (3, 1, 5, 6)
    np.testing.assert_array_equal(batch[1].numpy(), shown(cases.images[1]))
    for index in range(3):
        torch.testing.assert_close(batch[index : index + 1], cases.inputs([whole[index]]))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((8, 8), (6, 7)),
        ((32, 32), (8, 8)),
        ((8, 32), (12, 8)),
        ((16, 16, 16), (4, 4, 4)),
        ((16, 12, 6), (4, 5, 6)),
        ((16, 4, 5), (4, 8, 5)),
        ((4, 4, 5), (8, 8, 5)),
    ],
)
def test_resizing_passes_gradients_to_every_voxel(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    images = (torch.rand(2, 1, *shape) + 0.5).requires_grad_()
    resized = View("resize", size).resize(images)
    assert resized.shape == (2, 1, *size)
    assert resized.detach().clamp(0.5, 1.5).allclose(resized.detach())
    resized.square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
    assert View("full", size).resize(images) is images


def test_resizing_keeps_a_ramp() -> None:
    for rank in (2, 3):
        ramp = torch.arange(32.0).view(-1, *[1] * (rank - 1)).expand(*[32] * rank)[None, None]
        small = View("resize", (8,) * rank).resize(ramp)[0, 0]
        inner = small[1:-1].flatten(1)
        torch.testing.assert_close(inner, (4 * torch.arange(1.0, 7) + 1.5)[:, None].expand_as(inner))


def test_large_images_are_brought_to_size_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = small_set([(1, 32, 32)] * 3, View("resize", (8, 8)))
    seen: list[int] = []
    resize = View.resize
    monkeypatch.setattr(View, "resize", lambda view, images: (seen.append(len(images)), resize(view, images))[1])
    whole = (slice(0, 32), slice(0, 32))
    assert cases.inputs([(case, whole) for case in range(3)]).shape == (3, 1, 8, 8)
    assert seen == [1, 1, 1]


def test_patches_take_their_part_of_the_label() -> None:
    cases = small_set([(1, 9, 9, 9), (1, 12, 10, 9)], View("patch", (4, 4, 4)), per_voxel=True)
    draw = generator()
    regions = [(case, cases.view.random_region(cases.images[case].shape[1:], draw)) for case in (0, 1, 1)]
    inputs, targets = cases.inputs(regions), cases.targets(regions)
    assert inputs.shape == (3, 1, 4, 4, 4)
    assert targets.shape == (3, 4, 4, 4)
    for row, (case, region) in enumerate(regions):
        np.testing.assert_array_equal(inputs[row, 0].numpy(), shown(cases.images[case][0][region]))
        np.testing.assert_array_equal(targets[row].numpy(), cases.labels[case][region])


def test_one_tiny_image_does_not_decide_what_networks_see() -> None:
    assert choose_view([(64, 64)] * 5 + [(2, 2)], False) == View("resize", (32, 32))
    assert choose_view([(64, 64)] * 5 + [(60, 50)], False) == View("resize", (60, 50))
    assert choose_view([(16, 16, 1), (16, 1, 16), (20, 20, 2), (1, 1, 40)], False).size == (8, 8, 8)
    assert choose_view([(64, 64, 1), (70, 60, 1)], False) == View("resize", (64, 60, 1))
