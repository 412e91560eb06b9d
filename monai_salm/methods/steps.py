"""Noise steps of one round: masks are chosen, and every case's noise descends against a frozen surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from monai_salm.learning.cases import Cases, Slices, shuffled_batches
from monai_salm.learning.networks.devices import to_device
from monai_salm.learning.trainer import Trainer
from monai_salm.methods import large_images
from monai_salm.methods.base import BilevelMethod
from monai_salm.methods.clean_batch import CleanBatch
from monai_salm.methods.job import Job
from monai_salm.methods.mask_elements import local_mean
from monai_salm.methods.work_units import WorkUnit, class_owners, mean_error, workers
from monai_salm.shared.arrays import Array, let_go
from monai_salm.shared.blocks import meet

# Elements of an image that a network takes whole where only its gradient is asked for, and what its sides are padded to.
_WHOLE, _HALVED = 2**20, 16


class NotFiniteError(RuntimeError):
    """Noise gradients overflowed in bfloat16; the round is done again in float32."""


@dataclass(frozen=True)
class NoiseStep:
    """Noise steps against one frozen surrogate; every unit touches only its own cases, so units run in any order.

    Args:
        method: what a step does.
        job: the data set.
        trainer: computes with the surrogate.
        frozen: the surrogate, frozen.
        number: of the round.
        source: the noise of all cases before the round.
        target: the noise of all cases after it; written to.
        masks: of all cases; None where they are not fixed.
    """

    method: BilevelMethod
    job: Job
    trainer: Trainer
    frozen: nn.Module
    number: int
    source: Sequence[Array]
    target: Sequence[Array]
    masks: Sequence[Array] | None

    @property
    def cases(self) -> Cases:
        """The clean data set."""
        return self.job.cases

    def improve(self, unit: WorkUnit) -> float:
        """Write the unit's improved noise and return its mean error at the last step."""
        generator, target, masks = self.job.generator(2, self.number, unit.index), self.target, self.masks
        if unit.needs_no_steps and masks is not None:
            for case in unit.cases:  # within its bounds already
                np.multiply(self.source[case], masks[case], out=target[case], casting="unsafe")
            return 0.0
        if large_images.fit(self.method, self.job, self.cases.images[unit.cases[0]].shape):
            return self._descend_seen_small(unit, generator)
        for case in unit.cases:
            target[case][...] = self.source[case]
        bounds, errors = self._bounds(unit.cases), []
        for tile in unit.tiles:
            region = (slice(None), *tile)
            codes = self._load([target[c][region] for c in unit.cases])
            fixed = None if masks is None else self._load([masks[c][region] for c in unit.cases]) > 0
            clean = self._clean(unit.cases, tile, bounds)
            targets = self._noise_targets([(c, tile) for c in unit.cases])
            steps = 0 if unit.needs_no_steps else self.method.num_steps
            codes, error = self._descend(steps, clean, targets, codes, fixed, generator)
            whole = codes.round().cpu().numpy()
            for row, case in enumerate(unit.cases):
                target[case][region] = whole[row]
            errors.append(error)
        return float(np.mean(errors))

    def _descend_seen_small(self, unit: WorkUnit, generator: torch.Generator) -> float:
        """As ``improve``, of large images that a network sees small."""
        assert self.masks is not None
        kind = large_images.Picture if self.cases.spatial_dims == 2 else large_images.Volume
        images = [kind(self.method, self.job, case, self.source[case], self.masks[case]) for case in unit.cases]
        targets, error = self._noise_targets([(case, unit.tiles[0]) for case in unit.cases]), 0.0
        for _ in range(self.method.num_steps):
            inputs = torch.cat([image.inputs() for image in images]).requires_grad_(True)
            seen, aims = self.method.noise_inputs(self._loss, inputs, targets, generator)
            logits = self.trainer.forward(seen, self.frozen)
            # The sum over the images: each has the gradient that it has alone.
            (gradient,) = torch.autograd.grad(self.cases.task.loss(logits, aims) * len(images), inputs)
            _require_finite(gradient.sum())
            error = float(self.cases.task.error(logits.detach(), aims))
            for image, own in zip(images, gradient, strict=True):
                image.move(own)
        for image, case in zip(images, unit.cases, strict=True):
            image.write(self.target[case])
        return error

    def _descend(
        self,
        steps: int,
        clean: CleanBatch,
        targets: torch.Tensor,
        codes: torch.Tensor,
        fixed: torch.Tensor | None,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, float]:
        error, sums, mask = torch.zeros(()), codes.new_zeros(()), self.method.mask
        if fixed is not None:  # outside the mask the bounds are 0, and so are the codes
            clean = replace(clean, lower=clean.lower * fixed, upper=clean.upper * fixed)
        codes = clean.clip(codes)
        for _ in range(steps):
            gradient, error = self.gradient(clean, codes, targets, generator)
            sums += gradient.sum()
            allowed = None
            if fixed is None:
                score = local_mean(gradient.abs().mul_(clean.carriers), mask.smoothing)
                allowed = mask.choose(score, clean.images, clean.carriers, generator)
            direction = gradient.sign_() if allowed is None else gradient.sign_().mul_(allowed)
            codes = clean.clip(codes.sub_(direction.mul_(clean.lengths)))
        _require_finite(sums)  # after the last step: a GPU would wait for each look at a number
        return codes, float(error)

    def gradient(
        self, clean: CleanBatch, codes: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of the loss with respect to the noise, as a fraction of the window's width, mean over the method's draws;
        and the error of the noisy batch. The device is not waited for."""
        # One draw at a time, so that memory does not grow with the draws.
        drawn = [self._drawn_gradient(clean, codes, targets, generator) for _ in range(self.method.noise_draws)]
        gradients, errors = zip(*drawn, strict=True)
        total = gradients[0] if len(gradients) == 1 else torch.stack(gradients).mean(0)
        if type(self.method).penalty is not BilevelMethod.penalty:
            noise = (codes * clean.shares).requires_grad_(True)
            penalty = self.method.penalty(noise, clean.images)
            if penalty is not None:
                total = total + torch.autograd.grad(penalty, noise)[0]
        return total, torch.stack(errors).mean()

    def _drawn_gradient(
        self, clean: CleanBatch, codes: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noisy = (codes * clean.shares).add_(clean.images).requires_grad_(True)
        inputs = self.cases.view.resize(noisy)
        inputs, targets = self.method.noise_inputs(self._loss, inputs, targets, generator)
        logits = self.trainer.forward(inputs, self.frozen)
        (gradient,) = torch.autograd.grad(self.cases.task.loss(logits, targets), noisy)
        return gradient, self.cases.task.error(logits.detach(), targets)

    def fix_masks(self, unit: WorkUnit) -> None:
        """Choose the unit's masks for good: the significant elements of the whole image, as the surrogate sees it."""
        generator, source, masks = self.job.generator(3, unit.index), self.source, self.masks
        assert masks is not None
        seen = self.job.workspace.noisy(self.cases, source) if self.method.trains_on_noise else self.cases
        scores = self._scores(seen, unit)
        for row, case in enumerate(unit.cases):  # one at a time: images may be large
            image = np.asarray(self.cases.images[case])
            carriers = torch.from_numpy(self.job.workspace.budgets[case].carriers(image))[None]
            let_go(image)
            score = scores[row].to(torch.float32)
            if len(image) > 1:  # significant places, in all their channels
                score = score.mean(1, keepdim=True).expand_as(carriers).contiguous()
            shown = (
                self.cases.normalized(case, (slice(None),) * (image.ndim - 1))[None]
                if self.method.mask.sees_images
                else score
            )
            chosen, begun = self.method.mask.choose(score, shown, carriers, generator), np.asarray(source[case])
            # A small region of a label map may lie beside all that is significant.
            if chosen is not None and not meet(begun, chosen[0].numpy()) and begun.any():
                chosen = self.method.mask.choose(score, shown, carriers & torch.from_numpy(begun != 0), generator)
            assert chosen is not None
            masks[case][...] = chosen[0].numpy()

    def _scores(self, seen: Cases, unit: WorkUnit) -> list[torch.Tensor]:
        """Gradient magnitude of the loss in every place of the unit's images, averaged over areas: ``(1, channel, *spatial)``."""
        edge, shape = self.method.mask.smoothing, seen.images[unit.cases[0]].shape
        if seen.view.kind != "patch":
            found = local_mean(self._magnitude(seen, unit, unit.tiles[0]), edge)
            if found.shape[2:] != shape[1:]:
                mode = "bilinear" if found.ndim == 4 else "trilinear"
                return [F.interpolate(row[None], shape[1:], mode=mode, align_corners=False) for row in found]
            return list(found[:, None])
        if self.cases.task.kind == "segmentation" and math.prod(shape) <= _WHOLE:
            return list(local_mean(self._whole_magnitude(seen, unit, shape[1:]), edge)[:, None])
        whole = torch.zeros(len(unit.cases), *shape)
        for tile in unit.tiles:
            whole[(slice(None), slice(None), *tile)] = self._magnitude(seen, unit, tile)
        return list(local_mean(whole, edge)[:, None])

    def _magnitude(self, seen: Cases, unit: WorkUnit, tile: Slices) -> torch.Tensor:
        regions = [(case, tile) for case in unit.cases]
        found = self._gradient_of(seen.inputs(regions), seen.targets(regions))
        together = large_images.fit_together(self.method, self.job, seen.images[unit.cases[0]].shape)
        return found * len(regions) if together else found  # as of each alone

    def _whole_magnitude(self, seen: Cases, unit: WorkUnit, shape: Sequence[int]) -> torch.Tensor:
        """As ``_magnitude``, of whole images that are otherwise seen in patches: padded to what networks can halve."""
        tile = tuple(slice(0, side) for side in shape)
        pads = [pad for side in reversed(shape) for pad in (0, -side % _HALVED)]
        inputs = torch.stack([seen.normalized(case, tile) for case in unit.cases])
        targets = seen.targets([(case, tile) for case in unit.cases])
        padded = F.pad(targets[:, None].float(), pads, mode="replicate")[:, 0].to(targets.dtype)
        found = self._gradient_of(F.pad(inputs, pads, mode="replicate"), padded)
        return found[(slice(None), slice(None), *tile)]

    def _gradient_of(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        inputs = to_device(inputs, self.job.device).requires_grad_(True)
        targets = to_device(targets, self.job.device)
        loss = self.method.mask_loss(self.cases.task, self.trainer.forward(inputs, self.frozen), targets)
        (gradient,) = torch.autograd.grad(loss, inputs)
        _require_finite(gradient.sum())
        return gradient.abs().float().cpu()

    def improve_classes(self) -> float:
        """Classwise noise: every step follows the mean gradient over a batch of the class."""
        labels = np.asarray([int(label) for label in self.cases.labels])
        present = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        owners = class_owners(self.job)
        present = [members for members in present if owners[members[0]] == self.job.world.rank]
        with workers(self.job.device, self.cases.images[0].size * self.job.recipe.batch_size) as each:
            errors = list(each(self._improve_class, present))
        return mean_error(errors, [len(members) for members in present])

    def _improve_class(self, members: Array) -> float:
        generator = self.job.generator(2, self.number, int(self.cases.labels[members[0]]))
        batches = shuffled_batches(len(members), self.job.recipe.batch_size, generator)
        whole = tuple(slice(0, n) for n in self.cases.images[0].shape[1:])
        shared = self._load([_class_noise(self.source, members)])
        limits = torch.from_numpy(self.job.workspace.budgets[0].grid.limits(len(whole))).float().to(self.job.device)
        error, sums = torch.zeros(()), shared.new_zeros(())
        for _ in range(self.method.num_steps):
            batch = [int(members[i]) for i in next(batches)]
            clean = self._clean(batch, whole, self._bounds(batch))
            targets = self._noise_targets([(c, whole) for c in batch])
            gradient, error = self.gradient(clean, clean.clip(shared.expand_as(clean.images)), targets, generator)
            sums += gradient.sum()
            direction = (gradient * clean.carriers).mean(0, keepdim=True).sign()
            shared = torch.clamp(shared - clean.lengths[:1] * direction, -limits, limits)
        _require_finite(sums)
        for case in members:
            clipped = self._clean([int(case)], whole, self._bounds([int(case)])).clip(shared.round())
            self.target[case][...] = clipped[0].cpu().numpy()
        return float(error)

    def _bounds(self, cases: Sequence[int]) -> list[tuple[Array, Array]]:
        """Smallest and largest code of every element of whole images: padding shows in the whole only."""
        found = []
        for case in cases:
            image = np.asarray(self.cases.images[case])
            lower, upper = self.job.workspace.budgets[case].code_bounds(image)
            support = self.method.mask.support(self.cases.labels[case], tuple(slice(0, n) for n in image.shape[1:]))
            found.append((lower, upper) if support is None else (lower * support, upper * support))
        return found

    def _clean(self, cases: Sequence[int], tile: Slices, bounds: Sequence[tuple[Array, Array]]) -> CleanBatch:
        region, device = (slice(None), *tile), self.job.device
        budgets = [self.job.workspace.budgets[case] for case in cases]
        shares = [budget.shares(self.cases.in_channels) for budget in budgets]
        length = self.method.step_size * self.method.epsilon
        lengths = [[length / share for share in row] for row in shares]
        return CleanBatch(
            images=to_device(torch.stack([self.cases.normalized(case, tile) for case in cases]), device),
            lower=self._load([lower[region] for lower, _ in bounds]),
            upper=self._load([upper[region] for _, upper in bounds]),
            shares=large_images.per_channel(shares, len(tile), device),
            lengths=large_images.per_channel(lengths, len(tile), device),
        )

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.cases.task.loss(self.trainer.forward(inputs, self.frozen), targets)

    def _noise_targets(self, regions: list[tuple[int, Slices]]) -> torch.Tensor:
        return self.method.noise_targets(self.cases.task, to_device(self.cases.targets(regions), self.job.device))

    def _load(self, arrays: Sequence[Array]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.stack(arrays).astype(np.float32)), self.job.device)


def _require_finite(sums: torch.Tensor) -> None:
    if not torch.isfinite(sums):
        raise NotFiniteError("gradients of a noise step are not finite")


def _class_noise(codes: Sequence[Array], members: Array) -> Array:
    """A class' noise, from its images: each holds it clipped to what it can carry, so the extremes are the noise."""
    low = high = codes[members[0]]
    for case in members[1:]:
        low, high = np.minimum(low, codes[case]), np.maximum(high, codes[case])
    noise: Array = np.where(high.astype(np.int64) > -low.astype(np.int64), high, low)
    return noise
