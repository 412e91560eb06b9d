"""An image that comes later gets noise that keeps every promise of the store's method, or an error that says why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandFlip
from published_samples import make_archive

from monai_salm.data.scan import DataError
from monai_salm.generate.new_images import generate_noise
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import open_layout
from monai_salm.learning.networks import build_network
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Classification, LabelError, Segmentation, Task
from monai_salm.methods import (
    AR,
    EM,
    LSP,
    METHODS,
    REM,
    SALM,
    SEM,
    TAP,
    ClassTexture,
    ErrorMinimizing,
    Foreground,
    InterSliceEM,
    Method,
    Random,
    RandomNoise,
    RoiEM,
)
from monai_salm.methods.job import Job
from monai_salm.methods.masks import mask_size
from monai_salm.methods.textures import stored_periods, texture, waves_of
from monai_salm.noise.digest import content_digest
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.lookup import ImageNotFoundError
from monai_salm.store.store import NoiseStore, NoiseStoreError
from monai_salm.transforms import SALMProtect, SALMProtectd, SALMRestored

WINDOW = IntensityWindow(0, 255)
BUDGET = 8  # stored units: epsilon 8/255 of the window
QUICK: dict[str, Any] = {"rounds": 2, "surrogate_steps": 2, "num_steps": 3, "step_size": 0.375}
STEPS = ErrorMinimizing(restart_every=0, **QUICK)
TEXTURE = SALM(mask_ratio=0.2, perturbation=ClassTexture(surrogate_steps=2))

RECIPE = Recipe(optimizer="adam", lr=1e-3, batch_size=8, precision="float32")


def make_store(path: Path, cases: list[Any], method: Method, task: Task, **settings: Any) -> NoiseStore:
    names = {"classification": "resnet10", "segmentation": "unet"}
    settings = {"surrogate": names[task.kind], "width": 0.05, "recipe": RECIPE, "device": "cpu", **settings}
    return precompute(cases, path, method=method, task=task, window=WINDOW, **settings)


METHOD_SETTINGS: dict[str, Method] = {
    "salm": TEXTURE,
    "salm sample": SALM(mask_ratio=0.2, mask_area=1, perturbation=STEPS),
    "salm step": SALM(mask_ratio=0.2, mask_area=1, mask_scope="step", perturbation=STEPS),
    "em random": EM(mask=Random(ratio=0.2), **QUICK),
    "em foreground": EM(mask=Foreground(ratio=0.2), **QUICK),
    "em": EM(**QUICK),
    "em classwise": EM(perturb_type="classwise", **QUICK),
    "rem": REM(attack_steps=1, draws=1, **QUICK),
    "sem": SEM(attack_steps=1, draws=1, **QUICK),
    "tap": TAP(**QUICK),
    "lsp": LSP(),
    "ar": AR(),
    "random": RandomNoise(),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, make_classification: Any) -> dict[str, Path]:
    """A store of every method, of 8 images of 16 x 16; copied before use."""
    folder = tmp_path_factory.mktemp("stores")
    cases = make_classification(cases=8)
    task = Classification(num_classes=2)
    return {name: make_store(folder / f"{name}.db", cases, m, task).path for name, m in METHOD_SETTINGS.items()}


@pytest.fixture
def store_of(stores: dict[str, Path], tmp_path: Path) -> Any:
    def copy(name: str, to: str = "noise.db") -> NoiseStore:
        return NoiseStore(shutil.copy(stores[name], tmp_path / to))

    return copy


@pytest.fixture
def new(make_classification: Any) -> dict[str, Any]:
    """An image that is in no store, with its label and name."""
    case: dict[str, Any] = make_classification(cases=2, seed=7)[1]
    return case


def require_within_budget(image: np.ndarray, protected: np.ndarray, budget: float = BUDGET) -> np.ndarray:
    """The noise: there is some, of at most the budget, and none leaves the window."""
    assert protected.dtype == image.dtype
    assert protected.shape == image.shape
    difference: np.ndarray = protected.astype(np.int64) - image.astype(np.int64)
    assert 1 <= np.abs(difference).max() <= budget
    assert protected.min() >= WINDOW.low
    assert protected.max() <= WINDOW.high
    return difference


def test_new_image_that_networks_see_small_gets_noise(tmp_path: Path, rng: np.random.Generator) -> None:
    """Alone, it would be seen at another size than the images of the store."""
    images = [rng.integers(20, 220, (1, 226, side), np.uint8) for side in (226, 230, 228, 228)]
    cases = [{"image": image, "label": number % 2} for number, image in enumerate(images)]
    store = make_store(tmp_path / "noise.db", cases[:2], TEXTURE, Classification(num_classes=2))
    for case in cases[2:]:
        protected = SALMProtectd("image", store, label_key="label", on_missing="generate")(case)["image"]
        require_within_budget(case["image"], protected)


@pytest.mark.parametrize("name", METHOD_SETTINGS)
def test_new_image_gets_noise_within_the_budget_and_joins_the_store(
    name: str, store_of: Any, new: dict[str, Any]
) -> None:
    store = store_of(name)
    before = len(store)
    protected = SALMProtectd("image", store, label_key="label", on_missing="generate")(new)["image"]
    difference = require_within_budget(new["image"], protected)
    assert len(store) == store.check() == before + 1
    noise = store.get(content_digest(new["image"]))
    assert noise is not None
    assert noise.name == new["name"]
    assert np.array_equal(noise.codes, difference)
    # It is found from now on, and its noise stays.
    assert np.array_equal(SALMProtectd("image", store)(new)["image"], protected)


@pytest.mark.parametrize("name", METHOD_SETTINGS)
def test_same_store_and_image_give_the_same_noise(name: str, store_of: Any, new: dict[str, Any]) -> None:
    codes = []
    for number in range(2):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        noise = generate_noise(store_of(name, f"{number}.db"), new["image"], new["label"], f"name {number}")
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        codes.append(noise.codes)
    assert codes[0].tobytes() == codes[1].tobytes()
    assert codes[0].any()


def share_of(method: Method) -> float:
    loop = method.loop()
    return loop.mask.share if loop else 1.0


MASKED = [name for name, method in METHOD_SETTINGS.items() if share_of(method) < 1]


def test_methods_of_one_mask_an_image_are_among_them() -> None:
    assert MASKED == ["salm", "salm sample", "em random", "em foreground"]


@pytest.mark.parametrize("name", MASKED)
def test_support_of_a_new_image_never_exceeds_its_mask(name: str, store_of: Any, make_classification: Any) -> None:
    store = store_of(name)
    supports = []
    for case in make_classification(cases=3, seed=8):
        codes = generate_noise(store, case["image"], case["label"], case["name"]).codes
        assert 0 < np.count_nonzero(codes) <= mask_size(case["image"].size, 0.2)
        supports.append(codes != 0)
    assert not np.array_equal(supports[0], supports[1]), "masks are drawn for each image"


def test_noise_lowers_the_loss_of_the_kept_surrogates(store_of: Any, new: dict[str, Any]) -> None:
    store = store_of("em")
    protected = generate_noise(store, new["image"], new["label"], "new").apply(new["image"])
    target = torch.tensor([new["label"]])
    losses = []
    for spec, weights in store.networks():
        network = build_network(**spec)
        network.load_state_dict(weights)
        network.eval()
        for image in (new["image"], protected):
            with torch.no_grad():
                logits = network(WINDOW.normalize(torch.from_numpy(image)[None].float()))
            losses.append(float(torch.nn.functional.cross_entropy(logits, target)))
    clean, noisy = losses[::2], losses[1::2]
    assert len(clean) == 2
    assert all(after < before for before, after in zip(clean, noisy, strict=True))


def test_noise_depends_on_the_label(store_of: Any, new: dict[str, Any]) -> None:
    first = generate_noise(store_of("em", "a.db"), new["image"], 0, "new")
    second = generate_noise(store_of("em", "b.db"), new["image"], 1, "new")
    assert not np.array_equal(first.codes, second.codes)


def test_new_image_of_a_random_store_gets_what_precompute_would_give(
    store_of: Any, new: dict[str, Any], make_classification: Any, tmp_path: Path
) -> None:
    joined = generate_noise(store_of("random"), new["image"], new["label"], "new")
    whole = make_store(
        tmp_path / "whole.db", [*make_classification(cases=8), new], RandomNoise(), Classification(num_classes=2)
    )
    assert np.array_equal(whole[content_digest(new["image"])].codes, joined.codes)


def test_known_image_keeps_its_noise_whatever_its_label(store_of: Any, make_classification: Any) -> None:
    store, case = store_of("em"), make_classification(cases=8)[0]
    known = store[content_digest(case["image"])]
    assert np.array_equal(generate_noise(store, case["image"], 1, "again").codes, known.codes)
    assert len(store) == 8


def test_new_image_loaded_as_float32_gets_the_noise_of_its_file(store_of: Any, new: dict[str, Any]) -> None:
    """The store's images are uint8; noise of a loaded image must fit the file as well."""
    loaded = MetaTensor(torch.from_numpy(new["image"]).float(), meta={"filename_or_obj": "new.nii"})
    store = store_of("em", "a.db")
    result = SALMProtect(store, on_missing="generate")(loaded, new["label"])
    assert result.dtype == torch.float32
    noise = store[content_digest(new["image"])]
    assert (noise.dtype, noise.name) == ("uint8", "new.nii")
    from_file = generate_noise(store_of("em", "b.db"), new["image"], new["label"], "new").apply(new["image"])
    assert np.array_equal(result.numpy(), from_file)


@pytest.mark.parametrize("method", [TEXTURE, METHOD_SETTINGS["salm sample"]], ids=["texture", "steps"])
@pytest.mark.parametrize("rank", [2, 3])
def test_segmentation_in_patches_covers_a_new_image_of_another_shape(
    rank: int, method: Method, make_segmentation: Any, tmp_path: Path
) -> None:
    cases = make_segmentation((16,) * rank, cases=2)
    store = make_store(tmp_path / "noise.db", cases, method, Segmentation(num_classes=2), patch_size=(8,) * rank)
    new = make_segmentation((19,) + (16,) * (rank - 1), cases=1, seed=3)[0]
    item = {"image": MetaTensor(torch.from_numpy(new["image"])), "mask": MetaTensor(torch.from_numpy(new["label"]))}
    result = SALMProtectd("image", store, label_key="mask", on_missing="generate")(item)
    difference = require_within_budget(new["image"], result["image"].numpy())
    assert np.count_nonzero(difference) <= mask_size(difference.size, 0.2)
    assert torch.equal(result["mask"], item["mask"])


def test_new_image_gets_the_texture_of_its_class_inside_its_mask(store_of: Any, new: dict[str, Any]) -> None:
    store = store_of("salm")
    key, plain = bytes.fromhex(store.meta["key"]), store.meta["plain_class"]
    assert new["label"] != plain
    noise = generate_noise(store, new["image"], new["label"], "new")
    shape = new["image"].shape[1:]
    (wave,) = waves_of(key, 1, 2)
    full = BUDGET * texture(wave, shape, stored_periods(ClassTexture(), shape, Units(), False))
    inside = noise.codes != 0
    assert np.array_equal(noise.codes[inside], full[None][inside])
    # One of the store's own images of that class has the same texture; one of another class has not.
    own = {one.name: one for one in store}
    both = inside & (own["case_0_001"].codes != 0)
    assert both.any()
    assert np.array_equal(noise.codes[both], own["case_0_001"].codes[both])


def test_new_image_of_the_plain_class_gets_no_texture(store_of: Any, make_classification: Any) -> None:
    store, case = store_of("salm"), make_classification(cases=2, seed=7)[0]
    assert case["label"] == store.meta["plain_class"]
    codes = generate_noise(store, case["image"], case["label"], "new").codes
    assert 0 < np.count_nonzero(codes) <= mask_size(codes.size, 0.2)
    (wave,) = waves_of(bytes.fromhex(store.meta["key"]), 1, 2)
    full = texture(wave, (16, 16), stored_periods(ClassTexture(), (16, 16), Units(), False))[None]
    agree = np.mean(np.sign(codes)[codes != 0] == full[codes != 0])
    assert 0.1 < agree < 0.9


def test_resized_view_takes_a_new_image_of_another_shape(make_classification: Any, tmp_path: Path) -> None:
    task = Classification(num_classes=2)
    store = make_store(tmp_path / "noise.db", make_classification(cases=4), EM(**QUICK), task, view_size=(8, 8))
    new = make_classification((13, 21), cases=1, seed=3)[0]
    require_within_budget(new["image"], generate_noise(store, new["image"], 0, "new").apply(new["image"]))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_workers_that_meet_the_same_new_images_agree(store_of: Any, make_classification: Any) -> None:
    store = store_of("salm sample")
    items = [case for case in make_classification(cases=2, seed=9) for _ in range(2)]
    data = Dataset(items, Compose([SALMProtectd("image", store, label_key="label", on_missing="generate")]))
    loader = DataLoader(data, batch_size=1, num_workers=2, multiprocessing_context="fork")
    images = [batch["image"][0].numpy() for batch in loader]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[2], images[3])
    require_within_budget(items[0]["image"], images[0])
    assert len(store) == store.check() == 10


# ---------------------------------------------------------------------------------------------------------------------
# Errors


def grey(*shape: int) -> np.ndarray:
    """An image that no store knows."""
    return (np.arange(np.prod(shape)) % 200).reshape(shape).astype(np.uint8)


def protected_by(store: NoiseStore, image: np.ndarray) -> np.ndarray:
    return store[content_digest(image)].apply(image)


@pytest.mark.parametrize(
    "change", [lambda a: a, lambda a: a[:, ::-1], lambda a: np.rot90(a, axes=(1, 2)), lambda a: a.astype(np.float32)]
)
def test_protected_image_never_gets_noise_again(change: Any, store_of: Any, make_classification: Any) -> None:
    store = store_of("em")
    image = change(protected_by(store, make_classification(cases=8)[0]["image"]))
    with pytest.raises(ImageNotFoundError, match=r"must not get noise again: it is .*case 'case_0_000'"):
        SALMProtectd("image", store, label_key="label", on_missing="generate")({"image": image, "label": 0})
    assert len(store) == 8


@pytest.mark.parametrize(
    ("label", "message"),
    [(None, "the label is missing"), (2, "label 2 is outside 0 to 1"), ("cat", "must be a number"), ([0, 1], "one integer")],
)  # fmt: skip
def test_label_that_does_not_fit_the_task_is_an_error(
    label: Any, message: str, store_of: Any, new: dict[str, Any]
) -> None:
    store = store_of("em")
    protect = SALMProtectd("image", store, label_key="label", on_missing="generate")
    with pytest.raises(LabelError, match=f"case '{new['name']}'.*{message}"):
        protect({**new, "label": label})
    without = {key: value for key, value in new.items() if key != "label"}
    with pytest.raises(LabelError, match="the label is missing"):
        protect(without)
    assert len(store) == 8


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (grey(1, 16, 17), r"is \(1, 16, 17\), the store's surrogates take spatial size \(16, 16\)"),
        (grey(2, 16, 16), r"is \(2, 16, 16\), the store's surrogates take 1 channel"),
        (grey(1, 16, 16, 16), "the store's images have 2 spatial axes"),
        (np.full((16, 16), 9, np.uint8), r"shape \(16, 16\) is neither \(channel"),
        (
            np.full((1, 16, 16), 0.5, np.float32),
            r"the store's images are uint8.*Was it rescaled.*Place SALMProtectd right after",
        ),
        (np.linspace(-9, 99.5, 256, dtype=np.float32).reshape(1, 16, 16), "the store's images are uint8"),
        (np.full((1, 16, 16), 300, np.int16), "the store's images are uint8"),
        (np.full((1, 16, 16), np.nan, np.float32), "the store's images are uint8"),
    ],
)
def test_image_that_does_not_fit_the_store_is_an_error(image: np.ndarray, message: str, store_of: Any) -> None:
    store = store_of("em")
    with pytest.raises(DataError, match=f"case 'liver'.*{message}"):
        generate_noise(store, image, 0, "liver")
    assert len(store) == 8


def not_found_of(store: NoiseStore, image: Any, **item: Any) -> str:
    with pytest.raises(ImageNotFoundError) as caught:
        SALMProtectd("image", store)({"image": image, **item})
    return str(caught.value)


JOINING = 'If it is new, on_missing="generate" makes its noise (and needs its label)'
ANEW = "If it is new, run precompute() with it in the data set"


@pytest.mark.parametrize("name", METHOD_SETTINGS)
def test_error_for_an_image_that_is_not_there_says_how_a_new_one_joins(
    name: str, store_of: Any, new: dict[str, Any]
) -> None:
    store = store_of(name)
    assert not_found_of(store, new["image"]).endswith(JOINING)
    assert not_found_of(store, new["image"], name=new["name"]).endswith(JOINING)
    SALMProtectd("image", store, label_key="label", on_missing="generate")(new)  # and so it does


@pytest.mark.parametrize("shape", [(1, 16, 17), (2, 16, 16), (1, 16, 16, 16), (16,), ()])
def test_error_for_an_image_that_cannot_join_does_not_say_that_it_can(shape: tuple[int, ...], store_of: Any) -> None:
    """Those of ``test_image_that_does_not_fit_the_store_is_an_error``."""
    assert not_found_of(store_of("em"), np.full(shape, 9, np.uint8)).endswith(ANEW)


def test_error_for_an_image_that_is_not_new_does_not_speak_of_new_ones(store_of: Any, make_classification: Any) -> None:
    store, known = store_of("em"), make_classification(cases=8)[0]
    for image in (known["image"] + 1, known["image"][:, 1:], known["image"][:, ::-1]):
        assert "new" not in not_found_of(store, image, name=known["name"])
    drawn = RandFlip(prob=1.0, spatial_axis=0)(MetaTensor(torch.from_numpy(known["image"] + 1)))
    assert "new" not in not_found_of(store, drawn)
    with pytest.raises(ImageNotFoundError) as caught:
        SALMRestored("image", store)({"image": known["image"] + 1})
    assert "new" not in str(caught.value)


def test_error_says_how_a_new_image_of_another_shape_joins_where_views_allow_it(
    make_segmentation: Any, make_classification: Any, tmp_path: Path
) -> None:
    task = Segmentation(num_classes=2)
    patches = make_store(tmp_path / "a.db", make_segmentation(cases=2), TEXTURE, task, patch_size=(8, 16))
    assert not_found_of(patches, np.full((1, 9, 17), 9, np.uint8)).endswith(JOINING)
    assert not_found_of(patches, np.full((1, 9, 15), 9, np.uint8)).endswith(ANEW)
    cases = make_classification(cases=4)
    resized = make_store(tmp_path / "b.db", cases, EM(**QUICK), Classification(num_classes=2), view_size=(8, 8))
    assert not_found_of(resized, np.full((1, 13, 21), 9, np.uint8)).endswith(JOINING)
    assert not_found_of(resized, np.full((3, 13, 21), 9, np.uint8)).endswith(ANEW)


def test_image_changed_at_random_before_is_refused_or_the_store_would_fill_up(store_of: Any, new: Any) -> None:
    store = store_of("em")
    image = RandFlip(prob=1.0, spatial_axis=0)(MetaTensor(torch.from_numpy(new["image"])))
    with pytest.raises(DataError, match=r"was changed at random before: RandFlip\. Place SALMProtectd before"):
        SALMProtect(store, on_missing="generate")(image, 0)
    assert len(store) == 8


def test_image_smaller_than_the_patches_is_an_error(make_segmentation: Any, tmp_path: Path) -> None:
    cases = make_segmentation(cases=2)
    store = make_store(tmp_path / "a.db", cases, EM(**QUICK), Segmentation(num_classes=2), patch_size=(8, 16))
    small = make_segmentation((8, 15), cases=1)[0]
    with pytest.raises(DataError, match=r"smaller than the patches \(8, 16\).*pad its file"):
        generate_noise(store, small["image"], small["label"], "small")


def test_store_of_a_custom_factory_says_what_to_do(make_classification: Any, tmp_path: Path, new: Any) -> None:
    def factory(**arguments: Any) -> torch.nn.Module:
        return build_network("resnet10", width=0.05, **arguments)

    task = Classification(num_classes=2)
    store = make_store(tmp_path / "noise.db", make_classification(cases=4), EM(**QUICK), task, surrogate=factory)
    assert not_found_of(store, new["image"]).endswith(ANEW)
    with pytest.raises(NoiseStoreError, match=r"keeps no surrogates.*or with surrogates by name"):
        generate_noise(store, new["image"], new["label"], "new")


@pytest.mark.parametrize(
    "change",
    [
        {"method": {"name": "from the future"}},
        {"method": {"name": "em", "epsilon": 7}},
        {"method": {"name": "em", "power": 9}},
        {"method": {k: v for k, v in SALM().spec().items() if k != "mask_area"}},
        {"method": {**SALM().spec(), "perturbation": {"name": "class_texture"}}},
        {"method": None},
        {"window": [0, 255]},
        {"key": "no number"},
        {"task": {"kind": "poetry"}},
        {"view": {"kind": "full"}},
        {"recipe": {"lr": -1}},
        {"seed": "x"},
    ],
)
def test_store_that_does_not_say_how_it_was_made_is_an_error(
    change: dict[str, Any], store_of: Any, tmp_path: Path, new: Any
) -> None:
    meta = {**store_of("em").meta, **change}
    store = NoiseStore.create(tmp_path / "forged.db", meta)
    with pytest.raises(NoiseStoreError, match="does not say how its noise was made"):
        generate_noise(store, new["image"], new["label"], "new")


@pytest.mark.parametrize(
    "change", [{"width": 1e9}, {"width": 1e300}, {"name": "nobody"}, {"spatial_dims": 3}, {"extra": 1}, {"in_channels": "x"}]
)  # fmt: skip
def test_forged_surrogate_is_an_error_and_takes_no_memory(
    change: dict[str, Any], store_of: Any, tmp_path: Path, new: Any
) -> None:
    honest = store_of("em")
    store = NoiseStore.create(tmp_path / "forged.db", honest.meta)
    spec, weights = honest.networks()[0]
    store.add_network({**spec, **change}, weights)
    with pytest.raises(NoiseStoreError, match=r"keeps a surrogate that (cannot be rebuilt|takes .x. channels)"):
        generate_noise(store, new["image"], new["label"], "new")


def test_image_that_gets_no_noise_is_an_error_and_stays_out(
    store_of: Any, new: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(method: Method, job: Job, surrogates: Any) -> int:
        return 0

    monkeypatch.setattr("monai_salm.generate.new_images.run", nothing)
    store = store_of("em")
    with pytest.raises(NoiseStoreError, match="got no noise from the store's surrogates"):
        generate_noise(store, new["image"], new["label"], "new")
    assert len(store) == 8


def test_method_that_overshoots_is_held_to_the_budget(
    store_of: Any, new: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overshoot(method: Method, job: Job, surrogates: Any) -> int:
        job.workspace.codes(0)[0][...] = 100
        return 0

    monkeypatch.setattr("monai_salm.generate.new_images.run", overshoot)
    noise = generate_noise(store_of("em"), new["image"], new["label"], "new")
    require_within_budget(new["image"], noise.apply(new["image"]))


def test_every_method_is_tried_here() -> None:
    tried = {type(method) for method in METHOD_SETTINGS.values()}
    # Those for segmentation alone are tried in test_peers.py.
    assert tried | {InterSliceEM, RoiEM} == set(METHODS.values()), "add the new method to METHOD_SETTINGS"


@pytest.mark.parametrize("bare", [False, True])
def test_new_volume_of_a_medmnist_archive_has_the_window_of_the_others(tmp_path: Path, bare: bool) -> None:
    volumes = make_archive(tmp_path / "set.npz", (6, 6, 6))
    with np.load(volumes, allow_pickle=False) as file:
        arrays = {key: file[key] // 4 if key.endswith("images") else file[key] for key in file}
    np.savez_compressed(volumes, **arrays)
    data = open_layout(volumes)
    items = list(data.dataset())
    store = precompute(items[:4], tmp_path / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    new = {key: items[4][key] for key in (("image", "label") if bare else items[4])}
    protect = SALMProtectd("image", store, label_key="label", on_missing="generate")
    change = protect(new)["image"].astype(int) - new["image"]
    assert np.abs(change).max() == 8


def test_units_of_another_meaning_are_passed_by(tmp_path: Path, make_classification: Any) -> None:
    *known, new = [{**case, "units": "mm"} for case in make_classification(cases=9)]
    store = make_store(tmp_path / "mm.db", known, RandomNoise(), Classification(num_classes=2))
    protect = SALMProtectd("image", store, label_key="label", on_missing="generate")
    for item in (known[0], new):
        require_within_budget(item["image"], protect(item)["image"])
