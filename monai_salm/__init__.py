"""Unlearnable medical images with Sparsity-Aware Local Masking (SALM), as MONAI transforms, in 2D and 3D.

Public names are imported when first used, so that ``import monai_salm`` and ``monai-salm --help`` are quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from monai_salm._version import __version__

if TYPE_CHECKING:
    from monai_salm.cache_keys import salm_hash_transform
    from monai_salm.chains import ChainReport, check_chain
    from monai_salm.evaluation import Protocol, UnlearnabilityReport, evaluate
    from monai_salm.methods import AR, EM, LSP, REM, SALM, SEM, TAP, InterSliceEM, RandomNoise, RoiEM
    from monai_salm.networks import build_network
    from monai_salm.noise.window import IntensityWindow
    from monai_salm.publish import publish, restore, verify
    from monai_salm.store import NoiseStore
    from monai_salm.tasks import Classification, Segmentation
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
        *("SALM", "ClassTexture", "ErrorMinimizing", "recommended"),
        *("TopK", "Everything", "Random", "Foreground", "Region"),
        *("EM", "REM", "SEM", "TAP", "LSP", "AR", "InterSliceEM", "RoiEM", "RandomNoise"),
    ),
    "tasks": ("Classification", "Segmentation"),
    "noise.window": ("FixedWindow", "PercentileWindow", "ChannelWindows", "IntensityWindow"),
    "store": ("NoiseStore",),
    "transforms": (
        "SALMProtect",
        "SALMProtectd",
        "SALMProtectD",
        "SALMProtectDict",
        "SALMRestore",
        "SALMRestored",
        "SALMRestoreD",
        "SALMRestoreDict",
    ),
    "cache_keys": ("salm_hash_transform",),
    "chains": ("check_chain", "ChainReport"),
    "networks": ("build_network",),
    "generate.precompute": ("precompute",),
    "publish": ("publish", "verify", "restore"),
    "evaluation": ("evaluate", "Protocol", "UnlearnabilityReport"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AR",
    "EM",
    "LSP",
    "REM",
    "SALM",
    "SEM",
    "TAP",
    "ChainReport",
    "ChannelWindows",
    "ClassTexture",
    "Classification",
    "ErrorMinimizing",
    "Everything",
    "FixedWindow",
    "Foreground",
    "IntensityWindow",
    "InterSliceEM",
    "NoiseStore",
    "PercentileWindow",
    "Protocol",
    "Random",
    "RandomNoise",
    "Region",
    "RoiEM",
    "SALMProtect",
    "SALMProtectD",
    "SALMProtectDict",
    "SALMProtectd",
    "SALMRestore",
    "SALMRestoreD",
    "SALMRestoreDict",
    "SALMRestored",
    "Segmentation",
    "TopK",
    "UnlearnabilityReport",
    "__version__",
    "build_network",
    "check_chain",
    "evaluate",
    "precompute",
    "publish",
    "recommended",
    "restore",
    "salm_hash_transform",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Named(ModuleType):
    """A module that is called as the public function of its name.

    Python 3.13's ``pydoc.locate``, by which MONAI looks up ``_target_: monai_salm.publish``, finds the module.
    """

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **settings)


class _Package(ModuleType):
    """Keeps ``monai_salm.publish`` and its like the functions.

    Importing a submodule makes Python set it as an attribute of its package, which would hide the function of that name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value.__class__ = _Named
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
