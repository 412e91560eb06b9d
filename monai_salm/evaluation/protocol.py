"""What is fixed before an evaluation begins: one dataclass, recorded whole in the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from monai_salm.countermeasures import COUNTERMEASURES, TIERS, Countermeasure
from monai_salm.evaluation.controls import CONTROLS
from monai_salm.evaluation.pipelines import Pipeline, check_pipelines, find_pipelines
from monai_salm.learning.augmentation import standard_augmentation
from monai_salm.learning.networks import NETWORKS, SEGMENTATION_NETWORKS, NetworkFactory
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Task

#: Done to every batch of every victim.
AUGMENTATIONS = {"none": None, "standard": standard_augmentation}
#: Names of architectures, or a mapping of any name to an architecture or a factory.
Victims: TypeAlias = Sequence[str] | Mapping[str, str | NetworkFactory]
#: A tier, names, or a mapping of any name to a countermeasure with other settings.
Countermeasures: TypeAlias = str | Sequence[str] | Mapping[str, str | Countermeasure]

DEFAULT_VICTIMS = {"classification": ("resnet18", "vgg11", "vit"), "segmentation": ("unet", "segresnet")}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Victims x seeds x pipelines, countermeasures and protected fractions, and how each victim is trained.

    Args:
        victims: architectures, or a mapping of names to architectures or factories (called with ``spatial_dims``,
            ``in_channels`` and ``out_channels``); None is resnet18, vgg11 and vit, or unet and segresnet for segmentation.
        seeds: one victim is trained for each; never a seed that a surrogate started from.
        pipelines: names in ``pipelines.FAMILIES`` or ``pipelines.PIPELINES``: how ordinary trainers prepare and augment images.
            Each is trained on clean and protected images, and on copies; controls, fractions and countermeasures are for
            ``"plain"`` alone, which is always among them. None is plain, resized and nnunet, for volumes spacing too.
        countermeasures: names in ``COUNTERMEASURES``, or one of ``TIERS``: ``"cheap"`` (each costs at most one ordinary
            training) or ``"all"``; or a mapping, for other settings: ``{"blur 0.5": Blur(sigma=0.5)}``. They are applied to clean
            and protected images alike; ``"none"`` is always among them.
        fractions: shares of the cases that carry the noise, each without countermeasure; below 1, the clean part alone is
            trained on as well. 1 is always part of the evaluation.
        controls: names in ``CONTROLS``: training sets that any protection must beat, without countermeasures.
        epsilon: budget of the noise, as a fraction of the window; random noise gets the same.
        augment: ``"none"`` or ``"standard"`` (flips and shifts), for every victim.
        epochs: passes over the training set; None chooses by its size. A smaller set gets as many steps.
        learned: a victim whose training score was at least this for ``patience`` epochs in a row stops: there is nothing left
            to learn. None trains all epochs.
        patience: see ``learned``. Where epochs are shorter than 30 steps, as many more as make 60 steps; shorter than 16: 200.
        held_out: share of the training cases that no victim trains on: as published, to stop early on; as they were, clean,
            the small clean set of an adversary who has one. 0 holds none out.
        width: channels of the victims, as a share of the published architectures'.
        recipe: how victims are trained; None chooses by task, rank and architecture.
        resamples: of the bootstrap over test cases.

    Raises:
        ValueError: for an unknown name, naming the known ones, or a number out of range.
    """

    victims: Victims | None = None
    seeds: Sequence[int] = (0, 1, 2)
    pipelines: Sequence[str] | None = None
    countermeasures: Countermeasures = "cheap"
    fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0)
    controls: Sequence[str] = ("random_noise", "random_mask")
    epsilon: float = 8 / 255
    augment: str = "none"
    epochs: int | None = None
    learned: float | None = 0.995
    patience: int = 2
    held_out: float = 0.1
    width: float = 0.25
    recipe: Recipe | None = None
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name in ("victims", "pipelines", "countermeasures", "seeds", "fractions", "controls"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | Mapping):
                object.__setattr__(self, name, tuple(value))
        if isinstance(self.victims, str):
            raise ValueError(f"victims must be a sequence of names, or a mapping, got {self.victims!r}")
        if isinstance(self.pipelines, str):
            raise ValueError(f"pipelines must be a sequence of names, got {self.pipelines!r}")
        check_pipelines(self.pipelines or ())
        if isinstance(self.countermeasures, str) and self.countermeasures not in TIERS:
            raise ValueError(
                f"countermeasures must be names, a mapping, or one of {', '.join(TIERS)}, got {self.countermeasures!r}"
            )
        for what, names, known in (
            (
                "countermeasure",
                [n for n in self._given_countermeasures().values() if isinstance(n, str)],
                COUNTERMEASURES,
            ),
            ("control", self.controls, CONTROLS),
            ("augment", [self.augment], AUGMENTATIONS),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
        no_victim = self.victims is not None and not self.victims
        if no_victim or not self.seeds or not self.countermeasures:
            raise ValueError("give at least one victim, one seed and one countermeasure")
        self._check_numbers()

    def _check_numbers(self) -> None:
        shares = {"epsilon": self.epsilon, "learned": self.learned}
        shares |= {f"fractions[{index}]": fraction for index, fraction in enumerate(self.fractions)}
        for name, share in shares.items():
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")
        if not 0 <= self.held_out <= 0.5:
            raise ValueError(f"held_out must be in [0, 0.5], got {self.held_out}")
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be in (0, 4], got {self.width}")
        counts = {"epochs": self.epochs, "patience": self.patience, "resamples": self.resamples}
        counts |= {f"seeds[{index}]": seed for index, seed in enumerate(self.seeds)}
        for name, count in counts.items():
            whole = count is None or isinstance(count, int | np.integer)
            if not whole or (count is not None and count < (0 if name.startswith("seeds") else 1)):
                raise ValueError(f"{name} must be a whole number that is not too small, got {count!r}")
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    def _given_countermeasures(self) -> dict[str, str | Countermeasure]:
        given = self.countermeasures
        named: dict[str, str | Countermeasure] = {}
        if isinstance(given, Mapping):
            named.update(given)
        else:
            names = TIERS.get(given, ()) if isinstance(given, str) else given
            named.update({name: name for name in names})
        return named

    def adversaries(self) -> dict[str, Countermeasure]:
        """The countermeasures by name, ``"none"``, which the others are compared with, first."""
        given = {"none": COUNTERMEASURES["none"], **self._given_countermeasures()}
        return {name: COUNTERMEASURES[item] if isinstance(item, str) else item for name, item in given.items()}

    def ordinary(self, spatial_dims: int) -> dict[str, Pipeline]:
        """The pipelines by name, ``"plain"`` first.

        Args:
            spatial_dims: 2 or 3.

        Raises:
            ValueError: for a pipeline that is not for images of this rank.
        """
        return find_pipelines(self.pipelines, spatial_dims)

    def architectures(self, task: Task) -> dict[str, str | NetworkFactory]:
        """The victims by name.

        Raises:
            ValueError: for a name that is unknown or answers per voxel where the task asks per image, or the reverse.
        """
        given = DEFAULT_VICTIMS[task.kind] if self.victims is None else self.victims
        named: dict[str, str | NetworkFactory] = {}
        named.update(given if isinstance(given, Mapping) else {name: name for name in given})
        segmentation = task.kind == "segmentation"
        known = [name for name in NETWORKS if (name in SEGMENTATION_NETWORKS) == segmentation]
        for victim in named.values():
            if not callable(victim) and victim not in known:
                raise ValueError(f"unknown victim {victim!r} for {task.kind}; known: {', '.join(known)}")
        return named

    def spec(self) -> dict[str, Any]:
        """The settings as plain values; a factory is recorded by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if isinstance(self.victims, Mapping):
            values["victims"] = {name: victim_name(victim) for name, victim in self.victims.items()}
        values["recipe"] = None if self.recipe is None else asdict(self.recipe)
        values["countermeasures"] = {name: countermeasure.spec() for name, countermeasure in self.adversaries().items()}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def victim_name(victim: str | NetworkFactory) -> str:
    """An architecture's name, or where a factory is defined and what it is called there."""
    if isinstance(victim, str):
        return victim
    return f"{getattr(victim, '__module__', '?')}.{getattr(victim, '__qualname__', type(victim).__qualname__)}"


def is_importable(victim: str | NetworkFactory) -> bool:
    """Whether a factory's name stands for it in other processes and later calls: not for lambdas, closures or partials."""
    if isinstance(victim, str):
        return True
    found: object = sys.modules.get(str(getattr(victim, "__module__", "")))
    for part in str(getattr(victim, "__qualname__", "?")).split("."):
        found = getattr(found, part, None)
    return found is victim
