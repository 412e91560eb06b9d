"""Noise on stored images: windows, grids, digests, and what is kept of finished noise."""
