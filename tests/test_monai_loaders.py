"""Every loader of MONAI and PyTorch, with every kind of worker, gives the same bits; what fails in a worker says why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data
from monai.data import (
    ArrayDataset,
    CacheDataset,
    CacheNTransDataset,
    DataLoader,
    Dataset,
    GridPatchDataset,
    LMDBDataset,
    PatchIterd,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
    decollate_batch,
)
from monai.transforms import Compose, EnsureTyped, Flipd, LoadImaged
from monai_samples import CASES, Row, Samples, Source, bits, make_samples
from torch.utils.data import ConcatDataset

from monai_salm import NoiseStore, SALMProtectd

pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
    # What Python says of "fork" where some thread runs; the tests are of what it does to the store.
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"))


class Both(ConcatDataset[Any]):
    """Originals that are protected, then protected images that are restored; each half a data set of its own."""

    def __init__(self, samples: Samples, folder: Path, kind: Any = Dataset, **settings: Any) -> None:
        halves = []
        for name in ("originals", "protected"):
            source = Source(samples, name, True, folder)
            halves.append(kind(source.items, Compose(source.head()), **settings))
        super().__init__(halves)


def workers(
    kind: Any = DataLoader, start: str | None = None, data: Any = Dataset, number: int = 2, **settings: Any
) -> Any:
    """Two epochs of one loader, with a store that was open before its workers started."""

    def run(source: Source) -> Iterator[Any]:
        cache = {"cache_dir": source.folder} if data is PersistentDataset else {}
        both = Both(
            source.samples, source.folder, data, **cache, **({"progress": False} if data is CacheDataset else {})
        )
        _ = both[0]
        if start:
            settings["multiprocessing_context"] = start
        loader = kind(both, batch_size=2, num_workers=number, **settings)
        for _ in range(2):
            for batch in loader:
                yield from batch["image"]

    return run


def in_workers(make: Any, start: str) -> Any:
    """Two epochs of a data set in two workers that last: originals that are protected, then protected images that are restored."""

    def run(source: Source) -> Iterator[Any]:
        halves = []
        for name in ("originals", "protected"):
            folder = source.folder / name
            folder.mkdir()
            halves.append(make(Source(source.samples, name, True, folder)))
        settings: dict[str, Any] = {
            "num_workers": 2,
            "multiprocessing_context": start,
            "persistent_workers": True,
        }
        loader = DataLoader(ConcatDataset(halves), batch_size=2, **settings)
        for _ in range(2):
            for batch in loader:
                yield from batch["image"] if isinstance(batch, dict) else batch

    return run


def n_transforms(source: Source) -> Any:
    return CacheNTransDataset(source.items, Compose(source.head()), 2, source.folder)


def lmdb(source: Source) -> Any:
    return LMDBDataset(source.items, Compose(source.head()), source.folder, progress=False)


def smart(kind: Any = DataLoader, **settings: Any) -> Any:
    """Half of the images in the cache, then the other half: together one epoch."""

    def run(source: Source) -> Iterator[Any]:
        for name in ("originals", "protected"):
            half = Source(source.samples, name, True, source.folder)
            chain = Compose(half.head())
            data = SmartCacheDataset(
                half.items, chain, replace_rate=1.0, cache_num=CASES // 2, shuffle=False, progress=False
            )
            data.start()
            for _ in range(2):
                for batch in kind(data, batch_size=2, num_workers=2, **settings):
                    yield from batch["image"]
                data.update_cache()
            data.shutdown()

    return run


def arrays(source: Source) -> Any:
    return ArrayDataset([item["image"] for item in source.items], Compose(source.array_head()))


def decollated(source: Source) -> Iterator[Any]:
    for batch in DataLoader(Both(source.samples, source.folder), batch_size=3, num_workers=0):
        for item in decollate_batch(batch):
            yield item["image"]


def plain_loader(source: Source) -> Iterator[Any]:
    """PyTorch's loader knows nothing of metadata, so the chain drops it."""
    data = Both(source.samples, source.folder)
    untracked = Dataset(data, EnsureTyped("image", track_meta=False))
    for batch in torch.utils.data.DataLoader(untracked, batch_size=2):
        yield from batch["image"]


def patches(source: Source) -> Iterator[Any]:
    """Each of two workers takes its share of the volumes; the patches are put together again."""
    whole = Both(source.samples, source.folder)
    data = GridPatchDataset(whole, PatchIterd("image", patch_size=(6, 5, 2)))
    found: dict[str, list[Any]] = {}
    for items, _ in DataLoader(data, batch_size=1, num_workers=2, multiprocessing_context="fork"):
        image = items["image"][0]
        found.setdefault(image.meta["filename_or_obj"], []).append(image)
    for _ in range(2):
        for index in range(len(whole)):
            yield torch.cat(found[whole[index]["image"].meta["filename_or_obj"]], dim=-1)


ROWS = [
    Row("`DataLoader(num_workers=0)`", workers(number=0)),
    Row("`DataLoader`, 2 workers, fork", workers(start="fork")),
    Row("`DataLoader`, 2 workers, spawn", workers(start="spawn"), slow=True),
    Row("`DataLoader`, 2 workers, forkserver", workers(start="forkserver"), slow=True),
    Row("`DataLoader`, 2 persistent workers, fork", workers(start="fork", persistent_workers=True)),
    Row("`DataLoader`, 2 persistent workers, spawn", workers(start="spawn", persistent_workers=True), slow=True),
    Row(
        "`DataLoader`, 2 persistent workers, forkserver",
        workers(start="forkserver", persistent_workers=True),
        slow=True,
    ),
    Row("`DataLoader` of `CacheDataset`, 2 workers, fork", workers(start="fork", data=CacheDataset)),
    Row("`DataLoader` of `CacheDataset`, 2 workers, spawn", workers(start="spawn", data=CacheDataset), slow=True),
    Row("`DataLoader` of `PersistentDataset`, 2 workers, fork", workers(start="fork", data=PersistentDataset)),
    Row(
        "`DataLoader` of `PersistentDataset`, 2 workers, forkserver",
        workers(start="forkserver", data=PersistentDataset),
        slow=True,
    ),
    Row("`DataLoader` of `GridPatchDataset`, 2 workers, fork", patches),
    Row("`ThreadDataLoader(num_workers=0)`", workers(ThreadDataLoader, number=0)),
    Row("`ThreadDataLoader(use_thread_workers=True)`, 2 threads", workers(ThreadDataLoader, use_thread_workers=True)),
    Row("`ThreadDataLoader(buffer_size=3)`, 2 workers, fork", workers(ThreadDataLoader, "fork", buffer_size=3)),
    *(
        Row(f"`ThreadDataLoader`, 2 workers, {start}", workers(ThreadDataLoader, start), slow=True)
        for start in ("spawn", "forkserver")
    ),
    *(
        Row(f"`DataLoader` of `{name}`, 2 workers, {start}", in_workers(make, start), needs=needs, slow=start != "fork")
        for name, make, needs in (
            ("CacheNTransDataset", n_transforms, ""),
            ("LMDBDataset", lmdb, "lmdb"),
            ("ArrayDataset", arrays, ""),
        )
        for start in ("fork", "spawn", "forkserver")
    ),
    Row("`DataLoader` of `SmartCacheDataset`, 2 workers, fork", smart(multiprocessing_context="fork")),
    Row(
        "`ThreadDataLoader(use_thread_workers=True)` of `SmartCacheDataset`, 2 threads",
        smart(ThreadDataLoader, use_thread_workers=True),
    ),
    Row("`torch.utils.data.DataLoader`, metadata dropped", plain_loader),
    Row("`decollate_batch`", decollated),
]


def params(rows: Iterable[Row]) -> list[Any]:
    return [pytest.param(row, id=row.what, marks=[pytest.mark.slow] if row.slow else []) for row in rows]


@pytest.mark.parametrize("row", params(ROWS))
def test_a_loader_gives_the_same_bits(row: Row, samples: Samples, tmp_path: Path) -> None:
    if row.needs:
        pytest.importorskip(row.needs)
    found = bits(row.run(Source(samples, "originals", True, tmp_path)))
    values = [*samples.values["protected"], *samples.values["originals"]]
    expected = bits(array.astype(np.float32) for array in values)
    assert len(found) in (len(expected), 2 * len(expected))
    assert found == expected * (len(found) // len(expected))


def test_a_batch_and_its_parts_keep_metadata_and_record(samples: Samples, tmp_path: Path) -> None:
    source = Source(samples, "originals", True, tmp_path)
    data = Dataset(source.items, Compose([*source.head(), Flipd("image", spatial_axis=1)]))
    for batch in DataLoader(data, batch_size=CASES):
        parts = decollate_batch(batch)
    for item, part in zip(source.items, parts, strict=True):
        assert part["image"].meta["filename_or_obj"] == item["image"]
        assert [step["class"] for step in part["image"].applied_operations] == ["Flip"]
        assert part["image"].affine.diagonal()[0] == 1


@pytest.mark.parametrize(
    "settings",
    [{"num_workers": 0}, {"num_workers": 2, "multiprocessing_context": "fork"}],
    ids=["main process", "fork"],
)
def test_what_fails_in_a_worker_says_why(settings: dict[str, Any], samples: Samples) -> None:
    steps = [LoadImaged("image", ensure_channel_first=True), Flipd("image", 0), SALMProtectd("image", samples.store)]
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Dataset(samples.originals, Compose(steps)), **settings))
    # A worker sends the text of all errors, in the main process they hang together.
    text, error = str(caught.value), caught.value.__cause__
    while error is not None:
        text, error = text + str(error), error.__cause__
    assert "flipped along spatial axis 0" in text
    assert "Place SALMProtectd right after LoadImaged" in text


def test_one_open_store_serves_processes_and_threads_in_turn(samples: Samples) -> None:
    store = NoiseStore(samples.store)
    steps = [LoadImaged("image", ensure_channel_first=True), SALMProtectd("image", store)]
    data = Dataset(samples.originals, Compose(steps))
    forked = {"multiprocessing_context": "fork"}
    for kind, settings in (
        (DataLoader, forked),
        (ThreadDataLoader, {"use_thread_workers": True}),
        (DataLoader, forked),
    ):
        found = [batch["image"][0] for batch in kind(data, num_workers=2, **settings)]
        assert all(np.array_equal(one, two) for one, two in zip(found, samples.values["protected"], strict=True))
        assert len(store) == 2 * CASES


@pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")  # PyTorch, before the error itself
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_smart_cache_goes_to_no_started_process_with_our_transform_or_without(start: str, samples: Samples) -> None:
    """It holds a lock, so MONAI cannot send it; docs/monai.md says so. It fails before a process starts."""
    load = LoadImaged("image", ensure_channel_first=True)
    for steps in ([load], [load, SALMProtectd("image", samples.store)]):
        data = SmartCacheDataset(samples.originals, Compose(steps), replace_rate=0.5, cache_num=2, progress=False)
        with pytest.raises(TypeError, match="cannot pickle"):
            list(DataLoader(data, num_workers=2, multiprocessing_context=start))
