"""How ordinary trainers prepare images; a new pipeline is one class here and one entry in ``FAMILIES``."""

from __future__ import annotations

from collections.abc import Sequence

from monai_salm.evaluation.pipelines.auto3dseg import Auto3DSeg
from monai_salm.evaluation.pipelines.base import Pipeline, Plain
from monai_salm.evaluation.pipelines.jpeg import StoredAsJpeg
from monai_salm.evaluation.pipelines.medmnist import MedMnist
from monai_salm.evaluation.pipelines.monai import Monai
from monai_salm.evaluation.pipelines.nnunet import NnUNet
from monai_salm.evaluation.pipelines.resampling import Resized, Spacing
from monai_salm.evaluation.pipelines.timm import Timm
from monai_salm.evaluation.pipelines.torchvision import Torchvision

#: The variants that each name stands for, in the order of reports.
FAMILIES: dict[str, tuple[Pipeline, ...]] = {
    "plain": (Plain(),),
    "monai": (Monai(),),
    "resized": (Resized(scale=0.5), Resized(scale=0.75), Resized(scale=1.15)),
    "nnunet": (NnUNet(),),
    "auto3dseg": (Auto3DSeg(),),
    "torchvision": (Torchvision(),),
    "timm": (Timm(),),
    "medmnist": (MedMnist(),),
    "jpeg": (StoredAsJpeg(),),
    "spacing": (Spacing(factor=1.25), Spacing(factor=1.5)),
}
#: Every variant by its own name.
PIPELINES: dict[str, Pipeline] = {item.name: item for items in FAMILIES.values() for item in items}
#: What is trained unless other pipelines are asked for, by rank.
DEFAULT_PIPELINES = {2: ("plain", "resized", "nnunet"), 3: ("plain", "resized", "nnunet", "spacing")}

__all__ = [
    "DEFAULT_PIPELINES",
    "FAMILIES",
    "PIPELINES",
    "Auto3DSeg",
    "MedMnist",
    "Monai",
    "NnUNet",
    "Pipeline",
    "Plain",
    "Resized",
    "Spacing",
    "StoredAsJpeg",
    "Timm",
    "Torchvision",
    "check_pipelines",
    "find_pipelines",
]


def check_pipelines(names: Sequence[str]) -> None:
    """Raise ``ValueError`` for a name that no pipeline has, naming the known ones."""
    for name in names:
        if name not in FAMILIES and name not in PIPELINES:
            raise ValueError(f"unknown pipeline {name!r}; known: {', '.join(dict.fromkeys((*FAMILIES, *PIPELINES)))}")


def find_pipelines(names: Sequence[str] | None, spatial_dims: int) -> dict[str, Pipeline]:
    """Pipelines by names of families or variants, ``"plain"`` first; None is ``DEFAULT_PIPELINES``.

    ``ValueError`` names one that is unknown, or not for images of this rank.
    """
    asked = ("plain", *(DEFAULT_PIPELINES[spatial_dims] if names is None else names))
    check_pipelines(asked)
    found = {item.name: item for name in asked for item in (FAMILIES.get(name) or (PIPELINES[name],))}
    for name, item in found.items():
        if spatial_dims not in item.ranks:
            known = [n for n, family in FAMILIES.items() if spatial_dims in family[0].ranks]
            raise ValueError(
                f"pipeline {name!r} is for images of rank {item.ranks[0]}, these have {spatial_dims}; give some of "
                f"{', '.join(known)}"
            )
    return found
