"""BIDS: which images are cases, where labels are found, and a copy that stays valid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import build_bids, random_image, save_json, save_nifti, save_text

from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.bids import Bids, parse_name
from monai_salm.learning.tasks import Classification, Segmentation

T1W = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii.gz",
    "sub-03/ses-a/anat/sub-03_ses-a_T1w.nii.gz",
    "sub-03/ses-b/anat/sub-03_ses-b_T1w.nii.gz",
)


def test_cases_are_the_images_of_one_suffix_with_their_masks(tmp_path: Path) -> None:
    data = detect(build_bids(tmp_path))
    assert isinstance(data, Bids)
    assert data.splits == ("train",)
    assert data.dataset().names == T1W
    assert data.task() == Segmentation(num_classes=2)
    assert data.label_files() == tuple(f"derivatives/manual/{name}".replace("T1w", "label-lesion_mask") for name in T1W)
    assert np.array_equal(data.dataset()[2]["label"][0], random_image(2, dtype="uint8", high=2))


def test_other_images_are_unlisted_and_texts_are_not(tmp_path: Path) -> None:
    data = detect(build_bids(tmp_path))
    others = {name.replace("T1w", "T2w") for name in T1W}
    assert set(data.unlisted()) == others
    save_nifti(tmp_path / "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", random_image(0))
    assert "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz" in data.unlisted()


def test_another_suffix_may_be_chosen_or_is_the_commonest(tmp_path: Path) -> None:
    build_bids(tmp_path)
    data = Bids(tmp_path, "T2w")
    assert data.dataset().names[0] == "sub-01/anat/sub-01_T2w.nii.gz"
    assert data.reopen(tmp_path).dataset().names == data.dataset().names
    with pytest.raises(LayoutError, match="no FLAIR images; it has T1w, T2w"):
        Bids(tmp_path, "FLAIR")
    for name in T1W:
        (tmp_path / name).unlink()
    save_nifti(tmp_path / "sub-01/anat/sub-01_FLAIR.nii.gz", random_image(0))
    assert {name[-10:-7] for name in detect(tmp_path).dataset().names} == {"T2w"}


def test_classes_of_the_participants_are_labels_where_there_are_no_masks(tmp_path: Path) -> None:
    data = detect(build_bids(tmp_path, masks=False))
    assert [case["label"] for case in data.dataset()] == [1, 0, 1, 1]
    assert data.class_names == ("control", "patient")
    assert data.task() == Classification(num_classes=2)
    save_text(tmp_path / "participants.tsv", "participant_id\tgroup\nsub-01\tpatient\nsub-02\tn/a\n")
    assert [case["label"] for case in detect(tmp_path).dataset()] == [0, None, None, None]


@pytest.mark.parametrize(
    "lines",
    [
        ("split", "train", "val", "test"),
        ("is_train\tis_val", "1\t0", "0\t1", "0\t0"),
    ],
)
def test_columns_of_the_participants_may_say_the_split(tmp_path: Path, lines: tuple[str, ...]) -> None:
    build_bids(tmp_path)
    rows = zip(("participant_id", "sub-01", "sub-02", "sub-03"), lines, strict=True)
    save_text(tmp_path / "participants.tsv", "".join(f"{first}\t{second}\n" for first, second in rows))
    data = detect(tmp_path)
    assert {split: data.dataset(split).names for split in data.splits} == {
        "train": T1W[:1], "val": T1W[1:2], "test": T1W[2:]
    }  # fmt: skip


def test_the_segmentation_of_most_images_is_taken(tmp_path: Path) -> None:
    build_bids(tmp_path)
    mask = random_image(9, dtype="uint8", high=3)
    folder = tmp_path / "derivatives/auto/sub-01/anat"
    save_nifti(folder / "sub-01_dseg.nii.gz", mask)
    save_nifti(folder / "sub-01_space-MNI152_dseg.nii.gz", mask)
    save_nifti(folder / "sub-01_desc-brain_mask.nii.gz", mask)
    assert all("manual" in file for file in detect(tmp_path).label_files())
    for name in T1W[1:]:
        save_nifti(tmp_path / "derivatives/auto" / name.replace("T1w", "dseg"), mask)
    assert all("auto" in file and file.endswith("dseg.nii.gz") for file in detect(tmp_path).label_files())
    for name in T1W:
        save_nifti(tmp_path / "derivatives/more" / name.replace("T1w", "dseg"), mask)
    with pytest.raises(LayoutError, match=r"several segmentations of each image .*auto: dseg; .*more: dseg"):
        detect(tmp_path)


def test_runs_and_sessions_have_their_own_masks(tmp_path: Path) -> None:
    build_bids(tmp_path, masks=False)
    for run in (1, 2):
        save_nifti(tmp_path / f"sub-01/anat/sub-01_acq-hi_run-{run}_T1w.nii.gz", random_image(run))
    save_nifti(
        tmp_path / "derivatives/m/sub-01/anat/sub-01_acq-hi_run-2_dseg.nii.gz", random_image(0, dtype="uint8", high=2)
    )
    labels = {case["name"]: case["label"] is not None for case in detect(tmp_path).dataset()}
    assert [name for name, has in labels.items() if has] == ["sub-01/anat/sub-01_acq-hi_run-2_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("before", "kind", "entries"),
    [
        ({}, "raw", []),
        ({"DatasetType": "raw"}, "raw", []),
        ({"DatasetType": "derivative", "GeneratedBy": [{"Name": "x"}]}, "derivative", [{"Name": "x"}]),
        ({"GeneratedBy": [{"Name": "x"}]}, "derivative", [{"Name": "x"}]),
    ],
)
def test_the_copy_says_what_was_done_to_it(
    tmp_path: Path, before: dict[str, Any], kind: str, entries: list[Any]
) -> None:
    data = detect(build_bids(tmp_path, {"Name": "Größe", "BIDSVersion": "1.9.0", **before}))
    assert data.manifest == "code/monai_salm.json"
    (file, content), *more = data.rewritten_files().items()
    assert (file, more) == ("dataset_description.json", [])
    read = json.loads(content)
    assert list(read)[:2] == ["Name", "BIDSVersion"]
    assert (read["Name"], read["DatasetType"]) == ("Größe", kind)
    assert read["GeneratedBy"][:-1] == entries
    assert set(read["GeneratedBy"][-1]) == {"Name", "Description"}  # a version would fail verify with the next one
    assert read["GeneratedBy"][-1]["Name"] == "monai_salm"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: save_json(root / "dataset_description.json", []), "must hold a JSON object"),
        (
            lambda root: save_text(root / "dataset_description.json", '{"Name": "\\ud800"}'),
            "not valid JSON.*surrogates",
        ),
        (lambda root: [(root / name).unlink() for name in root.rglob("*.nii.gz")], "no images named as BIDS asks"),
        (
            lambda root: save_text(root / "participants.tsv", "participant_id\nsub-01\nsub-01\n"),
            "line 3 lists '01' again",
        ),
        (lambda root: save_text(root / "participants.tsv", "name\nsub-01\n"), "line 2 has no participant_id"),
        (
            lambda root: save_text(root / "participants.tsv", "participant_id\tsplit\nsub-01\tx\n"),
            "line 2, .*'x' is no split",
        ),
        (
            lambda root: save_text(root / "participants.tsv", "participant_id\tsplit\nsub-01\ttrain\n"),
            "no line for sub-02",
        ),
        (
            lambda root: save_text(
                root / "participants.tsv", "participant_id\tset\n" + "".join(f"sub-0{i}\ttest\n" for i in (1, 2, 3))
            ),
            "no subject with a T1w image into the training split",
        ),
        (lambda root: save_text(root / "participants.tsv", "participant_id\tgroup\nsub-01\n"), "line 2: 1 columns"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(build_bids(tmp_path))
    with pytest.raises(LayoutError, match=reason) as caught:
        open_layout(tmp_path, "bids")
    assert str(tmp_path) in str(caught.value)


def test_generated_by_must_be_a_list(tmp_path: Path) -> None:
    data = detect(build_bids(tmp_path, {"Name": "x", "BIDSVersion": "1.9.0", "GeneratedBy": 3}))
    with pytest.raises(LayoutError, match="GeneratedBy must be a list"):
        data.rewritten_files()
    (tmp_path / "plain").mkdir()
    with pytest.raises(LayoutError, match=r"no dataset_description\.json"):
        open_layout(tmp_path / "plain", "bids")


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root = build_bids(tmp_path / "data")
    secret = save_nifti(tmp_path / "secret.nii.gz", random_image(0))
    os.symlink(secret, root / "sub-01/anat/sub-01_acq-x_T1w.nii.gz")
    with pytest.raises(LayoutError, match="leads out"):
        detect(root)


@pytest.mark.parametrize(
    ("file", "entities"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", {"sub": "01"}),
        ("sub-01/ses-x/anat/sub-01_ses-x_acq-hi_run-2_bold.nii", {"sub": "01", "ses": "x", "acq": "hi", "run": "2"}),
        ("derivatives/sub-1/sub-1_label-a_mask.nii.gz", {"sub": "1", "label": "a"}),
        ("derivatives/p/sub-1/sub-1_dseg.nii.gz", {"sub": "1"}),
        ("sub-01/anat/sub-02_T1w.nii.gz", None),
        ("sub-01/anat/sub-01_what is this_T1w.nii.gz", None),
        ("sub-01/anat/T1w.nii.gz", None),
        ("sub-01/anat/sub-01_T1w.json", None),
        ("sourcedata/sub-01/anat/sub-01_T1w.nii.gz", None),
        ("sub-01_T1w.nii.gz", None),
        ("derivatives/x.nii.gz", None),
        ("sub-01/anat/sub-01_sub-01_T1w.nii.gz", None),
    ],
)
def test_names_are_taken_apart(file: str, entities: dict[str, str] | None) -> None:
    found = parse_name(file)
    assert (found.entities if found else None) == entities


def validate(root: Path, program: str) -> list[tuple[str, str]]:
    """The errors of the BIDS validator, as (code, file)."""
    command = [program, str(root), "--json", "--ignoreNiftiHeaders"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [(issue["code"], issue.get("location", "")) for issue in issues if issue.get("severity") == "error"]


@pytest.mark.parametrize("description", [{}, {"DatasetType": "raw"}])
def test_the_validator_is_as_content_with_the_copy(tmp_path: Path, description: dict[str, str]) -> None:
    """Runs where BIDS_VALIDATOR names the program of ``pip install bids-validator-deno``, or PATH has it."""
    program = os.environ.get("BIDS_VALIDATOR") or shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    data = detect(build_bids(tmp_path / "data", {"Name": "Sample", "BIDSVersion": "1.9.0", **description}))
    copy = tmp_path / "copy"
    shutil.copytree(data.root, copy)
    for unit in data.stored_images():
        unit.write(data.root, copy, unit.read(data.root) + np.int16(1))
    for file, content in data.rewritten_files().items():
        (copy / file).write_bytes(content)
    save_json(copy / data.manifest, {})
    assert validate(data.root, program) == []
    assert validate(copy, program) == []
    assert detect(copy).dataset().names == data.dataset().names
