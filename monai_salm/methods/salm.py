"""SALM: noise inside one mask of each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from monai_salm.methods.base import Batch, BilevelMethod, Loss, Method
from monai_salm.methods.masks import TopK
from monai_salm.methods.perturbations import PERTURBATIONS, Adversarial, ClassTexture, ErrorMinimizing, Perturbation
from monai_salm.methods.tap import TAP
from monai_salm.shared.settings import require

if TYPE_CHECKING:
    import torch

    from monai_salm.learning.tasks import Task
    from monai_salm.methods.job import Job
    from monai_salm.noise.budget import Budget
    from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class SALM(Method):
    """Sparsity-Aware Local Masking (arXiv 2403.10573): noise inside one mask of each image, chosen by a surrogate's gradient.

    The mask holds ``round(mask_ratio * elements)`` elements of the image; all others keep their bits. This binds every image of
    every task. What is put inside the mask is the ``perturbation``.

    Args:
        epsilon: budget (L-infinity) as a fraction of each image's window, in (0, 1].
        mask_ratio: share of an image's elements that may carry noise, in (0, 1].
        mask_area: edge of the neighbourhood that gradients are averaged over, elements of what the surrogate sees, odd.
        mask_scope: ``"sample"`` is one mask an image; ``"step"`` is another at each noise step, so that the share holds for
            a step and not for the sum (error-minimising noise only).
        perturbation: what is put inside the mask.
    """

    mask_ratio: float = field(
        default=0.5,
        metadata={"help": "salm: share of an image's elements that may carry noise.", "main": True},
    )
    mask_area: int = field(
        default=7,
        metadata={
            "help": "Edge of the neighbourhood over which gradients are averaged, in elements that the network sees; odd."
        },
    )
    mask_scope: str = field(
        default="sample",
        metadata={
            "help": "sample: one mask for an image. step: another at each step, only with error_minimizing.",
            "values": ("sample", "step"),
        },
    )
    perturbation: Perturbation = field(
        default=ClassTexture(),
        metadata={
            "help": "salm: what is inside the mask; error_minimizing is the paper's noise.",
            "main": True,
            "values": tuple(PERTURBATIONS),
        },
    )
    name: ClassVar[str] = "salm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mask_ratio <= 1, "mask_ratio", "in (0, 1]", self.mask_ratio)
        known = isinstance(self.perturbation, tuple(PERTURBATIONS.values()))
        require(known, "perturbation", "ClassTexture(), Adversarial() or ErrorMinimizing()", self.perturbation)
        if self.mask_scope == "step" and not isinstance(self.perturbation, ErrorMinimizing):
            raise ValueError('mask_scope "step" is for ErrorMinimizing; others need one mask, mask_scope "sample"')
        self.loop()  # refuses what the loop would refuse

    @classmethod
    def published(cls, epsilon: float = 8 / 255, mask_ratio: float = 0.3) -> SALM:
        """The paper's algorithm, as far as its abstract fixes it: error-minimising, the mask chosen at each step.

        Args:
            epsilon: budget as a fraction of each image's window.
            mask_ratio: share of the elements that a step may change.
        """
        return cls(
            epsilon=epsilon, mask_ratio=mask_ratio, mask_area=1, mask_scope="step", perturbation=ErrorMinimizing()
        )

    @property
    def label(self) -> str:
        return f"{self.name} ({self.perturbation.name})"

    @property
    def mask(self) -> TopK:
        """The mask of every image."""
        return TopK(ratio=self.mask_ratio, scope=self.mask_scope, area=self.mask_area)

    def plain_class(self, task: Task, labels: Sequence[Array]) -> int | None:
        # The rarest, so that answering it is right as seldom as can be.
        several = task.kind == "segmentation" or getattr(task, "multi_label", False)
        if several or not isinstance(self.perturbation, ClassTexture) or not self.perturbation.plain:
            return None
        counts = Counter(int(label) for label in labels)
        return min(counts, key=lambda number: (counts[number], number), default=None)

    def loop(self) -> BilevelMethod:
        if isinstance(self.perturbation, Adversarial):
            return MaskedAdversarial(epsilon=self.epsilon, mask=self.mask, **vars(self.perturbation))
        if not isinstance(self.perturbation, ClassTexture):
            return MaskedSteps(epsilon=self.epsilon, mask=self.mask, **vars(self.perturbation))
        return MaskedTexture(
            epsilon=self.epsilon,
            mask=self.mask,
            surrogate_steps=self.perturbation.surrogate_steps,
            restart_every=1,
            texture=self.perturbation,
        )


@dataclass(frozen=True, kw_only=True)
class MaskedSteps(BilevelMethod):
    """Error-minimising steps inside a mask."""

    name: ClassVar[str] = "masked_steps"


@dataclass(frozen=True, kw_only=True)
class MaskedAdversarial(TAP):
    """TAP's steps inside a mask; a third of the batches is seen at half the size, so that the noise outlives resizing."""

    name: ClassVar[str] = "masked_adversarial"

    def mask_loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        from monai_salm.methods.mask_elements import class_margin

        # The loss has no slope where the surrogate is sure, which is inside of organs and vessels.
        return class_margin(logits, targets)

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        from monai_salm.learning.augmentation import at_half_size

        inputs, targets = super().train_inputs(loss, inputs, targets, generator)
        return at_half_size(inputs, targets, generator, 1 / 3)

    noise_inputs = train_inputs


@dataclass(frozen=True, kw_only=True)
class MaskedTexture(BilevelMethod):
    """A texture of the class inside a mask that a surrogate chooses, which was trained on the clean images.

    Images of the plain class take steps toward the class after theirs instead, as TAP does (Fowl et al., NeurIPS 2021).

    Args:
        texture: the texture's settings.
    """

    step_size: float = 0.25
    num_steps: int = 10
    rounds: int = 1
    texture: ClassTexture = ClassTexture()
    name: ClassVar[str] = "masked_texture"
    has_start: ClassVar[bool] = True
    anneals: ClassVar[bool] = True

    @property
    def trains_on_noise(self) -> bool:
        return self.texture.sees_texture

    def whole_side(self, task: Task, spatial_dims: int) -> int | None:
        # Where an image is significant shows at a low resolution too, and the surrogate is then quick to train.
        return None if task.kind == "segmentation" else {2: 32, 3: 24}[spatial_dims]

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        from monai_salm.learning.augmentation import standard_augmentation

        return standard_augmentation(inputs, targets, generator)

    def noise_targets(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        return task.wrong_target(targets)

    def needs_no_steps(self, label: Array, plain_class: int | None) -> bool:
        # Steps on top of a texture only weaken it; images of the plain class have nothing else.
        return label.ndim > 0 or int(label) != plain_class

    def start(self, image: Array, label: Array, budget: Budget, job: Job) -> Array | None:
        if not self.needs_no_steps(label, job.plain_class):
            return None
        from monai_salm.methods.class_textures import texture_codes

        return texture_codes(self.texture, image, label, budget, job)
