"""How unlearnable does each method make a data set? Protects it, reloads the published files, trains fresh victims.

    python benchmarks/strength.py brain28.npz --out strength
    python benchmarks/strength.py brain28.npz --out strength --rows "SALM;TAP" --seeds 0

Every row is made by ``monai-salm protect`` with the options below, and otherwise its method's defaults. Victims are trained
by ``evaluate``, plainly and with flips and shifts; scores are of the last epoch on the clean test split, means over seeds.
``--out`` keeps copies and victims: the same call goes on where an interrupted one stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from evaluating import CLEAN, Folder, Victims, add_options

SALM, SALM_WEAKER, SALM_HALF = "SALM", "SALM, 7/8 of epsilon", "SALM, half of epsilon"
# As published they take hours on two cores.
_SHORTENED = ["--draws", "1", "--rounds", "4", "--num-steps", "5", "--attack-steps", "3"]

_MINIMIZING = ["--perturbation", "error_minimizing"]

#: Row of the table -> options of ``monai-salm protect``; None is the data set as it is.
ROWS: dict[str, list[str] | None] = {
    CLEAN: None,
    "random noise": ["--method", "random_noise"],
    SALM: [],
    SALM_WEAKER: [],
    SALM_HALF: [],
    "SALM, smaller mask": ["--mask-ratio", "0.3"],
    "SALM, error-minimising": _MINIMIZING,
    "SALM, as published": [*_MINIMIZING, "--mask-scope", "step", "--mask-area", "1", "--mask-ratio", "0.3"],
    "EM": ["--method", "em"],
    "REM, shortened": ["--method", "rem", *_SHORTENED],
    "SEM, shortened": ["--method", "sem", *_SHORTENED],
    "TAP": ["--method", "tap"],
    "LSP": ["--method", "lsp"],
    "AR": ["--method", "ar"],
}
#: Rows made only where ``--rows`` names them: the schedule of error-minimising SALM without a mask.
CONTROLS: dict[str, list[str]] = {
    "EM, same schedule": [
        *("--method", "em", "--num-steps", "4", "--surrogate-steps", "45", "--rounds", "22"),
        *("--restart-every", "1", "--stop-error", "0", "--step-size", "1"),
    ],
}
#: Share of epsilon, where it is not all of it. The first has the peers' PSNR or more, as noise at all edges has not.
SHARES = {SALM_WEAKER: Fraction(7, 8), SALM_HALF: Fraction(1, 2)}
PEERS = ("EM", "REM, shortened", "SEM, shortened", "TAP", "LSP", "AR")
AIM = "below every peer at equal epsilon and at equal PSNR"


def options_of(row: str, epsilon: Fraction) -> tuple[str, list[str]]:
    """Budget of a row, and the options of ``monai-salm protect`` that make it."""
    own = epsilon * SHARES.get(row, 1)
    budget = f"{own.numerator * 255 / own.denominator:g}/255"
    return budget, [*({**ROWS, **CONTROLS}[row] or []), "--epsilon", budget]


def summary(
    budgets: Mapping[str, str], made: Mapping[str, Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row a training set: how it was made, and mean scores.

    Args:
        budgets: epsilon by row, in the order of the table.
        made: what ``monai-salm protect`` told, by row.
        runs: a record for each victim.
    """
    rows = []
    for name, budget in budgets.items():
        facts = made.get(name, {})
        row = {"noise": name, "epsilon": budget, "made in (s)": facts.get("seconds")}
        row |= {"PSNR": facts.get("psnr"), "support": facts.get("support")}
        ways = {"plain": ("none", "plain"), "augmented": ("standard", "plain")}
        pipelines = dict.fromkeys(str(run.get("pipeline", "plain")) for run in runs)
        ways |= {pipeline: ("none", pipeline) for pipeline in pipelines if pipeline != "plain"}
        for word, way in ways.items():
            own = [r for r in runs if r["noise"] == name and (r["augment"], r.get("pipeline", "plain")) == way]
            means = {
                victim: statistics.fmean(run["last"] for run in own if run["victim"] == victim)
                for victim in dict.fromkeys(run["victim"] for run in own)
            }
            row |= {f"{victim}, {word}": mean for victim, mean in means.items()}
            row |= {f"mean, {word}": statistics.fmean(means.values())} if means else {}
        rows.append(row)
    return rows


def beside_peers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each peer: is SALM stronger at equal epsilon, and at 7/8 and half of it where its PSNR is no lower than the peer's?

    Args:
        rows: of ``summary``.
    """
    found = {row["noise"]: row for row in rows}
    table = []
    for peer in (found[name] for name in PEERS if name in found):
        line = {"peer": peer["noise"], "PSNR": peer["PSNR"]}
        line |= {key: peer[key] for key in ("mean, plain", "mean, augmented") if key in peer}
        for name in (SALM, SALM_WEAKER, SALM_HALF):
            if name not in found:
                continue
            own = found[name]
            fair = name == SALM or own["PSNR"] >= peer["PSNR"]
            line |= {} if name == SALM else {f"PSNR of {name}": own["PSNR"]}
            for word in ("plain", "augmented"):
                if f"mean, {word}" not in own or f"mean, {word}" not in peer:
                    continue
                lower = "yes" if own[f"mean, {word}"] < peer[f"mean, {word}"] else "no"
                line[f"{name}, lower, {word}"] = lower if fair else "lower PSNR"
        table.append(line)
    return table


def measure(
    folder: Folder,
    rows: Sequence[str],
    epsilon: Fraction,
    victims: Victims,
    more: Sequence[str] = (),
    fresh: bool = False,
    augments: Sequence[str] = ("none", "standard"),
) -> dict[str, Any]:
    """Make all copies, train all victims, and put them side by side.

    Args:
        folder: the data set, and where copies and victims are kept.
        rows: names in ``ROWS`` and ``CONTROLS``.
        epsilon: budget, as a fraction of the window.
        victims: who is trained.
        more: further options of ``monai-salm protect``, for every row.
        fresh: make the copies anew.
    """
    budgets, made, copies = {}, {}, {}
    for row in rows:
        if row == CLEAN:
            budgets[row] = ""
            continue
        budgets[row], options = options_of(row, epsilon)
        copies[row], made[row] = folder.protect(row, [*options, *more], fresh)
        print(f"{row}: {made[row]['seconds']:.0f} s", file=sys.stderr, flush=True)
    runs: list[dict[str, Any]] = []
    for augment in augments:
        trained, chance = folder.train(copies, victims, augment)
        runs += trained
    table = summary(budgets, made, runs)
    stopping = "when nothing is left to learn, else after the last epoch" if victims.learned else "after the last epoch"
    return {
        "data": folder.data.name,
        "aim": AIM,
        "chance": chance,
        "seeds": len(victims.seeds),
        "victims stop": stopping,
        "table": table,
        "beside_the_peers_table": beside_peers(table),
        "made": made,
        "runs": runs,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, victims="resnet18,densenet121,vgg11")
    known = "; ".join([*ROWS, *CONTROLS])
    parser.add_argument(
        "--rows", default=";".join(ROWS), help=f"separated by semicolons (default: the first {len(ROWS)} of: {known})"
    )
    parser.add_argument("--augment", default="none,standard", help="none, standard or both (default both)")
    given = parser.parse_args(arguments)
    rows = list(dict.fromkeys(name.strip() for name in given.rows.split(";")))
    unknown = [name for name in rows if name not in {**ROWS, **CONTROLS}]
    if unknown:
        parser.error(f"unknown rows: {'; '.join(unknown)}; known: {known}")
    if rows == [CLEAN]:
        parser.error("give at least one row with noise")
    epsilon = Fraction(given.epsilon)
    folder, victims = Folder(given.data, given.out), Victims.of(given, float(epsilon))
    result = measure(folder, rows, epsilon, victims, given.options.split(), given.fresh, given.augment.split(","))
    if given.json:
        print(json.dumps(result))
    else:
        for row in (*result["table"], *result["beside_the_peers_table"]):
            print(", ".join(f"{k}: {v:.3g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
