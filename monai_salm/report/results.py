"""The result of an evaluation as plain values: cells, means over seeds, verdict."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monai_salm.report.adversaries import add_kept, adversary_scores, worst_cases
from monai_salm.report.cautions import cautions
from monai_salm.report.cells import Cell, complete_cells, guess_of, summarise, whole_sets
from monai_salm.report.page import report_page
from monai_salm.report.pipelines import by_pipeline, recovered_by, worst_pipeline
from monai_salm.report.tables import class_names, further_scores, text_table, with_class_names
from monai_salm.report.verdict import grade_of, verdict_of
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import write_text

#: Raised by one whenever a field changes its meaning or goes.
SCHEMA = 2

_CELL_COLUMNS = (
    *("victim", "seed", "is_surrogate", "data", "fraction", "countermeasure", "pipeline"),
    *("needs_clean", "augment", "metric"),
    *("last", "interval_low", "interval_high", "peak", "early", "early_clean", "unfiltered"),
    *("train_score", "undertrained", "stopped", "epochs", "seconds"),
)
_GIVEN = ("noise", "protocol", "detection", "notes", "not_evaluated", "classes")
# As MedMNIST's evaluator calls them, so that its tables can be laid beside these.
_MEDMNIST = {"AUC": "auc", "ACC": "accuracy"}


@dataclass(frozen=True, kw_only=True)
class UnlearnabilityReport:
    """The result of ``evaluate``; docs/report.md says what each field holds.

    Args:
        metric: headline score, higher is better learned.
        chance: headline score of guessing.
        majority: headline score of always giving the commonest answer.
        guessing: training score of a network that always gives the commonest answer.
        seconds: how long the evaluation took.
        noise: ``linf`` (fraction of the window), ``psnr`` (decibel), ``support`` (share of voxels) and ``unchanged`` (cases).
        protocol: everything that was fixed: task, window, epsilon, sizes, recipe, versions.
        cells: one dictionary a trained victim; copied, with missing fields and ``undertrained`` filled in.
        cost: what the noise cost the images.
        detection: how the noise can be found: ``class_wise``, ``findings`` and numbers.
        utility: scores of networks trained on clean data on protected images.
        not_evaluated: countermeasures that were left out: ``countermeasure`` and ``reason`` each.
        pictures: name, clean and protected image ``(channel, *spatial)`` of a few cases.
        window: intensities shown as black and white.
        constant: for labels per voxel, headline score of the best label map that is the same for every image; else None.
        notes: further notes on the data, shown with the limitations.
        classes: how many images of each split have each class, by the names of the classes; empty if not known.
    """

    metric: str
    chance: float
    majority: float
    guessing: float
    seconds: float
    noise: Mapping[str, float | None]
    protocol: Mapping[str, Any]
    cells: Sequence[Cell]
    cost: Mapping[str, Any] = field(default_factory=dict)
    detection: Mapping[str, Any] = field(default_factory=dict)
    utility: Mapping[str, Any] = field(default_factory=dict)
    not_evaluated: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[tuple[str, Array, Array]] = field(default=(), repr=False)
    window: tuple[float, float] = (0.0, 255.0)
    notes: Sequence[str] = ()
    constant: float | None = None
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", complete_cells(self.cells, self.guessing, self._guess))

    def __getitem__(self, key: tuple[str, str]) -> dict[str, Cell]:
        """Means over seeds of one victim under one countermeasure: ``report["resnet18", "none"]["protected"]["last"]``.

        Only whole training sets: mixtures and parts are rows of ``summary``.

        Raises:
            KeyError: naming what there is.
        """
        rows = whole_sets(self.summary())
        found = {row["data"]: dict(row) for row in rows if (row["victim"], row["countermeasure"]) == key}
        if not found:
            known = sorted({(row["victim"], row["countermeasure"]) for row in rows})
            raise KeyError(f"no cell for {key}; there are {known}")
        return found

    @property
    def _guess(self) -> float:
        return guess_of(vars(self))

    def summary(self) -> list[Cell]:
        """One row for each victim, data, countermeasure, fraction and pipeline: means and standard deviations over seeds.

        ``interval`` is the mean of the seeds' bootstrap intervals, which is conservative.
        """
        rows = summarise(self.cells)
        add_kept(rows, self._guess)
        return rows

    def worst_case(self) -> list[dict[str, Any]]:
        """For each victim the best score of an adversary with the protected images; a second row counts small clean sets too.

        Last epoch, early stopping and unfiltered test images count; the peak epoch does not.
        """
        return worst_cases(self.summary(), self._guess)

    def pipelines(self) -> list[dict[str, Any]]:
        """A row for each victim, ordinary pipeline and training set: last and best epoch, and what was recovered.

        ``recovered`` is the share of the way from guessing to the clean score of the same pipeline, by balanced accuracy where
        each image has a label, else by the headline score; of labels per voxel from the best constant map on.
        """
        return by_pipeline(self.summary(), vars(self))

    def grade(self) -> str:
        """``"unlearnable"``, ``"hard to learn"``, ``"learnable"``, or ``"inconclusive"``, by the worst case measured.

        The worst case is the largest share of the clean lead over guessing that a victim keeps on protected images, over all
        victims, adversaries without clean images and ordinary pipelines: up to 15 % is unlearnable, up to 50 % hard to learn.
        Without a learnable case, a victim that is undertrained or too poor on clean images makes the grade inconclusive.
        """
        return grade_of(adversary_scores(self.summary(), self._guess), self.pipelines())

    def verdict(self) -> str:
        """One sentence that says what was measured, with its conditions."""
        return verdict_of({**vars(self), **self._ordinary(), "summary": self.summary(), "grade": self.grade()})

    def warnings(self) -> list[str]:
        """Warnings about the scores, the gravest first."""
        return cautions({**vars(self), "summary": self.summary()})

    def _ordinary(self) -> dict[str, Any]:
        rows = self.pipelines()
        by = recovered_by(self.summary(), vars(self))
        return {"recovered_by": by, "worst_pipeline": worst_pipeline(rows), "pipelines": rows}

    def to_dict(self) -> dict[str, Any]:
        """The whole report but the pictures, as JSON values (numbers that are not finite are None)."""
        names = class_names(self.classes)
        values: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "grade": self.grade(),
                "verdict": self.verdict(),
                **{name: getattr(self, name) for name in ("metric", "chance", "majority", "guessing", "constant")},
                "seconds": round(self.seconds, 3),
                "warnings": self.warnings(),
                **{name: getattr(self, name) for name in _GIVEN},
                **{name: with_class_names(getattr(self, name), names) for name in ("cost", "utility")},
                **self._ordinary(),
                "worst_case": self.worst_case(),
                "summary": self.summary(),
                "cells": self.cells,
            }
        )
        return values

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text, written to ``path`` if given."""
        return _written(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The cells as CSV text, one line a trained victim, written to ``path`` if given.

        ``AUC`` and ``ACC`` are ``auc`` and ``accuracy`` again, under the names of MedMNIST's evaluator.
        """
        scores = dict.fromkeys(name for cell in self.cells for name in cell.get("scores", {}))
        medmnist = [name for name, ours in _MEDMNIST.items() if ours in scores]
        columns = dict.fromkeys((*_CELL_COLUMNS, *medmnist, *further_scores(self.cells, self.metric)))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(columns), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_flat(cell) for cell in self.cells)
        return _written(buffer.getvalue(), path)

    def to_dataframe(self) -> Any:
        """The cells as a pandas data frame, one row a trained victim, with the columns of ``to_csv`` and the curves.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError('to_dataframe needs pandas: pip install "monai_salm[demo]", or use to_csv()') from error
        return pandas.DataFrame([_flat(cell) for cell in self.cells])

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page that needs no network: verdict, warnings, scores, curves, pictures, protocol."""
        write_text(path, report_page(self.to_dict(), self.pictures, self.window))

    def table(self) -> str:
        """A plain-text table: a row for each kind of data, a column for each victim, mean and standard deviation.

        The headline score of the last epoch comes first, beside chance and majority; mixtures, the worst case, early stopping,
        the peak and the other scores follow.
        """
        return text_table(self.to_dict())


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write_text(path, text)
    return text


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell as one row of a table."""
    scores = cell.get("scores", {})
    low, high = cell["interval"] or (None, None)
    medmnist = {name: scores[ours] for name, ours in _MEDMNIST.items() if ours in scores}
    kept = {name: value for name, value in cell.items() if name not in ("scores", "interval")}
    return {**scores, **medmnist, **kept, "interval_low": low, "interval_high": high}


def _plain(value: Any) -> Any:
    """Copy nested mappings and sequences as JSON values."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
