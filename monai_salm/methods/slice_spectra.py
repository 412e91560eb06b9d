"""How much the spectra of neighbouring slices differ."""

from __future__ import annotations

import torch


def slice_distance(noise: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean distance of the amplitude spectra of neighbouring slices of ``(batch, channel, x, y, z)``, a scalar; 0 of one slice."""
    slices = noise.movedim(2 + axis, 2)
    if slices.shape[2] < 2:
        return 0.0 * noise.sum()
    spectrum = torch.fft.rfft2(slices, norm="ortho")
    # The amplitude has no gradient at zero, where noise begins; a speck of power gives it one that is 0.
    amplitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
    return torch.abs(amplitude[:, :, 1:] - amplitude[:, :, :-1]).mean()
