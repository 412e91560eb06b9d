"""Textures of a class: secret without the originals, of their own for each class, coarse enough for the training resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from monai_salm.learning.cases import Cases, View
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.methods import SALM, ClassTexture, ErrorMinimizing
from monai_salm.methods.job import Job
from monai_salm.methods.salm import MaskedTexture
from monai_salm.methods.textures import (
    Wave,
    area_numbers,
    stored_periods,
    texture,
    texture_key,
    waves_of,
)
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.units import Units
from monai_salm.noise.window import FixedWindow, IntensityWindow

DIGESTS = [bytes([number] * 16) for number in range(5)]
KEY = texture_key(0, DIGESTS)


def all_textures(count: int, shape: tuple[int, ...], key: bytes = KEY, period: float = 6.0) -> list[np.ndarray]:
    return [texture(wave, shape, (period,) * len(shape)) for wave in waves_of(key, count, len(shape))]


# ---------------------------------------------------------------------------------------------------------------------
# The key


def test_the_key_follows_from_the_seed_and_all_images_in_any_order() -> None:
    assert texture_key(0, DIGESTS) == texture_key(0, DIGESTS[::-1]) == KEY
    others = [
        texture_key(1, DIGESTS),
        texture_key(0, DIGESTS[1:]),
        texture_key(0, [*DIGESTS[1:], bytes(16)[:15] + b"x"]),
    ]
    assert len({KEY, *others}) == 4
    assert all(len(key) == 32 for key in others)


@pytest.mark.parametrize(("rank", "count"), [(2, 2), (2, 9), (3, 4)])
def test_another_key_gives_other_textures(rank: int, count: int) -> None:
    """The originals decide which texture a class has, and with which sign. Another key meets the same one at times."""
    shape = (48,) * rank
    mine, likeness = all_textures(count, shape), []
    for index in range(40):
        theirs = all_textures(count, shape, texture_key(0, [*DIGESTS, bytes([index] * 8 + [9] * 8)]))
        likeness += [float(np.mean(a * b)) for a, b in zip(mine, theirs, strict=True)]
    assert abs(np.mean(likeness)) < 0.2
    assert np.mean(np.asarray(likeness) > 0.9) < 0.4, "one axis of two, and one sign of two"


def test_which_class_has_which_axis_follows_from_the_key() -> None:
    axes = {waves_of(texture_key(seed, DIGESTS), 2, 2)[0].axes for seed in range(20)}
    assert axes == {(0,), (1,)}
    phases = [waves_of(texture_key(seed, DIGESTS), 2, 2)[0].phases[0] for seed in range(100)]
    assert 30 < np.count_nonzero(phases) < 70
    assert set(phases) == {0, 0.5}, "the sign"


def test_same_key_same_bytes() -> None:
    shape, periods = (40, 30), (6.0, 6.0)
    for make in (
        lambda: all_textures(7, shape)[3],
        lambda: area_numbers(KEY, shape, periods, 3),
    ):
        first = make().tobytes()
        waves_of.cache_clear()
        assert make().tobytes() == first


# ---------------------------------------------------------------------------------------------------------------------
# Waves


@pytest.mark.parametrize(
    ("rank", "count"), [(2, 1), (2, 2), (2, 6), (2, 15), (2, 40), (2, 300), (3, 3), (3, 9), (3, 36), (3, 100)]
)
def test_any_number_of_classes_have_textures_of_their_own(rank: int, count: int) -> None:
    shape = (96,) * 2 if rank == 2 else (40,) * 3
    found = all_textures(count, shape)
    assert all(set(np.unique(one).tolist()) == {-1, 1} for one in found)
    assert len({s.tobytes() for one in found for s in (one, -one)}) == 2 * count


@pytest.mark.parametrize("count", [2, 4, 6])
def test_textures_of_few_classes_have_little_in_common(count: int) -> None:
    flat = np.stack([one.reshape(-1) for one in all_textures(count, (96, 96))]).astype(float)
    correlation = np.abs(flat @ flat.T) / flat.shape[1]
    assert (correlation - np.eye(count)).max() < 0.45


def test_few_classes_have_stripes_along_one_axis_which_a_mirror_keeps() -> None:
    for wave in waves_of(KEY, 4, 2):
        assert len(wave.axes) == 1
        stripes = texture(wave, (60, 60), (6.0, 6.0))
        other = 1 - wave.axes[0]
        assert np.array_equal(np.flip(stripes, other), stripes)
        assert (np.diff(stripes, axis=other) == 0).all()


def test_the_sign_turns_twice_a_period() -> None:
    for scale, period in ((1.0, 8.0), (1.5, 8.0), (2.25, 4.0)):
        stripes = texture(Wave((1,), (scale,), (0.1,)), (3, 720), (99.0, period))
        turns = np.count_nonzero(np.diff(stripes[0]))
        assert turns == pytest.approx(2 * 720 / (scale * period), abs=1.01)
        assert np.array_equal(stripes[0], stripes[2])


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("scale", [2, 4])
def test_averaging_to_a_half_and_a_quarter_leaves_the_whole_amplitude(side: int, scale: int) -> None:
    for wave in waves_of(KEY, 6, 2):
        stripes = texture(wave, (side, side), (8.0, 8.0)).astype(float)
        small = stripes.reshape(side // scale, scale, side // scale, scale).mean((1, 3))
        assert (np.abs(small) == 1).all()


def test_a_product_of_two_waves_turns_along_both_axes() -> None:
    one, other = Wave((0,), (1.0,), (0.2,)), Wave((1,), (1.5,), (0.7,))
    both = texture(Wave((0, 1), (1.0, 1.5), (0.2, 0.7)), (30, 30), (6.0, 6.0))
    assert np.array_equal(both, texture(one, (30, 30), (6.0, 6.0)) * texture(other, (30, 30), (6.0, 6.0)))


# ---------------------------------------------------------------------------------------------------------------------
# Scale


@pytest.mark.parametrize(
    ("shape", "factor"), [((64, 64), 2), ((224, 300), 2), ((448, 448), 2), ((896, 1000), 4), ((2240, 3000), 10)]
)
def test_pictures_are_trained_at_half_the_size_or_at_224_pixels(shape: tuple[int, ...], factor: float) -> None:
    assert stored_periods(ClassTexture(period=4.0), shape, Units(), False) == (4.0 * factor,) * 2
    own = ClassTexture(period=4.0, train_side=min(shape) // 3)
    assert stored_periods(own, shape, Units(), False)[0] == pytest.approx(12.0, rel=0.05)


def test_periods_of_volumes_are_whole_voxels_near_the_training_resolution() -> None:
    def periods(*spacing: float, train_spacing: float = 1.0) -> tuple[float, ...]:
        setting = ClassTexture(period=4.0, train_spacing=train_spacing)
        return stored_periods(setting, (64, 64, 20), Units(spacing=spacing), False)

    assert periods(1.0, 1.0, 1.0) == (4.0, 4.0, 4.0)
    assert periods(0.5, 0.5, 3.0) == (8.0, 8.0, 4.0), "fine axes have waves of 4 mm, coarse ones of 4 voxels"
    assert periods(0.7, 0.7, 5.0, train_spacing=1.5) == (8.0, 8.0, 4.0), "whole multiples of the voxel"
    assert periods(1.0, 1.0, 1.0, train_spacing=3.0) == (12.0, 12.0, 12.0)
    assert periods() == (4.0, 4.0, 4.0), "an unknown size counts as 1 mm"


def test_waves_of_volumes_have_the_shortest_period_first() -> None:
    waves = waves_of(KEY, 7, 3)
    assert {wave.scales for wave in waves} == {(1.0,), (1.0, 1.0), (1.0, 1.0, 1.0)}
    assert len({wave.axes for wave in waves}) == 7
    assert len({(wave.axes, wave.scales) for wave in waves_of(KEY, 20, 3)}) == 20


@pytest.mark.parametrize("shape", [(300, 400), (64, 64, 20)])
def test_label_maps_are_learned_at_the_resolution_of_the_files(shape: tuple[int, ...]) -> None:
    found = stored_periods(ClassTexture(period=3.0), shape, Units(spacing=(0.5,) * len(shape)), True)
    assert found == (3.0,) * len(shape)


@pytest.mark.parametrize(("rank", "count"), [(2, 3), (2, 30), (3, 5), (3, 60)])
def test_textures_of_label_maps_turn_along_all_axes_so_that_small_regions_show_them(rank: int, count: int) -> None:
    waves = waves_of(KEY, count, rank, crossed=True)
    assert len({texture(wave, (40,) * rank, (6.0,) * rank).tobytes() for wave in waves}) == count
    full = 4**rank
    assert sum(len(wave.axes) == rank for wave in waves) >= min(count, full)


# ---------------------------------------------------------------------------------------------------------------------
# What the noise of an image begins as


def job_of(task: Task, key: bytes = KEY, plain: int | None = None) -> Job:
    """A job without data: all that textures need of one."""
    cases = Cases([], [], [], task, [], View("full", (48, 48)))
    device = torch.device("cpu")
    space: Any = None
    return Job(cases=cases, workspace=space, recipe=Recipe(), device=device, seed=0, key=key, plain_class=plain)


def start(label: Any, task: Task, shape: tuple[int, ...] = (1, 48, 48), **options: Any) -> np.ndarray:
    """The signs that the noise of an image begins as, of its first channel."""
    setting = options.pop("setting", ClassTexture())
    image = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    budget = budget_of(image, FixedWindow(0, float(image.max())), Units(), 8 / 255)
    method = MaskedTexture(texture=setting, restart_every=1)
    codes = method.start(image, np.asarray(label), budget, job_of(task, **options))
    assert codes is not None
    assert codes.shape in (shape, (1, *shape[1:]))
    assert set(np.abs(codes).ravel().tolist()) <= {0, budget.grid.max_codes[0]}, "full strength or none"
    return np.sign(np.broadcast_to(codes, shape)[0])


FOUR = Classification(num_classes=4)


def test_images_of_a_class_share_its_texture_and_classes_do_not() -> None:
    found = [start(label, FOUR) for label in range(4)]
    assert len({one.tobytes() for one in found}) == 4
    assert not np.array_equal(start(2, FOUR, key=texture_key(1, DIGESTS)), found[2])


def test_all_channels_have_the_texture_each_at_its_own_strength() -> None:
    image = np.concatenate([np.arange(2304).reshape(1, 48, 48), np.arange(2304).reshape(1, 48, 48) * 4]).astype(
        np.int16
    )
    budget = Budget(IntensityWindow((0, 0), (2303, 9212)), budget_of(image, FixedWindow(0, 2303), Units(), 0.01).grid)
    budget = replace(budget, grid=replace(budget.grid, max_codes=(23, 92)))
    method = MaskedTexture(restart_every=1)
    codes = method.start(image, np.asarray(1), budget, job_of(FOUR))
    assert codes is not None
    assert np.abs(codes[0]).min() == np.abs(codes[0]).max() == 23
    assert np.array_equal(codes[1] * 23, codes[0] * 92)


def test_the_plain_class_has_no_texture_but_steps() -> None:
    textured = [start(label, FOUR, plain=1) for label in (0, 2, 3)]
    assert len({one.tobytes() for one in textured}) == 3
    method, image = MaskedTexture(restart_every=1), np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    budget = budget_of(image, FixedWindow(0, 63), Units(), 8 / 63)
    assert method.start(image, np.asarray(1), budget, job_of(FOUR, plain=1)) is None
    assert [method.needs_no_steps(np.asarray(label), 1) for label in range(4)] == [True, False, True, True]
    assert method.needs_no_steps(np.asarray(1), None), "without a plain class all have textures"
    assert method.noise_targets(FOUR, torch.tensor([1])).tolist() == [2], "toward the next class"


def test_the_rarest_class_present_is_plain() -> None:
    def chosen(labels: list[int], method: Any = None, task: Task | None = None) -> int | None:
        return (method or SALM()).plain_class(task or Classification(num_classes=40), [np.asarray(n) for n in labels])

    assert chosen([0, 0, 1, 1, 1]) == 0
    assert chosen([0, 0, 0, 2, 2]) == 2
    assert chosen([1, 1, 1]) == 1
    assert chosen([0, 39, 39, 17, 17]) == 0
    assert chosen([0, 1], SALM(perturbation=ClassTexture(plain=False))) is None
    assert chosen([0, 1], SALM(perturbation=ErrorMinimizing())) is None
    assert chosen([0, 1], task=Classification(num_classes=2, multi_label=True)) is None
    assert chosen([0, 1], task=Segmentation(num_classes=2)) is None


def test_each_label_of_a_map_has_its_texture_where_it_is() -> None:
    task, rng = Segmentation(num_classes=3), np.random.default_rng(0)
    label = rng.integers(0, 3, (48, 48))
    found = start(label, task)
    assert not found[label == 0].any()
    assert found[label > 0].all()
    alone = [start(np.full_like(label, number), task) for number in range(3)]
    for number in (1, 2):
        assert np.array_equal(found[label == number], alone[number][label == number])
    assert all(one.all() for one in alone), "an image of background alone has a texture as well"
    assert len({one.tobytes() for one in alone}) == 3
    volume = rng.integers(0, 3, (12, 14, 16))
    assert start(volume, task, (1, 12, 14, 16))[volume > 0].all()


def test_labels_that_share_an_image_have_areas_of_their_own() -> None:
    task = Classification(num_classes=3, multi_label=True)

    def labels(*positive: int) -> np.ndarray:
        return np.isin(np.arange(3), positive).astype(np.float32)

    alone = [start(labels(number), task) for number in range(3)]
    none = start(labels(), task)
    assert len({one.tobytes() for one in (*alone, none)}) == 4, "an image without any label has a texture of its own"
    both = start(labels(0, 2), task)
    assert both.all()
    first, last = both == alone[0], both == alone[2]
    assert (first | last).all(), "everywhere the texture of one of them"
    for found in (first & ~last, last & ~first):
        assert found.mean() > 0.1, "each has its part"


@pytest.mark.parametrize(
    ("shape", "count"), [((16, 16), 5), ((64, 64), 6), ((128, 128), 14), ((8, 8), 14), ((12, 9, 7), 14)]
)
def test_every_label_that_shares_an_image_has_an_area(shape: tuple[int, ...], count: int) -> None:
    for seed in range(20):
        areas = area_numbers(texture_key(seed, DIGESTS), shape, (8.0,) * len(shape), count)
        assert areas.shape == shape
        assert set(areas.ravel().tolist()) == set(range(count))


@pytest.mark.parametrize("shape", [(64, 64, 1), (64, 1, 64), (30, 30, 30)])
def test_thin_volumes_and_small_voxels_have_waves_all_the_same(shape: tuple[int, ...]) -> None:
    image = np.arange(np.prod(shape)).reshape(1, *shape).astype(np.int32)
    units = Units(spacing=(0.02, 0.02, 0.02))
    budget = budget_of(image, FixedWindow(0, float(image.max())), units, 8 / 255)
    for seed in range(20):
        job = job_of(FOUR, texture_key(seed, DIGESTS))
        found = [MaskedTexture(restart_every=1).start(image, np.asarray(n), budget, job) for n in range(4)]
        assert all((one < 0).any() and (one > 0).any() for one in found), "no texture is a mere brightness"


def test_labels_outside_the_window_leave_the_image_with_a_texture() -> None:
    image = np.zeros((1, 16, 16), np.int16)
    image[0, 4:12, 4:12], image[0, 0] = -900, np.arange(16)
    label = np.zeros((16, 16), np.int64)
    label[5:10, 5:10] = 1
    budget = budget_of(image, FixedWindow(-160, 240), Units(), 8 / 255)
    codes = MaskedTexture(restart_every=1).start(image, label, budget, job_of(Segmentation(num_classes=2)))
    assert codes is not None
    assert budget.effective_codes(image, np.broadcast_to(codes, image.shape)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"period": 1.5}, "period must be finite and at least 2 elements of the training resolution, got 1.5"),
        ({"period": float("inf")}, "period must be finite and at least 2 elements of the training resolution, got inf"),
        ({"train_side": 0}, "train_side must be at least 1, got 0"),
        ({"train_spacing": 0.0}, "train_spacing must be above 0, got 0.0"),
        ({"surrogate_steps": 0}, "surrogate_steps must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_rule_then_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassTexture(**settings)
