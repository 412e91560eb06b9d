"""Read a data set once, refuse what cannot be protected before any work starts, and name the case."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from monai_salm.data.suspicions import Suspicions, random_transform, warn_of_axes, wrong_axes
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget, budget_of
from monai_salm.noise.digest import drawing_digest
from monai_salm.noise.kinds import Kind, as_kind, commonest_kind, kind_of
from monai_salm.noise.units import Units, units_given
from monai_salm.noise.window import WindowRule
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks
from monai_salm.shared.warn import DataWarning as DataWarning

# Noise on a smaller share of an image protects nothing.
_LEAST_INSIDE = 0.01
_LOADING_ONLY = "Give precompute() only the deterministic loading transforms; random ones go after SALMProtectd"


class DataError(ValueError):
    """A data set that cannot be protected as it is; the message names the case and what to do."""


class MapDataset(Protocol):
    """A map-style data set of dictionaries, as MONAI's and torch's."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class ScannedCase:
    """One checked case.

    Args:
        name: for messages.
        image: ``(channel, *spatial)`` in its stored type.
        label: in the task's canonical form.
        digest: content digest of the image.
        budget: what its noise keeps to.
        inside: share of the image, padding left out, that lies inside its window.
    """

    name: str
    image: Array
    label: Array
    digest: bytes
    budget: Budget
    inside: float = 1.0


def scan(
    dataset: MapDataset,
    task: Task,
    window: WindowRule,
    epsilon: float,
    image_key: str,
    label_key: str,
    skipped: dict[str, str] | None = None,
) -> Iterator[ScannedCase]:
    """Check every case and yield it; a repeated image with the same label is yielded once.

    Args:
        dataset: dictionaries with an image ``(channel, *spatial)`` and a label, under the two keys.
        task: checks the labels.
        window: chooses the window of each image.
        epsilon: budget, fraction of the window's width.
        image_key, label_key: the keys.
        skipped: takes up the cases that cannot be read or protected, by name, with the reason; None refuses them.

    Raises:
        DataError: naming the first case that cannot be protected.
        LabelError: naming the first case whose label is wrong.
    """
    _check_dataset(dataset)
    seen, labels = dict[bytes, tuple[bytes, str]](), dict[bytes, bytes]()
    suspicions, found = Suspicions(task), 0
    kind = commonest_kind(lambda index: image_or_none(dataset, index, image_key), len(dataset))
    for index in range(len(dataset)):
        try:
            item = dataset[index]
            case = _check_case(item, index, task, window, epsilon, image_key, label_key, kind)
            key = drawing_digest(case.label)
            known, other = seen.get(case.digest, (key, ""))
            if known != key:
                raise DataError(
                    f"cases {other!r} and {case.name!r} are the same image with different labels: one noise cannot serve "
                    "both. Remove one of them"
                )
        except (ValueError, OSError) as error:
            if skipped is None:
                raise
            names = getattr(dataset, "names", None)  # as ``layouts.CaseSequence`` has them
            skipped[str(index if names is None else names[index])] = str(error)
            continue
        if not found and len(dataset) > 1:
            warn_of_axes(case.image.shape, getattr(item[image_key], "meta", None))
        found += 1
        del item  # volumes are large: what is read next needs the room
        # A chain that is random now and then may pass one.
        if index in (0, len(dataset) // 2, len(dataset) - 1):
            _require_same(dataset, index, image_key, case)
        if case.digest not in seen:
            suspicions.note(case.name, case.label, case.inside)
            seen[case.digest] = labels.setdefault(key, key), case.name  # one object for all cases of a label
            yield case
        del case
    suspicions.warn()
    if not found and skipped:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"none of the {len(skipped)} cases can be protected. {name}: {reason}")


def _require_same(dataset: MapDataset, index: int, image_key: str, case: ScannedCase) -> None:
    """Refuse a case that gives another image when it is read once more."""
    again = as_kind(image_of(dataset[index], index, image_key)[1], kind_of(case.image))
    if drawing_digest(again) != case.digest:
        raise DataError(
            f"case {case.name!r} differs between two reads: the data set's chain is random. {_LOADING_ONLY}"
        )


def _check_dataset(dataset: object) -> None:
    """Refuse a loader, which gives batches, the path of a folder, an empty data set, or a random transform."""
    if isinstance(dataset, DataLoader):
        raise DataError("the data set is a DataLoader, which gives batches; give the Dataset that it loads from")
    if isinstance(dataset, str | os.PathLike):
        raise DataError(
            f"the data set is a path, {str(dataset)!r}; give monai_salm.open_layout(path).dataset('train'), or call "
            "`monai-salm generate`"
        )
    if not isinstance(dataset, Sized) or isinstance(dataset, IterableDataset):
        raise DataError(
            f"the data set is a {type(dataset).__name__}, which has no length or gives its cases in one order only; give "
            "one whose cases can be asked for by number (a list, monai.data.Dataset)"
        )
    if len(dataset) == 0:
        raise DataError("the data set is empty")
    if (name := random_transform(dataset)) is not None:
        raise DataError(
            f"the data set's chain has the random transform {name}: its images would never be found again. {_LOADING_ONLY}"
        )


def image_of(item: object, index: int, image_key: str) -> tuple[str, Array]:
    """Name and stored image of what a data set gave, in this machine's byte order; a DataError if it gave no such thing."""
    if not isinstance(item, Mapping):
        raise DataError(f"case {index}: the data set must give dictionaries, got {type(item).__name__}")
    if image_key not in item:
        raise DataError(f"case {index}: no key {image_key!r}; its keys are {sorted(map(str, item))}. Set image_key")
    image = item[image_key]
    meta = getattr(image, "meta", None) or {}
    # Its own name if it has one, else the file it was loaded from.
    name = str(item["name"] if "name" in item else meta.get("filename_or_obj") or index)
    if isinstance(image, torch.Tensor):
        if image.dtype == torch.bfloat16:
            raise DataError(f"case {name!r}: bfloat16 is no stored type; load the image as the file holds it")
        array = image.detach().cpu().as_subclass(torch.Tensor).numpy()
    else:
        array = np.asarray(image)
    # Files may hold the other byte order; from here on all bytes are this machine's.
    return name, array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_case(
    item: object,
    index: int,
    task: Task,
    window: WindowRule,
    epsilon: float,
    image_key: str,
    label_key: str,
    kind: Kind | None,
) -> ScannedCase:
    name, image = image_of(item, index, image_key)
    where = f"case {name!r}"
    assert isinstance(item, Mapping)
    if image.dtype.kind not in "biuf":
        hint = "; place LoadImaged first" if image.dtype.kind in "US" else ""
        raise DataError(f"{where}: the image must hold numbers, got dtype {image.dtype}{hint}")
    if image.ndim not in (3, 4):
        raise DataError(
            f"{where}: shape {image.shape} is neither (channel, height, width) nor (channel, x, y, z); "
            "use LoadImaged(..., ensure_channel_first=True)"
        )
    if (axes := wrong_axes(image.shape, getattr(item[image_key], "meta", None))) is not None:
        raise DataError(f"{where}: {axes}")
    if image.size == 0:
        raise DataError(f"{where}: the image is empty, shape {image.shape}")
    image = np.ascontiguousarray(image)
    if image.dtype.kind == "f" and not any(np.isfinite(image.reshape(-1)[part]).any() for part in blocks(image.size)):
        raise DataError(f"{where}: the image holds NaN or infinite values only")
    if kind is not None:
        image = np.ascontiguousarray(as_kind(image, kind))
        _require_kind(where, image, kind)
    units = units_given(item) or units_of(image, item[image_key])
    try:
        budget = budget_of(image, window, units, epsilon)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    inside, carries = budget.share_inside(image)
    if inside < _LEAST_INSIDE or not carries:
        raise DataError(
            f"{where}: {inside:.1%} of its voxels lie inside its window ({budget.window.low}, {budget.window.high}), values run from "
            f"{np.nanmin(image):g} to {np.nanmax(image):g}: it would stay as good as unprotected. Give the window in real units of "
            "the images, or percentiles of each image (--window percentile:0.5,99.5)"
        )
    if label_key not in item:
        raise DataError(f"{where}: no key {label_key!r}; its keys are {sorted(map(str, item))}. Set label_key")
    label = task.check_label(item[label_key], image.shape[1:], where)
    return ScannedCase(name, image, label, drawing_digest(image), budget, inside)


def units_of(image: Array, loaded: object) -> Units:
    """The meaning of the numbers of an image ``(channel, *spatial)``, by its values and the notes of MONAI's readers (``loaded``).

    A 2D image of whole numbers from 0 to 255 is a picture of 8 bits, in any type that a reader gives.
    """
    meta = getattr(loaded, "meta", None) or {}
    affine, spacing = meta.get("affine"), tuple[float, ...]()
    if affine is not None and image.ndim == 4 and np.shape(affine) == (4, 4):
        sides = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)
        spacing = tuple(float(side) for side in sides) if np.isfinite(sides).all() and sides.min() > 0 else ()
    modality = meta.get("00080060", {})  # PydicomReader notes DICOM's elements by their tags
    named = modality.get("Value", [""]) if isinstance(modality, Mapping) else [""]
    picture = image.ndim == 3 and image.dtype == np.uint8
    if image.ndim == 3 and image.dtype.kind == "f" and image.size:
        with np.errstate(invalid="ignore"):  # more than the zeros and ones of a mask
            picture = bool(image.min() >= 0 and 1 < image.max() <= 255 and np.array_equal(np.rint(image), image))
    return Units(spacing=spacing, modality=str(named[0]) if named else "", picture=picture)


def image_or_none(dataset: MapDataset, index: int, image_key: str) -> Array | None:
    """The image at an index; None for one that is refused later, with the reason."""
    with suppress(ValueError, OSError):
        image = image_of(dataset[index], index, image_key)[1]
        return image if image.dtype.kind in "biuf" and image.ndim in (3, 4) and image.size else None
    return None


def _require_kind(where: str, image: Array, kind: Kind) -> None:
    """Refuse an image of another kind than most."""
    axes, channels = kind_of(image)
    if axes != kind[0]:
        raise DataError(
            f"{where} has shape {image.shape}, most images have {kind[0]} spatial axes: 2D and 3D mixed. Keep images of one kind "
            "in a data set"
        )
    if channels != kind[1]:
        own, usual = (f"{count} channel{'s' if count > 1 else ''}" for count in (channels, kind[1]))
        raise DataError(
            f"{where} has {own}, most images have {usual}: all must have the same. Convert it (grey, RGB), or is it channel-last?"
        )
