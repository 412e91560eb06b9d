"""The commonest kind of image of a data set, which decides what its images are, and grey images that are stored as colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from monai_salm.shared.arrays import Array

#: Spatial axes and channels.
Kind: TypeAlias = tuple[int, int]

# Images of a large data set that are looked at, and the share that settles it; below that, all are.
_SAMPLE, _CLEAR = 48, 0.75


def kind_of(image: Array) -> Kind:
    """Spatial axes and channels of an image ``(channel, *spatial)``."""
    return image.ndim - 1, len(image)


def one_channel(image: Array) -> Array | None:
    """The first channel ``(1, *spatial)`` of an image with equal channels; None for any other image."""
    same = len(image) > 1 and all(np.array_equal(channel, image[0], equal_nan=True) for channel in image[1:])
    return image[:1] if same else None


def as_kind(image: Array, kind: Kind) -> Array:
    """An image that is grey in several channels as its one channel, where that is the kind; any other image as it is."""
    if kind_of(image) == kind or kind[1] != 1:
        return image
    grey = one_channel(image)
    return image if grey is None else grey


def commonest_kind(load: Callable[[int], Array | None], count: int) -> Kind | None:
    """The kind of most images of a data set; None if none can be read, for which ``load`` gives None.

    Of a large data set some images are looked at, evenly spread, and all where these do not settle it. Images that are grey in
    several channels count as grey where there are others of one channel.
    """
    some = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)).tolist()
    found, share = _most(load, some)
    return found if share >= _CLEAR or len(some) == count else _most(load, range(count))[0]


def _most(load: Callable[[int], Array | None], indices: Sequence[int]) -> tuple[Kind | None, float]:
    """The commonest kind of some images, and its share."""
    own: Counter[Kind] = Counter()
    seen: Counter[Kind] = Counter()  # grey ones counted as such
    for index in indices:
        image = load(index)
        if image is not None:
            own[kind_of(image)] += 1
            seen[kind_of(image if (grey := one_channel(image)) is None else grey)] += 1
        kind = seen.most_common(1)[0][0] if seen else None
        if kind is not None and own[kind] * 2 > len(indices):
            break  # no other can be as common
    for counts in (seen, own):
        if counts:
            kind, most = counts.most_common(1)[0]
            if own[kind]:
                return kind, most / counts.total()
    return None, 1.0
