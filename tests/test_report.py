"""Reports: what is written is whole, needs nothing else, claims no more than the cells, and can be read back."""

from __future__ import annotations

import base64
import builtins
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_salm.report import ReportError, UnlearnabilityReport, read_report, write_report

HOSTILE = '<script>alert("x")</script><img src="https://example.org/a.png">'


def cell(
    victim: str, data: str, last: float, seed: int = 0, countermeasure: str = "none", train: float = 0.99
) -> dict[str, Any]:
    return {
        "victim": victim,
        "seed": seed,
        "data": data,
        "countermeasure": countermeasure,
        "augment": "none",
        "fraction": 1.0,
        "metric": "accuracy",
        "last": last,
        "peak": min(1.0, last + 0.05),
        "train_score": train,
        "scores": {"accuracy": last, "auc": float("nan")},
        "curve": [0.2, last],
        "train_curve": [0.3, train],
    }


def make_report(protected: float = 0.15, shape: tuple[int, ...] = (1, 8, 8), **settings: Any) -> UnlearnabilityReport:
    scores = {"clean": 0.9, "random_noise": 0.88, "protected": protected}
    rng = np.random.default_rng(0)
    image = rng.integers(8, 248, shape).astype(np.uint8)
    values: dict[str, Any] = {
        "metric": "accuracy",
        "chance": 0.125,
        "majority": 0.13,
        "guessing": 0.125,
        "seconds": 12.5,
        "noise": {"linf": 8 / 255, "psnr": 32.0, "support": 0.9},
        "protocol": {"epochs": 2, "augment": "none", "epsilon": 8 / 255, "surrogate": None, "window": [0, 255]},
        "cells": [
            cell(v, d, s + seed / 50, seed) for v in ("resnet18", "vgg11") for d, s in scores.items() for seed in (0, 1)
        ],
        "pictures": [("case 1", image, (image + 8 * rng.choice([-1, 1], shape)).astype(np.uint8))],
    }
    return UnlearnabilityReport(**{**values, **settings})


class _Page(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    VOID = frozenset({"meta", "img", "path", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def html_of(report: UnlearnabilityReport, folder: Path) -> str:
    report.to_html(folder / "page.html")
    return (folder / "page.html").read_text("utf-8")


def test_table_has_a_row_for_each_kind_of_data_and_a_column_for_each_victim() -> None:
    lines = make_report().table().splitlines()
    assert lines[0].split() == ["accuracy", "(last", "epoch)", "resnet18", "vgg11"]
    assert [line.split()[0] for line in lines[2:7]] == ["chance", "majority", "clean", "random", "protected"]
    assert "0.160 ± 0.014" in lines[6]


def test_table_goes_on_with_the_peak_and_the_other_scores(tmp_path: Path) -> None:
    report = make_report()
    for one in report.cells:
        one["scores"] |= {"balanced_accuracy": one["last"] - 0.01, "auc": 0.75}
    lines = report.table().splitlines()
    assert max(map(len, lines)) < 80
    titles = [lines[index + 1] for index, line in enumerate(lines) if not line]
    assert titles == [
        "accuracy (peak epoch: an oracle, chosen with the test labels)",
        "AUC (last epoch, chance 0.500)",
        "balanced accuracy (last epoch, chance 0.125)",
    ]
    assert [line.split()[0] for line in lines[9:12]] == ["clean", "random", "protected"]
    assert "0.210 ± 0.014" in lines[11]
    assert "0.750 ± 0.000" in lines[-6]
    assert "0.150 ± 0.014" in lines[-1]
    assert lines[-1].split()[0] == "protected"
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert float(rows[0]["balanced_accuracy"]) == report.cells[0]["last"] - 0.01
    page = html_of(report, tmp_path)
    assert 'colspan="3">balanced accuracy (last epoch, chance 0.125)<' in page
    assert "0.150 ± 0.014" in page


def test_table_has_the_dice_of_each_class() -> None:
    cells = [
        {**cell("unet", data, 0.5), "scores": {"dice": 0.5, "dice_1": 0.6, "dice_2": 0.4}}
        for data in ("clean", "protected")
    ]
    table = make_report(metric="dice", cells=cells).table()
    assert "\n\ndice, class 2 (last epoch)\nclean" in table
    assert table.splitlines()[-1].split() == ["protected", "0.400"]
    for one in cells:
        del one["scores"]["dice_2"]
    assert "class" not in make_report(metric="dice", cells=cells).table()  # it would be the headline again


def test_scores_that_are_no_numbers_are_left_open(tmp_path: Path) -> None:
    report = make_report()  # its AUC is NaN
    assert report.table().splitlines()[-1].split() == ["protected", "-", "-"]
    again = read_report(write_report(report, tmp_path)["json"])
    assert again.table() == report.table()
    broken = [{**one, "train_score": float("nan")} for one in report.cells]
    assert make_report(cells=broken)["vgg11", "none"]["clean"]["train_score_sd"] is None


def test_cases_without_noise_and_notes_are_shown(tmp_path: Path) -> None:
    noise = {"linf": 8 / 255, "psnr": 32.0, "support": 0.9, "unchanged": 1}
    report = make_report(noise=noise, notes=("All of one <brain>.",))
    assert report.warnings() == ["1 case of the protected set carried no noise: published as in the clean set"]
    page = html_of(report, tmp_path)
    assert "<li>All of one &lt;brain&gt;.</li>" in page
    assert report.warnings()[0] in page
    assert read_report(write_report(report, tmp_path)["json"]).notes == report.notes


def test_means_and_deviations() -> None:
    row = make_report()["vgg11", "none"]["protected"]
    assert row["seeds"] == 2
    assert row["last"] == pytest.approx(0.16)
    assert row["last_sd"] == pytest.approx(0.0141421, rel=1e-4)
    assert row["peak"] == pytest.approx(0.21)


def test_one_seed_has_no_deviation() -> None:
    report = make_report(cells=[cell("a", "clean", 0.9), cell("a", "protected", 0.2)])
    assert report["a", "none"]["clean"]["last_sd"] is None
    assert "±" not in report.table()


@pytest.mark.parametrize(
    ("protected", "grade"), [(0.14, "unlearnable"), (0.4, "hard to learn"), (0.6, "learnable"), (0.05, "unlearnable")]
)
def test_grade(protected: float, grade: str) -> None:
    report = make_report(protected)
    assert report.grade() == grade
    assert f"{report['vgg11', 'none']['protected']['last']:.3f}" in report.verdict()
    assert report.verdict().count(". ") == 0  # one sentence


def test_the_worst_victim_and_countermeasure_decide() -> None:
    cells = make_report().cells
    worst = [*cells, cell("vgg11", "protected", 0.8, countermeasure="jpeg")]
    assert make_report(cells=worst).grade() == "learnable"
    assert "countermeasures jpeg" in make_report(cells=worst).verdict()


@pytest.mark.parametrize(
    "cells",
    [
        [
            cell("a", "clean", 0.9),
            cell("a", "protected", 0.1, train=0.2),
        ],  # the protected victim learned nothing at all
        [cell("a", "clean", 0.9, train=0.15), cell("a", "protected", 0.1)],
        [cell("a", "clean", 0.16), cell("a", "protected", 0.1)],  # nothing to protect
        [cell("a", "clean", 0.9)],
        [cell("a", "protected", 0.1)],
        [cell("a", "clean", 0.9), cell("b", "protected", 0.1)],
        [],
    ],
)
def test_no_verdict_without_grounds(cells: list[dict[str, Any]]) -> None:
    report = make_report(cells=cells)
    assert report.grade() == "inconclusive"
    assert report.verdict().startswith("Inconclusive")
    report.table()


def test_json_is_strict_and_comes_back(tmp_path: Path) -> None:
    report = make_report()
    paths = write_report(report, tmp_path / "new")
    values = json.loads(paths["json"].read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert {"schema", "chance", "majority", "seconds", "cells", "verdict", "warnings", "summary"} <= set(values)
    assert values["cells"][0]["scores"]["auc"] is None
    again = read_report(paths["json"])
    assert again.to_dict() == report.to_dict()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "cells": 3}'])
def test_other_files_are_no_reports(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ReportError, match=r"x\.json"):
        read_report(tmp_path / "x.json")


def test_csv_has_a_line_for_each_cell(tmp_path: Path) -> None:
    report = make_report()
    rows = list(csv.DictReader(io.StringIO(report.to_csv(tmp_path / "r.csv"))))
    assert len(rows) == len(report.cells)
    assert float(rows[0]["last"]) == report.cells[0]["last"]
    assert (tmp_path / "r.csv").read_text("utf-8") == report.to_csv()


def test_dataframe() -> None:
    pandas = pytest.importorskip("pandas")
    frame = make_report().to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.shape[0] == 12


def test_dataframe_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'pip install "monai_salm\[demo\]"'):
        make_report().to_dataframe()


def test_html_loads_nothing(tmp_path: Path) -> None:
    page = html_of(make_report(), tmp_path)
    tags = _Page(page).tags
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "data", "action", "srcset", "xlink:href"):
                assert tag == "img"
                assert (value or "").startswith("data:image/png;base64,")
    assert not re.search(r"https?:|//|url\(|@import|@font-face", re.sub(r"base64,[^\"]+", "", page))
    assert "default-src 'none'" in page


def test_html_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    report = make_report(
        cells=[cell(HOSTILE, "clean", 0.9, countermeasure=HOSTILE), cell(HOSTILE, HOSTILE, 0.9, train=0.1)],
        protocol={"surrogate": HOSTILE, HOSTILE: HOSTILE, "epsilon": 0.1},
        metric=HOSTILE,
        pictures=[(HOSTILE, *make_report().pictures[0][1:])],
    )
    page = html_of(report, tmp_path)
    assert "<script" not in page
    assert "https://example.org" in page  # shown as text
    assert all(a.get("src", "data:") for t, a in _Page(page).tags if t == "img")
    assert not [a for t, a in _Page(page).tags if t == "img" and not str(a["src"]).startswith("data:")]


@pytest.mark.parametrize(("shape", "pictures"), [((1, 8, 8), 3), ((3, 8, 8), 3), ((1, 6, 7, 8), 9), ((2, 6, 7, 8), 9)])
def test_pictures_have_words_and_pixels(shape: tuple[int, ...], pictures: int, tmp_path: Path) -> None:
    report = make_report(shape=shape)
    images = [attributes for tag, attributes in _Page(html_of(report, tmp_path)).tags if tag == "img"]
    assert len(images) == pictures
    assert len({a["alt"] for a in images}) == pictures
    name, clean, _ = report.pictures[0]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(str(a["src"]).split(",")[1])))) for a in images]
    first = clean[0] if len(shape) == 3 else clean[0][shape[1] // 2]
    if shape[0] == 3:
        first = clean.transpose(1, 2, 0)
    np.testing.assert_array_equal(decoded[0], first)
    assert set(np.unique(decoded[2])) <= {
        0,
        255,
    }  # every change is the whole budget, which the gain stretches to the ends
    assert all(name in str(a["alt"]) for a in images)


def test_curves_stay_in_the_frame_and_survive_gaps(tmp_path: Path) -> None:
    cells = [cell("a", "clean", 0.9), cell("a", "protected", 0.1)]
    cells[0]["curve"] = [float("nan"), 0.5, float("nan"), 1.0]
    cells[1]["train_curve"] = [0.4]
    page = html_of(make_report(cells=cells), tmp_path)
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "nan" not in svg.lower()
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg):
        assert 0 <= float(x) <= 360
        assert 0 <= float(y) <= 220


def test_page_is_for_phones_print_and_screen_readers(tmp_path: Path) -> None:
    page = html_of(make_report(), tmp_path)
    assert 'name="viewport"' in page
    assert "@media print" in page
    assert '<html lang="en">' in page
    tags = _Page(page).tags
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag == "svg")
    assert [tag for tag, _ in tags if tag in ("h1", "h2")] == ["h1", *["h2"] * 6]
