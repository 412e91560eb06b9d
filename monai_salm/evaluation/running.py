"""The trainings of an evaluation one by one: what there is to train, and the cells of the report that each gives."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import torch

from monai_salm.countermeasures import Countermeasure, Means
from monai_salm.evaluation.cells import Cell, Training, make_cell
from monai_salm.evaluation.predictions import PredictionFolder
from monai_salm.evaluation.protocol import AUGMENTATIONS, Protocol
from monai_salm.evaluation.schedule import Schedule
from monai_salm.evaluation.training_sets import TrainingSets
from monai_salm.evaluation.utility import utility
from monai_salm.evaluation.victims import (
    VICTIM_SEED,
    Epoch,
    Setting,
    Victim,
    Watched,
    adversary_means,
    default_epochs,
    guessing_score,
    settled_epochs,
    train_victim,
)
from monai_salm.learning.augmentation import Augmentation
from monai_salm.learning.cases import Cases
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.trainer import steps_per_epoch

_Data: TypeAlias = tuple[str, float]
#: Role, training set (None for what belongs to none), and what was done to the images.
_Kept: TypeAlias = tuple[str, _Data | None, str]


@dataclass
class Runner:
    """Trains victims and scores them; holds all that they share.

    Args:
        sets: the training sets and the test set.
        protocol: how to train.
        device: where to train.
        copies: names of further protected copies.
        predictions: keeps each victim's predictions of the test set (classification only).
    """

    sets: TrainingSets
    protocol: Protocol
    device: torch.device
    copies: Sequence[str] = ()
    predictions: PredictionFolder | None = None

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.protocol, self.sets, self.copies)
        self._adversaries = self.schedule.adversaries
        self._clean = self.sets.training("clean")
        self.known = self.sets.held_out_cases("clean")
        self.guessing = guessing_score(self._clean.labels)
        self.settings = {
            name: self._setting(network) for name, network in self.protocol.architectures(self.sets.task).items()
        }
        self._kept: dict[_Kept, Cases] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # no images that others can be made of

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def run(self, training: Training, after_epoch: Callable[[Epoch], None]) -> list[Cell]:
        """Train one victim.

        Args:
            training: what to train.
            after_epoch: told of each epoch.

        Returns:
            One cell for each of ``schedule.keys(training)``.
        """
        start = time.monotonic()
        countermeasure, setting = self._adversaries[training.countermeasure], self.setting(training)
        seed = training.seed + VICTIM_SEED
        means = adversary_means(self.known, setting, seed)
        train, watched = self._prepared(training, means)
        victim = train_victim(seed, train, watched, setting, countermeasure, after_epoch)
        predictions = victim.trainer.predict(watched.test)
        cell = self._cell(training, victim, victim.epochs[-1])
        # A pipeline may have label maps of its own resolution.
        cell["scores"] = self.sets.task.final_scores(predictions, watched.test.labels)
        cell["seconds"] = round(time.monotonic() - start, 3)
        if type(countermeasure).filter is not Countermeasure.filter:
            unfiltered = victim.trainer.predict(self.sets.test)
            cell["unfiltered"] = self.sets.task.scores(unfiltered, self.sets.test.labels)[self.sets.task.metric]
        if training.data == "clean" and training.way() == "none" and len(self.known):
            cell["utility"] = self._utility(victim)
        if self.predictions is not None:
            self.predictions.write(cell, predictions)
        twins = [{**cell, "data": twin.data} for twin in self.schedule.twins(training)]
        return [
            cell,
            *twins,
            *(self._after(name, training, victim, watched) for name in self.schedule.afterwards(training)),
        ]

    def _prepared(self, training: Training, means: Means) -> tuple[Cases, Watched]:
        """What the victim trains on and what it is scored on."""
        self._forget_other_than(training)
        name, sets = training.countermeasure, self.sets
        data = (training.data, training.fraction)
        if training.pipeline != "plain":
            return self._by_pipeline(training.pipeline, data)
        known = self._filtered(("known", None), name, lambda: self.known)
        watched = Watched(
            test=self._filtered(("test", None), name, lambda: sets.test),
            held_out=known  # one set, so that it is scored once
            if training.data in ("clean", "clean_part")
            else self._filtered(("held out", data), name, lambda: sets.held_out_cases(*data)),
            known=known,
        )
        if type(self._adversaries[name]).prepare is Countermeasure.prepare:
            return self._filtered(("trained on", data), name, lambda: sets.training(*data)), watched
        published = self._filtered(("trained on", data), "none", lambda: sets.training(*data))
        return self._adversaries[name].prepare(published, means), watched

    def _by_pipeline(self, name: str, data: _Data) -> tuple[Cases, Watched]:
        """What the victim trains on and is scored on, each with the deterministic part of a pipeline."""
        pipeline, sets = self.schedule.pipelines[name], self.sets

        def scored(role: str, of: _Data | None, make: Callable[[], Cases]) -> Cases:
            return self._keep((role, of, name), lambda: pipeline.prepare_test(make()))

        known = held_out = self.known
        if len(known):
            known = held_out = scored("known", None, lambda: self.known)
            if data[0] not in ("clean", "clean_part"):
                held_out = scored("held out", data, lambda: sets.held_out_cases(*data))
        test = scored("test", None, lambda: sets.test)
        train = self._keep(("trained on", data, name), lambda: pipeline.prepare(sets.training(*data)))
        return train, Watched(test=test, held_out=held_out, known=known)

    def setting(self, training: Training) -> Setting:
        """How a victim is trained: by its architecture's setting, with the augmentation of the pipeline.

        Args:
            training: the victim.
        """
        setting, pipeline = self.settings[training.victim], self.schedule.pipelines[training.pipeline]
        if not pipeline.augments:
            return setting
        epochs = self.protocol.epochs or default_epochs(self._clean, setting.recipe, "standard")
        return replace(setting, augment=_in_turn(pipeline.augment, setting.augment), epochs=epochs)

    def _setting(self, network: Any) -> Setting:
        protocol = self.protocol
        recipe = protocol.recipe or default_recipe(self.sets.task, self._clean.spatial_dims, network)
        learned, epoch_steps = protocol.learned, steps_per_epoch(self._clean, recipe)
        return Setting(
            network=network,
            recipe=recipe,
            epochs=protocol.epochs or default_epochs(self._clean, recipe, protocol.augment),
            epoch_steps=epoch_steps,
            width=protocol.width,
            device=self.device,
            augment=AUGMENTATIONS[protocol.augment],
            # Of the way from guessing: where nearly all voxels are background, a high share of hits says nothing.
            learned=None if learned is None else self.guessing + learned * (1 - self.guessing),
            patience=settled_epochs(protocol.patience, epoch_steps),
        )

    def _filtered(self, role: tuple[str, _Data | None], name: str, make: Callable[[], Cases]) -> Cases:
        """Cases as the adversary filters them, kept until another filter or another training set comes.

        Args:
            role: what they are for, and which training set they belong to.
            name: the countermeasure.
            make: gives the cases.
        """
        countermeasure = self._adversaries[name]

        def filtered() -> Cases:
            cases = make()
            if type(countermeasure).filter is Countermeasure.filter:
                return cases
            pairs = zip(cases.images, cases.windows, strict=True)
            return replace(cases, images=[countermeasure.filter(image, window) for image, window in pairs])

        return self._keep((*role, name), filtered)

    def _keep(self, key: _Kept, make: Callable[[], Cases]) -> Cases:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _forget_other_than(self, training: Training) -> None:
        """Free the images that this training does not need: a set and its filtered copy are all that memory must hold."""
        needed = (None, (training.data, training.fraction))
        names = ("none", training.way())
        self._kept = {key: cases for key, cases in self._kept.items() if key[1] in needed and key[2] in names}

    def _cell(self, training: Training, victim: Victim, epoch: Epoch) -> Cell:
        countermeasure = self._adversaries[training.countermeasure]
        return make_cell(training, victim, epoch, self.protocol, self.setting(training), countermeasure)

    def _after(self, name: str, training: Training, victim: Victim, watched: Watched) -> Cell:
        """The cell of a countermeasure that starts from a trained victim, which is left as it was."""
        start = time.monotonic()
        countermeasure, task, test = self._adversaries[name], self.sets.task, watched.test
        picked = countermeasure.pick(*([getattr(e, n) for e in victim.epochs] for n in ("held_out", "held_out_clean")))
        epoch, trainer = victim.epochs[picked], victim.trainer
        if type(countermeasure).finish is not Countermeasure.finish:
            before = copy.deepcopy(trainer.model.state_dict())
            setting = self.settings[training.victim]
            countermeasure.finish(trainer, adversary_means(self.known, setting, training.seed + VICTIM_SEED))
            predictions = trainer.predict(test)
            trainer.model.load_state_dict(before)
            table = task.case_scores(predictions, test.labels)
            epoch = replace(epoch, scores=task.final_scores(predictions, test.labels), case_scores=table)
        after = replace(training, countermeasure=name)
        # What an ordinary training went through is told in its own cell; there is no other epoch to choose from here.
        return {
            **self._cell(after, victim, epoch),
            "peak": epoch.scores[task.metric],
            "early": None,
            "early_clean": None,
            "stopped": None,
            "epochs": picked % len(victim.epochs) + 1,
            "seconds": round(time.monotonic() - start, 3),
            **{curve: [] for curve in ("curve", "train_curve", "held_out_curve", "held_out_clean_curve")},
        }

    def _utility(self, victim: Victim) -> dict[str, Any]:
        protected = self.sets.held_out_cases("protected")
        clean, noisy = (victim.trainer.predict(cases) for cases in (self.known, protected))
        return utility(self.sets.task, clean, noisy, self.known.labels)


def _in_turn(first: Augmentation, second: Augmentation | None) -> Augmentation:
    """Two augmentations, one after the other."""
    if second is None:
        return first
    return lambda images, targets, generator: second(*first(images, targets, generator), generator)
