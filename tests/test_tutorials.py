"""The tutorials are stored with all their outputs and pictures, and each runs to its end.

They are run on fewer images and with shorter training than shown (``MONAI_SALM_TUTORIALS=short``, read in their first cells), each in
a kernel of its own, as a reader's notebook server would, and each within ten minutes. Their scores are not looked at: so short, they
mean nothing.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
#: What a whole tutorial may take with the short settings, seconds.
LIMIT = 600
# Of the machine that a tutorial was run on, in what it shows.
_MACHINE = re.compile(r"/(?:tmp|home|root|opt|work|usr|var|Users)/|site-packages")


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in code_cells(path) for output in cell["outputs"]]


def name(path: Path) -> str:
    return path.stem


def test_all_tutorials_are_there() -> None:
    assert [path.stem[0] for path in TUTORIALS] == list("1234567")


def test_the_overview_names_every_tutorial() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    assert re.findall(r"\((\w+\.ipynb)\)", text) == [path.name for path in TUTORIALS]


@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_outputs_are_stored_whole(path: Path) -> None:
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run all cells of a fresh kernel, in order, and save"
    kinds = [output["output_type"] for output in outputs(path)]
    assert "error" not in kinds
    assert all(output.get("name") != "stderr" for output in outputs(path)), "a warning is stored"
    assert sum("image/png" in output.get("data", {}) for output in outputs(path)) >= 2


@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_nothing_of_the_machine_is_stored(path: Path) -> None:
    notebook = read(path)
    texts = [json.dumps({k: v for k, v in cell.items() if k != "outputs"}) for cell in notebook["cells"]]
    for output in outputs(path):
        shown = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        texts += [json.dumps(output.get("text", "")), json.dumps(shown)]
    found = [match.group() for text in texts for match in _MACHINE.finditer(text)]
    assert not found, found
    assert path.stat().st_size < 2**20, "draw with fewer dots per inch"


@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_every_section_teaches(path: Path) -> None:
    cells = read(path)["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert "".join(cells[0]["source"]).startswith(f"# {path.stem[0]}. ")
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= 6
    assert any("MONAI_SALM_TUTORIALS" in "".join(cell["source"]) for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT)
@pytest.mark.filterwarnings("default")  # those of the notebook machinery are not ours; those of the kernel are stderr
@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for needed in ("ipykernel", "matplotlib", "nilearn", "skimage", "pyrage"):
        pytest.importorskip(needed)
    monkeypatch.setenv("MONAI_SALM_TUTORIALS", "short")
    notebook = nbformat.read(path, as_version=4)
    end = time.monotonic() + LIMIT
    client = nbclient.NotebookClient(
        notebook,
        timeout_func=lambda cell: max(1, int(end - time.monotonic())),  # nbclient's limits are of cells: what is left
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "it was not run to its end"
    assert not [output for cell in cells for output in cell.outputs if output["output_type"] == "error"]
