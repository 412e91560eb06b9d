"""A data set whose images change from one read to the next is refused before any work starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import classification_cases
from monai.data import Dataset
from monai.transforms import Compose

from monai_salm.intensity import IntensityWindow
from monai_salm.scan import DataError, scan
from monai_salm.tasks import Classification


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
