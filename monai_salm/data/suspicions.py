"""Signs that a setting is wrong: the axes of an image, random transforms, the window's units, labels of one class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from monai_salm.learning.tasks import Task
from monai_salm.shared.arrays import Array
from monai_salm.shared.warn import warn

_FIRST = "use LoadImaged(..., ensure_channel_first=True) or EnsureChannelFirstd"
# Colours, with transparency; no image has so few voxels along an axis of space.
_COLOURS = 4
# No surrogate is needed for fewer voxels a side, so an axis of fewer may be one of channels.
_SIDE = 8
# A window that holds less than this share of an image is in the wrong units, or may be.
_DOUBTFUL = 0.5
_UNITS = "Is the window in the real units of the images, such as --window=-160,240 for CT? docs/epsilon.md has windows"


def wrong_axes(shape: Sequence[int], meta: Mapping[str, object] | None) -> str | None:
    """What is wrong with the axes of an image that should be ``(channel, *spatial)``, and what to do; None if nothing.

    MONAI's readers note the spatial shape in ``meta``, that of a ``MetaTensor``.
    """
    shape, meta = tuple(shape), meta or {}
    spatial = _spatial_shape(meta)
    axis = meta.get("original_channel_dim")  # NaN where it is not named, "no_channel" for none
    named = isinstance(axis, int | float | np.number) and math.isfinite(axis)
    if spatial == shape and not named:
        if not str(meta.get("filename_or_obj", "")).lower().endswith((".npy", ".npz")):
            return f"shape {shape} is its spatial shape, it has no channel axis; {_FIRST}"
        if shape[0] > _COLOURS:  # NumpyReader takes all axes for those of space
            return (
                f"shape {shape} is all that is known of its axes: name the one of channels, LoadImaged(..., "
                'reader="NumpyReader", channel_dim=0) for the first, or EnsureChannelFirstd(channel_dim="no_channel") if there is none'
            )
        return None
    if spatial == shape[:-1] != shape[1:]:
        return f"shape {shape} has the channel axis last; {_FIRST}"
    last = _last(shape, spatial) if len(shape) == 3 else ""
    return f"{last}; move that axis to the front (np.moveaxis(image, -1, 0), EnsureChannelFirstd)" if last else None


def warn_of_axes(shape: Sequence[int], meta: Mapping[str, object] | None) -> None:
    """Warn of axes of an image that are rarely meant so; what a reader noted in ``meta`` is believed."""
    shape = tuple(shape)
    spatial = _spatial_shape(meta)
    if len(shape) == 4 and (last := _last(shape, spatial)):
        warn(f"{last}. If so, move that axis to the front (np.moveaxis(image, -1, 0), EnsureChannelFirstd)")
    # A stack of slices, where a 2D image of as many channels would be as good.
    if len(shape) == 3 and spatial != shape[1:] and shape[0] >= 2 * _SIDE and 4 * shape[0] >= min(shape[1:]):
        warn(
            f"images of shape {shape} are taken for 2D images of {shape[0]} channels. If they are volumes, they lack "
            f"the channel axis, and should be {(1, *shape)}: {_FIRST}"
        )


def random_transform(dataset: object) -> str | None:
    """A random transform in the chain of a data set or of those it wraps, MONAI's or one named so; None if there is none."""
    waiting = [dataset]
    while waiting:
        part = waiting.pop()
        if part is not None:
            waiting += [getattr(part, "dataset", None), *getattr(part, "datasets", ())]
        for transform in _flatten(getattr(part, "transform", None)):
            from monai.transforms import Randomizable

            if isinstance(transform, Randomizable) or type(transform).__name__.startswith("Rand"):
                return type(transform).__name__
    return None


def _flatten(transform: object) -> Iterator[object]:
    if transform is None:
        return
    from monai.transforms import Compose, OneOf, RandomOrder, SomeOf

    # MONAI's Compose counts as Randomizable. Those that choose among their parts, or their order, are random with any parts.
    chooses = isinstance(transform, OneOf | RandomOrder | SomeOf)
    if chooses or not isinstance(transform, Compose):
        yield transform
    parts = getattr(transform, "transforms", None)  # torchvision's Compose has them as well
    for part in parts if isinstance(parts, list | tuple) else ():
        yield from _flatten(part)


def _last(shape: tuple[int, ...], spatial: tuple[int, ...] | None) -> str:
    """What tells that the channel axis is last; empty if nothing does."""
    if spatial == shape[1:] or shape[-1] > _COLOURS or shape[0] < _SIDE:
        return ""
    return (
        f"shape {shape} seems to have the channel axis last: as (channel, *spatial) it has {shape[0]} channels and "
        f"{shape[-1]} {'voxel' if shape[-1] == 1 else 'voxels'} along its last axis"
    )


def _spatial_shape(meta: Mapping[str, object] | None) -> tuple[int, ...] | None:
    found = (meta or {}).get("spatial_shape")
    return None if found is None else tuple(int(n) for n in np.asarray(found).reshape(-1))


class Suspicions:
    """Takes note of the cases of a data set, and warns of what all of them have in common and should not."""

    def __init__(self, task: Task) -> None:
        self.task, self.cases, self.narrow, self.labels = task, 0, 0, set[int]()
        self.least = (1.0, "")

    def note(self, name: str, label: Array, share: float) -> None:
        """Take note of a case: its label in the task's canonical form, and the share of its image inside its window."""
        self.cases += 1
        if len(self.labels) < 2:
            self.labels |= {int(label.min()), int(label.max())}
        self.narrow += share < _DOUBTFUL
        if share < self.least[0]:
            self.least = (share, name)

    def warn(self) -> None:
        """Warn of images that lie outside their windows, and of a single class. One image says too little of classes."""
        if self.narrow:
            more = f"{self.narrow} of {self.cases} images lie" if self.narrow > 1 else "1 image lies"
            warn(
                f"{more} for more than half outside the window; what lies outside gets no noise. The least is inside in case "
                f"{self.least[1]!r}: {self.least[0]:.0%}. {_UNITS}"
            )
        if self.cases < 2 or len(self.labels) != 1 or getattr(self.task, "multi_label", False):
            return
        (only,) = self.labels
        maps = self.task.kind == "segmentation"
        what = f"label maps hold class {only} alone" if maps else f"{self.cases} images have label {only}"
        warn(
            f"all {what}: with one class there is nothing to learn, and noise cannot stand for the class. Is "
            "label_key the right one? Protect all classes in one call"
        )
