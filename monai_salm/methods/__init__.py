"""Noise methods; a new one is a new file here and a line in ``presets.METHODS``. Settings import neither torch nor NumPy."""

from monai_salm.methods.ar import AR
from monai_salm.methods.base import BilevelMethod, Method
from monai_salm.methods.em import EM
from monai_salm.methods.lsp import LSP
from monai_salm.methods.masks import Everything, Foreground, Random, Region, TopK
from monai_salm.methods.perturbations import Adversarial, ClassTexture, ErrorMinimizing
from monai_salm.methods.presets import METHODS, method_from_spec, recommended
from monai_salm.methods.random_noise import RandomNoise
from monai_salm.methods.rem import REM, SEM
from monai_salm.methods.salm import SALM
from monai_salm.methods.segmentation import InterSliceEM, RoiEM
from monai_salm.methods.tap import TAP

__all__ = [
    "AR",
    "EM",
    "LSP",
    "METHODS",
    "REM",
    "SALM",
    "SEM",
    "TAP",
    "Adversarial",
    "BilevelMethod",
    "ClassTexture",
    "ErrorMinimizing",
    "Everything",
    "Foreground",
    "InterSliceEM",
    "Method",
    "Random",
    "RandomNoise",
    "Region",
    "RoiEM",
    "TopK",
    "method_from_spec",
    "recommended",
]
