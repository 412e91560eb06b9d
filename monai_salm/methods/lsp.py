"""LSP: linearly separable patches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from monai_salm.methods.shortcuts import Drawer, Shortcut
from monai_salm.shared.settings import require


@dataclass(frozen=True, kw_only=True)
class LSP(Shortcut):
    """Linearly separable perturbations (Yu et al., "Availability Attacks Create Shortcuts", KDD 2022); no network.

    An image is cut into a few patches along each axis, and every patch and channel moves by one value: a point drawn from a
    cluster of the class, about a vertex of a cube. Takes the settings of ``Shortcut``, and:

    Published and kept: patches of 8x8 on images of 32x32, that is 4 along each axis, and the clusters' shape. Ours: the
    patches' number stays and their size follows the image, so that images of all sizes agree once resized; the vertices
    are chosen far apart; and the published L2 norm, 6/255 for every element, is an ``rms`` of 0.75 at 8/255, clipped.

    Args:
        patches: patches along each axis of an image.
    """

    patches: int = field(default=4, metadata={"help": "Patches along each axis of an image."})
    name: ClassVar[str] = "lsp"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.patches >= 1, "patches", "at least 1", self.patches)

    def drawer(self, num_classes: int, channels: int, rank: int, seed: int) -> Drawer:
        from monai_salm.methods.separable_patches import patch_drawer

        return patch_drawer(num_classes, channels, rank, self.patches, seed)
