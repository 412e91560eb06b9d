"""Is the noise one pattern a class, or was it made for each image? Agreement within a class, and dependence on the image tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_salm.evaluation.probes import SIDE, Samples, group_numbers
from monai_salm.evaluation.sets import Floats, ImageSet
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Chosen by measurement (docs/experiments.md).
_AGREE, _AGREE_IF_FEW, _EQUAL = 0.1, 0.3, 0.9
_DEPENDENT, _SURE, _PERMUTATIONS = 0.05, 0.02, 10


@dataclass(frozen=True)
class NoiseRows:
    """Noises to compare voxel by voxel."""

    noise: Floats  # ``(row, voxel)``, stored units; zero where it is not compared
    free: NDArray[np.bool_]  # where the noise could have either sign: a black voxel can only become brighter
    images: Floats  # clean
    groups: NDArray[np.int64]  # class of each row

    def by_group(self) -> Iterator[NDArray[np.int64]]:
        """Indices of the rows of each class."""
        for number in np.unique(self.groups):
            yield np.flatnonzero(self.groups == number)


def noise_of_images(samples: Samples, window: IntensityWindow) -> NoiseRows:
    """One row an image."""
    clean, protected = (part.reshape(len(part), -1) for part in (samples.clean, samples.protected))
    noise, free = _free_noise(clean, protected, window)
    return NoiseRows(noise, free, clean, group_numbers(list(samples.labels)))


def noise_of_regions(
    clean: ImageSet, protected: ImageSet, chosen: Array, classes: int, window: IntensityWindow
) -> NoiseRows:
    """One row for each class of each chosen image: its noise where the label is that class, in the grid that all images have."""
    box = np.min([clean.labels[i].shape for i in chosen], axis=0)
    side = SIDE[len(box)] * 3 // 2
    # A stride of whole numbers would meet a periodic pattern at one phase only.
    axes = [np.linspace(0, n - 1, min(side, n)).round().astype(int) for n in box]
    before, after, labels = [], [], []
    for index in chosen:
        place = np.ix_(np.arange(len(clean.images[index])), *axes)
        before.append(clean.images[index][place].astype(np.float32))
        after.append(protected.images[index][place].astype(np.float32))
        labels.append(np.broadcast_to(clean.labels[index][np.ix_(*axes)], before[-1].shape))
    images, changed, label = (np.stack(part).reshape(len(chosen), -1) for part in (before, after, labels))
    noise, free = _free_noise(images, changed, window)
    rows = [(i, c) for c in range(classes) for i in range(len(chosen)) if (label[i] == c).any()]
    member = np.array([i for i, _ in rows])
    inside = free[member] & np.stack([label[i] == c for i, c in rows])
    return NoiseRows(noise[member] * inside, inside, images[member], np.array([c for _, c in rows]))


def _free_noise(clean: Floats, protected: Floats, window: IntensityWindow) -> tuple[Floats, NDArray[np.bool_]]:
    """The noise where it could have either sign, and where that is."""
    noise, (low, high) = protected - clean, window.channels(1)[0]
    size = float(np.abs(noise).max(initial=0))
    free = (clean >= low + size) & (clean <= high - size)
    return noise * free, free


def diversity(rows: NoiseRows, seed: int) -> dict[str, Any]:
    """Compare the noises of pairs of images of one class and of two classes (docs/report.md); None without pairs."""
    norms = np.linalg.norm(rows.noise, axis=1, keepdims=True)
    unit = _divided(rows.noise, norms)
    signs = np.sign(rows.noise)
    cosine = _pair_means(unit, (norms > 0).astype(np.float32), rows)
    agreement = _pair_means(signs, np.abs(signs), rows)
    share, dependence, spread = _residual(rows, np.random.default_rng(seed))
    return {
        "cosine_within": cosine[0],
        "cosine_between": cosine[1],
        "agreement_within": agreement[0],
        "agreement_between": agreement[1],
        "class_share": share,
        "image_dependence": dependence,
        "image_dependence_sd": spread,
        "class_wise": is_class_wise(*agreement, dependence, spread),
    }


def is_class_wise(within: float | None, between: float | None, dependence: float | None, spread: float | None) -> bool:
    """Whether noise is one pattern a class, by the agreement of signs and the residual's dependence on the image.

    Jitter that does not depend on the image changes nothing; by chance the dependence has the standard deviation ``spread``.
    """
    if within is None:
        return False
    gap = within - max(between or 0.0, 0.0)
    if gap >= _EQUAL:
        return True
    if dependence is not None and spread is not None and dependence > max(_DEPENDENT, 3 * spread):
        return False
    sure = spread is not None and spread <= _SURE
    return gap >= (_AGREE if sure else _AGREE_IF_FEW)


def _pair_means(values: Floats, weights: Floats, rows: NoiseRows) -> tuple[float | None, float | None]:
    """Mean of ``values . values`` over ``weights . weights``, over pairs of rows of one class and of two, by sums over classes."""
    totals = []
    for part in (values, weights):
        own = [part[members].sum(0, dtype=np.float64) for members in rows.by_group()]
        squares = sum(float(np.square(total).sum()) for total in own)
        pairs = float(np.square(part, dtype=np.float64).sum())
        totals.append((squares - pairs, float(np.square(np.sum(own, axis=0)).sum()) - squares))
    within, between = (value / weight if weight > 0.5 else None for value, weight in zip(*totals, strict=True))
    return within, between


def _residual(rows: NoiseRows, rng: np.random.Generator) -> tuple[float | None, float | None, float | None]:
    """Share of energy of the classes' means, and dependence of the residual on the image with its spread."""
    energy, residual_energy, noise_similarity, image_similarity = 0.0, 0.0, [], []
    for members in rows.by_group():
        free = rows.free[members]
        count = np.maximum(free.sum(0), 1).astype(np.float32)
        rest = (rows.noise[members] - rows.noise[members].sum(0) / count) * free
        images = (rows.images[members] - (rows.images[members] * free).sum(0) / count) * free
        # count / (count - 1) corrects the energy that a mean of few explains by chance.
        several = count > 1
        energy += float(np.square(rows.noise[members][:, several], dtype=np.float64).sum())
        corrected = np.square(rest, dtype=np.float64).sum(0) * count / np.maximum(count - 1, 1)
        residual_energy += float(corrected[several].sum())
        if len(members) >= 4:
            # Residuals about a common mean have a covariance of - variance / count, which is added back.
            variance = np.square(rest).sum(0) / np.maximum(count - 1, 1)
            noise_similarity.append(_similarity(rest, free * np.sqrt(variance / count)))
            image_similarity.append(_similarity(images))
    share = 1 - residual_energy / energy if energy > 0 else None
    if not noise_similarity or share is None or share > 1 - 1e-6:
        return share, None, None
    found = _correlation(noise_similarity, image_similarity)
    shuffled = []
    for _ in range(_PERMUTATIONS):
        orders = ((part, rng.permutation(len(part))) for part in image_similarity)
        shuffled.append(_correlation(noise_similarity, [part[np.ix_(order, order)] for part, order in orders]))
    return share, found, float(np.sqrt(np.mean(np.square(shuffled))))


def _similarity(rows: Floats, add: Array | None = None) -> Floats:
    """Cosine similarity of every two rows, the products of ``add`` added."""
    products = rows @ rows.T
    norms = np.sqrt(np.diag(products))
    if add is not None:
        products += (add @ add.T).astype(np.float32)
    return _divided(products, np.outer(norms, norms))


def _divided(values: Floats, by: Floats) -> Floats:
    """0 where the divisor is 0."""
    result: Floats = np.divide(values, by, out=np.zeros_like(values), where=by > 0)
    return result


def _correlation(first: list[Floats], second: list[Floats]) -> float:
    """Over all pairs of a class, each class about its own mean; 0 without variation."""
    centred = []
    for parts in (first, second):
        pairs = [part[np.triu_indices(len(part), 1)].astype(np.float64) for part in parts]
        centred.append(np.concatenate([p - p.mean() for p in pairs]))
    size = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / size if size > 1e-9 else 0.0
