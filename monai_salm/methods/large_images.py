"""Noise steps on large images that a network sees small.

A network sees several pictures at once, since a pass for one takes nearly as long. A volume is worked on a slab at a time: copies
of it in float32 would not fit in memory. Resizing averages it (``View.resize``). So the gradient of an element is the sum over the
averages that it is part of, and all slices between two cuts have the same. The sums are taken in the order of torch's own backward
pass, so that the bytes are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.learning.cases import cells
from monai_salm.methods.base import BilevelMethod
from monai_salm.methods.job import Job
from monai_salm.methods.masks import Mask, TopK
from monai_salm.shared.arrays import Array, let_go

# Elements of a volume, and of a picture, that is worth it: of smaller ones a unit holds several anyway.
_LARGE, _LARGE_PICTURE = 2**20, 2**19


def fit(method: BilevelMethod, job: Job, shape: Sequence[int]) -> bool:
    """Whether the noise steps of images of a shape ``(channel, *spatial)`` can be taken here, and they are large enough."""
    plain = type(method).penalty is BilevelMethod.penalty and type(method.mask).support is Mask.support
    if not plain or not method.mask.fixed or method.noise_draws > 1 or job.device.type != "cpu":
        return False
    if len(shape) == 3:
        return fit_together(method, job, shape)
    return math.prod(shape) > _LARGE and job.cases.view.averages(shape[1:])


def fit_together(method: BilevelMethod, job: Job, shape: Sequence[int]) -> bool:
    """Whether a network sees several pictures of a shape at once, the masks of which do not depend on which these are."""
    small = len(shape) == 3 and job.cases.view.kind == "resize" and math.prod(shape) > _LARGE_PICTURE
    return small and job.device.type == "cpu" and isinstance(method.mask, TopK) and method.mask.fixed


class Picture:
    """A picture with its noise in progress.

    Args:
        method: what a step does.
        job: the data set.
        case: number of the picture.
        codes: what its noise begins as, in quanta, ``(channel, *spatial)``.
        mask: the elements that noise may change, of that shape.
    """

    def __init__(self, method: BilevelMethod, job: Job, case: int, codes: Array, mask: Array) -> None:
        budget, image = job.workspace.budgets[case], np.asarray(job.cases.images[case])
        # Outside the mask the bounds are 0, and so are the codes.
        self.lower, self.upper = (
            torch.from_numpy(np.multiply(ends, mask, dtype=np.float32)) for ends in budget.code_bounds(image)
        )
        self.codes = torch.from_numpy(codes.astype(np.float32)).clamp_(self.lower, self.upper)
        self.clean = job.cases.normalized(case, (slice(None), slice(None)))
        shares, length = budget.shares(len(codes)), method.step_size * method.epsilon
        self.shares = per_channel([shares], 2, job.device)[0]
        self.lengths = per_channel([[length / share for share in shares]], 2, job.device)[0]
        self.resize = job.cases.view.resize

    def inputs(self) -> torch.Tensor:
        """The picture with its noise as a network sees it, ``(1, channel, *view.size)``."""
        self.noisy = (self.codes * self.shares).add_(self.clean)[None].requires_grad_(True)
        self.seen = self.resize(self.noisy)
        return self.seen.detach()

    def move(self, gradient: torch.Tensor) -> None:
        """One step down the gradient ``(channel, *view.size)`` of the loss with respect to the inputs."""
        (found,) = torch.autograd.grad(self.seen, self.noisy, gradient[None])
        self.codes.sub_(found[0].sign_().mul_(self.lengths)).clamp_(self.lower, self.upper)

    def write(self, target: Array) -> None:
        """Put the noise into whole quanta."""
        target[...] = self.codes.round_().numpy()


class Volume:
    """A volume with its noise in progress; the arguments are those of ``Picture``."""

    def __init__(self, method: BilevelMethod, job: Job, case: int, codes: Array, mask: Array) -> None:
        self.cases, self.case = job.cases, case
        budget, image = job.workspace.budgets[case], np.asarray(job.cases.images[case])
        self.lower, self.upper = budget.code_bounds(image)
        for ends in (self.lower, self.upper):  # outside the mask they are 0, and so are the codes
            np.multiply(ends, mask, out=ends, casting="unsafe")
        let_go(image)  # before the codes take their room
        self.codes = torch.from_numpy(np.multiply(codes, mask, dtype=np.float32))
        for mapped in (mask, codes):
            let_go(mapped)
        shares, length = budget.shares(len(codes)), method.step_size * method.epsilon
        self.shares = per_channel([shares], 3, job.device)[0]
        self.lengths = per_channel([[length / share for share in shares]], 3, job.device)[0]
        self.axes = [_Axis(n, m) for n, m in zip(codes.shape[1:], job.cases.view.size, strict=True)]

    def inputs(self) -> torch.Tensor:
        """The volume with its noise as a network sees it, ``(1, channel, *view.size)``."""
        size = self.cases.view.size
        found = torch.empty(1, len(self.codes), *size)
        for number, rows in enumerate(self.axes[0].cells):
            clean = self.cases.normalized(self.case, (rows, slice(None), slice(None)))
            part = (clean + self.codes[:, rows] * self.shares)[None]
            found[:, :, number] = F.interpolate(part, (1, *size[1:]), mode="area")[:, :, 0]
        return found

    def move(self, gradient: torch.Tensor) -> None:
        """One step down the gradient ``(channel, *view.size)`` of the loss with respect to the inputs."""
        shares = gradient
        for axis, places in enumerate(self.axes):
            counts = torch.tensor([cell.stop - cell.start for cell in places.cells], dtype=torch.float32)
            shares = shares / counts.view([-1 if other == axis else 1 for other in range(3)])
        for rows, above in self.axes[0].runs():
            direction = self._plane(shares, above).sign_()[:, None]
            lower, upper = (torch.from_numpy(ends[:, rows].astype(np.float32)) for ends in (self.lower, self.upper))
            codes = self.codes[:, rows]
            codes -= direction * self.lengths
            torch.maximum(codes, lower, out=codes)
            torch.minimum(codes, upper, out=codes)

    def write(self, target: Array) -> None:
        """Put the noise into whole quanta."""
        for rows, _ in self.axes[0].runs():
            target[:, rows] = self.codes[:, rows].round().numpy()

    def _plane(self, shares: torch.Tensor, above: Sequence[int]) -> torch.Tensor:
        """The gradient of every element of a slice that is part of these averages along the first axis, ``(channel, h, w)``."""
        (_, height, width) = self.axes
        total = torch.zeros(len(shares), height.length, width.length)
        for number, down, across in itertools.product(above, height.covers, width.covers):
            known = shares[:, number][:, down.clamp(min=0)][:, :, across.clamp(min=0)]
            total += known * ((down >= 0)[:, None] & (across >= 0))
        return total


class _Axis:
    """Which averages along an axis each of its elements is part of: one, or two where these share it."""

    def __init__(self, length: int, count: int) -> None:
        self.length, self.cells = length, cells(length, count)
        first, second = torch.full((length,), -1), torch.full((length,), -1)
        for number, cell in enumerate(self.cells):
            taken = first[cell] >= 0
            second[cell] = torch.where(taken, number, second[cell])
            first[cell] = torch.where(taken, first[cell], number)
        self.covers = (first, second)

    def runs(self) -> list[tuple[slice, list[int]]]:
        """The runs of elements that are part of the same averages, with these."""
        pairs = list(zip(*(cover.tolist() for cover in self.covers), strict=True))
        runs, start = [], 0
        for pair, members in itertools.groupby(pairs):
            stop = start + len(list(members))
            runs.append((slice(start, stop), [number for number in pair if number >= 0]))
            start = stop
        return runs


def per_channel(values: Sequence[Sequence[float]], rank: int, device: torch.device) -> torch.Tensor:
    """Numbers of every case and channel as ``(batch, channel, 1, ...)``."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(len(values), -1, *[1] * rank)
