"""The figures of docs/epsilon.md are what the package makes of the settings."""

from __future__ import annotations

import contextlib
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest

from monai_salm.intensity import IntensityWindow, make_grid
from monai_salm.suspicions import Suspicions
from monai_salm.tasks import Classification

GUIDE = (Path(__file__).parents[1] / "docs" / "epsilon.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (.+?) \| (-?\d+) to (\d+)(?: HU)? \| (\d+) \| ([\d.]+)(?: HU)? \| ([\d.]+)(?: HU)? \| ([\d.]+)(?: HU)? \|$",
    GUIDE,
    flags=re.MULTILINE,
)


def test_every_row_of_the_table_is_read() -> None:
    table = re.search(r"^\| Images.*?\n\n", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert table is not None
    assert len(ROWS) == len(table[0].strip().splitlines()) - 2 >= 8


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_figures_of_a_modality(row: tuple[str, ...]) -> None:
    low, high, width, *changes = map(float, row[1:])
    window = IntensityWindow(low, high)
    assert window.width == width
    for levels, change in zip((4, 8, 16), changes, strict=True):
        epsilon = levels / 255
        assert change == pytest.approx(epsilon * width, abs=0.051)
        grid = make_grid("int16", window, epsilon)
        assert grid.max_code * grid.quantum <= epsilon * width + 1e-6
        assert grid.max_code == math.floor(epsilon * width + 1e-6)


def test_a_file_of_whole_numbers_holds_12_of_12_5_hu() -> None:
    assert make_grid("int16", IntensityWindow(-160, 240), 8 / 255).max_code == 12


def test_the_peak_ratios() -> None:
    for levels, ratio in ((4, "36.1 dB at 4/255"), (8, "30.1 dB at 8/255"), (16, "24.0 dB at 16/255")):
        assert f"{-20 * math.log10(levels / 255):.1f} dB at {levels}/255" == ratio
        assert ratio in " ".join(GUIDE.split())


def test_the_code_prints_what_its_comments_say() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "epsilon.md", "exec"), {})  # noqa: S102 - the guide is ours
    assert shown.getvalue().splitlines() == re.findall(r"print\(.*\)  # (.+)", code)


def test_the_range_of_the_type_is_warned_of_where_noise_is_seen_in_dark_images() -> None:
    watch = Suspicions(Classification(num_classes=2), IntensityWindow(0, 65535), 8 / 255)
    for label in (0, 1):
        watch.watch(np.array([[[0, 4095]]], np.uint16), np.array(label))
    with pytest.warns(UserWarning, match="noise of up to 2.06e.03 is seen"):
        assert watch.verdict() is None
