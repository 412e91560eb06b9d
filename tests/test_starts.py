"""The pattern that a class' noise begins as: of full strength, zero on average, its own for each class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_salm.methods import EM, SALM, BilevelMethod
from monai_salm.methods.starts import class_pattern
from monai_salm.methods.views import cosine_basis, quantisation
from monai_salm.tasks import Classification, Segmentation, Task


@pytest.mark.parametrize(("rank", "count"), [(2, 2), (2, 3), (2, 8), (2, 40), (3, 2), (3, 7), (3, 26), (3, 100)])
def test_classes_have_patterns_of_their_own(rank: int, count: int) -> None:
    patterns = [class_pattern(np.int64(c), (128 if rank == 2 else 32,) * rank, count) for c in range(count)]
    assert all(set(np.unique(pattern)) == {-1, 1} for pattern in patterns)
    assert all(abs(int(pattern.sum(dtype=int))) == 0 for pattern in patterns)
    flat = np.stack([pattern.reshape(-1) for pattern in patterns]).astype(int)
    correlation = flat @ flat.T / flat.shape[1]
    assert np.abs(correlation - np.eye(count)).max() == 0


@pytest.mark.parametrize(("rank", "count"), [(2, 8), (2, 40), (3, 7)])
@pytest.mark.parametrize("plain", [0, 3])
def test_a_plain_class_leaves_the_finest_waves_to_the_others(rank: int, count: int, plain: int) -> None:
    shape = (128 if rank == 2 else 32,) * rank
    others = [c for c in range(count) if c != plain]
    patterns = [class_pattern(np.int64(c), shape, count, plain) for c in others]
    assert not class_pattern(np.int64(plain), shape, count, plain).any()
    assert len({pattern.tobytes() for pattern in patterns}) == len(others)
    checkerboard = 1 - 2 * (np.indices(shape).sum(0) % 2)
    assert np.array_equal(patterns[0], checkerboard)
    if count < 10:
        assert all(any((p == -np.roll(p, 1, axis)).all() for axis in range(rank)) for p in patterns), "period 2 in each"


def test_a_flip_or_a_shift_keeps_a_wave_of_period_two() -> None:
    for number in range(7):
        pattern = class_pattern(np.full((8, 8, 8), number), (8, 8, 8), 7)
        for axis in range(3):
            for other in (np.flip(pattern, axis), np.roll(pattern, 1, axis)):
                assert np.array_equal(other, pattern) or np.array_equal(other, -pattern)


def test_label_map_takes_the_pattern_of_each_voxel_and_leaves_the_background() -> None:
    label = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    found = class_pattern(label, label.shape, 3)
    assert not found[label == 0].any()
    patterns = [class_pattern(np.full_like(label, c), label.shape, 3) for c in range(3)]
    for number in (1, 2):
        assert np.array_equal(found[label == number], patterns[number][label == number])
    assert all(np.abs(pattern).all() for pattern in patterns), "an image of one class, background too, has a pattern"
    assert len({pattern.tobytes() for pattern in patterns}) == 3


def test_start_and_rounds_depend_on_the_task_unless_given() -> None:
    volume, picture = (Segmentation(num_classes=3), 3), (Classification(num_classes=3), 2)

    def settled(method: BilevelMethod, problem: tuple[Task, int]) -> tuple[str, int | None]:
        found = method.resolved(*problem)
        return found.start, found.rounds

    assert settled(SALM(), volume) == ("class", 0)
    assert settled(SALM(rounds=3), volume) == ("class", 3)
    assert settled(SALM(mask_scope="sample"), volume) == ("class", 1)
    assert settled(SALM(start="zero"), volume) == ("zero", 8)
    assert settled(SALM(mask_source="random"), volume) == ("zero", 8), "a control must not become the pattern"
    assert settled(SALM(), picture) == settled(SALM(start="class"), picture) == ("class", 1)
    assert settled(SALM(rounds=0), picture) == ("class", 0), "the pattern alone, without a plain class"
    assert settled(SALM(start="zero"), picture) == settled(SALM(mask_source="random"), picture) == ("zero", 22)
    assert settled(SALM(start="class", target="label"), picture) == ("class", 22)
    assert settled(SALM(perturb_type="classwise"), picture) == ("zero", 22)
    assert settled(SALM(), (Classification(num_classes=3), 3)) == ("class", 1)
    assert settled(SALM(start="zero"), (Classification(num_classes=3), 3)) == ("zero", 8)
    assert settled(SALM(), (Classification(num_classes=3, multi_label=True), 2)) == ("zero", 22)
    assert settled(EM(), volume) == ("zero", 20)
    assert settled(EM(rounds=3), volume) == ("zero", 3)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="one label per image or voxel"):
        SALM(start="class").resolved(Classification(num_classes=3, multi_label=True), 2)
    with pytest.raises(ValueError, match="start must be one of"):
        SALM(start="x")
    with pytest.raises(ValueError, match="would leave no noise"):
        SALM(start="zero", rounds=0)
    with pytest.raises(ValueError, match="rounds of at least 1"):
        SALM(start="class", mask_scope="sample", rounds=0)
    with pytest.raises(ValueError, match="would leave the images of plain_class without noise"):
        SALM(rounds=0, plain_class=1)
    with pytest.raises(ValueError, match="plain_class must be below 3, got 3"):
        SALM(plain_class=3).resolved(Classification(num_classes=3), 2)
    with pytest.raises(ValueError, match="plain_class must be a class number or None, got -1"):
        SALM(plain_class=-1)
    with pytest.raises(ValueError, match=r"views must be names of .*, got fog"):
        SALM(views=("jpeg", "fog"))
    with pytest.raises(ValueError, match="target must be one of"):
        SALM(target="wrong")
    with pytest.raises(ValueError, match='"next" is for labels per image'):
        SALM(target="next").resolved(Segmentation(num_classes=3), 2)


def coarse(label: int, shape: tuple[int, ...], plain: int | None = None) -> np.ndarray:
    return class_pattern(np.int64(label), shape, 64, plain, coarse=True)


@pytest.mark.parametrize("shape", [(32, 32), (24, 16, 3)])
def test_coarse_patterns_tell_64_classes_apart(shape: tuple[int, ...]) -> None:
    patterns = [coarse(label, shape) for label in range(64)]
    assert len({pattern.tobytes() for pattern in patterns}) == 64
    assert all(set(np.unique(pattern)) == {-1, 1} for pattern in patterns)
    assert not coarse(3, shape, plain=3).any()
    assert np.array_equal(coarse(4, shape, plain=3), patterns[4])
    if len(shape) == 3:
        assert all((pattern == pattern[..., :1]).all() for pattern in patterns)
    with pytest.raises(ValueError, match="tell 64 classes apart, label 64 is beyond"):
        coarse(64, shape)


@pytest.mark.parametrize("label", range(8))
def test_every_coarse_texture_survives_jpeg(label: int) -> None:
    """Within 8/255 of grey it moves a coefficient by a quantisation step or is rounded up to one."""
    blocks = torch.from_numpy(8.0 * coarse(label, (8, 8))).float()
    coefficients = cosine_basis() @ blocks @ cosine_basis().T
    assert (coefficients / quantisation(10)).round().any()


def test_settings_that_would_do_nothing_are_refused() -> None:
    images, maps = Classification(num_classes=3), Segmentation(num_classes=3)
    several = Classification(num_classes=3, multi_label=True)
    labels = [np.array([0, 1, 1], np.float32)] * 4
    with pytest.raises(ValueError, match="one label per image or voxel"):
        SALM(start="class").resolved(several, 2, labels)
    for method, task, words in (
        (SALM(views=("jpeg",)), maps, "views choose patterns for labels per image only"),
        (SALM(target="next"), maps, 'target "next" is for labels per image'),
        (SALM(plain_class=1), maps, "plain_class is for labels per image"),
        (SALM(plain_class=1, start="zero"), images, "plain_class is for labels per image"),
        (SALM(perturb_type="classwise", start="class", views=("jpeg",)), images, "takes no views"),
        (SALM(views=("blur",)), Classification(num_classes=65), "tell 64 classes apart, not 65"),
    ):
        with pytest.raises(ValueError, match=words):
            method.resolved(task, 2)


def test_each_surrogate_has_a_round_and_the_rarest_class_stays_plain() -> None:
    labels = [np.array(n) for n in (0, 0, 0, 2, 2, 1, 1, 1)]
    settled = SALM().resolved(Classification(num_classes=4), 2, labels, networks=3)
    assert isinstance(settled, SALM)
    assert (settled.rounds, settled.plain_class, settled.target, settled.start) == (3, 2, "next", "class")
    assert SALM().resolved(Classification(num_classes=4), 2).plain_class is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(64, 64, 2), (28, 28, 1), (1, 28, 28), (28, 28), (16, 16, 16)])
def test_eight_classes_differ_in_thin_volumes_too(shape: tuple[int, ...]) -> None:
    patterns = [class_pattern(np.int64(c), shape, 8, 0).astype(int) for c in range(1, 8)]
    for index, pattern in enumerate(patterns):
        assert len(np.unique(pattern)) == 2, "no mere shift of brightness"
        assert not any(np.array_equal(pattern, sign * other) for other in patterns[:index] for sign in (1, -1))


def test_too_many_classes_for_small_images_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class_pattern(np.int64(3), (9, 7), 90)
    assert "images of shape (9, 7) tell" in caplog.text
    assert "some classes share one" in caplog.text


def test_smoothing_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds 0 chooses none"):
        SALM(rounds=0, mask_smoothing=5)
    with pytest.raises(ValueError, match="rounds 0 chooses none"):
        SALM(mask_smoothing=5).resolved(Segmentation(num_classes=3), 3)


@pytest.mark.parametrize("source", ["random", "foreground"])
def test_controls_take_one_mask_a_sample(source: str) -> None:
    method = SALM(mask_source=source, start="class", mask_scope="sample")
    assert method.resolved(Classification(num_classes=3), 2, [np.int64(c) for c in (0, 1, 2)]).mask_smoothing == 1


def test_smoothed_masks_are_whole_areas() -> None:
    gradient = torch.randn((2, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    labels = [np.int64(c) for c in (0, 1, 2)]

    def neighbours(method: SALM) -> float:
        settled = method.resolved(Classification(num_classes=3), 2, labels)
        mask = settled.choose(gradient, gradient, torch.Generator())
        assert mask is not None
        assert set(mask.flatten(1).sum(1).tolist()) == {round(0.3 * 784)}
        return float((mask[..., 1:] & mask[..., :-1]).sum() / mask.sum())

    areas, scattered = neighbours(SALM(mask_scope="sample")), neighbours(SALM(mask_scope="sample", mask_smoothing=1))
    assert areas > 0.6 > 0.4 > scattered
