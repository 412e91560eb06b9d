"""How unlearnable are the protected images? Train fresh networks on them and score those on clean images."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import monai
import torch

from monai_salm._results import UnlearnabilityReport
from monai_salm.cases import Cases, choose_view
from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.evaluate.sets import (
    EvaluationError,
    ImageSet,
    check_pairs,
    check_test,
    noise_size,
    random_noise,
    read_set,
)
from monai_salm.evaluate.victims import (
    VICTIM_SEED,
    Epoch,
    Setting,
    choose_victims,
    default_epochs,
    guessing_score,
    train_victim,
)
from monai_salm.intensity import Array, IntensityWindow
from monai_salm.progress import Progress
from monai_salm.scan import MapDataset
from monai_salm.store import NoiseStore
from monai_salm.tasks import Task
from monai_salm.training import Recipe, default_recipe, resolve_device, standard_augmentation

logger = logging.getLogger(__name__)

AUGMENTATIONS = {"none": None, "standard": standard_augmentation}
#: Training sets that any protection must beat, made from the clean one: ``(images, window, epsilon, seed) -> images``.
CONTROLS = {"random_noise": random_noise}

_PICTURES = 4

__all__ = ["AUGMENTATIONS", "CONTROLS", "EvaluationError", "UnlearnabilityReport", "evaluate"]


@dataclass(frozen=True)
class _Plan:
    """One cell to be trained."""

    victim: str
    seed: int
    data: str
    countermeasure: str


def evaluate(
    *,
    clean: MapDataset,
    protected: MapDataset,
    test: MapDataset,
    task: Task,
    window: IntensityWindow,
    victims: Sequence[str] | None = None,
    countermeasures: Sequence[str] = ("none",),
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    augment: str = "none",
    width: float = 0.25,
    epsilon: float = 8 / 255,
    controls: Sequence[str] = ("random_noise",),
    patch_size: Sequence[int] | None = None,
    view_size: Sequence[int] | None = None,
    recipe: Recipe | None = None,
    device: str | torch.device = "auto",
    progress: Callable[[Progress], None] | None = None,
    surrogate: str | Sequence[str] | None = None,
    store: NoiseStore | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> UnlearnabilityReport:
    """Train victims from scratch on clean, randomly noisy and protected images; score all on the same clean test set.

    Args:
        clean: original training set, dictionaries with an image ``(channel, *spatial)`` in stored units and a label.
        protected: the published copy of it, reloaded from disk, in the same order.
        test: clean images that are in neither.
        task: the learning problem.
        window: the intensity window, stored units.
        victims: architectures; None is resnet18 and vgg11, or unet and segresnet for segmentation.
        countermeasures: names in ``COUNTERMEASURES``; applied to the clean and the protected training images.
        seeds: one victim is trained for each; never a seed that a surrogate started from.
        epochs: passes over the training set; None chooses.
        augment: ``"none"`` or ``"standard"`` (flips and shifts).
        width: channels of the victims, as a share of the published architectures'.
        epsilon: budget of the noise, as a fraction of the window; random noise gets the same.
        controls: names in ``CONTROLS``, trained on without countermeasures.
        patch_size: train on patches of this size (labels per voxel only).
        view_size: resize images to this size (labels per image only).
        recipe: how to train; None chooses by task and rank.
        device: ``"auto"``, ``"cpu"`` or ``"cuda:N"``.
        progress: told of every epoch.
        surrogate: architecture(s) that the noise was made against, for the report.
        store: noise that was used, so that test images which it protected are refused.
        image_key: key of the image.
        label_key: key of the label.

    Returns:
        The report.

    Raises:
        EvaluationError: for sets that are empty, do not belong together, or share images with the test set.
        ValueError: for an unknown name, naming the known ones.
        LabelError: for a label that does not fit the task.
    """
    start = time.monotonic()
    victims = choose_victims(victims, task)
    for what, names, known in (("countermeasure", countermeasures, COUNTERMEASURES), ("control", controls, CONTROLS)):
        _require_known(what, names, known)
    _require_known("augment", [augment], AUGMENTATIONS)
    if not victims or not seeds or not countermeasures or (epochs is not None and epochs < 1):
        raise ValueError("give at least one victim, one seed, one countermeasure and one epoch")
    if patch_size is not None and task.kind != "segmentation":
        raise ValueError(
            "patch_size trains on patches, whose answers would have to be joined to one answer per image; give view_size, "
            "which resizes the images"
        )
    sets = {
        role: read_set(role, dataset, task, image_key, label_key)
        for role, dataset in (("clean", clean), ("protected", protected), ("test", test))
    }
    check_pairs(sets["clean"], sets["protected"], window, epsilon)
    check_test(sets["test"], [sets["clean"], sets["protected"]], store)

    train, testing = _cases(sets["clean"], sets["test"], task, window, patch_size, view_size)
    recipe = recipe or default_recipe(task, train.spatial_dims)
    setting = Setting(
        recipe=recipe,
        epochs=epochs or default_epochs(train, recipe, augment),
        width=width,
        device=resolve_device(device),
        augment=AUGMENTATIONS[augment],
    )
    plans = [
        _Plan(victim, seed, data, countermeasure)
        for countermeasure in dict.fromkeys(countermeasures)
        for data in ("clean", *(controls if countermeasure == "none" else ()), "protected")
        for victim in dict.fromkeys(victims)
        for seed in dict.fromkeys(seeds)
    ]
    trained = list(_train_all(plans, sets, train, testing, setting, epsilon, progress))
    guessing = guessing_score(sets["clean"].labels)
    baselines = task.baselines(sets["test"].labels)
    return UnlearnabilityReport(
        metric=task.metric,
        chance=baselines["chance"],
        majority=baselines["majority"],
        guessing=guessing,
        seconds=time.monotonic() - start,
        noise=noise_size(sets["clean"], sets["protected"], window),
        protocol={
            "task": task.spec(),
            "window": [window.low, window.high],
            "epsilon": epsilon,
            "cases": {role: len(images) for role, images in sets.items()},
            "image_shape": list(train.images[0].shape),
            "dtype": train.images[0].dtype.name,
            "view": asdict(train.view),
            "surrogate": surrogate,
            "augment": augment,
            **_setting_values(setting),
        },
        cells=[_cell(plan, curve, task.metric, augment) for plan, curve in trained],
        pictures=_pictures(sets["clean"], sets["protected"]),
        window=(window.low, window.high),
    )


def _require_known(what: str, names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def _cases(
    clean: ImageSet,
    test: ImageSet,
    task: Task,
    window: IntensityWindow,
    patch_size: Sequence[int] | None,
    view_size: Sequence[int] | None,
) -> tuple[Cases, Cases]:
    """Both sets as networks see them: one view, which test images must fit as well."""
    shapes = [image.shape[1:] for image in (*clean.images, *test.images)]
    view = choose_view(shapes, task.kind == "segmentation", patch_size, view_size)
    return tuple(Cases(s.images, s.labels, s.names, task, window, view) for s in (clean, test))  # type: ignore[return-value]


def _train_all(
    plans: Sequence[_Plan],
    sets: dict[str, ImageSet],
    train: Cases,
    test: Cases,
    setting: Setting,
    epsilon: float,
    progress: Callable[[Progress], None] | None,
) -> Iterator[tuple[_Plan, list[Epoch]]]:
    """Train cell after cell; images of one kind of data are prepared once and dropped when the next kind comes."""
    done, total = 0, len(plans) * setting.epochs
    prepared: tuple[tuple[str, str], list[Array]] | None = None
    for plan in plans:
        key = (plan.data, plan.countermeasure)
        if prepared is None or prepared[0] != key:
            control = CONTROLS.get(plan.data)
            images = control(train.images, train.window, epsilon, VICTIM_SEED) if control else sets[plan.data].images
            prepared = key, COUNTERMEASURES[plan.countermeasure].prepare(images, train.window)

        def report(epoch: Epoch, plan: _Plan = plan) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                score = f"{train.task.metric} {epoch.scores[train.task.metric]:.3f}"
                progress(Progress("evaluate", done, total, f"{plan.victim} seed {plan.seed}, {plan.data}, {score}"))

        cases = replace(train, images=prepared[1])
        yield plan, train_victim(plan.victim, plan.seed, cases, test, setting, report)


def _cell(plan: _Plan, epochs: Sequence[Epoch], metric: str, augment: str) -> dict[str, Any]:
    curve = [epoch.scores[metric] for epoch in epochs]
    return {
        **asdict(plan),
        "augment": augment,
        "fraction": 1.0,
        "metric": metric,
        "last": curve[-1],
        "peak": max(curve),
        "train_score": epochs[-1].train_score,
        "scores": epochs[-1].scores,
        "curve": curve,
        "train_curve": [epoch.train_score for epoch in epochs],
    }


def _setting_values(setting: Setting) -> dict[str, Any]:
    return {
        "epochs": setting.epochs,
        "width": setting.width,
        "recipe": asdict(setting.recipe),
        "device": str(setting.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
    }


def _pictures(clean: ImageSet, protected: ImageSet) -> list[tuple[str, Array, Array]]:
    """Name, clean and protected image of a few cases, of different labels where labels are per image."""
    chosen: dict[object, int] = {}
    for index, label in enumerate(clean.labels):
        chosen.setdefault(label.tobytes() if label.ndim < 2 else index, index)
        if len(chosen) == _PICTURES:
            break
    return [(clean.names[i], clean.images[i], protected.images[i]) for i in chosen.values()]
