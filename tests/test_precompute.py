"""``precompute`` refuses bad data before it works, records what it did, and goes on where it was interrupted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.transforms import Compose, EnsureTyped, Flipd, OneOf, RandFlipd, RandGaussianNoised
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset, Subset

from monai_salm._version import __version__
from monai_salm.data.scan import DataError, MapDataset
from monai_salm.generate.precompute import precompute
from monai_salm.jobs.workspace import WorkspaceError
from monai_salm.learning.networks import SEGMENTATION_NETWORKS
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, LabelError, Segmentation, Task
from monai_salm.methods import (
    EM,
    SALM,
    ClassTexture,
    ErrorMinimizing,
    Method,
    Random,
    RandomNoise,
    recommended,
)
from monai_salm.methods.job import Job
from monai_salm.methods.masks import mask_size
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import FixedWindow, IntensityWindow, PercentileWindow
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore, NoiseStoreError

Case = dict[str, Any]
TWO = Classification(num_classes=2)
BYTES = IntensityWindow(0, 255)
RECIPE = Recipe(optimizer="adam", lr=1e-2, batch_size=4, precision="float32")
SHORT: dict[str, Any] = {"epsilon": 8 / 255, "step_size": 0.25, "num_steps": 3, "surrogate_steps": 2, "rounds": 1}


def stepped(mask_ratio: float = 0.3, mask_scope: str = "sample", restart_every: int = 0, rounds: int = 1) -> SALM:
    """SALM by a few error-minimising steps, its mask of single elements."""
    steps = ErrorMinimizing(step_size=0.25, num_steps=3, surrogate_steps=2, rounds=rounds, restart_every=restart_every)
    return SALM(mask_ratio=mask_ratio, mask_area=1, mask_scope=mask_scope, perturbation=steps)


METHOD = stepped()
TEXTURE = SALM(perturbation=ClassTexture(surrogate_steps=2))


def tiny(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d(1) if spatial_dims == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(
        conv(in_channels, 4, 3), nn.Tanh(), conv(4, 4, 3), pool, nn.Flatten(), nn.Linear(4, out_channels)
    )


def per_voxel(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    return nn.Sequential(conv(in_channels, 4, 3, padding=1), nn.Tanh(), conv(4, out_channels, 3, padding=1))


def never(**_: int) -> nn.Module:
    raise AssertionError("work has started")


def make(dataset: MapDataset, store: Path, method: Method = METHOD, **options: Any) -> NoiseStore:
    settings: dict[str, Any] = {"task": TWO, "window": BYTES, "surrogate": tiny, "recipe": RECIPE, "device": "cpu"}
    return precompute(dataset, store, method=method, **{**settings, **options})


def contents(store: NoiseStore) -> list[tuple[bytes, bytes]]:
    return [(noise.digest, noise.codes.tobytes()) for noise in store]


def folder_of(store: Path) -> Path:
    return store.with_name(store.name + ".work")


@pytest.fixture
def cases(make_classification: Any) -> list[Case]:
    return make_classification((8, 8), 6)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "noise.db"


# ---------------------------------------------------------------------------------------------------------------------
# Bad input is refused before any work starts


def spoil(cases: list[Case], **changes: Any) -> list[Case]:
    """The set with case 2 spoilt."""
    return [{**case, **changes} if index == 2 else case for index, case in enumerate(cases)]


GOOD = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
BAD_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"image": np.full((1, 8, 8), np.nan, np.float32)}, "the image holds NaN or infinite values only"),
    "Inf": ({"image": np.full((1, 8, 8), -np.inf, np.float32)}, "the image holds NaN or infinite values only"),
    "constant": ({"image": np.full((1, 8, 8), 7, np.uint16)}, "the image is constant: it has no grey levels"),
    "faint": ({"image": (GOOD / 64).astype("float32")}, r"would drown the image, whose values run from 0 to 0\.98"),
    "empty": ({"image": np.zeros((1, 0, 8), np.uint8)}, r"the image is empty, shape \(1, 0, 8\)"),
    "boolean": ({"image": GOOD > 30}, "got bool. A boolean image has no grey levels"),
    "float16": ({"image": GOOD.astype("float16")}, "image dtype must be one of .*, got float16"),
    "bfloat16": ({"image": torch.from_numpy(GOOD).bfloat16()}, "bfloat16 is no stored type"),
    "complex": ({"image": GOOD.astype("complex64")}, "the image must hold numbers, got dtype complex64"),
    "text": ({"image": "liver.nii.gz"}, "the image must hold numbers, got dtype <U"),
    "rank 2": ({"image": GOOD[0]}, r"shape \(8, 8\) is neither .*ensure_channel_first=True"),
    "rank 5": ({"image": GOOD[None, None]}, r"shape \(1, 1, 1, 8, 8\) is neither"),
    "3D among 2D": ({"image": GOOD[None]}, "2D and 3D mixed"),
    "channels": (
        {"image": np.stack([GOOD[0], GOOD[0] + 1, GOOD[0]])},
        "3 channels, most images have 1 channel: all must have the same",
    ),
    "outside the window": (
        {"image": GOOD.astype(np.int16) + 1000},
        "0.0% of its voxels lie inside its window .*real units of the images, or percentiles",
    ),
    "label too large": ({"label": 2}, "label 2 is outside 0 to 1; check num_classes"),
    "label below 0": ({"label": -1}, "label -1 is outside"),
    "label None": ({"label": None}, "the label is missing"),
    "label NaN": ({"label": float("nan")}, "the label is NaN"),
    "label text": ({"label": "cat"}, "map class names"),
    "multi-label": ({"label": [0, 1]}, "is this a multi-label set"),
}


@pytest.mark.parametrize("what", BAD_CASES)
def test_bad_cases_are_refused_by_name_before_work(what: str, cases: list[Case], store: Path) -> None:
    changes, message = BAD_CASES[what]
    with pytest.raises((DataError, LabelError), match=f"case 'case_0_002'.*{message}"):
        make(spoil(cases, **changes), store, surrogate=never)
    assert not store.exists()
    assert not folder_of(store).exists(), "copies of images were left behind"


def test_a_nearly_blank_picture_of_8_bits_gets_noise_like_any_other(cases: list[Case], store: Path) -> None:
    made = make(spoil(cases, image=GOOD % 8 + 100), store)
    assert len(made) == len(cases)
    assert all(noise.codes.any() for noise in made)


def test_missing_keys_are_named(cases: list[Case], store: Path) -> None:
    unlabelled = [{k: v for k, v in case.items() if k != "label"} for case in cases]
    with pytest.raises(
        DataError, match=r"case 'case_0_000': no key 'label'; its keys are \['image', 'name'\]. Set label_key"
    ):
        make(unlabelled, store, surrogate=never)
    with pytest.raises(DataError, match=r"case 0: no key 'scan'; .*Set image_key"):
        make(cases, store, image_key="scan", surrogate=never)
    with pytest.raises(DataError, match="case 0: the data set must give dictionaries, got tuple"):
        make([(GOOD, 0)], store, surrogate=never)


def test_cases_without_a_name_are_named_by_file_or_index(store: Path) -> None:
    path = MetaTensor(torch.from_numpy(GOOD), meta={"filename_or_obj": "/data/liver_7.nii.gz"})
    with pytest.raises(LabelError, match=r"case '/data/liver_7\.nii\.gz': "):
        make([{"image": path, "label": 9}], store, surrogate=never)
    with pytest.raises(LabelError, match="case '1': "):
        make([{"image": GOOD, "label": 0}, {"image": GOOD + 1, "label": 9}], store, surrogate=never)


class Stream:
    """Has no length."""

    def __getitem__(self, index: int) -> Case:
        return {"image": GOOD, "label": 0}


class Sequel(IterableDataset[Case]):
    """Has a length, but no case by number."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Case]:
        yield {"image": GOOD, "label": 0}


@pytest.mark.parametrize(
    ("dataset", "wrong"), [([], "is empty"), (Stream(), "is a Stream, which"), (Sequel(), "is a Sequel, which")]
)
def test_empty_data_sets_and_streams_are_refused(dataset: Any, wrong: str, store: Path) -> None:
    with pytest.raises(DataError, match=f"the data set {wrong}"):
        make(dataset, store, surrogate=never)
    assert not folder_of(store).exists()


def test_epsilon_below_one_grey_level_is_refused(cases: list[Case], store: Path) -> None:
    with pytest.raises(DataError, match=r"case 'case_0_000': epsilon .* below one step of uint8"):
        make(cases, store, EM(**{**SHORT, "epsilon": 0.5 / 255}), surrogate=never)


def test_label_maps_must_lie_on_the_images_grid(make_segmentation: Any, store: Path) -> None:
    cases = make_segmentation((8, 8), 4)
    cases[2]["label"] = cases[2]["label"][:, :7]
    with pytest.raises(LabelError, match=r"case 'case_0_002': label map has shape \(1, 7, 8\), its image \(8, 8\)"):
        make(cases, store, task=Segmentation(num_classes=2), surrogate=never)


RANDOM_FLIP = RandFlipd("image", prob=0.0)
RANDOM_CHAINS: dict[str, Callable[[list[Case]], Any]] = {
    "compose": lambda cases: Dataset(cases, Compose([EnsureTyped("image"), RANDOM_FLIP])),
    "nested": lambda cases: Dataset(cases, Compose([EnsureTyped("image"), Compose([RANDOM_FLIP])])),
    "alone": lambda cases: Dataset(cases, RANDOM_FLIP),
    "list": lambda cases: Dataset(cases, [RANDOM_FLIP]),
    "cached": lambda cases: CacheDataset(cases, Compose([RANDOM_FLIP]), progress=False),
    "subset": lambda cases: Subset(Dataset(cases, RANDOM_FLIP), range(len(cases))),
    "subset of subset": lambda cases: Subset(Subset(Dataset(cases, RANDOM_FLIP), range(5)), range(5)),
    "concatenated": lambda cases: ConcatDataset([Dataset(cases[:3]), Dataset(cases[3:], RANDOM_FLIP)]),
    "one of several": lambda cases: Dataset(cases, OneOf([Flipd("image", 0), Flipd("image", 1)])),
}


@pytest.mark.parametrize("kind", RANDOM_CHAINS)
def test_random_transforms_are_refused(kind: str, cases: list[Case], store: Path) -> None:
    name = "OneOf" if kind == "one of several" else "RandFlipd"
    with pytest.raises(DataError, match=f"the random transform {name}: .*random ones go after SALMProtectd"):
        make(RANDOM_CHAINS[kind](cases), store, surrogate=never)


def test_data_sets_that_are_random_themselves_are_refused(cases: list[Case], store: Path) -> None:
    class Noisy(list):  # type: ignore[type-arg]
        noise = RandGaussianNoised("image", prob=1.0)

        def __getitem__(self, index: Any) -> Any:
            return self.noise({**super().__getitem__(index), "image": GOOD.astype(np.float32)})

    with pytest.raises(DataError, match="case 'case_0_000' differs between two reads: the data set's chain is random"):
        make(Noisy(cases), store, surrogate=never)


def test_deterministic_chains_are_accepted(cases: list[Case], store: Path) -> None:
    chain = Compose([EnsureTyped("image", dtype=torch.uint8), Flipd("image", spatial_axis=0)])
    made = make(Dataset(cases, chain), store)
    for case in cases:
        assert content_digest(case["image"][:, ::-1]) in made


def test_one_image_with_two_labels_is_refused(cases: list[Case], store: Path) -> None:
    twin = {**cases[0], "label": 1 - cases[0]["label"], "name": "twin"}
    with pytest.raises(DataError, match="cases 'case_0_000' and 'twin' are the same image with different labels"):
        make([*cases, twin], store, surrogate=never)


def test_one_image_with_two_label_maps_is_refused(make_segmentation: Any, store: Path) -> None:
    cases = make_segmentation((8, 8), 3)
    twin = {**cases[0], "label": 1 - cases[0]["label"], "name": "twin"}
    task = Segmentation(num_classes=2)
    with pytest.raises(DataError, match="are the same image with different labels"):
        make([*cases, twin], store, task=task, surrogate=never)


def test_one_image_twice_gets_one_noise(cases: list[Case], store: Path) -> None:
    twins = [{**cases[0], "name": "twin"}, {**cases[1], "image": cases[1]["image"].astype(np.float32)}]
    assert len(make([*cases, *twins], store)) == len(cases)


def test_images_with_holes_are_allowed(cases: list[Case], store: Path) -> None:
    """What is not a number is padding: no noise, the same bits, and no part of the window."""
    holes = []
    for case in cases:
        image = case["image"].astype(np.float32)
        image[0, 3, 3], image[0, 5, 5] = np.nan, np.inf
        holes.append({**case, "image": image})
    made = make(holes, store, window=PercentileWindow())
    for case in holes:
        noise = made[content_digest(case["image"])]
        protected = noise.apply(case["image"])
        assert not noise.codes[0, 3, 3]
        assert protected[0, 3, 3].tobytes() == case["image"][0, 3, 3].tobytes()
        assert noise.remove(protected).tobytes() == case["image"].tobytes()
        assert noise.window.high <= 255


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_files_of_the_other_byte_order_are_read_right(
    dtype: str, cases: list[Case], store: Path, tmp_path: Path
) -> None:
    native = [{**case, "image": case["image"].astype(dtype)} for case in cases]
    other = np.dtype(dtype).newbyteorder(">" if np.little_endian else "<")
    swapped = [{**case, "image": case["image"].astype(other)} for case in cases]
    assert contents(make(swapped, store)) == contents(make(native, tmp_path / "native.db"))


@pytest.mark.parametrize(
    "wrap", [torch.from_numpy, lambda image: MetaTensor(torch.from_numpy(image)), np.asfortranarray]
)
def test_images_may_come_in_any_wrapping(wrap: Any, cases: list[Case], store: Path, tmp_path: Path) -> None:
    wrapped = [{**case, "image": wrap(case["image"].copy())} for case in cases]
    assert contents(make(wrapped, store)) == contents(make(cases, tmp_path / "plain.db"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number from 0, got 0.5"),
        ({"surrogate": "resnet99"}, "unknown network 'resnet99'"),
        ({"surrogate": ()}, "surrogate must name at least one network"),
        ({"surrogate": "unet"}, "surrogate 'unet' does not fit a classification task; use for instance resnet18"),
        ({"surrogate": ("vgg11", "unet")}, "surrogate 'unet' does not fit"),
        ({"surrogate": "vgg11", "width": 0}, "width must be positive, got 0"),
        ({"surrogate": "vgg11", "task": Segmentation(num_classes=2)}, "does not fit a segmentation task; use .*unet"),
        ({"window": (0, 255), "error": TypeError}, r"window must be FixedWindow\(low, high\).* got \(0, 255\)"),
        (
            {"method": "salm", "error": TypeError},
            r"method must be a method with its settings, such as SALM\(\).* got 'salm'",
        ),
        ({"method": RandomNoise, "error": TypeError}, "method must be a method with its settings.*RandomNoise"),
        ({"task": "classification", "error": TypeError}, r"task must be .*Classification\(.* got 'classification'"),
        ({"recipe": "sgd", "error": TypeError}, r"recipe must be a Recipe\(\.\.\.\) or None, got 'sgd'"),
        ({"width": "half", "error": TypeError}, "width must be a number, such as 0.25, got 'half'"),
        ({"patch_size": (9, 9)}, "is larger than the smallest image"),
        ({"patch_size": (4, 4), "view_size": (4, 4)}, "not both"),
        ({"method": EM(perturb_type="classwise", **SHORT), "patch_size": (4, 4)}, "without patches"),
    ],
)
def test_settings_that_do_not_fit_leave_nothing_behind(
    options: dict[str, Any], message: str, cases: list[Case], store: Path
) -> None:
    error = options.pop("error", ValueError)
    with pytest.raises(error, match=message):
        make(cases, store, **{"surrogate": never, **options})
    assert list(store.parent.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# What a store records, and what is done when it is there


def test_the_store_records_how_it_was_made(cases: list[Case], store: Path) -> None:
    method = stepped(0.25, rounds=2)
    make(cases, store, method, surrogate="resnet10", width=0.05, seed=7)
    meta = NoiseStore(store).meta
    assert meta["method"] == json.loads(json.dumps(method.spec()))
    assert (meta["mask_share"], meta["plain_class"]) == (0.25, None)
    assert len(bytes.fromhex(meta["key"])) == 32
    assert meta["epsilon"] == 8 / 255
    assert meta["task"] == {"kind": "classification", "num_classes": 2, "multi_label": False}
    assert meta["window"] == {"kind": "stored", "low": 0, "high": 255}
    assert meta["seed"] == 7
    assert meta["surrogate"] == ["resnet10"]
    assert meta["width"] == 0.05
    assert meta["device"] == "cpu"
    assert meta["view"] == {"kind": "full", "size": [8, 8]}
    assert meta["recipe"]["batch_size"] == 4
    assert meta["versions"]["monai_salm"] == __version__
    assert meta["versions"]["torch"] == torch.__version__
    assert (meta["rounds"], len(meta["errors"])) == (2, 2)
    assert [spec["name"] for spec, _ in NoiseStore(store).networks()] == ["resnet10"] * 2
    assert NoiseStore(store).check() == len(cases)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_without_a_method_and_window_the_recommended_ones_run_and_are_recorded(
    kind: str, cases: list[Case], make_segmentation: Any, store: Path
) -> None:
    task, data, surrogate = (TWO, cases, tiny)
    if kind == "segmentation":
        task, data, surrogate = Segmentation(num_classes=2), make_segmentation((8, 8), 4), per_voxel
    made = precompute(data, store, task=task, surrogate=surrogate, recipe=RECIPE, device="cpu")
    assert made.meta["method"] == json.loads(json.dumps(recommended(task, 2, (8, 8)).spec()))
    assert made.meta["window"] == {"kind": "automatic"}
    assert {noise.window for noise in made} == {IntensityWindow(0, 255)}, "pictures of 8 bits"


def test_windows_are_each_images_own(cases: list[Case], store: Path, tmp_path: Path) -> None:
    data = [{**case, "image": case["image"].astype(np.int16) * (1 + 9 * (i % 2))} for i, case in enumerate(cases)]
    made = make(data, store, window=PercentileWindow(0, 100))
    for case in data:
        noise = made[content_digest(case["image"])]
        low, high = float(case["image"].min()), float(case["image"].max())
        assert noise.window == IntensityWindow(low, high)
        assert np.abs(noise.codes).max() <= 8 / 255 * (high - low)
    fixed = make(data, tmp_path / "fixed.db", window=FixedWindow(0, 2600))
    assert {noise.window for noise in fixed} == {IntensityWindow(0, 2600)}


# ---------------------------------------------------------------------------------------------------------------------
# One mask an image


def problem_of(kind: str, rank: int, make_classification: Any, make_segmentation: Any) -> tuple[list[Case], Task, Any]:
    """A small data set whose rarest class is 0, its learning problem, and a network for it."""
    spatial = (16, 16) if rank == 2 else (8, 9, 10)
    if kind == "segmentation":
        data = make_segmentation(spatial, 4)
        data[0]["label"] = np.zeros_like(data[0]["label"])  # an image of nothing but background
        return data, Segmentation(num_classes=2), per_voxel
    data = make_classification(spatial, 7, 2)[1:]
    if kind == "multilabel":
        data = [{**case, "label": [case["label"], i % 3 == 0, 0]} for i, case in enumerate(data)]
        return data, Classification(num_classes=3, multi_label=True), tiny
    return data[:5], TWO, tiny


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", ["classification", "multilabel", "segmentation"])
def test_noise_of_every_image_stays_inside_one_mask_of_k_elements(
    kind: str, rank: int, make_classification: Any, make_segmentation: Any, tmp_path: Path
) -> None:
    """SALM's promise, without exception: every task, 2D and 3D, the plain class too."""
    data, task, surrogate = problem_of(kind, rank, make_classification, make_segmentation)
    usual = recommended(task, rank)
    quick = replace(usual, perturbation=replace(usual.perturbation, surrogate_steps=2))  # type: ignore[type-var]
    supports = {}
    for ratio in (0.1, usual.mask_ratio):
        made = make(data, tmp_path / f"{ratio}.db", replace(quick, mask_ratio=ratio), task=task, surrogate=surrogate)
        assert made.settings.mask_share == ratio
        assert len(made) == len(data)
        assert made.meta["plain_class"] == (0 if kind == "classification" else None)
        for case in data:
            image = case["image"]
            protected = made[content_digest(image)].apply(image)
            assert 0 < np.count_nonzero(protected != image) <= mask_size(image.size, ratio), case["name"]
        supports[ratio] = [made[content_digest(case["image"])].codes != 0 for case in data]
    few, many = supports.values()
    # The masks hold what they promise: not far fewer elements, for images whose texture is everywhere.
    if kind != "segmentation":
        textured = [i for i, case in enumerate(data) if kind == "multilabel" or case["label"] != 0]
        assert all(few[i].mean() > 0.05 for i in textured)
    assert all(not np.array_equal(a, b) for a, b in zip(few, many, strict=True)), "the noise changes with mask_ratio"


def test_nothing_but_the_store_is_left(cases: list[Case], store: Path) -> None:
    make(cases, store)
    assert [path.name for path in store.parent.iterdir()] == ["noise.db"]
    assert store.stat().st_mode & 0o077 == 0


def test_progress_is_reported_stage_by_stage(cases: list[Case], store: Path) -> None:
    reports: list[Progress] = []
    make(cases, store, EM(**{**SHORT, "rounds": 2}), progress=reports.append)
    assert list(dict.fromkeys(r.stage for r in reports)) == ["check", "generate", "write"]
    for stage in ("check", "generate", "write"):
        done = [r.done for r in reports if r.stage == stage]
        assert done == sorted(done)
        assert done[-1] == next(r.total for r in reports if r.stage == stage)
    assert "training error" in [r.detail for r in reports if r.stage == "generate"][-1]


def test_called_again_it_returns_the_finished_store(cases: list[Case], store: Path) -> None:
    first = contents(make(cases, store))
    written = store.stat().st_mtime_ns
    reports: list[Progress] = []
    assert contents(make(cases, store, progress=reports.append)) == first
    assert {report.stage for report in reports} == {"check"}
    assert store.stat().st_mtime_ns == written
    assert not folder_of(store).exists()


def other_image(cases: list[Case]) -> list[Case]:
    return [{**cases[0], "image": cases[0]["image"] + 1}, *cases[1:]]


def other_label(cases: list[Case]) -> list[Case]:
    return [{**cases[0], "label": 1}, *cases[1:]]


def same(cases: list[Case]) -> list[Case]:
    return cases


OTHER_JOBS: list[tuple[str, Callable[[list[Case]], list[Case]], dict[str, Any]]] = [
    ("data", other_image, {}),
    ("data", other_label, {}),
    ("data", lambda cases: cases[1:], {}),
    ("seed", same, {"seed": 1}),
    ("mask_share, method", same, {"method": replace(METHOD, mask_ratio=0.1)}),
    ("epsilon, mask_share, method", same, {"method": EM(**{**SHORT, "epsilon": 16 / 255})}),
    ("window", same, {"window": IntensityWindow(0, 200)}),
    ("task", same, {"task": Classification(num_classes=3)}),
    ("recipe", same, {"recipe": replace(RECIPE, lr=0.1)}),
    ("view", same, {"view_size": (6, 6)}),
    ("surrogate", same, {"surrogate": "resnet10"}),
    ("width", same, {"width": 0.5}),
]


@pytest.mark.parametrize(("what", "change", "options"), OTHER_JOBS)
def test_a_store_made_otherwise_is_in_the_way(
    what: str, change: Callable[[list[Case]], list[Case]], options: dict[str, Any], cases: list[Case], store: Path
) -> None:
    before = contents(make(cases, store))
    with pytest.raises(
        NoiseStoreError, match=rf"noise\.db exists and was made with another {re.escape(what)}( \(.*\))?: "
    ):
        make(change(cases), store, **options)
    assert contents(NoiseStore(store)) == before
    assert not folder_of(store).exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_label, "the images are the same; their labels or their order changed"),
        (other_image, r"new images: 1; images that are gone: 1; docs/guides/new_images\.md"),
        (lambda cases: cases[1:], "images that are gone: 1"),
    ],
)
def test_what_changed_in_the_data_is_told(
    change: Callable[[list[Case]], list[Case]], why: str, cases: list[Case], store: Path
) -> None:
    make(cases, store, RandomNoise())
    with pytest.raises(NoiseStoreError, match=rf"another data \({why}"):
        make(change(cases), store, RandomNoise())


def test_overwrite_starts_anew(cases: list[Case], store: Path, tmp_path: Path) -> None:
    make(cases, store)
    again = make(other_image(cases), store, seed=3, overwrite=True)
    assert again.meta["seed"] == 3
    assert contents(again) == contents(make(other_image(cases), tmp_path / "fresh.db", seed=3))


def test_overwrite_does_not_lose_the_store_to_bad_data(cases: list[Case], store: Path) -> None:
    before = contents(make(cases, store))
    with pytest.raises(LabelError):
        make(spoil(cases, label=5), store, overwrite=True)
    assert contents(NoiseStore(store)) == before


def test_something_else_at_the_stores_path_is_refused(cases: list[Case], store: Path) -> None:
    store.write_text("precious")
    with pytest.raises(NoiseStoreError, match="is not a noise store"):
        make(cases, store)
    assert store.read_text() == "precious"
    assert not folder_of(store).exists()


def test_steps_that_vanish_on_the_grid_are_refused(cases: list[Case], store: Path) -> None:
    with pytest.raises(ValueError, match="step_size must be large enough that num_steps of them make one step"):
        make(cases, store, EM(**{**SHORT, "num_steps": 1, "step_size": 0.0375}), surrogate=never)
    assert list(store.parent.iterdir()) == []


class Silent(Method):
    """Leaves no noise in one image."""

    name = "silent"

    def maker(self, job: Job) -> Callable[[int], Any]:
        return lambda case: case != 2


def test_an_image_without_noise_is_an_error(cases: list[Case], store: Path) -> None:
    with pytest.raises(NoiseStoreError, match="case 'case_0_002' got no noise"):
        make(cases, store, Silent())
    assert list(store.parent.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted and resumed


class Interrupt(Exception):
    """Raised from the progress callback."""


def stop_at(stage: str, done: int) -> Callable[[Progress], None]:
    def callback(report: Progress) -> None:
        if report.stage == stage and report.done >= done:
            raise Interrupt

    return callback


def interrupt(*arguments: Any, at: tuple[str, int], **options: Any) -> None:
    with pytest.raises(Interrupt):
        make(*arguments, progress=stop_at(*at), **options)


ROUNDS = 3
INTERRUPTED: dict[str, tuple[SALM, int]] = {
    f"{scope}-{every}": (stepped(mask_scope=scope, restart_every=every, rounds=ROUNDS), ROUNDS)
    for scope, every in (("step", 0), ("sample", 0), ("sample", 1), ("step", 2))
}
INTERRUPTED["texture"] = (TEXTURE, 1)


def require_same_store(store: NoiseStore, expected: NoiseStore) -> None:
    """Noise, description and surrogates are the same to the last bit."""
    assert contents(store) == contents(expected)
    assert store.meta == expected.meta
    for (spec, weights), (other_spec, other_weights) in zip(store.networks(), expected.networks(), strict=True):
        assert spec == other_spec
        assert all(torch.equal(weights[key], other_weights[key]) for key in weights)


@pytest.mark.parametrize("name", INTERRUPTED)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_interrupted_in_every_round_it_ends_in_the_same_noise(
    name: str, optimizer: str, cases: list[Case], store: Path, tmp_path: Path
) -> None:
    method, rounds = INTERRUPTED[name]
    options: dict[str, Any] = {"recipe": replace(RECIPE, optimizer=optimizer), "surrogate": "resnet10", "width": 0.05}
    expected = make(cases, tmp_path / "whole.db", method, **options)
    for number in range(rounds):
        for share in (200, 600):  # while the surrogate trains, and while the noise is improved
            interrupt(cases, store, method, at=("generate", 1000 * number + share), **options)
            assert not store.exists()
            assert folder_of(store).exists() == (number > 0 or share == 600), "a trained surrogate is kept"
    interrupt(cases, store, method, at=("write", 3), **options)
    require_same_store(make(cases, store, method, **options), expected)
    assert not folder_of(store).exists()


def press_ctrl_c(seen: list[int], at: int) -> Callable[[Progress], None]:
    """Interrupt as Ctrl-C does at the report of this number in the stage of generation; all reports are taken down."""

    def callback(report: Progress) -> None:
        if report.stage == "generate":
            seen.append(report.done)
            if len(seen) == at:
                raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "method",
    [
        SALM(perturbation=ClassTexture(surrogate_steps=6)),
        EM(**{**SHORT, "surrogate_steps": 6, "rounds": 2}),
        EM(**{**SHORT, "surrogate_steps": 6, "rounds": 2, "restart_every": 1}),
    ],
    ids=["texture", "one surrogate", "fresh surrogates"],
)
def test_ctrl_c_costs_no_step_of_the_surrogates_training(
    method: Method, optimizer: str, cases: list[Case], store: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"recipe": replace(RECIPE, optimizer=optimizer), "surrogate": "resnet10", "width": 0.05}
    whole: list[int] = []
    expected = make(cases, tmp_path / "whole.db", method, progress=press_ctrl_c(whole, 0), **options)
    seen: list[int] = []
    for at in (2, 5):  # twice in the training of the first round
        with pytest.raises(KeyboardInterrupt):
            make(cases, store, method, progress=press_ctrl_c(seen, at), **options)
        assert folder_of(store).exists()
    require_same_store(make(cases, store, method, progress=press_ctrl_c(seen, 0), **options), expected)
    assert seen == whole, "no step was done twice"
    assert not folder_of(store).exists()


def test_training_is_kept_now_and_then(
    cases: list[Case], store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that is killed goes on from the last time the training was kept."""
    method = SALM(perturbation=ClassTexture(surrogate_steps=6))
    options: dict[str, Any] = {"surrogate": "resnet10", "width": 0.05}
    whole: list[int] = []
    expected = make(cases, tmp_path / "whole.db", method, progress=press_ctrl_c(whole, 0), **options)
    monkeypatch.setattr("monai_salm.methods.surrogates._CHECKPOINT_SECONDS", -1.0)
    interrupt(cases, store, method, at=("generate", whole[3]), **options)  # not by Ctrl-C
    seen: list[int] = []
    require_same_store(make(cases, store, method, progress=press_ctrl_c(seen, 0), **options), expected)
    assert seen[0] > whole[2]


JOBS: dict[str, tuple[Method, dict[str, Any]]] = {
    "random noise": (RandomNoise(), {}),
    "class-wise": (EM(**{**SHORT, "rounds": 2}, perturb_type="classwise"), {}),
    "patches": (EM(**{**SHORT, "rounds": 2}, mask=Random(ratio=0.3)), {"patch_size": (5, 5)}),
    "stop_error": (EM(**{**SHORT, "rounds": 3}, stop_error=0.99), {}),
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("at", [("check", 3), ("generate", 3), ("generate", 1200), ("write", 1), ("write", 6)])
def test_other_jobs_resume_too(job: str, at: tuple[str, int], cases: list[Case], store: Path, tmp_path: Path) -> None:
    method, options = JOBS[job]
    expected = contents(make(cases, tmp_path / "whole.db", method, **options))
    try:
        make(cases, store, method, progress=stop_at(*at), **options)
    except Interrupt:
        assert not store.exists()
    assert contents(make(cases, store, method, **options)) == expected


def test_resuming_does_not_start_again(cases: list[Case], store: Path) -> None:
    method = EM(**{**SHORT, "rounds": 3})
    interrupt(cases, store, method, at=("generate", 2200))
    reports: list[Progress] = []
    make(cases, store, method, progress=reports.append)
    assert min(r.done for r in reports if r.stage == "generate") >= 2000


@pytest.mark.parametrize(("what", "change", "options"), OTHER_JOBS)
def test_an_interrupted_run_of_another_job_is_in_the_way(
    what: str, change: Callable[[list[Case]], list[Case]], options: dict[str, Any], cases: list[Case], store: Path
) -> None:
    method = stepped(rounds=2)
    interrupt(cases, store, method, at=("generate", 1200))
    changed = dict(options)
    if "method" in changed:
        changed["method"] = stepped(0.1, rounds=2) if isinstance(changed["method"], SALM) else changed["method"]
    with pytest.raises(
        WorkspaceError, match=rf"interrupted run with another {re.escape(what)}: delete it, .*--overwrite"
    ):
        make(change(cases), store, **{"method": method, **changed})
    assert len(make(cases, store, method)) == len(cases)  # and is unharmed


def test_overwrite_forgets_an_interrupted_run(cases: list[Case], store: Path, tmp_path: Path) -> None:
    interrupt(cases, store, stepped(rounds=2), at=("generate", 1200))
    made = make(cases, store, overwrite=True, seed=5)
    assert contents(made) == contents(make(cases, tmp_path / "fresh.db", seed=5))


def test_before_the_first_round_there_is_nothing_to_be_in_the_way(cases: list[Case], store: Path) -> None:
    interrupt(cases, store, at=("generate", 100))
    assert len(make(cases, store, seed=5)) == len(cases)


def test_bad_data_does_not_harm_an_interrupted_run(cases: list[Case], store: Path, tmp_path: Path) -> None:
    method = stepped(rounds=2)
    interrupt(cases, store, method, at=("generate", 1200))
    with pytest.raises(LabelError):
        make(spoil(cases, label=5), store, method)
    assert contents(make(cases, store, method)) == contents(make(cases, tmp_path / "whole.db", method))


def test_two_calls_do_not_work_on_one_store(cases: list[Case], store: Path) -> None:
    seen = []

    def call_again(report: Progress) -> None:
        if report.stage == "generate" and not seen:
            with pytest.raises(WorkspaceError, match="is in use by another process; wait for it or give another store"):
                make(cases, store)
            seen.append(report)

    assert len(make(cases, store, progress=call_again)) == len(cases)
    assert seen


def test_the_lock_goes_with_the_call(cases: list[Case], store: Path) -> None:
    """An interrupted call can be repeated at once, though its traceback is still held (as in a notebook)."""
    method = stepped(rounds=2)
    with pytest.raises(Interrupt) as held:
        make(cases, store, method, progress=stop_at("generate", 1200))
    assert len(make(cases, store, method)) == len(cases)
    assert held.value is not None


@pytest.fixture
def random_states() -> Iterator[None]:
    state = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tobytes() == state[1]  # noqa: NPY002


@pytest.mark.usefixtures("random_states")
@pytest.mark.parametrize("task", [TWO, Segmentation(num_classes=2)])
def test_the_callers_random_state_is_untouched(
    task: Task, make_classification: Any, make_segmentation: Any, store: Path
) -> None:
    factory = make_classification if task == TWO else make_segmentation
    names = ("resnet10", "vgg11") if task == TWO else ("unet", "segresnet")
    method = EM(**{**SHORT, "rounds": 2}, restart_every=1, stop_error=0.0)
    made = make(factory((8, 8), 4), store, method, task=task, surrogate=names, width=0.05)
    assert [spec["name"] for spec, _ in made.networks()] == list(names)


def test_the_default_surrogates_work(make_classification: Any, make_segmentation: Any, tmp_path: Path) -> None:
    method = SALM(perturbation=ClassTexture(surrogate_steps=1))
    for spatial in ((28, 28), (12, 12, 12)):
        for task, factory in ((TWO, make_classification), (Segmentation(num_classes=2), make_segmentation)):
            store = tmp_path / f"{task.kind}{len(spatial)}.db"
            made = precompute(
                factory(spatial, 3), store, method=method, task=task, window=BYTES, device="cpu", width=0.05
            )
            assert all((name in SEGMENTATION_NETWORKS) == (task != TWO) for name in made.meta["surrogate"])
            assert len(made) == 3


def test_one_tiny_image_does_not_choose_the_texture_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    sides = (64, 64, 64, 64, 2)
    data = [{"image": rng.integers(0, 255, (1, n, n), np.uint8), "label": i % 2} for i, n in enumerate(sides)]
    meta = precompute(data, tmp_path / "noise.db", task=TWO, device="cpu").meta
    assert meta["method"] == recommended(TWO, 2, (64, 64)).spec() != recommended(TWO, 2, (2, 2)).spec()
    assert meta["view"]["size"] == [32, 32]
