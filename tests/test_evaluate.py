"""The evaluator measures what it says, refuses sets that would mislead, and flags victims that prove nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.cases import Cases, View
from monai_salm.evaluate import EvaluationError, UnlearnabilityReport, evaluate
from monai_salm.evaluate.sets import ImageSet, noise_size, random_noise
from monai_salm.evaluate.victims import (
    VICTIM_SEED,
    Setting,
    choose_victims,
    default_epochs,
    guessing_score,
    train_victim,
)
from monai_salm.intensity import IntensityWindow
from monai_salm.methods.base import Job
from monai_salm.progress import Progress
from monai_salm.store import Noise, NoiseStore
from monai_salm.tasks import Classification, LabelError, Segmentation
from monai_salm.training import Recipe

Data = list[dict[str, Any]]
WINDOW = IntensityWindow(0, 255)
TWO = Classification(num_classes=2)
FAST = Recipe(optimizer="adam", lr=3e-3, batch_size=16, precision="float32")
QUICK: dict[str, Any] = {
    "task": TWO,
    "window": WINDOW,
    "victims": ("resnet10",),
    "seeds": (0,),
    "epochs": 6,
    "width": 0.1,
    "recipe": FAST,
    "device": "cpu",
}


def with_images(cases: Data, images: list[np.ndarray]) -> Data:
    return [{**case, "image": image} for case, image in zip(cases, images, strict=True)]


def noisy(cases: Data, seed: int = 9) -> Data:
    return with_images(cases, random_noise([case["image"] for case in cases], WINDOW, 8 / 255, seed))


def shortcut(cases: Data) -> Data:
    """A perfectly unlearnable set for a small network: the class is written into the images, within the budget."""
    images = []
    for case in cases:
        sign = np.where(np.indices(case["image"].shape).sum(0) % 2, 1, -1) * (1 if case["label"] else -1)
        images.append(np.clip(case["image"].astype(int) + 8 * sign, 0, 255).astype(np.uint8))
    return with_images(cases, images)


CLEAN, TEST = classification_cases(cases=48), classification_cases(cases=32, seed=1)


@pytest.fixture(scope="module")
def report() -> UnlearnabilityReport:
    return evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **QUICK)


def test_cells_say_everything(report: UnlearnabilityReport) -> None:
    assert [cell["data"] for cell in report.cells] == ["clean", "random_noise", "protected"]
    for cell in report.cells:
        assert cell["victim"] == "resnet10"
        assert (cell["seed"], cell["countermeasure"], cell["augment"], cell["fraction"]) == (0, "none", "none", 1.0)
        assert len(cell["curve"]) == len(cell["train_curve"]) == 6
        assert cell["last"] == cell["curve"][-1] == cell["scores"]["accuracy"]
        assert cell["peak"] == max(cell["curve"])
        assert cell["train_score"] == cell["train_curve"][-1]
    assert (report.chance, report.majority, report.metric) == (0.5, 0.5, "accuracy")
    assert report.seconds > 0.05
    assert report.noise["linf"] == pytest.approx(8 / 255)


def test_clean_images_are_learned(report: UnlearnabilityReport) -> None:
    found = report["resnet10", "none"]
    assert found["clean"]["last"] >= 0.9
    assert found["random_noise"]["last"] >= 0.9
    assert not found["clean"]["undertrained"]


def test_noise_of_zeros_scores_as_clean() -> None:
    report = evaluate(clean=CLEAN, protected=[dict(c) for c in CLEAN], test=TEST, controls=(), **QUICK)
    clean, protected = report.cells
    assert clean["curve"] == protected["curve"]
    assert clean["train_curve"] == protected["train_curve"]
    assert report.grade() == "learnable"
    assert report.noise == {"linf": 0.0, "psnr": None, "support": 0.0, "unchanged": 48}
    assert "0.0000 of the window" in report.warnings()[0]
    assert report.warnings()[1].startswith("48 cases of the protected set carried no noise")
    json.loads(report.to_json())


def test_same_call_same_cells(report: UnlearnabilityReport) -> None:
    torch.manual_seed(123)  # the global generator must not matter, nor be touched
    before = torch.random.get_rng_state()
    again = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **QUICK)
    assert again.cells == report.cells
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_learning_rate_of_zero_is_flagged() -> None:
    recipe = Recipe(optimizer="adam", lr=0.0, batch_size=16, precision="float32")
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **{**QUICK, "recipe": recipe, "epochs": 2})
    assert all(cell["undertrained"] for cell in report.cells)
    assert report.grade() == "inconclusive"
    assert report.verdict().startswith("Inconclusive")
    assert len(report.warnings()) == 3
    assert "undertrained" in report.warnings()[0]
    assert "*" in report.table()


def test_a_training_score_that_is_not_a_number_is_flagged(report: UnlearnabilityReport) -> None:
    values = {name: getattr(report, name) for name in ("metric", "chance", "majority", "guessing", "seconds", "noise")}
    cells = [{**cell, "train_score": float("nan")} for cell in report.cells]
    broken = UnlearnabilityReport(**values, protocol=report.protocol, cells=cells)
    assert broken.grade() == "inconclusive"
    json.loads(broken.to_json())


@pytest.mark.parametrize("role", ["clean", "protected"])
def test_training_image_in_the_test_set_is_refused(role: str) -> None:
    protected = noisy(CLEAN)
    test = [*TEST, (CLEAN if role == "clean" else protected)[3]]
    with pytest.raises(EvaluationError, match=f"is the {role} training case 'case_0_003'") as caught:
        evaluate(clean=CLEAN, protected=protected, test=test, **QUICK)
    assert ("noise on the test set is refused" in str(caught.value)) == (role == "protected")


def test_test_set_that_the_store_protected_is_refused(tmp_path: Path) -> None:
    image = TEST[0]["image"]
    noise = Noise.of(image, np.where(image < 200, 8, 0).astype(np.int8), 1.0, "test 0")
    store = NoiseStore.create(tmp_path / "noise.db", {"window": [0, 255]})
    store.add([noise])
    test = [{**TEST[0], "image": noise.apply(image)}, *TEST[1:]]
    with pytest.raises(EvaluationError, match=r"carries noise of .*: noise on the test set is refused"):
        evaluate(clean=CLEAN, protected=noisy(CLEAN), test=test, store=store, **QUICK)


def test_sets_that_do_not_belong_together_are_refused() -> None:
    protected = noisy(CLEAN)
    relabelled = [{**protected[0], "label": 1 - protected[0]["label"]}, *protected[1:]]
    cropped = [{**protected[0], "image": protected[0]["image"][:, 1:]}, *protected[1:]]
    for wrong, message in (
        (protected[:-1], "48 clean and 47 protected cases"),
        (relabelled, "case 'case_0_000' has another label"),
        (cropped, r"\(1, 16, 16\) in the clean set and \(1, 15, 16\)"),
        (protected[::-1], "changed by .* of the window|another label"),
        (with_images(CLEAN, [c["image"] ^ 32 for c in CLEAN]), "changed by 0.1255 of the window, epsilon is 0.0314"),
    ):
        with pytest.raises(EvaluationError, match=message):
            evaluate(clean=CLEAN, protected=wrong, test=TEST, **QUICK)


@pytest.mark.parametrize("role", ["clean", "protected", "test"])
def test_empty_set_is_refused(role: str) -> None:
    sets = {"clean": CLEAN, "protected": CLEAN, "test": TEST, role: []}
    with pytest.raises(EvaluationError, match=f"the {role} set is empty"):
        evaluate(**sets, **QUICK)


def test_case_without_a_key_is_named() -> None:
    with pytest.raises(
        EvaluationError, match="test case '0' has no 'label', only \\['image'\\]: set image_key and label_key"
    ):
        evaluate(clean=CLEAN, protected=CLEAN, test=[{"image": TEST[0]["image"]}], **QUICK)


def test_label_outside_the_task_is_refused() -> None:
    with pytest.raises(LabelError, match="test case 'x'"):
        evaluate(clean=CLEAN, protected=CLEAN, test=[{**TEST[0], "label": 2, "name": "x"}], **QUICK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": np.full((1, 16, 16), np.nan, np.float32)}, "test case 'x' holds NaN, infinite values or no numbers"),
        ({"image": np.full((1, 16, 16), np.inf)}, "test case 'x' holds NaN, infinite values or no numbers"),
        ({"image": np.full((1, 16, 16), "a")}, "test case 'x' holds NaN, .*dtype <U1"),
        ({"image": torch.zeros(1, 16, 16, dtype=torch.bfloat16)}, "test set, case 'x': bfloat16 is no stored type"),
        ({"image": None}, "test case 'x' holds NaN, .*dtype object"),
    ],
)
def test_images_that_are_no_finite_numbers_are_refused(wrong: dict[str, Any], message: str) -> None:
    test = [*TEST, {"label": 0, "name": "x", **wrong}]
    with pytest.raises(EvaluationError, match=message):
        evaluate(clean=CLEAN, protected=CLEAN, test=test, **QUICK)


def test_items_that_are_no_dictionaries_are_refused() -> None:
    pairs: Any = [(case["image"], case["label"]) for case in TEST]
    with pytest.raises(EvaluationError, match="test set, case 0: the data set must give dictionaries, got tuple"):
        evaluate(clean=CLEAN, protected=CLEAN, test=pairs, **QUICK)
    with pytest.raises(EvaluationError, match=r"test set, case 0: no key 'image'; its keys are \['scan'\]"):
        evaluate(clean=CLEAN, protected=CLEAN, test=[{"scan": 0}], **QUICK)


def test_size_of_the_noise() -> None:
    images = [np.full((1, 2, 2), 10, np.uint8)] * 3
    noisy_images = [images[0], images[1] + np.uint8(2), images[2] - np.array([[[4, 0], [0, 0]]], np.uint8)]
    sets = [ImageSet(role, part, [], []) for role, part in (("clean", images), ("protected", noisy_images))]
    found = noise_size(*sets, IntensityWindow(0, 100))
    assert found["unchanged"] == 1
    assert found["linf"] == pytest.approx(0.04)
    assert found["support"] == pytest.approx((0 + 1 + 0.25) / 3)
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.02**2))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"victims": ("resnet99",)}, "unknown victim 'resnet99' for classification; known: resnet10, .*vgg11"),
        ({"victims": ("unet",)}, "unknown victim 'unet' for classification"),
        ({"countermeasures": ("prayer",)}, "unknown countermeasure 'prayer'; known: none, jpeg, blur"),
        ({"controls": ("sham",)}, "unknown control 'sham'; known: random_noise"),
        ({"augment": "wild"}, "unknown augment 'wild'; known: none, standard"),
        ({"seeds": ()}, "at least one"),
        ({"epochs": 0}, "at least one"),
        ({"patch_size": (8, 8)}, "one answer per image; give view_size"),
    ],
)
def test_wrong_setting_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(clean=CLEAN, protected=CLEAN, test=TEST, **{**QUICK, **setting})


def test_countermeasures_seeds_and_progress() -> None:
    seen: list[Progress] = []
    settings = {**QUICK, "epochs": 1, "seeds": (0, 1), "countermeasures": ("none", "blur"), "augment": "standard"}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, progress=seen.append, **settings)
    kinds = [(c["data"], c["countermeasure"], c["seed"]) for c in report.cells]
    pairs = [
        ("clean", "none"),
        ("random_noise", "none"),
        ("protected", "none"),
        ("clean", "blur"),
        ("protected", "blur"),
    ]
    assert kinds == [(*pair, seed) for pair in pairs for seed in (0, 1)]
    assert [p.done for p in seen] == list(range(1, 11))
    assert {p.total for p in seen} == {10}
    assert report["resnet10", "blur"]["clean"]["seeds"] == 2
    assert report["resnet10", "blur"]["clean"]["last_sd"] is not None
    assert "protected + blur" in report.table()
    with pytest.raises(KeyError, match="no cell for"):
        report["resnet10", "jpeg"]


@pytest.mark.parametrize("spatial", [(16, 16), (8, 8, 8)])
def test_segmentation(spatial: tuple[int, ...]) -> None:
    clean, test = segmentation_cases(spatial, 6), segmentation_cases(spatial, 3, seed=1)
    settings = {**QUICK, "task": Segmentation(num_classes=2), "victims": None, "epochs": 2, "recipe": None}
    report = evaluate(clean=clean, protected=noisy(clean), test=test, **settings)
    assert {cell["victim"] for cell in report.cells} == {"unet", "segresnet"}
    assert report.metric == "dice"


def test_volumes_and_tensors() -> None:
    clean, test = classification_cases((8, 8, 8), 8), classification_cases((8, 8, 8), 4, seed=1)
    tensors = [{**case, "image": torch.from_numpy(case["image"])} for case in clean]
    report = evaluate(clean=tensors, protected=noisy(clean), test=test, **{**QUICK, "epochs": 1})
    assert len(report.cells) == 3


def test_random_noise_uses_the_whole_budget() -> None:
    image = np.full((1, 32, 32), 100, np.uint8)
    (result,) = random_noise([image], WINDOW, 8 / 255, 0)
    assert set(np.unique(result)) == {92, 108}
    np.testing.assert_array_equal(result, random_noise([image], WINDOW, 8 / 255, 0)[0])
    assert not np.array_equal(result, random_noise([image], WINDOW, 8 / 255, 1)[0])


def test_victims_start_far_from_surrogates(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    manual_seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), manual_seed(seed))[1])
    images = [case["image"] for case in CLEAN]
    labels = [np.asarray(case["label"], np.int64) for case in CLEAN]
    cases = Cases(images, labels, [case["name"] for case in CLEAN], TWO, WINDOW, View("full", (16, 16)))
    setting = Setting(recipe=FAST, epochs=1, width=0.1, device=torch.device("cpu"), augment=None)
    train_victim("resnet10", 3, cases, cases, setting, lambda epoch: None)
    assert seeds == [VICTIM_SEED + 3]
    unused: Any = None
    jobs = [Job(cases, unused, unused, unused, FAST, torch.device("cpu"), seed, unused) for seed in (0, 1, VICTIM_SEED)]
    surrogates = {job.derive(0, number) for job in jobs for number in range(200)}  # as the bilevel loop seeds them
    assert len(surrogates) == 600
    assert min(abs(seed - VICTIM_SEED) for seed in surrogates) > 10_000
    assert default_epochs(cases, FAST, "none") == 80  # 3 steps a pass, 240 at least
    assert default_epochs(cases, Recipe(batch_size=1), "standard") == 20


def test_default_victims_fit_the_task() -> None:
    assert choose_victims(None, TWO) == ("resnet18", "vgg11")
    assert choose_victims(None, Segmentation(num_classes=3)) == ("unet", "segresnet")


def test_guessing_score() -> None:
    assert guessing_score([np.asarray(v) for v in (0, 0, 0, 1)]) == 0.75
    assert guessing_score([np.array([[0, 0], [0, 2]], np.uint8)]) == 0.75
    assert guessing_score([np.array([1, 0], np.float32), np.array([1, 1], np.float32)]) == 0.75
