"""Helpers that know nothing of the rest: files, arrays, threads, images of MONAI, progress, warnings."""
