"""Predictions of single victims as MedMNIST's evaluator writes and reads them (medmnist 3, ``Evaluator``)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monai_salm.shared.files import atomic_file


@dataclass(frozen=True)
class PredictionFolder:
    """The folder of every victim's predictions of the test set.

    Args:
        folder: made if it is not there.
        flag: name of the data set in file names; MedMNIST's evaluator knows its own. No underscore.
    """

    folder: Path
    flag: str

    def path(self, cell: Mapping[str, Any]) -> Path:
        """The file of a victim's predictions."""
        return self.folder / predictions_name(cell, self.flag)

    def write(self, cell: Mapping[str, Any], predictions: Sequence[torch.Tensor]) -> None:
        """Write class probabilities ``(classes,)`` of one victim: a line a test case, its index first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([index, *values.tolist()] for index, values in enumerate(predictions))
        with atomic_file(self.path(cell)) as file:
            file.write(text.getvalue().encode("utf-8"))


def predictions_name(cell: Mapping[str, Any], flag: str) -> str:
    """The file name of a cell's predictions: ``{flag}_test_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv``."""
    parts = [cell["victim"], cell["data"], f"{cell['fraction']:.0%}", cell["countermeasure"], f"seed{cell['seed']}"]
    if cell.get("pipeline", "plain") != "plain":
        parts.append(cell["pipeline"])
    # The evaluator splits names at underscores and ends the run at the first full stop.
    run = "-".join(re.sub(r"[^A-Za-z0-9]+", "", str(part)) for part in parts)
    flag = re.sub(r"[^A-Za-z0-9-]+", "-", flag)
    return f"{flag}_test_[AUC]{cell['scores']['auc']:.3f}_[ACC]{cell['scores']['accuracy']:.3f}@{run}.csv"
