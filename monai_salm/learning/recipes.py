"""How networks are trained: optimiser, learning rate, batch size, precision; and the default for each problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from monai_salm.learning.networks import TRANSFORMERS
from monai_salm.learning.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Args:
        optimizer: ``"sgd"`` (momentum 0.9, weight decay 5e-4, as EM's published code) or ``"adam"``.
        lr: learning rate at the start.
        schedule: of the learning rate in ``fit``: ``"cosine"`` to 0, or ``"steps"``, to a tenth after a half and after three
            quarters of the training (MedMNIST's recipe, Yang et al. 2023).
        batch_size: cases in a batch.
        clip: largest gradient norm; infinite for none.
        precision: ``"auto"``, ``"bfloat16"`` or ``"float32"``. ``"auto"`` is bfloat16 where the hardware has it,
            but float32 for 3D on the CPU, where bfloat16 gave infinite gradients (torch 2.14, MONAI resnet10).
        compile: whether networks run through ``torch.compile``, on a GPU with CUDA graphs. Each fresh network compiles for a
            minute or more, so only long rounds gain; on the CPU it needs a C++ compiler. Results differ in the last bits.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    schedule: str = "cosine"
    batch_size: int = 128
    clip: float = 5.0
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"optimizer must be sgd or adam, got {self.optimizer!r}")
        if self.schedule not in ("cosine", "steps"):
            raise ValueError(f"schedule must be cosine or steps, got {self.schedule!r}")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise ValueError(f"precision must be auto, bfloat16 or float32, got {self.precision!r}")
        for name in ("lr", "batch_size", "clip"):
            value = getattr(self, name)
            unbounded = name == "clip" and value == math.inf
            if not (value > 0 and math.isfinite(value)) and not (name == "lr" and value == 0) and not unbounded:
                raise ValueError(f"{name} must be positive, got {value}")


def default_recipe(task: Task, spatial_dims: int, network: object = None) -> Recipe:
    """SGD at 0.1 for 2D classification; Adam at 1e-3 for transformers, and in smaller batches for volumes and segmentation."""
    if spatial_dims == 2 and task.kind == "classification":
        return Recipe(optimizer="adam", lr=1e-3) if network in TRANSFORMERS else Recipe()
    batch_size = 32 if task.kind == "classification" else (8 if spatial_dims == 2 else 4)
    return Recipe(optimizer="adam", lr=1e-3, batch_size=batch_size)


#: The recipe of MedMNIST's published scores (Yang et al. 2023): 100 epochs of it, full width.
MEDMNIST_RECIPE = Recipe(
    optimizer="adam", lr=1e-3, schedule="steps", batch_size=128, clip=math.inf, precision="float32"
)


def choose_precision(precision: str, device: torch.device, spatial_dims: int) -> str:
    """Resolve ``"auto"`` as ``Recipe`` describes."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if spatial_dims == 2 and _cpu_computes_bfloat16() else "float32"


def _cpu_computes_bfloat16() -> bool:
    # torch has no public test for it; without these instructions bfloat16 is emulated and slow.
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(test is not None and test() for test in tests)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), recipe.lr, momentum=0.9, weight_decay=5e-4)
    return torch.optim.Adam(model.parameters(), recipe.lr)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a recipe's learning rate over ``total_steps``."""
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
    milestones = [total_steps // 2, total_steps * 3 // 4]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
