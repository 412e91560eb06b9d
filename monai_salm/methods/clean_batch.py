"""A batch of images as noise steps need it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class CleanBatch:
    """A batch of images of one shape as noise steps need them; all tensors are ``(batch, channel, ...)``.

    Args:
        images: normalised.
        lower: smallest code of each element.
        upper: largest code of each element.
        shares: one code as a share of the window's width, for each channel.
        lengths: a noise step in codes, for each channel.
    """

    images: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    shares: torch.Tensor
    lengths: torch.Tensor

    @cached_property
    def carriers(self) -> torch.Tensor:
        """Elements that can carry noise."""
        return (self.lower < 0) | (self.upper > 0)

    def clip(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes within their bounds."""
        return torch.clamp(codes, self.lower, self.upper)
