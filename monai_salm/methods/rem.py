"""REM and SEM: error-minimising noise that also holds for networks trained adversarially."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from monai_salm.methods.base import Batch, Loss
from monai_salm.methods.em import EM
from monai_salm.shared.settings import require

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class REM(EM):
    """Robust error-minimising noise (Fu et al., "Robust Unlearnable Examples", ICLR 2022): min-min-max.

    Surrogates train on transformed noisy images with an adversarial perturbation on top; noise steps lower the loss of just
    such images, averaged over several draws (expectation over transformation). Takes the settings of ``BilevelMethod``, and:

    Published and kept: 10 noise steps of a fifth of epsilon (1.6/255 at 8/255), 5 draws, attacks of 10 steps from a
    random start, random flips and crops. Ours: the published code makes new noise for each training batch, for
    5,000 batches, and that of all images once at the end; here it persists, over 10 rounds (4 for volumes) of 50 batches
    each. A noise step costs 55 passes of the network, so this is by far the slowest method.

    Args:
        attack_radius: adversarial radius, as a share of epsilon (half of it is 4/255 at 8/255).
        attack_steps: steps of the adversarial attack, each a fifth of its radius.
        draws: transformations and attacks over which a noise step's gradient is averaged.
        max_shift: largest random shift, elements, in training and noise steps; images are flipped at random as well.
    """

    step_size: float = 0.2
    num_steps: int = 10
    surrogate_steps: int = 50
    rounds: int = 10
    stop_error: float = 0.0
    attack_radius: float = field(
        default=0.5, metadata={"help": "Radius of the adversarial attack, as a share of epsilon."}
    )
    attack_steps: int = field(
        default=10, metadata={"help": "Steps of the adversarial attack, each a fifth of its radius."}
    )
    draws: int = field(
        default=5, metadata={"help": "Transformations and attacks over which a noise step's gradient is averaged."}
    )
    max_shift: int = field(
        default=4, metadata={"help": "Largest random shift, in elements; images are flipped at random too."}
    )
    name: ClassVar[str] = "rem"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.attack_radius <= 1, "attack_radius", "in (0, 1], a share of epsilon", self.attack_radius)
        for name, least in (("attack_steps", 1), ("draws", 1), ("max_shift", 0)):
            require(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))

    @property
    def _radius(self) -> float:
        return self.attack_radius * self.epsilon

    @property
    def noise_draws(self) -> int:
        return self.draws

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.attack_steps, self.draws * (1 + self.attack_steps)

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        from monai_salm.learning.augmentation import standard_augmentation
        from monai_salm.methods.adversarial import adversarial

        inputs, targets = standard_augmentation(inputs, targets, generator, self.max_shift)
        # The perturbation is a constant: a gradient flows through the transformation alone.
        return inputs + adversarial(loss, inputs, targets, self._radius, self.attack_steps, generator), targets

    noise_inputs = train_inputs


@dataclass(frozen=True, kw_only=True)
class SEM(REM):
    """Stable error-minimising noise (Liu et al., "Stable Unlearnable Example", AAAI 2024).

    REM whose noise steps meet one random perturbation of the attack's radius in place of an attack; its surrogates train
    against the attack, because the paper finds that the robustness of surrogates matters. Takes REM's settings; a
    noise step costs 5 passes.
    """

    name: ClassVar[str] = "sem"

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.attack_steps, self.draws

    def noise_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        from monai_salm.learning.augmentation import standard_augmentation
        from monai_salm.methods.adversarial import random_start

        inputs, targets = standard_augmentation(inputs, targets, generator, self.max_shift)
        return inputs + random_start(inputs, self._radius, generator), targets
