"""The one training loop, for the surrogates that make noise and the victims that test it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from monai_salm.learning.augmentation import Augmentation
from monai_salm.learning.cases import Cases, shuffled_batches
from monai_salm.learning.networks.devices import memory_format, to_device
from monai_salm.learning.recipes import Recipe, choose_precision, make_optimizer, make_schedule
from monai_salm.learning.tasks import Task

logger = logging.getLogger(__name__)

# Most voxels predicted at once, so that memory stays bounded however large the images are.
_PREDICTED_VOXELS = 2**24


#: Trains on a batch and returns its error: ``(trainer, images, targets, generator) -> error``, images normalised.
Step: TypeAlias = Callable[["Trainer", torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


class TrainingError(RuntimeError):
    """Training broke down: gradients are not finite even in float32."""


class Trainer:
    """One network in training.

    Args:
        model: fresh network; moved to the device.
        task: the learning problem.
        recipe: how to train.
        device: where to train.
        spatial_dims: 2 or 3.
        total_steps: length of the learning rate's schedule; None keeps the learning rate.
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
        self.memory_format = memory_format(model, device, spatial_dims)
        self.model = model.to(device).to(memory_format=self.memory_format).train()
        #: Called by a training step: the model, or its wrapper where several processes train it together.
        self.network: nn.Module = self.model
        self.task, self.recipe, self.device = task, recipe, device
        self._compilations: dict[int, tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]] = {}
        self.precision = choose_precision(recipe.precision, device, spatial_dims)
        self.optimizer = make_optimizer(self.model, recipe)
        self._schedule = None if total_steps is None else make_schedule(self.optimizer, recipe, max(1, total_steps))
        self._steps, self._total_steps = 0, total_steps

    @property
    def progress(self) -> float:
        """Share of the steps that are done; 0 where their number is not known."""
        return self._steps / self._total_steps if self._total_steps else 0.0

    def forward(self, inputs: torch.Tensor, model: nn.Module | None = None) -> torch.Tensor:
        """Logits in float32 for normalised inputs on this device, of ``model`` or of the network in training."""
        inputs = inputs.contiguous(memory_format=self.memory_format)
        network = self._compiled(model or self.network) if self.recipe.compile else model or self.network
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits: torch.Tensor = network(inputs)
        # A CUDA graph overwrites its result when it is replayed.
        return logits.float().clone() if self.recipe.compile else logits.float()

    def _compiled(self, network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network compiled once; on a GPU its kernels are replayed as CUDA graphs."""
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # the last result is no longer needed
        if id(network) not in self._compilations:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            # The network is kept, so that no other one gets its id.
            self._compilations[id(network)] = (network, torch.compile(network, mode=mode, dynamic=False))
        return self._compilations[id(network)][1]

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's loss in evaluation mode, so that the statistics of batch normalisation stay."""
        was = self.model.training
        self.model.eval()
        try:
            return self.task.loss(self.forward(inputs), targets)
        finally:
            self.model.train(was)

    def step(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
        weight: float = 1.0,
    ) -> torch.Tensor:
        """Train on one batch and return its error before the step.

        A batch whose gradients are not finite is computed again in float32, which training then stays in.

        Args:
            inputs: ``(batch, channel, *spatial)``, normalised.
            targets: labels, which the error is measured against.
            loss: takes float32 logits on the trainer's device; None is the task's loss against ``targets``.
            weight: of the loss.

        Raises:
            TrainingError: if float32 does not help.
        """
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward(inputs)
        value = self.task.loss(logits, targets) if loss is None else loss(logits)
        (value if weight == 1 else weight * value).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        if not torch.isfinite(norm):
            self.fall_back(f"gradients of a training step are {float(norm)}")
            return self.step(inputs, targets, loss, weight)
        self.optimizer.step()
        self._steps += 1
        if self._schedule is not None:
            self._schedule.step()
        return self.task.error(logits.detach(), targets)

    def advance(self, steps: int) -> None:
        """Advance the learning rate's schedule by steps that were trained before."""
        self._steps += steps
        if self._schedule is None or not steps:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the optimiser's steps were taken earlier
            for _ in range(steps):
                self._schedule.step()

    def fall_back(self, reason: str) -> None:
        """Leave bfloat16 for float32, with a warning.

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
        """Measure the statistics of batch normalisation again, with the present weights, on batches of normalised inputs.

        After a few steps at a high learning rate the running averages describe earlier weights.
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
            cases: to be predicted.
            images: taken in place of ``cases.images`` if given.

        Returns:
            ``task.predict`` output for each case, on the CPU.
        """
        cases = cases if images is None else replace(cases, images=images, kept=None)
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
        inputs = to_device(cases.inputs(regions), self.device)
        if whole:
            from monai.inferers import sliding_window_inference

            logits = sliding_window_inference(inputs, cases.view.size, 4, self.forward, overlap=0.5)
            assert isinstance(logits, torch.Tensor)
        else:
            logits = self.forward(inputs)
        return list(self.task.predict(logits).cpu().unbind(0))


def trainer_tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and state of the optimiser, by name: the checkpoint of a trainer."""
    tensors = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{k}": v for k, v in values.items() if v is not None})
    return tensors


def load_trainer(trainer: Trainer, tensors: dict[str, torch.Tensor], steps: int = 0) -> None:
    """Restore a trainer of the same network and recipe from ``trainer_tensors``, ``steps`` into its schedule."""
    trainer.model.load_state_dict({k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")})
    state = trainer.optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state["state"].setdefault(int(index), {})[name] = value
    trainer.optimizer.load_state_dict(state)
    trainer.advance(steps)


def fit(
    trainer: Trainer,
    cases: Cases,
    epochs: int,
    seed: int,
    augment: Augmentation | None = None,
    step: Step | None = None,
    epoch_steps: int | None = None,
) -> Iterator[float]:
    """Train for some epochs, giving control back after each.

    Args:
        trainer: a fresh network; its ``total_steps`` should be ``epochs * steps_per_epoch(cases, recipe)``.
        cases: training set.
        epochs: passes over it.
        seed: of the order of cases, patches and augmentation.
        augment: changes every batch.
        step: trains on a batch in place of ``Trainer.step``.
        epoch_steps: steps that count as a pass; None is ``steps_per_epoch``.

    Yields:
        The mean training score (1 - error) of each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = shuffled_batches(len(cases), trainer.recipe.batch_size, generator)
    for _ in range(epochs):
        errors = []
        for _ in range(epoch_steps or steps_per_epoch(cases, trainer.recipe)):
            regions = [(c, cases.view.random_region(cases.images[c].shape[1:], generator)) for c in next(batches)]
            inputs, targets = cases.inputs(regions), cases.targets(regions)
            if augment is not None:
                inputs, targets = augment(inputs, targets, generator)
            error = step(trainer, inputs, targets, generator) if step else trainer.step(inputs, targets)
            errors.append(error)
        yield 1.0 - float(torch.stack(errors).mean())


def steps_per_epoch(cases: Cases, recipe: Recipe) -> int:
    """Batches in one pass: enough to visit every case, and for patches about every voxel, once."""
    regions = len(cases)
    if cases.view.kind == "patch":
        patch = math.prod(cases.view.size)
        regions = math.ceil(sum(max(1.0, math.prod(image.shape[1:]) / patch) for image in cases.images))
    return math.ceil(regions / min(recipe.batch_size, len(cases)))
