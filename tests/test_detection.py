"""Noise that writes the label into images is found, noise that does not is not, and one pattern a class is called so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.evaluation import probes
from monai_salm.evaluation.detection import detect
from monai_salm.evaluation.diversity import NoiseRows, diversity, is_class_wise
from monai_salm.evaluation.probes import group_numbers, sample_image, second_half, stratified
from monai_salm.evaluation.sets import ImageSet
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow

WINDOW = IntensityWindow(0, 255)
TWO = Classification(num_classes=2)


def image_set(cases: list[dict[str, Any]], task: Task, images: list[np.ndarray] | None = None) -> ImageSet:
    images = images or [case["image"] for case in cases]
    labels = [task.check_label(case["label"], case["image"].shape[1:], case["name"]) for case in cases]
    names = [case["name"] for case in cases]
    return ImageSet("set", images, labels, names, [WINDOW] * len(cases), [Units()] * len(cases))


def with_noise(clean: ImageSet, noise: Callable[[int], np.ndarray]) -> ImageSet:
    """The set with ``noise(case)`` added, kept inside the window."""
    images = [
        np.clip(image.astype(np.float64) + noise(i), 0, 255).astype(image.dtype) for i, image in enumerate(clean.images)
    ]
    return replace(clean, role="protected", images=images)


def patterns(shape: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(5).choice([-8, 8], (count, *shape))


def image_noise(clean: ImageSet) -> Callable[[int], np.ndarray]:
    """Noise that has a class's pattern in two thirds of the image and the image's own brightness in the rest."""
    pattern = patterns(clean.images[0].shape, 2)

    def noise(case: int) -> np.ndarray:
        image = clean.images[case].astype(float)
        return np.where(
            np.arange(image.shape[-1]) % 3, pattern[int(clean.labels[case])], 8 * np.sign(image - image.mean())
        )

    return noise


CASES = classification_cases(cases=80)
CLEAN = image_set(CASES, TWO)
SHAPE = CLEAN.images[0].shape
CLASS = patterns(SHAPE, 2)
RNG = np.random.default_rng(3)

CLASS_WISE: dict[str, Callable[[int], np.ndarray]] = {
    "plain": lambda i: CLASS[int(CLEAN.labels[i])],
    "signs flipped": lambda i: CLASS[int(CLEAN.labels[i])] * np.where(RNG.random(SHAPE) < 0.2, -1, 1),
    "masked": lambda i: CLASS[int(CLEAN.labels[i])] * (RNG.random(SHAPE) < 0.3),
    "masked and flipped": lambda i: CLASS[int(CLEAN.labels[i])] * RNG.choice([-1, 0, 0, 0, 1, 1, 1, 1], SHAPE),
}


@pytest.mark.parametrize("name", CLASS_WISE)
def test_one_pattern_a_class_is_called_class_wise(name: str) -> None:
    found = detect(CLEAN, with_noise(CLEAN, CLASS_WISE[name]), TWO, WINDOW)
    assert found["class_wise"]
    assert found["agreement_within"] > 0.3
    assert abs(found["agreement_between"]) < 0.1
    assert found["probes"]["noise"]["linear"] > 0.9
    assert any("the noise is class-wise" in sentence for sentence in found["findings"])
    assert any("the label is written into it" in sentence for sentence in found["findings"])


def test_noise_made_for_the_image_is_not_class_wise() -> None:
    found = detect(CLEAN, with_noise(CLEAN, image_noise(CLEAN)), TWO, WINDOW)
    assert found["agreement_within"] > 0.4
    assert found["image_dependence"] > 0.3
    assert not found["class_wise"]
    assert any("made for" in sentence for sentence in found["findings"])


def test_random_signs_give_nothing_away() -> None:
    rng = np.random.default_rng(1)
    found = detect(CLEAN, with_noise(CLEAN, lambda _: rng.choice([-8, 8], SHAPE)), TWO, WINDOW)
    assert not found["class_wise"]
    assert abs(found["agreement_within"]) < 0.05
    assert abs(found["cosine_within"]) < 0.05
    assert found["probes"]["noise"]["linear"] < 0.75
    assert found["findings"][-1].startswith("the noises of a class have little in common")


def test_no_noise_is_said() -> None:
    found = detect(CLEAN, CLEAN, TWO, WINDOW)
    assert found["findings"] == ["no noise was found: both sets are equal where they were compared"]
    assert not found["class_wise"]
    assert found["agreement_within"] is None
    assert found["cosine_within"] is None
    assert found["probes"]["noise"] == found["probes"]["support"] == {"linear": 0.5, "two_layer": 0.5}
    assert found["probes"]["protected"] == found["probes"]["clean"]
    json.dumps(found, allow_nan=False)


def test_same_seed_same_answer_and_the_global_generator_is_left_alone() -> None:
    protected = with_noise(CLEAN, CLASS_WISE["plain"])
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, second = (detect(CLEAN, protected, TWO, WINDOW, max_cases=40) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.random.get_rng_state())


def test_cases_are_subsampled_by_class() -> None:
    found = detect(CLEAN, with_noise(CLEAN, CLASS_WISE["plain"]), TWO, WINDOW, max_cases=30)
    assert found["cases"] == 30
    assert found["held_out"] == 15


@pytest.mark.parametrize(("dtype", "spatial"), [(np.float32, (8, 8, 8)), (np.int16, (12, 10))])
def test_volumes_and_other_types(dtype: type, spatial: tuple[int, ...]) -> None:
    clean = image_set(classification_cases(spatial, cases=24), TWO)
    clean = replace(clean, images=[image.astype(dtype) for image in clean.images])
    pattern = patterns(clean.images[0].shape, 2)
    found = detect(clean, with_noise(clean, lambda i: pattern[int(clean.labels[i])]), TWO, WINDOW)
    assert found["class_wise"]
    assert found["probes"]["noise"]["linear"] == 1.0
    assert set(found["bias_shift"]) == {"shift", "bound", "clean", "protected", "detected"}
    json.dumps(found, allow_nan=False)


def test_several_labels_an_image() -> None:
    task = Classification(num_classes=3, multi_label=True)
    rng = np.random.default_rng(2)
    cases = [{**case, "label": rng.integers(0, 2, 3)} for case in classification_cases(cases=80)]
    clean = image_set(cases, task)
    pattern = patterns(SHAPE, 3)
    found = detect(
        clean, with_noise(clean, lambda i: (pattern * clean.labels[i].reshape(3, 1, 1, 1)).sum(0)), task, WINDOW
    )
    assert found["chance"] == 0.5
    assert found["probes"]["noise"]["linear"] > 0.95
    assert found["probes"]["clean"]["linear"] < 0.8
    assert found["class_wise"]


@pytest.mark.parametrize("spatial", [(24, 24), (14, 14, 14)])
def test_labels_per_voxel(spatial: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_PATCHES", 400)
    task = Segmentation(num_classes=3)
    clean = image_set(segmentation_cases(spatial, cases=10, num_classes=3), task)
    stripes = [np.where(np.indices(spatial)[axis] % 2, 8, -8) for axis in (0, 1)]
    shortcut = with_noise(clean, lambda i: np.choose(clean.labels[i], [0 * stripes[0], *stripes])[None])
    found = detect(clean, shortcut, task, WINDOW)
    assert found["sees"] == "patches"
    assert found["bias_shift"] is None
    assert found["class_wise"]
    assert found["agreement_within"] == pytest.approx(1.0)
    assert found["probes"]["noise"]["two_layer"] > found["probes"]["random_noise"]["two_layer"] + 0.2
    rng = np.random.default_rng(4)
    random = detect(clean, with_noise(clean, lambda i: rng.choice([-8, 8], (1, *spatial))), task, WINDOW)
    assert not random["class_wise"]
    json.dumps([found, random], allow_nan=False)


def test_shapes_may_differ_and_two_cases_are_too_few() -> None:
    first, second = classification_cases((16, 16), cases=20), classification_cases((20, 17), cases=20)
    clean = image_set([*first, *second], TWO)
    rng = np.random.default_rng(1)
    noisy = with_noise(clean, lambda i: rng.choice([-8, 8], clean.images[i].shape))
    assert not detect(clean, noisy, TWO, WINDOW)["class_wise"]
    one, other = (replace(s, images=s.images[:1], labels=s.labels[:1], names=s.names[:1]) for s in (clean, noisy))
    found = detect(one, other, TWO, WINDOW)
    assert found["probes"]["noise"]["linear"] is None
    assert found["findings"] == ["too few cases for probes: nothing was held out"]
    json.dumps(found, allow_nan=False)


def test_pair_means_are_means_over_pairs() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-2, 3, (9, 20)).astype(np.float32)
    groups = np.array([0, 1, 2] * 3)
    found = diversity(NoiseRows(noise, np.ones(noise.shape, bool), rng.random((9, 20)).astype(np.float32), groups), 0)
    cosines: dict[bool, list[float]] = {True: [], False: []}
    signs: dict[bool, list[float]] = {True: [], False: []}
    for i in range(9):
        for j in range(i):
            same = bool(groups[i] == groups[j])
            cosines[same].append(noise[i] @ noise[j] / np.linalg.norm(noise[i]) / np.linalg.norm(noise[j]))
            product = np.sign(noise[i] * noise[j])
            signs[same] += product[product != 0].tolist()
    assert found["cosine_within"] == pytest.approx(np.mean(cosines[True]), abs=1e-5)
    assert found["cosine_between"] == pytest.approx(np.mean(cosines[False]), abs=1e-5)
    assert found["agreement_within"] == pytest.approx(np.mean(signs[True]), abs=1e-5)
    assert found["agreement_between"] == pytest.approx(np.mean(signs[False]), abs=1e-5)
    rest = sum(3 * noise[groups == g].var(axis=0, ddof=1).sum() for g in range(3))
    assert found["class_share"] == pytest.approx(1 - rest / (noise**2).sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        # agreement within and between, dependence and its spread, as measured on brain28 (docs/experiments.md)
        ((0.771, -0.088, 0.284, 0.001), False),
        ((0.528, -0.038, 0.311, 0.002), False),
        ((0.221, -0.009, 0.143, 0.002), False),
        ((1.0, 0.003, None, None), True),
        ((0.360, 0.001, -0.004, 0.003), True),
        ((0.360, 0.001, 0.000, 0.002), True),
        ((0.330, 0.002, 0.000, 0.002), True),
        ((0.000, 0.000, 0.000, 0.002), False),
        # few cases: only what is much alike is called so
        ((0.2, 0.0, 0.0, 0.05), False),
        ((0.4, 0.0, 0.1, 0.05), True),
        # equal noise for all classes is not one pattern a class
        ((1.0, 1.0, None, None), False),
        ((None, None, None, None), False),
    ],
)
def test_rule_for_class_wise(measured: tuple[float | None, ...], expected: bool) -> None:
    assert is_class_wise(*measured) is expected


def test_choosing_cases() -> None:
    groups = group_numbers([np.asarray(v) for v in [0] * 60 + [5] * 30 + [7]])
    assert np.bincount(groups).tolist() == [60, 30, 1]
    chosen = stratified(groups, 30, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 30
    assert abs(np.bincount(groups[chosen], minlength=3)[1] - 10) <= 1
    held = second_half(groups, np.random.default_rng(0))
    assert np.bincount(groups[held], minlength=3)[:2].tolist() == [30, 15]


def test_picked_voxels_keep_their_values() -> None:
    image = np.arange(2 * 50 * 40).reshape(2, 50, 40)
    small = sample_image(image, 32)
    assert small.shape == (2, 32, 32)
    assert np.isin(small, image).all()
    assert np.array_equal(sample_image(image[:, :32, :32], 32), image[:, :32, :32])
