"""The report as one HTML page that loads nothing: no network, no other file, no script; ``page.html.j2`` lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_salm.report.blocks import Table, flat, is_row, is_simple, number, table_of
from monai_salm.report.cautions import BEFORE, DETECTION, LIMITATIONS, warnings_and_findings
from monai_salm.report.cells import Scores, Values, mean_and_sd, words
from monai_salm.report.charts import training_curves
from monai_salm.report.figures import LARGEST, Picture, image_figures
from monai_salm.report.heatmap import heat_colour, heat_map
from monai_salm.report.pipelines import PIPELINES, pipeline_note, pipeline_table
from monai_salm.report.tables import class_names, further_scores, score_title

# The protocol in groups; "Further" takes what is in none of them.
_GROUPS = {
    "Data": ("task", "window", "cases", "image_shape", "dtype", "view", "held_out", "digests"),
    "Noise": ("epsilon", "noise_kind", "surrogate", "method"),
    "Victims": ("victims", "seeds", "width", "augment", "epochs", "learned", "patience", "recipe", "trained"),
    "Pipelines": ("pipelines",),
    "Adversaries": ("countermeasures", "fractions", "controls", "settings"),
    "Machine": ("device", "jobs", "threads", "versions"),
}


def report_page(values: Values, shown: Sequence[Picture], window: tuple[float, float]) -> str:
    """Lay out a report's values as a whole HTML document, with pictures ``shown`` in a window of intensities."""
    claim, _, conditions = str(values["verdict"]).partition("; conditions: ")
    further, classes = further_scores(values["cells"], values["metric"]), class_names(values["classes"])
    pipelines = pipeline_table(values)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"words": words, "flat": flat, "brief": _brief, "heat_colour": heat_colour}
    environment.filters["of"] = lambda name, row: row[name]
    environment.tests |= {"simple": is_simple, "row": is_row}
    shown_values = {
        "before": BEFORE,
        "about_detection": DETECTION,
        "limitations": LIMITATIONS,
        "table_of": table_of,
        "mean_and_sd": mean_and_sd,
        "claim": claim,
        "conditions": conditions,
        "warnings": warnings_and_findings(values)[0],
        "pipelines": (PIPELINES, pipeline_note(values), (*pipelines, PIPELINES, "")) if pipelines[1] else None,
        "heat": heat_map(values),
        "mixtures": _mixtures(values),
        "training": training_curves(values),
        "images": image_figures(shown, window, values["noise"].get("linf")) if shown else None,
        "largest": LARGEST,
        "class_names": classes,
        "protocol": _protocol(values),
        "further": further,
        "titles": [score_title(score, classes) for score in further],
    }
    return environment.get_template("page.html.j2").render({**values, **shown_values})


def _mixtures(values: Values) -> Table:
    scores = Scores.from_rows(values["summary"])
    clean, protected = scores.of("clean"), scores.of("protected")
    nothing: list[Values | None] = [None] * len(scores.victims)
    points = [(0.0, clean, clean), *scores.mixtures(), (1.0, protected, nothing)]
    rows = [
        [victim, f"{fraction:.0%}", mean_and_sd(mixture[column], "last"), mean_and_sd(part[column], "last")]
        for column, victim in enumerate(scores.victims)
        if any(mixture[column] or part[column] for _, mixture, part in points[1:-1])
        for fraction, mixture, part in points
    ]
    header = ["victim", "protected", f"{values['metric']}, all images", "clean part alone"]
    return header, rows, "Partly protected sets", ""


def _protocol(values: Values) -> list[tuple[str, Values]]:
    """Titles, and names and values."""
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
    groups = {**_GROUPS, "Further": tuple(name for name in protocol if name not in known)}
    parts = {title: {name: protocol[name] for name in group if name in protocol} for title, group in groups.items()}
    return [("Measured", measured), *((title, _one_a_line(part)) for title, part in parts.items() if part)]


def _one_a_line(values: Values) -> dict[str, Any]:
    """Entries of mappings of mappings, such as the settings of each victim, on a line each."""
    lines: dict[str, Any] = {}
    for name, value in values.items():
        several = isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values())
        lines |= {f"{name}, {key}": item for key, item in value.items()} if several else {name: value}
    return lines


def _brief(value: object) -> str:
    """A value in few characters: these tables are wide."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
