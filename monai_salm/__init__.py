"""Unlearnable medical images with Sparsity-Aware Local Masking (SALM), as MONAI transforms, in 2D and 3D.

Public names are imported when first used, so that ``import monai_salm`` and ``monai-salm --help`` are quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from monai_salm._version import __version__

if TYPE_CHECKING:
    from monai_salm.evaluation.chains import ChainReport, check_chain
    from monai_salm.evaluation.evaluating import evaluate
    from monai_salm.evaluation.protocol import Protocol
    from monai_salm.layouts import open_layout
    from monai_salm.learning.networks import build_network
    from monai_salm.learning.recipes import Recipe
    from monai_salm.learning.tasks import Classification, Segmentation
    from monai_salm.methods import AR, EM, LSP, REM, SALM, SEM, TAP, InterSliceEM, RandomNoise, RoiEM
    from monai_salm.noise.units import Units
    from monai_salm.noise.window import IntensityWindow
    from monai_salm.publishing import publish, restore, verify, verify_copy
    from monai_salm.publishing.copy_job import PublishReport
    from monai_salm.publishing.planning import Plan, plan
    from monai_salm.publishing.sharing import decrypt_store, encrypt_store
    from monai_salm.publishing.statistics import noise_statistics
    from monai_salm.publishing.verifying import VerifyReport
    from monai_salm.report.disk import read_report, write_report
    from monai_salm.report.results import UnlearnabilityReport
    from monai_salm.shared.warn import DataWarning
    from monai_salm.store.cache_keys import salm_hash_transform
    from monai_salm.store.store import NoiseStore
    from monai_salm.transforms import (
        SALMProtect,
        SALMProtectD,
        SALMProtectd,
        SALMProtectDict,
        SALMRestore,
        SALMRestoreD,
        SALMRestored,
        SALMRestoreDict,
    )

_MODULES = {
    "methods": (
        *("SALM", "ClassTexture", "Adversarial", "ErrorMinimizing", "recommended"),
        *("TopK", "Everything", "Random", "Foreground", "Region"),
        *("EM", "REM", "SEM", "TAP", "LSP", "AR", "InterSliceEM", "RoiEM", "RandomNoise"),
    ),
    "learning.tasks": ("Classification", "Segmentation"),
    "noise.window": ("FixedWindow", "PercentileWindow", "ChannelWindows", "IntensityWindow"),
    "store.store": ("NoiseStore",),
    "transforms": (
        *("SALMProtect", "SALMProtectd", "SALMProtectD", "SALMProtectDict"),
        *("SALMRestore", "SALMRestored", "SALMRestoreD", "SALMRestoreDict"),
    ),
    "store.cache_keys": ("salm_hash_transform",),
    "evaluation.chains": ("check_chain", "ChainReport"),
    "learning.networks": ("build_network",),
    "generate.precompute": ("precompute", "PrecomputeSettings"),
    "publishing": ("publish", "verify", "verify_copy", "restore"),
    "evaluation.evaluating": ("evaluate",),
    "evaluation.protocol": ("Protocol",),
    "report.results": ("UnlearnabilityReport",),
    "shared.warn": ("DataWarning",),
    "learning.recipes": ("Recipe",),
    "noise.units": ("Units",),
    "layouts": ("open_layout",),
    "publishing.planning": ("Plan", "plan"),
    "publishing.copy_job": ("PublishReport",),
    "publishing.verifying": ("VerifyReport",),
    "publishing.statistics": ("noise_statistics",),
    "publishing.sharing": ("decrypt_store", "encrypt_store"),
    "report.disk": ("read_report", "write_report"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AR", "EM", "LSP", "REM", "SALM", "SEM", "TAP", "Adversarial", "ChainReport", "ChannelWindows", "ClassTexture",
    "Classification", "DataWarning", "ErrorMinimizing", "Everything", "FixedWindow", "Foreground",
    "IntensityWindow", "InterSliceEM", "NoiseStore", "PercentileWindow", "Plan", "PrecomputeSettings", "Protocol", "PublishReport",
    "Random", "RandomNoise", "Recipe", "Region", "RoiEM", "SALMProtect", "SALMProtectD", "SALMProtectDict",
    "SALMProtectd", "SALMRestore", "SALMRestoreD", "SALMRestoreDict", "SALMRestored", "Segmentation", "TopK",
    "Units", "UnlearnabilityReport", "VerifyReport", "__version__", "build_network", "check_chain", "decrypt_store",
    "encrypt_store", "evaluate", "noise_statistics", "open_layout", "plan", "precompute", "publish", "read_report",
    "recommended", "restore", "salm_hash_transform", "verify", "verify_copy", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
