"""Small seeded networks that predict the label from the noise alone, and their samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Norm
from numpy.typing import NDArray
from torch import nn

from monai_salm.evaluation.sets import Floats, ImageSet
from monai_salm.learning.networks import seeded
from monai_salm.shared.arrays import Array

#: Voxels a side that probes see of an image, by rank.
SIDE = {2: 32, 3: 16}
_PATCH = 5
_PATCHES = 2000
_HIDDEN = 64
_BATCH = 64
_EPOCHS = 30
_BIAS_EPOCHS = 15
_STEPS = 60, 600


@dataclass(frozen=True)
class Samples:
    """Samples of probes: whole images, or patches of one class each."""

    clean: Floats  # ``(sample, channel, *spatial)``, stored units
    protected: Floats  # the same places
    labels: Array  # one class number a sample, or a row of zeros and ones
    held_out: NDArray[np.bool_]  # what a probe is scored on, whole cases; the rest trains it
    outputs: int  # classes or labels

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim > 1

    @property
    def usable(self) -> bool:
        """Both halves have samples."""
        return bool(self.held_out.any()) and not bool(self.held_out.all())

    @property
    def majority(self) -> float:
        """Held-out accuracy of always giving the commonest held-out answer."""
        held = self.labels[self.held_out]
        if self.multi_label:
            return float(np.maximum(held.mean(0), 1 - held.mean(0)).mean())
        return float(np.bincount(held).max() / len(held))


def group_numbers(labels: Sequence[Array]) -> NDArray[np.int64]:
    """Numbers of equal labels: the class, or the combination of labels of a multi-label problem."""
    return np.unique(np.stack(labels).reshape(len(labels), -1), axis=0, return_inverse=True)[1].reshape(-1)


def stratified(groups: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of ``count`` cases (all if there are no more), in order, each group by its share."""
    order = _dealt(groups, rng)
    keep = np.floor(np.arange(count) * len(order) / count).astype(int) if count < len(order) else np.arange(len(order))
    return np.sort(order[keep])


def second_half(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which cases are held out: every second one of each group, chosen at random."""
    held = np.zeros(len(groups), bool)
    held[_dealt(groups, rng)[1::2]] = True
    return held


def _dealt(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """All indices, group after group, at random within each."""
    order = rng.permutation(len(groups))
    return order[np.argsort(groups[order], kind="stable")]


def sample_image(image: Array, side: int) -> Floats:
    """At most ``side`` voxels along every axis of ``(channel, *spatial)``, evenly spread.

    Voxels are picked, not averaged: averaging would cancel fine noise.
    """
    for axis, length in enumerate(image.shape[1:], start=1):
        if length != side:
            image = image.take(np.linspace(0, length - 1, side).round().astype(int), axis=axis)
    return image.astype(np.float32)


def image_samples(clean: ImageSet, protected: ImageSet, chosen: Array, outputs: int, seed: int) -> Samples:
    """One sample an image, of one small size; ``chosen`` are indices of cases, ``seed`` is of the halves."""
    shapes = {clean.images[i].shape[1:] for i in chosen}
    side = min(SIDE[clean.images[0].ndim - 1], max(max(shape) for shape in shapes))
    pair = [np.stack([sample_image(s.images[i], side) for i in chosen]) for s in (clean, protected)]
    labels = np.stack([clean.labels[i] for i in chosen])
    held = second_half(group_numbers(list(labels)), np.random.default_rng(seed))
    return Samples(pair[0], pair[1], labels, held, outputs)


def patch_samples(clean: ImageSet, protected: ImageSet, chosen: Array, outputs: int, seed: int) -> Samples:
    """Patches of 5 voxels a side, up to a bound of each class in each chosen case; the label is the centre's."""
    rng = np.random.default_rng(seed)
    held = second_half(np.zeros(len(chosen), np.int64), rng)
    each = max(4, 2 * _PATCHES // (len(chosen) * outputs))
    before, after, labels, sides = [], [], [], []
    for side, index in zip(held, chosen, strict=True):
        flat = clean.labels[index].reshape(-1)
        for number in range(outputs):
            places = np.flatnonzero(flat == number)
            places = rng.choice(places, min(each, len(places)), replace=False)
            before.append(_patches(clean.images[index], places))
            after.append(_patches(protected.images[index], places))
            labels += [number] * len(places)
            sides += [side] * len(places)
    pair = [np.concatenate(part).astype(np.float32) for part in (before, after)]
    return Samples(pair[0], pair[1], np.array(labels), np.array(sides, bool), outputs)


def _patches(image: Array, centres: NDArray[np.int64]) -> Array:
    """``(centre, channel, 5, ...)``; the image's edge is repeated beyond it. Centres are flat indices."""
    shape = image.shape[1:]
    offset = np.arange(_PATCH) - _PATCH // 2
    indices = []
    for axis, position in enumerate(np.unravel_index(centres, shape)):
        along = np.clip(position[:, None] + offset, 0, shape[axis] - 1)
        indices.append(along.reshape(len(centres), *(_PATCH if a == axis else 1 for a in range(len(shape)))))
    return np.moveaxis(image[(slice(None), *indices)], 0, 1)


def probe_score(samples: Samples, inputs: Floats, hidden: bool, seed: int) -> float | None:
    """Held-out accuracy of a linear probe, or one with a hidden layer of 64, trained on the other half; None where a half is empty."""
    if not samples.usable:
        return None
    flat = torch.from_numpy(inputs.reshape(len(inputs), -1))
    train = flat[torch.from_numpy(~samples.held_out)]
    scale = float((train - train.mean(0)).std(correction=0)) or 1.0
    flat = (flat - train.mean(0)) / scale
    width = flat.shape[1]
    with seeded(seed, torch.device("cpu")):
        layers = [nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, samples.outputs)]
        model = nn.Sequential(*(layers if hidden else [nn.Linear(width, samples.outputs)]))
    return _fit_and_score(model, flat, samples, _EPOCHS, seed)


def bias_shift_scores(samples: Samples, inputs: Floats, shift: float, seed: int) -> dict[str, float] | None:
    """Held-out accuracy of a small network trained on normalised images plus ``shift``; None where a half is empty."""
    if not samples.usable:
        return None
    images = torch.from_numpy(inputs)
    shifted = images + shift
    rank = images.ndim - 2
    convolution, norm = Conv[Conv.CONV, rank], Norm[Norm.BATCH, rank]
    layers: list[nn.Module] = []
    # With global pooling even one fixed pattern a class was missed (docs/experiments.md).
    places = int(np.prod([-(-n // 4) for n in images.shape[2:]]))
    with seeded(seed, torch.device("cpu")):
        for before, after, stride in ((images.shape[1], 8, 1), (8, 16, 2), (16, 32, 2)):
            layers += [convolution(before, after, 3, stride, 1, bias=False), norm(after), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * places, samples.outputs))
    score = _fit_and_score(model, shifted, samples, _BIAS_EPOCHS, seed)
    return {"shifted": score, "unshifted": _score(model, images, samples)}


def _fit_and_score(model: nn.Module, inputs: torch.Tensor, samples: Samples, epochs: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    members = torch.from_numpy(np.flatnonzero(~samples.held_out))
    target = torch.from_numpy(samples.labels)
    target = target.float() if samples.multi_label else target.long()
    # Tiny sets get enough steps to be learned at all.
    steps = int(np.clip(epochs * -(-len(members) // _BATCH), *_STEPS))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order: list[int] = []
    loss_of = F.binary_cross_entropy_with_logits if samples.multi_label else F.cross_entropy
    model.train()
    for _ in range(steps):
        if len(order) < min(_BATCH, len(members)):
            order = members[torch.randperm(len(members), generator=generator)].tolist()
        batch, order = order[:_BATCH], order[_BATCH:]
        optimizer.zero_grad()
        loss_of(model(inputs[batch]), target[batch]).backward()
        optimizer.step()
        schedule.step()
    return _score(model, inputs, samples)


@torch.inference_mode()
def _score(model: nn.Module, inputs: torch.Tensor, samples: Samples) -> float:
    model.eval()
    held = torch.from_numpy(samples.held_out)
    target = torch.from_numpy(samples.labels)[held]
    outputs = torch.cat([model(part) for part in inputs[held].split(512)])
    hits = (outputs > 0) == (target > 0.5) if samples.multi_label else outputs.argmax(1) == target
    return float(hits.float().mean())
