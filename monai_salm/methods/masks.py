"""Which elements of an image noise may change: masks as settings, and the functions that choose them; any rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.learning.cases import Slices
from monai_salm.noise.grid import require
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks

_SCOPES = ("sample", "step")
_PARTS = ("both", "contour", "texture")
# Numbers that are sorted as a whole.
_FEW = 2**18


@dataclass(frozen=True, kw_only=True)
class Mask(ABC):
    """Settings of a mask."""

    name: ClassVar[str]
    #: Whether the choice depends on the images.
    sees_images: ClassVar[bool] = False

    @property
    def share(self) -> float:
        """Largest share of an image's elements that the mask may hold."""
        return 1.0

    @property
    def fixed(self) -> bool:
        """Whether the mask of an image is chosen once, before its noise, and kept."""
        return False

    @property
    def smoothing(self) -> int:
        """Edge of the neighbourhood that a gradient is averaged over before elements are chosen, elements of the view."""
        return 1

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor | None:
        """The elements that noise may change.

        Args:
            score: gradient magnitude of the surrogate's loss, averaged, ``(batch, channel, *spatial)``; may be written to.
            image: the images without noise, in [0, 1], same shape; not read unless ``sees_images``.
            carriers: elements that can carry noise at all, boolean, same shape.
            generator: source of randomness, on the CPU.

        Returns:
            Boolean tensor of that shape, or None for all elements.
        """
        return None

    def support(self, label: Array, tile: Slices) -> Array | None:
        """Elements of a tile that may ever carry noise by the label alone, a boolean array of its shape; None for all.

        Args:
            label: the whole label of the case.
            tile: the part of the image in question.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class Everything(Mask):
    """All elements."""

    name: ClassVar[str] = "everything"


@dataclass(frozen=True, kw_only=True)
class _Share(Mask):
    """A share of the elements of each image.

    Args:
        ratio: share of an image's elements, in (0, 1].
        scope: ``"sample"`` for one mask an image, ``"step"`` for another mask at each noise step.
    """

    ratio: float = 0.3
    scope: str = "sample"

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 1, "mask ratio", "in (0, 1]", self.ratio)
        require(self.scope in _SCOPES, "mask scope", f"one of {_SCOPES}", self.scope)

    @property
    def share(self) -> float:
        return self.ratio if self.fixed else 1.0

    @property
    def fixed(self) -> bool:
        return self.scope == "sample"

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        k = mask_size(score[0].numel(), self.ratio)
        ranked = self._rank(score, image, generator)
        if all(int(torch.count_nonzero(own)) <= k for own in carriers):  # they are no more than the mask may hold
            return carriers.clone()
        ranked = ranked.masked_fill_(~carriers, -1.0)
        return topk_mask(ranked, k).logical_and_(carriers)

    @abstractmethod
    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Numbers of at least 0, the largest for the elements to choose first."""


@dataclass(frozen=True, kw_only=True)
class TopK(_Share):
    """The elements with the largest gradients: SALM's mask (arXiv 2403.10573).

    Args:
        ratio: share of an image's elements, in (0, 1].
        scope: ``"sample"`` for one mask an image, ``"step"`` for another mask at each noise step.
        area: edge of the neighbourhood that gradients are averaged over, elements of what the surrogate sees, odd; 1 chooses
            elements one by one.
    """

    area: int = 1
    name: ClassVar[str] = "top_k"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.area >= 1 and self.area % 2 == 1, "mask area", "odd and at least 1", self.area)

    @property
    def smoothing(self) -> int:
        return self.area

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return score


@dataclass(frozen=True, kw_only=True)
class Random(_Share):
    """Elements drawn at random: the control of equal ratio."""

    name: ClassVar[str] = "random"

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(score.shape, generator=generator).to(score.device)


@dataclass(frozen=True, kw_only=True)
class Foreground(_Share):
    """Elements drawn at random among those above their image's mean."""

    name: ClassVar[str] = "foreground"
    sees_images: ClassVar[bool] = True

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        flat = image.flatten(1)
        above = flat > flat.mean(dim=1, keepdim=True)
        above |= ~above.any(dim=1, keepdim=True)  # a constant image has no foreground: all of it counts
        drawn = torch.rand(flat.shape, generator=generator).to(image.device)
        return drawn.masked_fill(~above, -1.0).view_as(image)

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        ranked = self._rank(score, image, generator).masked_fill(~carriers, -1.0)
        return topk_mask(ranked, mask_size(score[0].numel(), self.ratio)) & (ranked >= 0)


@dataclass(frozen=True, kw_only=True)
class Region(Mask):
    """The labelled region of a segmentation and its surroundings, in the manner of UMed (Lin et al., arXiv 2403.14250).

    A map of nothing but background counts as region throughout, so that the image gets noise.

    Args:
        margin: elements around the foreground (label above 0), along every axis and diagonal.
        part: ``"both"`` is the foreground with its margin, ``"texture"`` the foreground alone, and ``"contour"`` the margin
            on either side of its boundary.
    """

    margin: int = field(
        default=3, metadata={"help": "Elements around the foreground (label above 0), along every axis and diagonal."}
    )
    part: str = field(
        default="both",
        metadata={
            "help": "The foreground with its margin, the foreground, or the margin on both sides of its edge.",
            "values": ("both", "texture", "contour"),
        },
    )
    name: ClassVar[str] = "region"

    def __post_init__(self) -> None:
        require(self.margin >= 0, "margin", "at least 0", self.margin)
        require(self.part in _PARTS, "part", f"one of {_PARTS}", self.part)
        if self.part == "contour" and self.margin == 0:
            raise ValueError('part "contour" needs a margin of at least 1, got 0')

    def support(self, label: Array, tile: Slices) -> Array:
        if not label.any():
            return np.ones([s.stop - s.start for s in tile], bool)
        # With a rim, so that what lies beyond the tile counts.
        starts = [max(0, s.start - self.margin) for s in tile]
        wide = tuple(slice(start, s.stop + self.margin) for start, s in zip(starts, tile, strict=True))
        inside = np.asarray(label[wide]) > 0
        region = inside if self.part == "texture" else dilated(inside, self.margin)
        if self.part == "contour":
            region = region & dilated(~inside, self.margin)
        return region[tuple(slice(s.start - at, s.stop - at) for s, at in zip(tile, starts, strict=True))]


MASKS: dict[str, type[Mask]] = {mask.name: mask for mask in (TopK, Everything, Random, Foreground, Region)}


def mask_size(elements: int, ratio: float) -> int:
    """Number of elements a mask of this share of an image's elements selects: at least one."""
    return max(1, round(ratio * elements))


def topk_mask(score: torch.Tensor, k: int) -> torch.Tensor:
    """Exactly the ``k`` elements of each sample ``(batch, *any)`` with the largest score; of equal ones any."""
    flat = score.flatten(1)
    if k >= flat.shape[1]:
        return torch.ones_like(score, dtype=torch.bool)
    if score.device.type == "cpu" and score.dtype == torch.float32:
        return _above_threshold(flat.detach(), k).view_as(score)
    indices = flat.topk(k, dim=1, sorted=False).indices
    mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, indices, True)
    return mask.view_as(score)


def _above_threshold(flat: torch.Tensor, k: int) -> torch.Tensor:
    """What is above the k-th largest score, and the first of what equals it; numpy's partition is faster than torch's topk."""
    scores = flat.numpy()
    threshold = np.stack([_kth_largest(row, k) for row in scores])[:, None]
    mask = scores >= threshold
    for row, chosen in enumerate(mask):
        surplus = np.count_nonzero(chosen) - k
        if surplus < 0:  # what is not a number counts as the largest, in numpy's order and torch's
            inf = float("inf")
            return _above_threshold(flat.nan_to_num(nan=inf, posinf=inf, neginf=-inf), k)
        if surplus:
            equal = np.flatnonzero(scores[row] == threshold[row])
            chosen[equal[len(equal) - surplus :]] = False
    return torch.from_numpy(mask)


def _kth_largest(scores: Array, k: int) -> Array:
    """The k-th largest of float32 numbers; of many, those that may be it are sorted out first, in place of a copy of all."""
    if scores.size <= _FEW:
        return np.asarray(np.partition(scores, scores.size - k)[-k])
    counts = np.zeros(1 << 16, np.int64)
    for part in blocks(scores.size):
        counts += np.bincount(_ordered(scores[part]) >> 16, minlength=1 << 16)
    above = np.cumsum(counts[::-1])[::-1]  # how many are in this bin or a higher one
    place = int(np.flatnonzero(above >= k)[-1])
    near = [values[_ordered(values) >> 16 == place] for values in (scores[part] for part in blocks(scores.size))]
    among = np.concatenate(near)
    rest = k - int(above[place] - counts[place])
    return np.asarray(np.partition(among, len(among) - rest)[-rest])


def _ordered(scores: Array) -> Array:
    """float32 numbers as uint32 in the same order; those that are not numbers come last, as NumPy sorts them."""
    bits = np.where(np.isnan(scores), np.float32(np.nan), scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def local_mean(score: torch.Tensor, edge: int) -> torch.Tensor:
    """Mean of ``(batch, channel, *spatial)`` over the cube of ``edge`` (odd) elements around each, of those inside the image.

    A large ``score`` is written to.
    """
    if edge == 1:
        return score
    pool, rank = (F.avg_pool2d, 2) if score.ndim == 4 else (F.avg_pool3d, 3)
    for axis, side in enumerate(score.shape[2:]):  # one axis after the other: the same mean in a fraction of the time
        length = min(edge, side - (side + 1) % 2)
        sizes = [length if other == axis else 1 for other in range(rank)]
        padding = [size // 2 for size in sizes]
        across = 3 if axis == 0 else 2  # an axis that this mean does not run along: its places are independent
        if score.numel() <= _FEW:
            score = pool(score, sizes, stride=1, padding=padding, count_include_pad=False)
            continue
        for place in score.split(max(1, score.shape[across] * _FEW // score.numel()), across):
            place.copy_(pool(place, sizes, stride=1, padding=padding, count_include_pad=False))
    return score


def dilated(mask: Array, margin: int) -> Array:
    """All elements within ``margin`` of a boolean mask of any rank, along every axis and diagonal."""
    grown = mask
    for axis in range(mask.ndim):
        source = grown
        grown = source.copy()
        for shift in range(1, min(margin, mask.shape[axis] - 1) + 1):
            low = tuple(slice(None, -shift) if a == axis else slice(None) for a in range(mask.ndim))
            high = tuple(slice(shift, None) if a == axis else slice(None) for a in range(mask.ndim))
            grown[high] |= source[low]
            grown[low] |= source[high]
    return grown
