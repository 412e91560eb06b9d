"""Which elements of an image noise may change: the settings of masks. ``mask_elements`` chooses the elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from monai_salm.shared.settings import require

if TYPE_CHECKING:
    import torch

    from monai_salm.learning.cases import Slices
    from monai_salm.shared.arrays import Array

_SCOPES = ("sample", "step")
_PARTS = ("both", "contour", "texture")


@dataclass(frozen=True, kw_only=True)
class Mask(ABC):
    """Settings of a mask."""

    name: ClassVar[str]
    #: Whether the choice depends on the images.
    sees_images: ClassVar[bool] = False

    @property
    def share(self) -> float:
        """Largest share of an image's elements that the mask may hold."""
        return 1.0

    @property
    def fixed(self) -> bool:
        """Whether the mask of an image is chosen once, before its noise, and kept."""
        return False

    @property
    def smoothing(self) -> int:
        """Edge of the neighbourhood that a gradient is averaged over before elements are chosen, elements of the view."""
        return 1

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor | None:
        """The elements that noise may change.

        Args:
            score: gradient magnitude of the surrogate's loss, averaged, ``(batch, channel, *spatial)``; may be written to.
            image: the images without noise, in [0, 1], same shape; not read unless ``sees_images``.
            carriers: elements that can carry noise at all, boolean, same shape.
            generator: source of randomness, on the CPU.

        Returns:
            Boolean tensor of that shape, or None for all elements.
        """
        return None

    def support(self, label: Array, tile: Slices) -> Array | None:
        """Elements of a tile that may ever carry noise by the label alone, a boolean array of its shape; None for all.

        Args:
            label: the whole label of the case.
            tile: the part of the image in question.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class Everything(Mask):
    """All elements."""

    name: ClassVar[str] = "everything"


@dataclass(frozen=True, kw_only=True)
class _Share(Mask):
    """A share of the elements of each image.

    Args:
        ratio: share of an image's elements, in (0, 1].
        scope: ``"sample"`` for one mask an image, ``"step"`` for another mask at each noise step.
    """

    ratio: float = 0.3
    scope: str = "sample"

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 1, "mask ratio", "in (0, 1]", self.ratio)
        require(self.scope in _SCOPES, "mask scope", f"one of {_SCOPES}", self.scope)

    @property
    def share(self) -> float:
        return self.ratio if self.fixed else 1.0

    @property
    def fixed(self) -> bool:
        return self.scope == "sample"

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        from monai_salm.methods.mask_elements import topk_mask

        k = mask_size(score[0].numel(), self.ratio)
        ranked = self._rank(score, image, generator)
        # They are no more than the mask may hold. A GPU would wait for the count, and finds them below as well.
        if carriers.device.type == "cpu" and all(int(own.count_nonzero()) <= k for own in carriers):
            return carriers.clone()
        ranked = ranked.masked_fill_(~carriers, -1.0)
        return topk_mask(ranked, k).logical_and_(carriers)

    @abstractmethod
    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Numbers of at least 0, the largest for the elements to choose first."""


@dataclass(frozen=True, kw_only=True)
class TopK(_Share):
    """The elements with the largest gradients: SALM's mask (arXiv 2403.10573).

    Args:
        ratio: share of an image's elements, in (0, 1].
        scope: ``"sample"`` for one mask an image, ``"step"`` for another mask at each noise step.
        area: edge of the neighbourhood that gradients are averaged over, elements of what the surrogate sees, odd; 1 chooses
            elements one by one.
    """

    area: int = 1
    name: ClassVar[str] = "top_k"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.area >= 1 and self.area % 2 == 1, "mask area", "odd and at least 1", self.area)

    @property
    def smoothing(self) -> int:
        return self.area

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return score


@dataclass(frozen=True, kw_only=True)
class Random(_Share):
    """Elements drawn at random: the control of equal ratio."""

    name: ClassVar[str] = "random"

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return _drawn(score, generator)


@dataclass(frozen=True, kw_only=True)
class Foreground(_Share):
    """Elements drawn at random among those above their image's mean."""

    name: ClassVar[str] = "foreground"
    sees_images: ClassVar[bool] = True

    def _rank(self, score: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        flat = image.flatten(1)
        above = flat > flat.mean(dim=1, keepdim=True)
        above |= ~above.any(dim=1, keepdim=True)  # a constant image has no foreground: all of it counts
        return _drawn(flat, generator).masked_fill(~above, -1.0).view_as(image)

    def choose(
        self, score: torch.Tensor, image: torch.Tensor, carriers: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        from monai_salm.methods.mask_elements import topk_mask

        ranked = self._rank(score, image, generator).masked_fill(~carriers, -1.0)
        return topk_mask(ranked, mask_size(score[0].numel(), self.ratio)) & (ranked >= 0)


@dataclass(frozen=True, kw_only=True)
class Region(Mask):
    """The labelled region of a segmentation and its surroundings, in the manner of UMed (Lin et al., arXiv 2403.14250).

    A map of nothing but background counts as region throughout, so that the image gets noise.

    Args:
        margin: elements around the foreground (label above 0), along every axis and diagonal.
        part: ``"both"`` is the foreground with its margin, ``"texture"`` the foreground alone, and ``"contour"`` the margin
            on either side of its boundary.
    """

    margin: int = field(
        default=3, metadata={"help": "Elements around the foreground (label above 0), along every axis and diagonal."}
    )
    part: str = field(
        default="both",
        metadata={
            "help": "The foreground with its margin, the foreground, or the margin on both sides of its edge.",
            "values": ("both", "texture", "contour"),
        },
    )
    name: ClassVar[str] = "region"

    def __post_init__(self) -> None:
        require(self.margin >= 0, "margin", "at least 0", self.margin)
        require(self.part in _PARTS, "part", f"one of {_PARTS}", self.part)
        if self.part == "contour" and self.margin == 0:
            raise ValueError('part "contour" needs a margin of at least 1, got 0')

    def support(self, label: Array, tile: Slices) -> Array:
        from monai_salm.methods.mask_elements import region

        return region(label, tile, self.margin, self.part)


MASKS: dict[str, type[Mask]] = {mask.name: mask for mask in (TopK, Everything, Random, Foreground, Region)}


def mask_size(elements: int, ratio: float) -> int:
    """Number of elements a mask of this share of an image's elements selects: at least one."""
    return max(1, round(ratio * elements))


def _drawn(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.rand(like.shape, generator=generator).to(like.device)
