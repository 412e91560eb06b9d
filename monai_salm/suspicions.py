"""What a data set looks like when a setting is wrong: the axes of an image, the window's units, labels of one class.

Each image by itself may be as it is; that all of them are is what gives the mistake away.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from monai_salm.intensity import Array, IntensityWindow
from monai_salm.tasks import Task

_FIRST = "use LoadImaged(..., ensure_channel_first=True) or EnsureChannelFirstd"
# Colours, with transparency; no image has so few voxels along an axis of space.
_COLOURS = 4
# No surrogate is needed for fewer voxels a side, so an axis of fewer may be one of channels.
_SIDE = 8


def wrong_axes(shape: Sequence[int], meta: Mapping[str, object] | None) -> str | None:
    """What is wrong with the axes of an image that should be ``(channel, *spatial)``, and what to do; None if nothing.

    Args:
        shape: of the image, three or four axes.
        meta: of a ``MetaTensor``; MONAI's readers note the spatial shape there.
    """
    shape = tuple(shape)
    spatial = _spatial_shape(meta)
    if spatial == shape:
        return f"shape {shape} is its spatial shape, it has no channel axis; {_FIRST}"
    if spatial == shape[:-1] != shape[1:]:
        return f"shape {shape} has the channel axis last; {_FIRST}"
    if spatial != shape[1:] and shape[-1] <= _COLOURS and shape[0] >= _SIDE:
        return (
            f"shape {shape} seems to have the channel axis last: as (channel, *spatial) it has {shape[0]} channels and "
            f"{shape[-1]} voxels along its last axis; move that axis to the front (np.moveaxis(image, -1, 0), "
            "EnsureChannelFirstd), or pad it to more than 4 if it is one of space"
        )
    return None


def _spatial_shape(meta: Mapping[str, object] | None) -> tuple[int, ...] | None:
    found = (meta or {}).get("spatial_shape")
    return None if found is None else tuple(int(n) for n in np.asarray(found).reshape(-1))


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
            self.labels.update(np.unique(label).astype(int).tolist())
        if self.cases == 1:
            self._volume_without_channel(image.shape)

    def verdict(self) -> str | None:
        """Why the data set must not be protected as it is, and what to do; None if nothing speaks against it.

        One image says too little: it may be blank, and it has but one label.
        """
        if self.cases < 2:
            return None
        self._window_of_8_bits()
        return self._wrong_units() or self._one_class()

    def _wrong_units(self) -> str | None:
        window, span = self.window, self.high - self.low
        values = f"the images' values run from {self.low:g} to {self.high:g}, the window is {window.low:g} to {window.high:g}"
        budget = self.epsilon * window.width
        # Images of one value each are blank, and their own affair.
        if 0 < span <= min(2 * budget, window.width / 10):
            return (
                f"{values}: noise of up to {budget:.3g} would drown them. Give the window in the images' units; if they "
                "were rescaled while loading, take that out: noise is made for images as their files hold them"
            )
        if window.width <= 2 and span > 50 * window.width:
            return (
                f"{values}: nearly all lie outside and would stay unprotected. Give the window in stored units, such as "
                "IntensityWindow(0, 255) for 8 bits or IntensityWindow(-160, 240) for CT, not in those after scaling"
            )
        return None

    def _one_class(self) -> str | None:
        if len(self.labels) != 1:
            return None
        if self.task.kind == "segmentation":
            return (
                f"all label maps hold class {min(self.labels)} alone: there is nothing to learn, and nothing to protect"
            )
        if getattr(self.task, "multi_label", False):
            return None
        return (
            f"all {self.cases} images have label {min(self.labels)}: with one class there is nothing to learn, and noise cannot "
            "stand for the class. Is label_key the right one? Protect all classes in one call"
        )

    def _window_of_8_bits(self) -> None:
        window = self.window
        if (window.low, window.high) == (0, 255) and not self.uint8 and (self.low < -64 or self.high > 1020):
            warnings.warn(
                f"the window 0 to 255 is that of 8-bit images, but values run from {self.low:g} to {self.high:g}: what lies "
                "outside gets no noise. For CT take the range that networks are trained on, such as "
                "IntensityWindow(-160, 240); docs/epsilon.md has windows for other modalities",
                stacklevel=2,
            )

    @staticmethod
    def _volume_without_channel(shape: tuple[int, ...]) -> None:
        # A stack of slices, where a 2D image of as many channels would be as good.
        if len(shape) == 3 and shape[0] >= 2 * _SIDE and 4 * shape[0] >= min(shape[1:]):
            warnings.warn(
                f"images of shape {shape} are taken for 2D images of {shape[0]} channels. If they are volumes, they lack "
                f"the channel axis, and should be {(1, *shape)}: {_FIRST}",
                stacklevel=2,
            )
