"""However a chain is put together, images come out as they would from protected files, or the chain refuses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset, GridPatchDataset, MetaTensor, PatchIterd, set_track_meta
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    ConcatItemsd,
    CropForegroundd,
    DeleteItemsd,
    EnsureTyped,
    Flipd,
    LoadImaged,
    NormalizeIntensityd,
    OneOf,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandomOrder,
    RandRotate90d,
    RandSpatialCropSamplesd,
    RandZoomd,
    Resized,
    ScaleIntensityRanged,
    SomeOf,
    Spacing,
    Spacingd,
    ToTensord,
)
from monai.transforms.lazy.functional import apply_pending
from monai_samples import Row, Samples, Source, cause_of, make_samples, require_same_bits

from monai_salm import SALMProtect, SALMProtectd

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
Steps = Callable[[Source], list[Any]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"))


def through(steps: Steps, *keys: str, **settings: Any) -> Any:
    """The images of two epochs of a chain of these steps; a list of samples is taken apart."""

    def run(source: Source) -> Iterator[Any]:
        data = Dataset(source.items, Compose(steps(source), **settings).set_random_state(4))
        for index in (*range(len(data)), *range(len(data))):
            found = data[index]
            for sample in found if isinstance(found, list) else [found]:
                yield from (sample[key] for key in keys or ("image",))

    return run


def after(*steps: Any) -> Any:
    """These steps behind loading and SALM's."""
    return through(lambda source: [*source.head(), *steps])


def with_mask(*steps: Any) -> Steps:
    return lambda source: [*source.head(also=("seg",)), *steps]


def resampling() -> list[Any]:
    """Steps that MONAI can gather and do at once."""
    return [
        Orientationd("image", "LPS", labels=None),
        Spacingd("image", (1.5, 1.5, 2.0)),
        RandAffined("image", prob=1.0, rotate_range=0.3, padding_mode="border"),
        RandZoomd("image", prob=0.5, min_zoom=0.8, max_zoom=1.2),
        CenterSpatialCropd("image", (4, 4, 4)),
    ]


def scaling() -> list[Any]:
    return [
        ScaleIntensityRanged("image", -900, 900, 0, 1),
        NormalizeIntensityd("image"),
        CropForegroundd("image", source_key="image", allow_smaller=True),
        Resized("image", (8, 8, 8)),
        EnsureTyped("image", track_meta=False),
        ToTensord("image"),
    ]


def nested(source: Source) -> list[Any]:
    inner = Compose([Compose(source.salm_step())] if source.salm else [])
    return [Compose([LoadImaged("image", ensure_channel_first=True), inner]), Compose([Compose(resampling())])]


def branches(source: Source) -> list[Any]:
    """SALM's step in each of the branches, of which one is drawn."""
    flips = (Flipd("image", spatial_axis=0), Flipd("image", spatial_axis=1), Flipd("image", spatial_axis=2))
    load = LoadImaged("image", ensure_channel_first=True)
    return [load, OneOf([Compose([*source.salm_step(), flip]) for flip in flips])]


def two_keys(source: Source) -> list[Any]:
    keys = ["image", "second"]
    return [*source.head(keys), RandFlipd(keys, prob=0.5, spatial_axis=2)]


def joined(source: Source) -> list[Any]:
    keys = ["image", "second"]
    return [*source.head(keys), ConcatItemsd(keys, name="image"), DeleteItemsd("second")]


def missing(source: Source) -> list[Any]:
    load = LoadImaged(["image", "none"], ensure_channel_first=True, allow_missing_keys=True)
    step = source.salm_step(["image", "none"])
    for transform in step:
        transform.allow_missing_keys = True  # type: ignore[attr-defined]
    return [load, *step]


def untracked(source: Source) -> Iterator[Any]:
    set_track_meta(False)
    try:
        for image in after(RandFlipd("image", prob=0.5))(source):
            assert type(image) is torch.Tensor
            yield image
    finally:
        set_track_meta(True)


def pending(source: Source) -> Iterator[Any]:
    """Outside a Compose, a step that waits to be done is done behind SALM's, in whose place it was asked for."""
    load, spacing = Compose([LoadImaged("image", ensure_channel_first=True)]), Spacing((1.5, 1.5, 2.0), lazy=True)
    for item in source.items:
        image = spacing(load(item)["image"])
        for step in source.salm_array_step():
            image = step(image)
        yield apply_pending(image)[0]


POS_NEG = {"label_key": "seg", "spatial_size": (3, 3, 3), "num_samples": 4}
CROPS = RandSpatialCropSamplesd(["image", "seg"], roi_size=(3, 3, 3), num_samples=3, random_size=False)
ROWS = [
    Row("scaling, normalising, cropping, resizing, `EnsureTyped`, `ToTensord` after it", after(*scaling())),
    Row("`Compose`, nested", through(nested)),
    Row("`Compose(lazy=False)` with resampling after it", after(*resampling())),
    Row("`Compose(lazy=True)`", through(lambda source: [*source.head(), *resampling()], lazy=True)),
    Row("`Compose(lazy=None)`, some transforms lazy", after(Spacingd("image", (2, 2, 2), lazy=True), *resampling())),
    Row(
        '`Compose(lazy=True, overrides={"image": {"mode": "nearest"}})`',
        through(lambda source: [*source.head(), *resampling()], lazy=True, overrides={"image": {"mode": "nearest"}}),
    ),
    Row("array transform on a `MetaTensor` with lazy steps pending", pending),
    Row("`OneOf` after it", after(OneOf([RandFlipd("image", prob=1.0), RandRotate90d("image", prob=1.0)]))),
    Row("`OneOf` with it in every branch", through(branches)),
    Row("`SomeOf`, `RandomOrder` after it", after(SomeOf(resampling(), num_transforms=2), RandomOrder(resampling()))),
    Row(
        "multi-sample crops after it: `RandCropByPosNegLabeld`",
        through(with_mask(RandCropByPosNegLabeld("image", **POS_NEG))),
    ),
    Row(
        "multi-sample crops after it: `RandSpatialCropSamplesd`, then a random flip of each",
        through(with_mask(CROPS, RandFlipd(["image", "seg"], prob=0.5))),
    ),
    Row("several image keys", through(two_keys, "image", "second")),
    Row("several image keys, then `ConcatItemsd`", through(joined)),
    Row("a key that is missing, with `allow_missing_keys=True`", through(missing)),
    Row("`set_track_meta(False)`", untracked),
]


@pytest.mark.parametrize("kind", ["originals", "protected"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_chain_gives_the_same_bits(row: Row, kind: str, samples: Samples, tmp_path: Path) -> None:
    require_same_bits(row.run, samples, kind, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# In the wrong place


def before(*steps: Any, **settings: Any) -> Any:
    """Steps between loading and SALM's."""
    load = LoadImaged(["image", "seg"], ensure_channel_first=True)
    return through(lambda source: [load, *steps, *source.salm_step()], **settings)


def patch_step(source: Source) -> list[Any]:
    volumes = Dataset(source.items, LoadImaged("image", ensure_channel_first=True))
    data = GridPatchDataset(volumes, PatchIterd("image", (3, 3, 2)), transform=source.salm_step())
    return [patch["image"] for patch, _ in data]


def twice(source: Source) -> Any:
    return through(lambda source: [*source.head(), *source.salm_step()])(source)


def batched(source: Source) -> list[Any]:
    image = np.stack(source.values)
    return [source.salm_array_step()[0](image)]


REFUSED = [
    Row("after a flip", before(Flipd("image", spatial_axis=0)), "flipped along spatial axis 0"),
    Row("after `Spacingd`", before(Spacingd("image", (2, 2, 2))), "applied to it already"),
    Row(
        "after `Spacingd`, `Compose(lazy=True)`",
        before(Spacingd("image", (2, 2, 2)), lazy=True),
        "before transforms that resample (Spacingd)",
    ),
    Row("after a multi-sample crop", before(CROPS), "before transforms that crop, pad or resample"),
    Row(
        "after `ScaleIntensityRanged`", before(ScaleIntensityRanged("image", -1000, 1000, 0, 1)), r"rescaled to [0, 1]"
    ),
    Row(
        "as the patch transform of `GridPatchDataset`",
        patch_step,
        "before transforms that crop",
    ),
    Row("on a batch", batched, "it has a batch axis"),
    Row("twice in one chain", twice, "already"),
]


@pytest.mark.parametrize("kind", ["originals", "protected"])
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.what)
def test_a_wrong_place_is_refused(row: Row, kind: str, samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        list(row.run(Source(samples, kind, True, tmp_path)))
    cause = cause_of(caught.value)
    assert cause is not None
    assert row.refused in str(cause)


def test_metadata_and_the_record_of_steps_are_those_of_a_protected_file(samples: Samples, tmp_path: Path) -> None:
    found, expected = (
        Dataset(source.items, Compose([*source.head(), *resampling()]).set_random_state(0))[0]["image"]
        for source in (Source(samples, "originals", True, tmp_path), Source(samples, "protected", False, tmp_path))
    )
    assert isinstance(found, MetaTensor)
    assert torch.equal(found.affine, expected.affine)
    assert found.meta.keys() == expected.meta.keys()
    steps = [[step["class"] for step in image.applied_operations] for image in (found, expected)]
    assert steps[0] == steps[1] != []


def test_an_error_in_a_chain_names_the_case_and_the_remedy(samples: Samples) -> None:
    chain = Compose(
        [LoadImaged("image", ensure_channel_first=True), Flipd("image", 0), SALMProtectd("image", samples.store)]
    )
    with pytest.raises(RuntimeError) as caught:
        chain(samples.originals[1])
    cause = str(cause_of(caught.value))
    assert "image_1.nii.gz" in cause
    assert "Place SALMProtectd right after LoadImaged" in cause
    assert "Flip" in cause


def test_array_transforms_take_image_label_and_name(samples: Samples) -> None:
    """``Compose(map_items=False, unpack_items=True)`` gives a transform the items of a tuple as arguments: image, label, name."""
    values = samples.values
    found = Compose([SALMProtect(samples.store)], map_items=False, unpack_items=True)(
        (values["originals"][0], 1, "case")
    )
    assert np.array_equal(found, values["protected"][0])
