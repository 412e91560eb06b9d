"""How unlearnable are the protected images? Train fresh networks on them and score those on clean images."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import monai
import torch

from monai_salm._version import __version__
from monai_salm.data.scan import MapDataset
from monai_salm.evaluation.collecting import collect_cells
from monai_salm.evaluation.constant_map import constant_score
from monai_salm.evaluation.controls import CONTROLS
from monai_salm.evaluation.cost import image_cost
from monai_salm.evaluation.detection import detect
from monai_salm.evaluation.journal import JournalError
from monai_salm.evaluation.predictions import PredictionFolder
from monai_salm.evaluation.protocol import AUGMENTATIONS, Protocol, victim_name
from monai_salm.evaluation.radiomics import radiomics_drift
from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.sets import (
    EvaluationError,
    ImageSet,
    check_pairs,
    check_test,
    measured,
    noise_size,
    pictures,
    read_set,
    set_digest,
)
from monai_salm.evaluation.training_sets import make_training_sets
from monai_salm.evaluation.utility import mean_utility
from monai_salm.evaluation.workers import WorkerError, default_jobs
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.window import WindowRule, window_rule
from monai_salm.report import UnlearnabilityReport
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore

__all__ = [
    "AUGMENTATIONS",
    "CONTROLS",
    "EvaluationError",
    "JournalError",
    "PredictionFolder",
    "Protocol",
    "UnlearnabilityReport",
    "WorkerError",
    "evaluate",
]


def evaluate(
    *,
    clean: MapDataset,
    protected: MapDataset,
    test: MapDataset,
    task: Task,
    window: WindowRule | Sequence[WindowRule] | None = None,
    protocol: Protocol | None = None,
    copies: Mapping[str, MapDataset] | None = None,
    patch_size: Sequence[int] | None = None,
    view_size: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = 1,
    resume: str | os.PathLike[str] | None = None,
    predictions: PredictionFolder | None = None,
    progress: Callable[[Progress], None] | None = None,
    surrogate: str | Sequence[str] | None = None,
    store: NoiseStore | None = None,
    test_digest: str | None = None,
    native_scale: float | None = None,
    native_unit: str = "",
    image_key: str = "image",
    label_key: str = "label",
    **settings: Any,
) -> UnlearnabilityReport:
    """Train victims from scratch on clean, control and protected images; score all on the same clean test set.

    Args:
        clean: original training set, dictionaries with an image ``(channel, *spatial)`` in stored units and a label.
        protected: the published copy of it, reloaded from disk, in the same order.
        test: clean images that are in neither.
        task: the learning problem.
        window: chooses the window of each image, as for ``precompute``; give what the noise was made with.
        protocol: victims, seeds, pipelines, countermeasures, fractions and how victims are trained.
        copies: further protected copies of the same cases by name, to compare with: another method's at the same epsilon, or one
            made with ``EM(mask=Random())``.
        patch_size: train on patches of this size (labels per voxel only).
        view_size: resize images to this size (labels per image only).
        device: ``"auto"``, ``"cpu"`` or ``"cuda:N"``.
        jobs: victims trained at once, in processes of their own that share the cores; None is one a core on the CPU, if memory
            allows, and one on a GPU.
        resume: a file that keeps finished victims; those that it holds already are not trained again.
        predictions: keeps each victim's predictions in MedMNIST's format (labels per image only).
        progress: told of every epoch.
        surrogate: architecture(s) that the noise was made against, which are marked in the report; the store's if not given.
        store: noise that was used, so that test images which it protected are refused.
        test_digest: what the test set's digest must be, as an earlier report has it under ``protocol["digests"]``: two
            evaluations can be compared only if they tested on the same images and labels.
        native_scale: native units (for example Hounsfield units) in one stored unit.
        native_unit: what the native unit is called.
        image_key: key of the image.
        label_key: key of the label.
        settings: fields of ``Protocol``, in place of those of ``protocol``.

    Returns:
        The report.

    Raises:
        EvaluationError: for sets that are empty, do not belong together, or share images with the test set.
        ValueError: for an unknown name, naming the known ones.
        LabelError: for a label that does not fit the task.
        JournalError: if ``resume`` is another evaluation's file.
        TrainingError: if victims could not be trained; the others are, and ``resume`` keeps them.
        WorkerError: if a process that trained a victim was killed.
    """
    start = time.monotonic()
    protocol = replace(protocol or Protocol(), **settings)
    _require_fitting(protocol, task, patch_size, predictions, jobs)
    rule = window_rule(window)
    sets = _read_sets(clean, protected, test, copies or {}, task, rule, image_key, label_key)
    budgets = _check_sets(sets, rule, protocol, store)
    _check_digest(sets["test"], test_digest)
    pair = (sets["clean"], sets["protected"])
    shown, common = measured(*pair)
    cost = image_cost(*shown, task, common, native_scale if shown[0] is pair[0] else None, native_unit)
    detection = detect(*shown, task, common)
    origin = _origin(store, surrogate)
    runner = Runner(
        sets=make_training_sets(sets, task, budgets, protocol.held_out, patch_size, view_size),
        protocol=protocol,
        device=resolve_device(device),
        copies=tuple(copies or {}),
        predictions=predictions,
    )
    fixed = {**_fixed_values(runner, sets), "window": rule.spec()}
    baselines = task.baselines(sets["test"].labels)
    jobs = default_jobs(runner) if jobs is None else jobs
    before = time.monotonic() - start
    cells, seconds = collect_cells(runner, fixed, jobs, resume, progress)
    return UnlearnabilityReport(
        metric=task.metric,
        chance=baselines["chance"],
        majority=baselines["majority"],
        constant=_constant(task, sets),
        guessing=runner.guessing,
        seconds=before + seconds,
        noise=noise_size(*pair),
        protocol={
            **protocol.spec(),
            **fixed,
            **origin,
            "pipelines": _pipelines(runner),
            "device": str(runner.device),
            "jobs": jobs,
            "threads": torch.get_num_threads(),
        },
        cells=[{**cell, "is_surrogate": cell["network"] in _names(origin["surrogate"])} for cell in cells],
        cost={**cost, "radiomics": radiomics_drift(*shown, common)},
        detection=detection,
        utility=mean_utility([cell["utility"] for cell in cells if cell["utility"]]) or {},
        not_evaluated=runner.schedule.left_out(),
        pictures=pictures(*shown),
        window=common.channels(1)[0],
    )


def _require_fitting(
    protocol: Protocol,
    task: Task,
    patch_size: Sequence[int] | None,
    predictions: PredictionFolder | None,
    jobs: int | None,
) -> None:
    """Refuse settings that do not fit the task, before any image is read."""
    protocol.architectures(task)
    if patch_size is not None and task.kind != "segmentation":
        raise ValueError(
            "patch_size trains on patches, whose answers would have to be joined to one answer per image; give view_size, "
            "which resizes the images"
        )
    if predictions is not None and task.kind == "segmentation":
        raise ValueError("predictions are written for labels per image only: leave predictions out")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")


def _read_sets(
    clean: MapDataset,
    protected: MapDataset,
    test: MapDataset,
    copies: Mapping[str, MapDataset],
    task: Task,
    window: WindowRule,
    image_key: str,
    label_key: str,
) -> dict[str, ImageSet]:
    taken = {"clean", "protected", "test", "clean_part", *CONTROLS}
    for name in copies:
        if name in taken:
            raise ValueError(f"a copy must not be called {name!r}, which has a meaning of its own")
    datasets = {"clean": clean, "protected": protected, **copies, "test": test}
    return {role: read_set(role, dataset, task, window, image_key, label_key) for role, dataset in datasets.items()}


def _check_sets(
    sets: Mapping[str, ImageSet], window: WindowRule, protocol: Protocol, store: NoiseStore | None
) -> list[Budget]:
    """Refuse sets that make no honest evaluation; returns what the noise of each training case keeps to."""
    training = [images for role, images in sets.items() if role != "test"]
    for images in training[1:]:
        check_pairs(sets["clean"], images, protocol.epsilon)
    check_test(sets["test"], training, store)
    clean, budgets = sets["clean"], []
    for image, units, name in zip(clean.images, clean.units, clean.names, strict=True):
        if not protocol.controls:
            break
        try:
            budgets.append(budget_of(image, window, units, protocol.epsilon))
        except ValueError as error:
            raise EvaluationError(
                f"the controls {', '.join(protocol.controls)} cannot be made of case {name!r}: {error}. Leave them out of controls, "
                "if it must be"
            ) from error
    return budgets


def _check_digest(test: ImageSet, expected: str | None) -> None:
    if expected is not None and set_digest(test) != expected:
        raise EvaluationError(
            f"the test set has the digest {set_digest(test)}, expected is {expected}: its images or labels are not the same, or "
            "stand in another order"
        )


def _origin(store: NoiseStore | None, surrogate: str | Sequence[str] | None) -> dict[str, Any]:
    """Where the noise came from, as far as it is known: surrogates, their seed, and whether it is one pattern a class."""
    meta = {} if store is None else store.meta
    method = meta.get("method") or {}
    texture = method.get("perturbation", {}).get("name") == "class_texture"
    pattern = method.get("perturb_type") == "classwise" or texture
    return {
        "surrogate": meta.get("surrogate") if surrogate is None else surrogate,
        "surrogate_seed": meta.get("seed"),
        "noise_kind": None if not method else ("class-wise" if pattern else "sample-wise"),
    }


def _constant(task: Task, sets: Mapping[str, ImageSet]) -> float | None:
    """For labels per voxel, what knowing positions by heart gives; else None."""
    if task.kind != "segmentation":
        return None
    return constant_score(task, sets["clean"].labels, sets["test"].labels)


def _pipelines(runner: Runner) -> dict[str, Any]:
    """The pipelines' settings and sources, and the epochs of each victim, by name."""
    given = {name: pipeline.spec() for name, pipeline in runner.schedule.pipelines.items()}
    for training in runner.schedule.trainings():
        given[training.pipeline].setdefault("epochs", {})[training.victim] = runner.setting(training).epochs
    return given


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _fixed_values(runner: Runner, sets: Mapping[str, ImageSet]) -> dict[str, Any]:
    """What must be the same for cells to be compared."""
    shared = ("epsilon", "augment", "learned", "patience", "held_out", "width", "resamples")
    first = sets["clean"].images[0]
    return {
        "task": runner.sets.task.spec(),
        "cases": {role: len(images) for role, images in sets.items()},
        "digests": {role: set_digest(images) for role, images in sets.items()},
        "image_shape": list(first.shape),
        "dtype": first.dtype.name,
        "view": asdict(runner.sets.view),
        **{name: getattr(runner.protocol, name) for name in shared},
        "trained": {
            name: {
                "network": victim_name(setting.network),
                "epochs": setting.epochs,
                "epoch_steps": setting.epoch_steps,
                "patience": setting.patience,
                "recipe": asdict(setting.recipe),
            }
            for name, setting in runner.settings.items()
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "monai": monai.__version__,
            "monai_salm": __version__,
        },
    }
