"""AR: autoregressive noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from monai_salm.methods.shortcuts import Drawer, Shortcut
from monai_salm.shared.settings import require


@dataclass(frozen=True, kw_only=True)
class AR(Shortcut):
    """Autoregressive perturbations (Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning", NeurIPS 2022).

    Every element is a weighted sum of those before it in a small window, with weights of the class (and channel) that
    add up to 1; the first elements are random, so that each image's noise differs. A filter of the class' weights gives
    exactly zero on its noise, which is what networks learn. No network. Takes the settings of ``Shortcut``, and:

    Published and kept: a window of 3, weights found at random such that the process does not diverge and other classes'
    filters respond to it. Ours: in volumes the window is a cube; and the published L2 norm of 1 on 3x32x32, 4.6/255 for every
    element, is an ``rms`` of 0.575 at 8/255, clipped (the recurrence holds where nothing was clipped or rounded).

    Args:
        window_size: elements of the window along each axis, at least 2.
    """

    rms: float = 0.575
    window_size: int = field(
        default=3, metadata={"help": "Elements of the autoregressive window along each axis, 2 to 4."}
    )
    name: ClassVar[str] = "ar"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.window_size <= 4, "window_size", "in 2 to 4", self.window_size)

    def drawer(self, num_classes: int, channels: int, rank: int, seed: int) -> Drawer:
        from monai_salm.methods.autoregressive import autoregressive_drawer

        return autoregressive_drawer(num_classes, channels, rank, self.window_size, seed)
