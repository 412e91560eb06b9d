"""Noise methods; a new one is a new file here and a line in ``METHODS``."""

from monai_salm.methods.base import Method
from monai_salm.methods.bilevel import BilevelMethod
from monai_salm.methods.em import EM
from monai_salm.methods.random_noise import RandomNoise
from monai_salm.methods.salm import SALM

METHODS: dict[str, type[Method]] = {method.name: method for method in (SALM, EM, RandomNoise)}

__all__ = ["EM", "METHODS", "SALM", "BilevelMethod", "Method", "RandomNoise"]
