"""The figures of docs/epsilon.md are what the package makes of the settings."""

from __future__ import annotations

import contextlib
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest

from monai_salm import ChannelWindows, FixedWindow, PercentileWindow
from monai_salm.cli.readers import window as read_window
from monai_salm.noise.budget import budget_of
from monai_salm.noise.units import Units

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
    assert width == high - low
    image = np.random.default_rng(0).integers(int(low), int(high) + 1, (1, 32, 32)).astype("int16")
    for levels, change in zip((4, 8, 16), changes, strict=True):
        epsilon = levels / 255
        assert change == pytest.approx(epsilon * width, abs=0.051)
        budget = budget_of(image, FixedWindow(low, high), Units(), epsilon)
        assert budget.grid.max_codes == (math.floor(epsilon * width + 1e-6),)


def test_a_file_of_whole_numbers_holds_12_of_12_5_hu_whatever_its_intercept() -> None:
    hu = np.random.default_rng(0).integers(-500, 500, (1, 32, 32))
    for intercept in (0, -1024):
        stored = (hu - intercept).astype("int16")
        budget = budget_of(stored, FixedWindow(-160, 240), Units(intercept=intercept), 8 / 255)
        assert budget.grid.max_codes == (12,)
        assert [budget.units.real(end, 0) for end in (budget.window.low, budget.window.high)] == [-160, 240]


def test_the_rules_of_the_table_are_those_of_the_command_line() -> None:
    rules = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", GUIDE, flags=re.MULTILINE)
    names = {"FixedWindow": FixedWindow, "PercentileWindow": PercentileWindow, "ChannelWindows": ChannelWindows}
    assert len(rules) == 3
    for text, code in rules:
        assert read_window(text) == eval(code, names), text  # noqa: S307 - the guide is ours


def test_the_peak_ratios() -> None:
    for levels, ratio in ((4, "36.1 dB at 4/255"), (8, "30.1 dB at 8/255"), (16, "24.0 dB at 16/255")):
        assert f"{-20 * math.log10(levels / 255):.1f} dB at {levels}/255" == ratio
        assert ratio in " ".join(GUIDE.split())
    assert -10 * math.log10(0.4) == pytest.approx(4, abs=0.05)


def test_the_code_prints_what_its_comments_say() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "epsilon.md", "exec"), {})  # noqa: S102 - the guide is ours
    assert shown.getvalue().splitlines() == re.findall(r"print\(.*\)  # (.+)", code)
