"""Pipelines: what an ordinary trainer does to images, the same way each time, with label maps moved along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.evaluation.pipelines import (
    DEFAULT_PIPELINES,
    FAMILIES,
    PIPELINES,
    NnUNet,
    StoredAsJpeg,
    Timm,
    check_pipelines,
    find_pipelines,
)
from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.evaluation.pipelines.medmnist import MedMnist
from monai_salm.evaluation.pipelines.resampling import Resized, Spacing, nearest
from monai_salm.learning.augmentation import rotations, warped
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.noise.window import IntensityWindow

SIZES = {2: (24, 20), 3: (12, 10, 8)}
RANKS = [(name, rank) for name, item in PIPELINES.items() for rank in item.ranks]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(rank: int, channels: int = 1, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images and label maps that say where an image is bright."""
    size = SIZES[rank]
    coarse = torch.rand((count, 1, *[4] * rank), generator=generator(5))
    mode = "bilinear" if rank == 2 else "trilinear"
    images = torch.nn.functional.interpolate(coarse, size, mode=mode, align_corners=False)
    return images.repeat(1, channels, *[1] * rank), (images[:, 0] > 0.5).long()


def make_cases(rank: int, per_voxel: bool, view_size: tuple[int, ...] | None = None, **settings: Any) -> Cases:
    build = segmentation_cases if per_voxel else classification_cases
    raw = build(SIZES[rank], 4)
    task: Task = Segmentation(num_classes=2) if per_voxel else Classification(num_classes=2)
    labels = [task.check_label(case["label"], case["image"].shape[1:], "case") for case in raw]
    images = [case["image"] for case in raw]
    view = choose_view([image.shape[1:] for image in images], per_voxel, view_size=view_size, **settings)
    windows = [IntensityWindow(0, 255)] * len(raw)
    return Cases(images, labels, [case["name"] for case in raw], task, windows, view)


@pytest.mark.parametrize(("name", "rank"), RANKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_keep_their_shape_and_range(name: str, rank: int, channels: int) -> None:
    images, maps = batch(rank, channels)
    before = images.clone()
    for targets in (torch.arange(len(images)) % 2, torch.rand(len(images), 2).round(), maps):
        changed, moved = PIPELINES[name].augment(images, targets, generator())
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
        assert (moved.shape, moved.dtype) == (targets.shape, targets.dtype)
        if targets is not maps:
            assert torch.equal(moved, targets)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("name", "rank"), RANKS)
def test_the_same_seed_changes_a_batch_in_the_same_way(name: str, rank: int) -> None:
    images, maps = batch(rank)
    first, second, other = (PIPELINES[name].augment(images, maps, generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first[0], other[0]) != PIPELINES[name].augments


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("monai", 2),
        ("monai", 3),
        ("torchvision", 2),
        ("torchvision", 3),
        ("nnunet", 2),
        ("nnunet", 3),
        ("auto3dseg", 3),
    ],
)
def test_label_maps_move_with_their_images(name: str, rank: int) -> None:
    """The label is where the image is bright, before and after, but for voxels at its edge."""
    images, maps = batch(rank)
    images = maps[:, None].float() * 0.8 + 0.1
    changed, moved = PIPELINES[name].augment(images, maps, generator())
    # A threshold of each image's own: brightness and contrast are changed too.
    inside = torch.stack(
        [c[0][m == 1].median() if (m == 1).any() else torch.tensor(1.0) for c, m in zip(changed, moved, strict=True)]
    )
    outside = torch.stack(
        [c[0][m == 0].median() if (m == 0).any() else torch.tensor(0.0) for c, m in zip(changed, moved, strict=True)]
    )
    middle = ((inside + outside) / 2).view(-1, *[1] * rank)
    agree = ((changed[:, 0] > middle).long() == moved).float().mean()
    assert not torch.equal(moved, maps)
    assert float(agree) > 0.9
    assert float(((changed[:, 0] > middle).long() == maps).float().mean()) < float(agree) - 0.05


@pytest.mark.parametrize(("angles", "axes"), [([[90.0]], (0, 1)), ([[90.0, 0, 0]], (1, 2)), ([[0, 0, 90.0]], (0, 1))])
def test_a_quarter_turn_is_exact(angles: list[list[float]], axes: tuple[int, int]) -> None:
    rank = 2 if len(angles[0]) == 1 else 3
    images = torch.rand((1, 1, *[6] * rank), generator=generator())
    turned, labels = warped(images, images[:, 0].mul(10).long(), rotations(torch.deg2rad(torch.tensor(angles))))
    expected = {tuple(torch.rot90(images[0, 0], k, axes).flatten().tolist()) for k in (1, -1)}
    found = [e for e in expected if torch.allclose(turned.flatten(), torch.tensor(e), atol=1e-4)]
    assert len(found) == 1
    assert torch.equal(labels.flatten(), torch.tensor(found[0]).mul(10).long())


@pytest.mark.parametrize("per_voxel", [False, True])
@pytest.mark.parametrize(("name", "rank"), RANKS)
def test_test_images_go_the_way_of_training_images(name: str, rank: int, per_voxel: bool) -> None:
    cases, pipeline = make_cases(rank, per_voxel), PIPELINES[name]
    before = [image.copy() for image in cases.images]
    trained, scored = pipeline.prepare(cases), pipeline.prepare_test(cases)
    assert trained.view.size == scored.view.size
    for found in (trained, scored):
        everywhere = [(i, tuple(slice(0, n) for n in image.shape[1:])) for i, image in enumerate(found.images)]
        inputs = found.inputs(everywhere)
        assert inputs.shape[2:] == found.view.size
        assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 1
        if per_voxel:
            assert [label.shape for label in found.labels] == [image.shape[1:] for image in found.images]
            assert {label.dtype for label in found.labels} == {cases.labels[0].dtype}
    assert all(np.array_equal(a, b) for a, b in zip(cases.images, before, strict=True))


@pytest.mark.parametrize(
    ("pipeline", "rank", "size"),
    [
        (Resized(scale=0.5), 2, (12, 10)),
        (Resized(scale=1.15), 2, (28, 23)),
        (Resized(scale=0.5), 3, (6, 5, 4)),
        (Spacing(factor=1.25), 3, (10, 8, 6)),
    ],
)
def test_resampling_changes_the_size_and_keeps_labels_in_place(
    pipeline: Pipeline, rank: int, size: tuple[int, ...]
) -> None:
    cases = make_cases(rank, per_voxel=True)
    found = pipeline.prepare(cases)
    assert found.view.size == size
    for image, label in zip(found.images, found.labels, strict=True):
        assert image.dtype == np.float32
        bright = image[0] > (image[0][label == 1].mean() + image[0][label == 0].mean()) / 2
        assert (bright == (label == 1)).mean() > 0.85


def test_a_resized_view_is_scaled_from_the_whole_image() -> None:
    cases = make_cases(2, per_voxel=False, view_size=(16, 16))
    found = Resized(scale=0.5).prepare(cases)
    assert (found.view.kind, found.view.size) == ("full", (8, 8))
    assert found.images[0].mean() == pytest.approx(cases.images[0].mean() / 255, abs=0.01)


def test_patches_shrink_where_they_do_not_fit() -> None:
    cases = make_cases(2, per_voxel=True, patch_size=(16, 16))
    assert Resized(scale=1.15).prepare(cases).view.size == (16, 16)
    small = Resized(scale=0.5).prepare(cases)
    assert all(side <= least for side, least in zip(small.view.size, (12, 10), strict=True))


def test_nearest_neighbours_are_torchs() -> None:
    label = np.arange(35, dtype=np.uint8).reshape(5, 7)
    for size in ((3, 9), (5, 7), (1, 2)):
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(label)[None, None].float(), size, mode="nearest-exact"
        )
        assert np.array_equal(nearest(label, size), theirs[0, 0].numpy())


def test_test_images_of_torchvision_are_the_centre() -> None:
    cases = make_cases(2, per_voxel=False)
    found = PIPELINES["torchvision"].prepare_test(cases)
    assert [image.shape for image in found.images] == [(1, 21, 18)] * 4
    assert (found.view.kind, found.view.size) == ("resize", (24, 20))
    assert PIPELINES["torchvision"].prepare_test(make_cases(2, per_voxel=True)).view.kind == "full"


def test_medmnist_repeats_pixels() -> None:
    cases = make_cases(2, per_voxel=True)
    found = MedMnist(size=48).prepare(cases)
    assert (found.view.kind, found.view.size) == ("full", (48, 48))
    assert found.windows == cases.windows
    for before, after in zip(cases.images, found.images, strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after[:, ::2], after[:, 1::2])
        assert set(np.unique(after)) == set(np.unique(before))
    grown = MedMnist(size=3).prepare(cases).images[0]
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(cases.images[0])[None].float(), (3, 3), mode="nearest-exact"
    )
    np.testing.assert_array_equal(grown, theirs[0].numpy())
    with pytest.raises(ValueError, match="size must be at least 1"):
        MedMnist(size=0)


def test_timm_puts_random_pixels_into_boxes_of_some_images() -> None:
    """A flat image shows what was put into it: a box of at most a third of its pixels, all of them different."""
    images = torch.full((400, 1, 32, 32), 0.5)
    changed, _ = Timm(magnitude=0, spread=0, erased=0.5).augment(images, torch.zeros(400), generator())
    spread = changed.flatten(1).std(1)
    boxes = changed[spread > 0.01][:, 0]
    assert len(boxes) / len(images) == pytest.approx(0.5, abs=0.07)
    for box in boxes:
        common = box.flatten().mode().values
        share = float((box != common).float().mean())
        assert 0 < share < 0.45
    whole, _ = Timm(erased=0.0).augment(images, torch.zeros(400), generator())
    assert torch.equal(whole, Timm(erased=0.0).augment(images, torch.zeros(400), generator())[0])


def test_nnunet_changes_the_share_of_images_that_it_says() -> None:
    """Without mirrors, (1 - p) of every step leave 0.14 of the images alone; half of a fourth of these has no mirror either."""
    images = torch.rand((2000, 1, 6, 6), generator=generator())
    changed, _ = NnUNet().augment(images, torch.zeros(2000), generator())
    alone = (changed - images).abs().amax((1, 2, 3)) < 1e-5
    share = 0.8 * 0.8 * 0.9 * (1 - 0.2 * 0.5) * 0.85 * 0.85 * (1 - 0.25 * 0.5) * 0.9 * 0.7 / 4
    assert float(alone.float().mean()) == pytest.approx(share, abs=0.02)


def test_auto3dseg_changes_the_share_of_volumes_that_it_says() -> None:
    volumes = torch.rand((2000, 1, 4, 4, 4), generator=generator())
    changed, _ = PIPELINES["auto3dseg"].augment(volumes, torch.zeros(2000), generator())
    alone = (changed - volumes).abs().amax((1, 2, 3, 4)) < 1e-5
    share = 0.8 * 0.8 * 0.5 * 0.5 * 0.8 / 8  # no step, and none of the mirrors
    assert float(alone.float().mean()) == pytest.approx(share, abs=0.006)


def test_names_stand_for_their_variants() -> None:
    assert list(find_pipelines(None, 2)) == ["plain", "resized 0.5", "resized 0.75", "resized 1.15", "nnunet"]
    assert list(find_pipelines(None, 3))[-2:] == ["spacing 1.25", "spacing 1.5"]
    assert list(find_pipelines(("resized 0.5", "monai"), 2)) == ["plain", "resized 0.5", "monai"]
    assert list(find_pipelines((), 2)) == ["plain"]
    assert set(DEFAULT_PIPELINES[3]) <= set(FAMILIES)
    assert all(item.source and item.spec()["name"] == name for name, item in PIPELINES.items())


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown pipeline 'sleep'; known: plain, monai, resized, .*resized 0\.5"):
        check_pipelines(("plain", "sleep"))
    with pytest.raises(
        ValueError, match=r"'spacing 1\.25' is for images of rank 3, these have 2; give some of plain, monai"
    ):
        find_pipelines(("spacing",), 2)
    with pytest.raises(ValueError, match="scale must be in"):
        Resized(scale=0.0)
    with pytest.raises(ValueError, match="factor must be in"):
        Spacing(factor=0.1)


def test_jpeg_is_stored_on_both_sides() -> None:
    cases = make_cases(2, per_voxel=False)
    pipeline = PIPELINES["jpeg 30"]
    trained, tested = pipeline.prepare(cases), pipeline.prepare_test(cases)
    assert [image.dtype for image in trained.images] == [image.dtype for image in cases.images]
    for before, first, second in zip(cases.images, trained.images, tested.images, strict=True):
        assert not np.array_equal(before, first)
        np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="quality must be in"):
        StoredAsJpeg(quality=0)
