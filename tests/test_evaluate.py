"""The evaluator measures what it says, refuses sets that would mislead, and flags victims that prove nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases

from monai_salm.countermeasures import COUNTERMEASURES, Blur, Countermeasure
from monai_salm.evaluation import evaluating, running
from monai_salm.evaluation.evaluating import evaluate
from monai_salm.evaluation.journal import JournalError
from monai_salm.evaluation.predictions import PredictionFolder, predictions_name
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import EvaluationError, ImageSet, noise_size
from monai_salm.evaluation.training_sets import random_noise
from monai_salm.evaluation.victims import (
    VICTIM_SEED,
    ScoredSets,
    Setting,
    default_epochs,
    guessing_score,
    settled_epochs,
    train_victim,
)
from monai_salm.learning.cases import Cases, View
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, LabelError, Segmentation
from monai_salm.learning.trainer import TrainingError
from monai_salm.methods.job import Job
from monai_salm.noise.budget import budget_of
from monai_salm.noise.noise import Noise
from monai_salm.noise.units import Units
from monai_salm.noise.window import ChannelWindows, FixedWindow, IntensityWindow, PercentileWindow
from monai_salm.report import UnlearnabilityReport
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore

Data = list[dict[str, Any]]
WINDOW = IntensityWindow(0, 255)
TWO = Classification(num_classes=2)
FAST = Recipe(optimizer="adam", lr=3e-3, batch_size=16, precision="float32")
SMALL_BATCHES = replace(FAST, batch_size=2)
QUICK: dict[str, Any] = {
    "task": TWO,
    "window": WINDOW,
    "victims": ("resnet10",),
    "pipelines": ("plain",),
    "countermeasures": ("none",),
    "fractions": (1.0,),
    "controls": ("random_noise",),
    "seeds": (0,),
    "epochs": 6,
    "learned": None,
    "width": 0.1,
    "recipe": FAST,
    "device": "cpu",
}


def small_network(spatial_dims: int, in_channels: int, out_channels: int) -> torch.nn.Module:
    """Two convolutions with batch normalisation, which train in no time."""
    layers: list[torch.nn.Module] = []
    for channels in ((in_channels, 16), (16, 16)):
        layers += [torch.nn.Conv2d(*channels, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16 * 9, out_channels))


def with_images(cases: Data, images: list[np.ndarray]) -> Data:
    return [{**case, "image": image} for case, image in zip(cases, images, strict=True)]


def noisy(cases: Data, seed: int = 9) -> Data:
    images = [case["image"] for case in cases]
    return with_images(cases, [random_noise(i, i, budget_of(i, WINDOW, Units(), 8 / 255), seed) for i in images])


def shortcut(cases: Data) -> Data:
    """A perfectly unlearnable set for a small network: the class is written into the images, within the budget."""
    images = []
    for case in cases:
        sign = np.where(np.indices(case["image"].shape).sum(0) % 2, 1, -1) * (1 if case["label"] else -1)
        images.append(np.clip(case["image"].astype(int) + 8 * sign, 0, 255).astype(np.uint8))
    return with_images(cases, images)


CLEAN, TEST = classification_cases(cases=48), classification_cases(cases=32, seed=1)


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of the noise have tests of their own, and would take most of the time."""
    monkeypatch.setattr(evaluating, "detect", lambda *given: {})


@pytest.fixture(scope="module")
def report() -> UnlearnabilityReport:
    return evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **QUICK)


def test_cells_say_everything(report: UnlearnabilityReport) -> None:
    assert [cell["data"] for cell in report.cells] == ["clean", "protected", "random_noise"]
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
    report = evaluate(clean=CLEAN, protected=[dict(c) for c in CLEAN], test=TEST, **{**QUICK, "controls": ()})
    clean, protected = report.cells
    assert clean["curve"] == protected["curve"]
    assert clean["train_curve"] == protected["train_curve"]
    assert report.grade() == "learnable"
    assert (report.utility["agreement"], report.utility["drift"]["accuracy"]) == (1.0, 0.0)
    assert report.noise == {"linf": 0.0, "psnr": None, "support": 0.0, "unchanged": 48, "worst": None}
    assert report.warnings()[0].startswith("THE PROTECTED SET IS IDENTICAL TO THE CLEAN ONE")
    json.loads(report.to_json())


def test_a_protected_set_that_was_rounded_to_nothing_is_flagged() -> None:
    """What is left of the noise where most of it was lost on saving: a pixel here and there."""
    images = [case["image"].copy() for case in CLEAN]
    for image in images[::2]:
        image.flat[0] ^= 1
    settings = {**QUICK, "controls": (), "epochs": 1}
    report = evaluate(clean=CLEAN, protected=with_images(CLEAN, images), test=TEST, **settings)
    assert any("24 cases of the protected set carried no noise" in warning for warning in report.warnings())
    assert any("epsilon is 0.0314" in warning for warning in report.warnings())
    assert report.grade() != "unlearnable"


def test_same_call_same_cells(report: UnlearnabilityReport) -> None:
    torch.manual_seed(123)  # the global generator must not matter, nor be touched
    before = torch.random.get_rng_state()
    again = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **QUICK)
    assert [_timeless(cell) for cell in again.cells] == [_timeless(cell) for cell in report.cells]
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_learning_rate_of_zero_is_flagged() -> None:
    recipe = Recipe(optimizer="adam", lr=0.0, batch_size=16, precision="float32")
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **{**QUICK, "recipe": recipe, "epochs": 2})
    assert all(cell["undertrained"] for cell in report.cells)
    assert report.grade() == "inconclusive"
    assert report.verdict().startswith("Inconclusive")
    assert "undertrained: resnet10 on clean" in report.warnings()[0]
    assert "resnet10 on protected" in report.warnings()[0]
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
    budget = budget_of(image, WINDOW, Units(), 8 / 255)
    noise = Noise.of(image, np.where(image < 200, 8, 0).astype(np.int8), budget, "test 0")
    store = NoiseStore.create(tmp_path / "noise.db", {"window": WINDOW.spec()})
    store.add([noise])
    test = [{**TEST[0], "image": noise.apply(image)}, *TEST[1:]]
    with pytest.raises(EvaluationError, match=r"carries noise of .*: noise on the test set is refused"):
        evaluate(clean=CLEAN, protected=noisy(CLEAN), test=test, store=store, **QUICK)


def of_many_ranges(cases: Data) -> Data:
    """The same images in ranges from 1 to 64 times as wide, as of several scanners; powers of two, so that nothing is rounded."""
    return with_images(cases, [c["image"].astype(np.float32) * 4.0 ** (i % 4) for i, c in enumerate(cases)])


def test_each_image_is_seen_in_its_own_window() -> None:
    """Ranges differ from image to image, and everything is measured and learned as if they did not."""
    settings = {**QUICK, "window": PercentileWindow(0, 100), "controls": (), "epochs": 2}
    settings |= {"victims": {"tiny": Tiny}, "countermeasures": ("jpeg",)}
    noisy_cases = with_images(CLEAN, [np.clip(c["image"].astype(np.int16) + 2, 0, 255) for c in CLEAN])
    alike, many = (
        evaluate(clean=change(CLEAN), protected=change(noisy_cases), test=change(TEST), **settings)
        for change in (lambda cases: with_images(cases, [c["image"].astype(np.float32) for c in cases]), of_many_ranges)
    )
    assert [_timeless(cell) for cell in many.cells] == [_timeless(cell) for cell in alike.cells]
    assert many.noise == alike.noise
    assert many.noise["worst"]["name"] in {case["name"] for case in CLEAN}
    assert many.detection == alike.detection
    for name in ("psnr", "ssim"):
        assert many.cost[name]["mean"] == pytest.approx(alike.cost[name]["mean"], rel=1e-5)
    assert many.protocol["window"] == PercentileWindow(0, 100).spec()
    json.dumps(json.loads(many.to_json()), allow_nan=False)


def test_the_budget_is_that_of_the_image_with_the_narrowest_range() -> None:
    clean, changed = of_many_ranges(CLEAN), of_many_ranges(CLEAN)
    changed[4]["image"] = np.clip(
        changed[4]["image"] + 16, 0, 255
    )  # a sixteenth of this image's range, little of others'
    with pytest.raises(EvaluationError, match=r"'case_0_004' of the protected set changed by 0\.\d+ of the window"):
        evaluate(clean=clean, protected=changed, test=TEST, **{**QUICK, "window": PercentileWindow(0, 100)})


def test_controls_keep_to_each_images_own_window() -> None:
    settings = {**QUICK, "window": PercentileWindow(0, 100), "controls": ("random_noise", "random_mask"), "epochs": 1}
    clean = of_many_ranges(CLEAN)
    protected = with_images(clean, [c["image"] + np.ptp(c["image"]) / 64 * (c["image"] < 100) for c in clean])
    settings |= {"victims": {"tiny": Tiny}}
    report = evaluate(clean=clean, protected=protected, test=of_many_ranges(TEST), **settings)
    assert [cell["data"] for cell in report.cells] == ["clean", "protected", "random_noise", "random_mask"]


def with_nothing_around(cases: Data, nothing: float) -> Data:
    """Float images whose outermost elements hold nothing."""
    images = [np.full(c["image"].shape, nothing, np.float32) for c in cases]
    for image, case in zip(images, cases, strict=True):
        image[:, 2:-2, 2:-2] = case["image"][:, 2:-2, 2:-2]
    return with_images(cases, images)


def test_a_background_of_nan_is_black() -> None:
    settings = {**QUICK, "controls": (), "epochs": 2, "victims": {"tiny": Tiny}, "countermeasures": ("blur", "median")}
    black, nan = (
        evaluate(**{name: with_nothing_around(data, value) for name, data in sets.items()}, **settings)
        for sets in [{"clean": CLEAN, "protected": shortcut(CLEAN), "test": TEST}]
        for value in (0.0, np.nan)
    )
    assert [_timeless(cell) for cell in nan.cells] == [_timeless(cell) for cell in black.cells]
    assert nan.noise == black.noise
    assert nan.cost["ssim"]["mean"] == pytest.approx(black.cost["ssim"]["mean"], rel=1e-5)
    json.dumps(json.loads(nan.to_json()), allow_nan=False)
    clean, other = with_nothing_around(CLEAN, np.nan), with_nothing_around(CLEAN, 0.0)
    with pytest.raises(EvaluationError, match="'case_0_000' of the protected set is NaN in other places"):
        evaluate(clean=clean, protected=other, test=TEST, **QUICK)


def test_a_window_for_each_channel() -> None:
    clean, test = (
        with_images(cases, [np.concatenate([c["image"], c["image"] * 8.0]).astype(np.float32) for c in cases])
        for cases in (CLEAN, TEST)
    )
    settings = {**QUICK, "epochs": 1, "victims": {"tiny": Tiny}, "countermeasures": ("jpeg", "gamma")}
    settings["window"] = [FixedWindow(0, 255), PercentileWindow(0, 100)]
    protected = with_images(clean, [c["image"] + np.float32([[[1]], [[8]]]) * (c["image"] < 100) for c in clean])
    report = evaluate(clean=clean, protected=protected, test=test, **settings)
    assert report.protocol["window"] == ChannelWindows(tuple(settings["window"])).spec()
    assert 0 < report.noise["linf"] < 8 / 255
    with pytest.raises(ValueError, match="the window rule has 2"):
        evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **settings)


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
        ({"image": np.full((1, 16, 16), np.nan, np.float32)}, "test case 'x' holds no finite number"),
        ({"image": np.full((1, 16, 16), np.inf)}, "test case 'x' holds no finite number"),
        ({"image": np.full((1, 16, 16), "a")}, "test case 'x' holds no finite number .*dtype <U1"),
        ({"image": torch.zeros(1, 16, 16, dtype=torch.bfloat16)}, "test set, case 'x': bfloat16 is no stored type"),
        ({"image": None}, "test case 'x' holds no finite number .*dtype object"),
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
    names, windows, units = ["a", "b", "c"], [IntensityWindow(0, 100)] * 3, [Units()] * 3
    sets = [
        ImageSet(r, part, [], names, windows, units) for r, part in (("clean", images), ("protected", noisy_images))
    ]
    found = noise_size(*sets)
    assert found["worst"] == {"name": "b", "psnr": pytest.approx(-20 * np.log10(0.02))}
    assert found["unchanged"] == 1
    assert found["linf"] == pytest.approx(0.04)
    assert found["support"] == pytest.approx((0 + 1 + 0.25) / 3)
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.02**2))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"victims": ("resnet99",)}, "unknown victim 'resnet99' for classification; known: resnet10, .*vgg11"),
        ({"victims": ("unet",)}, "unknown victim 'unet' for classification"),
        (
            {"countermeasures": ("prayer",)},
            "unknown countermeasure 'prayer'; known: none, early_stopping, jpeg, .*blur",
        ),
        ({"controls": ("sham",)}, "unknown control 'sham'; known: random_noise"),
        ({"augment": "wild"}, "unknown augment 'wild'; known: none, standard"),
        ({"seeds": ()}, "at least one"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"seeds": (0.5,)}, r"seeds\[0\] must be a whole number"),
        ({"seeds": "12"}, "seeds must be a sequence of numbers, got '12'"),
        ({"victims": "resnet18"}, "victims must be a sequence of names, or a mapping, got 'resnet18'"),
        ({"fractions": (0.0,)}, r"fractions\[0\] must be in \(0, 1\], got 0.0"),
        ({"held_out": 0.6}, r"held_out must be in \[0, 0.5\], got 0.6"),
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
        ("protected", "none"),
        ("random_noise", "none"),
        ("clean", "blur"),
        ("protected", "blur"),
    ]
    assert kinds == [(*pair, seed) for pair in pairs for seed in (0, 1)]
    assert sorted({p.done for p in seen}) == list(range(1, 11))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
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


def test_partial_protection_stands_beside_its_clean_part() -> None:
    settings = {**QUICK, "epochs": 1, "fractions": (0.5,), "controls": ()}
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **settings)
    assert [(c["data"], c["fraction"]) for c in report.cells] == [
        ("clean", 1.0),
        ("protected", 1.0),
        ("protected", 0.5),
        ("clean_part", 0.5),
    ]
    assert set(report["resnet10", "none"]) == {"clean", "protected"}
    whole, part = report.cells[0], report.cells[3]
    assert part["epochs"] == whole["epochs"]  # as many steps, however few cases


def test_a_victim_that_has_learned_stops() -> None:
    settings = {**QUICK, "epochs": 12, "learned": 0.9, "patience": 2, "controls": (), "recipe": SMALL_BATCHES}
    settings |= {"victims": {"small": small_network}}
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **settings)
    protected = report.cells[1]
    assert (protected["stopped"], protected["epochs"]) == ("learned", len(protected["curve"]))
    assert protected["epochs"] < 12
    assert min(protected["train_curve"][-3:]) >= 0.95  # 0.9 of the way from 0.5, for 60 steps, 22 an epoch
    assert len(protected["curve"]) == 3 or protected["train_curve"][-4] < 0.95
    assert report.protocol["trained"]["small"]["patience"] == 3
    assert report.protocol["learned"] == 0.9
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **{**settings, "learned": None, "epochs": 2})
    assert {(c["stopped"], c["epochs"]) for c in report.cells} == {("epochs", 2)}


def test_training_must_have_settled_before_it_stops() -> None:
    """Running averages of batch normalisation lag behind the training score, and a small set makes few steps an epoch."""
    given = {(2, 1): 200, (2, 3): 67, (2, 15): 14, (2, 16): 4, (2, 29): 3, (2, 30): 2, (2, 31): 2, (2, 500): 2}
    given |= {(1, 60): 1, (5, 31): 5, (300, 1): 300}
    assert {key: settled_epochs(*key) for key in given} == given


@pytest.mark.usefixtures("no_probes")
def test_a_small_easy_set_is_learned_by_default() -> None:
    """Its training images are known after a few steps, when the test score is at chance still: too early to stop."""
    settings = {**QUICK, "victims": {"small": small_network}, "recipe": replace(FAST, batch_size=64), "controls": ()}
    settings |= {"epochs": None, "learned": Protocol.learned, "held_out": 0.0, "resamples": 10}
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **settings)
    clean = report.cells[0]
    assert report.protocol["trained"]["small"]["epoch_steps"] == 1
    assert (clean["stopped"], clean["last"]) == ("learned", 1.0)
    assert 200 <= clean["epochs"] < 240
    first = next(epoch for epoch, score in enumerate(clean["train_curve"]) if score == 1.0)
    assert clean["curve"][first + 1] < 0.9, clean["curve"][:60]  # what two perfect epochs would have left


@pytest.mark.usefixtures("no_probes")
def test_countermeasures_that_start_from_the_trained_victim() -> None:
    names = ("early_stopping", "early_stopping_clean", "last_layer")
    settings = {**QUICK, "controls": (), "epochs": 3}
    plain = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **settings)
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, **{**settings, "countermeasures": names})
    found = {(cell["data"], cell["countermeasure"]): cell for cell in report.cells}
    assert list(found) == [(data, name) for data in ("clean", "protected") for name in ("none", *names)]
    for old in plain.cells:
        new = found[old["data"], "none"]
        assert {**new, "seconds": 0} == {**old, "seconds": 0}  # later work did not change it
        assert found[old["data"], "early_stopping"]["last"] == new["early"]
        assert found[old["data"], "early_stopping_clean"]["last"] == new["early_clean"]
        assert found[old["data"], "early_stopping"]["scores"]["accuracy"] == new["early"]
        last_layer = found[old["data"], "last_layer"]
        assert (last_layer["needs_clean"], last_layer["stopped"], last_layer["curve"]) == (True, None, [])
        low, high = new["interval"]
        assert low <= new["last"] <= high


def test_held_out_images_can_be_had_by_none() -> None:
    settings = {
        **QUICK,
        "epochs": 1,
        "controls": (),
        "held_out": 0.0,
        "countermeasures": ("early_stopping", "last_layer"),
    }
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    assert [(c["countermeasure"], c["early"], c["utility"]) for c in report.cells] == [("none", None, None)] * 2
    reasons = {left["countermeasure"]: left["reason"] for left in report.not_evaluated}
    assert "no cases were held out" in reasons["last_layer"]
    assert "no cases were held out" in reasons["early_stopping"]
    assert "one channel" in reasons["grayscale"]
    assert "not asked for, it costs more" in reasons["adversarial_training"]
    assert reasons["jpeg"] == "not evaluated: not asked for"


@pytest.mark.usefixtures("no_probes")
def test_every_cheap_countermeasure_runs() -> None:
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": "cheap"}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    tried = {cell["countermeasure"] for cell in report.cells}
    assert tried | {left["countermeasure"] for left in report.not_evaluated} == set(COUNTERMEASURES)
    assert {"jpeg", "mixup", "orthogonal_projection", "clean_subset", "last_layer"} < tried
    assert not {"adversarial_training", "ueraser", "self_supervised", "self_training", "grayscale"} & tried
    filtered = [cell for cell in report.cells if cell["unfiltered"] is not None]
    assert {cell["countermeasure"] for cell in filtered} == {"jpeg", "bit_depth", "blur", "median", "resample", "gamma"}


def test_what_does_not_look_at_the_published_images_is_trained_once() -> None:
    seen: list[Progress] = []
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": ("clean_subset",)}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, progress=seen.append, **settings)
    assert [c["data"] for c in report.cells] == ["clean", "protected"] * 2
    assert {**report.cells[2], "data": "protected"} == report.cells[3]
    assert seen[-1].done == seen[-1].total == 3


def test_costly_countermeasures_run() -> None:
    costly = ("ueraser", "adversarial_training", "self_supervised", "self_training")
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": costly}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    assert [c["countermeasure"] for c in report.cells] == ["none"] * 2 + [name for name in costly for _ in range(2)]


class Black(Countermeasure):
    """Leaves nothing to tell images apart by."""

    name = "black"

    def filter(self, image: np.ndarray, window: IntensityWindow) -> np.ndarray:
        return np.zeros_like(image)


def test_test_images_are_filtered_as_training_images_are() -> None:
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": {"black": Black()}}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    for cell in report.cells[2:]:
        assert cell["scores"]["auc"] == cell["last"] == 0.5  # one answer to all, since all test images are black
        assert len(set(cell["held_out_curve"])) == 1
        assert cell["unfiltered"] is not None
    assert report.cells[0]["scores"]["auc"] != 0.5


def test_other_copies_and_surrogates_are_marked() -> None:
    copies = {"random mask method": noisy(CLEAN)}
    settings = {**QUICK, "epochs": 1, "controls": (), "victims": ("resnet10", "vgg11")}
    report = evaluate(clean=CLEAN, protected=shortcut(CLEAN), test=TEST, copies=copies, surrogate="vgg11", **settings)
    assert [c["data"] for c in report.cells[::2]] == ["clean", "protected", "random mask method"]
    assert {c["victim"]: c["is_surrogate"] for c in report.cells} == {"resnet10": False, "vgg11": True}
    with pytest.raises(ValueError, match="must not be called 'protected'"):
        evaluate(clean=CLEAN, protected=CLEAN, test=TEST, copies={"protected": CLEAN}, **QUICK)


class Tiny(torch.nn.Sequential):
    """A victim of the user's own."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        assert spatial_dims == 2
        super().__init__(
            torch.nn.Conv2d(in_channels, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(out_channels)
        )
        self(torch.zeros(1, in_channels, 16, 16))


@pytest.mark.usefixtures("no_probes")
def test_lambdas_are_refused_where_their_name_must_stand_for_them(tmp_path: Path) -> None:
    victims: Any = {"mine": lambda **channels: Tiny(**channels)}
    settings = {**QUICK, "epochs": 1, "controls": (), "victims": victims}
    assert len(evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings).cells) == 2
    for how in ({"jobs": 2}, {"resume": tmp_path / "cells.jsonl"}):
        with pytest.raises(ValueError, match=r"give a .*function or class at the top of a module"):
            evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings, **how)


def test_countermeasures_with_other_settings_and_ranges_of_seeds() -> None:
    weak, strong = Blur(sigma=0.5), Blur(sigma=1.5)
    adversaries: Any = {"blur 0.5": weak, "blur 1.5": strong, "jpeg": "jpeg"}
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": adversaries, "seeds": range(1)}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    assert [cell["countermeasure"] for cell in report.cells[::2]] == ["none", "blur 0.5", "blur 1.5", "jpeg"]
    assert report["resnet10", "blur 0.5"]["protected"]["seeds"] == 1
    values = json.loads(report.to_json())
    assert values["protocol"]["countermeasures"]["blur 1.5"] == {"name": "blur", "sigma": 1.5}
    assert values["cells"][2]["settings"] == {"name": "blur", "sigma": 0.5}
    assert "blur" not in {left["countermeasure"] for left in report.not_evaluated}


def test_controls_that_cannot_be_made_are_told_of_before_training() -> None:
    with pytest.raises(
        EvaluationError, match=r"controls random_noise cannot be made of case 'case_0_000'.*would vanish on saving"
    ):
        evaluate(clean=CLEAN, protected=CLEAN, test=TEST, **{**QUICK, "window": IntensityWindow(0, 20)})


def test_the_test_set_can_be_named_by_its_digest() -> None:
    settings = {**QUICK, "epochs": 1, "controls": ()}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    digest = report.protocol["digests"]["test"]
    assert report.protocol["surrogate"] is None
    evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, test_digest=digest, **settings)
    relabelled = [{**TEST[0], "label": 1 - TEST[0]["label"]}, *TEST[1:]]
    with pytest.raises(EvaluationError, match=f"expected is {digest}"):
        evaluate(clean=CLEAN, protected=noisy(CLEAN), test=relabelled, test_digest=digest, **settings)


@pytest.mark.usefixtures("no_probes")
def test_a_victim_that_fails_does_not_cost_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = running.train_victim

    def fail_once(seed: int, *others: Any) -> Any:
        if seed == VICTIM_SEED:
            raise TrainingError("gradients are nan")
        return train(seed, *others)

    monkeypatch.setattr(running, "train_victim", fail_once)
    settings = {**QUICK, "epochs": 1, "controls": (), "seeds": (0, 1)}
    journal = tmp_path / "cells.jsonl"
    with pytest.raises(
        TrainingError, match=r"2 of 4 victims could not be trained: resnet10 seed 0 on clean .none.: gradients"
    ):
        evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, resume=journal, **settings)
    assert len(journal.read_text().splitlines()) == 3


@pytest.mark.usefixtures("no_probes")
def test_what_is_kept_is_not_mixed_with_other_things(tmp_path: Path) -> None:
    journal, sets = tmp_path / "cells.jsonl", {"clean": CLEAN, "protected": noisy(CLEAN), "test": TEST}
    settings = {**QUICK, "epochs": 1, "controls": (), "countermeasures": {"blur": Blur(sigma=0.5)}}
    evaluate(**sets, **settings, resume=journal)
    seen: list[Progress] = []
    evaluate(**sets, **{**settings, "countermeasures": ("blur",)}, resume=journal, progress=seen.append)
    assert sum("done" in p.detail for p in seen) == 2  # with another sigma, blur is another countermeasure
    marked = evaluate(**sets, **settings, resume=journal, surrogate="resnet10")
    assert all(cell["is_surrogate"] for cell in marked.cells)
    predictions = PredictionFolder(tmp_path / "predictions", "x")
    evaluate(**sets, **settings, resume=journal, predictions=predictions)
    assert len(list(predictions.folder.iterdir())) == 4
    relabelled = [{**TEST[0], "label": 1 - TEST[0]["label"]}, *TEST[1:]]
    with pytest.raises(JournalError, match="with digests"):
        evaluate(**{**sets, "test": relabelled}, **settings, resume=journal)


def test_victims_of_the_users_own() -> None:
    settings = {**QUICK, "epochs": 2, "controls": (), "victims": {"mine": Tiny, "theirs": "resnet10"}}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    assert {cell["victim"] for cell in report.cells} == {"mine", "theirs"}
    assert report.protocol["victims"] == {"mine": f"{__name__}.Tiny", "theirs": "resnet10"}
    json.loads(report.to_json())


@pytest.mark.usefixtures("no_probes")
def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 2, "seeds": (0, 1), "countermeasures": ("none", "early_stopping", "blur")}
    settings |= {"victims": {"tiny": Tiny}}
    sets = {"clean": CLEAN, "protected": noisy(CLEAN), "test": TEST}
    whole = evaluate(**sets, **settings)
    journal, trained = tmp_path / "cells.jsonl", []

    def interrupt(progress: Progress) -> None:
        trained.append(progress)
        if len(trained) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(**sets, **settings, resume=journal, progress=interrupt)
    seen: list[Progress] = []
    again = evaluate(**sets, **settings, resume=journal, progress=seen.append)
    assert [_timeless(c) for c in again.cells] == [_timeless(c) for c in whole.cells]
    assert seen[0].done > 1
    seen.clear()
    third = evaluate(**sets, **settings, resume=journal, progress=seen.append)
    assert (third.cells, seen) == (again.cells, [])
    assert third.seconds >= sum(cell["seconds"] for cell in third.cells)
    more = evaluate(**sets, **{**settings, "seeds": (1, 2)}, resume=journal, progress=seen.append)
    assert sum("done" in p.detail for p in seen) == len(seen) / 3
    assert {c["seed"] for c in more.cells} == {1, 2}
    with pytest.raises(JournalError, match=r"cells\.jsonl is of an evaluation with epochs 2, this one has 1"):
        evaluate(**sets, **{**settings, "epochs": 1}, resume=journal)


def _timeless(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "seconds"}


def test_predictions_are_what_medmnist_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medmnist = pytest.importorskip("medmnist")
    folder = PredictionFolder(tmp_path / "predictions", "brain_28.npz")
    settings = {**QUICK, "controls": ()}
    report = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, predictions=folder, **settings)
    files = {path.name: path for path in folder.folder.iterdir()}
    assert len(files) == len(report.cells) == 2
    labels = np.array([[case["label"]] for case in TEST])
    for cell in report.cells:
        name = predictions_name(cell, folder.flag)
        assert name.startswith("brain-28-npz_test_[AUC]")
        assert name.endswith(f"[ACC]{cell['last']:.3f}@resnet10-{cell['data']}-100-none-seed0.csv")
        (tmp_path / name.replace("brain-28-npz", "bloodmnist")).write_bytes(files[name].read_bytes())
        np.savez(tmp_path / "bloodmnist.npz", test_labels=labels)
        monkeypatch.setattr(medmnist.Evaluator.__init__, "__defaults__", (None, str(tmp_path)))
        metrics = medmnist.Evaluator.parse_and_evaluate(str(tmp_path / name.replace("brain-28-npz", "bloodmnist")))
        assert pytest.approx(cell["scores"]["accuracy"]) == metrics.ACC
        assert pytest.approx(cell["scores"]["auc"]) == metrics.AUC


def test_noise_of_a_class_sold_as_noise_of_each_image_is_flagged(report: UnlearnabilityReport) -> None:
    assert report.detection["class_wise"] is True
    assert any("class-wise" in warning for warning in report.warnings())
    settings = {**QUICK, "epochs": 1, "controls": ()}
    honest = evaluate(clean=CLEAN, protected=noisy(CLEAN), test=TEST, **settings)
    assert honest.detection["class_wise"] is False
    assert not any("class-wise" in warning for warning in honest.warnings())


def test_victims_start_far_from_surrogates(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    manual_seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), manual_seed(seed))[1])
    images = [case["image"] for case in CLEAN]
    labels = [np.asarray(case["label"], np.int64) for case in CLEAN]
    names = [case["name"] for case in CLEAN]
    cases = Cases(images, labels, names, TWO, [WINDOW] * len(CLEAN), View("full", (16, 16)))
    setting = Setting(
        network="resnet10",
        recipe=FAST,
        epochs=1,
        epoch_steps=3,
        width=0.1,
        device=torch.device("cpu"),
        augment=None,
        learned=None,
        patience=1,
    )
    train_victim(VICTIM_SEED + 3, cases, ScoredSets(cases, cases, cases), setting, Countermeasure(), lambda epoch: None)
    assert seeds == [VICTIM_SEED + 3]
    unused: Any = None
    jobs = [
        Job(cases=cases, workspace=unused, recipe=FAST, device=torch.device("cpu"), seed=seed)
        for seed in (0, 1, VICTIM_SEED)
    ]
    surrogates = {job.seed_for(0, number) for job in jobs for number in range(200)}  # as the bilevel loop seeds them
    assert len(surrogates) == 600
    assert min(abs(seed - VICTIM_SEED) for seed in surrogates) > 10_000
    assert default_epochs(cases, FAST, "none") == 80  # 3 steps a pass, 240 at least
    assert default_epochs(cases, Recipe(batch_size=1), "standard") == 20


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epsilon": "8/255"}, "epsilon must be a number, such as .*, got '8/255'"),
        ({"jobs": "2"}, "jobs must be a number, such as 1, got '2'"),
        ({"held_out": None}, "held_out must be a number, such as 0.1, got None"),
        ({"seeds": 3}, "seeds must be a sequence of numbers, got 3"),
        ({"fractions": ["half"]}, r"fractions\[0\] must be a number, got 'half'"),
        ({"task": "classification"}, r"task must be a task, such as Classification\(.*\), got 'classification'"),
    ],
)
def test_a_setting_of_another_type_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        evaluate(clean=CLEAN, protected=CLEAN, test=TEST, **{**QUICK, **setting})


def test_default_victims_fit_the_task() -> None:
    assert list(Protocol().architectures(TWO)) == ["resnet18", "vgg11", "vit"]
    assert list(Protocol().architectures(Segmentation(num_classes=3))) == ["unet", "segresnet"]


def test_guessing_score() -> None:
    assert guessing_score([np.asarray(v) for v in (0, 0, 0, 1)]) == 0.75
    assert guessing_score([np.array([[0, 0], [0, 2]], np.uint8)]) == 0.75
    assert guessing_score([np.array([1, 0], np.float32), np.array([1, 1], np.float32)]) == 0.75
