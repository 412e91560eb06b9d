"""The settings that are recommended for a learning problem, complete; and settings read back from their plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from monai_salm.methods.ar import AR
from monai_salm.methods.base import Method
from monai_salm.methods.em import EM
from monai_salm.methods.lsp import LSP
from monai_salm.methods.masks import MASKS
from monai_salm.methods.perturbations import PERTURBATIONS, Adversarial, ClassTexture
from monai_salm.methods.random_noise import RandomNoise
from monai_salm.methods.rem import REM, SEM
from monai_salm.methods.salm import SALM
from monai_salm.methods.segmentation import InterSliceEM, RoiEM
from monai_salm.methods.tap import TAP
from monai_salm.shared.settings import require

if TYPE_CHECKING:
    from monai_salm.learning.tasks import Task

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (SALM, EM, REM, SEM, TAP, LSP, AR, InterSliceEM, RoiEM, RandomNoise)
}
#: Recommended for label maps in 2D: noise that outlives resizing and augmentation, where contrast is low.
FOR_LABEL_MAPS = SALM(mask_area=5, perturbation=Adversarial())
#: In 3D adversarial steps take long and protected nothing (docs/experiments.md). Only the finest texture fits into a thin structure,
#: and labels without it teach the anatomy.
FOR_LABELLED_VOLUMES = SALM(mask_area=5, perturbation=ClassTexture(period=2.0, sees_texture=True, surrogate_steps=150))
# Images with a shorter side are small.
_SMALL = 48
# Settings that are settings themselves, by the name of their field.
_NESTED: dict[str, Mapping[str, type[Any]]] = {"mask": MASKS, "perturbation": PERTURBATIONS}


def recommended(task: Task, spatial_dims: int, image_size: Sequence[int] = (), epsilon: float = 8 / 255) -> SALM:
    """Complete settings for a learning problem, by measurement (docs/experiments.md).

    Args:
        task: the learning problem.
        spatial_dims: 2 or 3.
        image_size: spatial size of the images, the median where they differ; empty if it is not known.
        epsilon: budget as a fraction of each image's window.
    """
    require(spatial_dims in (2, 3), "spatial_dims", "2 or 3", spatial_dims)
    if task.kind == "segmentation":
        return replace(FOR_LABEL_MAPS if spatial_dims == 2 else FOR_LABELLED_VOLUMES, epsilon=epsilon)
    # Few long periods fit into a small picture, and small crops are learned fast.
    if spatial_dims == 2 and image_size and min(image_size) < _SMALL:
        return SALM(epsilon=epsilon, perturbation=ClassTexture(period=2.0))
    return SALM(epsilon=epsilon)


def method_from_spec(spec: Mapping[str, Any]) -> Method:
    """The settings that ``Method.spec`` describes; KeyError, TypeError or ValueError if it describes none, or not all."""
    values = dict(spec)
    kind = METHODS[values.pop("name")]
    return kind(**_complete(kind, values))


def _complete(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values with settings inside them built; all of them must be there, for defaults change."""
    missing = sorted({field.name for field in fields(kind)} - set(values))
    if missing:
        raise KeyError(f"no {', '.join(missing)}")
    for name, kinds in _NESTED.items():
        if name in values:
            inner = dict(values[name])
            own = kinds[inner.pop("name")]
            values[name] = own(**_complete(own, inner))
    return values
