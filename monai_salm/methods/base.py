"""Settings of noise methods: what all have, and the places where those that train surrogates differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from monai_salm.methods.masks import Everything, Mask
from monai_salm.shared.settings import require, require_epsilon

if TYPE_CHECKING:
    import torch

    from monai_salm.learning.tasks import Task
    from monai_salm.methods.job import Job
    from monai_salm.noise.budget import Budget
    from monai_salm.shared.arrays import Array

#: Mean loss of the network at hand, in evaluation mode: ``(inputs, targets) -> scalar``, inputs normalised.
Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
#: A batch as a network sees it: inputs ``(batch, channel, *spatial)``, normalised, and targets.
Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


@dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of a way to make noise; ``loop.run`` does it.

    Args:
        epsilon: budget (L-infinity) as a fraction of each image's window, in (0, 1].
    """

    epsilon: float = field(
        default=8 / 255,
        metadata={"help": "Largest change of an element, as a share of the window.", "main": True},
    )
    name: ClassVar[str]

    def __post_init__(self) -> None:
        require_epsilon(self.epsilon)

    def spec(self) -> dict[str, Any]:
        """The settings as plain values."""
        return _plain(self)

    def record(self, task: Task, labels: Sequence[Array]) -> dict[str, Any]:
        """What a store's description says of the method, as plain values.

        Args:
            task: the learning problem.
            labels: of all images, in the task's canonical form.
        """
        loop = self.loop()
        return {
            "method": self.spec(),
            "epsilon": self.epsilon,
            "mask_share": 1.0 if loop is None else loop.mask.share,
            "plain_class": self.plain_class(task, labels),
        }

    @property
    def label(self) -> str:
        """What tables and reports call the method."""
        return self.name

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        """Refuse a learning problem that the method is not made for.

        Args:
            task: the learning problem.
            spatial_dims: 2 or 3.

        Raises:
            ValueError: saying why, and what to use.
        """

    def loop(self) -> BilevelMethod | None:
        """The settings of the loop that makes the noise; None for a method without networks."""
        return None

    def maker(self, job: Job) -> Callable[[int], Array]:
        """What gives the finished codes of each case, for a method without networks.

        Args:
            job: the data set.
        """
        raise NotImplementedError(f"{self.name} makes its noise with networks")

    def plain_class(self, task: Task, labels: Sequence[Array]) -> int | None:
        """The class whose images have no texture; None if each has one, or the method has no textures."""
        return None


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as plain values with their name; settings inside them alike."""
    values = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    inner = {name: _plain(value) if is_dataclass(value) else value for name, value in values}
    return {"name": settings.name, **inner}


@dataclass(frozen=True, kw_only=True)
class BilevelMethod(Method):
    """Noise by the one loop: a surrogate trains, then every image's noise takes sign-gradient *descent* steps against it.

    Methods override the hooks that differ. Draws come from the generator given, so that noise stays a function of the seed.

    Args:
        step_size: length of a noise step, as a share of epsilon; 1 puts every element it may change at the edge of its budget.
        num_steps: noise steps for every image in a round.
        surrogate_steps: batches that the surrogate trains on before the noise steps of a round.
        rounds: turns of surrogate training and noise steps.
        restart_every: rounds after which the surrogate starts from fresh weights; 0 is never, as EM's published code.
        stop_error: stop once the surrogate's error on the noisy images is at most this; 0 never does.
        calibration_steps: batches on which the surrogate's batch normalisation is measured again before it is frozen; 0
            keeps the running averages of its training, as the published codes do.
        perturb_type: ``"samplewise"`` noise for every image, or ``"classwise"`` one noise for all images of a class.
        mask: which elements a noise step may change.
    """

    step_size: float = field(default=0.1, metadata={"help": "Length of a noise step, as a share of epsilon."})
    num_steps: int = field(default=20, metadata={"help": "Noise steps for an image in each round."})
    surrogate_steps: int = field(default=10, metadata={"help": "Batches that the surrogate trains on in each round."})
    rounds: int = field(default=20, metadata={"help": "Turns of surrogate training and noise steps."})
    restart_every: int = field(
        default=0, metadata={"help": "Rounds after which the surrogate starts from fresh weights; 0 is never."}
    )
    stop_error: float = field(
        default=0.0,
        metadata={"help": "Stop once the surrogate's error on the protected images is at most this; 0 never does."},
    )
    calibration_steps: int = field(
        default=0, metadata={"help": "Batches that measure the surrogate's batch normalisation before noise steps."}
    )
    perturb_type: str = field(
        default="samplewise",
        metadata={"help": "One noise for each image, or one for each class.", "values": ("samplewise", "classwise")},
    )
    mask: Mask = Everything()
    #: Whether the noise begins as something else than zero, so that no steps are needed.
    has_start: ClassVar[bool] = False
    #: Whether the learning rate falls over a round's surrogate training, by the recipe's schedule, or stays.
    anneals: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.step_size <= 1, "step_size", "in (0, 1], a share of epsilon", self.step_size)
        turns = 0 if self.has_start else 1
        least = {"num_steps": turns, "surrogate_steps": 1, "rounds": turns, "restart_every": 0, "calibration_steps": 0}
        for name, value in least.items():
            require(getattr(self, name) >= value, name, f"at least {value}", getattr(self, name))
        require(0 <= self.stop_error < 1, "stop_error", "in [0, 1)", self.stop_error)
        known = ("samplewise", "classwise")
        require(self.perturb_type in known, "perturb_type", f"one of {known}", self.perturb_type)
        if self.perturb_type == "classwise" and not isinstance(self.mask, Everything):
            raise ValueError(
                'a mask is one for each image and perturb_type "classwise" one noise for each class: choose'
            )

    def loop(self) -> BilevelMethod:
        return self

    def require_fit(self, task: Task, spatial_dims: int) -> None:
        if self.mask.name == "region" and task.kind != "segmentation":
            raise ValueError(f"{self.name} needs labels per voxel (segmentation), this is {task.kind}; use em")

    def whole_side(self, task: Task, spatial_dims: int) -> int | None:
        """Longest side of images that surrogates see whole and unchanged; None is the rule of ``choose_view``."""
        return None

    @property
    def trains_on_noise(self) -> bool:
        """Whether surrogates train on the noisy images (min-min) or on the clean ones."""
        return True

    @property
    def noise_draws(self) -> int:
        """Draws of ``noise_inputs`` over which a noise step's gradient is averaged (expectation over transformation)."""
        return 1

    @property
    def passes(self) -> tuple[int, int]:
        """Network passes (forward and backward) of a training step and of a noise step, to foretell the time."""
        return 1, self.noise_draws

    def train_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """What a surrogate's batch becomes before its training step.

        Args:
            loss: of the surrogate in training.
            inputs: ``(batch, channel, *view.size)``, normalised, on the device.
            targets: labels, on the device; to be moved along where they are per voxel.
            generator: source of randomness, on the CPU.
        """
        return inputs, targets

    def noise_inputs(
        self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> Batch:
        """What the noisy images become before the gradient of a noise step, which flows through; called for every draw.

        The arguments are those of ``train_inputs``; the surrogate is frozen, the inputs are a differentiable function of the
        noise, and the noise moves predictions towards the targets.
        """
        return inputs, targets

    def noise_targets(self, task: Task, targets: torch.Tensor) -> torch.Tensor:
        """Labels that the noise makes the surrogate answer; by default the true ones."""
        return targets

    def mask_loss(self, task: Task, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What is significant in an image moves this scalar; by default the loss of the true labels."""
        return task.loss(logits, targets)

    def penalty(self, noise: torch.Tensor, images: torch.Tensor) -> torch.Tensor | None:
        """A term that noise steps add to the loss, or None.

        Args:
            noise: ``(batch, channel, *spatial)``, fraction of the window's width, differentiable.
            images: the images without noise, normalised, same shape.
        """
        return None

    def start(self, image: Array, label: Array, budget: Budget, job: Job) -> Array | None:
        """What the noise of a case begins as, in quanta, broadcast to the image's shape; None for no noise.

        Args:
            image: stored array ``(channel, *spatial)``.
            label: of the image, in the task's canonical form.
            budget: what its noise keeps to.
            job: the data set.
        """
        return None

    def needs_no_steps(self, label: Array, plain_class: int | None) -> bool:
        """Whether the noise of a case stays as it begins: no noise steps are spent on it.

        Args:
            label: of the image.
            plain_class: the class whose images have no texture; None if there is none.
        """
        return False
