"""The noise that SALM's class textures put into one image, before it is cut to the mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_salm.methods.job import Job
from monai_salm.methods.perturbations import ClassTexture
from monai_salm.methods.textures import area_numbers, opponent, stored_periods, texture, waves_of
from monai_salm.noise.budget import Budget
from monai_salm.shared.arrays import Array


def texture_codes(settings: ClassTexture, image: Array, label: Array, budget: Budget, job: Job) -> Array:
    """The texture of an image's label at full budget, in quanta.

    Args:
        settings: of the texture.
        image: stored array ``(channel, *spatial)``.
        label: of the image, in the task's canonical form.
        budget: what the noise keeps to.
        job: the data set, with the key of its textures.
    """
    found = _codes(settings, image, label, budget, job)
    if not label.ndim or np.any(budget.effective_codes(image, np.broadcast_to(found, image.shape))):
        return found
    # All that is labelled lies outside the window: the image is protected as one without labels.
    return _codes(settings, image, np.zeros_like(label), budget, job)


def _codes(settings: ClassTexture, image: Array, label: Array, budget: Budget, job: Job) -> Array:
    shape, per_voxel = image.shape[1:], job.cases.task.kind == "segmentation"
    periods = stored_periods(settings, shape, budget.units, per_voxel)
    signs = (_map_signs if per_voxel else _class_signs)(label, shape, periods, job)
    if budget.units.picture:
        signs = signs * opponent(image)
    return signs * budget.grid.limits(image.ndim - 1).astype(budget.grid.code_dtype)


def _class_signs(label: Array, shape: Sequence[int], periods: Sequence[float], job: Job) -> Array:
    """Plus and minus one by the class; of several labels each has areas of its own, and an image of none a texture of its own."""
    wide = [axis for axis, side in enumerate(shape) if side > 1] or [0]  # an axis of one element shows no wave
    sides, periods = [shape[axis] for axis in wide], [periods[axis] for axis in wide]
    count, plain = job.cases.task.num_classes, job.plain_class
    if not getattr(job.cases.task, "multi_label", False):
        waves = waves_of(job.key, count - (plain is not None), len(sides))
        number = int(label) - (plain is not None and int(label) > plain)
        return texture(waves[number], sides, periods).reshape(shape)
    waves, present = waves_of(job.key, count + 1, len(sides)), np.flatnonzero(label)
    textures = np.stack([texture(waves[number], sides, periods) for number in (present if len(present) else [-1])])
    areas = area_numbers(job.key, sides, periods, len(textures))
    return np.take_along_axis(textures, areas[None], 0).reshape(shape)


def _map_signs(label: Array, shape: Sequence[int], periods: Sequence[float], job: Job) -> Array:
    """Each label's texture where it is; the background, which is most of an image, has none, unless there is nothing else."""
    waves = waves_of(job.key, job.cases.task.num_classes, label.ndim, True)
    if not label.any():
        return texture(waves[0], shape, periods)
    signs = np.zeros(shape, np.int8)
    for number in np.unique(label[label > 0]):
        signs = np.where(label == number, texture(waves[int(number)], shape, periods), signs)
    return signs
