"""The trainings of an evaluation, and the cells of the report that each gives (docs/report.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.countermeasures.base import Countermeasure
from monai_salm.countermeasures.batches import FlipsShifts
from monai_salm.countermeasures.training import best_epoch
from monai_salm.evaluation.protocol import Protocol, victim_name
from monai_salm.evaluation.training_sets import TrainingSets
from monai_salm.evaluation.victims import Epoch, Setting, Victim
from monai_salm.learning.scores import bootstrap_interval

#: One cell of the report.
Cell: TypeAlias = dict[str, Any]
#: Identity of a cell: victim, seed, data, fraction, countermeasure and pipeline.
Key: TypeAlias = tuple[str, int, str, float, str, str]

# Batch normalisation needs two cases.
_LEAST_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Training:
    """One victim to be trained."""

    victim: str
    seed: int
    data: str
    fraction: float
    countermeasure: str
    pipeline: str = "plain"

    def key(self, countermeasure: str | None = None) -> Key:
        """Identity of this training's cell, or of the cell of a countermeasure that starts from it."""
        name = countermeasure or self.countermeasure
        return self.victim, self.seed, self.data, self.fraction, name, self.pipeline

    def treatment(self) -> str:
        """The countermeasure or the pipeline that is applied to the images."""
        return self.countermeasure if self.pipeline == "plain" else self.pipeline


def cell_key(cell: Mapping[str, Any]) -> Key:
    """Identity of a cell; one without a pipeline was trained plainly."""
    pipeline = cell.get("pipeline", "plain")
    return cell["victim"], cell["seed"], cell["data"], cell["fraction"], cell["countermeasure"], pipeline


def make_cell(
    training: Training,
    victim: Victim,
    epoch: Epoch,
    protocol: Protocol,
    setting: Setting,
    countermeasure: Countermeasure,
) -> Cell:
    """The cell of a victim whose network of one epoch counts."""
    metric = victim.trainer.task.metric
    curve = [e.scores[metric] for e in victim.epochs]
    held_out, held_out_clean = ([getattr(e, n) for e in victim.epochs] for n in ("held_out", "held_out_clean"))
    early, early_clean = (
        # A victim that trains on the held-out cases cannot stop by them.
        None if math.isnan(scores[-1]) or countermeasure.needs_clean else curve[best_epoch(scores)]
        for scores in (held_out, held_out_clean)
    )
    return {
        **asdict(training),
        "network": victim_name(setting.network),
        "augment": protocol.augment,
        "settings": countermeasure.spec(),
        "needs_clean": countermeasure.needs_clean,
        "metric": metric,
        "last": epoch.scores[metric],
        "peak": max(curve),
        "early": early,
        "early_clean": early_clean,
        "interval": list(bootstrap_interval(epoch.case_scores, protocol.resamples)),
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


class Schedule:
    """All trainings that a protocol asks for and the images allow."""

    def __init__(self, protocol: Protocol, sets: TrainingSets) -> None:
        self.adversaries = protocol.adversaries()
        self._protocol, self._sets = protocol, sets
        self._clean = sets.training("clean")
        self.pipelines = protocol.ordinary_pipelines(self._clean.spatial_dims)
        self._held_out = len(sets.held_out_cases("clean"))

    def trainings(self) -> list[Training]:
        """Every training, in order; those on one training set stand together."""
        copies = self._sets.copies
        whole = ("clean", "protected", *copies)
        kinds = [(data, 1.0, "none", "plain") for data in (*whole[:2], *self._protocol.controls, *copies)]
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

    def keys(self, training: Training) -> list[Key]:
        """Identities of the cells that a training gives: its own, that on protected images, and those of ``afterwards``."""
        others = [other.key() for other in self.on_protected_too(training)]
        return [training.key(), *others, *(training.key(name) for name in self.afterwards(training))]

    def on_protected_too(self, training: Training) -> list[Training]:
        """The same training on protected images, for a countermeasure that does not use the published images."""
        alone = not self.adversaries[training.countermeasure].uses_published
        return [replace(training, data="protected")] if alone else []

    def left_out(self) -> list[dict[str, str]]:
        """Countermeasures without a score, each with the reason."""
        found = []
        asked = {item.name for item in self.adversaries.values()}
        for name, item in {**COUNTERMEASURES, **self.adversaries}.items():
            reason = self._obstacle(item)
            if reason is None and item.name not in asked:
                costly = ", it costs more than one ordinary training" if item.tier == "costly" else ""
                reason = f"not evaluated: not asked for{costly}"
            if reason is not None:
                found.append({"countermeasure": name, "reason": reason})
        return found

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
