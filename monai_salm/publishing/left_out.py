"""Why one image is left out of a copy, decided when its noise is put in or taken off.

An image that gets no noise has its reason in ``data.scan``; the store keeps that reason, and the copy leaves the image out.
"""

from __future__ import annotations

import itertools

from monai_salm.noise.digest import content_digest
from monai_salm.shared.arrays import Array
from monai_salm.shared.images import KEEP_AXES
from monai_salm.store.store import Noise, NoiseStore


class LeftOutError(ValueError):
    """One image that cannot be part of the copy; the others can."""


def require_type(noise: Noise, image: Array, name: str) -> None:
    # Noise made on what a loader turned into floats fits the file if its steps are whole; otherwise integers lose it.
    if image.dtype.kind != "f" and noise.quantum != int(noise.quantum):
        raise LeftOutError(
            f"case {name!r} is stored as {image.dtype.name}, its noise was made for {noise.dtype}; generate it from these files"
        )


def why_missing(store: NoiseStore, image: Array) -> str:
    if store.get_protected(content_digest(image)) is not None:
        return ", but a protected image of it is the same: the input is a protected copy already. Publish the original"
    orders = list(itertools.permutations(range(1, image.ndim)))[1:]  # the first is the image's own
    turned = (image.transpose(0, *order) for order in orders)
    if any(store.has_shape(other.shape) and content_digest(other) in store for other in turned):
        return (
            ", but with its spatial axes in another order it is: the reader that loaded it for the noise exchanged them. Generate "
            f"the noise again with {KEEP_AXES}, or from open_layout(path).dataset('train'), as images are stored"
        )
    if store.has_shape(image.shape):
        return ": its voxels are not those the noise was made for. Generate the noise again from this data set"
    return f": it has shape {image.shape}, the store has {store.shapes()}. Is this the data set the noise was made for?"
