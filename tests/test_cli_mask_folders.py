"""Mask folders and patterns at the command line: plan, protect, verify and restore, without a layout's name where it is certain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import random_image, save_nifti, save_png
from PIL import Image
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.layouts import open_layout

FAST = ("--method", "random_noise", "--device", "cpu")
GLOBS = ("--image-glob", "*/{t1,t2}.nii.gz", "--label-glob", "*/wmh.nii.gz")


def save_map(path: Path, seed: int) -> None:
    label = random_image(seed, dtype="uint8", high=3)
    label.flat[:3] = (0, 1, 2)
    if path.name.endswith(".nii.gz"):
        save_nifti(path, label)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(label[:, :, 0] > 0, np.ones((2, 2), "uint8"))[:8, :7].astype("uint8") * 255).save(path)


def masks_beside(root: Path) -> None:
    for number in range(4):
        save_png(root / f"lesion_{number}.png", number)
        save_map(root / f"lesion_{number}_mask.png", number)


def folders_of_patients(root: Path) -> None:
    for number in range(3):
        save_nifti(root / f"case_0000{number}/imaging.nii.gz", random_image(number))
        save_map(root / f"case_0000{number}/segmentation.nii.gz", number)


def images_and_masks(root: Path) -> None:
    for split in ("train", "test"):
        for number in range(3):
            save_png(root / split / "images" / f"{number}.png", number + 10 * len(split))
            save_map(root / split / "masks" / f"{number}.png", number)


def untold(root: Path) -> None:
    for number in range(3):
        for channel in ("t1", "t2"):
            save_nifti(root / f"p{number}/{channel}.nii.gz", random_image(10 * number + len(channel) + ord(channel[1])))
        save_map(root / f"p{number}/wmh.nii.gz", number)


def run(*arguments: object, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    ("build", "options", "cases", "masks"),
    [
        (masks_beside, (), 4, "*_mask.png"),
        (folders_of_patients, (), 3, "*/segmentation.nii.gz"),
        (images_and_masks, (), 3, "*/masks/*.png"),
        (untold, GLOBS, 3, "*/wmh.nii.gz"),
    ],
)
def test_there_and_back(tmp_path: Path, build: Any, options: Sequence[str], cases: int, masks: str) -> None:
    root, out, back = tmp_path / "set", tmp_path / "out", tmp_path / "back"
    build(root)
    planned = run("plan", root, *FAST, *options)
    assert (planned["ok"], planned["task"]["kind"], planned["protected"]) == (True, "segmentation", cases)
    assert set(planned["classes"]["train"].values()) == {cases}
    made = run("protect", root, out, *FAST, *options)
    assert (made["cases"], made["failed"], made["not_copied"]) == (cases, {}, {})
    assert run("verify", root, out, "--store", made["store"], *options)["checked"] == cases
    maps = sorted(root.glob(masks))
    assert maps
    for file in maps:
        assert (out / file.relative_to(root)).read_bytes() == file.read_bytes()
    run("restore", out, back, "--store", made["store"])  # the manifest says which files are images
    layout = f"{options[1]} -> {options[3]}" if options else None
    before, copy, after = (open_layout(folder, layout).dataset() for folder in (root, out, back))
    for index in range(cases):
        assert np.array_equal(before[index]["image"], after[index]["image"])
        assert not np.array_equal(before[index]["image"], copy[index]["image"])
    assert run("info", root, *options)["classes"] == planned["classes"]


def test_patterns_are_asked_for_where_files_do_not_tell(tmp_path: Path) -> None:
    untold(tmp_path)
    result = CliRunner().invoke(app, ["plan", str(tmp_path)])
    assert result.exit_code == 1
    assert "--image-glob" in result.stderr
    assert "--label-glob" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--image-glob", "*/t1.nii.gz"), "give both --image-glob and --label-glob"),
        (("--label-glob", "*/wmh.nii.gz"), "give both --image-glob and --label-glob"),
        ((*GLOBS, "--layout", "image_folder"), "leave out --layout image_folder"),
        (("--image-glob", "*/x.nii.gz", "--label-glob", "*/wmh.nii.gz"), "no image is named '*/x.nii.gz'"),
        (("--image-glob", "*/t1.nii.gz", "--label-glob", "x/*"), "no label map is named 'x/*'"),
        (("--image-glob", "*/{t1,t2.nii.gz", "--label-glob", "*/wmh.nii.gz"), "no image is named"),
    ],
)
def test_wrong_patterns_are_told(tmp_path: Path, options: Sequence[str], told: str) -> None:
    untold(tmp_path)
    for verb in ("plan", "info"):
        result = CliRunner().invoke(app, [verb, str(tmp_path), *options])
        assert result.exit_code in (1, 2)
        assert told in " ".join(result.stderr.replace("│", " ").split())
        assert "Traceback" not in result.output


def test_another_label_map_of_a_case_is_no_image(tmp_path: Path) -> None:
    """What neither pattern names is no case; a label map by its name is copied, anything else is listed."""
    untold(tmp_path / "set")
    for number in range(3):
        save_map(tmp_path / "set" / f"p{number}/brain_mask.nii.gz", number + 5)
        save_nifti(tmp_path / "set" / f"p{number}/pd.nii.gz", random_image(77 + number))
    made = run("protect", tmp_path / "set", tmp_path / "out", *FAST, *GLOBS)
    assert sorted(made["not_copied"]) == [f"p{number}/pd.nii.gz" for number in range(3)]
    assert (tmp_path / "out/p0/brain_mask.nii.gz").is_file()
