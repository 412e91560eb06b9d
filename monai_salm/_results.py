"""What an evaluation found, as plain values: cells, means over seeds, a verdict that does not say more than they do.

This module knows nothing of networks or data, so that ``evaluate`` can return what ``report`` shows.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monai_salm._page import report_page
from monai_salm._scores import mean_and_sd, score_title, summarise

Array: TypeAlias = NDArray[np.generic]

#: Raised by one whenever a field changes its meaning or goes.
SCHEMA = 1

# A victim that has covered less than this share of the way from guessing to a perfect training score has not learned
# even the images it was shown, so that its poor test score proves nothing.
_LEARNED = 0.25
# Below this lead of the clean set over guessing, as a share of the way to a perfect score, there is nothing to protect.
_LEAST_LEAD = 0.1
# Share of the clean set's lead over guessing that victims may keep for "unlearnable" and for "hard to learn".
_GRADES = ((0.15, "unlearnable"), (0.5, "hard to learn"), (math.inf, "learnable"))
_CELL_COLUMNS = ("victim", "seed", "data", "countermeasure", "augment", "fraction", "metric")
_CELL_SCORES = ("last", "peak", "train_score", "undertrained")


@dataclass(frozen=True, kw_only=True)
class UnlearnabilityReport:
    """The result of ``evaluate``.

    Args:
        metric: headline score, higher is better learned.
        chance: headline score of guessing.
        majority: headline score of always giving the commonest answer.
        guessing: training score of a network that always gives the commonest answer.
        seconds: how long the evaluation took.
        noise: ``linf`` (fraction of the window), ``psnr`` (decibel), ``support`` (share of voxels) and ``unchanged`` (cases).
        protocol: everything that was fixed: task, window, epsilon, sizes, recipe, versions.
        cells: one dictionary a trained victim.
        pictures: name, clean and protected image ``(channel, *spatial)`` of a few cases.
        window: intensities shown as black and white.
        notes: what else a reader must know of the data, shown with the limitations.
    """

    metric: str
    chance: float
    majority: float
    guessing: float
    seconds: float
    noise: Mapping[str, float | None]
    protocol: Mapping[str, Any]
    cells: Sequence[dict[str, Any]]
    pictures: Sequence[tuple[str, Array, Array]] = field(default=(), repr=False)
    window: tuple[float, float] = (0.0, 255.0)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        learned = self.guessing + _LEARNED * (1 - self.guessing)
        for cell in self.cells:
            cell["undertrained"] = bool(not cell["train_score"] >= learned)

    def __getitem__(self, key: tuple[str, str]) -> dict[str, dict[str, Any]]:
        """Means over seeds of one victim under one countermeasure: ``report["resnet18", "none"]["protected"]["last"]``.

        Raises:
            KeyError: naming what there is.
        """
        found = {row["data"]: row for row in self.summary() if (row["victim"], row["countermeasure"]) == key}
        if not found:
            known = sorted({(c["victim"], c["countermeasure"]) for c in self.cells})
            raise KeyError(f"no cell for {key}; there are {known}")
        return found

    def summary(self) -> list[dict[str, Any]]:
        """One row for each victim, data and countermeasure: means and standard deviations over seeds."""
        groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for cell in self.cells:
            groups.setdefault((cell["victim"], cell["data"], cell["countermeasure"]), []).append(cell)
        return [summarise(key, cells) for key, cells in groups.items()]

    def grade(self) -> str:
        """``"unlearnable"``, ``"hard to learn"``, ``"learnable"``, or ``"inconclusive"``, by the worst case measured.

        The worst case is the largest share of the clean set's lead over guessing that a victim's mean keeps on protected
        images, over all victims and countermeasures, each against the same victim on clean images without countermeasure.
        """
        shares = self._kept_shares()
        if not shares or any(math.isnan(share) for share in shares):
            return "inconclusive"
        return next(grade for limit, grade in _GRADES if max(shares) <= limit)

    def _kept_shares(self) -> list[float]:
        guess = max(self.chance, self.majority)
        rows = self.summary()
        clean = {(row["victim"], row["countermeasure"]): row for row in rows if row["data"] == "clean"}
        shares = []
        for row in rows:
            if row["data"] != "protected":
                continue
            # An adversary is free to leave the countermeasure out, so the clean reference is without it if there is one.
            reference = clean.get((row["victim"], "none")) or clean.get((row["victim"], row["countermeasure"]))
            lead = reference["last"] - guess if reference else 0.0
            learned = reference is not None and not reference["undertrained"] and not row["undertrained"]
            usable = learned and lead > _LEAST_LEAD * (1 - guess)
            shares.append((row["last"] - guess) / lead if usable else math.nan)
        return shares

    def verdict(self) -> str:
        """One sentence that says what was measured, with its conditions."""
        rows = self.summary()
        plain = any(r["data"] == "clean" and r["countermeasure"] == "none" for r in rows)
        clean = [r["last"] for r in rows if r["data"] == "clean" and (r["countermeasure"] == "none" or not plain)]
        protected = [r["last"] for r in rows if r["data"] == "protected"]
        grade = self.grade()
        seeds, victims = len({c["seed"] for c in self.cells}), list(dict.fromkeys(c["victim"] for c in self.cells))
        tried = [c for c in dict.fromkeys(c["countermeasure"] for c in self.cells) if c != "none"]
        conditions = (
            f"{', '.join(victims)} trained from scratch, {self.protocol.get('epochs', '?')} epochs, "
            f"{_plural(seeds, 'seed')}, augmentation {self.protocol.get('augment', '?')}, "
            f"{'countermeasures ' + ', '.join(tried) if tried else 'no countermeasure'}"
        )
        if not clean or not protected:
            return f"Inconclusive: there are no cells for clean and protected images to compare ({conditions})."
        if grade == "inconclusive":
            return (
                f"Inconclusive: some victims did not learn their training images, or have too little a score on clean ones "
                f"({self.metric} {min(clean):.3f}, chance {self.chance:.3f}), so that nothing follows for protection ({conditions})."
            )
        return (
            f"The protected images were {grade} for the victims tried: at most {max(protected):.3f} {self.metric} on clean test "
            f"images, against {min(clean):.3f} or more after training on clean images (chance {self.chance:.3f}, majority "
            f"{self.majority:.3f}; {conditions})."
        )

    def warnings(self) -> list[str]:
        """What a reader must know before believing the scores."""
        found = []
        for cell in self.cells:
            if cell["undertrained"]:
                found.append(
                    f"{cell['victim']} seed {cell['seed']} on {cell['data']} ({cell['countermeasure']}) is undertrained: training "
                    f"score {cell['train_score']:.3f}, guessing gives {self.guessing:.3f}. Its test score is no sign of protection; "
                    "raise epochs or change the recipe"
                )
        linf, epsilon = self.noise.get("linf"), self.protocol.get("epsilon")
        if linf is not None and epsilon and linf < 0.9 * epsilon:
            found.append(
                f"the noise reaches {linf:.4f} of the window, epsilon is {epsilon:.4f}: random noise was given the larger budget"
            )
        unchanged = self.noise.get("unchanged")
        if unchanged:
            found.append(
                f"{_plural(int(unchanged), 'case')} of the protected set carried no noise: published as in the clean set"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The whole report but the pictures, as JSON values (numbers that are not finite are None)."""
        values: dict[str, Any] = _plain(
            {
                "schema": SCHEMA,
                "grade": self.grade(),
                "verdict": self.verdict(),
                "metric": self.metric,
                "chance": self.chance,
                "majority": self.majority,
                "guessing": self.guessing,
                "seconds": round(self.seconds, 3),
                "noise": self.noise,
                "protocol": self.protocol,
                "warnings": self.warnings(),
                "notes": self.notes,
                "summary": self.summary(),
                "cells": self.cells,
            }
        )
        return values

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text, written to ``path`` if given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The cells as CSV text, one line a trained victim, written to ``path`` if given."""
        buffer = io.StringIO()
        columns = (*_CELL_COLUMNS, *_CELL_SCORES, *self._further_scores())
        writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**cell.get("scores", {}), **cell} for cell in self.cells)
        if path is not None:
            Path(path).write_text(buffer.getvalue(), encoding="utf-8")
        return buffer.getvalue()

    def to_dataframe(self) -> Any:
        """The cells as a pandas data frame, one row a trained victim.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError('to_dataframe needs pandas: pip install "monai_salm[demo]", or use to_csv()') from error
        return pandas.DataFrame([dict(cell) for cell in self.cells])

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page that needs no network: verdict, table, curves, pictures, protocol, limitations."""
        page = report_page(self.to_dict(), self.pictures, self.window, self.table_cells())
        Path(path).write_text(page, encoding="utf-8")

    def table(self) -> str:
        """A plain-text table: a row for each kind of data, a column for each victim, mean and standard deviation.

        The headline score of the last epoch comes first, beside chance and majority; its peak and the other scores follow.
        """
        header, rows = self.table_cells()
        wide = [row for row in (header, *rows) if any(row[1:])] or [header]  # titles of parts may run over the columns
        widths = [max(len(row[i]) for row in wide) for i in range(len(header))]
        lines = []
        for row in (header, *rows):
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            lines += [line] if row is header or any(row[1:]) else ["", line]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)

    def table_cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of ``table`` as text; ``*`` marks undertrained victims, a row without values is a part's title."""
        summary = self.summary()
        victims = list(dict.fromkeys(row["victim"] for row in summary))
        found = {(row["data"], row["countermeasure"], row["victim"]): row for row in summary}

        def part(score: str) -> list[list[str]]:
            rows = []
            for data, countermeasure in dict.fromkeys((row["data"], row["countermeasure"]) for row in summary):
                label = data.replace("_", " ") + ("" if countermeasure == "none" else f" + {countermeasure}")
                cells = [found.get((data, countermeasure, victim)) for victim in victims]
                rows.append([label, *[mean_and_sd(cell, score) for cell in cells]])
            return rows

        rows = [
            ["chance", *[f"{self.chance:.3f}"] * len(victims)],
            ["majority", *[f"{self.majority:.3f}"] * len(victims)],
            *part("last"),
        ]
        titles = {"peak": f"{self.metric} (peak epoch: an oracle, chosen with the test labels)"}
        for name in self._further_scores():
            titles[name] = f"{score_title(name)} (last epoch{self._chance_of(name)})"
        if victims:
            for score, title in titles.items():
                rows += [[title, *[""] * len(victims)], *part(score)]
        return [f"{self.metric} (last epoch)", *victims], rows

    def _further_scores(self) -> list[str]:
        """Scores beside the headline; one class alone is the headline again."""
        names = dict.fromkeys(name for cell in self.cells for name in cell.get("scores", {}) if name != self.metric)
        return [] if list(names) == [f"{self.metric}_1"] else list(names)

    def _chance_of(self, score: str) -> str:
        # Guessing and always giving one answer have the same score here: the mean of the recalls, and half the area.
        known = {"balanced_accuracy": self.chance, "auc": 0.5}
        return f", chance {known[score]:.3f}" if score in known else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _plain(value: Any) -> Any:
    """Copy nested mappings and sequences as JSON values."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
