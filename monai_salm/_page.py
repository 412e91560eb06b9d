"""The report as one HTML page that loads nothing: no network, no other file, no script."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_salm._figures import amplified, colour, curves_svg, planes, png_uri, to_grey

Array = NDArray[np.generic]
Picture = tuple[str, Array, Array]

# The page's own rule that nothing may be fetched, should a mistake ever let something in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid #ccc}
.verdict{font-size:1.1rem;border-left:.4rem solid #777;background:#f4f4f4;padding:.75rem 1rem}
.verdict.unlearnable{border-color:#009e73}.verdict.learnable{border-color:#d55e00}.verdict.hard{border-color:#e69f00}
.grade{display:block;font-size:.85rem;text-transform:uppercase;letter-spacing:.05em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th.part{padding-top:1rem}th,td{padding:.3rem .8rem .3rem 0;text-align:left;border-bottom:1px solid #ddd;white-space:nowrap}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
figure{margin:0;break-inside:avoid;max-width:32rem}figcaption{font-size:.85rem;color:#444}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.triple{display:grid;grid-template-columns:repeat(3,1fr);gap:.3rem}
.triple img{width:100%;image-rendering:pixelated;display:block}
.key{display:inline-block;width:1.5rem;height:.25rem;vertical-align:middle;margin:0 .35rem 0 .8rem}
.warning{border-left:.4rem solid #d55e00;padding-left:.8rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}small{color:#444}
@media(max-width:30rem){body{padding:.6rem;font-size:15px}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{body{max-width:none;padding:0;font-size:11pt}h2{break-after:avoid}.scroll{overflow:visible}
details>*{display:block}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

_LIMITATIONS = (
    "This is a measurement of the victims, countermeasures and training settings named above, not a proof. Whoever trains "
    "otherwise (longer, other architectures, pretrained weights, a mixture with clean images, purification, adversarial "
    "training) may learn more than shown here.",
    "Protection is a deterrent. It does not encrypt or anonymise: a person, and most software, sees the images as before.",
    "A published image cannot be taken back, and later countermeasures will meet the noise of today.",
    "Spread is over victim seeds only; the noise was made once. Small test sets add their own uncertainty.",
    "Peak is the best epoch chosen with the test set, which an adversary does not have; last is what training ends with.",
)


def report_page(
    values: Mapping[str, Any],
    pictures: Sequence[Picture],
    window: tuple[float, float],
    table: tuple[list[str], list[list[str]]],
) -> str:
    """Lay out a report.

    Args:
        values: ``UnlearnabilityReport.to_dict()``.
        pictures: name, clean and protected image ``(channel, *spatial)``, stored units.
        window: intensities shown as black and white.
        table: header and rows of the table of means.

    Returns:
        A whole HTML document.
    """
    body = [
        "<h1>Unlearnability report</h1>",
        _verdict(values),
        _section("Scores on clean test images", _table(*table) + _table_note(values)),
        _section("Training", _legend(values) + f'<div class="grid">{"".join(_curve_figures(values))}</div>'),
        _section("Images", _pictures(pictures, window, values["noise"].get("linf"))) if pictures else "",
        _section("Protocol", _protocol(values)),
        _section("Limitations", _limitations(values)),
        _section("Every victim", _all_cells(values["cells"])),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Unlearnability report</title>'
        f"<style>{_STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _verdict(values: Mapping[str, Any]) -> str:
    grade = str(values["grade"])
    text = f'<p class="verdict {_text(grade.split()[0])}"><strong class="grade">{_text(grade)}</strong>{_text(values["verdict"])}</p>'
    return text + "".join(f'<p class="warning">{_text(warning)}</p>' for warning in values["warnings"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    lines = (
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(c)}</td>" for c in row[1:]) + "</tr>"
        if any(row[1:])
        else f'<tr><th scope="rowgroup" class="part" colspan="{len(row)}">{_text(row[0])}</th></tr>'
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _table_note(values: Mapping[str, Any]) -> str:
    note = "Mean and standard deviation over victim seeds."
    if any(cell["undertrained"] for cell in values["cells"]):
        note += " * undertrained: the victim did not learn its own training images."
    return f"<p><small>{note}</small></p>"


def _limitations(values: Mapping[str, Any]) -> str:
    texts = (*_LIMITATIONS, *values.get("notes", ()))
    return "<ul>" + "".join(f"<li>{_text(text)}</li>" for text in texts) + "</ul>"


def _legend(values: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(cell["data"] for cell in values["cells"])
    keys = (
        f'<span class="key" style="background:{colour(d, i)}"></span>{_text(d.replace("_", " "))}'
        for i, d in enumerate(kinds)
    )
    return (
        f"<p>{''.join(keys)}</p><p><small>Solid: {_text(values['metric'])} on clean test images. Dashed: training score. "
        "Protection shows as a training score that rises while the test score does not.</small></p>"
    )


def _curve_figures(values: Mapping[str, Any]) -> list[str]:
    groups: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for cell in values["cells"]:
        groups.setdefault((cell["victim"], cell["countermeasure"]), {}).setdefault(cell["data"], []).append(cell)
    figures = []
    for (victim, countermeasure), by_data in groups.items():
        title = victim if countermeasure == "none" else f"{victim}, {countermeasure}"
        curves = {d: (_mean_curve(cells, "curve"), _mean_curve(cells, "train_curve")) for d, cells in by_data.items()}
        described = f"Test and training scores of {title} by epoch"
        svg = curves_svg(described, curves, values["chance"] or 0.0, values["metric"])
        figures.append(f"<figure>{svg}<figcaption>{_text(title)}</figcaption></figure>")
    return figures


def _mean_curve(cells: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    curves = [cell.get(key) or [] for cell in cells]
    return [None if None in scores else statistics.fmean(scores) for scores in zip(*curves, strict=False)]


def _pictures(pictures: Sequence[Picture], window: tuple[float, float], linf: float | None) -> str:
    gain = 0.5 / linf if linf else 1.0
    figures = []
    for name, clean, protected in pictures:
        for (where, before), (_, after) in zip(planes(clean), planes(protected), strict=True):
            title = f"{name}, {where}" if where else name
            shown = (
                ("clean image", to_grey(before, window)),
                ("protected image", to_grey(after, window)),
                (f"difference times {gain:.0f}", amplified(before, after, gain, window)),
            )
            images = "".join(f'<img src="{png_uri(grey)}" alt="{_text(f"{title}: {kind}")}">' for kind, grey in shown)
            caption = f"<figcaption>{_text(title)}</figcaption>"
            figures.append(f'<figure><div class="triple">{images}</div>{caption}</figure>')
    note = f"<p><small>Clean, protected, and their difference times {gain:.0f} about middle grey.</small></p>"
    return note + f'<div class="grid">{"".join(figures)}</div>'


def _protocol(values: Mapping[str, Any]) -> str:
    noise = values["noise"]
    measured = {
        "noise, largest change": _number(noise.get("linf"), " of the window"),
        "noise, PSNR": _number(noise.get("psnr"), " dB"),
        "noise, voxels changed": _number(noise.get("support"), " of all"),
        "noise, cases without any": _number(noise.get("unchanged")),
        "chance, majority": f"{_number(values['chance'])}, {_number(values['majority'])}",
        "evaluation took": _number(values["seconds"], " s"),
    }
    fixed = {key.replace("_", " "): _flat(value) for key, value in values["protocol"].items()}
    items = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in {**measured, **fixed}.items())
    return (
        "<p>Victims are trained from fresh weights on each training set with the same seeds, order and settings, and scored on "
        f"the same clean test images after every epoch.</p><dl>{items}</dl>"
    )


def _all_cells(cells: Sequence[Mapping[str, Any]]) -> str:
    names = ("victim", "seed", "data", "countermeasure", "last", "peak", "train_score")
    further = list(
        dict.fromkeys(n for cell in cells for n in cell.get("scores", {}) if n not in (*names, cell["metric"]))
    )
    rows = [
        [*[_flat(cell[name]) for name in names], *[_number(cell.get("scores", {}).get(name)) for name in further]]
        for cell in cells
    ]
    return _table([name.replace("_", " ") for name in (*names, *further)], rows)


def _number(value: float | None, unit: str = "") -> str:
    return "none" if value is None else f"{value:.4g}{unit}"


def _flat(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
