"""Masks of the elements that a noise step may change; any rank."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def mask_size(elements: int, mask_ratio: float) -> int:
    """Number of elements a mask selects: ``round(mask_ratio * elements)``, at least one.

    Args:
        elements: elements of one sample (channels included).
        mask_ratio: share in (0, 1].
    """
    return max(1, round(mask_ratio * elements))


def topk_mask(score: torch.Tensor, k: int) -> torch.Tensor:
    """Select exactly the ``k`` elements of each sample with the largest score; which of equal ones is unspecified.

    Args:
        score: ``(batch, *any)``, for SALM the gradient magnitude (arXiv 2403.10573).
        k: elements to select in each sample.

    Returns:
        Boolean tensor of the same shape with exactly ``min(k, elements)`` True per sample.
    """
    flat = score.flatten(1)
    if k >= flat.shape[1]:
        return torch.ones_like(score, dtype=torch.bool)
    if score.device.type == "cpu" and score.dtype == torch.float32:
        return _above_threshold(flat.detach(), k).view_as(score)
    indices = flat.topk(k, dim=1, sorted=False).indices
    mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, indices, True)
    return mask.view_as(score)


def _above_threshold(flat: torch.Tensor, k: int) -> torch.Tensor:
    """What is above the k-th largest score, and the first of what equals it.

    Measured for samples of 784 to two million elements, numpy's partition takes a half to a tenth of the time of torch's topk;
    torch's kthvalue takes as long as that, a histogram lies between (docs/experiments.md).
    """
    scores = flat.numpy()
    threshold = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k][:, None]
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


def local_mean(score: torch.Tensor, edge: int) -> torch.Tensor:
    """Mean over the cube of neighbours around each element, channel by channel, of those inside the image.

    Args:
        score: ``(batch, channel, *spatial)``, 2D or 3D.
        edge: of the cube, elements, odd, or what fits into a shorter axis; 1 gives the score itself.

    Returns:
        Tensor of the same shape.
    """
    if edge == 1:
        return score
    pool = F.avg_pool2d if score.ndim == 4 else F.avg_pool3d
    edges = [min(edge, n - (n + 1) % 2) for n in score.shape[2:]]
    return pool(score, edges, stride=1, padding=[n // 2 for n in edges], count_include_pad=False)


def random_mask(shape: torch.Size, k: int, generator: torch.Generator) -> torch.Tensor:
    """Select ``k`` elements of each sample uniformly at random (the control of equal ratio).

    Args:
        shape: ``(batch, *any)``.
        k: elements to select in each sample.
        generator: source of randomness, on the CPU.

    Returns:
        Boolean CPU tensor of that shape.
    """
    return topk_mask(torch.rand(shape, generator=generator), k)


def foreground_mask(image: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """Select ``k`` elements of each sample at random among its foreground, the elements above the sample's mean.

    Where the foreground is smaller than ``k``, all of it is selected and nothing else. A constant sample has no
    foreground; all of it counts as such.

    Args:
        image: ``(batch, *any)`` CPU tensor.
        k: elements to select in each sample.
        generator: source of randomness, on the CPU.

    Returns:
        Boolean tensor of the same shape.
    """
    flat = image.flatten(1)
    foreground = flat > flat.mean(dim=1, keepdim=True)
    foreground |= ~foreground.any(dim=1, keepdim=True)
    score = torch.rand(flat.shape, generator=generator).masked_fill(~foreground, -1.0)
    return (topk_mask(score, k) & foreground).view_as(image)
