"""Everything the README shows runs, on a small data set and with a short schedule."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import classification_cases

from monai_salm import Classification, ClassTexture, FixedWindow
from monai_salm.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# Shorter than shown, so that the test takes seconds: what is shown -> what is run.
SHORTER = {
    "mask_ratio=0.5)": 'mask_ratio=0.5, perturbation=ClassTexture(surrogate_steps=2)), surrogate="resnet10", width=0.05',
    'victims=("resnet18", "vgg11"),': 'victims=("resnet10", "vgg11"), epochs=1,',
    "seeds=(0, 1, 2)": "seeds=(0,)",
    "--epsilon 8/255": "--epsilon 8/255 --surrogate-steps 2 --surrogate resnet10 --width 0.05",
    "--victims resnet18,vgg11": "--victims resnet10,vgg11 --epochs 1 --pipelines plain",
    "--seeds 0,1,2": "--seeds 0",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def shortened(text: str) -> str:
    for shown, run in SHORTER.items():
        text = text.replace(shown, run)
    return text


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datalist of small labelled volumes, in the folder that the README's commands run in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    listing: dict[str, list[dict[str, object]]] = {"training": [], "test": []}
    (tmp_path / "scans").mkdir()
    for split, count in (("training", 6), ("test", 4)):
        for index in range(count):
            name = f"{split}_{index}.nii.gz"
            volume = rng.integers(0, 256, (12, 12, 12)).astype(np.uint8)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scans" / name)
            listing[split].append({"image": f"./{name}", "label": index % 2})
    (tmp_path / "scans" / "dataset.json").write_text(json.dumps(listing))
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*nvImageCodec:UserWarning")
def test_readme_runs(scans: Path) -> None:
    text = "\n".join(shortened(block) for block in blocks("python"))
    assert all(shown in README for shown in SHORTER), "the README no longer shows what this test shortens"
    namespace: dict[str, object] = {"ClassTexture": ClassTexture}
    exec(compile(text, "README.md", "exec"), namespace)  # noqa: S102 - the README is ours
    loaded = namespace["load"]({"image": str(scans / "scans" / "training_0.nii.gz")})["image"]  # type: ignore[operator]
    published = np.asarray(nib.load(scans / "scans_protected" / "training_0.nii.gz").dataobj)
    store = namespace["store"]
    from monai_salm import SALMProtect

    in_loader = np.asarray(SALMProtect(store)(loaded))[0]
    np.testing.assert_array_equal(in_loader, published)
    assert (in_loader != np.asarray(loaded)[0]).any()
    assert namespace["report"].noise["linf"] > 0  # type: ignore[attr-defined]
    assert (scans / "report.html").stat().st_size > 1000


def test_readme_commands_run(scans: Path) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("monai-salm ")]
    assert len(lines) == 6
    for line in lines:
        with pytest.raises(SystemExit) as end:
            app(shlex.split(shortened(line), comments=True)[1:])
        assert not end.value.code, line
    for index in range(6):
        name = f"training_{index}.nii.gz"
        restored = (scans / "scans_restored" / name, scans / "scans" / name, scans / "scans_public" / name)
        arrays = [np.asarray(nib.load(path).dataobj) for path in restored]
        np.testing.assert_array_equal(arrays[0], arrays[1])
        assert (arrays[2] != arrays[1]).any()


def test_the_evaluation_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    shorter = {
        '("resnet18", "vgg11")': '("resnet10", "resnet18"), epochs=1, width=0.05',
        "(0, 1)": "(0,)",
        "jobs=2": "jobs=1",
    }
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    for shown, run in shorter.items():
        assert shown in code
        code = code.replace(shown, run)
    clean = classification_cases(cases=24)
    names: dict[str, object] = {
        "clean": clean,
        "published": [{**case, "image": case["image"] ^ 1} for case in clean],
        "test": classification_cases(cases=8, seed=1),
        "task": Classification(num_classes=2),
        "window": FixedWindow(0, 255),
    }
    exec(compile(code, "evaluation.md", "exec"), names)  # noqa: S102
    assert len(names["frame"]) == len(names["report"].cells)  # type: ignore[arg-type, attr-defined]
    assert {path.name for path in tmp_path.iterdir()} >= {"report.json", "report.csv", "report.html", "cells.jsonl"}
