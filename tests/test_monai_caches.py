"""A cache on disk that was made before protection, or with other noise, is not handed on where ``salm_hash_transform`` names it.

Without it MONAI hands it on in silence; that is shown too. docs/monai.md warns of it.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheNTransDataset, LMDBDataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Lambdad, LoadImaged, RandFlipd, ScaleIntensityRanged, Spacingd, Transform
from monai_samples import BUDGET, META, Samples, make_samples

from monai_salm import NoiseStore, SALMProtectd, SALMRestored, salm_hash_transform
from monai_salm.noise.grid import apply_codes
from monai_salm.noise.noise import Noise, NoiseStoreError

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
LOAD = LoadImaged("image", ensure_channel_first=True)


class Nothing(Transform):
    """A step that does nothing."""

    def __call__(self, data: Any) -> Any:
        return data


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    (tmp_path / "samples").mkdir()
    return make_samples(tmp_path / "samples")


@dataclass(frozen=True)
class Cache:
    """A class that caches on disk: how MONAI's users open it, and how they do with the remedy."""

    what: str
    opened: Callable[..., Any]
    remedied: Callable[..., Any]
    needs: str = ""


def _lmdb(items: Any, chain: Any, folder: Path, **settings: Any) -> list[Any]:
    data = LMDBDataset(items, chain, folder, progress=False, **settings)
    found = [data[index] for index in range(len(data))]
    data.close()
    return found


def _lmdb_named(items: Any, chain: Any, folder: Path) -> list[Any]:
    return _lmdb(items, chain, folder, db_name=salm_hash_transform(chain).decode())


ROWS = [
    Cache(
        "`PersistentDataset`",
        PersistentDataset,
        partial(PersistentDataset, hash_transform=salm_hash_transform),
    ),
    Cache(
        "`CacheNTransDataset`",
        lambda items, chain, folder: CacheNTransDataset(items, chain, 2, folder),
        lambda items, chain, folder: CacheNTransDataset(items, chain, 2, folder, hash_transform=salm_hash_transform),
    ),
    Cache(
        "`LMDBDataset`, which takes `hash_transform` and does not use it",
        partial(_lmdb, hash_transform=salm_hash_transform),
        _lmdb_named,
        "lmdb",
    ),
]


def matches(data: Any, expected: list[np.ndarray[Any, Any]]) -> bool:
    return all(np.array_equal(data[index]["image"], array) for index, array in enumerate(expected))


@pytest.fixture(params=ROWS, ids=lambda row: row.what)
def row(request: pytest.FixtureRequest) -> Cache:
    if request.param.needs:
        pytest.importorskip(request.param.needs)
    return request.param  # type: ignore[no-any-return]


def test_a_cache_of_clean_images_is_handed_on_by_monai_and_not_with_the_remedy(
    row: Cache, samples: Samples, tmp_path: Path
) -> None:
    clean, chain = (Compose([LOAD, step]) for step in (Nothing(), SALMProtectd("image", samples.store)))
    originals, protected = samples.values["originals"], samples.values["protected"]
    assert matches(row.opened(samples.originals, clean, tmp_path / "cache"), originals)
    assert matches(row.opened(samples.originals, chain, tmp_path / "cache"), originals), (
        "MONAI mended it: correct docs/monai.md"
    )
    for _ in range(2):
        assert matches(row.remedied(samples.originals, chain, tmp_path / "cache"), protected)
    # And the way back: users who may train on the originals remove the transform.
    assert matches(row.remedied(samples.originals, clean, tmp_path / "cache"), originals)


def test_a_store_made_anew_at_the_same_path_gives_a_new_cache(row: Cache, samples: Samples, tmp_path: Path) -> None:
    chain = Compose([LOAD, SALMProtectd("image", samples.store)])
    assert matches(row.remedied(samples.originals, chain, tmp_path / "cache"), samples.values["protected"])
    samples.store.unlink()
    images = samples.values["originals"]
    noises = [
        Noise.of(image, np.full(image.shape, 3, np.int8), BUDGET, str(index)) for index, image in enumerate(images)
    ]
    NoiseStore.create(samples.store, META).add(noises)
    anew = [apply_codes(image, noise.codes, 1.0) for image, noise in zip(images, noises, strict=True)]
    assert matches(row.remedied(samples.originals, chain, tmp_path / "cache"), anew)


def test_a_second_program_reads_what_the_first_cached(samples: Samples, tmp_path: Path) -> None:
    for _ in range(2):
        steps = [LoadImaged("image", ensure_channel_first=True), SALMProtectd("image", str(samples.store))]
        data = PersistentDataset(samples.originals, steps, tmp_path / "cache", hash_transform=salm_hash_transform)
        assert matches(data, samples.values["protected"])
    assert len(list((tmp_path / "cache").glob("*.pt"))) == len(samples.originals)


# ---------------------------------------------------------------------------------------------------------------------
# The hash


def chain_of(store: Any, low: float = 0.0, factor: int = 2) -> list[Any]:
    return [
        LoadImaged("image", ensure_channel_first=True),
        SALMProtectd("image", store),
        Spacingd("image", (1.0, 1.0, 2.0)),
        ScaleIntensityRanged("image", low, 1, 0, 1),
        Lambdad("image", partial(torch.mul, other=factor)),
    ]


def test_equal_chains_have_one_hash_however_they_were_made_and_used(samples: Samples, tmp_path: Path) -> None:
    steps = chain_of(samples.store)
    first = salm_hash_transform(steps)
    assert len(first) == 64
    assert int(first, 16)
    Compose(steps[:2])(samples.originals[0])
    assert salm_hash_transform(steps) == first
    assert salm_hash_transform(chain_of(NoiseStore(os.path.relpath(samples.store)))) == first
    moved = shutil.copy(samples.store, tmp_path / "moved.db")
    assert salm_hash_transform(chain_of(moved)) == first
    assert salm_hash_transform(pickle.loads(pickle.dumps(steps))) == first  # noqa: S301
    chain = Compose([Compose(steps[:3]), *steps[3:], RandFlipd("image", prob=0.3), Nothing()])
    assert salm_hash_transform(chain) == first


def test_a_hash_says_everything_that_is_set(samples: Samples, tmp_path: Path) -> None:
    other = NoiseStore.create(tmp_path / "other.db", {**META, "seed": 1})
    steps = chain_of(samples.store)
    chains = [
        steps,
        steps[:1],
        steps[::-1],
        chain_of(other),
        chain_of(samples.store, low=0.5),
        chain_of(samples.store, factor=3),
        [*steps[:1], SALMRestored("image", samples.store), *steps[2:]],
        [*steps[:1], SALMProtectd("second", samples.store), *steps[2:]],
        [*steps[:4], Lambdad("image", torch.neg)],
        [*steps[:4], Lambdad("image", partial(torch.add, other=1))],
        [*steps[:4], Lambdad("image", partial(torch.add, other=2))],
    ]
    assert len({salm_hash_transform(chain) for chain in chains}) == len(chains)


VALUES: list[Any] = [
    *(None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, {1: 1}, {"1": 1}, [[1]], [1, 1], [[1], 1], [], {}, (), ""),
    *(np.int16(1), np.array([1]), np.array([[1]]), np.array([1.0]), np.array(["a"], object), np.array(["b"], object)),
    *(
        torch.tensor([1]),
        torch.tensor([1.0]),
        torch.tensor(1),
        torch.tensor([1.0], dtype=torch.bfloat16),
        torch.float32,
    ),
    *(
        np.float32,
        np.dtype("f4"),
        Path("1"),
        len,
        np.add,
        np.subtract,
        "".join,
        slice(1),
        range(1),
        pickle_hashing,
    ),
]


def test_different_values_have_different_hashes() -> None:
    assert len({salm_hash_transform(value) for value in VALUES}) == len(VALUES)
    assert salm_hash_transform({"a": 1, "b": {2, 3}}) == salm_hash_transform({"a": 1, "b": {3, 2}})
    assert salm_hash_transform({"a": 1, "b": 2}) != salm_hash_transform({"b": 2, "a": 1}), (
        "a loop over it runs in order"
    )


def test_a_value_that_holds_itself_has_a_hash() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert salm_hash_transform(loop) == salm_hash_transform(loop) != salm_hash_transform([1, [1]])


class Holding(Transform):
    """A transform that holds anything."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def __call__(self, data: Any) -> Any:
        return data


class Stateful(Holding):
    """One that says what its state is."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "handle"}


class Slotted:
    """An object without a dictionary that can be referred to weakly."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Any) -> None:
        self.value = value


def test_a_logger_counts_with_its_name() -> None:
    logger = logging.getLogger("monai_salm.first")
    first = salm_hash_transform([Holding(logger=logger)])
    logger.addHandler(logging.NullHandler())
    assert salm_hash_transform([Holding(logger=logging.getLogger("monai_salm.first"))]) == first
    assert salm_hash_transform([Holding(logger=logging.getLogger("monai_salm.second"))]) != first
    assert salm_hash_transform([Holding(logger=logging.getLogger())]) != first


def test_an_object_counts_with_what_its_class_says_its_state_is() -> None:
    first = salm_hash_transform([Stateful(factor=1, handle=threading.Lock())])
    assert salm_hash_transform([Stateful(factor=1)]) == first
    assert salm_hash_transform([Stateful(factor=2)]) != first
    assert salm_hash_transform([Slotted(1)]) != salm_hash_transform([Slotted(2)])


def test_an_error_says_which_transform_of_a_chain_it_is() -> None:
    for chain in (
        Compose([LOAD, Holding(model=threading.Lock())]),
        Compose([Compose([LOAD]), Lambdad("image", lambda x: x)]),
    ):
        with pytest.raises(TypeError, match=r"^transforms\[1\], (Holding|Lambdad): .*pickle") as caught:
            salm_hash_transform(chain)
        for remedy in ("__getstate__", "after the first random transform", "hash_transform a function of your own"):
            assert remedy in str(caught.value)


def test_a_store_is_found_at_any_depth(samples: Samples, tmp_path: Path) -> None:
    class Derived(NoiseStore):
        pass

    other = tmp_path / "other.db"
    NoiseStore.create(other, META)
    globals()["Derived"], Derived.__qualname__ = Derived, "Derived"
    for kind in (NoiseStore, Derived):
        keys = {salm_hash_transform([Holding(deep=[{"a": (1, kind(path))}])]) for path in (samples.store, other)}
        moved = shutil.copy(samples.store, tmp_path / "moved.db")
        keys.add(salm_hash_transform([Holding(deep=[{"a": (1, kind(moved))}])]))
        assert len(keys) == 2


def test_a_store_that_is_not_there_is_an_error(samples: Samples, tmp_path: Path) -> None:
    chain = [LOAD, SALMProtectd("image", NoiseStore(tmp_path / "none.db"))]
    with pytest.raises(NoiseStoreError, match="no noise store at"):
        PersistentDataset(samples.originals, chain, tmp_path / "cache", hash_transform=salm_hash_transform)


def test_images_that_join_a_store_keep_its_caches(samples: Samples) -> None:
    steps = chain_of(samples.store)
    first = salm_hash_transform(steps)
    image = np.zeros((1, 3, 3), np.uint8)
    NoiseStore(samples.store).add([Noise.of(image, np.ones(image.shape, np.int8), BUDGET, "new")])
    assert salm_hash_transform(steps) == first
