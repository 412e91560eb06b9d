"""The trainings of an evaluation, and the cells of the report that each gives (docs/report.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.countermeasures.base import Countermeasure
from monai_salm.countermeasures.batches import FlipsShifts
from monai_salm.evaluation.pipelines import find_pipelines
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.training_sets import TrainingSets

#: One cell of the report.
Cell: TypeAlias = dict[str, Any]

# Batch normalisation needs two cases.
_LEAST_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Training:
    """One victim to be trained; also the identity of its cell."""

    victim: str
    seed: int
    data: str
    fraction: float
    countermeasure: str
    pipeline: str = "plain"

    def treatment(self) -> str:
        """The countermeasure or the pipeline that is applied to the images."""
        return self.countermeasure if self.pipeline == "plain" else self.pipeline


def training_of(cell: Mapping[str, Any]) -> Training:
    """The training that a cell is of; one without a pipeline was plain."""
    return Training(**{item.name: cell[item.name] for item in fields(Training) if item.name in cell})


class Schedule:
    """All trainings that a protocol asks for and the images allow."""

    def __init__(self, protocol: Protocol, sets: TrainingSets) -> None:
        self.adversaries = protocol.adversaries()
        self._protocol, self._sets = protocol, sets
        self._clean = sets.training("clean")
        self.pipelines = find_pipelines(protocol.pipelines, self._clean.spatial_dims)
        self._held_out = len(sets.held_out_cases("clean"))

    def trainings(self) -> list[Training]:
        """Every training, in order; those on one training set stand together."""
        whole = [*self._sets.images]
        kinds = [(data, 1.0, "none", "plain") for data in (*whole[:2], *self._protocol.controls, *whole[2:])]
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
            for victim in self._protocol.architectures(self._clean.task)
            for seed in dict.fromkeys(self._protocol.seeds)
        ]

    def afterwards(self, training: Training) -> list[str]:
        """Countermeasures that start from the victim of this training."""
        if training.treatment() != "none" or training.fraction < 1 or training.data not in ("clean", "protected"):
            return []
        return [name for name in self._applied() if self.adversaries[name].after_training]

    def gives(self, training: Training) -> list[Training]:
        """The cells that a training gives: its own, that on protected images, and those of ``afterwards``."""
        afterwards = [replace(training, countermeasure=name) for name in self.afterwards(training)]
        # A countermeasure that does not use the published images is trained once for both.
        alone = not self.adversaries[training.countermeasure].uses_published
        return [training, *([replace(training, data="protected")] if alone else []), *afterwards]

    def left_out(self) -> list[dict[str, str]]:
        """Countermeasures without a score, each with the reason."""
        asked, reasons = {item.name for item in self.adversaries.values()}, {}
        for name, item in {**COUNTERMEASURES, **self.adversaries}.items():
            costly = ", it costs more than one ordinary training" if item.tier == "costly" else ""
            reasons[name] = self._obstacle(item) or (
                None if item.name in asked else f"not evaluated: not asked for{costly}"
            )
        return [{"countermeasure": name, "reason": reason} for name, reason in reasons.items() if reason is not None]

    def _applied(self) -> list[str]:
        return [name for name, item in self.adversaries.items() if self._obstacle(item) is None]

    def _obstacle(self, countermeasure: Countermeasure) -> str | None:
        """Why a countermeasure cannot be evaluated; None where it can."""
        reason = countermeasure.without_effect(self._clean)
        if reason is not None:
            return reason
        if isinstance(countermeasure, FlipsShifts) and self._protocol.augment == "standard":
            return "every victim was trained with it"
        stops = type(countermeasure).pick is not Countermeasure.pick
        if (countermeasure.needs_clean or stops) and self._held_out < _LEAST_CASES:
            held = "no cases were" if not self._held_out else "only one case was"
            return f"not evaluated: {held} held out"
        return None
