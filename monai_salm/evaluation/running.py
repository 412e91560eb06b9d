"""One training of an evaluation, and the cells of the report that it gives."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from monai_salm.countermeasures.base import Countermeasure, Resources
from monai_salm.countermeasures.training import best_epoch
from monai_salm.evaluation.protocol import Protocol, victim_name
from monai_salm.evaluation.schedule import Cell, Schedule, Training
from monai_salm.evaluation.training_sets import TrainingSets
from monai_salm.evaluation.utility import utility
from monai_salm.evaluation.victims import (
    VICTIM_SEED,
    Epoch,
    ScoredSets,
    Setting,
    Victim,
    adversary_resources,
    default_epochs,
    guessing_score,
    settled_epochs,
    train_victim,
)
from monai_salm.learning.augmentation import Augmentation, standard_augmentation
from monai_salm.learning.cases import Cases
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.scores import bootstrap_interval
from monai_salm.learning.trainer import steps_per_epoch

#: Called after every epoch with the training and the headline score.
AfterEpoch: TypeAlias = Callable[[Training, float], None]
_Data: TypeAlias = tuple[str, float]
#: Role, training set (None for the sets that belong to none), and countermeasure or pipeline.
_CacheKey: TypeAlias = tuple[str, _Data | None, str]


@dataclass
class Runner:
    """Trains victims and scores them; holds all that they share."""

    sets: TrainingSets
    protocol: Protocol

    def __post_init__(self) -> None:
        self.task = self.sets.clean.task
        self.device = resolve_device(self.protocol.device)
        self.schedule = Schedule(self.protocol, self.sets)
        self._adversaries = self.schedule.adversaries
        self._clean = self.sets.training("clean")
        self._held_out_clean = self.sets.held_out_cases("clean")
        self.guessing = guessing_score(self._clean.labels)
        self.settings = {
            name: self._setting(network) for name, network in self.protocol.architectures(self.task).items()
        }
        self._cache: dict[_CacheKey, Cases] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self.sets, self.protocol)  # other processes make the rest

    def run(self, training: Training, after_epoch: AfterEpoch) -> list[Cell]:
        """Train one victim; the cells are those of ``schedule.gives(training)``."""
        start = time.monotonic()
        countermeasure, setting = self._adversaries[training.countermeasure], self.setting(training)
        seed = training.seed + VICTIM_SEED
        train, scored = self._prepared(training, adversary_resources(self._held_out_clean, setting, seed))
        metric = self.task.metric
        victim = train_victim(
            seed, train, scored, setting, countermeasure, lambda epoch: after_epoch(training, epoch.scores[metric])
        )
        predictions = victim.trainer.predict(scored.test)
        cell = self._cell(training, victim, victim.epochs[-1])
        # A pipeline may have label maps of its own resolution.
        cell["scores"] = self.task.final_scores(predictions, scored.test.labels)
        cell["seconds"] = round(time.monotonic() - start, 3)
        if type(countermeasure).filter is not Countermeasure.filter:
            unfiltered = victim.trainer.predict(self.sets.test)
            cell["unfiltered"] = self.task.scores(unfiltered, self.sets.test.labels)[metric]
        if training.data == "clean" and training.treatment() == "none" and len(self._held_out_clean):
            cell["utility"] = self._utility(victim)
        if self.protocol.predictions is not None:
            self.protocol.predictions.write(cell, predictions)
        return [
            {**cell, "data": given.data}
            if given.countermeasure == training.countermeasure
            else self._after(given, victim, scored)
            for given in self.schedule.gives(training)
        ]

    def setting(self, training: Training) -> Setting:
        """How a victim is trained: the setting of its architecture with the augmentation of the pipeline."""
        setting, pipeline = self.settings[training.victim], self.schedule.pipelines[training.pipeline]
        if not pipeline.augments:
            return setting
        epochs = self.protocol.epochs or default_epochs(self._clean, setting.recipe, "standard")
        return replace(setting, augment=_in_turn(pipeline.augment, setting.augment), epochs=epochs)

    def _setting(self, network: Any) -> Setting:
        protocol = self.protocol
        recipe = protocol.recipe or default_recipe(self.task, self._clean.spatial_dims, network)
        learned, epoch_steps = protocol.learned, steps_per_epoch(self._clean, recipe)
        return Setting(
            network=network,
            recipe=recipe,
            epochs=protocol.epochs or default_epochs(self._clean, recipe, protocol.augment),
            epoch_steps=epoch_steps,
            width=protocol.width,
            device=self.device,
            augment=standard_augmentation if protocol.augment == "standard" else None,
            # A share of the way from guessing: where nearly all voxels are background, a high share of hits says nothing.
            learned=None if learned is None else self.guessing + learned * (1 - self.guessing),
            patience=settled_epochs(protocol.patience, epoch_steps),
        )

    def _prepared(self, training: Training, resources: Resources) -> tuple[Cases, ScoredSets]:
        """The training set, and the sets that the victim is scored on."""
        self._free_memory(training)
        sets, data, treatment = self.sets, (training.data, training.fraction), training.treatment()
        adversary, pipeline = self._adversaries[training.countermeasure], self.schedule.pipelines[training.pipeline]
        plain = training.pipeline == "plain"
        of_tests = adversary.filter_cases if plain else pipeline.prepare_test

        def scored(role: str, of: _Data | None, make: Callable[[], Cases]) -> Cases:
            return self._cached((role, of, treatment), lambda: of_tests(cases) if len(cases := make()) else cases)

        published = self._cached(("trained on", data, "none"), lambda: sets.training(*data))
        if type(adversary).prepare is not Countermeasure.prepare:
            train = adversary.prepare(published, resources)
        else:
            of_training = adversary.filter_cases if plain else pipeline.prepare
            train = self._cached(("trained on", data, treatment), lambda: of_training(published))
        clean = held_out = scored("held out clean", None, lambda: self._held_out_clean)
        if training.data not in ("clean", "clean_part"):  # else one object, so that it is scored once
            held_out = scored("held out", data, lambda: sets.held_out_cases(*data))
        return train, ScoredSets(scored("test", None, lambda: sets.test), held_out, clean)

    def _cached(self, key: _CacheKey, make: Callable[[], Cases]) -> Cases:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _free_memory(self, training: Training) -> None:
        """Drop the images that this training does not need; a set and its filtered copy stay."""
        needed = (None, (training.data, training.fraction))
        names = ("none", training.treatment())
        self._cache = {key: cases for key, cases in self._cache.items() if key[1] in needed and key[2] in names}

    def _cell(self, training: Training, victim: Victim, epoch: Epoch) -> Cell:
        """The cell of a victim whose network of one epoch counts."""
        countermeasure, metric = self._adversaries[training.countermeasure], self.task.metric
        curve = [e.scores[metric] for e in victim.epochs]
        held_out, held_out_clean = ([getattr(e, n) for e in victim.epochs] for n in ("held_out", "held_out_clean"))
        early, early_clean = (
            # A victim that trains on the held-out cases cannot stop by them.
            None if math.isnan(scores[-1]) or countermeasure.needs_clean else curve[best_epoch(scores)]
            for scores in (held_out, held_out_clean)
        )
        return {
            **asdict(training),
            "network": victim_name(self.settings[training.victim].network),
            "augment": self.protocol.augment,
            "settings": countermeasure.spec(),
            "needs_clean": countermeasure.needs_clean,
            "metric": metric,
            "last": epoch.scores[metric],
            "peak": max(curve),
            "early": early,
            "early_clean": early_clean,
            "interval": list(bootstrap_interval(epoch.case_scores, self.protocol.resamples)),
            "unfiltered": None,
            "train_score": epoch.train_score,
            "stopped": victim.stopped,
            "epochs": len(victim.epochs),
            "seconds": 0.0,
            "scores": epoch.scores,
            "curve": curve,
            "train_curve": [e.train_score for e in victim.epochs],
            "held_out_curve": held_out,
            "held_out_clean_curve": held_out_clean,
            "utility": None,
        }

    def _after(self, training: Training, victim: Victim, scored: ScoredSets) -> Cell:
        """The cell of a countermeasure that starts from a trained victim; the victim stays as it is."""
        start = time.monotonic()
        countermeasure, test = self._adversaries[training.countermeasure], scored.test
        picked = countermeasure.pick(*([getattr(e, n) for e in victim.epochs] for n in ("held_out", "held_out_clean")))
        epoch, trainer = victim.epochs[picked], victim.trainer
        if type(countermeasure).finish is not Countermeasure.finish:
            before = copy.deepcopy(trainer.model.state_dict())
            setting = self.settings[training.victim]
            resources = adversary_resources(self._held_out_clean, setting, training.seed + VICTIM_SEED)
            countermeasure.finish(trainer, resources)
            predictions = trainer.predict(test)
            trainer.model.load_state_dict(before)
            table = self.task.case_scores(predictions, test.labels)
            epoch = replace(epoch, scores=self.task.final_scores(predictions, test.labels), case_scores=table)
        # The curves of the ordinary training stand in its own cell; there is no other epoch to choose from here.
        return {
            **self._cell(training, victim, epoch),
            "peak": epoch.scores[self.task.metric],
            **dict.fromkeys(("early", "early_clean", "stopped")),
            "epochs": picked % len(victim.epochs) + 1,
            "seconds": round(time.monotonic() - start, 3),
            **{curve: [] for curve in ("curve", "train_curve", "held_out_curve", "held_out_clean_curve")},
        }

    def _utility(self, victim: Victim) -> dict[str, Any]:
        protected = self.sets.held_out_cases("protected")
        clean, noisy = (victim.trainer.predict(cases) for cases in (self._held_out_clean, protected))
        return utility(self.task, clean, noisy, self._held_out_clean.labels)


def _in_turn(first: Augmentation, second: Augmentation | None) -> Augmentation:
    """Two augmentations, one after the other."""
    if second is None:
        return first
    return lambda images, targets, generator: second(*first(images, targets, generator), generator)
