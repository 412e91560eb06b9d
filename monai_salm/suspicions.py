"""What a data set looks like when a setting is wrong: the axes of an image, the window's units, labels of one class.

Each image by itself may be as it is; that all of them are is what gives the mistake away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from monai_salm._warn import warn
from monai_salm.intensity import Array, IntensityWindow
from monai_salm.tasks import Task

_FIRST = "use LoadImaged(..., ensure_channel_first=True) or EnsureChannelFirstd"
# Colours, with transparency; no image has so few voxels along an axis of space.
_COLOURS = 4
# No surrogate is needed for fewer voxels a side, so an axis of fewer may be one of channels.
_SIDE = 8
# What to do about a window from 0 to 1, or -1 to 1.
_STORED = (
    "Give the window in stored units, such as IntensityWindow(0, 255) for 8 bits or IntensityWindow(-160, 240) for CT, not in "
    "those after scaling"
)
# Cases after which a wrong window is told of.
_EARLY = 16
# A window whose voxels are fewer than these shares of the data set is in the wrong units, or may be.
_WRONG, _DOUBTFUL = 0.05, 0.5


def wrong_axes(shape: Sequence[int], meta: Mapping[str, object] | None) -> str | None:
    """What is wrong with the axes of an image that should be ``(channel, *spatial)``, and what to do; None if nothing.

    Args:
        shape: of the image, three or four axes.
        meta: of a ``MetaTensor``; MONAI's readers note the spatial shape there.
    """
    shape, meta = tuple(shape), meta or {}
    spatial = _spatial_shape(meta)
    if spatial == shape and not _channel_is_named(meta):
        if not _is_array_file(meta):
            return f"shape {shape} is its spatial shape, it has no channel axis; {_FIRST}"
        if shape[0] > _COLOURS:  # NumpyReader takes all axes for those of space
            return (
                f"shape {shape} is all that is known of its axes: name the one of channels, LoadImaged(..., "
                'reader="NumpyReader", channel_dim=0) for the first, or EnsureChannelFirstd(channel_dim="no_channel") if there is none'
            )
        return None
    if spatial == shape[:-1] != shape[1:]:
        return f"shape {shape} has the channel axis last; {_FIRST}"
    if len(shape) == 3 and _seems_last(shape, spatial):
        return f"{_last(shape)}; move that axis to the front (np.moveaxis(image, -1, 0), EnsureChannelFirstd)"
    return None


def warn_of_axes(shape: Sequence[int], meta: Mapping[str, object] | None) -> None:
    """Warn of axes that are rarely meant so, though nothing is wrong with them for certain.

    Args:
        shape: of the image, three or four axes.
        meta: of a ``MetaTensor``; what a reader says is believed.
    """
    shape = tuple(shape)
    spatial = _spatial_shape(meta)
    if len(shape) == 4 and _seems_last(shape, spatial):
        warn(f"{_last(shape)}. If so, move that axis to the front (np.moveaxis(image, -1, 0), EnsureChannelFirstd)")
    # A stack of slices, where a 2D image of as many channels would be as good.
    if len(shape) == 3 and spatial != shape[1:] and shape[0] >= 2 * _SIDE and 4 * shape[0] >= min(shape[1:]):
        warn(
            f"images of shape {shape} are taken for 2D images of {shape[0]} channels. If they are volumes, they lack "
            f"the channel axis, and should be {(1, *shape)}: {_FIRST}"
        )


def _seems_last(shape: tuple[int, ...], spatial: tuple[int, ...] | None) -> bool:
    return spatial != shape[1:] and shape[-1] <= _COLOURS and shape[0] >= _SIDE


def _last(shape: tuple[int, ...]) -> str:
    return (
        f"shape {shape} seems to have the channel axis last: as (channel, *spatial) it has {shape[0]} channels and "
        f"{shape[-1]} {'voxel' if shape[-1] == 1 else 'voxels'} along its last axis"
    )


def _spatial_shape(meta: Mapping[str, object] | None) -> tuple[int, ...] | None:
    found = (meta or {}).get("spatial_shape")
    return None if found is None else tuple(int(n) for n in np.asarray(found).reshape(-1))


def _channel_is_named(meta: Mapping[str, object]) -> bool:
    """Whether somebody said which axis is that of channels; MONAI notes NaN where nobody did, "no_channel" for none."""
    axis = meta.get("original_channel_dim")
    return isinstance(axis, int | float | np.number) and math.isfinite(axis)


def _is_array_file(meta: Mapping[str, object]) -> bool:
    return str(meta.get("filename_or_obj", "")).lower().endswith((".npy", ".npz"))


class Suspicions:
    """Watches the cases of a data set go by, and says what they have in common that they should not.

    Args:
        task: the learning problem.
        window: the intensity window, stored units.
        epsilon: budget, fraction of the window's width.
    """

    def __init__(self, task: Task, window: IntensityWindow, epsilon: float) -> None:
        self.task, self.window, self.epsilon = task, window, epsilon
        self.cases, self.low, self.high = 0, math.inf, -math.inf
        self.inside, self.outside = 0, 0
        self.uint8 = True
        self.labels = set[int]()

    def watch(self, image: Array, label: Array) -> None:
        """Take note of a case.

        Args:
            image: ``(channel, *spatial)``, finite.
            label: in the task's canonical form.
        """
        self.cases += 1
        self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))
        self.uint8 &= image.dtype == np.uint8
        if len(self.labels) < 2:
            self.labels |= {int(label.min()), int(label.max())}
        if self.window.width <= 2:
            # Zero and the bounds are mostly empty background, and say nothing.
            low, high = self.window.low, self.window.high
            self.inside += int(np.count_nonzero((image > low) & (image < high) & (image != 0)))
            self.outside += int(np.count_nonzero(((image < low) | (image > high)) & (image != 0)))

    def verdict(self) -> str | None:
        """Why the data set must not be protected as it is, and what to do; None if nothing speaks against it.

        Warns of what may be meant. One image says too little: it may be blank, and it has but one label.
        """
        if self.cases < 2:
            return None
        wrong = self._wrong_units()
        if wrong is None:
            self._doubtful_units()
            self._window_of_8_bits()
            self._one_class()
        return wrong

    def warn_early(self) -> None:
        """Say after a few cases what the verdict would be: all have to be read, and that may take long."""
        if self.cases == _EARLY and (wrong := self._wrong_units()) is not None:
            warn(f"the first {_EARLY} cases: {wrong}. If the others are like them, this ends with an error")

    def _wrong_units(self) -> str | None:
        span, budget = self._span, self._budget
        # Images of one value each are blank, and their own affair.
        if 0 < span <= min(budget, self.window.width / 10):
            return (
                f"{self._values}: noise of up to {budget:.3g} would drown them. Give the window in the images' units; if "
                "they were rescaled while loading, take that out: noise is made for images as their files hold them"
            )
        if self._outside > 1 - _WRONG:
            return f"{self._values}: nearly all lie outside and would stay unprotected. {_STORED}"
        return None

    def _doubtful_units(self) -> None:
        if 0 < self._span <= min(2 * self._budget, self.window.width / 10):
            warn(
                f"{self._values}: noise of up to {self._budget:.3g} is seen, for it is not small beside all that they show. "
                "Give a window no wider than the images' values, or a smaller epsilon"
            )
        if self._outside > 1 - _DOUBTFUL:
            warn(f"{self._values}: {self._outside:.0%} lie outside and stay unprotected. {_STORED}")

    @property
    def _values(self) -> str:
        window = self.window
        return f"the images' values run from {self.low:g} to {self.high:g}, the window is {window.low:g} to {window.high:g}"

    @property
    def _span(self) -> float:
        return self.high - self.low

    @property
    def _budget(self) -> float:
        return self.epsilon * self.window.width

    @property
    def _outside(self) -> float:
        """Share of the voxels outside a window that is that of scaled images, where the images are not."""
        counted = self.inside + self.outside
        return self.outside / counted if counted and self._span > 50 * self.window.width else 0.0

    def _one_class(self) -> None:
        if len(self.labels) != 1 or getattr(self.task, "multi_label", False):
            return
        (only,) = self.labels
        what = "label maps hold class" if self.task.kind == "segmentation" else f"{self.cases} images have label"
        alone = " alone" if self.task.kind == "segmentation" else ""
        warn(
            f"all {what} {only}{alone}: with one class there is nothing to learn, and noise cannot stand for the class. Is "
            "label_key the right one? Protect all classes in one call"
        )

    def _window_of_8_bits(self) -> None:
        window = self.window
        if (window.low, window.high) == (0, 255) and not self.uint8 and (self.low < -64 or self.high > 1020):
            warn(
                f"the window 0 to 255 is that of 8-bit images, but values run from {self.low:g} to {self.high:g}: what lies "
                "outside gets no noise. For CT take the range that networks are trained on, such as "
                "IntensityWindow(-160, 240); docs/epsilon.md has windows for other modalities"
            )
