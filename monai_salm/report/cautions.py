"""Warnings about the scores, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai_salm.report.cells import Values, by_reason, finished, names, ran_out, whole_sets, words

# A noise on fewer voxels than this has mostly been rounded away: even the sparsest method changes some in a hundred.
_LEAST_SUPPORT = 0.001
_ENOUGH_SEEDS = 3
#: Headings, the same on the page and in the terminal.
BEFORE, DETECTION, LIMITATIONS = "Before you believe the scores", "Detection", "Limitations"
# Shown one by one; the rest is counted.
_LISTED = 5


def cautions(values: Values) -> list[str]:
    """All warnings of a report's values."""
    return [
        *_noise(values["noise"], values["protocol"]),
        *_class_wise(values["detection"], values["protocol"]),
        *_undertrained(values["summary"], values["guessing"], values["metric"]),
        *_victims(values["summary"], values["protocol"].get("surrogate")),
        *_missing(values["summary"], values["not_evaluated"]),
        *_stopped(values["cells"], values["guessing"], values["protocol"].get("learned")),
        *_findings(values),
    ]


def _findings(values: Values) -> list[str]:
    return list(map(str, values["detection"].get("findings") or ()))


def warnings_and_findings(values: Values) -> tuple[list[str], list[str]]:
    """Warnings, and findings of the noise's detection, as sentences."""
    findings = _findings(values)
    return [_sentence(text) for text in values["warnings"] if text not in findings], list(map(_sentence, findings))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def plural(count: int, noun: str) -> str:
    """``"1 case"``, ``"2 cases"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _noise(noise: Values, protocol: Values) -> Iterator[str]:
    linf, support, epsilon = noise.get("linf"), noise.get("support"), protocol.get("epsilon")
    no_psnr = "psnr" in noise and noise["psnr"] is None
    if linf == 0 or support == 0 or (no_psnr and "linf" in noise and not linf):
        yield (
            "THE PROTECTED SET IS IDENTICAL TO THE CLEAN ONE: it carries no noise, or all of it was lost when the images were "
            "written. No score below says anything of protection"
        )
        return
    if support is not None and support < _LEAST_SUPPORT:
        yield (
            f"THE PROTECTED SET IS ALMOST IDENTICAL TO THE CLEAN ONE: only {support:.2g} of its voxels differ. Most of the noise may "
            "have been rounded away when the images were written"
        )
    unchanged = noise.get("unchanged")
    if unchanged:
        yield f"{plural(int(unchanged), 'case')} of the protected set carried no noise: published as in the clean set"
    if linf is not None and epsilon and linf < 0.9 * epsilon:
        yield f"the noise reaches {linf:.4f} of the window, epsilon is {epsilon:.4f}: random noise was given the larger budget"


def _class_wise(detection: Values, protocol: Values) -> Iterator[str]:
    if detection.get("class_wise") and protocol.get("noise_kind") != "class-wise":
        yield (
            "the noise is class-wise: one pattern for all images of a class, or nearly, which the average of the images of a class "
            "shows; the protocol does not say so"
        )


def _undertrained(rows: Sequence[Values], guessing: float, metric: str) -> Iterator[str]:
    """One warning for each countermeasure under which victims are undertrained."""
    flagged = [row for row in rows if row["undertrained"]]
    # Training scores of labels per voxel count all voxels, unlike the Dice of the tables.
    voxels = ("training voxel accuracy", " (voxel accuracy, not Dice)")
    score, unit = voxels if metric == "dice" else ("training score", "")
    for countermeasure in names(flagged, "countermeasure"):
        same = [row for row in flagged if row["countermeasure"] == countermeasure]
        who = [f"{row['victim']} on {_data(row)} ({score} {row['train_score']:.3f})" for row in same]
        way = "" if countermeasure == "none" else f" under {countermeasure}"
        yield (
            f"undertrained{way}: {_listed(who)}; guessing gives {guessing:.3f}{unit}. A poor test score of such a victim is no sign "
            "of protection: raise epochs or change the recipe"
        )


def _data(row: Values) -> str:
    data = words(row["data"]) + ("" if row["pipeline"] == "plain" else f", {row['pipeline']}")
    return data if row["fraction"] == 1.0 else f"{data}, {row['fraction']:.0%}"


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _victims(rows: Sequence[Values], surrogate: object) -> Iterator[str]:
    if rows and all(row["is_surrogate"] for row in rows):
        yield (
            "every victim has the architecture that the noise was made against: nothing here shows that the protection holds for "
            "any other"
        )
    if rows and surrogate is None:
        yield (
            "it is not known which architecture the noise was made against (no store was given): a victim of the same one is easier "
            "to fool, and is not marked"
        )
    fewest = min((row["seeds"] for row in whole_sets(rows)), default=_ENOUGH_SEEDS)
    if fewest < _ENOUGH_SEEDS:
        yield (
            f"some victims were trained with {plural(fewest, 'seed')} only: the spread over seeds is hardly known, take "
            f"{_ENOUGH_SEEDS} or more"
        )


def _missing(rows: Sequence[Values], not_evaluated: Sequence[Values]) -> Iterator[str]:
    protected = [row for row in whole_sets(rows) if row["data"] == "protected"]
    met, tried = {(row["victim"], row["countermeasure"]) for row in protected}, names(protected, "countermeasure")
    if protected and "none" not in tried:
        yield "ordinary training, without a countermeasure, was left out: what anyone would try first"
    lacking = [f"{v} with {c}" for v in names(protected, "victim") for c in tried if (v, c) not in met]
    if lacking:
        yield f"not every victim met every countermeasure: there is no {_listed(lacking)}"
    left_out = {why.removeprefix("not evaluated: "): who for why, who in by_reason(not_evaluated).items()}
    if left_out:
        yield "countermeasures left out: " + "; ".join(f"{', '.join(who)} ({why})" for why, who in left_out.items())


def _stopped(cells: Sequence[Values], guessing: float, learned: float | None) -> Iterator[str]:
    known = finished(cells)
    early = sum(ran_out(cell, guessing, learned) for cell in known)
    if early > len(known) / 2:
        yield (
            f"{early} of {plural(len(known), 'victim')} without countermeasure ran out of epochs before they knew their training "
            "images: longer training may learn more"
        )
