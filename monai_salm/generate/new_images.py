"""Noise for an image that the store does not know, against the surrogates kept in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_salm.data.scan import DataError, scan
from monai_salm.jobs.workspace import Workspace
from monai_salm.learning.cases import Cases, View
from monai_salm.learning.networks import build_network
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Task, task_from_spec
from monai_salm.methods import Method, method_from_spec
from monai_salm.methods.job import Job
from monai_salm.methods.loop import run
from monai_salm.noise.digest import content_digest
from monai_salm.noise.noise import Noise, NoiseStoreError, exact_cast
from monai_salm.noise.units import Units
from monai_salm.noise.window import WindowRule, rule_from_spec
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import temporary_folder
from monai_salm.store.lookup import Lookup, refuse_protected
from monai_salm.store.store import NoiseStore


@dataclass(frozen=True)
class _Settings:
    """How the noise of a store was made, from its description."""

    method: Method
    task: Task
    window: WindowRule
    view: View
    recipe: Recipe
    seed: int
    key: bytes
    plain_class: int | None

    @classmethod
    def of(cls, store: NoiseStore) -> _Settings:
        meta = store.meta
        try:
            return cls(
                method=method_from_spec(meta["method"]),
                task=task_from_spec(meta["task"]),
                window=rule_from_spec(meta["window"]),
                view=View(str(meta["view"]["kind"]), tuple(int(n) for n in meta["view"]["size"])),
                recipe=Recipe(**meta["recipe"]),
                seed=int(meta["seed"]),
                key=bytes.fromhex(meta["key"]),
                plain_class=meta["plain_class"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise NoiseStoreError(
                f"{store.path} does not say how its noise was made ({error!r}), so no image can join it. Use the version of "
                "monai_salm that made it, or precompute() again with all images"
            ) from error


def generate_noise(
    store: NoiseStore,
    image: Array,
    label: object,
    name: str,
    *,
    units: Units | None = None,
    device: str | torch.device = "cpu",
) -> Noise:
    """Protect an image that the store does not know, as its other images were, and keep the noise.

    Every kept surrogate takes one round of noise steps, from what noise begins as, with the store's method and settings; networks
    are not trained. A class-wise method makes noise for the image alone. The same store and image give the same noise,
    so workers that meet the same image at once agree.

    Args:
        store: made by ``precompute`` with named surrogates; written to.
        image: the original ``(channel, *spatial)``, stored units. If its type is none of the store's, its values must
            fit one of them exactly (a uint8 file loaded as float32).
        label: as in the data set that the store was made of.
        name: the case, for messages.
        units: what its numbers mean; None tells it by the values.
        device: where to compute.

    Returns:
        The noise as it is in the store now.

    Raises:
        DataError, LabelError: if the image or its label do not fit the store.
        NoiseStoreError: if the image is protected already, or the store cannot make or take noise.
    """
    digest = content_digest(image)
    known = store.get(digest, image.shape)
    if known is not None:
        return known
    refuse_protected(Lookup(store, image, name))
    settings = _Settings.of(store)
    surrogates, channels = _surrogates(store, settings)
    image = _on_grid_of(store, image, name)
    item = {"image": image, "label": label, "name": name, "units": _as_others(store, image, units)}
    with temporary_folder() as folder:
        workspace = Workspace(folder / "work")
        cases = _take_in(workspace, item, settings)
        _require_fit(cases, settings.view, channels)
        job = Job(
            cases=cases,
            workspace=workspace,
            recipe=settings.recipe,
            device=resolve_device(device),
            seed=settings.seed,
            key=settings.key,
            plain_class=settings.plain_class,
        )
        noise = _finished(job, run(settings.method, job, surrogates))
    store.add([noise])
    return store[digest]


def _as_others(store: NoiseStore, image: Array, units: Units | None) -> Units | None:
    """Volumes of 8 bits have the window 0 to 255 where the store's have, which are of a MedMNIST archive."""
    some = list(islice(store, 8)) if image.ndim == 4 and image.dtype == np.uint8 else []
    whole = all(n.dtype == "uint8" and set(n.window.channels(len(image))) == {(0, 255)} for n in some)
    return replace(units or Units(), picture=True) if some and whole else units


def _take_in(workspace: Workspace, item: Mapping[str, Any], settings: _Settings) -> Cases:
    task, window = settings.task, settings.window
    workspace.take_in(scan([item], task, window, settings.method.epsilon, "image", "label"))
    return replace(workspace.cases(task, None, None), view=settings.view, kept=None)


def _finished(job: Job, buffer: int) -> Noise:
    """The budget, window and type are enforced here for every method; noise that changes nothing is refused."""
    image, budget, name = np.asarray(job.cases.images[0]), job.workspace.budgets[0], job.cases.names[0]
    codes = budget.effective_codes(image, job.workspace.codes(buffer)[0])
    noise = Noise.of(image.copy(), codes, budget, name)
    if noise.protected == noise.digest:
        raise NoiseStoreError(
            f"case {name!r} got no noise from the store's surrogates: their gradients or the method's steps vanish on its "
            f"{budget.grid.dtype} grid. Run precompute() with this image in the data set"
        )
    return noise


def _surrogates(store: NoiseStore, settings: _Settings) -> tuple[list[nn.Module], int | None]:
    """The kept networks, and the channels they take; none for methods that need none."""
    if settings.method.loop() is None:
        return [], None
    kept = store.networks()
    if not kept:
        raise NoiseStoreError(
            f"{store.path} keeps no surrogates (they came from a function of yours), so no image can join it. Run precompute() "
            "with this image in the data set, or with surrogates by name"
        )
    channels = kept[0][0].get("in_channels")
    if type(channels) is not int or channels < 1:
        raise NoiseStoreError(
            f"{store.path} keeps a surrogate that takes {channels!r} channels; use the store from a backup"
        )
    return [_rebuild(store, spec, weights) for spec, weights in kept], channels


def _rebuild(store: NoiseStore, spec: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> nn.Module:
    try:
        # On the meta device a network takes no memory and draws no random numbers.
        with torch.device("meta"):
            network = build_network(**spec)
        network.load_state_dict(weights, assign=True)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        raise NoiseStoreError(f"{store.path} keeps a surrogate that cannot be rebuilt: {str(error)[:500]}") from error
    return network


def _on_grid_of(store: NoiseStore, image: Array, name: str) -> Array:
    """The image in a stored type of the store: noise lives on the grid of the files."""
    known = store.dtypes()
    if not known or image.dtype.name in known:
        return image
    for dtype in known:
        stored = exact_cast(image, dtype)
        if stored is not None:
            return stored
    raise DataError(
        f"case {name!r}: the store's images are {' or '.join(known)}, this one has {image.dtype} values that they cannot hold, "
        f"from {image.min()} to {image.max()}. Was it rescaled or resampled? Place SALMProtectd right after LoadImaged"
    )


def _require_fit(cases: Cases, view: View, channels: int | None) -> None:
    shape, where = cases.images[0].shape, f"case {cases.names[0]!r} is {cases.images[0].shape}"
    if channels is not None and shape[0] != channels:
        raise DataError(f"{where}, the store's surrogates take {channels} channel(s)")
    if len(shape) - 1 != len(view.size):
        raise DataError(f"{where}, the store's images have {len(view.size)} spatial axes")
    if view.kind == "full" and shape[1:] != view.size:
        raise DataError(f"{where}, the store's surrogates take spatial size {view.size}: bring its file to that size")
    if view.kind == "patch" and any(n < p for n, p in zip(shape[1:], view.size, strict=True)):
        raise DataError(f"{where}, smaller than the patches {view.size} that the store's surrogates take: pad its file")
