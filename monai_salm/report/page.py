"""The report as one HTML page that loads nothing: no network, no other file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_salm.report.blocks import bullets, escape, flat, fold, listing, nested, number, section, small, table, words
from monai_salm.report.cautions import BEFORE, DETECTION, LIMITATIONS, told_apart
from monai_salm.report.curves import partly_protected, training_curves
from monai_salm.report.figures import Picture, histograms, pictures
from monai_salm.report.heatmap import heat_map
from monai_salm.report.pipelines import PIPELINES, pipeline_note, pipeline_table
from monai_salm.report.style import STYLE
from monai_salm.report.tables import class_names, further_scores, mean_and_sd, score_title

# The page's own rule that nothing may be fetched, should a mistake ever let something in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_LIMITATIONS = (
    "This is a measurement of the victims, countermeasures and training settings named above, not a proof. Whoever trains "
    "otherwise (longer, other architectures, pretrained weights, a countermeasure that is not in the table) may learn more than "
    "shown here.",
    "The grade goes by the largest share of the clean lead over guessing that any adversary without clean images kept or any "
    "ordinary pipeline recovered, mean over seeds: up to 15 % is unlearnable, up to 50 % hard to learn. What an adversary with "
    "clean images reaches is shown, but is in part what those images give by themselves.",
    "Protection is a deterrent. It does not encrypt or anonymise: a person, and most software, sees the images as before.",
    "A published image cannot be taken back, and later countermeasures will meet the noise of today.",
    "Spread is over victim seeds only; the noise was made once. Small test sets add their own uncertainty.",
    "Peak is the best epoch chosen with the test set, which an adversary does not have; last is what training ends with.",
)

_ON_PAPER = "Also in the report's CSV and JSON. What is folded is left out in print: open it first to have it on paper."

# The protocol in groups; what is in none of them comes last.
_GROUPS = {
    "Data": ("task", "window", "cases", "image_shape", "dtype", "view", "held_out", "digests"),
    "Noise": ("epsilon", "noise_kind", "surrogate", "method"),
    "Victims": ("victims", "seeds", "width", "augment", "epochs", "learned", "patience", "recipe", "trained"),
    "Pipelines": ("pipelines",),
    "Adversaries": ("countermeasures", "fractions", "controls", "settings"),
    "Machine": ("device", "jobs", "threads", "versions"),
}
_MEANS = ("victim", "data", "fraction", "countermeasure", "pipeline", "seeds")
_MEAN_SCORES = ("last", "early", "early_clean", "unfiltered", "peak", "train_score")
_CELL_TEXTS = ("victim", "seed", "data", "fraction", "countermeasure", "pipeline")
_CELL_NUMBERS = (
    "last",
    "interval",
    "early",
    "early_clean",
    "unfiltered",
    "peak",
    "train_score",
    "undertrained",
    "stopped",
    "epochs",
)


def report_page(values: Mapping[str, Any], shown: Sequence[Picture], window: tuple[float, float]) -> str:
    """Lay out a report.

    Args:
        values: ``UnlearnabilityReport.to_dict()``.
        shown: name, clean and protected image ``(channel, *spatial)`` of a few cases, stored units.
        window: intensities shown as black and white.

    Returns:
        A whole HTML document.
    """
    body = [
        "<h1>Unlearnability report</h1>",
        _verdict(values),
        section(PIPELINES, _pipelines(values)),
        section("Scores on clean test images", heat_map(values)),
        section("Partly protected training sets", partly_protected(values)),
        section("Training", training_curves(values)),
        section(
            "Images", pictures(shown, window, values["noise"].get("linf")) + histograms(shown, window) if shown else ""
        ),
        section(DETECTION, nested(values["detection"])),
        section("What the noise costs the images", nested(values["cost"])),
        section("Use of protected images", _utility(values["utility"])),
        section("Images of each class", _classes(values.get("classes", {}))),
        section("Protocol", _protocol(values)),
        section(LIMITATIONS, bullets((*_LIMITATIONS, *values.get("notes", ())))),
        section("All numbers", _all_numbers(values)),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Unlearnability report</title>'
        f"<style>{STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _verdict(values: Mapping[str, Any]) -> str:
    grade = str(values["grade"])
    # One sentence, of which the conditions are set smaller.
    claim, mark, conditions = str(values["verdict"]).partition("; conditions: ")
    small_print = f'<span class="conditions">{escape("Conditions: " + conditions)}</span>' if mark else ""
    kind = f'<strong class="grade">{escape(grade)}</strong>'
    text = f'<p class="verdict {escape(grade.split()[0])}">{kind}{escape(claim)}{small_print}</p>'
    warnings, _ = told_apart(values)  # findings have a section of their own
    if not warnings:
        return text
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return text + f'<h2>{BEFORE}</h2><ul class="warnings">{lines}</ul>'


def _pipelines(values: Mapping[str, Any]) -> str:
    header, rows = pipeline_table(values)
    return small(pipeline_note(values)) + table(header, rows, PIPELINES) if rows else ""


def _utility(utility: Mapping[str, Any]) -> str:
    if not utility:
        return ""
    note = "What networks trained on clean images make of protected ones: the images' use to whoever has an honest network."
    return small(note) + nested(utility)


def _classes(classes: Mapping[str, Mapping[str, int]]) -> str:
    rows = [[name, *(flat(counts[name]) for counts in classes.values())] for name in class_names(classes)]
    return table(["class", *classes], rows, "Images of each class") if rows else ""


def _protocol(values: Mapping[str, Any]) -> str:
    noise, protocol = values["noise"], values["protocol"]
    measured = {
        "noise, largest change": number(noise.get("linf"), " of the window"),
        "noise, PSNR": number(noise.get("psnr"), " dB"),
        "noise, voxels changed": number(noise.get("support"), " of all"),
        "noise, cases without any": number(noise.get("unchanged")),
        "chance, majority": f"{number(values['chance'])}, {number(values['majority'])}",
        **({} if values.get("constant") is None else {"best constant map": number(values["constant"])}),
        "evaluation took": number(values["seconds"], " s"),
    }
    known = [name for group in _GROUPS.values() for name in group]
    groups = {title: [name for name in group if name in protocol] for title, group in _GROUPS.items()}
    groups["Further"] = [name for name in protocol if name not in known]
    parts = [
        f"<h3>{title}</h3>{listing(_one_by_one({name: protocol[name] for name in group}))}"
        for title, group in groups.items()
        if group
    ]
    text = (
        "Victims are trained from fresh weights on each training set with the same seeds, order and settings, and scored on the same "
        "clean test images after every epoch."
    )
    return f"<p>{text}</p><h3>Measured</h3>{listing(measured)}{''.join(parts)}"


def _one_by_one(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give entries of mappings of mappings, such as the settings of each victim, a line each."""
    lines: dict[str, Any] = {}
    for name, value in values.items():
        several = isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values())
        lines |= {f"{name}, {key}": item for key, item in value.items()} if several else {name: value}
    return lines


def _all_numbers(values: Mapping[str, Any]) -> str:
    return small(_ON_PAPER) + fold("Means over seeds", _means(values)) + fold("Every victim", _every_cell(values))


def _means(values: Mapping[str, Any]) -> str:
    summary = values["summary"]
    further = further_scores(values["cells"], values["metric"])
    header = [*map(words, _MEANS), *map(words, _MEAN_SCORES), "interval", "clean lead kept", *_titles(values, further)]
    rows = [
        [
            *(flat(row[name]) for name in _MEANS),
            *(mean_and_sd(row, name) for name in _MEAN_SCORES),
            _brief(row["interval"]),
            "-" if row["kept"] is None else f"{row['kept']:.0%}",
            *(mean_and_sd(row, name) for name in further),
        ]
        for row in summary
    ]
    return table(header, rows, "Means over seeds", "wide")


def _every_cell(values: Mapping[str, Any]) -> str:
    cells = values["cells"]
    further = further_scores(cells, values["metric"])
    header = [*map(words, (*_CELL_TEXTS, *_CELL_NUMBERS)), *_titles(values, further)]
    rows = [
        [
            *(flat(cell[name]) for name in _CELL_TEXTS),
            *(_brief(cell.get(name)) for name in _CELL_NUMBERS),
            *(_brief(cell.get("scores", {}).get(name)) for name in further),
        ]
        for cell in cells
    ]
    return table(header, rows, "Every victim", "wide")


def _titles(values: Mapping[str, Any], scores: Sequence[str]) -> list[str]:
    names = class_names(values.get("classes", {}))
    return [score_title(score, names) for score in scores]


def _brief(value: object) -> str:
    """A value in as few characters as will do: these tables are wide."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
