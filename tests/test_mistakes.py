"""Each mistake of docs/mistakes.md gives a message that names its cause and its remedy."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from conftest import classification_cases, segmentation_cases
from monai.data import DataLoader, Dataset, IterableDataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandFlipd,
    RandSpatialCropd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    ToNumpyd,
)
from PIL import Image

from monai_salm import (
    Classification,
    FixedWindow,
    IntensityWindow,
    NoiseStore,
    PercentileWindow,
    RandomNoise,
    SALMProtect,
    SALMProtectd,
    SALMRestored,
    Segmentation,
    precompute,
)
from monai_salm.data.scan import DataError
from monai_salm.data.suspicions import Suspicions, warn_of_axes, wrong_axes
from monai_salm.layouts import open_layout
from monai_salm.shared.warn import DataWarning
from monai_salm.store.store import NoiseStoreError

# What other packages warn of is their affair; our own warnings are asked for by name.
pytestmark = pytest.mark.filterwarnings("ignore:.*(nvImageCodec|NvImgCodec|nvimgcodec).*:UserWarning")
GUIDE = (Path(__file__).parents[1] / "docs" / "mistakes.md").read_text(encoding="utf-8")
PHRASES = re.findall(r"^- `(.+?)`: ", GUIDE, flags=re.MULTILINE)
LOAD = LoadImaged("image", ensure_channel_first=True)

ABDOMEN = FixedWindow(-160, 240)
CASES, MASKS = classification_cases(), segmentation_cases()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four CT volumes, a store with their noise, half of that store, and a text file."""
    root = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(0)
    for index in range(4):
        volume = rng.integers(-1000, 1001, (16, 14, 12)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, -1, 2, 1])), root / f"ct_{index}.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with pytest.warns(DataWarning, match="outside the window"):  # they are noise from -1000 to 1000
            make(Dataset(scans(), LOAD), window=ABDOMEN, store="noise.db")
        NoiseStore.create("empty.db", {**NoiseStore("noise.db").meta, "seed": 1})
    whole = (root / "noise.db").read_bytes()
    (root / "half.db").write_bytes(whole[: len(whole) // 2])
    (root / "nothing.db").write_bytes(b"")
    np.save(root / "channels.npy", rng.integers(0, 256, (6, 16, 14)).astype(np.uint8))
    (root / "nothing_yet").mkdir()
    for file in ("flat/1.png",):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 14)).astype(np.uint8)).save(root / file)
    (root / "labels.csv").write_text("name,label\n")
    return root


def protect() -> SALMProtectd:
    return SALMProtectd("image", store="noise.db")


def scans() -> list[dict[str, Any]]:
    return [{"image": f"ct_{index}.nii.gz", "label": index % 2, "name": f"ct_{index}"} for index in range(4)]


def make(dataset: Any, store: str = "made.db", **settings: Any) -> NoiseStore:
    chosen = {"window": IntensityWindow(0, 255), "method": RandomNoise(), "task": Classification(num_classes=2)}
    return precompute(dataset, store, **{**chosen, **settings})


def through(*chain: Any, **item: Any) -> Any:
    return Compose(list(chain))({**scans()[0], **item})


def loaded() -> np.ndarray:
    return np.asarray(LOAD(scans()[0])["image"])


def changed(cases: list[dict[str, Any]], **changes: Callable[[Any], Any]) -> list[dict[str, Any]]:
    return [{**case, **{key: change(case[key]) for key, change in changes.items()}} for case in cases]


def with_nan(image: np.ndarray) -> np.ndarray:
    return np.where(image == image.max(), np.nan, image).astype(np.float32)


# The mistake -> what the user does.
MISTAKES: dict[str, Callable[[], Any]] = {
    "After Spacingd": lambda: through(LOAD, Spacingd("image", (1, 1, 1)), protect()),
    "After ScaleIntensityRanged": lambda: through(LOAD, ScaleIntensityRanged("image", -1000, 1000, 0, 1), protect()),
    "After a crop": lambda: through(LOAD, RandSpatialCropd("image", (8, 8, 8), random_size=False), protect()),
    "After Orientationd": lambda: through(LOAD, Orientationd("image", "RAS", labels=None), protect()),
    "Nothing loads the image": lambda: through(protect()),
    "The image key is missing": lambda: through(LOAD, SALMProtectd("ct", store="noise.db")),
    "The channel axis is missing": lambda: through(LoadImaged("image"), protect()),
    "The channel axis is last": lambda: protect()({"image": np.moveaxis(loaded(), 0, -1), "name": "ct_0"}),
    "A batch is given": lambda: protect()({"image": torch.from_numpy(loaded())[None], "name": "ct_0"}),
    "Protected twice": lambda: through(LOAD, protect(), protect()),
    "Restoring an image that is not protected": lambda: through(LOAD, SALMRestored("image", store="noise.db")),
    "The store of another data set": lambda: protect()({"image": loaded() + 1, "name": "ct_0"}),
    "The path of the store is wrong": lambda: through(LOAD, SALMProtectd("image", store="nois.db")),
    "A folder in place of the store": lambda: through(LOAD, SALMProtectd("image", store=".")),
    "The store was cut off": lambda: through(LOAD, SALMProtectd("image", store="half.db")),
    "Another file in place of the store": lambda: through(LOAD, SALMProtectd("image", store="labels.csv")),
    "The store is empty": lambda: through(LOAD, SALMProtectd("image", store="empty.db")),
    "NaN in an image": lambda: protect()({"image": with_nan(loaded()), "name": "ct_0"}),
    "No label key for new images": lambda: SALMProtectd("image", store="noise.db", on_missing="generate"),
    "The label key is missing": lambda: make(CASES, label_key="target"),
    "Labels that count from 1": lambda: make(changed(CASES, label=lambda label: label + 1)),
    "Labels that are not whole numbers": lambda: make(changed(CASES, label=lambda label: label + 0.5)),
    "Labels that are words": lambda: make(changed(CASES, label=lambda label: "benign")),
    "One-hot labels": lambda: make(changed(CASES, label=lambda label: np.eye(2)[label])),
    "Label maps for a classification": lambda: make(MASKS),
    "A mask of 0 and 255": lambda: make(
        changed(MASKS, label=lambda label: label.astype(int) * 255), task=Segmentation(num_classes=2)
    ),
    "Images with the channel last": lambda: make(
        changed(CASES, image=lambda image: np.moveaxis(np.repeat(image, 3, axis=0), 0, -1))
    ),
    "A NumPy file of more than four channels": lambda: make(
        Dataset([{"image": "channels.npy", "label": 0, "name": "scan"}], LoadImaged("image"))
    ),
    "A data set without a length": lambda: make(IterableDataset(CASES)),
    "Nothing but padding": lambda: make(
        [*changed(CASES[:1], image=lambda image: np.full(image.shape, np.nan, np.float32)), *CASES[1:]]
    ),
    "A constant image": lambda: make(changed(CASES[:8], image=lambda image: np.zeros(image.shape, np.int16))),
    "A window in HU for images from 0 to 1": lambda: make(
        changed(CASES[:8], image=lambda image: (image / 255).astype(np.float32)), window=FixedWindow(-160, 240)
    ),
    "A window from 0 to 1": lambda: make(Dataset(scans(), LOAD), window=FixedWindow(0, 1)),
    "The window is a tuple": lambda: make(CASES, window=(0, 255)),
    "Another number of channels than windows": lambda: make(CASES, window=[FixedWindow(0, 255), PercentileWindow()]),
    "Epsilon in grey levels": lambda: RandomNoise(epsilon=8),
    "Epsilon as text": lambda: RandomNoise(epsilon="8/255"),  # type: ignore[arg-type]
    "Epsilon below one step": lambda: make(CASES, method=RandomNoise(epsilon=0.5 / 255)),
    "Random transforms in the data set": lambda: make(
        Dataset(scans(), Compose([LOAD, RandFlipd("image", prob=0.5)])), window=ABDOMEN
    ),
    "A DataLoader in place of the data set": lambda: make(DataLoader(Dataset(scans(), LOAD)), window=ABDOMEN),
    "A folder in place of the data set": lambda: make("scans"),
    "An empty folder": lambda: open_layout("nothing_yet"),
    "Images without labels": lambda: open_layout("flat"),
}


#: What each says, cause first, then remedy, in any order. The first part is a line of docs/mistakes.md.
SAYS: dict[str, str] = {
    "After Spacingd": "its noise there is ... (1, 16, 14, 12) ... right after LoadImaged ... Spacingd ... SpatialResample",
    "After ScaleIntensityRanged": "it seems to be rescaled ... to [0, 1] ... window is -160 to 240 ... right after LoadImaged",
    "After a crop": "its noise there is ... (1, 16, 14, 12) ... right after LoadImaged ... RandSpatialCrop",
    "After Orientationd": "flipped along spatial axes ... 0, 1 ... right after LoadImaged ... Orientation",
    "Nothing loads the image": "an image must be a NumPy array or a tensor ... 'ct_0.nii.gz' ... place LoadImaged before",
    "The image key is missing": "no key ... 'ct' ... ['image', 'label', 'name'] ... Correct keys ... allow_missing_keys=True",
    "The channel axis is missing": "it has no channel axis ... ensure_channel_first=True ... EnsureChannelFirstd",
    "The channel axis is last": "its channel axis is the last ... Use EnsureChannelFirstd",
    "A batch is given": "it has a batch axis ... Place SALMProtectd in the data set's chain",
    "Protected twice": "protected already ... Feed the originals ... take SALMProtectd out",
    "Restoring an image that is not protected": "there is nothing to restore ... Take SALMRestored out",
    "The store of another data set": "none with these values ... -999 to 1001 ... the store of another data set?",
    "The path of the store is wrong": "make one with precompute() ... no noise store at nois.db ... `monai-salm generate`",
    "A folder in place of the store": "it is a folder ... give the path of the store's file",
    "The store was cut off": "is cut off ... half.db ... Copy it again ... or generate it again",
    "Another file in place of the store": "is not a noise store ... labels.csv ... Give the file",
    "The store is empty": "the store is empty ... precompute() ... `monai-salm generate`",
    "NaN in an image": "it holds NaN or infinite values ... a division by zero ... right after LoadImaged",
    "No label key for new images": 'label_key must be given ... on_missing="generate"',
    "The label key is missing": "no key ... 'target' ... ['image', 'label', 'name'] ... Set label_key",
    "Labels that count from 1": "is outside 0 to 1 ... case 'case_0_001': label 2 ... check num_classes ... count from 0",
    "Labels that are not whole numbers": "label must be whole class numbers ... [0.5] ... interpolated ... Load labels",
    "Labels that are words": "label must be a number ... 'benign' ... map class names to 0, 1, 2",
    "One-hot labels": "label must be one integer ... (2,) ... argmax",
    "Label maps for a classification": "label must be one integer ... (1, 16, 16) ... task=Segmentation(num_classes=...)",
    "A mask of 0 and 255": "is outside 0 to 1 ... label 255 ... divided by 255",
    "Images with the channel last": "seems to have the channel axis last ... (16, 16, 3) ... EnsureChannelFirstd",
    "A NumPy file of more than four channels": 'is all that is known of its axes ... (6, 16, 14) ... channel_dim=0 ... "no_channel"',
    "A data set without a length": "which has no length ... IterableDataset ... monai.data.Dataset",
    "Nothing but padding": "the image holds NaN or infinite values only ... case_0_000",
    "A constant image": "the image is constant ... case_0_000",
    "A window in HU for images from 0 to 1": "would drown the image ... -160 to 240 ... units of the image ... percentile:",
    "A window from 0 to 1": "of its voxels lie inside its window ... case 'ct_0': 0.1% ... unprotected ... percentile:",
    "The window is a tuple": "window must be ... FixedWindow(low, high) ... got (0, 255)",
    "Another number of channels than windows": "the window rule has 2 ... the image has 1 channels ... one rule each",
    "Epsilon in grey levels": "epsilon must be in (0, 1] ... got 8 ... 8 / 255",
    "Epsilon as text": "epsilon must be a number ... 8 / 255 ... got '8/255'",
    "Epsilon below one step": "below one step ... uint8 ... epsilon of at least 0.00392, or a wider window",
    "Random transforms in the data set": "has the random transform ... RandFlipd ... random ones go after SALMProtectd",
    "A DataLoader in place of the data set": "which gives batches ... give the Dataset that it loads from",
    "A folder in place of the data set": "the data set is a path ... 'scans' ... open_layout(path) ... `monai-salm generate`",
    "An empty folder": "is an empty folder ... nothing_yet",
    "Images without labels": "nothing says what class they are of ... a folder for each class ... a CSV ... --layout",
}
WARNINGS = {
    "window": "for more than half outside the window ... 4 of 4 images ... case 'ct_1': 12% ... --window=-160,240",
    "axes": "are taken for 2D images ... of 16 channels ... (1, 16, 16, 16) ... ensure_channel_first=True",
    "one class": "with one class there is nothing to learn ... all 24 images have label 0 ... Protect all classes in one call",
}


def message_of(mistake: Callable[[], Any]) -> str:
    """What the error says; MONAI's Compose wraps it, and the first cause is ours."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the message is compared as a whole
        mistake()
    error: BaseException = caught.value
    while error.__cause__ is not None and "applying transform" in str(error):
        error = error.__cause__
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)


def lacks(message: str, says: str) -> list[str]:
    """The parts of cause and remedy that a message does not name."""
    return [part for part in says.split(" ... ") if part not in message]


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_told_with_cause_and_remedy(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    message = message_of(MISTAKES[title])
    assert lacks(message, SAYS[title]) == [], message
    assert "\n" not in message
    assert {path.name for path in folder.iterdir()} == before, "a refused call left something behind"


def test_the_guide_has_these_messages_and_no_others() -> None:
    assert SAYS.keys() == MISTAKES.keys()
    told = {says.split(" ... ")[0] for says in (*SAYS.values(), *WARNINGS.values())}
    assert sorted(PHRASES) == sorted(told)


# ---------------------------------------------------------------------------------------------------------------------
# Those that warn, and those that are none


def test_an_8_bit_window_for_ct_is_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.warns(UserWarning, match="the window") as caught:
        make(Dataset(scans(), LOAD), store="wrong_window.db", window=FixedWindow(0, 255))
    assert lacks(str(caught[0].message), WARNINGS["window"]) == []


def test_volumes_without_a_channel_axis_are_warned_of(tmp_path: Path) -> None:
    volumes = changed(classification_cases((16, 16, 16), cases=4), image=lambda image: image[0])
    with pytest.warns(UserWarning, match="images of shape") as caught:
        make(volumes, store=str(tmp_path / "noise.db"))
    assert lacks(str(caught[0].message), WARNINGS["axes"]) == []


def test_one_class_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="one class") as caught:
        made = make(changed(CASES, label=lambda label: 0), store=str(tmp_path / "noise.db"))
    assert lacks(str(caught[0].message), WARNINGS["one class"]) == []
    assert len(made) == len(CASES)
    assert caught[0].category is DataWarning
    assert caught[0].filename == __file__, "a warning names the line that called the package"


def test_lost_metadata_do_no_harm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    kept, lost = through(LOAD, protect())["image"], through(LOAD, ToNumpyd("image"), protect())["image"]
    assert isinstance(kept, MetaTensor)
    assert isinstance(lost, np.ndarray)
    np.testing.assert_array_equal(kept.numpy(), lost)
    scaled = [LOAD, ScaleIntensityd("image"), ToNumpyd("image")]
    item = Compose(scaled)(scans()[0])
    nameless = {"image": item["image"]}
    assert message_of(lambda: protect()(nameless)).startswith("an image, float32")
    assert message_of(lambda: protect()(item)).startswith("case 'ct_0', float32")


def test_monai_says_which_transform_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert repr(protect()) == "SALMProtectd(keys=('image',), store='noise.db')"
    assert repr(SALMRestored(["a", "b"], store="noise.db")) == "SALMRestored(keys=('a', 'b'), store='noise.db')"
    assert repr(SALMProtect("noise.db")) == "SALMProtect(store='noise.db')"
    with pytest.raises(TypeError, match="store must be a NoiseStore or the path of one, got None"):
        SALMProtect(None)  # type: ignore[arg-type]


def test_an_empty_file_is_cut_off(folder: Path) -> None:
    with pytest.raises(NoiseStoreError, match=r"nothing\.db is cut off: it is empty\. Copy it again"):
        len(NoiseStore(folder / "nothing.db"))


@pytest.mark.parametrize(
    ("shape", "spatial", "wrong"),
    [
        ((1, 16, 16), None, None),
        ((3, 16, 16), (16, 16), None),
        ((1, 64, 64, 3), None, None),  # a volume of three slices
        ((40, 64, 64), None, None),  # forty channels
        ((64, 64, 3), None, "channel axis last"),
        ((64, 64, 1), None, "1 voxel along"),
        ((64, 64, 20, 2), None, None),  # sixty-four channels of two slices, or two of twenty
        ((16, 16, 12), (16, 16, 12), "no channel axis"),
        ((16, 16, 12, 6), (16, 16, 12), "channel axis last"),
        ((12, 16, 16, 12), (16, 16, 12), None),
        ((64, 128, 128, 4), (128, 128, 4), None),  # the reader says so: 64 directions of four slices
    ],
)
def test_axes_are_judged_by_the_reader_or_by_their_lengths(
    shape: tuple[int, ...], spatial: tuple[int, ...] | None, wrong: str | None
) -> None:
    found = wrong_axes(shape, None if spatial is None else {"spatial_shape": np.array(spatial)})
    assert found is None if wrong is None else wrong in str(found)


@pytest.mark.parametrize(
    ("shape", "spatial", "warned"),
    [
        ((64, 64, 20, 2), None, "64 channels and 2 voxels along its last axis. If so"),
        ((64, 128, 128, 4), (128, 128, 4), None),
        ((4, 64, 64, 3), None, None),
        ((40, 64, 64), None, "are taken for 2D images of 40 channels"),
        ((40, 64, 64), (64, 64), None),
    ],
)
def test_axes_that_are_rarely_meant_are_warned_of(
    shape: tuple[int, ...], spatial: tuple[int, ...] | None, warned: str | None
) -> None:
    meta = None if spatial is None else {"spatial_shape": np.array(spatial)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_axes(shape, meta)
    assert [warned in str(warning.message) for warning in caught if warned] == [True] * (warned is not None)


@pytest.mark.parametrize("ending", ["npy", "npz"])
@pytest.mark.parametrize(
    ("shape", "chain", "refused"),
    [
        ((3, 16, 14), [LoadImaged("image")], False),
        ((6, 16, 14), [LoadImaged("image")], True),
        ((6, 16, 14), [LoadImaged("image", reader="NumpyReader", channel_dim=0)], False),
        ((6, 16, 14), [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim=0)], False),
        ((16, 14, 6), [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim=-1)], False),
        ((16, 14, 6), [LoadImaged("image", reader="NumpyReader", channel_dim=-1)], True),  # named, and not moved
        ((16, 14, 6), [LoadImaged("image", ensure_channel_first=True)], False),
    ],
)
def test_files_of_arrays_are_read_as_their_chain_says(
    ending: str, shape: tuple[int, ...], chain: list[Any], refused: bool, tmp_path: Path
) -> None:
    items = []
    for index in range(3):
        array = np.random.default_rng(index).integers(0, 256, shape).astype(np.uint8)
        (np.save if ending == "npy" else np.savez)(tmp_path / f"{index}.{ending}", array)
        items.append({"image": str(tmp_path / f"{index}.{ending}"), "label": index % 2})
    dataset = Dataset(items, Compose(chain))
    with pytest.raises(DataError, match=r"ax[ei]s") if refused else contextlib.nullcontext():
        assert len(make(dataset, store=str(tmp_path / "noise.db"))) == 3


@pytest.mark.parametrize(
    ("low", "high", "window", "wrong"),
    [
        (0, 1, (0, 1), None),
        (0, 255, (0, 255), None),
        (-1024, 3071, (-160, 240), None),
        (0, 40, (0, 255), None),  # dark, but the noise does not drown it
        (100, 110, (0, 255), None),  # of little contrast
        (-1, 1, (0, 255), "would drown"),
        (-3, 4, (-160, 240), "would drown"),  # normalised
        (1000, 4095, (0, 1), "inside its window"),
        (1000, 4095, (-1, 1), "inside its window"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*outside the window:UserWarning")
def test_every_image_is_held_against_its_window(
    low: int, high: int, window: tuple[int, int], wrong: str | None, tmp_path: Path
) -> None:
    """In wrong units noise would drown the image, or leave it as it is; one such image is set aside, or stops the call."""
    values = np.random.default_rng(0).uniform(low, high, (2, 1, 16, 16)).astype(np.float32)
    cases = [{"image": image, "label": index} for index, image in enumerate(values)]
    store = str(tmp_path / "noise.db")
    if wrong is None:
        assert len(make(cases, window=FixedWindow(*window), store=store)) == 2
        return
    with pytest.raises(DataError, match=wrong):
        make(cases, window=FixedWindow(*window), store=store)
    right = [{"image": np.random.default_rng(n).uniform(*window, (1, 16, 16)).astype("f4"), "label": n} for n in (0, 1)]
    kept = make([*cases, *right], window=FixedWindow(*window), store=store, skip_bad=True)
    assert len(kept) == 2
    assert [wrong in case["reason"] for case in kept.meta["skipped"]] == [True, True]


def test_percentiles_need_no_units(tmp_path: Path) -> None:
    """What is wrong for one fixed window of all images is right for percentiles of each."""
    cases = changed(classification_cases(cases=8), image=lambda image: (image / 255).astype(np.float32))
    mixed = [*cases[:4], *changed(cases[4:], image=lambda image: image * 4000 - 1000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert len(make(mixed, window=PercentileWindow(), store=str(tmp_path / "noise.db"))) == 8


def test_a_narrow_window_is_warned_of_once_and_the_worst_image_named(tmp_path: Path) -> None:
    """Padding does not count: it lies outside of every window and takes no noise."""
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, high, (1, 16, 16)).astype(np.float32) for high in (1.0, 1.0, 3.0, 6.0)]
    images[0][:, :6] = -2000
    cases = [{"image": image, "label": index % 2, "name": f"case_{index}"} for index, image in enumerate(images)]
    with pytest.warns(DataWarning, match=r"2 of 4 images lie .* 'case_3'"):
        make(cases, window=FixedWindow(0, 1), store=str(tmp_path / "noise.db"))


def test_one_class_is_a_matter_of_the_task() -> None:
    for task, label, warned in (
        (Classification(num_classes=2), np.array(1), "all 2 images have label 1: with"),
        (Classification(num_classes=2, multi_label=True), np.zeros(2), None),
        (Segmentation(num_classes=2), np.zeros((1, 2), np.uint8), "all label maps hold class 0 alone: with"),
        (Segmentation(num_classes=2), np.array([[0, 1]], np.uint8), None),
    ):
        watch = Suspicions(task)
        for name in ("first", "second"):
            watch.note(name, label, 1.0)
        with pytest.warns(UserWarning, match=warned) if warned else contextlib.nullcontext():
            watch.warn()
