"""Reports: what is written is whole, needs nothing else, claims no more than the cells, and can be read back."""

from __future__ import annotations

import base64
import builtins
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reports import cell, make_report

from monai_salm.report.charts import mean_curve
from monai_salm.report.disk import ReportError, UnlearnabilityReport, read_report, write_report
from monai_salm.report.heatmap import heat_colour
from monai_salm.report.terminal import terminal_text

HOSTILE = '<script>alert("x")</script><img src="https://example.org/a.png">'


class _Page(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    VOID = frozenset({"meta", "img", "path", "br", "circle"})

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
        "worst case: the best that any adversary reached with the protected images",
        "accuracy (peak epoch: an oracle, chosen with the test labels)",
        "AUC (last epoch, chance 0.500)",
        "balanced accuracy (last epoch, chance 0.125)",
    ]
    peak = lines.index(titles[1])
    assert [line.split()[0] for line in lines[peak + 1 : peak + 4]] == ["clean", "random", "protected"]
    assert "0.210 ± 0.014" in lines[peak + 3]
    assert "0.750 ± 0.000" in lines[-6]
    assert "0.150 ± 0.014" in lines[-1]
    assert lines[-1].split()[0] == "protected"
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert float(rows[0]["balanced_accuracy"]) == report.cells[0]["last"] - 0.01
    page = html_of(report, tmp_path)
    assert '<th scope="col">balanced accuracy</th>' in page
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
    assert report.warnings()[0] == "1 case of the protected set carried no noise: published as in the clean set"
    page = html_of(report, tmp_path)
    assert "<li>All of one &lt;brain&gt;.</li>" in page
    assert f"<li>{report.warnings()[0]}.</li>" in page
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
    assert {"schema", "chance", "majority", "seconds", "cells", "verdict", "warnings", "summary", "worst_case"} <= set(
        values
    )
    assert values["cells"][0]["scores"]["auc"] is None
    again = read_report(paths["json"])
    assert again.to_dict() == report.to_dict()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1}', '{"schema": 2}', '{"schema": 2, "cells": 3}'])
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


@pytest.mark.parametrize(
    ("shape", "pictures"), [((1, 8, 8), 4), ((3, 8, 8), 4), ((1, 6, 7, 8), 12), ((2, 6, 7, 8), 12)]
)
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
    headings = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))  # no level is left out
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")


# ---------------------------------------------------------------------------------------------------------------------
# Judging: nothing flatters


def full(victim: str, data: str, last: float, **changes: Any) -> dict[str, Any]:
    """A cell with every field of the schema."""
    countermeasure = changes.pop("countermeasure", "none")
    base = cell(victim, data, last, countermeasure=countermeasure)
    extra = {"is_surrogate": False, "needs_clean": False, "early": last, "early_clean": None, "unfiltered": None}
    extra |= {"interval": [last - 0.1, last + 0.1], "stopped": "learned", "epochs": 2, "seconds": 1.0}
    return {**base, **extra, **changes}


def pair(protected: float, countermeasure: str = "none", clean: float = 0.9, **changes: Any) -> list[dict[str, Any]]:
    """One victim on clean and on protected images under one countermeasure."""
    return [
        full("a", "clean", clean, countermeasure=countermeasure, **changes),
        full("a", "protected", protected, countermeasure=countermeasure, **changes),
    ]


def graded(*cells: dict[str, Any]) -> tuple[str, str]:
    report = make_report(cells=[*pair(0.14), *cells])
    return report.grade(), report.verdict()


def test_cells_may_lack_what_later_schemas_added() -> None:
    report = make_report()
    assert report.cells[0]["fraction"] == 1.0
    assert report.cells[0]["needs_clean"] is False
    assert report.cells[0]["early"] is None
    row = report["vgg11", "none"]["protected"]
    assert row["interval"] is None
    assert row["early"] is None
    assert row["stopped"] == {"learned": 0, "epochs": 0}


def test_training_scores_that_are_low_by_design_are_no_failure() -> None:
    low = [{**c, "train_score": 0.3} for c in pair(0.15, "mixup", clean=0.85)]
    grade, verdict = graded(*low)
    assert grade == "unlearnable"
    assert "countermeasures mixup" in verdict


def test_a_victim_left_at_chance_is_never_protected() -> None:
    """A learning rate of 0 on the protected images alone, under a countermeasure that keeps training scores low."""
    clean, protected = pair(0.125, "mixup", clean=0.85)
    grade, verdict = graded({**clean, "train_score": 0.3}, {**protected, "train_score": 0.125})
    assert grade == "inconclusive"
    assert "a with mixup: the victim of protected images is undertrained" in verdict


def test_low_training_scores_without_clean_peers_prove_nothing() -> None:
    assert graded({**pair(0.125, "mixup")[1], "train_score": 0.3})[0] == "inconclusive"


def test_a_countermeasure_that_lets_nobody_learn_does_not_count() -> None:
    both = [{**c, "train_score": 0.125} for c in pair(0.125, "mixup", clean=0.13)]
    grade, verdict = graded(*both)
    assert grade == "unlearnable"
    assert "only ordinary training, not counting mixup, under which clean images were not learned either" in verdict
    alone = make_report(cells=both)  # nothing else was tried
    assert alone.grade() == "inconclusive"
    assert all(one["undertrained"] for one in alone.cells)


def test_a_countermeasure_that_spoils_clean_training_is_no_merit() -> None:
    grade, verdict = graded(*pair(0.13, "resample", clean=0.14))  # its victims know their training images
    assert grade == "unlearnable"
    assert "not counting resample" in verdict
    assert graded(*pair(0.4, "resample", clean=0.14))[0] == "hard to learn"  # but what is reached under it counts


def test_what_starts_from_a_trained_network_may_keep_an_early_epoch() -> None:
    early = {**pair(0.16, "early_stopping")[1], "train_score": 0.1, "stopped": None, "curve": [], "train_curve": []}
    assert graded(early)[0] == "unlearnable"
    ordinary = [{**c, "train_score": 0.1} for c in pair(0.14)]  # but not of a network that never learned
    report = make_report(cells=[*ordinary, early])
    assert [one["undertrained"] for one in report.cells] == [True, True, True]


def test_one_adversary_that_learns_is_enough() -> None:
    lost = full("b", "protected", 0.1, train_score=0.1)
    grade, verdict = graded(*pair(0.8, "jpeg"), full("b", "clean", 0.9), lost)
    assert grade == "learnable"
    assert "reached 0.800 accuracy (a with jpeg, after the last epoch)" in verdict


@pytest.mark.parametrize("score", ["early", "unfiltered"])
def test_every_score_an_adversary_has_counts(score: str) -> None:
    grade, verdict = graded(*pair(0.15, "jpeg", **{score: 0.7}))
    assert grade == "learnable"
    assert "0.700" in verdict


def test_the_peak_does_not_count() -> None:
    assert graded(*pair(0.15, "jpeg", peak=0.9))[0] == "unlearnable"


def test_clean_images_of_the_adversary_are_told_but_not_graded() -> None:
    grade, verdict = graded(
        *pair(0.5, "clean_subset", needs_clean=True), *pair(0.6, "last_layer", needs_clean=True, early_clean=0.65)
    )
    assert grade == "unlearnable"
    told = "with a small clean set of its own an adversary reached 0.650 (a with last_layer, stopped early by clean images;"
    assert f"{told} that set alone gives 0.500)" in verdict
    assert verdict.count(". ") == 0


def test_worst_case_has_a_row_with_and_one_without_clean_images() -> None:
    cells = [*pair(0.14), *pair(0.2, "jpeg"), *pair(0.5, "clean_subset", needs_clean=True)]
    without, within = make_report(cells=cells).worst_case()
    assert (without["victim"], without["needs_clean"], without["by"], without["score"]) == ("a", False, "jpeg", 0.2)
    assert without["kept"] == pytest.approx((0.2 - 0.13) / (0.9 - 0.13))
    assert (within["needs_clean"], within["by"], within["score"], within["alone"]) == (True, "clean_subset", 0.5, 0.5)
    assert len(make_report(cells=pair(0.14)).worst_case()) == 1


def test_early_stopping_on_clean_images_needs_clean_images() -> None:
    without, within = make_report(cells=pair(0.14, early_clean=0.6)).worst_case()
    assert (without["score"], within["score"], within["chosen"]) == (0.14, 0.6, "early_clean")


def test_verdict_says_that_only_ordinary_training_was_tried() -> None:
    assert "no countermeasure, only ordinary training" in make_report().verdict()


def test_verdict_takes_the_epochs_from_the_victims() -> None:
    protocol = {"epochs": None, "trained": {"a": {"epochs": 20}, "b": {"epochs": 40}}}
    assert "at most 20 to 40 epochs" in make_report(cells=pair(0.1), protocol=protocol).verdict()


# ---------------------------------------------------------------------------------------------------------------------
# Warnings


@pytest.mark.parametrize(
    "noise",
    [
        {"linf": 0.0, "psnr": None, "support": 0.0, "unchanged": 3},
        {"linf": 0.03, "psnr": 60.0, "support": 0.0},
        {"linf": None, "psnr": None, "support": None},
    ],
)
def test_sets_that_are_the_same_are_called_so_first(noise: dict[str, Any], tmp_path: Path) -> None:
    report = make_report(noise=noise)
    assert report.warnings()[0].startswith("THE PROTECTED SET IS IDENTICAL TO THE CLEAN ONE")
    assert "IDENTICAL" in html_of(report, tmp_path)


def test_noise_that_was_rounded_away_is_warned_of() -> None:
    report = make_report(noise={"linf": 0.01, "psnr": 70.0, "support": 0.0002})
    assert report.warnings()[0].startswith("THE PROTECTED SET IS ALMOST IDENTICAL")
    assert not any("IDENTICAL" in warning for warning in make_report().warnings())


def test_class_wise_noise_is_warned_of_unless_it_is_declared() -> None:
    detection = {"class_wise": True, "findings": ["one pattern for each class"]}
    report = make_report(detection=detection)
    assert report.warnings()[0].startswith("the noise is class-wise")
    assert report.warnings()[-1] == "one pattern for each class"
    declared = make_report(detection=detection, protocol={"noise_kind": "class-wise"})
    assert not any("class-wise" in warning for warning in declared.warnings())


def test_undertrained_victims_are_told_in_groups() -> None:
    cells = [{**c, "train_score": 0.1, "seed": seed} for seed in range(50) for c in pair(0.1)]
    found = [w for w in make_report(cells=cells).warnings() if "undertrained" in w]
    assert len(found) == 1
    assert "a on clean (training score 0.100), a on protected (training score 0.100); guessing gives 0.125" in found[0]


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("dice", "(training voxel accuracy 0.574); guessing gives 0.959 (voxel accuracy, not Dice). A poor"),
        ("accuracy", "(training score 0.574); guessing gives 0.959. A poor"),
    ],
)
def test_the_training_score_of_a_segmentation_has_its_name(metric: str, told: str) -> None:
    cells = [{**c, "metric": metric, "train_score": 0.574} for c in pair(0.1)]
    report = make_report(cells=cells, metric=metric, guessing=0.959)
    assert told in next(w for w in report.warnings() if w.startswith("undertrained"))


def test_the_terminal_has_the_headings_of_the_page(tmp_path: Path) -> None:
    findings = ["a linear probe finds nothing", "one pattern for each class?"]
    report = make_report(detection={"findings": findings}, notes=["a teaching example"])
    text, page = terminal_text(report.to_dict()), html_of(report, tmp_path)
    assert report.table() in text
    parts = dict(part.split("\n", 1) for part in text.replace(f"{report.table()}\n\n", "").split("\n\n"))
    assert list(parts) == ["Verdict", "Before you believe the scores", "Ordinary pipelines", "Detection", "Limitations"]
    assert all(f"<h2>{heading}</h2>" in page for heading in parts if heading != "Verdict")
    claim, conditions = report.verdict().split("; conditions: ")
    assert " ".join(parts["Verdict"].split()) == f"{claim}. Conditions: {conditions}"
    assert all(len(line) < 120 for line in text.splitlines())
    assert parts["Detection"] == "- A linear probe finds nothing.\n- One pattern for each class?"
    assert parts["Limitations"] == "- a teaching example"
    warnings = parts["Before you believe the scores"].splitlines()
    assert sum(line.startswith("- ") for line in warnings) == len(report.warnings()) - len(findings) > 0
    assert all(line.startswith(("- ", "  ")) for line in warnings)
    bare = {**report.to_dict(), "warnings": [], "detection": {}, "notes": []}
    assert not {"Before you believe the scores", "Detection"} & set(terminal_text(bare).splitlines())


def test_the_surrogates_own_architecture_is_marked() -> None:
    own = pair(0.14, is_surrogate=True)
    assert any("every victim has the architecture" in w for w in make_report(cells=own).warnings())
    mixed = make_report(cells=[*own, full("b", "clean", 0.9), full("b", "protected", 0.2)])
    assert not any("every victim has" in warning for warning in mixed.warnings())
    assert mixed.table().splitlines()[0].split()[-3:] == ["a", "†", "b"]
    assert mixed.table().endswith("† architecture that the noise was made against")


def test_what_is_missing_is_told() -> None:
    left_out = [
        {"countermeasure": "mixup", "reason": "not evaluated: not asked for"},
        {"countermeasure": "cutmix", "reason": "not evaluated: not asked for"},
        {"countermeasure": "grayscale", "reason": "images have one channel"},
    ]
    cells = [*pair(0.14), *pair(0.14, "jpeg"), full("b", "clean", 0.9), full("b", "protected", 0.2)]
    warnings = make_report(cells=cells, not_evaluated=left_out).warnings()
    assert "countermeasures left out: mixup, cutmix (not asked for); grayscale (images have one channel)" in warnings
    assert "not every victim met every countermeasure: there is no b with jpeg" in warnings
    assert any("1 seed only" in warning for warning in warnings)
    assert any("ordinary training" in w for w in make_report(cells=pair(0.14, "jpeg")).warnings())


def test_training_that_ran_out_of_epochs_is_told() -> None:
    cells = [*pair(0.14, stopped="epochs"), *pair(0.14, "mixup", stopped="epochs")]
    assert any(w.startswith("2 of 2 victims without countermeasure") for w in make_report(cells=cells).warnings())
    assert not any("ran out" in w for w in make_report(cells=pair(0.14)).warnings())


@pytest.mark.parametrize(
    ("learned", "train", "told"), [(None, 1.0, False), (None, 0.99, True), (0.995, 0.996, False), (0.9, 0.95, False)]
)
def test_all_epochs_are_no_failure_where_the_training_images_are_known(
    learned: float | None, train: float, told: bool
) -> None:
    protocol = {**make_report().protocol, "learned": learned}
    report = make_report(cells=pair(0.14, stopped="epochs", train_score=train), protocol=protocol)
    assert any("ran out of epochs" in warning for warning in report.warnings()) == told
    assert ("on protected images ran out of them" in report.verdict()) == told


@pytest.mark.parametrize(("stopped", "told"), [("learned", True), ("epochs", False), (None, False)])
def test_clean_images_that_gave_nothing_point_to_all_epochs(stopped: str | None, told: bool) -> None:
    report = make_report(cells=pair(0.13, clean=0.13, stopped=stopped))
    assert report.grade() == "inconclusive"
    assert "too small a score on clean images (0.130, guessing gives 0.130" in report.verdict()
    assert ("stopped early: --all-epochs trains on" in report.verdict()) == told


# ---------------------------------------------------------------------------------------------------------------------
# Mixtures and the other fields


def mixed_report(**settings: Any) -> UnlearnabilityReport:
    cells = pair(0.14)
    for fraction in (0.2, 0.6):
        cells.append(full("a", "protected", 0.8, fraction=fraction))
        cells.append(full("a", "clean_part", 0.75, fraction=fraction))
    return make_report(cells=cells, **settings)


def test_mixtures_are_rows_of_their_own() -> None:
    report = mixed_report()
    assert [(row["data"], row["fraction"]) for row in report.summary()][2:4] == [
        ("protected", 0.2),
        ("clean_part", 0.2),
    ]
    assert set(report["a", "none"]) == {"clean", "protected"}
    assert report["a", "none"]["protected"]["last"] == 0.14
    assert report.grade() == "unlearnable"  # a mixture is no failing of the protection
    lines = report.table().splitlines()
    start = lines.index("partly protected: all images, and the clean ones of them alone")
    assert [line.split() for line in lines[start + 1 : start + 3]] == [
        ["20%", "protected,", "all", "images", "0.800"],
        ["20%", "protected,", "clean", "part", "alone", "0.750"],
    ]


def test_means_of_intervals_and_counts() -> None:
    cells = [full("a", "clean", 0.8), full("a", "clean", 0.9, seed=1, stopped="epochs", early=None)]
    row = make_report(cells=cells)["a", "none"]["clean"]
    assert row["interval"] == pytest.approx([0.75, 0.95])
    assert row["stopped"] == {"learned": 1, "epochs": 1}
    assert (row["early"], row["early_sd"]) == (0.8, None)  # of the seed that has one


def test_whole_report_comes_back(tmp_path: Path) -> None:
    report = mixed_report(
        cost={"ssim": float("nan"), "by_class": {"x": {"psnr": 30.0}, "y": {"psnr": 31.0}}},
        detection={"class_wise": True, "findings": ["a finding"]},
        utility={"agreement": 0.9},
        not_evaluated=[{"countermeasure": "mixup", "reason": "not asked for"}],
        notes=("a note",),
    )
    again = read_report(write_report(report, tmp_path)["json"])
    assert again.to_dict() == report.to_dict()
    assert again.table() == report.table()
    assert json.loads(report.to_json())["schema"] == 2


@pytest.mark.parametrize("broken", [{"last": "high"}, {"scores": 3}, {"interval": 5}])
def test_cells_that_are_no_cells_are_refused(broken: dict[str, Any], tmp_path: Path) -> None:
    values = make_report().to_dict()
    values["cells"][0] |= broken
    (tmp_path / "x.json").write_text(json.dumps(values))
    with pytest.raises(ReportError, match=r"x\.json is not a whole report"):
        read_report(tmp_path / "x.json")


def test_csv_has_the_columns_of_medmnist() -> None:
    cells = pair(0.14)
    cells[0]["scores"] = {"accuracy": 0.9, "auc": 0.97}
    row = next(csv.DictReader(io.StringIO(make_report(cells=cells).to_csv())))
    assert (float(row["AUC"]), float(row["ACC"]), float(row["auc"])) == (0.97, 0.9, 0.97)
    assert (float(row["interval_low"]), row["stopped"], row["undertrained"]) == (0.8, "learned", "False")
    assert "AUC" not in make_report(cells=[{**c, "scores": {"dice": 0.5}} for c in cells]).to_csv()


def test_reports_are_read_without_networks() -> None:
    code = "import sys, monai_salm.report.disk; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------------------------------
# The page


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_every_colour_of_the_scale() -> None:
    colours = [heat_colour(share / 100) for share in range(-20, 140)]
    assert all((luminance(c) + 0.05) / (luminance("#1a1a1a") + 0.05) > 7 for c in colours)  # WCAG 2, level AAA
    assert len(set(colours)) > 80
    reds, blues = ([int(c[i : i + 2], 16) for c in colours] for i in (1, 5))
    # From blue to orange with no way back, so that a colour means one share.
    assert all(a - b <= c - d for (a, b), (c, d) in itertools.pairwise(zip(reds, blues, strict=True)))


def test_heat_map_has_the_number_the_share_and_the_clean_score(tmp_path: Path) -> None:
    cells = [
        *pair(0.14),
        *pair(0.515, "jpeg", clean=0.7, unfiltered=0.6),
        *pair(0.3, "self_training", needs_clean=True),
    ]
    cells += [{**full("a", "protected", 0.1, countermeasure="blur"), "train_score": 0.1}]
    cells += pair(0.12, "resample", clean=0.13)  # nobody learns anything under it
    left_out = [{"countermeasure": "grayscale", "reason": "images have one <channel>"}]
    page = html_of(make_report(cells=cells, not_evaluated=left_out), tmp_path)
    kept = (0.515 - 0.13) / (0.9 - 0.13)
    assert (
        f'<th scope="row">jpeg</th><td style="background:{heat_colour(kept)}"><b>0.515</b><small>keeps 50%, clean 0.700</small>'
        "<small>on unfiltered tests 0.600</small></td>"
    ) in page
    assert '<td class="void"><b>0.100</b><small>* undertrained</small>' in page
    assert '<td class="void"><b>0.120</b><small>proves nothing, clean 0.130</small>' in page
    assert '<th scope="row">images have one &lt;channel&gt;</th>' in page
    assert page.index("has no clean images") < page.index("has a small clean set") < page.index(">self training<")
    assert "by jpeg, on unfiltered test images" in page


def test_page_goes_from_the_verdict_to_the_numbers(tmp_path: Path) -> None:
    report = mixed_report(cost={"ssim": 0.9}, detection={"findings": ["seen"]}, utility={"agreement": 0.9})
    titles = re.findall("<h2>(.*?)</h2>", html_of(report, tmp_path))
    assert titles == [
        "Before you believe the scores",
        "Ordinary pipelines",
        "Scores on clean test images",
        "Partly protected training sets",
        "Training",
        "Images",
        "Detection",
        "What the noise costs the images",
        "Use of protected images",
        "Protocol",
        "Limitations",
        "All numbers",
    ]


def test_findings_are_in_their_section_only(tmp_path: Path) -> None:
    page = html_of(make_report(detection={"findings": ["a probe <sees> it"]}), tmp_path)
    assert page.count("a probe &lt;sees&gt; it") == 1


def test_mixtures_are_a_table(tmp_path: Path) -> None:
    page = html_of(mixed_report(), tmp_path)
    assert '<th scope="row">a</th><td>20%</td><td>0.800</td><td>0.750</td>' in page


def test_values_of_any_kind_are_shown(tmp_path: Path) -> None:
    report = make_report(
        cost={
            "findings": [HOSTILE],
            "ssim": 0.123456,
            "none": None,
            "yes": True,
            "names": ["n"] * 20,
            "numbers": list(range(40)),
            "by_class": {"x": {"psnr": 30.5, "n": 3}, "y": {"psnr": 31.0}},
            "rows": [{"a": 1}, {"a": 2}],
            "psnr": {"mean": 30.0, "lowest": 20.0},
            "l2": {"mean": 3.0, "lowest": 2.0},
            "deep": {"er": {"still": {"and": {"more": {"x": 1}}}}},
            "empty": {},
        }
    )
    shown = html_of(report, tmp_path)
    _Page(shown)
    assert "<script" not in shown
    assert "<dt>ssim</dt><dd>0.1235</dd>" in shown
    assert "<dt>yes</dt><dd>yes</dd>" in shown
    assert "<summary>numbers: 40 values</summary>" in shown
    assert '<th scope="row">x</th><td>30.5</td><td>3</td>' in shown
    assert '<th scope="row">y</th><td>31</td><td></td>' in shown
    assert '<th scope="row">l2</th><td>3</td><td>2</td>' in shown


def test_curves_of_seeds_that_stopped_go_on_with_the_others() -> None:
    cells = [{"curve": [0.2, 0.4]}, {"curve": [0.4, 0.6, 0.8]}, {"curve": []}]
    assert mean_curve(cells, "curve") == pytest.approx([0.3, 0.5, 0.8])
    assert mean_curve([{"curve": [0.2, None]}, {"curve": [0.2, 0.4]}], "curve") == [0.2, None]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 6, 7, 8)])
def test_pages_without_noise_or_with_floats_are_drawn(shape: tuple[int, ...], tmp_path: Path) -> None:
    image = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    image.flat[0] = np.nan
    for protected in (image, image + np.float32(0.01)):
        report = make_report(pictures=[("x", image, protected)], window=(-1.0, 1.0), noise={"linf": None, "psnr": None})
        page = html_of(report, tmp_path)
        _Page(page)
        assert "nan" not in re.sub(r"base64,[^\"]+", "", page).replace("finance", "")


def test_large_pictures_are_thinned_out(tmp_path: Path) -> None:
    image = np.zeros((1, 1200, 700), np.uint8)
    page = html_of(make_report(pictures=[("x", image, image)]), tmp_path)
    found = re.search(r"base64,([^\"]+)", page)
    assert found is not None
    assert Image.open(io.BytesIO(base64.b64decode(found.group(1)))).size == (234, 400)


def test_hundreds_of_victims_make_a_page(tmp_path: Path) -> None:
    cells = [{**c, "seed": seed} for way in map(str, range(20)) for seed in range(10) for c in pair(0.2, way)]
    page = html_of(make_report(cells=cells), tmp_path)
    assert page.count("<tr>") > 400


@pytest.mark.parametrize(
    ("clean", "protected", "grade"),
    [
        ((0.55, 0.60), (0.15, 0.36), "inconclusive"),  # stopped halfway: who knows where it would have ended
        ((0.55, 0.40), (0.15, 0.40), "inconclusive"),  # not even clean images were learned
        ((0.55, 0.60), (0.15, 0.60), "unlearnable"),
        ((0.85, 0.99), (0.15, 0.80), "inconclusive"),
        ((0.85, 0.99), (0.15, 0.95), "unlearnable"),
    ],
)
def test_a_victim_stopped_halfway_proves_nothing(
    clean: tuple[float, float], protected: tuple[float, float], grade: str
) -> None:
    cells = [
        {**cell("a", data, last, seed, train=train), "stopped": "epochs"}
        for data, (last, train) in (("clean", clean), ("protected", protected))
        for seed in range(3)
    ]
    report = make_report(cells=cells, protocol={**make_report().protocol, "width": 0.25})
    assert report.grade() == grade
    assert "at 0.25 of the published width" in report.verdict()
    assert "(3 of 3 on protected images ran out of them)" in report.verdict()


def test_an_unknown_surrogate_is_told_of() -> None:
    assert any("not known which architecture" in warning for warning in make_report().warnings())
    known = make_report(protocol={**make_report().protocol, "surrogate": "resnet18"})
    assert not any("not known which architecture" in warning for warning in known.warnings())


# ---------------------------------------------------------------------------------------------------------------------
# Ordinary pipelines


def by_pipeline(shares: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    """One victim in several pipelines, by its balanced accuracy on protected images (clean 0.9, of two classes)."""
    found = []
    for pipeline, score in shares.items():
        for data, last in (("clean", 0.9), ("protected", score)):
            scores = {"accuracy": last, "balanced_accuracy": last}
            found.append({**full("a", data, last, **changes), "pipeline": pipeline, "scores": scores})
    return found


def ordinary_report(shares: dict[str, float], more: tuple[dict[str, Any], ...] = (), **changes: Any) -> Any:
    cells = [*by_pipeline(shares, **changes), *more]
    return make_report(cells=cells, chance=0.5, majority=0.5, guessing=0.5)


def test_the_verdict_names_the_worst_pipeline_before_the_worst_adversary() -> None:
    adversary = tuple(
        {**full("a", data, last, countermeasure="jpeg"), "scores": {"accuracy": last, "balanced_accuracy": last}}
        for data, last in (("clean", 0.88), ("protected", 0.6))
    )
    report = ordinary_report({"plain": 0.5, "nnunet": 0.54, "resized 0.5": 0.66}, adversary)
    verdict = report.verdict()
    assert (
        "the worst of 3 ordinary pipelines was resized 0.5, which recovered 40 % (a: balanced accuracy 0.660"
        in verdict.replace("%", " %")
    )
    assert "0.900 after clean ones, chance 0.500)" in verdict
    assert verdict.index("resized 0.5") < verdict.index("a with jpeg")
    assert report.grade() == "hard to learn"  # by the pipeline; the adversary kept a quarter
    assert report.to_dict()["worst_pipeline"]["pipeline"] == "resized 0.5"


@pytest.mark.parametrize(
    ("resized", "grade"), [(0.5, "unlearnable"), (0.55, "unlearnable"), (0.6, "hard to learn"), (0.8, "learnable")]
)
def test_a_pipeline_that_recovers_the_images_decides_the_grade(resized: float, grade: str) -> None:
    assert ordinary_report({"plain": 0.5, "resized 0.5": resized}).grade() == grade


def test_the_table_of_pipelines_is_everywhere(tmp_path: Path) -> None:
    report = ordinary_report({"plain": 0.5, "resized 0.5": 0.66})
    rows = report.to_dict()["pipelines"]
    assert [(row["pipeline"], row["data"]) for row in rows] == [
        ("plain", "clean"),
        ("plain", "protected"),
        ("resized 0.5", "clean"),
        ("resized 0.5", "protected"),
    ]
    assert rows[-1]["recovered"] == pytest.approx(0.4)
    assert (rows[-1]["last"], rows[-1]["peak"], rows[-1]["counted"]) == pytest.approx((0.66, 0.71, 0.66))
    assert report.to_dict()["recovered_by"] == {"score": "balanced_accuracy", "guess": 0.5, "guess_by": "chance"}
    text = terminal_text(report.to_dict())
    line = next(line for line in text.splitlines() if line.startswith("a       resized 0.5  protected"))
    assert line.split()[-2:] == ["0.660", "0.40"]
    assert '<th scope="row">a</th><td>resized 0.5</td><td>protected</td>' in html_of(report, tmp_path)
    assert read_report(write_report(report, tmp_path)["json"]).to_dict() == report.to_dict()
    assert [row["pipeline"] for row in csv.DictReader(io.StringIO(report.to_csv()))][-1] == "resized 0.5"


def test_cells_without_a_pipeline_were_trained_plainly() -> None:
    report = make_report()
    assert {cell["pipeline"] for cell in report.cells} == {"plain"}
    assert {row["pipeline"] for row in report.pipelines()} == {"plain"}
    assert "the only ordinary pipeline tried was plain" in report.verdict()


def test_other_pipelines_are_no_adversaries_and_change_no_other_table() -> None:
    alone, both = ordinary_report({"plain": 0.5}), ordinary_report({"plain": 0.5, "resized 0.5": 0.8})
    assert both.table() == alone.table()
    assert both.worst_case() == alone.worst_case()
    assert both["a", "none"] == alone["a", "none"]


def test_a_pipeline_in_which_clean_images_teach_nothing_is_not_counted() -> None:
    report = ordinary_report({"plain": 0.5, "torchvision": 0.5})
    cells = [{**c, "last": 0.5, "train_score": 0.5} if c["pipeline"] == "torchvision" else c for c in report.cells]
    report = make_report(cells=cells, chance=0.5, majority=0.5, guessing=0.5)
    assert report.grade() == "unlearnable"
    assert "not counting torchvision" in report.verdict()
    assert report.pipelines()[-1]["recovered"] is None


def test_a_victim_that_did_not_learn_in_a_pipeline_proves_nothing() -> None:
    cells = ordinary_report({"plain": 0.5, "resized 0.5": 0.5}).cells
    cells[-1]["train_score"] = 0.5
    report = make_report(cells=cells, chance=0.5, majority=0.5, guessing=0.5)
    assert report.grade() == "inconclusive"
    assert "a in the pipeline resized 0.5: the victim is undertrained" in report.verdict()


def test_label_maps_are_counted_from_the_best_constant_map() -> None:
    cells = [
        {**full("unet", d, s), "metric": "dice", "scores": {"dice": s}}
        for d, s in (("clean", 0.8), ("protected", 0.41))
    ]
    report = make_report(metric="dice", cells=cells, chance=0.1, majority=0.0, constant=0.4)
    assert report.pipelines()[-1]["recovered"] == pytest.approx(0.025)
    assert "best constant map 0.400" in report.verdict()
    assert report.grade() == "unlearnable"
