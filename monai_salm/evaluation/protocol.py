"""The settings of an evaluation: one dataclass, recorded in the report.

The command line makes its options of the fields, so this module imports no torch before a protocol is made.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeAlias

from monai_salm.shared.settings import require, require_numbers, require_type

if TYPE_CHECKING:
    import torch

    from monai_salm.countermeasures.base import Countermeasure
    from monai_salm.data.scan import MapDataset
    from monai_salm.evaluation.predictions import PredictionFolder
    from monai_salm.learning.networks import NetworkFactory
    from monai_salm.learning.recipes import Recipe
    from monai_salm.learning.tasks import Task
    from monai_salm.noise.window import WindowRule

#: Names of architectures, or a mapping of any name to an architecture or a factory.
Victims: TypeAlias = "Sequence[str] | Mapping[str, str | NetworkFactory]"
#: A tier, names, or a mapping of any name to a countermeasure with other settings.
Countermeasures: TypeAlias = "str | Sequence[str] | Mapping[str, str | Countermeasure]"

AUGMENTATIONS = ("none", "standard")
DEFAULT_VICTIMS = {"classification": ("resnet18", "vgg11", "vit"), "segmentation": ("unet", "segresnet")}
# Settings that say what is compared, or where to compute: reports have them elsewhere.
_UNRECORDED = (
    *("window", "copies", "patch_size", "view_size", "device", "jobs", "predictions", "resume", "surrogate"),
    *("test_digest", "native_scale", "native_unit", "image_key", "label_key"),
)
_SEQUENCES = {
    "victims": "names, or a mapping", "pipelines": "names", "countermeasures": "names, or a mapping", "seeds": "numbers",
    "fractions": "numbers", "controls": "names",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which victims are trained on what, and how.

    Args:
        victims: Networks to train. resnet18, vgg11 and vit if not given, for labels per voxel unet and segresnet.
        seeds: A victim is trained for each; three or more show the spread.
        pipelines: How ordinary trainers prepare and augment images, or one variant such as 'resized 0.5'. Plain training is
            always among them; controls, fractions and countermeasures belong to it. plain, resized and nnunet if not given, for
            volumes spacing too.
        countermeasures: What an adversary does to undo the noise. cheap: those that cost at most one ordinary training each. all:
            the costly ones as well. Or some by name; ordinary training (none) is always among them.
        fractions: Shares of protected images in the training set, the others being clean; 1 for all protected alone.
        controls: Training sets that any protection must beat.
        epsilon: Budget of the noise and of random noise, as a share of the window. The copy's own (in Python 8/255) if not given.
        augment: Augmentation of all victims; standard is flips and shifts.
        epochs: Passes over the training set. Chosen by its size if not given.
        learned: A victim stops when its training score was at least this for some epochs in a row. None trains all epochs.
        patience: How many epochs that is; more where epochs are short (at least 60 steps, 200 for tiny sets).
        held_out: Share of the training cases that victims do not see: to stop early on, and an adversary's clean set.
        width: Channels of the victims, as a share of the published networks'.
        recipe: How victims are trained. Chosen by task, rank and architecture if not given.
        resamples: Resamples of the bootstrap over test cases.
        window: chooses the window of each image; give the rule that the noise was made with.
        copies: further protected copies of the same cases by name, to compare with.
        patch_size: train on patches of this size (labels per voxel only).
        view_size: resize images to this size (labels per image only).
        device: ``"auto"``, ``"cpu"`` or ``"cuda:N"``.
        jobs: Victims trained at once, in processes of their own. As many as cores if not given and memory allows.
        predictions: keeps each victim's predictions in MedMNIST's format (labels per image only).
        resume: a file that keeps finished victims, which a later call does not train again.
        surrogate: architecture(s) that the noise was made against; the store's if not given.
        test_digest: what the test set's digest must be, as an earlier report has it under ``protocol["digests"]``: only
            evaluations on the same test images can be compared.
        native_scale: native units, such as Hounsfield units, in one stored unit.
        native_unit: name of the native unit.
        image_key: key of the image.
        label_key: key of the label.

    Raises:
        TypeError: for a setting of another type, such as text for a number.
        ValueError: for an unknown name, naming the known ones, or a number out of range.
    """

    victims: Victims | None = field(default=None, metadata={"metavar": "A[,B]"})
    seeds: Sequence[int] = field(default=(0, 1, 2), metadata={"metavar": "N[,N]"})
    pipelines: Sequence[str] | None = field(default=None, metadata={"metavar": "A[,B]"})
    countermeasures: Countermeasures = field(default="cheap", metadata={"metavar": "cheap|all|A[,B]"})
    fractions: Sequence[float] = field(default=(0.2, 0.4, 0.6, 0.8, 1.0), metadata={"metavar": "X[,X]"})
    controls: Sequence[str] = field(default=("random_noise", "random_mask"), metadata={"metavar": "A[,B]|none"})
    epsilon: float = field(default=8 / 255, metadata={"metavar": "X"})
    augment: str = field(default="none", metadata={"metavar": "none|standard"})
    epochs: int | None = field(default=None, metadata={"metavar": "N"})
    learned: float | None = 0.995
    patience: int = 2
    held_out: float = field(default=0.1, metadata={"metavar": "X"})
    width: float = field(default=0.25, metadata={"metavar": "X"})
    recipe: Recipe | None = None
    resamples: int = 1000
    window: WindowRule | Sequence[WindowRule] | None = None
    copies: Mapping[str, MapDataset] | None = None
    patch_size: Sequence[int] | None = None
    view_size: Sequence[int] | None = None
    device: str | torch.device = "auto"
    jobs: int | None = field(default=1, metadata={"metavar": "N"})
    predictions: PredictionFolder | None = None
    resume: str | os.PathLike[str] | None = None
    surrogate: str | Sequence[str] | None = None
    test_digest: str | None = None
    native_scale: float | None = None
    native_unit: str = ""
    image_key: str = "image"
    label_key: str = "label"

    def __post_init__(self) -> None:
        require_numbers(self)
        for name, items in _SEQUENCES.items():
            value, what = getattr(self, name), f"a sequence of {items}"
            require(not isinstance(value, str) or name == "countermeasures", name, what, repr(value))
            if value is not None and not isinstance(value, str | Mapping):
                require_type(value, Iterable, name, what)
                object.__setattr__(self, name, tuple(value))
        self._check_names()
        no_victim = self.victims is not None and not self.victims
        if no_victim or not self.seeds or not self.countermeasures:
            raise ValueError("give at least one victim, one seed and one countermeasure")
        self._check_numbers()
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    def _check_names(self) -> None:
        from monai_salm.countermeasures import COUNTERMEASURES, TIERS
        from monai_salm.evaluation.pipelines import check_pipelines
        from monai_salm.evaluation.training_sets import CONTROLS

        check_pipelines(self.pipelines or ())
        given = self.countermeasures
        if isinstance(given, str) and given not in TIERS:
            raise ValueError(f"countermeasures must be names, a mapping, or one of {', '.join(TIERS)}, got {given!r}")
        names = [name for name in self._given_countermeasures().values() if isinstance(name, str)]
        for what, asked, known in (
            ("countermeasure", names, COUNTERMEASURES),
            ("control", self.controls, CONTROLS),
            ("augment", [self.augment], AUGMENTATIONS),
        ):
            for name in asked:
                if name not in known:
                    raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
        for name in self.copies or ():
            if name in ("clean", "protected", "test", "clean_part", *CONTROLS):
                raise ValueError(f"a copy must not be called {name!r}, which is the name of another training set")

    def _check_numbers(self) -> None:
        shares = {"epsilon": self.epsilon, "learned": self.learned}
        shares |= {f"fractions[{index}]": fraction for index, fraction in enumerate(self.fractions)}
        for name, share in shares.items():
            require_type(share, (Real, type(None)), name, "a number")
            require(share is None or 0 < share <= 1, name, "in (0, 1]", share)
        require(0 <= self.held_out <= 0.5, "held_out", "in [0, 0.5]", self.held_out)
        require(0 < self.width <= 4, "width", "in (0, 4]", self.width)
        counts = {name: getattr(self, name) for name in ("epochs", "patience", "resamples", "jobs")}
        counts |= {f"seeds[{index}]": seed for index, seed in enumerate(self.seeds)}
        for name, count in counts.items():
            least = 0 if name.startswith("seeds") else 1
            whole = count is None or (isinstance(count, Integral) and int(count) >= least)
            require(whole, name, f"a whole number of at least {least}", repr(count))

    def check_task(self, task: Task) -> None:
        """Raise ``ValueError`` for a setting that does not fit the task, ``TypeError`` for what is no task."""
        from monai_salm.learning.tasks import Task

        require_type(task, Task, "task", "a task, such as Classification(num_classes=2)")
        self.architectures(task)
        if self.patch_size is not None and task.kind != "segmentation":
            raise ValueError(
                "patch_size trains on patches, whose answers would have to be joined to one answer per image; give view_size, "
                "which resizes the images"
            )
        if self.predictions is not None and task.kind == "segmentation":
            raise ValueError("predictions are written for labels per image only: leave predictions out")

    def _given_countermeasures(self) -> dict[str, str | Countermeasure]:
        from monai_salm.countermeasures import TIERS

        given = self.countermeasures
        if isinstance(given, Mapping):
            return dict(given)
        return {name: name for name in (TIERS.get(given, ()) if isinstance(given, str) else given)}

    def adversaries(self) -> dict[str, Countermeasure]:
        """The countermeasures by name; ``"none"``, the reference of the others, comes first."""
        from monai_salm.countermeasures import COUNTERMEASURES

        given = {"none": COUNTERMEASURES["none"], **self._given_countermeasures()}
        return {name: COUNTERMEASURES[item] if isinstance(item, str) else item for name, item in given.items()}

    def architectures(self, task: Task) -> dict[str, str | NetworkFactory]:
        """The victims by name; ``ValueError`` for one that is unknown, or answers per voxel where the task asks per image."""
        from monai_salm.learning.networks import NETWORKS, SEGMENTATION_NETWORKS

        given = DEFAULT_VICTIMS[task.kind] if self.victims is None else self.victims
        named: dict[str, str | NetworkFactory] = {}
        named.update(given if isinstance(given, Mapping) else {name: name for name in given})
        segmentation = task.kind == "segmentation"
        known = [name for name in NETWORKS if (name in SEGMENTATION_NETWORKS) == segmentation]
        for victim in named.values():
            if not callable(victim) and victim not in known:
                raise ValueError(f"unknown victim {victim!r} for {task.kind}; known: {', '.join(known)}")
        return named

    def require_names(self, task: Task, why: str) -> None:
        """Raise ``ValueError`` for a victim that its name does not stand for elsewhere: a lambda, a closure or a partial."""
        for name, victim in self.architectures(task).items():
            if not isinstance(victim, str):
                found: object = sys.modules.get(str(getattr(victim, "__module__", "")))
                for part in str(getattr(victim, "__qualname__", "?")).split("."):
                    found = getattr(found, part, None)
                if found is not victim:
                    raise ValueError(
                        f"victim {name!r} is {victim_name(victim)}, {why}: give a function or class at the top of a module"
                    )

    def spec(self) -> dict[str, Any]:
        """The recorded settings as plain values; a factory is recorded by its name."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _UNRECORDED}
        if isinstance(self.victims, Mapping):
            values["victims"] = {name: victim_name(victim) for name, victim in self.victims.items()}
        values["recipe"] = None if self.recipe is None else asdict(self.recipe)
        values["countermeasures"] = {name: countermeasure.spec() for name, countermeasure in self.adversaries().items()}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


#: What each setting is, as the docstring says it.
HELP = {
    name: " ".join(text.split())
    for name, text in re.findall(r"^ {4}([a-z_]+): (.*(?:\n {8}.*)*)", inspect.getdoc(Protocol) or "", re.MULTILINE)
}


def victim_name(victim: str | NetworkFactory) -> str:
    """An architecture's name, or where a factory is defined and what it is called there."""
    if isinstance(victim, str):
        return victim
    return f"{getattr(victim, '__module__', '?')}.{getattr(victim, '__qualname__', type(victim).__qualname__)}"
