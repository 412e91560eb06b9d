"""What there is to train: every victim, seed, training set, pipeline and countermeasure of a protocol that fits the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monai_salm.countermeasures import COUNTERMEASURES, Countermeasure, FlipsShifts
from monai_salm.evaluation.cells import Key, Training
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.training_sets import TrainingSets

# Batch normalisation needs two cases.
_LEAST_CASES = 2


class Schedule:
    """The trainings of an evaluation.

    Args:
        protocol: what is asked for.
        sets: what there is to train on.
        copies: names of further protected copies.
    """

    def __init__(self, protocol: Protocol, sets: TrainingSets, copies: Sequence[str]) -> None:
        self.adversaries = protocol.adversaries()
        self._protocol, self._sets, self._copies = protocol, sets, copies
        self._clean = sets.training("clean")
        self.pipelines = protocol.ordinary(self._clean.spatial_dims)
        self._known = len(sets.held_out_cases("clean"))

    def trainings(self) -> list[Training]:
        """Every training there is to do, in the order it is done in: those on one training set together."""
        whole = ("clean", "protected", *self._copies)
        kinds = [(data, 1.0, "none", "plain") for data in (*whole[:2], *self._protocol.controls, *self._copies)]
        kinds += [(data, 1.0, "none", name) for name in self.pipelines if name != "plain" for data in whole]
        for fraction in sorted(set(self._protocol.fractions)):
            if min(self._sets.mixture(fraction)) >= _LEAST_CASES:
                kinds += [(data, fraction, "none", "plain") for data in ("protected", "clean_part")]
        for name in self._applied():
            if name != "none" and not self.adversaries[name].after_training:
                sets = ("clean", "protected") if self.adversaries[name].uses_published else ("clean",)
                kinds += [(data, 1.0, name, "plain") for data in sets]
        return [
            Training(victim=victim, seed=seed, data=data, fraction=fraction, countermeasure=name, pipeline=pipeline)
            for data, fraction, name, pipeline in kinds
            for victim in self._protocol.architectures(self._sets.task)
            for seed in dict.fromkeys(self._protocol.seeds)
        ]

    def afterwards(self, training: Training) -> list[str]:
        """Countermeasures that start from what this training gives."""
        if training.way() != "none" or training.fraction < 1 or training.data not in ("clean", "protected"):
            return []
        return [name for name in self._applied() if self.adversaries[name].after_training]

    def keys(self, training: Training) -> list[Key]:
        """The cells that a training gives: its own, that of its twin, and those of countermeasures that start from it."""
        twins = [twin.key() for twin in self.twins(training)]
        return [training.key(), *twins, *(training.key(name) for name in self.afterwards(training))]

    def twins(self, training: Training) -> list[Training]:
        """The same training on protected images, for a countermeasure that does not look at them."""
        alone = not self.adversaries[training.countermeasure].uses_published
        return [replace(training, data="protected")] if alone else []

    def left_out(self) -> list[dict[str, str]]:
        """Countermeasures without a score, each with the reason."""
        found = []
        asked = {item.name for item in self.adversaries.values()}
        for name, item in {**COUNTERMEASURES, **self.adversaries}.items():
            reason = self._hindrance(item)
            if reason is None and item.name not in asked:
                costly = ", it costs more than one ordinary training" if item.tier == "costly" else ""
                reason = f"not evaluated: not asked for{costly}"
            if reason is not None:
                found.append({"countermeasure": name, "reason": reason})
        return found

    def _applied(self) -> list[str]:
        return [name for name, item in self.adversaries.items() if self._hindrance(item) is None]

    def _hindrance(self, countermeasure: Countermeasure) -> str | None:
        """Why a countermeasure is not evaluated though it was asked for; None where it is."""
        reason = countermeasure.without_effect(self._clean)
        if reason is not None:
            return reason
        if isinstance(countermeasure, FlipsShifts) and self._protocol.augment == "standard":
            return "every victim was trained with it"
        stops = type(countermeasure).pick is not Countermeasure.pick
        if (countermeasure.needs_clean or stops) and self._known < _LEAST_CASES:
            held = "no cases were" if not self._known else "only one case was"
            return f"not evaluated: {held} held out"
        return None
