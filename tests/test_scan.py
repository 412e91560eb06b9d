"""What a data set is checked for before any work starts, and what is known of its images' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import classification_cases
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose

from monai_salm.data.scan import DataError, ScannedCase, scan, units_of
from monai_salm.learning.tasks import Classification
from monai_salm.noise.units import Units
from monai_salm.noise.window import AutomaticWindow, FixedWindow, IntensityWindow, PercentileWindow, WindowRule


def read(dataset: Any) -> int:
    return len(list(scan(dataset, Classification(num_classes=2), IntensityWindow(0, 255), 8 / 255, "image", "label")))


class _Changing(list[Any]):
    """Gives other voxels at each read of one case."""

    def __init__(self, cases: list[Any], index: int) -> None:
        super().__init__(cases)
        self.index, self.reads = index, 0

    def __getitem__(self, index: Any) -> Any:
        case = super().__getitem__(index)
        if index != self.index:
            return case
        self.reads += 1
        return {**case, "image": np.roll(case["image"], self.reads, axis=-1)}


@pytest.mark.parametrize("index", [0, 4, 8])
def test_first_middle_and_last_case_are_read_again(index: int) -> None:
    cases = classification_cases((8, 8), 9)
    with pytest.raises(DataError, match=f"case 'case_0_00{index}' differs between two reads"):
        read(_Changing(cases, index))
    assert read(cases) == 9


class RandomResizedCrop:
    def __call__(self, case: Any) -> Any:
        return case


class Crop(RandomResizedCrop):
    pass


class OtherCompose:
    """As torchvision's."""

    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms

    def __call__(self, case: Any) -> Any:
        return case


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: Compose([t]), lambda t: OtherCompose([Crop(), t])])
def test_transforms_named_random_are_refused(wrap: Callable[[Any], Any]) -> None:
    cases = classification_cases((8, 8), 4)
    with pytest.raises(DataError, match="the random transform RandomResizedCrop"):
        read(Dataset(cases, wrap(RandomResizedCrop())))
    assert read(Dataset(cases, wrap(Crop()))) == 4


# ---------------------------------------------------------------------------------------------------------------------
# Units and windows


def scanned(cases: list[Any], window: WindowRule, skipped: dict[str, str] | None = None) -> list[ScannedCase]:
    return list(scan(cases, Classification(num_classes=2), window, 8 / 255, "image", "label", skipped))


def ramps(*scales: float) -> list[Any]:
    """The same ramp at several scales, int16."""
    ramp = np.linspace(10, 110, 64).reshape(1, 8, 8)
    return [
        {"image": (ramp * scale).astype(np.int16), "label": i % 2, "name": f"ramp {i}"}
        for i, scale in enumerate(scales)
    ]


def test_each_case_has_the_budget_of_its_own_window() -> None:
    for case, scale in zip(scanned(ramps(1, 10, 100), PercentileWindow(0, 100)), (1, 10, 100), strict=True):
        (low, high), (code,) = case.budget.window.channels(1)[0], case.budget.grid.max_codes
        assert (low, high) == (case.image.min(), case.image.max())
        assert code == pytest.approx(100 * scale * 8 / 255, abs=1)


def test_units_that_come_with_a_case_are_believed() -> None:
    (case,) = scanned([{**ramps(1)[0], "units": Units(slope=2.0, intercept=-100.0)}], FixedWindow(-100, 120))
    assert case.budget.window == IntensityWindow(0, 110)
    assert case.budget.units.slope == 2.0


def test_a_repeated_image_is_yielded_once() -> None:
    cases = ramps(1, 2)
    assert len(scanned([*cases, {**cases[0], "name": "again"}], PercentileWindow())) == 2


@pytest.mark.parametrize(
    ("image", "picture"),
    [
        (np.arange(64, dtype=np.uint8).reshape(1, 8, 8), True),
        (np.arange(64, dtype=np.float32).reshape(1, 8, 8), True),
        (np.arange(64, dtype=np.float32).reshape(1, 8, 8) / 2, False),
        (np.arange(64, dtype=np.float32).reshape(1, 8, 8) * 8, False),
        (np.arange(64, dtype=np.float32).reshape(1, 8, 8) % 2, False),
        (np.arange(64, dtype=np.int16).reshape(1, 8, 8), False),
        (np.arange(64, dtype=np.uint8).reshape(1, 4, 4, 4), False),
    ],
)
def test_pictures_of_8_bits_are_told_by_their_values(image: np.ndarray, picture: bool) -> None:
    """Loaders make floats of files of bytes; volumes of bytes are no pictures."""
    assert units_of(image, image).picture is picture


def test_size_and_modality_are_taken_from_what_a_reader_notes() -> None:
    affine = np.diag([-0.5, 0.75, 3.0, 1.0])
    meta = {"affine": torch.from_numpy(affine), "00080060": {"vr": "CS", "Value": ["CT"]}}
    volume = MetaTensor(torch.zeros(1, 4, 4, 4), meta=meta)
    units = units_of(volume.numpy(), volume)
    assert units.spacing == (0.5, 0.75, 3.0)
    assert units.modality == "CT"
    assert units_of(volume.numpy(), volume.numpy()) == Units()
    assert AutomaticWindow().of(volume.numpy() - 1000, units) == IntensityWindow(-160, 240)


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (FixedWindow(5000, 6000), "0.0% of its voxels lie inside its window"),
        (FixedWindow(0, 10_000), "would drown the image"),
        (FixedWindow(0, 5), "lie inside its window|below one step"),
    ],
)
def test_a_window_of_the_wrong_units_is_refused_with_the_remedy(window: WindowRule, reason: str) -> None:
    with pytest.raises(DataError, match=rf"case 'ramp 0': .*({reason})") as caught:
        scanned(ramps(1, 1.5), window)
    assert "percentile" in str(caught.value) or "wider window" in str(caught.value)


@pytest.mark.filterwarnings("ignore:all 2 images have label:UserWarning")
def test_cases_that_cannot_be_protected_are_left_out_if_asked_for() -> None:
    cases, skipped = ramps(1, 2, 3), dict[str, str]()
    cases[1]["image"] = np.full((1, 8, 8), 7, np.int16)
    found = scanned(cases, PercentileWindow(), skipped)
    assert [case.name for case in found] == ["ramp 0", "ramp 2"]
    assert list(skipped) == ["1"]
    assert "constant" in skipped["1"]
