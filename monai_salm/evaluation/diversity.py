"""How alike the noises of one class are, and whether they know more of an image than its class.

Noise that is one pattern a class, with some jitter to look sample-wise, is told from noise that was made for each image
by two numbers (docs/report.md): how often the signs of two noises of a class agree, and whether what is left of the
noise without the class's pattern depends on the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_salm.evaluation.probes import SIDE, Samples, group_numbers
from monai_salm.evaluation.sets import ImageSet
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array

# Chosen by measurement (docs/experiments.md).
_ALIKE, _FEW_ALIKE, _SAME = 0.1, 0.3, 0.9
_DEPENDENT, _SURE, _PERMUTATIONS = 0.05, 0.02, 10


@dataclass(frozen=True)
class Rows:
    """Noises to compare voxel by voxel.

    Args:
        noise: ``(row, voxel)``, stored units; zero where it is not to be compared.
        free: voxels at which the noise was free to have either sign: a black voxel can only become brighter, and that
            alone would make noises alike.
        images: the clean images there.
        groups: class of each row.
    """

    noise: NDArray[np.float32]
    free: NDArray[np.bool_]
    images: NDArray[np.float32]
    groups: NDArray[np.int64]

    def by_group(self) -> Iterator[NDArray[np.int64]]:
        """Indices of the rows of each class."""
        for number in np.unique(self.groups):
            yield np.flatnonzero(self.groups == number)


def rows_of_images(samples: Samples, window: IntensityWindow) -> Rows:
    """One row an image."""
    clean, protected = (part.reshape(len(part), -1) for part in (samples.clean, samples.protected))
    noise = protected - clean
    free = _free(clean, float(np.abs(noise).max(initial=0)), window)
    return Rows(noise * free, free, clean, group_numbers(list(samples.labels)))


def rows_of_regions(clean: ImageSet, protected: ImageSet, chosen: Array, classes: int, window: IntensityWindow) -> Rows:
    """One row for each class that an image has: its noise where the label is that class.

    Noise is compared at equal coordinates, counted from the corner, in the part of the grid that all images have.

    Args:
        clean: original images with one label a voxel.
        protected: the same images with noise.
        chosen: indices of the cases.
        classes: how many.
        window: the intensity window.
    """
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
    noise = changed - images
    free = _free(images, float(np.abs(noise).max(initial=0)), window)
    rows = [(i, c) for c in range(classes) for i in range(len(chosen)) if (label[i] == c).any()]
    member = np.array([i for i, _ in rows])
    inside = free[member] & np.stack([label[i] == c for i, c in rows])
    return Rows(noise[member] * inside, inside, images[member], np.array([c for _, c in rows]))


def _free(images: NDArray[np.float32], size: float, window: IntensityWindow) -> NDArray[np.bool_]:
    low, high = window.channels(1)[0]
    free: NDArray[np.bool_] = (images >= low + size) & (images <= high - size)
    return free


def diversity(rows: Rows, seed: int) -> dict[str, Any]:
    """Compare the noises of pairs of images of one class and of different classes.

    Args:
        rows: what to compare.
        seed: of the permutations.

    Returns:
        ``cosine_within`` and ``cosine_between``: mean cosine similarity of two noises of one class and of two classes;
        ``agreement_within`` and ``agreement_between``: mean product of the signs at voxels where both have noise, over
        all pairs and voxels; ``class_share``: share of the noise's energy that the classes' mean noises explain;
        ``image_dependence``: correlation, over pairs of one class, of how alike the images and how alike the rests of the
        noise are, and ``image_dependence_sd``, its standard deviation if images were exchanged at random; ``class_wise``.
        Numbers are None where there are no pairs.
    """
    norms = np.linalg.norm(rows.noise, axis=1, keepdims=True)
    unit = np.divide(rows.noise, norms, out=np.zeros_like(rows.noise), where=norms > 0)
    signs = np.sign(rows.noise)
    cosine = _pair_means(unit, (norms > 0).astype(np.float32), rows)
    agreement = _pair_means(signs, np.abs(signs), rows)
    share, dependence, spread = _rest(rows, np.random.default_rng(seed))
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
    """Whether noise is one pattern a class, or that and jitter which has nothing to do with the image.

    Args:
        within: mean agreement of signs in a class.
        between: the same between classes; None if there is but one class.
        dependence: how far the rest of the noise depends on the image; None if there is no rest, or too few cases.
        spread: standard deviation of ``dependence`` by chance.
    """
    if within is None:
        return False
    gap = within - max(between or 0.0, 0.0)
    if gap >= _SAME:
        return True
    if dependence is not None and spread is not None and dependence > max(_DEPENDENT, 3 * spread):
        return False
    sure = spread is not None and spread <= _SURE
    return gap >= (_ALIKE if sure else _FEW_ALIKE)


def _pair_means(
    values: NDArray[np.float32], weights: NDArray[np.float32], rows: Rows
) -> tuple[float | None, float | None]:
    """Mean of ``values . values`` over ``weights . weights``, over pairs of rows of one class and of two.

    From sums over classes, since the sum over all pairs is the square of the sum less the squares: no pair is formed.
    """
    totals = []
    for part in (values, weights):
        own = [part[members].sum(0, dtype=np.float64) for members in rows.by_group()]
        squares = sum(float(np.square(total).sum()) for total in own)
        pairs = float(np.square(part, dtype=np.float64).sum())
        totals.append((squares - pairs, float(np.square(np.sum(own, axis=0)).sum()) - squares))
    (within, between), (within_weight, between_weight) = totals
    return (
        within / within_weight if within_weight > 0.5 else None,
        between / between_weight if between_weight > 0.5 else None,
    )


def _rest(rows: Rows, rng: np.random.Generator) -> tuple[float | None, float | None, float | None]:
    """Share of energy of the classes' means, and how far the rest depends on the image."""
    rest_energy, noise_alike, image_alike = 0.0, [], []
    energy = 0.0
    for members in rows.by_group():
        free = rows.free[members]
        count = np.maximum(free.sum(0), 1).astype(np.float32)
        rest = (rows.noise[members] - rows.noise[members].sum(0) / count) * free
        images = (rows.images[members] - (rows.images[members] * free).sum(0) / count) * free
        # A mean of few explains some of anything: count / (count - 1) makes that up; of one it says nothing.
        several = count > 1
        energy += float(np.square(rows.noise[members][:, several], dtype=np.float64).sum())
        rest_energy += float(
            (np.square(rest, dtype=np.float64).sum(0) * count / np.maximum(count - 1, 1))[several].sum()
        )
        if len(members) >= 4:
            # Rests about a common mean are alike by - variance / count, the more so the fewer have a voxel: put that back,
            # or jitter would seem to depend on which voxels two images share.
            variance = np.square(rest).sum(0) / np.maximum(count - 1, 1)
            noise_alike.append(_alike(rest, free * np.sqrt(variance / count)))
            image_alike.append(_alike(images))
    share = 1 - rest_energy / energy if energy > 0 else None
    if not noise_alike or share is None or share > 1 - 1e-6:
        return share, None, None
    found = _correlation(noise_alike, image_alike)
    shuffled = []
    for _ in range(_PERMUTATIONS):
        orders = [rng.permutation(len(part)) for part in image_alike]
        shuffled.append(
            _correlation(noise_alike, [part[np.ix_(o, o)] for part, o in zip(image_alike, orders, strict=True)])
        )
    return share, found, float(np.sqrt(np.mean(np.square(shuffled))))


def _alike(rows: NDArray[np.float32], add: Array | None = None) -> NDArray[np.float32]:
    """Cosine similarity of every two rows, the products of ``add`` added."""
    products = rows @ rows.T
    norms = np.sqrt(np.diag(products))
    if add is not None:
        products += (add @ add.T).astype(np.float32)
    sizes = np.outer(norms, norms)
    result: NDArray[np.float32] = np.divide(products, sizes, out=np.zeros_like(products), where=sizes > 0)
    return result


def _correlation(first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]) -> float:
    """Over all pairs of a class, each class about its own mean; 0 where one of both does not vary."""
    centred = []
    for parts in (first, second):
        pairs = [part[np.triu_indices(len(part), 1)].astype(np.float64) for part in parts]
        centred.append(np.concatenate([p - p.mean() for p in pairs]))
    size = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / size if size > 1e-9 else 0.0
