"""The code of docs/monai.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai_samples import make_samples

PAGE = Path(__file__).resolve().parents[1] / "docs" / "monai.md"

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


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
