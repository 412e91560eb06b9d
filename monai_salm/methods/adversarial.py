"""Adversarial perturbations inside an L-infinity ball, against which surrogates train."""

from __future__ import annotations

import torch

from monai_salm.methods.base import Loss

# The attack's steps are a fifth of its radius, as published (0.8/255 of 4/255).
_ATTACK_STEPS_TO_EDGE = 5


def random_start(inputs: torch.Tensor, radius: float, generator: torch.Generator) -> torch.Tensor:
    """A perturbation drawn evenly from the L-infinity ball of this radius, kept inside [0, 1] with its inputs."""
    drawn = torch.rand(inputs.shape, generator=generator).to(inputs.device) * (2 * radius) - radius
    clean = inputs.detach()
    return (clean + drawn).clamp(0, 1) - clean


def adversarial(
    loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, radius: float, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """The perturbation of projected gradient ascent on a loss (Madry et al., ICLR 2018), L-infinity, from a random start.

    No gradient flows through it. The radius is a fraction of the window's width; each step is a fifth of it.
    """
    clean = inputs.detach()
    low, high = (clean - radius).clamp(0, 1), (clean + radius).clamp(0, 1)
    moved = clean + random_start(inputs, radius, generator)
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(moved, targets), moved)
        moved = moved.detach() + radius / _ATTACK_STEPS_TO_EDGE * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, low), high)
    return moved - clean
