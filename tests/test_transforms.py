"""The transforms give exactly the stored original plus its noise, or an error that says why; never anything else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset, ThreadDataLoader
from monai.transforms import (
    Compose,
    Flip,
    Flipd,
    Invertd,
    InvertibleTransform,
    LoadImaged,
    NormalizeIntensity,
    RandFlipd,
    Rotate90,
    ScaleIntensityRange,
    ScaleIntensityRanged,
    Spacingd,
)
from monai.utils import TransformBackends

from monai_salm import transforms
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.lookup import ImageNotFoundError
from monai_salm.store.records import keep_scales
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError
from monai_salm.transforms import SALMProtect, SALMProtectd, SALMRestore, SALMRestored

# MONAI's LoadImage tries all its readers, and says so when the optional GPU decoder of DICOM files is not installed.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")

WINDOW = IntensityWindow(0, 255)
META = {
    "method": {"name": "random_noise", "epsilon": 0.03},
    "window": WINDOW.spec(),
    "mask_share": 1.0,
    "epsilon": 0.03,
    "seed": 0,
}
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "float32")
SHAPE = (1, 6, 5)


def image_of(dtype: str, rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Values that carry noise; those of floats are tiny, huge and signed zeros too."""
    if dtype == "float32":
        image = (rng.normal(0, 100, shape) * 10.0 ** rng.integers(-40, 35, shape)).astype(np.float32)
        image.flat[:3] = (0.0, -0.0, 1e-45)
        return image
    return rng.integers(10, 110, shape).astype(dtype)


def budget_for(image: np.ndarray) -> Budget:
    return Budget(WINDOW, Grid(image.dtype.name, 0.25 if image.dtype.kind == "f" else 1.0, (7,)))


def noise_of(image: np.ndarray, seed: int = 0, name: str = "case") -> Noise:
    """Random codes, none of them zero."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 8, image.shape, np.int8) * rng.choice(np.array([-1, 1], np.int8), image.shape)
    return Noise.of(image, codes, budget_for(image), name)


def store_of(path: Path, *images: np.ndarray) -> NoiseStore:
    store = NoiseStore.create(path, META)
    store.add(noise_of(image, index, f"case_{index}") for index, image in enumerate(images))
    return store


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return image_of("uint8", rng)


@pytest.fixture
def store(tmp_path: Path, image: np.ndarray) -> NoiseStore:
    return store_of(tmp_path / "noise.db", image)


@pytest.fixture
def protected(image: np.ndarray) -> np.ndarray:
    """The one right answer for ``image``."""
    noise = noise_of(image)
    result = (image.astype(np.int64) + noise.codes).astype(np.uint8)
    assert (result != image).all()
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Values, types, metadata

KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda a: a.copy(),
    "tensor": lambda a: torch.from_numpy(a.copy()),
    "metatensor": lambda a: MetaTensor(torch.from_numpy(a.copy()), meta={"filename_or_obj": "liver.nii", "note": 7}),
}


def bits(values: Any) -> bytes:
    return np.ascontiguousarray(values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_protect_and_restore_keep_kind_and_type_and_give_exact_bits(
    dtype: str, kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    original = image_of(dtype, rng)
    store = store_of(tmp_path / "noise.db", original)
    given = KINDS[kind](original)
    result = SALMProtect(store)(given)
    assert type(result) is type(given)
    assert result.dtype == given.dtype
    assert bits(result) == noise_of(original).apply(original).tobytes() != original.tobytes()
    assert bits(given) == original.tobytes(), "the input was modified"
    back = SALMRestore(store)(result)
    assert type(back) is type(given)
    assert back.dtype == given.dtype
    assert bits(back) == original.tobytes()
    if kind == "metatensor":
        assert result.meta == back.meta == given.meta


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"])
def test_image_loaded_as_another_type_gets_the_same_values_in_that_type(
    dtype: str, store: NoiseStore, image: np.ndarray, protected: np.ndarray
) -> None:
    given = torch.from_numpy(image).to(getattr(torch, dtype))
    result = SALMProtect(store)(given)
    assert result.dtype == given.dtype
    assert np.array_equal(result.to(torch.uint8).numpy(), protected)
    assert torch.equal(SALMRestore(store)(result), given)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_image_on_a_gpu_stays_there(store: NoiseStore, image: np.ndarray, protected: np.ndarray) -> None:
    given = torch.from_numpy(image).cuda()
    result = SALMProtect(store)(given)
    assert result.device == given.device
    assert np.array_equal(result.cpu().numpy(), protected)


def test_record_of_applied_transforms_is_kept(store: NoiseStore, image: np.ndarray) -> None:
    given = MetaTensor(torch.from_numpy(image), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    given.push_applied_operation({"class": "Flip"})
    result = SALMProtect(store)(given)
    assert result.applied_operations == given.applied_operations != []
    assert torch.equal(result.affine, given.affine)
    result.meta["note"] = 1
    assert "note" not in given.meta


def test_memory_mapped_and_reversed_arrays_are_protected(
    store: NoiseStore, image: np.ndarray, protected: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert np.array_equal(SALMProtect(store)(mapped), protected)
    strided = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    assert np.array_equal(SALMProtect(store)(strided), protected)
    assert np.array_equal(SALMProtect(store)(np.asfortranarray(image)), protected)


@pytest.mark.parametrize("wrong", [[[1, 2]], "image.nii", None])
def test_what_is_no_image_is_refused(store: NoiseStore, wrong: Any) -> None:
    with pytest.raises(TypeError, match="place LoadImaged before"):
        SALMProtect(store)(wrong)


def test_dictionary_transforms_change_their_keys_only(
    store: NoiseStore, image: np.ndarray, protected: np.ndarray
) -> None:
    item = {"image": image, "label": 1, "name": "x"}
    result = SALMProtectd("image", store)(item)
    assert np.array_equal(result["image"], protected)
    assert {k: v for k, v in result.items() if k != "image"} == {"label": 1, "name": "x"}
    assert item["image"] is image
    restored = SALMRestored("image", store)(result)
    assert np.array_equal(restored["image"], image)
    with pytest.raises(KeyError, match="second"):
        SALMProtectd(["image", "second"], store)(item)
    assert np.array_equal(SALMProtectd(["image", "second"], store, allow_missing_keys=True)(item)["image"], protected)
    assert np.array_equal(SALMRestored(["image", "second"], store, allow_missing_keys=True)(result)["image"], image)


def test_monai_names_and_backends() -> None:
    assert transforms.SALMProtectD is transforms.SALMProtectDict is SALMProtectd
    assert transforms.SALMRestoreD is transforms.SALMRestoreDict is SALMRestored
    for transform in (SALMProtect, SALMProtectd, SALMRestore, SALMRestored):
        assert set(transform.backend) == {TransformBackends.TORCH, TransformBackends.NUMPY}
        assert not issubclass(transform, InvertibleTransform)


def test_settings_are_checked_at_construction(store: NoiseStore) -> None:
    with pytest.raises(ValueError, match=r"on_missing must be one of .* got 'ignore'"):
        SALMProtectd("image", store, on_missing="ignore")
    with pytest.raises(ValueError, match="label_key must be given, got None"):
        SALMProtectd("image", store, on_missing="generate")


@pytest.mark.parametrize("transform", [SALMProtect, SALMRestore])
def test_a_store_that_is_not_there_is_an_error_when_a_transform_is_built(transform: Any, tmp_path: Path) -> None:
    with pytest.raises(NoiseStoreError, match=r"no noise store at .*missing\.db: .*make one with"):
        transform(tmp_path / "missing.db")
    dictionary = SALMProtectd if transform is SALMProtect else SALMRestored
    with pytest.raises(NoiseStoreError, match="no noise store at"):
        dictionary("image", store=str(tmp_path / "missing.db"))
    (tmp_path / "notes.db").write_text("no database")
    with pytest.raises(NoiseStoreError, match=r"notes\.db is not a noise store"):
        transform(tmp_path / "notes.db")
    with pytest.raises(NoiseStoreError, match="it is a folder"):
        transform(tmp_path)


def test_transforms_are_picklable_after_use(store: NoiseStore, image: np.ndarray, protected: np.ndarray) -> None:
    protect = SALMProtectd("image", store.path)
    protect({"image": image})
    for again in (pickle.loads(pickle.dumps(protect)), copy.deepcopy(protect)):  # noqa: S301 - as workers do
        assert np.array_equal(again({"image": image})["image"], protected)


def test_noise_that_changes_nothing_is_an_error(tmp_path: Path, image: np.ndarray) -> None:
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([Noise.of(image, np.zeros(image.shape, np.int8), budget_for(image), "empty")])
    with pytest.raises(NoiseStoreError, match="changes nothing; generate it again"):
        SALMProtect(store)(image)


def test_noise_that_is_lost_in_real_values_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    """Whole real values of a finely scaled file hold none of its noise."""
    real = rng.integers(1, 15, SHAPE, np.int16)
    stored = real * np.int16(1024)
    store = NoiseStore.create(tmp_path / "noise.db", META)
    store.add([Noise.of(stored, np.ones(stored.shape, np.int8), budget_for(stored), "fine")])
    keep_scales(store, [Units(1 / 1024, 0.0)])
    with pytest.raises(NoiseStoreError, match="changes nothing; generate it again"):
        SALMProtect(store)(real)
    protected = SALMProtect(store)(real.astype(np.float32))
    assert np.array_equal(protected, real + np.float32(1 / 1024))


# ---------------------------------------------------------------------------------------------------------------------
# Data sets and loaders

CASES = 6


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> tuple[list[dict[str, Any]], NoiseStore, list[np.ndarray]]:
    """NIfTI files, the store of what they hold, and what each is to come out as."""
    items, originals = [], []
    for index in range(CASES):
        values = rng.integers(-900, 900, (4, 5, 6)).astype(np.int16)
        path = tmp_path / f"case_{index}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)
        items.append({"image": str(path), "label": index})
        originals.append(values[None])
    store = store_of(tmp_path / "noise.db", *originals)
    expected = [noise_of(image, index).apply(image) for index, image in enumerate(originals)]
    assert all((e != o).all() for e, o in zip(expected, originals, strict=True))
    return items, store, expected


def chain(store: NoiseStore) -> Compose:
    return Compose([LoadImaged("image", ensure_channel_first=True), SALMProtectd("image", store.path)])


def check_items(items: Any, expected: list[np.ndarray]) -> None:
    found = [item for batch in items for item in _unbatch(batch)]
    assert len(found) == len(expected)
    for image, label in found:
        assert image.dtype == torch.float32
        assert np.array_equal(image.numpy(), expected[label])


def _unbatch(item: dict[str, Any]) -> list[tuple[torch.Tensor, int]]:
    image = item["image"].as_subclass(torch.Tensor)
    if image.ndim == 4:
        return [(image, int(item["label"]))]
    return list(zip(image, item["label"].tolist(), strict=True))


def test_nifti_files_come_out_as_stored_original_plus_noise(files: Any, tmp_path: Path) -> None:
    items, store, expected = files
    check_items(Dataset(items, chain(store)), expected)
    check_items(CacheDataset(items, chain(store), num_workers=2, progress=False), expected)
    for _ in range(2):  # made, then read from the cache
        check_items(PersistentDataset(items, chain(store), cache_dir=tmp_path / "cache"), expected)
    assert len(list((tmp_path / "cache").glob("*.pt"))) == CASES


def test_image_loaded_by_nibabel_keeps_its_affine(files: Any) -> None:
    items, store, _ = files
    result = chain(store)(items[0])["image"]
    assert torch.equal(result.affine.diagonal(), torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=result.affine.dtype))
    assert result.meta["filename_or_obj"].endswith("case_0.nii.gz")


@pytest.mark.parametrize(
    "loader",
    [
        lambda data: DataLoader(data, batch_size=2, num_workers=0),
        lambda data: DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork"),
        lambda data: ThreadDataLoader(data, batch_size=2, num_workers=0),
        lambda data: ThreadDataLoader(data, batch_size=2, num_workers=2, use_thread_workers=True),
        pytest.param(
            lambda data: DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="spawn"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["main process", "fork", "thread", "thread workers", "spawn"],
)
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_every_kind_of_worker_gives_the_same_bits(files: Any, loader: Callable[[Any], Any]) -> None:
    items, store, expected = files
    data = Dataset(items, chain(store))
    _ = data[0]  # the store is open before the workers start
    for _ in range(2):
        check_items(loader(data), expected)


# ---------------------------------------------------------------------------------------------------------------------
# Inverse


def test_inverse_of_a_chain_passes_predictions_by(files: Any) -> None:
    items, store, expected = files
    steps = [
        LoadImaged("image", ensure_channel_first=True),
        SALMProtectd("image", store),
        Flipd("image", spatial_axis=0),
        SALMRestored("other", store, allow_missing_keys=True),
    ]
    forward = Compose(steps)
    item = forward(items[0])
    assert np.array_equal(item["image"].numpy(), expected[0][:, ::-1])
    mask = MetaTensor(torch.arange(120.0).view(1, 4, 5, 6))
    mask.copy_meta_from(item["image"])
    back = forward.inverse({"image": item["image"]})
    # The flip is undone, the noise is not: earlier noise stays.
    assert np.array_equal(back["image"].numpy(), expected[0])
    prediction = forward.inverse({"image": mask})["image"]
    assert torch.equal(prediction.as_subclass(torch.Tensor), torch.arange(120.0).view(1, 4, 5, 6).flip(1))


def test_invertd_gives_the_prediction_flipped_back_and_no_noise(files: Any) -> None:
    items, store, _ = files
    forward = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            SALMProtectd("image", store),
            RandFlipd("image", prob=1.0, spatial_axis=1),
        ]
    )
    item = forward(items[0])
    values = torch.arange(120.0).view(1, 4, 5, 6)
    item["pred"] = MetaTensor(values.clone())
    result = Invertd("pred", transform=forward, orig_keys="image", nearest_interp=True, to_tensor=True)(item)
    assert torch.equal(result["pred"].as_subclass(torch.Tensor), values.flip(2))


# ---------------------------------------------------------------------------------------------------------------------
# Not found, and why


@pytest.fixture
def volume(tmp_path: Path, rng: np.random.Generator) -> tuple[np.ndarray, NoiseStore]:
    image = rng.integers(10, 240, (1, 4, 5, 6)).astype(np.uint8)
    return image, store_of(tmp_path / "volume.db", image)


CAUSES: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("protected already", lambda a: noise_of(a).apply(a), r"is case 'case_0', protected already.*take SALMProtectd out"),
    ("no channel", lambda a: a[0], r"no channel axis.*ensure_channel_first"),
    ("no channel, axes exchanged", lambda a: a[0].T, r"no channel axis.*ensure_channel_first"),
    ("channel last, axes exchanged", lambda a: a.T, r"channel axis is the last.*EnsureChannelFirstd"),
    ("channel last", lambda a: np.moveaxis(a, 0, -1), r"channel axis is the last.*EnsureChannelFirstd"),
    ("batch", lambda a: a[None], r"has a batch axis.*one by one"),
    ("batch of two", lambda a: np.stack([a, a]), r"has a batch axis"),
    ("flipped", lambda a: a[:, :, ::-1], r"is case 'case_0' flipped along spatial axis 1\. Place SALMProtectd right after"),
    ("turned", lambda a: np.rot90(a, axes=(1, 2)), r"another order.* and flipped along"),
    (
        "protected and flipped",
        lambda a: noise_of(a).apply(a)[:, ::-1, ::-1],
        r"the protected image of case 'case_0' flipped along spatial axes 0, 1",
    ),
    ("cropped", lambda a: a[:, :3], r"\(1, 3, 5, 6\), has no noise in .*noise there is of shape \(1, 4, 5, 6\).*Spacingd"),
    ("another rank", lambda a: a[:, 0], r"\(1, 5, 6\), has no noise.*of shape \(1, 4, 5, 6\)"),
    ("rescaled", lambda a: (a - a.min()) / np.float32(300), r"seems to be rescaled to \[0, 1\].*ScaleIntensityRanged"),
    ("rescaled to signs", lambda a: a / np.float32(150) - 1, r"seems to be rescaled to \[-1, 1\]"),
    ("normalised", lambda a: (a - a.mean()) / a.std(), r"seems to be normalised to mean 0"),
    ("resampled", lambda a: a + np.float32(0.3), r"not whole numbers.*resampled or rescaled"),
    ("not finite", lambda a: np.where(a > 100, np.float32(np.nan), a), r"holds NaN or infinite"),
    ("one voxel changed", lambda a: a ^ (np.arange(a.size).reshape(a.shape) == 7), r"none with these values.*another data set"),
    ("empty", lambda a: a[:, :0], r"\(1, 0, 5, 6\)"),
    ("nothing", lambda a: np.float32(3) * np.ones(()), r"\(\), has no noise"),
]  # fmt: skip


def test_where_nothing_was_applied_the_reader_is_named(volume: Any) -> None:
    image, store = volume
    with pytest.raises(ImageNotFoundError, match=r"the reader shows other values.*published copy"):
        SALMProtectd("image", store)({"image": np.asarray(image) ^ 7})


@pytest.mark.parametrize(("change", "message"), [c[1:] for c in CAUSES], ids=[c[0] for c in CAUSES])
@pytest.mark.parametrize("kind", ["numpy", "metatensor"])
def test_error_for_an_image_not_found_names_case_cause_and_cure(
    change: Callable[[np.ndarray], np.ndarray], message: str, kind: str, volume: Any
) -> None:
    image, store = volume
    with pytest.raises(ImageNotFoundError, match=message) as caught:
        SALMProtectd("image", store)({"image": KINDS[kind](np.asarray(change(image)))})
    assert str(caught.value).startswith("case 'liver.nii'" if kind == "metatensor" else "an image")
    assert str(store.path) in str(caught.value) or "protected already" in str(caught.value)
    assert isinstance(caught.value, NoiseStoreError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a, r"is the original of case 'case_0' already, there is nothing to restore"),
        (lambda a: noise_of(a).apply(a)[:, ::-1], r"the protected image of case 'case_0' flipped .* axis 0\. Place SALMRest"),
        (lambda a: a[:, ::-1], r"it is case 'case_0' flipped along"),
        (lambda a: noise_of(a).apply(a)[:, 1:], r"is not an image that .* protected: noise there is of shape \(1, 4, 5, 6\)"),
        (lambda a: noise_of(a).apply(a) / np.float32(300), r"to be rescaled to \[0, 1\].*Place SALMRestored"),
        (lambda a: noise_of(a).apply(a)[None], r"has a batch axis. Place SALMRestored"),
        (lambda a: noise_of(a).apply(a) // 2, r"compressed with loss"),
    ],
    ids=["original", "flipped", "flipped original", "cropped", "rescaled", "batch", "changed"],
)  # fmt: skip
def test_error_for_an_image_that_cannot_be_restored_says_why(
    change: Callable[[np.ndarray], np.ndarray], message: str, volume: Any
) -> None:
    image, store = volume
    with pytest.raises(ImageNotFoundError, match=message):
        SALMRestored("image", store)({"image": change(image)})


def test_error_for_a_resampled_case_names_its_own_shape_and_the_transforms_before(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.integers(10, 200, (4, 5, 6)).astype(np.uint8)
    path = tmp_path / "liver_001.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    store = NoiseStore.create(tmp_path / "noise.db", META)
    other = rng.integers(10, 200, (1, 8, 10, 12)).astype(np.uint8)
    store.add([noise_of(values[None], 0, str(path)), noise_of(other, 1, "other")])
    late = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Spacingd("image", (0.5, 0.5, 0.5)),
            SALMProtectd("image", store),
        ]
    )
    with pytest.raises(Exception, match="applying transform") as caught:
        late({"image": str(path)})
    cause = caught.value.__cause__
    assert isinstance(cause, ImageNotFoundError)
    text = str(cause)
    assert text.startswith(
        f"case '{path}', float32 (1, 7, 9, 11), has no noise in {store.path}: its noise there is (1, 4, 5, 6)"
    )
    assert "applied to it already: " in text
    assert "Spa" in text.split("applied to it already: ")[1]


def test_error_names_the_case_of_the_item(volume: Any) -> None:
    image, store = volume
    with pytest.raises(ImageNotFoundError, match=r"^case 'patient 7', "):
        SALMProtectd("image", store)({"image": image[:, 1:], "name": "patient 7"})


def test_empty_store_is_named_as_the_cause(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(ImageNotFoundError, match="the store is empty"):
        SALMProtect(NoiseStore.create(tmp_path / "noise.db", META))(image)


@pytest.mark.parametrize("transform", [Flip(0), Rotate90(1), ScaleIntensityRange(0, 255, 0, 1), NormalizeIntensity()])
def test_image_changed_by_monai_before_is_never_passed_on(
    transform: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 250, (1, 6, 6)).astype(np.float32)
    store = store_of(tmp_path / "noise.db", image)
    with pytest.raises(ImageNotFoundError, match="Place SALMProtectd right after LoadImaged, before"):
        SALMProtect(store)(transform(image))


def test_broadcast_noise_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    """A row whose codes have a shape that would broadcast is an error, though its digest and checksum fit."""
    store = NoiseStore.create(tmp_path / "noise.db", META)
    noise = noise_of(image)
    store.add([Noise(noise.digest, noise.protected, "case", "uint8", WINDOW, 1.0, noise.codes[:, :1])])
    with pytest.raises(NoiseStoreError, match=r"claims the shape \(1, 1, 5\), the image has \(1, 6, 5\)"):
        SALMProtect(store)(image)


def test_chain_of_the_readme_trains_on_protected_images(
    store: NoiseStore, image: np.ndarray, protected: np.ndarray
) -> None:
    steps = [SALMProtectd("image", store), ScaleIntensityRanged("image", 0, 255, 0, 1)]
    result = Compose(steps)({"image": image})["image"]
    assert np.array_equal(np.asarray(result), protected / np.float32(255))
