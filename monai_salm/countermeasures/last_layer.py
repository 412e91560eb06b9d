"""Last-layer retraining: keep the features learned from the published images, and retrain the last layer.

Kirichenko, Izmailov, Wilson 2023, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR,
arXiv 2204.02937; used against unlearnable examples by Sandoval-Segura et al. 2023 (arXiv 2305.19254).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from monai_salm.countermeasures.base import Countermeasure, Resources, require
from monai_salm.learning.cases import Cases, shuffled_batches
from monai_salm.learning.networks import seeded
from monai_salm.learning.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class LastLayer(Countermeasure):
    """Train only the last layer, from fresh weights, on the clean set, with Adam.

    All other weights and the statistics of batch normalisation do not change.

    Args:
        num_steps: batches to train on.
        lr: Adam's learning rate at the start; falls to 0 along a cosine.
        weight_decay: Adam's, in place of the paper's L1 regularisation.
    """

    name: ClassVar[str] = "last_layer"
    needs_clean: ClassVar[bool] = True
    after_training: ClassVar[bool] = True
    num_steps: int = 300
    lr: float = 1e-2
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        require(self.num_steps >= 1, "num_steps", "at least 1", self.num_steps)
        require(math.isfinite(self.lr) and self.lr > 0, "lr", "positive", self.lr)
        decay = self.weight_decay
        require(math.isfinite(decay) and decay >= 0, "weight_decay", "at least 0", decay)

    def finish(self, trainer: Trainer, resources: Resources) -> None:
        layer = find_last_layer(trainer.model)
        with seeded(resources.seed, trainer.device), only_trainable(trainer.model, layer):
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
            optimizer = torch.optim.Adam(layer.parameters(), self.lr, weight_decay=self.weight_decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps)
            batches = _batches(trainer, layer, resources.clean, resources.generator())
            for _ in range(self.num_steps):
                logits, targets = next(batches)
                optimizer.zero_grad(set_to_none=True)
                trainer.task.loss(logits, targets).backward()
                norm = nn.utils.clip_grad_norm_(layer.parameters(), trainer.recipe.clip)
                if torch.isfinite(norm):
                    optimizer.step()
                else:
                    trainer.fall_back(f"gradients of the last layer are {float(norm)}")
                schedule.step()
            optimizer.zero_grad(set_to_none=True)


def find_last_layer(model: nn.Module) -> nn.Module:
    """The module defined last of those that hold parameters themselves."""
    return [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))][-1]


@contextmanager
def only_trainable(model: nn.Module, layer: nn.Module) -> Iterator[None]:
    """Evaluation mode, and gradients for one layer only, inside the block."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval().requires_grad_(False)
        layer.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _batches(
    trainer: Trainer, layer: nn.Module, cases: Cases, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of logits and labels, of regions as in ``learning.trainer.fit``."""
    # Features of whole images are computed once; those of segmentation would fill memory.
    whole = cases.task.kind == "classification" and cases.view.kind != "patch"
    features = _features(trainer, layer, cases) if whole else None
    for members in shuffled_batches(len(cases), trainer.recipe.batch_size, generator):
        regions = [(c, cases.view.random_region(cases.images[c].shape[1:], generator)) for c in members]
        targets = cases.targets(regions).to(trainer.device)
        if features is None:
            inputs = cases.inputs(regions)
            yield trainer.forward(inputs.to(trainer.device)), targets
        else:
            yield layer(features[members]), targets


@torch.no_grad()
def _features(trainer: Trainer, layer: nn.Module, cases: Cases) -> torch.Tensor | None:
    """Inputs of the layer for each case; None if the network changes what the layer gives."""
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        given.append(inputs[0].float())
        made.append(output.float())

    handle = layer.register_forward_hook(keep)
    try:
        for start in range(0, len(cases), trainer.recipe.batch_size):
            members = range(start, min(len(cases), start + trainer.recipe.batch_size))
            regions = [(c, tuple(slice(0, n) for n in cases.images[c].shape[1:])) for c in members]
            logits = trainer.forward(cases.inputs(regions).to(trainer.device))
            if len(given) != 1 + start // trainer.recipe.batch_size or not torch.equal(made[-1], logits):
                return None
    finally:
        handle.remove()
    return torch.cat(given)
