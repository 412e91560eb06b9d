"""One evaluation from data sets to report."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import monai
import torch

from monai_salm._version import __version__
from monai_salm.data.scan import MapDataset
from monai_salm.evaluation.constant_map import constant_score
from monai_salm.evaluation.cost import image_cost, radiomics_drift
from monai_salm.evaluation.detection import detect
from monai_salm.evaluation.journal import collect_cells
from monai_salm.evaluation.protocol import Protocol, victim_name
from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.sets import (
    EvaluationError,
    Sets,
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
from monai_salm.evaluation.workers import default_jobs
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.window import WindowRule, window_rule
from monai_salm.report import UnlearnabilityReport
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore

# Settings that cells of one journal share.
_SHARED = ("epsilon", "augment", "learned", "patience", "held_out", "width", "resamples")


def evaluate(
    clean: MapDataset,
    protected: MapDataset,
    test: MapDataset,
    task: Task,
    *,
    protocol: Protocol | None = None,
    store: NoiseStore | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> UnlearnabilityReport:
    """Train victims from scratch on clean, control and protected images; score all on the same clean test set.

    Args:
        clean: original training set, dictionaries with an image ``(channel, *spatial)`` in stored units and a label.
        protected: the published copy of it, reloaded from disk, in the same order.
        test: clean images that are in neither.
        task: the learning problem.
        protocol: all settings; None for the defaults.
        store: the noise that was used: it names the surrogates, and test images that carry its noise are refused.
        progress: called after every epoch.
        settings: fields of ``Protocol``, in place of those of ``protocol``.

    Returns:
        The report.

    Raises:
        EvaluationError: for sets that are empty, do not belong together, or share images with the test set.
        ValueError: for an unknown name, naming the known ones.
        LabelError: for a label that does not fit the task.
        JournalError: if ``resume`` is another evaluation's file.
        TrainingError, WorkerError: if victims could not be trained; the others are, and ``resume`` keeps them.
    """
    start = time.monotonic()
    protocol = replace(protocol or Protocol(), **settings)
    protocol.check_task(task)
    rule = window_rule(protocol.window)
    datasets = {"clean": clean, "protected": protected, **(protocol.copies or {}), "test": test}
    sets = {role: read_set(role, data, task, rule, protocol) for role, data in datasets.items()}
    budgets = _check_sets(sets, rule, protocol, store)
    values = _measure(sets, task, protocol)
    runner = Runner(make_training_sets(sets, task, budgets, protocol), replace(protocol, copies=None))
    jobs = default_jobs(runner) if protocol.jobs is None else protocol.jobs
    fixed, origin = {**_fixed_values(runner, sets), "window": rule.spec()}, _origin(store, protocol.surrogate)
    before = time.monotonic() - start
    cells, seconds = collect_cells(runner, fixed, jobs, protocol.resume, progress)
    surrogates = [origin["surrogate"]] if isinstance(origin["surrogate"], str) else origin["surrogate"] or ()
    machine = {"device": str(runner.device), "jobs": jobs, "threads": torch.get_num_threads()}
    return UnlearnabilityReport(
        metric=task.metric,
        guessing=runner.guessing,
        seconds=before + seconds,
        protocol={**protocol.spec(), **fixed, **origin, "pipelines": _pipelines(runner), **machine},
        cells=[{**cell, "is_surrogate": cell["network"] in surrogates} for cell in cells],
        utility=mean_utility([cell["utility"] for cell in cells if cell["utility"]]) or {},
        not_evaluated=runner.schedule.left_out(),
        **values,
    )


def _check_sets(sets: Sets, rule: WindowRule, protocol: Protocol, store: NoiseStore | None) -> list[Budget]:
    """Refuse sets that make no honest evaluation; gives the noise budget of each training case."""
    clean, test = sets["clean"], sets["test"]
    training = [images for role, images in sets.items() if role != "test"]
    for images in training[1:]:
        check_pairs(clean, images, protocol.epsilon)
    check_test(test, training, store)
    if protocol.test_digest not in (None, digest := set_digest(test)):
        raise EvaluationError(
            f"the test set has the digest {digest}, expected is {protocol.test_digest}: its images or labels are not the same, "
            "or stand in another order"
        )
    budgets = []
    for image, units, name in zip(clean.images, clean.units, clean.names, strict=True) if protocol.controls else ():
        try:
            budgets.append(budget_of(image, rule, units, protocol.epsilon))
        except ValueError as error:
            raise EvaluationError(
                f"the controls {', '.join(protocol.controls)} cannot be made of case {name!r}: {error}. Leave out the case, or "
                "the controls"
            ) from error
    return budgets


def _measure(sets: Sets, task: Task, protocol: Protocol) -> dict[str, Any]:
    """The parts of a report that are about the images, before any victim is trained."""
    clean, test = sets["clean"], sets["test"]
    pair, window = measured(clean, sets["protected"])
    scale = protocol.native_scale if pair[0] is clean else None
    return {
        **task.baselines(test.labels),
        "constant": constant_score(task, clean.labels, test.labels) if task.kind == "segmentation" else None,
        "noise": noise_size(clean, sets["protected"]),
        "cost": {
            **image_cost(*pair, task, window, scale, protocol.native_unit),
            "radiomics": radiomics_drift(*pair, window),
        },
        "detection": detect(*pair, task, window),
        "pictures": pictures(*pair),
        "window": window.channels(1)[0],
    }


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


def _pipelines(runner: Runner) -> dict[str, Any]:
    """Settings and source of each pipeline, and the epochs of each victim, by name."""
    given = {name: pipeline.spec() for name, pipeline in runner.schedule.pipelines.items()}
    for training in runner.schedule.trainings():
        given[training.pipeline].setdefault("epochs", {})[training.victim] = runner.setting(training).epochs
    return given


def _fixed_values(runner: Runner, sets: Sets) -> dict[str, Any]:
    """The values that cells must share to be compared."""
    first, trained = sets["clean"].images[0], {}
    for name, setting in runner.settings.items():
        steps = {field: getattr(setting, field) for field in ("epochs", "epoch_steps", "patience")}
        trained[name] = {"network": victim_name(setting.network), **steps, "recipe": asdict(setting.recipe)}
    versions = {"torch": torch.__version__, "monai": monai.__version__, "monai_salm": __version__}
    return {
        "task": runner.task.spec(),
        "cases": {role: len(images) for role, images in sets.items()},
        "digests": {role: set_digest(images) for role, images in sets.items()},
        "image_shape": list(first.shape),
        "dtype": first.dtype.name,
        "view": asdict(runner.sets.clean.view),
        **{name: getattr(runner.protocol, name) for name in _SHARED},
        "trained": trained,
        "versions": {"python": platform.python_version(), **versions},
    }
