"""How the elements of a mask are chosen: pure functions, on arrays and tensors of any rank."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from monai_salm.learning.cases import Slices
from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks

# Numbers that are sorted as a whole.
_FEW = 2**18
# A sample of more numbers, and how far from its place in the sample a number is looked for: five standard deviations or more.
_SAMPLE, _MARGIN = 2**14, 320


def class_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How far the true class is ahead of the others in the logits ``(batch, classes, ...)``; every class counts alike.

    Args:
        logits: of a network.
        targets: class numbers ``(batch, ...)``, or yes/no labels of the logits' shape.
    """
    if targets.shape == logits.shape:
        return (logits * (2 * targets - 1)).mean()
    own = F.one_hot(targets.long(), logits.shape[1]).movedim(-1, 1).bool()
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    margin = logits.masked_fill(~own, 0).sum(1) - others
    return torch.stack([margin[targets == number].mean() for number in targets.unique()]).mean()


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
    """The k-th largest of float32 numbers; of many, those near the k-th largest of a sample are sorted, in place of a copy of all."""
    if scores.size <= _FEW:
        return np.asarray(np.partition(scores, scores.size - k)[-k])
    sample = np.sort(scores[np.random.default_rng(0).integers(0, scores.size, _SAMPLE)])
    place = _SAMPLE - round(_SAMPLE * k / scores.size)
    low, high = sample[max(0, place - _MARGIN)], sample[min(_SAMPLE - 1, place + _MARGIN)]
    above, equal, near = 0, 0, list[Array]()
    for values in (scores[part] for part in blocks(scores.size)):
        lower = values <= high  # what is not a number counts as the largest, as NumPy sorts it
        above += values.size - int(np.count_nonzero(lower))
        equal += int(np.count_nonzero(values == low))  # often many, where no noise can be
        near.append(values[lower & (values > low)])
    among, rest = np.concatenate(near), k - above
    if 0 < rest <= len(among):
        return np.asarray(np.partition(among, len(among) - rest)[-rest])
    if len(among) < rest <= len(among) + equal:
        return np.asarray(low)
    return np.asarray(np.partition(scores, scores.size - k)[-k])  # it lies beyond the sample


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


def region(label: Array, tile: Slices, margin: int, part: str) -> Array:
    """The tile's elements that the mask ``Region`` holds, a boolean array of its shape.

    Args:
        label: the whole label map.
        tile: the part of the image in question.
        margin: elements around the foreground.
        part: ``"both"``, ``"texture"`` or ``"contour"``.
    """
    if not label.any():
        return np.ones([s.stop - s.start for s in tile], bool)
    # With a rim, so that what lies beyond the tile counts.
    starts = [max(0, s.start - margin) for s in tile]
    wide = tuple(slice(start, s.stop + margin) for start, s in zip(starts, tile, strict=True))
    inside = np.asarray(label[wide]) > 0
    found = inside if part == "texture" else dilated(inside, margin)
    if part == "contour":
        found = found & dilated(~inside, margin)
    return found[tuple(slice(s.start - at, s.stop - at) for s, at in zip(tile, starts, strict=True))]
