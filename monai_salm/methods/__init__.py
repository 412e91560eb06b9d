"""Noise methods; a new one is a new file here and a line in ``METHODS``."""

from monai_salm.methods.ar import AR
from monai_salm.methods.base import Method
from monai_salm.methods.bilevel import BilevelMethod
from monai_salm.methods.em import EM
from monai_salm.methods.lsp import LSP
from monai_salm.methods.random_noise import RandomNoise
from monai_salm.methods.rem import REM, SEM
from monai_salm.methods.salm import SALM
from monai_salm.methods.segmentation import InterSliceEM, RoiEM
from monai_salm.methods.tap import TAP

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (SALM, EM, REM, SEM, TAP, LSP, AR, InterSliceEM, RoiEM, RandomNoise)
}

__all__ = [
    "AR",
    "EM",
    "LSP",
    "METHODS",
    "REM",
    "SALM",
    "SEM",
    "TAP",
    "BilevelMethod",
    "InterSliceEM",
    "Method",
    "RandomNoise",
    "RoiEM",
]
