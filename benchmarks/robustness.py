"""What is left of the noise when images are processed or victims trained otherwise? SALM with each kind of perturbation.

    python benchmarks/robustness.py brain28.npz --out robustness

Victims are trained by ``evaluate`` on clean and on protected images in each ordinary pipeline and under each countermeasure,
which filters the images met later as well. What is recovered is ``(protected - chance) / (clean - chance)`` of a victim's
last-epoch score on the clean test split, means over seeds, and its mean over victims. ``--out`` keeps copies and victims: the
same call goes on where an interrupted one stopped, and the clean victims are trained once for all noises.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from evaluating import CLEAN, Folder, Victims, add_options, way_of

FILTERS = ("augment", "jpeg", "blur", "median", "bit_depth", "resample")
#: Noise -> options of ``monai-salm protect``.
NOISES: dict[str, list[str]] = {"SALM": [], "SALM, error-minimising": ["--perturbation", "error_minimizing"]}
AIM = "at most 0.5 recovered in every pipeline and under every countermeasure"


def recovered(clean: Mapping[str, float], protected: Mapping[str, float], chance: float) -> float:
    """Share of the way from guessing to the clean score that victims go on protected images, mean over victims.

    Args:
        clean: score by victim.
        protected: score by victim.
        chance: score of guessing.

    Returns:
        The share; NaN if no victim learned anything from clean images.
    """
    shares = [(protected[v] - chance) / (clean[v] - chance) for v in clean if clean[v] > chance]
    return statistics.fmean(shares) if shares else math.nan


def summary(runs: Sequence[Mapping[str, Any]], chance: float) -> list[dict[str, Any]]:
    """A row a countermeasure or pipeline: means over victims of clean and protected scores, and of what is recovered.

    Args:
        runs: a record for each victim.
        chance: score of guessing.
    """
    rows = []
    for countermeasure in dict.fromkeys(map(way_of, runs)):
        scores = {noise: _means(runs, noise, countermeasure) for noise in dict.fromkeys(run["noise"] for run in runs)}
        clean = scores.pop(CLEAN)
        row: dict[str, Any] = {"countermeasure": countermeasure, "clean": statistics.fmean(clean.values())}
        row |= {noise: statistics.fmean(own.values()) for noise, own in scores.items()} | {"chance": chance}
        shares = {noise: recovered(clean, own, chance) for noise, own in scores.items()}
        rows.append(row | {f"{noise}, recovered": None if math.isnan(s) else s for noise, s in shares.items()})
    return rows


def _means(runs: Sequence[Mapping[str, Any]], noise: str, countermeasure: str) -> dict[str, float]:
    """Mean over seeds by victim."""
    own = [run for run in runs if (run["noise"], way_of(run)) == (noise, countermeasure)]
    return {
        victim: statistics.fmean(run["last"] for run in own if run["victim"] == victim)
        for victim in dict.fromkeys(run["victim"] for run in own)
    }


def worst(rows: Sequence[Mapping[str, Any]], noise: str) -> str:
    """The countermeasure under which most is recovered, and how much.

    Args:
        rows: of ``summary``.
        noise: name of the noise.
    """
    key = f"{noise}, recovered"
    told = [row for row in rows if row[key] is not None]
    if not told:
        return "none: victims learned nothing from clean images"
    row = max(told, key=lambda each: each[key])
    return f"{row['countermeasure']}, {row[key]:.3f}"


def measure(
    folder: Folder,
    noises: Mapping[str, Sequence[str]],
    countermeasures: Sequence[str],
    epsilon: Fraction,
    victims: Victims,
    more: Sequence[str] = (),
    fresh: bool = False,
) -> dict[str, Any]:
    """Make the copies, train all victims under all countermeasures, and put them side by side.

    Args:
        folder: the data set, and where copies and victims are kept.
        noises: options of ``monai-salm protect`` by name.
        countermeasures: names.
        epsilon: budget, as a fraction of the window.
        victims: who is trained.
        more: further options of ``monai-salm protect``, for all noises.
        fresh: make the copies anew.
    """
    made, runs, seen = {}, [], False
    budget = f"{epsilon.numerator * 255 / epsilon.denominator:g}/255"
    for noise, options in noises.items():
        copy, made[noise] = folder.protect(noise, [*options, "--epsilon", budget, *more], fresh)
        # Countermeasures are applied to the first copy of an evaluation, so that each noise has one.
        trained, chance = folder.train({noise: copy}, victims, "none", countermeasures)
        runs += [run for run in trained if not (seen and run["noise"] == CLEAN)]
        seen = True
    rows = summary(runs, chance)
    return {
        "data": folder.data.name,
        "epsilon": budget,
        "aim": AIM,
        "victims": ", ".join(victims.names),
        "seeds": len(victims.seeds),
        **{f"PSNR of {noise}": facts["psnr"] for noise, facts in made.items()},
        **{f"worst of {noise}": worst(rows, noise) for noise in noises},
        "table": rows,
        "made": made,
        "runs": runs,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, victims="resnet18,densenet121,vgg11", pipelines="plain,resized,nnunet")
    every = ",".join(("none", *FILTERS))
    parser.add_argument("--countermeasures", default=every, help=f"names, separated by commas (default {every})")
    parser.add_argument("--noises", default=";".join(NOISES), help=f"separated by semicolons: {'; '.join(NOISES)}")
    given = parser.parse_args(arguments)
    noises = list(dict.fromkeys(name.strip() for name in given.noises.split(";")))
    unknown = [name for name in noises if name not in NOISES]
    if unknown:
        parser.error(f"unknown noises: {'; '.join(unknown)}; known: {'; '.join(NOISES)}")
    epsilon = Fraction(given.epsilon)
    result = measure(
        Folder(given.data, given.out),
        {name: NOISES[name] for name in noises},
        ["none", *(name for name in given.countermeasures.split(",") if name != "none")],
        epsilon,
        Victims.of(given, float(epsilon)),
        given.options.split(),
        given.fresh,
    )
    if given.json:
        print(json.dumps(result))
    else:
        for row in result["table"]:
            print(", ".join(f"{k}: {v:.3g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
        for noise in noises:
            print(f"worst of {noise}: {result[f'worst of {noise}']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
