"""What MONAI undoes and averages is what it would be for protected files; the noise itself is never undone by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, TestTimeAugmentation, decollate_batch
from monai.data.utils import no_collation
from monai.transforms import (
    BatchInverseTransform,
    Compose,
    EnsureTyped,
    Flipd,
    Invertd,
    OneOf,
    RandFlipd,
    RandRotate90d,
    RandZoomd,
    Spacingd,
)
from monai_samples import CASES, Row, Samples, Source, make_samples, require_same_bits

pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'lazy' is set to True but lazy execution is not supported when inverting"),
]
BOTH = ("image", "seg")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"))


def augmented(source: Source, *more: Any, lazy: bool = False) -> Compose:
    steps = [RandFlipd(BOTH, prob=0.5, spatial_axis=0), RandRotate90d(BOTH, prob=0.5), *more]
    return Compose([*source.head(also=("seg",)), *steps], lazy=lazy).set_random_state(11)


def network(image: Any) -> Any:
    """What a network would make of a batch: different for different images."""
    return image * 3 - 7


def inverse(source: Source) -> Iterator[Any]:
    chain = augmented(source, Spacingd(BOTH, (1.5, 2, 2), mode=("bilinear", "nearest")))
    done = [chain(item) for item in source.items]
    # Compose.inverse seeds the chain's random transforms again, so it comes after all that is drawn.
    yield from (chain.inverse(item)["image"] for item in done)


def inverted(**settings: Any) -> Any:
    """Predictions of a batch, put back one by one, as handlers and evaluators do."""

    def run(source: Source) -> Iterator[Any]:
        chain = augmented(source, lazy=settings.get("lazy", False))
        undo = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=settings.get("nearest", True))
        post = Compose([undo, EnsureTyped("pred")])
        workers: dict[str, Any] = settings.get("workers", {})
        # One image a batch: a turned one has another shape.
        for batch in list(DataLoader(Dataset(source.items, chain), batch_size=1, **workers)):
            batch["pred"] = network(batch["image"])
            yield from (post(item)["pred"] for item in decollate_batch(batch))

    return run


def one_of(source: Source) -> Iterator[Any]:
    chain = Compose([*source.head(), OneOf([RandFlipd("image", prob=1.0), RandRotate90d("image", prob=1.0)])])
    chain.set_random_state(2)
    undo = Invertd("pred", transform=chain, orig_keys="image")
    for item in source.items:
        done = chain(item)
        done["pred"] = network(done["image"])
        yield undo(done)["pred"]


def by_batches(source: Source) -> Iterator[Any]:
    chain = augmented(source, RandZoomd(BOTH, prob=1.0, keep_size=True))
    loader = DataLoader(Dataset(source.items, chain), batch_size=1)
    undo = BatchInverseTransform(chain, loader, collate_fn=no_collation)
    for batch in list(loader):
        yield from (item["image"] for item in undo(batch))


def many_times(**settings: Any) -> Any:
    """Test-time augmentation of one item."""

    def run(source: Source) -> list[Any]:
        chain = Compose([*source.head(also=("seg",)), RandFlipd(BOTH, prob=0.5, spatial_axis=0)]).set_random_state(6)
        augmentation = TestTimeAugmentation(
            chain, batch_size=2, inferrer_fn=network, orig_key="seg", progress=False, **settings
        )
        result = augmentation(source.items[1], num_examples=6)
        # Four figures, of which the last is a plain number: as one, since noise need not show in each.
        parts = result if isinstance(result, tuple) else (result,)
        return [torch.cat([torch.as_tensor(part, dtype=torch.float64).flatten() for part in parts])]

    return run


ROWS = [
    Row("`Compose.inverse` of flips, turns and `Spacingd`", inverse),
    Row("`Invertd` of decollated predictions", inverted()),
    Row("`Invertd(nearest_interp=False)`", inverted(nearest=False)),
    Row(
        "`Invertd`, the chain in 2 workers, fork",
        inverted(workers={"num_workers": 2, "multiprocessing_context": "fork"}),
    ),
    Row("`Invertd` of a chain with `lazy=True`", inverted(lazy=True)),
    Row("`Invertd` of a chain with `OneOf`", one_of),
    Row("`BatchInverseTransform`", by_batches),
    Row("`TestTimeAugmentation`: mode, mean, deviation, variation", many_times()),
    Row("`TestTimeAugmentation(return_full_data=True)`", many_times(return_full_data=True)),
    Row("`TestTimeAugmentation(apply_inverse_to_pred=False)`", many_times(apply_inverse_to_pred=False)),
]


@pytest.mark.parametrize("kind", ["originals", "protected"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_what_is_undone_has_the_same_bits(row: Row, kind: str, samples: Samples, tmp_path: Path) -> None:
    require_same_bits(row.run, samples, kind, tmp_path)


def test_inverting_undoes_the_flip_and_neither_protects_nor_restores(samples: Samples, tmp_path: Path) -> None:
    source = Source(samples, "originals", True, tmp_path)
    chain = Compose([*source.head(), Flipd("image", spatial_axis=0)])
    done = chain(source.items[0])
    assert np.array_equal(chain.inverse(done)["image"], samples.values["protected"][0])
    # A mask has none of the image's values: looking for it in the store would be an error.
    done, mask = chain(source.items[0]), MetaTensor(torch.arange(120.0).view(1, 6, 5, 4))
    done["pred"] = mask.clone()
    undone = Invertd("pred", transform=chain, orig_keys="image")(done)["pred"]
    assert torch.equal(undone.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).flip(1))


def test_test_time_augmentation_has_nothing_to_say_of_the_transform(samples: Samples, tmp_path: Path) -> None:
    """It warns of random transforms that cannot be undone; warnings are errors here."""
    for kind in ("originals", "protected"):
        head = Source(samples, kind, True, tmp_path).head()
        TestTimeAugmentation(Compose([*head, RandFlipd("image", prob=0.5)]), batch_size=CASES, orig_key="image")
