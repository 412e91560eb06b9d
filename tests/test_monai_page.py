"""docs/monai.md shows what the tests run, line by line, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai_samples import make_samples
from monai_table import PAGE, PARTS, page_with, table

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


def test_the_page_holds_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with(table()), "run: python tests/monai_table.py"


def test_every_module_of_the_matrix_is_in_the_page() -> None:
    found = {path.stem for path in Path(__file__).parent.glob("test_monai_*.py")} - {Path(__file__).stem}
    assert found == {part.__name__ for part in PARTS}


def test_no_line_stands_twice_and_none_breaks_a_table() -> None:
    lines = [
        line for line in table().splitlines() if line.startswith("|") and "---" not in line and "what was" not in line
    ]
    assert len(lines) > 80
    assert all(line.count("|") == 4 for line in lines)
    assert len({line.split("|")[1] for line in lines}) >= len(lines) - 3  # the cached classes are in two tables


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lmdb")
    monkeypatch.chdir(tmp_path)
    samples = make_samples(tmp_path)
    names: dict[str, Any] = {"items": samples.originals}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102 - the page is ours
        # Scaled by 1/2000 and perhaps flipped, the noise still shows.
        expected = (samples.values["protected"][0].astype(np.float32) + 1000) / 2000
        found = np.asarray(names["data"][0]["image"])
        assert np.allclose(np.sort(found, axis=None), np.sort(expected, axis=None), atol=1e-6)
    names["data"].close()
