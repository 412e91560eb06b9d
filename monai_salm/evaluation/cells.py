"""Cells of the report: which victim was trained on what, and what came of it (docs/report.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from monai_salm.countermeasures import Countermeasure
from monai_salm.countermeasures.early_stopping import best_epoch
from monai_salm.evaluation.protocol import Protocol, victim_name
from monai_salm.evaluation.victims import Epoch, Setting, Victim
from monai_salm.learning.scores import bootstrap_interval

#: One cell of the report (docs/report.md).
Cell: TypeAlias = dict[str, Any]
#: Victim, seed, data, fraction, countermeasure and pipeline: what a cell is known by.
Key: TypeAlias = tuple[str, int, str, float, str, str]


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
        """What the cell of this training, or of a countermeasure that starts from it, is known by."""
        way = countermeasure or self.countermeasure
        return self.victim, self.seed, self.data, self.fraction, way, self.pipeline

    def way(self) -> str:
        """What is done to the images: the countermeasure or the pipeline."""
        return self.countermeasure if self.pipeline == "plain" else self.pipeline


def cell_key(cell: Mapping[str, Any]) -> Key:
    """What a cell is known by; one without a pipeline was trained plainly."""
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
    """The cell of a victim whose network of one epoch is kept.

    Args:
        training: what was trained.
        victim: how it went.
        epoch: the one that is kept.
        protocol: the evaluation's.
        setting: how the victim was trained.
        countermeasure: the one of its name, whose settings the cell keeps.
    """
    metric = victim.trainer.task.metric
    curve = [e.scores[metric] for e in victim.epochs]
    held_out, held_out_clean = ([getattr(e, n) for e in victim.epochs] for n in ("held_out", "held_out_clean"))
    early, early_clean = (
        # Whoever trains on the held-out cases, clean, cannot stop by them.
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
