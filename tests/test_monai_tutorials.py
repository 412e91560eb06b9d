"""The loading chains of MONAI's tutorials, reduced to small made data, with one line added.

2D MedNIST classification, 3D spleen segmentation, 3D brain tumour segmentation and 3D DenseNet classification. The data are
protected as files with the layouts' own reading and writing, and what the tutorial's chain gives of the originals with
``SALMProtectd`` must be what it gives of the published files without it, bit for bit, random transforms included.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import (
    CacheDataset,
    CacheNTransDataset,
    DataLoader,
    Dataset,
    PersistentDataset,
    SmartCacheDataset,
)
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    Randomizable,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    RandZoomd,
    Resized,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
)
from monai_samples import BUDGET, META, bits
from PIL import Image

from monai_salm import NoiseStore, SALMProtectd
from monai_salm.layouts.stored_images import ChannelFiles
from monai_salm.noise.noise import Noise
from monai_salm.store.records import keep_scales

pytestmark = pytest.mark.filterwarnings("ignore:.*(nvImageCodec|NvImgCodec|nvimgcodec).*:UserWarning")
CASES = 4


class ConvertToMultiChannel(MapTransform):
    """The brain tumour tutorial's own transform: a channel for each of the nested regions."""

    def __call__(self, data: Any) -> dict[Any, Any]:
        item = dict(data)
        for key in self.keys:
            regions = [(item[key] == 2) | (item[key] == 3), item[key] > 0, item[key] == 2]
            item[key] = torch.cat(regions).float()
        return item


def mednist() -> tuple[list[Any], list[Any]]:
    # 2d_classification/mednist_tutorial: array transforms there, the same as dictionary transforms here.
    return [LoadImaged("image", image_only=True), EnsureChannelFirstd("image")], [
        ScaleIntensityd("image"),
        RandRotated("image", range_x=np.pi / 12, prob=0.5, keep_size=True),
        RandFlipd("image", spatial_axis=0, prob=0.5),
        RandZoomd("image", min_zoom=0.9, max_zoom=1.1, prob=0.5),
    ]


def spleen() -> tuple[list[Any], list[Any]]:
    both = ["image", "label"]
    return [LoadImaged(both), EnsureChannelFirstd(both)], [
        ScaleIntensityRanged("image", a_min=-57, a_max=164, b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(both, source_key="image", allow_smaller=True),
        Orientationd(both, axcodes="RAS", labels=None),
        Spacingd(both, pixdim=(1.5, 1.5, 2.0), mode=("bilinear", "nearest")),
        RandCropByPosNegLabeld(
            both, "label", (8, 8, 6), pos=1, neg=1, num_samples=2, image_key="image", image_threshold=0
        ),
    ]


def brats() -> tuple[list[Any], list[Any]]:
    both = ["image", "label"]
    return [LoadImaged(both), EnsureChannelFirstd("image"), EnsureChannelFirstd("label"), EnsureTyped(both)], [
        ConvertToMultiChannel("label"),
        Orientationd(both, axcodes="RAS", labels=None),
        Spacingd(both, pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
        RandSpatialCropd(both, roi_size=[8, 8, 6], random_size=False),
        RandFlipd(both, prob=0.5, spatial_axis=0),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        RandScaleIntensityd("image", factors=0.1, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]


def densenet() -> tuple[list[Any], list[Any]]:
    return [LoadImaged("image", ensure_channel_first=True)], [
        ScaleIntensityd("image"),
        Resized("image", spatial_size=(12, 12, 12)),
        RandRotate90d("image", prob=0.8, spatial_axes=[0, 2]),
    ]


def picture(path: Path, values: Any) -> None:
    Image.fromarray(values).save(path, quality=95)


def volume(path: Path, values: Any, scale: tuple[float, float] = (1.0, 0.0)) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.5, 1.5, 2.5, 1.0])), path)
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", *scale)
    path.write_bytes(content)


def scaled(path: Path, values: Any) -> None:
    volume(path, values, (0.5, -60.0))


@dataclass(frozen=True)
class Tutorial:
    """A tutorial.

    Args:
        what: in words.
        parts: gives what loads, and what follows.
        name: of an image's file.
        shape, dtype: of its stored numbers.
        write: makes a file.
        labels: whether the label is a map.
    """

    what: str
    parts: Callable[[], tuple[list[Any], list[Any]]] = field(repr=False)
    name: str
    shape: tuple[int, ...]
    dtype: str
    write: Callable[[Path, Any], None] = field(repr=False)
    labels: bool


ROWS = [
    Tutorial("2D classification of MedNIST", mednist, "{}.png", (16, 14), "uint8", picture, False),
    Tutorial("3D segmentation of the spleen", spleen, "{}.nii", (16, 14, 12), "int16", scaled, True),
    Tutorial("3D segmentation of brain tumours", brats, "{}.nii", (14, 14, 10, 4), "int16", volume, True),
    Tutorial("3D classification with DenseNet", densenet, "{}.nii", (14, 12, 10), "int16", volume, False),
]


DATA_SETS: dict[str, Callable[[list[Any], Compose, Path, int], Any]] = {
    "Dataset": lambda items, chain, *_: Dataset(items, chain),
    "CacheDataset": lambda items, chain, *_: CacheDataset(items, chain, progress=False),
    "PersistentDataset": lambda items, chain, folder, _: PersistentDataset(items, chain, folder),
    "CacheNTransDataset": lambda items, chain, folder, fixed: CacheNTransDataset(items, chain, fixed, folder),
    "SmartCacheDataset": lambda items, chain, *_: SmartCacheDataset(
        items, chain, replace_rate=0.5, cache_num=2, progress=False, shuffle=False
    ),
}
WORKERS: dict[str, dict[str, Any]] = {
    "none": {"num_workers": 0},
    "two": {"num_workers": 2, "multiprocessing_context": "fork"},
}


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.parts.__name__)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tutorial, the store, and its items before and after protection."""
    row: Tutorial = request.param
    folder, rng = tmp_path_factory.mktemp(row.parts.__name__), np.random.default_rng(0)
    store, units = NoiseStore.create(folder / "noise.db", META), []
    for name in ("source", "copy"):
        (folder / name).mkdir()
    for number in range(CASES):
        name = row.name.format(number)
        row.write(folder / "source" / name, rng.integers(100, 220, row.shape).astype(row.dtype))
        unit = ChannelFiles(name, (name,))
        stored = unit.read(folder / "source")
        noise = Noise.of(stored, rng.choice(np.array([-9, 0, 9], np.int8), stored.shape), BUDGET, name)
        store.add([noise])
        unit.write(folder / "source", folder / "copy", noise.apply(stored))
        units.append(unit.units(folder / "source", stored))
        if row.labels:
            label = np.zeros(row.shape[:3], np.uint8)
            label[4:9, 4:9, 3:7] = rng.integers(1, 4 if row.parts is brats else 2, (5, 5, 4))
            volume(folder / f"label{number}.nii", label)
    keep_scales(store, units)

    def items(where: str) -> list[dict[str, Any]]:
        labels = [str(folder / f"label{number}.nii") if row.labels else number % 2 for number in range(CASES)]
        paths = [str(folder / where / row.name.format(number)) for number in range(CASES)]
        return [{"image": image, "label": label} for image, label in zip(paths, labels, strict=True)]

    return row, store, items("source"), items("copy")


def loaded(row: Tutorial, items: list[Any], added: list[Any], kind: str, workers: str, folder: Path) -> Iterator[Any]:
    """Two epochs of images and labels, with the same draws for the same arguments."""
    folder.mkdir()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what MONAI's transforms may draw from
    torch.manual_seed(0)
    head, tail = row.parts()
    transforms = [*head, *added, *tail]
    fixed = next(place for place, one in enumerate(transforms) if isinstance(one, Randomizable))
    data = DATA_SETS[kind](items, Compose(transforms).set_random_state(7), folder, fixed)
    if isinstance(data, SmartCacheDataset):
        data.start()
    for _ in range(2):
        for batch in DataLoader(data, batch_size=1, **WORKERS[workers]):
            yield from (batch["image"], torch.as_tensor(batch["label"]))
        if isinstance(data, SmartCacheDataset):
            data.update_cache()
    if isinstance(data, SmartCacheDataset):
        data.shutdown()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", DATA_SETS)
def test_one_line_makes_a_tutorial_train_on_what_the_published_files_hold(
    kind: str, workers: str, made: Any, tmp_path: Path
) -> None:
    row, store, originals, published = made
    added = [SALMProtectd("image", store=store.path)]
    found = bits(loaded(row, originals, added, kind, workers, tmp_path / "found"))
    expected = bits(loaded(row, published, [], kind, workers, tmp_path / "expected"))
    clean = bits(loaded(row, originals, [], kind, workers, tmp_path / "clean"))
    assert len(found) > 2 * CASES - 1
    assert found == expected
    assert found != clean
