"""What the noise costs images is measured by the usual formulas, case by case, in bounded memory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import classification_cases, segmentation_cases
from scipy.ndimage import correlate1d
from scipy.stats import entropy, skew

from monai_salm.evaluation.cost import FEATURES, features, image_cost, radiomics_drift, ssim
from monai_salm.evaluation.sets import ImageSet, noise_size
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

WINDOW = IntensityWindow(0, 255)
TWO = Classification(num_classes=2)


def pair_of_sets(
    images: list[Array],
    noise: list[Any],
    labels: list[Any],
    names: list[str] | None = None,
    window: IntensityWindow = WINDOW,
) -> tuple[ImageSet, ImageSet]:
    names = names or [f"case {i}" for i in range(len(images))]
    noisy = [(i.astype(np.float64) + n).astype(i.dtype) for i, n in zip(images, noise, strict=True)]
    known = [np.asarray(v) for v in labels], names, [window] * len(images), [Units()] * len(images)
    return ImageSet("c", images, *known), ImageSet("p", noisy, *known)


def gaussian_ssim(first: Array, second: Array, sides: list[int]) -> float:
    """The formula of Wang et al. 2004 for values in [0, 1], by separable filters, where the window lies inside."""

    def blurred(values: Array) -> Array:
        for axis, side in enumerate(sides):
            taps = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / 1.5) ** 2)
            values = correlate1d(values, taps / taps.sum(), axis=axis)
        return values[tuple(slice(s // 2, n - s // 2) for s, n in zip(sides, values.shape, strict=True))]

    mean = [blurred(v) for v in (first, second)]
    variance = [blurred(v * v) - m * m for v, m in zip((first, second), mean, strict=True)]
    covariance = blurred(first * second) - mean[0] * mean[1]
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean[0] * mean[1] + c1) * (2 * covariance + c2)
    return float((top / ((mean[0] ** 2 + mean[1] ** 2 + c1) * (variance[0] + variance[1] + c2))).mean())


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((20, 17), [11, 11]), ((6, 7), [5, 7]), ((14, 13, 12), [11, 11, 11]), ((16, 1, 12), [11, 1, 11])],
)
def test_ssim_is_the_formula(shape: tuple[int, ...], sides: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(-50, 150, (2, 1, *shape)).astype(np.int16)
    noisy = (image + rng.integers(-8, 9, image.shape)).astype(np.int16)
    seen = [np.clip(part, 0, 100) / 100 for part in (image, noisy)]
    expected = [gaussian_ssim(seen[0][i, 0], seen[1][i, 0], sides) for i in range(2)]
    window = IntensityWindow(0, 100)
    assert ssim(image, noisy, window) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setitem(ssim.__globals__, "_AT_ONCE", 2)  # slab by slab
    assert ssim(image, noisy, window) == pytest.approx(expected, abs=1e-5)


def test_sizes_of_small_images() -> None:
    images = [np.full((1, 4, 4), 10 * (i + 1), np.uint8) for i in range(3)]
    some = np.zeros((1, 4, 4))
    some[0, 0, :2] = 3, -4
    window = IntensityWindow(0, 100)
    sets = pair_of_sets(images, [0, some, 2], [0, 0, 1], ["a", "b", "c"], window)
    found = image_cost(*sets, TWO, window, native_scale=-0.5, native_unit="HU")
    psnr = [-10 * np.log10(25 / 16 / 100**2), -10 * np.log10(4 / 100**2)]
    assert (found["cases"], found["unchanged"]) == (3, 1)
    assert found["psnr"] == {"mean": pytest.approx(np.mean(psnr)), "worst": pytest.approx(psnr[1]), "worst_case": "c"}
    assert found["psnr"]["mean"] == pytest.approx(noise_size(*sets)["psnr"])
    assert found["l0"] == {"mean": pytest.approx(6), "worst": 16, "worst_case": "c"}
    assert found["share"]["mean"] == pytest.approx((0 + 1 / 8 + 1) / 3)
    assert found["l2"] == {"mean": pytest.approx((0 + 5 + 8) / 3), "worst": pytest.approx(8), "worst_case": "c"}
    assert found["linf"] == {"mean": pytest.approx(2), "worst": 4, "worst_case": "b"}
    assert found["native"]["unit"] == "HU"
    assert found["native"]["linf"] == {"mean": pytest.approx(1), "worst": 2, "worst_case": "b"}
    assert found["by_class"]["0"] == {
        "cases": 2,
        "unchanged": 1,
        "psnr": pytest.approx(psnr[0]),
        "ssim": pytest.approx(ssim(np.stack(sets[0].images[1:2]), np.stack(sets[1].images[1:2]), window)[0], abs=1e-4),
        "l0": 1,
        "share": pytest.approx(1 / 16),
        "l2": 2.5,
        "linf": 4,
    }
    assert found["by_class"]["1"]["psnr"] == pytest.approx(psnr[1])


def test_no_noise_has_no_psnr() -> None:
    image = classification_cases(cases=1)[0]["image"]
    found = image_cost(*pair_of_sets([image] * 2, [0, 0], [0, 1]), TWO, WINDOW)
    assert found["unchanged"] == 2
    assert found["psnr"] == found["ssim"] == {"mean": None, "worst": None, "worst_case": None}
    assert found["linf"]["worst"] == 0
    assert found["by_class"]["0"]["psnr"] is None
    json.dumps(found, allow_nan=False)


def test_voxels_by_class_and_images_by_label() -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[:2] = 1
    image = np.full((2, 6, 6, 6), 100, np.int16)
    noise = np.where(label == 1, 5, 0)
    found = image_cost(*pair_of_sets([image], [noise], [label]), Segmentation(num_classes=3), WINDOW)
    assert list(found["by_class"]) == ["0", "1"]
    nothing = {"psnr": None, "ssim": None, "l0": 0, "share": 0, "l2": 0, "linf": 0}
    assert found["by_class"]["0"] == {"cases": 1, "unchanged": 1, **nothing}
    assert found["by_class"]["1"]["psnr"] == pytest.approx(20 * np.log10(255 / 5))
    assert found["by_class"]["1"]["share"] == 1
    images = [case["image"].astype(np.float32) for case in classification_cases(cases=3)]
    several = Classification(num_classes=3, multi_label=True)
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    found = image_cost(*pair_of_sets(images, [1.5, 0.5, 4], list(labels)), several, WINDOW)
    assert {name: row["cases"] for name, row in found["by_class"].items()} == {"0": 1, "1": 2}
    assert found["by_class"]["1"]["linf"] == 1.5


def test_shapes_may_differ() -> None:
    cases = [classification_cases(shape, cases=1)[0] for shape in ((16, 16), (20, 12), (16, 16))]
    found = image_cost(*pair_of_sets([c["image"] // 2 for c in cases], [1, 2, 3], [0, 1, 0]), TWO, WINDOW)
    alone = image_cost(*pair_of_sets([cases[1]["image"] // 2], [2], [0]), TWO, WINDOW)
    assert found["by_class"]["1"]["psnr"] == pytest.approx(alone["psnr"]["mean"])
    assert found["ssim"]["worst"] <= alone["ssim"]["mean"]


@pytest.mark.parametrize("shape", [(1, 15, 11), (2, 9, 8, 7)])
def test_features_are_the_formulas(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).gamma(2, 40, shape).astype(np.float32)
    window = IntensityWindow(10, 200)
    seen = np.clip(image, 10, 200).astype(np.float64)
    slope = np.sqrt(sum(np.gradient(seen, axis=a) ** 2 for a in range(1, seen.ndim)))
    counts = np.histogram(seen, bins=64, range=(10, 200))[0]
    expected = [seen.mean(), seen.std(), skew(seen.ravel()), entropy(counts, base=2), slope.mean(), slope.std()]
    whole, inside = features(image, window)
    assert whole == pytest.approx(expected, rel=1e-4)
    assert inside is None
    mask = image[0] > 60
    inside = features(image, window, mask)[1]
    assert inside is not None
    expected = [seen[:, mask].mean(), seen[:, mask].std(), skew(seen[:, mask].ravel())]
    assert inside[:3] == pytest.approx(expected, rel=1e-4)
    assert inside[4] == pytest.approx(slope[:, mask].mean(), rel=1e-4)


def test_a_constant_image_has_no_skewness_and_no_entropy() -> None:
    assert features(np.full((1, 8, 8), 77, np.uint8), WINDOW)[0].tolist() == [77, 0, 0, 0, 0, 0]


def test_drift_against_tolerance() -> None:
    images = [case["image"].astype(np.int16) + 10 for case in classification_cases(cases=8)]
    labels = [0] * 8
    same = radiomics_drift(*pair_of_sets(images, [0] * 8, labels), WINDOW)
    assert list(same["features"]) == list(FEATURES)
    assert all(row["within"] and row["drift"] == 0 and row["share_outside"] == 0 for row in same["features"].values())
    assert same["foreground"] is None
    brighter = radiomics_drift(*pair_of_sets(images, [1] * 7 + [9], labels), WINDOW)["features"]
    assert brighter["mean"]["drift"] == pytest.approx(2)
    assert brighter["mean"]["worst"] == pytest.approx(9, rel=1e-3)
    assert brighter["mean"]["worst_case"] == "case 7"
    assert brighter["mean"]["tolerance"] == pytest.approx(0.005 * 255)
    assert not brighter["mean"]["within"]
    assert brighter["mean"]["share_outside"] == pytest.approx(1 / 8)
    between = np.std([i.mean() for i in images], ddof=1)
    assert brighter["mean"]["relative"] == pytest.approx(2 / between, rel=1e-3)
    assert brighter["standard_deviation"]["within"]
    rng = np.random.default_rng(0)
    noisy = radiomics_drift(*pair_of_sets(images, [rng.choice([-8, 8], images[0].shape)] * 8, labels), WINDOW)
    assert not noisy["features"]["gradient_mean"]["within"]
    json.dumps([same, brighter, noisy], allow_nan=False)


def test_drift_inside_the_foreground() -> None:
    cases = segmentation_cases((12, 12, 12), cases=4)
    labels = [case["label"][0] for case in cases]
    labels[3] = np.zeros_like(labels[3])  # nothing to measure there
    noise = [np.where(label == 1, 4, 0) for label in labels]
    images = [case["image"] // 2 for case in cases]
    found = radiomics_drift(*pair_of_sets(images, noise, labels), WINDOW)
    assert found["foreground"]["cases"] == 3
    assert found["foreground"]["features"]["mean"]["drift"] == pytest.approx(4)
    assert found["features"]["mean"]["drift"] < 1
    single = radiomics_drift(*pair_of_sets(images[:1], noise[:1], labels[:1]), WINDOW)
    assert single["features"]["entropy"]["relative"] is None
    json.dumps([found, single], allow_nan=False)
