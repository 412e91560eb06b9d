"""Images and labels as inputs of networks: whole, resized, or cut into patches."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.learning.tasks import Task
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array, rows_of

Slices: TypeAlias = tuple[slice, ...]

# Larger images are resized (classification) or cut into patches (segmentation), so that a network's memory is bounded.
_WHOLE_SIDE = {2: 224, 3: 64}
# Elements along a side that networks see at least, where images have as many.
_LEAST_SIDE = 8


@dataclass(frozen=True)
class View:
    """How a network sees a case.

    Args:
        kind: ``"full"``, ``"resize"`` or ``"patch"``.
        size: spatial size of the input; for ``"full"`` the images' own.
    """

    kind: str
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("full", "resize", "patch"):
            raise ValueError(f"view kind must be full, resize or patch, got {self.kind!r}")

    def resize(self, images: torch.Tensor) -> torch.Tensor:
        """Resize ``(batch, channel, *spatial)`` to the view's size, differentiably; only for ``"resize"``.

        Shrinking averages, so that all voxels have gradients, and so noise.
        """
        if self.kind != "resize" or tuple(images.shape[2:]) == self.size:
            return images
        if len(self.size) == 2:
            return F.interpolate(images, self.size, mode="bilinear", align_corners=False, antialias=True)
        # torch has no antialiasing for volumes: shrinking sides are averaged first, then growing ones interpolated.
        shrunk = tuple(min(n, size) for n, size in zip(images.shape[2:], self.size, strict=True))
        images = F.interpolate(images, shrunk, mode="area")
        return images if shrunk == self.size else F.interpolate(images, self.size, mode="trilinear")

    def averages(self, shape: Sequence[int]) -> bool:
        """Whether volumes of this spatial shape are resized by averaging alone, each element of the view over elements of its own."""
        return self.kind == "resize" and len(self.size) == 3 and all(map(operator.ge, shape, self.size))

    def random_region(self, shape: Sequence[int], generator: torch.Generator) -> Slices:
        """A random patch of an image of this spatial shape; the whole image unless the view cuts patches."""
        if self.kind != "patch":
            return tuple(slice(0, n) for n in shape)
        starts = [int(torch.randint(n - p + 1, (), generator=generator)) for n, p in zip(shape, self.size, strict=True)]
        return tuple(slice(s, s + p) for s, p in zip(starts, self.size, strict=True))

    def tiles(self, shape: Sequence[int]) -> list[Slices]:
        """Patches that cover every voxel of an image."""
        if self.kind != "patch":
            return [tuple(slice(0, n) for n in shape)]
        axes = [_tile_starts(n, p) for n, p in zip(shape, self.size, strict=True)]
        return [
            tuple(slice(s, s + p) for s, p in zip(corner, self.size, strict=True))
            for corner in itertools.product(*axes)
        ]


def _tile_starts(length: int, patch: int) -> list[int]:
    return sorted({min(start, length - patch) for start in range(0, length, patch)})


def choose_view(
    shapes: Sequence[Sequence[int]],
    per_voxel: bool,
    patch_size: Sequence[int] | None = None,
    view_size: Sequence[int] | None = None,
    whole_side: int | None = None,
) -> View:
    """Choose the view of a data set: whole if all images have one small shape, else resized or in patches.

    Args:
        shapes: spatial shape of every case.
        per_voxel: labels are per voxel, so images are not resized.
        patch_size: cut patches of this size.
        view_size: resize to this size (per-image labels only).
        whole_side: longest side of a whole image; None is 224 in 2D and 64 in 3D.

    Raises:
        ValueError: for sizes that do not fit the images or each other.
    """
    rank = len(shapes[0])
    smallest = tuple(int(n) for n in np.min(np.asarray(shapes), axis=0))
    alike = len({tuple(s) for s in shapes}) == 1
    for name, size in (("patch_size", patch_size), ("view_size", view_size)):
        if size is not None and (len(size) != rank or min(size) < 1):
            raise ValueError(f"{name} must be {rank} positive numbers, got {tuple(size)}")
    if patch_size is not None and view_size is not None:
        raise ValueError("give patch_size or view_size, not both")
    if patch_size is not None:
        if any(p > n for p, n in zip(patch_size, smallest, strict=True)):
            raise ValueError(f"patch_size {tuple(patch_size)} is larger than the smallest image {smallest}")
        return View("patch", tuple(patch_size))
    if view_size is not None:
        if per_voxel:
            raise ValueError("view_size resizes images, which labels per voxel do not allow; give patch_size")
        return View("resize", tuple(view_size))
    longest = whole_side or _WHOLE_SIDE[rank]
    if alike and max(smallest) <= longest:
        return View("full", smallest)
    if not per_voxel:  # images are brought to one size: one tiny image among others does not decide it
        usual = np.median(np.asarray(shapes), axis=0).astype(int).tolist()
        fitting = (n if 2 * n >= m else max(m // 2, min(_LEAST_SIDE, m)) for n, m in zip(smallest, usual, strict=True))
        return View("resize", tuple(min(n, longest) for n in fitting))
    size = tuple(min(n, longest) for n in smallest)
    # Networks halve the patch three times and join the halves again.
    return View("patch", tuple(max(8, n // 16 * 16) if n >= 16 else n for n in size))


def cells(length: int, count: int) -> list[slice]:
    """The elements along an axis that each of ``count`` averages is taken over, as torch cuts them; neighbours may share one."""
    return [slice(number * length // count, -(-(number + 1) * length // count)) for number in range(count)]


class KeptInputs:
    """Inputs of networks, kept from the first time that they are made: resizing a large image takes longer than a batch.

    Args:
        array: gives the place that they are kept in, float32 ``(cases, channel, *view.size)``; called at first use.
        count: cases.
    """

    def __init__(self, array: Callable[[], Array], count: int) -> None:
        self._array, self._made, self._lock = array, np.zeros(count, bool), Lock()

    @cached_property
    def _rows(self) -> Sequence[Array]:
        return rows_of(self._array())

    def of(self, case: int, make: Callable[[], torch.Tensor]) -> Array:
        """The input of a case, ``(channel, *view.size)``; ``make`` gives it as a batch of one."""
        with self._lock:
            made, rows = self._made[case], self._rows
        if not made:
            rows[case][...] = make()[0].numpy()
            self._made[case] = True
        return rows[case]


@dataclass(frozen=True)
class Cases:
    """A data set in memory or in memory-mapped files, as networks read it.

    Args:
        images: one ``(channel, *spatial)`` array a case, stored units.
        labels: one label a case, in the task's canonical form.
        names: one name a case, for messages.
        task: the learning problem.
        windows: the intensity window of each case.
        view: how networks see a case.
        kept: inputs of these images in this view that were made before; a data set with other images or another view has none.
    """

    images: Sequence[Array]
    labels: Sequence[Array]
    names: Sequence[str]
    task: Task
    windows: Sequence[IntensityWindow]
    view: View
    kept: KeptInputs | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def spatial_dims(self) -> int:
        return len(self.view.size)

    @property
    def in_channels(self) -> int:
        return int(self.images[0].shape[0])

    def label(self, case: int, region: Slices) -> Array:
        """The case's label, cut to the region where labels are per voxel."""
        label = self.labels[case]
        return label[region] if label.ndim == len(region) else label

    def targets(self, regions: Sequence[tuple[int, Slices]]) -> torch.Tensor:
        """Labels of a batch of regions as one tensor: int64, or float32 for multi-label."""
        target = torch.from_numpy(np.stack([self.label(case, region) for case, region in regions]))
        return target if target.dtype == torch.float32 else target.long()

    def inputs(self, regions: Sequence[tuple[int, Slices]]) -> torch.Tensor:
        """A batch of regions as networks see them: float32 ``(batch, channel, *view.size)`` in [0, 1]."""
        if self.kept is None:
            return torch.cat([self._input(case, region) for case, region in regions])
        return torch.from_numpy(
            np.stack([self.kept.of(case, partial(self._input, case, region)) for case, region in regions])
        )

    def _input(self, case: int, region: Slices) -> torch.Tensor:
        """One input ``(1, channel, *view.size)``; a stack of large images would not fit in memory."""
        shape = self.images[case].shape[1:]
        if not self.view.averages(shape):
            return self.view.resize(self.normalized(case, region)[None])
        found = torch.empty(1, self.in_channels, *self.view.size)
        for number, rows in enumerate(cells(shape[0], self.view.size[0])):  # nor would copies of a volume in float32
            part = self.normalized(case, (rows, *region[1:]))[None]
            found[:, :, number] = F.interpolate(part, (1, *self.view.size[1:]), mode="area")[:, :, 0]
        return found

    def normalized(self, case: int, region: Slices) -> torch.Tensor:
        """A region of an image in [0, 1] by its own window, float32 ``(channel, *region)``."""
        stored = torch.from_numpy(np.asarray(self.images[case][(slice(None), *region)]).astype(np.float32))
        return self.windows[case].normalize(stored)


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless batches of ``range(count)``, each pass in a new order; a short last batch is filled from the next pass."""
    batch_size = min(batch_size, count)
    order: list[int] = []
    while True:
        while len(order) < batch_size:
            order += torch.randperm(count, generator=generator).tolist()
        yield order[:batch_size]
        order = order[batch_size:]
