"""The one training loop, for the surrogates that make noise and the victims that test it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import nn

from monai_salm.cases import Cases, shuffled_batches
from monai_salm.tasks import Task

logger = logging.getLogger(__name__)

# Most voxels predicted at once, so that memory stays bounded however large the images are.
_PREDICTED_VOXELS = 2**24

#: Changes a batch: ``(images, targets, generator) -> (images, targets)``, images normalised.
Augmentation: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


class TrainingError(RuntimeError):
    """Training broke down: gradients are not finite even in float32."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Args:
        optimizer: ``"sgd"`` (momentum 0.9, weight decay 5e-4, as EM's published code) or ``"adam"``.
        lr: learning rate at the start; ``fit`` lets it fall to 0 along a cosine.
        batch_size: cases in a batch.
        clip: largest gradient norm.
        precision: ``"auto"``, ``"bfloat16"`` or ``"float32"``. ``"auto"`` is bfloat16 where the hardware has it,
            but float32 for 3D on the CPU, where bfloat16 gave infinite gradients (torch 2.14, MONAI resnet10).
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    batch_size: int = 128
    clip: float = 5.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"optimizer must be sgd or adam, got {self.optimizer!r}")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise ValueError(f"precision must be auto, bfloat16 or float32, got {self.precision!r}")
        for name in ("lr", "batch_size", "clip"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)) and not (name == "lr" and value == 0):
                raise ValueError(f"{name} must be positive, got {value}")


def default_recipe(task: Task, spatial_dims: int) -> Recipe:
    """SGD at 0.1 for 2D classification; Adam at 1e-3 in smaller batches for volumes and for segmentation."""
    if spatial_dims == 2 and task.kind == "classification":
        return Recipe()
    batch_size = 32 if task.kind == "classification" else (8 if spatial_dims == 2 else 4)
    return Recipe(optimizer="adam", lr=1e-3, batch_size=batch_size)


def choose_precision(precision: str, device: torch.device, spatial_dims: int) -> str:
    """Resolve ``"auto"`` as ``Recipe`` describes."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if spatial_dims == 2 and _cpu_computes_bfloat16() else "float32"


def _cpu_computes_bfloat16() -> bool:
    # torch names no public test for it; without these instructions bfloat16 is emulated and slower than float32.
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(test is not None and test() for test in tests)


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is the first CUDA device, else the CPU; anything else is torch's own name.

    Raises:
        ValueError: for a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device} asked for, but torch finds no CUDA device; use --device cpu or auto")
        resolved = torch.device("cuda", resolved.index or 0)
    return resolved


class Trainer:
    """One network in training.

    Args:
        model: fresh network; moved to the device.
        task: the learning problem.
        recipe: how to train.
        device: where to train.
        spatial_dims: 2 or 3.
        total_steps: length of the cosine schedule; None keeps the learning rate.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        device: torch.device,
        spatial_dims: int,
        total_steps: int | None = None,
    ) -> None:
        self.memory_format = torch.channels_last if spatial_dims == 2 else torch.contiguous_format
        self.model = model.to(device).to(memory_format=self.memory_format).train()
        self.task, self.recipe, self.device = task, recipe, device
        self.precision = choose_precision(recipe.precision, device, spatial_dims)
        self.optimizer = _make_optimizer(self.model, recipe)
        self._schedule = None
        if total_steps is not None:
            self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, max(1, total_steps))

    def forward(self, inputs: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        """Logits in float32 for normalised inputs on this device, of ``model`` or of the network in training."""
        inputs = inputs.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits: torch.Tensor = (model or self.model)(inputs)
        return logits.float()

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Train on one batch and return its error before the step.

        A batch whose gradients are not finite is computed again in float32, which training then stays in.

        Raises:
            TrainingError: if float32 does not help.
        """
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward(inputs)
        self.task.loss(logits, targets).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        if not torch.isfinite(norm):
            self.fall_back(f"gradients of a training step are {float(norm)}")
            return self.step(inputs, targets)
        self.optimizer.step()
        if self._schedule is not None:
            self._schedule.step()
        return self.task.error(logits.detach(), targets)

    def fall_back(self, reason: str) -> None:
        """Leave bfloat16 for float32, saying so.

        Raises:
            TrainingError: if training is in float32 already.
        """
        if self.precision == "float32":
            raise TrainingError(
                f"{reason} in float32: check the images for extreme values and the window, or lower the learning rate "
                f"(now {self.recipe.lr:g})"
            )
        logger.warning("%s in bfloat16 on %s: going on in float32", reason, self.device)
        self.precision = "float32"

    @torch.no_grad()
    def recalibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure the statistics of batch normalisation anew, with the weights as they are now.

        After a few steps at a high learning rate the running averages describe weights that are gone, and the network
        is at chance in evaluation mode however well it trained.

        Args:
            batches: normalised inputs.
        """
        norms = [
            m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
        for inputs in batches:
            self.forward(inputs.to(self.device))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    @torch.no_grad()
    def predict(self, cases: Cases, images: Sequence[np.ndarray[Any, Any]] | None = None) -> list[torch.Tensor]:
        """Predict every case, in evaluation mode, whole (patch views by sliding window).

        Args:
            cases: what to predict.
            images: taken in place of ``cases.images`` if given.

        Returns:
            ``task.predict`` output for each case, on the CPU.
        """
        cases = cases if images is None else replace(cases, images=images)
        self.model.eval()
        outputs: list[torch.Tensor] = []
        try:
            if cases.view.kind == "patch":
                for case in range(len(cases)):
                    outputs += self._predict_batch(cases, [case], whole=True)
            else:
                voxels = cases.in_channels * math.prod(cases.view.size)
                size = max(1, min(4 * self.recipe.batch_size, _PREDICTED_VOXELS // voxels))
                for start in range(0, len(cases), size):
                    outputs += self._predict_batch(cases, range(start, min(len(cases), start + size)), whole=False)
        finally:
            self.model.train()
        return outputs

    def _predict_batch(self, cases: Cases, members: Sequence[int], whole: bool) -> list[torch.Tensor]:
        regions = [(c, tuple(slice(0, n) for n in cases.images[c].shape[1:])) for c in members]
        inputs = cases.window.normalize(cases.inputs(regions).to(self.device))
        if whole:
            logits = sliding_window_inference(inputs, cases.view.size, 4, self.forward, overlap=0.5)
            assert isinstance(logits, torch.Tensor)
        else:
            logits = self.forward(inputs)
        return list(self.task.predict(logits).cpu().unbind(0))


def _make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), recipe.lr, momentum=0.9, weight_decay=5e-4)
    return torch.optim.Adam(model.parameters(), recipe.lr)


def fit(trainer: Trainer, cases: Cases, epochs: int, seed: int, augment: Augmentation | None = None) -> Iterator[float]:
    """Train for some epochs, giving control back after each.

    Args:
        trainer: a fresh network; its ``total_steps`` should be ``epochs * steps_per_epoch(cases, recipe)``.
        cases: training set.
        epochs: passes over it (at least ``steps_per_epoch`` steps each).
        seed: of the order of cases, patches and augmentation.
        augment: changes every batch.

    Yields:
        The mean training score (1 - error) of each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = shuffled_batches(len(cases), trainer.recipe.batch_size, generator)
    for _ in range(epochs):
        errors = []
        for _ in range(steps_per_epoch(cases, trainer.recipe)):
            regions = [(c, cases.view.random_region(cases.images[c].shape[1:], generator)) for c in next(batches)]
            inputs, targets = cases.window.normalize(cases.inputs(regions)), cases.targets(regions)
            if augment is not None:
                inputs, targets = augment(inputs, targets, generator)
            errors.append(trainer.step(inputs, targets))
        yield 1.0 - float(torch.stack(errors).mean())


def steps_per_epoch(cases: Cases, recipe: Recipe) -> int:
    """Batches in one pass: enough to visit every case, and for patches about every voxel, once."""
    regions = len(cases)
    if cases.view.kind == "patch":
        patch = math.prod(cases.view.size)
        regions = math.ceil(sum(max(1.0, math.prod(image.shape[1:]) / patch) for image in cases.images))
    return math.ceil(regions / min(recipe.batch_size, len(cases)))


def standard_augmentation(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, shift: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random flips and random shift of up to ``shift`` voxels (zero padding), each case its own.

    Images are flipped left to right (the last axis), volumes along each of their axes, as MONAI's tutorials do: which
    axis of a volume is the body's left and right depends on its orientation.

    Args:
        images: ``(batch, channel, *spatial)``.
        targets: labels; moved along with the images where they are per voxel.
        generator: source of randomness, on the CPU.
        shift: largest shift, voxels.
    """
    rank = images.ndim - 2
    flips = torch.rand((len(images), 1 if rank == 2 else rank), generator=generator) < 0.5
    shifts = torch.randint(2 * shift + 1, (len(images), rank), generator=generator)
    images = _flip_and_shift(images, flips, shifts, shift)
    if targets.ndim == rank + 1:
        targets = _flip_and_shift(targets[:, None], flips, shifts, shift)[:, 0]
    return images, targets


def _flip_and_shift(batch: torch.Tensor, flips: torch.Tensor, shifts: torch.Tensor, margin: int) -> torch.Tensor:
    size, rank = batch.shape[2:], batch.ndim - 2
    for axis, flip in enumerate(flips.to(batch.device).unbind(1), start=-flips.shape[1]):
        batch = torch.where(flip.view(-1, *[1] * (batch.ndim - 1)), batch.flip(axis), batch)
    padded = F.pad(batch, [margin] * (2 * rank))
    out = torch.empty_like(batch)
    for index, offset in enumerate(shifts.tolist()):
        window = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
        out[index] = padded[index][(slice(None), *window)]
    return out
