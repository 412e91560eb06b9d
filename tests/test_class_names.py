"""Classes are called by their names, with the number of their images, by every verb that looks at a data set."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import (
    build_bids,
    build_csv,
    build_datalist,
    build_decathlon,
    build_dicom_tree,
    build_image_folder,
    build_nnunet,
    save_archive,
    save_json,
    save_nifti,
    save_png,
)
from reports import make_report
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.cli.listing import class_lines
from monai_salm.layouts import detect
from monai_salm.publishing.copy_records import classes_of
from monai_salm.report.terminal import terminal_text
from monai_salm.store.store import NoiseStore

FAST = ("--method", "random_noise", "--device", "cpu")


def archive(root: Path) -> Path:
    return save_archive(root / "set.npz", (8, 8))


def archive_of_findings(root: Path) -> Path:
    return save_archive(root / "set.npz", (8, 8), labels=[[0, 1], [1, 1], [0, 0], [1, 1]])


def table_of_text(root: Path) -> Path:
    build_csv(root, ["image,dx", "a,nevus", "b,melanoma", "c,nevus"])
    return root


def table_of_answers(root: Path) -> Path:
    build_csv(root, ["image,Mass,Effusion", "a,1,1", "b,0,0", "c,1,"])
    return root


def table_of_findings(root: Path) -> Path:
    build_csv(root, ["image,finding_labels", "a,Mass|Edema", "b,Edema", "c,Clear"])
    return root


def folders_of_splits(root: Path) -> Path:
    return build_image_folder(root, splits=("train", "val"))


def one_bad_image(root: Path) -> Path:
    (build_datalist(root) / "labelsTr/c0.nii.gz").write_text("x")
    return root


def organs(root: Path) -> Path:
    for number in range(3):
        save_nifti(root / f"s{number}/ct.nii.gz", np.random.default_rng(number).integers(0, 9, (6, 5, 4), "int16"))
        for organ in ("liver", "spleen")[: 1 + (number > 0)]:
            label = np.zeros((6, 5, 4), "uint8")
            label[1:3] = 1 if organ == "liver" else 0
            label[4:] = organ == "spleen"
            save_nifti(root / f"s{number}/segmentations/{organ}.nii.gz", label)
    return root


def dicom(root: Path) -> Path:
    pytest.importorskip("pydicom")
    return build_dicom_tree(root)


NAMES = {"background": 3, "liver": 3, "tumour": 3, "vessel": 0}


@pytest.mark.parametrize(
    ("build", "classes"),
    [
        (archive, {"train": {"0": 2, "1": 1, "2": 1}, "val": {"0": 1, "1": 1, "2": 0}}),
        (archive_of_findings, {"train": {"0": 2, "1": 3}}),
        (build_image_folder, {"train": {"bad": 2, "ok": 2}}),
        (folders_of_splits, {"train": {"bad": 2, "ok": 2}, "val": {"bad": 2, "ok": 2}}),
        (table_of_text, {"train": {"melanoma": 1, "nevus": 2}}),
        (table_of_answers, {"train": {"Mass": 2, "Effusion": 1}}),
        (table_of_findings, {"train": {"Clear": 1, "Edema": 2, "Mass": 1}}),
        (build_datalist, {"train": NAMES, "val": {**dict.fromkeys(NAMES, 1), "vessel": 0}}),
        (one_bad_image, {"train": {**dict.fromkeys(NAMES, 2), "vessel": 0}}),
        (build_decathlon, {"train": {"background": 2, "edema": 2, "tumour": 2}}),
        (build_nnunet, {"train": {"background": 3, "kidney": 3, "tumour": 3, "cyst": 3}}),
        (organs, {"train": {"background": 3, "liver": 3, "spleen": 2}}),
        (dicom, {"train": {"bad": 1, "ok": 2}}),
        (lambda root: build_bids(root, masks=False), {"train": {"control": 1, "patient": 3}}),
    ],
)
def test_every_layout_knows_its_classes(
    tmp_path: Path, build: Callable[[Path], Path], classes: dict[str, dict[str, int]]
) -> None:
    found = detect(build(tmp_path)).classes()
    assert {split: found[split] for split in classes} == classes


def test_labels_of_regions_and_labels_of_one_name_are_told_apart(tmp_path: Path) -> None:
    build_nnunet(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["labels"] = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    save_json(tmp_path / "dataset.json", content)
    assert list(detect(tmp_path).classes()["train"]) == ["background", "1 of whole", "2 of core", "enhancing"]
    build_datalist(tmp_path / "list")
    content = json.loads((tmp_path / "list/dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "node", "3": "node"}
    save_json(tmp_path / "list/dataset.json", content)
    assert list(detect(tmp_path / "list").classes()["train"]) == ["background", "node (1)", "2", "node (3)"]


def run(*arguments: object) -> tuple[str, dict[str, Any]]:
    """What a verb prints, and what it prints with --json."""
    shown, data = (CliRunner().invoke(app, [*map(str, arguments), *more]) for more in ((), ("--json",)))
    assert (shown.exit_code, data.exit_code) == (0, 0), shown.output
    return shown.stdout, json.loads(data.stdout)


def test_the_verbs_say_names_and_counts(tmp_path: Path) -> None:
    root, out = build_image_folder(tmp_path / "set", splits=("train", "test")), tmp_path / "out"
    classes, line = {"bad": 2, "ok": 2}, "Images of each class in train: bad 2, ok 2\n"
    for arguments in (
        ("plan", root, *FAST),
        ("protect", root, out, *FAST),
        ("info", root),
        ("info", f"{out}.noise.db"),
    ):
        text, data = run(*arguments)
        assert line in text
        assert data["classes"] == {"train": classes, "test": classes}
    text, data = run("info", build_nnunet(tmp_path / "voxels"))
    assert "Images with each class in train: kidney 3, tumour 3, cyst 3\n" in text


def test_a_store_without_classes_opens(tmp_path: Path) -> None:
    """As one does that was made before, or through ``precompute``."""
    run("protect", build_image_folder(tmp_path / "set"), tmp_path / "out", *FAST)
    store = NoiseStore(tmp_path / "out.noise.db")
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM record")
    assert classes_of(store) == {}
    text, data = run("info", store.path)
    assert data["classes"] == {}
    assert "each class" not in text


def test_of_many_classes_the_first_are_shown(tmp_path: Path) -> None:
    for number in range(30):
        for image in range(2):
            save_png(tmp_path / f"kind{chr(97 + number // 10)}{number}" / f"{image}.png", 2 * number + image)
    text, data = run("info", tmp_path, "--layout", "image_folder")
    assert len(data["classes"]["train"]) == 30
    assert text.rstrip().endswith("kindb11 2, and 18 more of 30 classes")
    assert class_lines({}, {}) == []


def test_a_report_calls_classes_by_their_names() -> None:
    rows = {"0": {"psnr": 30.5, "cases": 3}, "1": {"psnr": 31.0, "cases": 4}}
    report = replace(
        make_report(), cost={"by_class": rows}, utility={"per_class": rows}, classes={"train": {"x": 3, "é": 4}}
    )
    values = report.to_dict()
    assert values["classes"] == {"train": {"x": 3, "é": 4}}
    assert values["cost"]["by_class"]["1"] == {"name": "é", **rows["1"]}
    assert values["utility"]["per_class"]["0"] == {"name": "x", **rows["0"]}
    cells = [{**cell, "scores": {"dice_0": 0.1, "dice_1": 0.5}} for cell in report.cells]
    assert "dice, é (last epoch)" in terminal_text(replace(report, cells=cells).to_dict())
    assert replace(report, classes={}).to_dict()["cost"]["by_class"] == rows
