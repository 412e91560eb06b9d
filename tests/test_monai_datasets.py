"""Every dataset class of MONAI gives what it would give of protected files, and restores what it would give of originals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.data import (
    ArrayDataset,
    CacheDataset,
    CacheNTransDataset,
    CSVDataset,
    Dataset,
    DatasetFunc,
    GridPatchDataset,
    ImageDataset,
    IterableDataset,
    LMDBDataset,
    NPZDictItemDataset,
    PatchDataset,
    PatchIterd,
    PersistentDataset,
    ShuffleBuffer,
    SmartCacheDataset,
    ZipDataset,
)
from monai.data.utils import pickle_hashing
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    LoadImage,
    RandFlip,
    RandFlipd,
    RandShiftIntensityd,
    RandSpatialCropSamplesd,
)
from monai.utils import version_geq
from monai_samples import CASES, Array, Row, Samples, Source, make_samples, require_same_bits

from monai_salm import salm_hash_transform

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"))


def chain(source: Source) -> Compose:
    """The usual one: load, protect, something random."""
    return Compose([*source.head(), RandFlipd("image", prob=0.5, spatial_axis=0)]).set_random_state(7)


def images(data: Any) -> list[Any]:
    return [data[index]["image"] for index in range(len(data))]


def plain(source: Source) -> list[Any]:
    return images(Dataset(source.items, chain(source)))


def sliced(source: Source) -> list[Any]:
    data = Dataset(source.items, chain(source))
    return images(data[1:3]) + images(data[[0, 2]])


def function(source: Source) -> list[Any]:
    listed = DatasetFunc(source.items, lambda items: items[::-1])
    return images(Dataset(listed, chain(source)))


def cached(**settings: Any) -> Any:
    def run(source: Source) -> list[Any]:
        data = CacheDataset(source.items, chain(source), progress=False, **settings)
        return images(data) + images(data)

    return run


def persistent(**settings: Any) -> Any:
    """Two passes, each by a data set of its own, as two runs of a program would."""

    def run(source: Source) -> list[Any]:
        first = images(PersistentDataset(source.items, chain(source), source.folder, **settings))
        assert len(list(source.folder.glob("*.pt"))) == CASES
        return first + images(PersistentDataset(source.items, chain(source), source.folder, **settings))

    return run


def n_transforms(source: Source) -> Iterator[Any]:
    # 1: the cache holds what was loaded, and SALM's step is run on it; 2: what SALM's step made of it; 3: random flips too.
    steps = len(source.head())
    for count in (1, steps, steps + 1):
        folder = source.folder / str(count - steps)
        for _ in range(2):
            yield from images(CacheNTransDataset(source.items, chain(source), count, folder))


def lmdb(source: Source) -> Iterator[Any]:
    for _ in range(2):
        data = LMDBDataset(source.items, chain(source), source.folder, progress=False)
        yield from images(data)
        data.close()


def smart(source: Source) -> Iterator[Any]:
    transform = Compose(source.head())
    data = SmartCacheDataset(source.items, transform, replace_rate=0.5, cache_num=2, progress=False)
    data.start()
    for _ in range(3):
        yield from images(data)
        data.update_cache()
    data.shutdown()


def arrays(source: Source) -> Iterator[Any]:
    paths, masks = ([item[key] for item in source.items] for key in ("image", "seg"))
    flip = RandFlip(prob=0.5, spatial_axis=1)
    steps, mask_steps = ([*head, flip] for head in (source.array_head(), [LoadImage(ensure_channel_first=True)]))
    data = ArrayDataset(paths, Compose(steps), masks, Compose(mask_steps), labels=[0, 1, 0, 1])
    data.set_random_state(3)
    # The mask is the same for every change of the image, so that the two are told apart by the image alone.
    yield from (image for image, *_ in (data[index] for index in range(len(data))))
    yield from ArrayDataset(paths, Compose(source.array_head()))


def with_masks(source: Source) -> list[Any]:
    data = ArrayDataset(
        [item["image"] for item in source.items],
        Compose(source.array_head()),
        [item["seg"] for item in source.items],
        Compose([LoadImage(ensure_channel_first=True)]),
    )
    return [torch.cat(list(data[index])) for index in range(len(data))]


def image_data(source: Source) -> list[Any]:
    steps = Compose([EnsureChannelFirst(), *source.salm_array_step(), RandFlip(prob=0.5)])
    paths = [item["image"] for item in source.items]
    data = ImageDataset(paths, transform=steps, labels=[0, 1, 0, 1], image_only=True)
    data.set_random_state(5)
    return [data[index][0] for index in range(len(data))]


def zipped(source: Source) -> list[Any]:
    one = Dataset([item["image"] for item in source.items], Compose(source.array_head()))
    two = Dataset([item["second"] for item in source.items], Compose(source.array_head()))
    return [image for pair in ZipDataset([one, two]) for image in pair]


def grid(**settings: Any) -> Any:
    def run(source: Source) -> Iterator[Any]:
        volumes = Dataset(source.items, Compose(source.head()))
        patches = PatchIterd("image", patch_size=(3, 3, 2))
        shift = Compose([RandShiftIntensityd("image", offsets=50, prob=1.0)]).set_random_state(1)
        data = GridPatchDataset(volumes, patches, transform=shift, progress=False, **settings)
        yield from (patch["image"] for patch, _ in data)

    return run


def random_patches(source: Source) -> list[Any]:
    volumes = Dataset(source.items, Compose(source.head()))
    crops = RandSpatialCropSamplesd("image", roi_size=(3, 3, 3), num_samples=3, random_size=False).set_random_state(2)
    return [patch["image"] for patch in PatchDataset(volumes, crops, samples_per_image=3)]


def iterable(source: Source) -> Iterable[Any]:
    yield from (item["image"] for item in IterableDataset(source.items, chain(source)))
    yield from (item["image"] for item in ShuffleBuffer(source.items, chain(source), buffer_size=2, seed=1))


def npz(source: Source) -> list[Any]:
    path = source.folder / "images.npz"
    np.savez(path, images=np.stack(source.values), labels=np.arange(CASES))
    return images(NPZDictItemDataset(str(path), {"images": "image", "labels": "label"}, Compose(source.salm_step())))


def csv(source: Source) -> list[Any]:
    path = source.folder / "items.csv"
    rows = [f"{item['image']},{item['label']}" for item in source.items]
    path.write_text("\n".join(["image,label", *rows]))
    return images(CSVDataset(str(path), transform=chain(source)))


def in_memory(source: Source) -> list[Any]:
    items: list[dict[str, Array]] = [{"image": values} for values in source.values]
    return images(Dataset(items, source.salm_step()))


ROWS = [
    Row("`Dataset` of files", plain),
    Row("`Dataset` of arrays in memory", in_memory),
    Row("`Dataset`, a slice or a list of indices (`Subset`)", sliced),
    Row("`DatasetFunc`", function),
    Row("`CacheDataset`", cached()),
    Row("`CacheDataset(cache_rate=0.5, num_workers=2)`", cached(cache_rate=0.5, num_workers=2)),
    Row("`CacheDataset(copy_cache=False, as_contiguous=False)`", cached(copy_cache=False, as_contiguous=False)),
    Row("`CacheDataset(hash_as_key=True)`", cached(hash_as_key=True)),
    Row('`CacheDataset(runtime_cache="threads")`', cached(runtime_cache="threads")),
    Row('`CacheDataset(runtime_cache="processes")`', cached(runtime_cache="processes")),
    Row(
        "`PersistentDataset(track_meta=False, weights_only=True)` (its default), both passes",
        persistent(track_meta=False, weights_only=True),
    ),
    Row(
        "`PersistentDataset(track_meta=False, weights_only=False)`, both passes",
        persistent(track_meta=False, weights_only=False),
    ),
    Row(
        "`PersistentDataset(track_meta=True, weights_only=False)`, both passes",
        persistent(track_meta=True, weights_only=False),
    ),
    Row(
        "`PersistentDataset(track_meta=True, weights_only=True)`, both passes",
        persistent(track_meta=True, weights_only=True),
        since="1.6.1",
    ),
    Row("`CacheNTransDataset`, cached before, after and past SALM's step", n_transforms),
    Row("`LMDBDataset`, both passes", lmdb, needs="lmdb"),
    Row("`SmartCacheDataset`, three epochs of replacement", smart),
    Row("`ArrayDataset` with masks and labels, and of images alone", arrays),
    Row("`ArrayDataset`, images and masks side by side", with_masks),
    Row("`ImageDataset`", image_data),
    Row("`ZipDataset`", zipped),
    Row("`GridPatchDataset`", grid()),
    Row(
        "`GridPatchDataset(cache=True)` of tensors",
        grid(cache=True, hash_func=salm_hash_transform),
    ),
    Row("`PatchDataset`", random_patches),
    Row("`IterableDataset`, `ShuffleBuffer`", iterable),
    Row("`NPZDictItemDataset`", npz),
    Row("`CSVDataset`", csv, needs="pandas"),
]


@pytest.mark.parametrize("kind", ["originals", "protected"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
@pytest.mark.filterwarnings("ignore:Corrupt cache file detected:UserWarning")
def test_a_data_set_gives_the_same_bits(row: Row, kind: str, samples: Samples, tmp_path: Path) -> None:
    if row.needs:
        pytest.importorskip(row.needs)
    refused = bool(row.since) and not version_geq(monai.__version__, row.since)
    with pytest.raises(ValueError, match="cannot be used with `weights_only") if refused else nullcontext():
        require_same_bits(row.run, samples, kind, tmp_path)


def test_monais_own_keys_of_tensors_are_addresses() -> None:
    """Why ``GridPatchDataset(cache=True)`` needs ``hash_func``; where this fails, MONAI or torch mended it."""
    one, two = ({"image": torch.arange(6.0)} for _ in range(2))
    assert pickle_hashing(one) != pickle_hashing(two)
    assert salm_hash_transform(one) == salm_hash_transform(two) != salm_hash_transform({"image": torch.arange(5.0)})


def test_every_data_set_class_of_monai_is_tried() -> None:
    """A class that a later version of MONAI brings joins the rows, or is named here with the reason."""
    not_tried = {
        "GDSDataset": "a GPU and kvikio",
        "CSVIterableDataset": "gives rows of a table, not images",
        "PatchWSIDataset": "reads patches of a slide, never a whole image",
        "SlidingPatchWSIDataset": "reads patches of a slide, never a whole image",
        "MaskedPatchWSIDataset": "reads patches of a slide, never a whole image",
    }
    classes = {name for name in dir(monai.data) if name.endswith("Dataset") and name[0].isupper()}
    shown = " ".join(row.what for row in ROWS)
    assert {name for name in classes if f"`{name}" not in shown} == not_tried.keys()
