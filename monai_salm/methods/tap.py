"""TAP: adversarial examples of another class, used as training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from monai_salm.methods.base import Batch, BilevelMethod, Loss
from monai_salm.shared.settings import require

if TYPE_CHECKING:
    import torch

    from monai_salm.learning.tasks import Task


@dataclass(frozen=True, kw_only=True)
class TAP(BilevelMethod):
    """Targeted adversarial poisoning (Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021).

    One surrogate trains on the clean images; then the noise makes it see another class in every image: the next one,
    ``(label + 1) mod classes``, as in the published code (yes/no labels are negated). No alternation. Takes the settings of
    ``BilevelMethod``, and:

    Published and kept: 250 steps of a twentieth of epsilon (0.4/255 at 8/255), 40 epochs of surrogate training with
    a falling learning rate, random flips and crops in training and in noise steps. Ours: noise begins at zero and is made
    once, where the published code begins at random and keeps the best of 8 tries. More rounds bring more surrogates.

    Args:
        surrogate_steps: batches the surrogate trains on; 1,200 are 40 passes over some 4,000 images.
        max_shift: largest random shift, elements, in training and noise steps; images are flipped at random as well.
    """

    step_size: float = 0.05
    num_steps: int = 250
    surrogate_steps: int = 1200
    rounds: int = 1
    restart_every: int = 1
    max_shift: int = field(
        default=4, metadata={"help": "Largest random shift, in elements; images are flipped at random too."}
    )
    name: ClassVar[str] = "tap"
    anneals: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_shift >= 0, "max_shift", "at least 0", self.max_shift)

    @property
    def trains_on_noise(self) -> bool:
        return False

    def noise_targets(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        return task.wrong_target(targets)

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        from monai_salm.learning.augmentation import standard_augmentation

        return standard_augmentation(inputs, targets, generator, self.max_shift)

    noise_inputs = train_inputs
