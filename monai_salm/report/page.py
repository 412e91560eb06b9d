"""The report as one HTML page that loads nothing: no network, no other file, no script; ``page.html.j2`` lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_salm.report.blocks import Block, Table, flat, listing, nested, number, words
from monai_salm.report.cautions import BEFORE, DETECTION, LIMITATIONS, warnings_and_findings
from monai_salm.report.charts import training_curves
from monai_salm.report.figures import LARGEST, Picture, image_figures
from monai_salm.report.heatmap import heat_map
from monai_salm.report.pipelines import PIPELINES, pipeline_note, pipeline_table
from monai_salm.report.tables import class_names, further_scores, mean_and_sd, mixtures, score_title

# The protocol in groups; "Further" takes what is in none of them.
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
    *("last", "interval", "early", "early_clean", "unfiltered", "peak", "train_score"),
    *("undertrained", "stopped", "epochs"),
)


def report_page(values: Mapping[str, Any], shown: Sequence[Picture], window: tuple[float, float]) -> str:
    """Lay out a report's values as a whole HTML document, with pictures ``shown`` in a window of intensities."""
    claim, _, conditions = str(values["verdict"]).partition("; conditions: ")
    classes = values.get("classes", {})
    class_rows = [[name, *(flat(counts[name]) for counts in classes.values())] for name in class_names(classes)]
    pipelines = pipeline_table(values)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        grade=str(values["grade"]),
        claim=claim,
        conditions=conditions,
        before=BEFORE,
        warnings=warnings_and_findings(values)[0],
        pipelines=(PIPELINES, pipeline_note(values), (*pipelines, PIPELINES, "")) if pipelines[1] else None,
        heat=heat_map(values),
        mixtures=_mixtures(values),
        training=training_curves(values),
        metric=values["metric"],
        images=image_figures(shown, window, values["noise"].get("linf")) if shown else None,
        largest=LARGEST,
        detection=(DETECTION, nested(values["detection"])),
        cost=nested(values["cost"]),
        utility=nested(values["utility"]),
        classes=(["class", *classes], class_rows, "Images of each class", ""),
        protocol=_protocol(values),
        limitations=(LIMITATIONS, values.get("notes", ())),
        means=_means(values),
        cells=_every_cell(values),
    )


def _mixtures(values: Mapping[str, Any]) -> Table:
    header = ["victim", "protected", f"{values['metric']}, all images", "clean part alone"]
    points = [(victim, *point) for victim, found in mixtures(values) for point in found]
    rows = [[victim, f"{f:.0%}", mean_and_sd(m, "last"), mean_and_sd(part, "last")] for victim, f, m, part in points]
    return header, rows, "Partly protected sets", ""


def _protocol(values: Mapping[str, Any]) -> list[tuple[str, Block]]:
    """Titles and listings."""
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
    parts = {title: _one_a_line({name: protocol[name] for name in group}) for title, group in groups.items() if group}
    return [(title, listing(part)) for title, part in {"Measured": measured, **parts}.items()]


def _one_a_line(values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of mappings of mappings, such as the settings of each victim, on a line each."""
    lines: dict[str, Any] = {}
    for name, value in values.items():
        several = isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values())
        lines |= {f"{name}, {key}": item for key, item in value.items()} if several else {name: value}
    return lines


def _means(values: Mapping[str, Any]) -> Table:
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
        for row in values["summary"]
    ]
    return header, rows, "Means over seeds", "wide"


def _every_cell(values: Mapping[str, Any]) -> Table:
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
    return header, rows, "Every victim", "wide"


def _titles(values: Mapping[str, Any], scores: Sequence[str]) -> list[str]:
    names = class_names(values.get("classes", {}))
    return [score_title(score, names) for score in scores]


def _brief(value: object) -> str:
    """A value in few characters: these tables are wide."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
