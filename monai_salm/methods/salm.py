"""SALM: noise on the elements with the largest gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from monai_salm.augmentation import standard_augmentation
from monai_salm.intensity import Array, Grid, IntensityWindow
from monai_salm.masks import foreground_mask, local_mean, mask_size, random_mask, topk_mask
from monai_salm.methods.base import require
from monai_salm.methods.bilevel import BilevelMethod
from monai_salm.methods.hooks import Batch, Loss
from monai_salm.methods.starts import COARSE_CLASSES, class_pattern
from monai_salm.methods.views import VIEWS, rounds_differently, see
from monai_salm.tasks import Task

#: Settings where none are given: of noise that aims at the next class on top of a class pattern, and of error-minimising noise.
_NEXT: dict[str, Any] = {"num_steps": 2, "surrogate_steps": 150, "rounds": 1}
_LABEL: dict[str, Any] = {"num_steps": 4, "surrogate_steps": 45}
#: Smoothing of a mask that a pattern is to be seen in.
_AREA = 5
#: Views that take fine patterns away.
_SMOOTHING = frozenset({"jpeg", "blur", "median", "resample"})


@dataclass(frozen=True, kw_only=True)
class SALM(BilevelMethod):
    """Sparsity-Aware Local Masking (Sun, Liu, Yan, Xu, Sun, arXiv 2403.10573).

    Each noise step changes only the ``k = round(mask_ratio * elements)`` elements of a sample (of a patch, where images
    are cut into patches) whose gradient is largest. What the paper leaves open is ours, and measured
    (docs/experiments.md). With ``start="zero"`` it is error-minimising noise. Where images have one label, noise
    begins by default as a pattern of the class (``start="class"``), which is what networks then learn; one class stays
    plain, so that they take clean images for it, and only its images get masked noise steps, towards the next class
    (``target="next"``): on top of a pattern, error-minimising steps weakened it in every variant measured, and these gained
    nothing.

    Takes the settings of ``BilevelMethod``, of which ``num_steps``, ``surrogate_steps`` and ``rounds`` are chosen by ``target``
    where they are None, and:

    Args:
        num_steps: noise steps for every image in a round that has any; None is 2 for ``target="next"``, else 4.
        surrogate_steps: batches the surrogate trains on before them; None is 150 for ``target="next"``, else 45.
        rounds: turns of surrogate training and noise steps; None is one for each surrogate named for ``target="next"``, else 22
            for images and 8 for volumes; 0 for segmentation that begins as a pattern. 0 leaves the noise as it begins.
        mask_ratio: share of elements in the mask, in (0, 1].
        mask_scope: ``"step"`` chooses the mask anew at each noise step, so the final support may be larger than k;
            ``"sample"`` chooses one mask per sample, and all other elements keep the original's bits.
        mask_smoothing: edge of the neighbourhood, elements, over which magnitudes of the gradient are averaged before the
            largest are chosen: masks then are of whole areas, in which a texture can be seen. Odd; 1 is none. None is 5 for
            one mask per sample under a class pattern of labels per image, else 1.
        mask_source: ``"gradient"`` (SALM), or the controls ``"random"`` and ``"foreground"``.
        target: what noise steps make surrogates answer: ``"label"``, the true one (surrogates train on the noisy images, in
            turns with the noise), or ``"next"``, the class after it (surrogates train on clean images with flips and shifts;
            compare TAP). None is ``"next"`` for labels per image with ``start="class"`` and SALM's own mask, else ``"label"``.
        start: as for ``BilevelMethod``; None is ``"class"`` for one label per image or voxel and SALM's own mask, else ``"zero"``.
            For segmentation the pattern stands alone (``rounds=0``; one round with one mask per sample, to choose it) unless
            rounds are given: noise steps only weakened it.
        plain_class: the class without a pattern, for labels per image; None is the rarest.
        views: what noise is to outlive, names of ``methods.views.VIEWS`` (none, augment, jpeg, blur, median, bit_depth,
            resample, gamma, orthogonal_projection), for labels per image: surrogates and noise steps see the images
            through them, one drawn at random for each part of a batch, and the pattern of a class is coarse where one of
            them takes fine patterns away. With orthogonal_projection the pattern begins at a place of its own
            in every image (a coarse one has a sign of its own), so that no average and no linear model finds it; that
            costs strength, above all at small budgets.
    """

    num_steps: int | None = None  # type: ignore[assignment]
    surrogate_steps: int | None = None  # type: ignore[assignment]
    mask_ratio: float = 0.3
    mask_scope: str = "step"
    mask_smoothing: int | None = None
    mask_source: str = "gradient"
    target: str | None = None
    start: str | None = None  # type: ignore[assignment]
    plain_class: int | None = None
    views: tuple[str, ...] = ()
    name: ClassVar[str] = "salm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))  # lists and what JSON made of them are as good
        super().__post_init__()
        require(0 < self.mask_ratio <= 1, "mask_ratio", "in (0, 1]", self.mask_ratio)
        smooth = self.mask_smoothing
        require(
            smooth is None or (smooth > 0 and smooth % 2 == 1), "mask_smoothing", "odd and above 0, or None", smooth
        )
        if smooth not in (None, 1) and self.mask_source != "gradient":
            raise ValueError(f'mask_smoothing is of gradients, not of mask_source "{self.mask_source}"; leave it out')
        if smooth not in (None, 1) and self.rounds == 0:
            raise ValueError("mask_smoothing is of masks, and rounds 0 chooses none: give rounds, or leave it out")
        scopes, sources = ("step", "sample"), ("gradient", "random", "foreground")
        require(self.mask_scope in scopes, "mask_scope", f"one of {scopes}", self.mask_scope)
        require(self.mask_source in sources, "mask_source", f"one of {sources}", self.mask_source)
        require(self.target in (None, "label", "next"), "target", 'one of ("label", "next") or None', self.target)
        unknown = sorted(set(self.views) - set(VIEWS))
        require(not unknown, "views", f"names of {tuple(VIEWS)}", ", ".join(unknown))
        plain = self.plain_class
        require(plain is None or plain >= 0, "plain_class", "a class number or None", plain)
        if plain is not None and self.rounds == 0:
            raise ValueError(
                "rounds 0 would leave the images of plain_class without noise: give rounds, or leave it out"
            )
        if self.mask_scope == "sample" and self.rounds == 0:
            raise ValueError(
                'mask_scope "sample" needs a surrogate\'s gradient to choose the mask: give rounds of at least 1'
            )
        if self.mask_scope == "sample" and self.perturb_type == "classwise":
            raise ValueError(
                'mask_scope "sample" is one mask per image and perturb_type "classwise" one noise per class: choose'
            )

    def resolved(self, task: Task, spatial_dims: int, labels: Sequence[Array] = (), networks: int = 1) -> BilevelMethod:
        per_voxel, several = task.kind == "segmentation", bool(getattr(task, "multi_label", False))
        # A control that differs in its mask alone must not become the same pattern.
        own = self.mask_source == "gradient" and self.perturb_type == "samplewise"
        start = self.start or ("class" if own and not several else "zero")
        patterned = start == "class" and not several and self.mask_source == "gradient"
        target = self.target or ("next" if patterned and not per_voxel and own else "label")
        self._require_fit(task, start, target)
        settings = {**_NEXT, "rounds": networks} if target == "next" else dict(_LABEL)
        if per_voxel and patterned:
            settings["rounds"] = int(self.mask_scope == "sample")
        areas = patterned and not per_voxel and self.mask_scope == "sample"
        settings["mask_smoothing"] = _AREA if areas else 1
        chosen = {name: value for name, value in settings.items() if getattr(self, name) is None}
        settled = replace(self, start=start, target=target, **chosen)
        if start == "class" and not per_voxel and not several and settled.rounds != 0:
            settled = replace(settled, plain_class=self._plain(task, labels))
        return super(SALM, settled).resolved(task, spatial_dims, labels, networks)

    def _require_fit(self, task: Task, start: str, target: str) -> None:
        """Refuse settings that would do nothing, or something else than they say, for this task."""
        per_voxel, coarse = task.kind == "segmentation", bool(_SMOOTHING & set(self.views))
        if per_voxel and target == "next":
            raise ValueError(
                'target "next" is for labels per image; for segmentation leave target out, or give "label"'
            )
        if per_voxel and start == "class" and self.views:
            raise ValueError(
                'views choose patterns for labels per image only; for segmentation leave views out, or give start "zero"'
            )
        if self.plain_class is not None and (per_voxel or start != "class"):
            raise ValueError('plain_class is for labels per image and start "class"; leave it out')
        if self.perturb_type == "classwise" and start == "class" and (self.views or target == "next"):
            raise ValueError(
                'perturb_type "classwise" with start "class" takes no views and no target "next"; use "samplewise"'
            )
        if start == "class" and coarse and task.num_classes > COARSE_CLASSES:
            raise ValueError(
                f"views that take fine patterns away need coarse ones, which tell {COARSE_CLASSES} classes apart, not "
                f"{task.num_classes}; leave {', '.join(sorted(_SMOOTHING & set(self.views)))} out of views"
            )

    def _plain(self, task: Task, labels: Sequence[Array]) -> int | None:
        """The class without a pattern: the one chosen, or the rarest, so that answering it is right as seldom as can be."""
        if self.plain_class is not None:
            require(self.plain_class < task.num_classes, "plain_class", f"below {task.num_classes}", self.plain_class)
            return self.plain_class
        if not len(labels):
            return None
        counts = np.bincount([int(label) for label in labels], minlength=task.num_classes)
        return int(np.where(counts > 0, counts, counts.max(initial=0) + 1).argmin())

    def first_noise(
        self, image: Array, label: Array, grid: Grid, window: IntensityWindow, num_classes: int, digest: bytes
    ) -> Array:
        shape = image.shape[1:]
        phase = digest[: image.ndim - 1] if "orthogonal_projection" in self.views else ()
        coarse = bool(_SMOOTHING & set(self.views))
        pattern = class_pattern(label, shape, num_classes, self.plain_class, coarse, phase)
        if "bit_depth" not in self.views:
            return pattern.astype(np.int32) * grid.max_code
        # What rounding leaves of the noise are the elements near a threshold: few, so that only a fine pattern shows in them.
        fine = class_pattern(label, shape, num_classes, self.plain_class, phase=phase)
        return np.where(rounds_differently(image, window, self.epsilon), fine, pattern).astype(np.int32) * grid.max_code

    def still(self, label: Array) -> bool:
        # Steps on top of a pattern only weaken it (docs/experiments.md); images of the plain class have nothing else.
        return self.start == "class" and self.target == "next" and int(label) != self.plain_class

    @property
    def trains_on_noise(self) -> bool:
        return self.target != "next"

    @property
    def anneals(self) -> bool:
        return self.target == "next"

    @property
    def fixed_mask_ratio(self) -> float | None:
        return self.mask_ratio if self.mask_scope == "sample" else None

    def aim(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        return task.wrong_target(targets) if self.target == "next" else targets

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        if self.target == "next":
            inputs, targets = standard_augmentation(inputs, targets, generator)
        if self.views:
            inputs, targets = see(self.views, inputs, targets, self.epsilon, generator)
        return inputs, targets

    def noise_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        return see(self.views, inputs, targets, self.epsilon, generator) if self.views else (inputs, targets)

    def choose(self, gradient: torch.Tensor, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        k = mask_size(gradient[0].numel(), self.mask_ratio)
        if self.mask_source == "gradient":
            return topk_mask(local_mean(gradient.abs(), self.mask_smoothing or 1), k)
        if self.mask_source == "random":
            return random_mask(gradient.shape, k, generator).to(gradient.device)
        return foreground_mask(image.cpu(), k, generator).to(gradient.device)
