"""Error-minimising noise for segmentation: shaped across slices, or kept to the region of interest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from monai_salm.methods.em import EM
from monai_salm.methods.masks import Mask, Region
from monai_salm.shared.settings import require

if TYPE_CHECKING:
    import torch

    from monai_salm.learning.tasks import Task


@dataclass(frozen=True, kw_only=True)
class InterSliceEM(EM):
    """EM for volumes with labels per voxel, whose noise changes from slice to slice, in the manner of VoxShield
    (Liu et al., arXiv 2605.17345).

    3D networks rely on neighbouring slices being alike. Noise steps lower the surrogate's loss and raise the distance of
    neighbouring slices' amplitude spectra. Of the paper this has the inter-slice term, and takes it of the noise; its
    generator network and its term on the logits are left out, and the loop, the term's scale and its weight are ours. Takes
    EM's settings and defaults, and:

    Args:
        slice_weight: weight of the inter-slice term beside the surrogate's loss.
        slice_axis: spatial axis across which slices are stacked, 0 to 2.
    """

    slice_weight: float = field(
        default=1.0, metadata={"help": "Weight of the inter-slice term beside the surrogate's loss."}
    )
    slice_axis: int = field(default=2, metadata={"help": "Spatial axis across which slices are stacked, 0 to 2."})
    name: ClassVar[str] = "interslice_em"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.slice_weight >= 0, "slice_weight", "at least 0", self.slice_weight)
        require(self.slice_axis in (0, 1, 2), "slice_axis", "0, 1 or 2", self.slice_axis)

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        _require_segmentation(self, task)
        if spatial_dims != 3:
            raise ValueError(f"{self.name} shapes noise across the slices of volumes, these are images; use em")

    def penalty(self, noise: torch.Tensor, images: torch.Tensor) -> torch.Tensor | None:
        from monai_salm.methods.slice_spectra import slice_distance

        return None if self.slice_weight == 0 else -self.slice_weight * slice_distance(noise, self.slice_axis)


@dataclass(frozen=True, kw_only=True)
class RoiEM(EM):
    """EM whose noise stays in and around the region of interest, in the manner of UMed (Lin et al., arXiv 2403.14250).

    All other elements keep the original's bits. Of the paper this has the restriction to the contour and the texture of
    what is labelled; its two generator networks are left out, and the margin is ours. EM's settings and defaults, with the
    mask ``Region``.
    """

    mask: Mask = Region()
    name: ClassVar[str] = "roi_em"

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        _require_segmentation(self, task)


def _require_segmentation(method: EM, task: Task) -> None:
    if task.kind != "segmentation":
        raise ValueError(f"{method.name} needs labels per voxel (segmentation), this is {task.kind}; use em")
