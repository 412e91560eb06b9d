"""``check_chain`` says what stands in a chain around ``SALMProtectd``, and how much of the noise is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import (
    Compose,
    EnsureTyped,
    Flipd,
    GaussianSmooth,
    GaussianSmoothd,
    LoadImaged,
    NormalizeIntensityd,
    OneOf,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianSmoothd,
    Resized,
    ScaleIntensity,
    ScaleIntensityRanged,
    Spacingd,
)
from PIL import Image

from monai_salm import NoiseStore, SALMProtect, SALMProtectd, check_chain
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.noise.window import IntensityWindow

pytestmark = pytest.mark.filterwarnings("ignore:.*(nvImageCodec|NvImgCodec|nvimgcodec).*:UserWarning")
WINDOW = IntensityWindow(0, 255)
META = {"method": {"name": "x"}, "window": WINDOW.spec(), "mask_share": 1.0, "epsilon": 0.03, "seed": 0}
SIDE = 48


@pytest.fixture
def samples(tmp_path: Path, rng: np.random.Generator) -> tuple[NoiseStore, list[dict[str, Any]]]:
    """Smooth pictures, dark on the left and bright on the right, with noise of single pixels on two fifths of them."""
    store, items = NoiseStore.create(tmp_path / "noise.db", META), []
    for number in range(3):
        image = np.tile(np.linspace(20, 230, SIDE), (SIDE, 1)).astype(np.uint8)[None] + np.uint8(number)
        codes = rng.choice(np.array([-7, 7], np.int8), image.shape) * (rng.random(image.shape) < 0.4)
        store.add([Noise.of(image, codes.astype(np.int8), Budget(WINDOW, Grid("uint8", 1.0, (7,))), f"case {number}")])
        Image.fromarray(image[0]).save(tmp_path / f"{number}.png")
        items.append({"image": str(tmp_path / f"{number}.png"), "label": number % 2})
    return store, items


def chain(store: NoiseStore, *after: Any, before: Any = ()) -> Compose:
    return Compose([LoadImaged("image", ensure_channel_first=True), *before, SALMProtectd("image", store), *after])


@pytest.mark.parametrize("made_up", [True, False], ids=["made up", "real"])
@pytest.mark.parametrize(
    ("step", "effect", "low", "high"),
    [
        (ScaleIntensityRanged("image", 0, 255, 0, 1), "keeps", 1.0, 1.0),
        (NormalizeIntensityd("image"), "keeps", 0.97, 1.0),
        (Flipd("image", 0), "keeps", 1.0, 1.0),
        (EnsureTyped("image"), "keeps", 1.0, 1.0),
        (Compose([Flipd("image", 1)]), "keeps", 1.0, 1.0),
        (GaussianSmoothd("image", 1.0), "smooths", 0.1, 0.5),
        (Resized("image", (SIDE // 2, SIDE // 2), mode="area"), "resamples", 0.2, 0.7),
        (OneOf([GaussianSmoothd("image", 1.0)]), "smooths", 0.1, 0.5),
        (ScaleIntensityRanged("image", 100, 150, 0, 1, clip=True), "clips", 0.2, 0.92),
        (ScaleIntensityRanged("image", 300, 400, 0, 1, clip=True), "takes all", 0.0, 0.0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | float) else str(value),
)
def test_what_a_step_leaves_of_the_noise(
    step: Any, effect: str, low: float, high: float, made_up: bool, samples: Any
) -> None:
    store, items = samples
    report = check_chain(chain(store, step), store.path, None if made_up else items)
    assert (len(report.steps), report.images, report.made_up, report.before) == (1, 3, made_up, ())
    assert report.steps[0].effect.startswith(effect)
    assert low <= report.survives <= high
    assert report.ok == (report.survives >= 0.5)
    assert type(step).__name__ in str(report) or isinstance(step, Compose)
    assert f"{report.survives:.0%} of the noise is left" in str(report)


def test_steps_multiply_and_random_ones_count_alone(samples: Any) -> None:
    store, items = samples
    chance = RandGaussianSmoothd("image", (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), prob=0.1)
    report = check_chain(
        chain(store, GaussianSmoothd("image", 0.4), chance, RandFlipd("image", prob=0.5)), store, items
    )
    first, second, third = report.steps
    assert not first.chance
    assert second.chance
    assert second.survives is not None
    assert second.survives < 0.5
    assert third.survives == 1.0
    assert report.survives == first.survives
    assert not report.ok  # one in ten images keeps little
    assert "when it is applied" in str(second)


def test_what_stands_before_is_named(samples: Any) -> None:
    store, _ = samples
    early = [
        EnsureTyped("image"),
        Spacingd("image", (1, 1)),
        Orientationd("other", "RAS", labels=None, allow_missing_keys=True),
    ]
    report = check_chain(chain(store, before=early), store)
    assert report.before == ("Spacingd",)
    assert not report.ok
    assert "stands after Spacingd" in str(report)
    assert "right after LoadImaged" in str(report)


def test_chains_of_arrays_and_lists_of_transforms(samples: Any) -> None:
    store, _ = samples
    report = check_chain([SALMProtect(store), ScaleIntensity(), GaussianSmooth(1.0)], store)
    assert [step.name for step in report.steps] == ["ScaleIntensity", "GaussianSmooth"]
    assert report.survives < 0.5


def test_label_maps_are_made_up_where_a_crop_asks_for_one(samples: Any) -> None:
    store, _ = samples
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (16, 16), num_samples=2)
    report = check_chain(chain(store, crop), store)
    assert report.steps[0].survives is not None
    assert report.survives > 0.7


def test_the_chain_is_left_as_it_was(samples: Any) -> None:
    store, items = samples
    flip, twin = (RandFlipd("image", prob=0.5, spatial_axis=0) for _ in range(2))
    whole = chain(store, flip)  # seeds what is in it
    flip.set_random_state(3)
    twin.set_random_state(3)
    check_chain(whole, store, items)
    image = np.arange(4.0).reshape(1, 2, 2)
    for _ in range(6):
        assert np.array_equal(flip({"image": image})["image"], twin({"image": image})["image"])


def test_a_step_that_cannot_be_run_is_said(samples: Any) -> None:
    store, items = samples

    def fails(_: Any) -> Any:
        raise ValueError("needs a moon")

    report = check_chain(chain(store, fails, Flipd("image", 0)), store, items)
    assert report.steps[0].survives is None
    assert "needs a moon" in str(report)
    assert report.steps[1].survives == 1.0
    assert not report.ok


def test_wrong_arguments_say_what_to_do(samples: Any, tmp_path: Path) -> None:
    store, _ = samples
    with pytest.raises(ValueError, match="has no SALMProtectd: place it right after LoadImaged"):
        check_chain(Compose([LoadImaged("image")]), store)
    empty = NoiseStore.create(tmp_path / "empty.db", META)
    with pytest.raises(NoiseStoreError, match="is empty: fill it"):
        check_chain(chain(empty), empty)
