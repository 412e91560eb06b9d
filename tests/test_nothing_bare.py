"""Nothing bare: what lies beside the images is copied only if it is known to be harmless, and a copy shows no protected image."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from layout_samples import (
    SR_STORAGE,
    build_bids,
    build_datalist,
    build_dicom_tree,
    build_image_folder,
    random_image,
    refer_to,
    save_dicom,
    save_json,
    save_nifti,
    save_png,
    save_text,
)
from PIL import Image
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.layouts import LayoutError, detect
from monai_salm.layouts.folder import FolderLayout
from monai_salm.publishing.other_files import other_files
from monai_salm.publishing.searching import fingerprints

FAST = ("--method", "random_noise", "--device", "cpu")


def run(verb: str, *arguments: object, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [verb, *map(str, arguments), "--json"])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return json.loads(result.stdout) if result.stdout else {}


def protected(root: Path, *options: str, code: int = 0) -> tuple[dict[str, Any], set[str]]:
    """Protect a data set, after ``plan`` has said the same; what was said, and the files of the copy."""
    plan = run("plan", root, *FAST, *options, code=code)
    out = root.with_name("out")
    said = run("protect", root, out, *FAST, *options, code=code)
    assert said["problems"] == []
    assert set(said["failed"]) == set(plan["refused"])
    assert set(said["not_copied"]) == set(plan["not_copied"])
    run("verify", root, out, "--store", f"{out}.noise.db", code=code)
    back = root.with_name("back")
    run("restore", out, back, "--store", f"{out}.noise.db")
    copied = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    for file in copied - {"monai_salm.json", "code/monai_salm.json"} - images(root):
        assert (back / file).read_bytes() == (root / file).read_bytes(), file
    return said, copied


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_image_folder(tmp_path / "set")
    return tmp_path / "set"


def images(root: Path) -> set[str]:
    data = detect(root)
    return set(data.image_files(data.splits))


LEFTOVERS = (
    ".git/objects/17/06", ".git/lfs/objects/13/7e/x", ".hg/store/data", ".svn/pristine/a", ".dvc/cache/aa/bb", ".datalad/config",
    "ok/@eaDir/ok0.png/THUMB.jpg", "ok/Thumbs.db", "ok/ok0.png~", "ok/ok0.png.bak", "ok/.ok0.png.swp", "ok0.png.orig",
    "ok/.ipynb_checkpoints/ok0-checkpoint.png", "__MACOSX/ok/._ok0.png", "ok/.DS_Store", "$RECYCLE.BIN/x.png", ".cache/x.png",
    "DICOMDIR", "AUTORUN.INF", "desktop.ini",
)  # fmt: skip


def test_what_programs_leave_is_never_copied_and_listed(folder: Path) -> None:
    for place in LEFTOVERS:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "ok/ok0.png", folder / place)
    said, copied = protected(folder)
    assert copied == {*images(folder), "monai_salm.json"}
    for place in LEFTOVERS:
        assert any(place.startswith(name) for name in said["not_copied"]), place
    assert detect(folder).class_names == detect(folder.with_name("out")).class_names == ("bad", "ok")
    assert not list(folder.with_name("out").rglob("*git*"))


HARMLESS = {
    "README": b"x", "LICENSE.md": b"x", "notes/labels.csv": b"a,b\n1,2\n", "meta.tsv": b"a\tb\n", "info.json": b"{}", "x.bval": b"0 1",
    "windows.txt": "Zürich, “left”".encode("cp1252"), "Citation": b"a\x0cb\r\n",
    "utf16.csv": "ä,b\n".encode("utf-16"), ".gitattributes": b"*.png binary\n", "empty.txt": b"",
}  # fmt: skip


def test_texts_and_tables_are_copied(folder: Path) -> None:
    for name, content in HARMLESS.items():
        save_text(folder / name, "")
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "table.xlsx", "w") as table:
        table.writestr("xl/worksheets/sheet1.xml", "<x/>")
    said, copied = protected(folder)
    assert copied == {*images(folder), *HARMLESS, "table.xlsx", "monai_salm.json"}
    assert said["not_copied"] == {}


def spoiled(folder: Path) -> dict[str, str]:
    """Files that must not be copied -> a word of the reason."""
    picture = (folder / "ok/ok0.png").read_bytes()
    for name in ("images.zip", "notes/set.tar.gz", "model.pt", "report.pdf", "noise.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\1" + picture)
    save_png(folder / "stray.png", 7)
    shutil.copy(folder / "ok/ok0.png", folder / "picture.without_suffix")
    dump = np.random.default_rng(0).integers(32, 127, 9000, "uint8").tobytes()
    for name, rest in {
        "dark.dat": b"\1",
        "bright.txt": bytes(range(128, 256)) * 99,
        "cut.lst": b"\0",
        "README.pdf": b"",
    }.items():
        (folder / name).write_bytes(dump + rest)
    (folder / "wide.lst").write_bytes("a,b".encode("utf-16") + b"\1\0\0\xd8")
    text = base64.b64encode(np.random.default_rng(0).bytes(400)).decode()
    save_json(folder / "notes/labelme.json", {"imageData": "iVBORw0KGgo" + text})
    with zipfile.ZipFile(folder / "table.xlsx", "w") as table:
        table.writestr("xl/media/image1.png", picture)
    (folder / "table.xls").write_bytes(bytes(600) + picture)
    (folder / "old.bmp").write_bytes(b"BM")
    return {
        "images.zip": "archive", "notes/set.tar.gz": "archive", "model.pt": "harmless", "report.pdf": "harmless",
        "noise.txt": "no text", **dict.fromkeys(("dark.dat", "bright.txt", "cut.lst", "wide.lst"), "no text"),
        "README.pdf": "harmless",
        "stray.png": "no split lists", "picture.without_suffix": "no split lists", "notes/labelme.json": "picture",
        "table.xlsx": "picture", "table.xls": "picture", "old.bmp": "no split lists",
    }  # fmt: skip


def texts_with_pixels(picture: bytes) -> dict[str, bytes]:
    """Texts that hold an image as numbers or as base64, in the ways that programs write them."""
    grey = np.random.default_rng(3).integers(0, 255, (4, 28, 28))
    flat = [image.ravel().tolist() for image in grey]
    coded, raw = base64.b64encode(picture).decode(), grey[0].astype("uint8").tobytes()
    lines = "\n".join(",".join(map(str, row)) for row in flat)
    return {
        "rows.csv": (",".join(f"pixel{i:04d}" for i in range(784)) + ",label\n" + lines.replace("\n", ",1\n")).encode(),
        "floats.tsv": "\n".join("\t".join(f"{value / 255:.6f}" for value in row) for row in flat).encode(),
        "cells.csv": f"id,pixels\n7,\"{' '.join(map(str, flat[0]))}\"\n".encode(),
        "matrix.txt": "\n".join(" ".join(map(str, row)) for row in grey[0].tolist()).encode(),
        "flat.json": json.dumps({"pixels": flat[0]}).encode(),
        "nested.json": json.dumps(grey[0].tolist(), indent=1).encode(),
        "colour.json": json.dumps({"image": grey[:3].transpose(1, 2, 0).tolist()}).encode(),
        "list.yaml": ("data:\n" + "\n".join(f"- {value}" for value in flat[0])).encode(),
        "cv.xml": ("<data>\n" + "\n".join(" ".join(map(str, flat[0][i : i + 17])) for i in range(0, 784, 17)) + "</data>").encode(),
        "values.xml": ("<v>" + "</v><v>".join(map(str, flat[0])) + "</v>").encode(),
        "lines.xml": b"<value>\n" + base64.encodebytes(picture) + b"</value>",
        "php.json": json.dumps({"imageData": coded}).replace("/", "\\/").encode(),
        "net.json": json.dumps({"imageData": coded}).replace("+", "\\u002B").encode(),
        "wrapped.json": json.dumps({"data": base64.encodebytes(picture).decode()}).encode(),
        "wide.xml": ("\ufeff<image>" + coded + "</image>").encode("utf-16-le"),
        "raw.json": json.dumps({"data": base64.b64encode(raw).decode()}).encode(),
        "hex.txt": raw.hex().encode(),
        "dicom.json": b'{"7FE00010": {"vr": "OW", "InlineBinary": "AAEC"}}',
        "dicom.xml": b'<DicomAttribute tag="7FE00010" vr="OW">\n<InlineBinary>AAEC</InlineBinary>',
    }  # fmt: skip


def texts_without_pixels() -> dict[str, bytes]:
    """Texts with many numbers, or long words, that show no image."""
    rng, angle = np.random.default_rng(4), np.linspace(0, 6.28, 400)
    x, y = (180 + 60 * np.cos(angle)).astype(int).tolist(), (200 + 90 * np.sin(angle)).astype(int).tolist()
    outline = [value for point in zip(x, y, strict=True) for value in point]
    lengths = [value for _ in range(300) for value in (int(rng.integers(190, 210)), int(rng.integers(40, 60)))]
    starts = [value for i in range(200) for value in (300 * i + int(rng.integers(1, 30)), int(rng.integers(20, 90)))]
    features = np.exp(rng.normal(0, 4, (40, 90))).tolist()
    header = ",".join(["id", *(f"original_glcm_{i}" for i in range(90))])
    return {
        "radiomics.csv": "\n".join([header, *(f"{i}," + ",".join(map(repr, row)) for i, row in enumerate(features))]).encode(),
        "features.txt": "\n".join(" ".join(map(repr, row)) for row in features).encode(),
        "clinical.csv": "\n".join(
            ",".join(map(str, [i, int(rng.integers(20, 90)), *rng.integers(0, 5, 20).tolist()])) for i in range(100)
        ).encode(),
        "coco.json": json.dumps({"annotations": [{"segmentation": [outline]}, {"segmentation": {"counts": lengths}}]}).encode(),
        "outline.json": json.dumps({"shapes": [outline, list(zip(x, y, strict=True))]}).encode(),
        "lengths.csv": ("id,EncodedPixels\n" + "\n".join(f"a{i}.png,{' '.join(map(str, starts))}" for i in range(3))).encode(),
        "cvat.xml": f'<polygon points="{";".join(f"{a},{b}" for a, b in zip(x, y, strict=True))}"/>'.encode(),
        "one_hot.csv": "\n".join(",".join(map(str, row)) for row in rng.integers(0, 2, (20, 300)).tolist()).encode(),
        "times.json": json.dumps({"FrameTimesStart": [0.72 * i for i in range(400)]}).encode(),
        "split.json": json.dumps({"train": rng.permutation(900).tolist()}).encode(),
        "motion.tsv": "\n".join("\t".join(f"{value:.5f}" for value in row) for row in rng.normal(size=(500, 6))).encode(),
        "a.bvec": "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rng.normal(size=(3, 288))).encode(),
        "a.bval": " ".join(map(str, (5 * rng.integers(190, 210, 288)).tolist())).encode(),
        "sums.sha256": "\n".join(f"{rng.bytes(32).hex()}" for _ in range(300)).encode(),
        "names.txt": "\n".join(f"images/patient{i:05d}/study1/view1_frontal" for i in range(900)).encode(),
        "words.txt": b"The quick brown fox. " * 9000,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pixels", "others"])
def test_texts_that_hold_pixels_are_left_out_and_others_are_not(folder: Path, kind: str) -> None:
    picture = io.BytesIO()
    Image.fromarray(random_image(5, (32, 32), "uint8", 200)).save(picture, "PNG")
    texts = texts_with_pixels(picture.getvalue()) if kind == "pixels" else texts_without_pixels()
    for name, content in texts.items():
        save_text(folder / "texts" / name, "").write_bytes(content)
    found = other_files(detect(folder), ("train",))
    wrong = set(found.copied) if kind == "pixels" else found.left_out
    assert not wrong
    assert all("a text with" in why for why in found.left_out.values())
    assert set(other_files(detect(folder), ("train",), ["texts"]).copied) == {f"texts/{name}" for name in texts}


def test_a_workbook_with_pixels_in_its_cells_is_left_out(folder: Path) -> None:
    numbers = np.random.default_rng(3).integers(0, 255, (3, 400)).tolist()
    rows = "".join("<row>" + "".join(f'<c r="A1"><v>{value}</v></c>' for value in row) + "</row>" for row in numbers)
    with zipfile.ZipFile(folder / "pixels.xlsx", "w") as table:
        table.writestr("xl/worksheets/sheet1.xml", f"<sheetData>{rows}</sheetData>")
    assert "numbers" in other_files(detect(folder), ("train",)).left_out["pixels.xlsx"]


def test_all_else_is_left_out_and_listed(folder: Path) -> None:
    expected = spoiled(folder)
    said, copied = protected(folder)
    assert copied == {*images(folder), "monai_salm.json"}
    assert set(said["not_copied"]) == set(expected)
    for name, word in expected.items():
        assert word in said["not_copied"][name], name
    text = CliRunner().invoke(app, ["plan", str(folder), *FAST]).stdout
    assert "--copy" in text
    assert "report.pdf" in text


def test_a_pattern_names_what_is_copied_all_the_same(folder: Path) -> None:
    save_text(folder / "docs/report.pdf", "x")
    save_text(folder / "docs/deep/x.pt", "x")
    save_text(folder / ".github/x.yml", "x")
    save_png(folder / "stray.png", 7)
    said, copied = protected(folder, "--copy", "*.pdf", "--copy", "stray.png", "--copy", ".github")
    assert copied == {*images(folder), "docs/report.pdf", "stray.png", ".github/x.yml", "monai_salm.json"}
    assert "docs/deep/x.pt" in said["not_copied"]


def test_documents_inside_of_dicom_are_left_out(tmp_path: Path) -> None:
    root = build_dicom_tree(tmp_path / "set")
    document = {"ReferencedImageSequence": refer_to(["1.2.3.1.1"]), "EncapsulatedDocument": b"%PDF"}
    save_dicom(root / "bad/report.dcm", "1.2.4.2", storage=SR_STORAGE, **document)
    said, copied = protected(root)
    assert said["not_copied"] == {"bad/report.dcm": "a document inside of DICOM, which may show the images"}
    assert "bad/report.dcm" not in copied
    assert "bad/report.dcm" in other_files(detect(root), ("train",), ["report.dcm"]).copied


def disguised(root: Path) -> dict[str, Path]:
    """Copies of training images, each in another form."""
    voxels = random_image(5, (12, 9), "uint8", 200)
    Image.fromarray(voxels).save(root / "ok/ok0.png")
    shutil.copy(root / "ok/ok0.png", root / "bytes.bin")
    tifffile.imwrite(root / "voxels.tif", voxels)
    np.save(root / "turned.npy", voxels.T.astype(np.float32))
    Image.fromarray(np.stack([voxels] * 3, -1)).save(root / "colour.png")
    shutil.copy(root / "voxels.tif", root / "voxels.dat2")
    with zipfile.ZipFile(root / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(root / "ok/ok0.png", "deep/x")
    names = ("bytes.bin", "voxels.tif", "turned.npy", "colour.png", "voxels.dat2", "packed.zip")
    return {name: root / name for name in names}


def test_no_file_has_the_bytes_or_the_voxels_of_a_protected_image(folder: Path) -> None:
    """Not even one that is named to be copied."""
    found = disguised(folder)
    said, copied = protected(folder, "--copy", "*", code=1)
    assert copied == {*images(folder), "monai_salm.json"}
    assert set(said["failed"]) == set(found)
    assert all("ok/ok0.png" in reason for reason in said["failed"].values())


def test_verify_finds_an_original_in_the_copy(folder: Path) -> None:
    save_png(folder / "x.png", 7)
    protected(folder, "--copy", "x.png")
    for place in (folder, folder.with_name("out")):
        shutil.copy(folder / "ok/ok0.png", place / "x.png")
    out = folder.with_name("out")
    problems = run("verify", folder, out, "--store", f"{out}.noise.db", code=1)["problems"]
    assert any("x.png" in problem and "ok/ok0.png" in problem for problem in problems)


def test_a_training_image_in_another_split_is_left_out(tmp_path: Path) -> None:
    root = build_datalist(tmp_path / "set")
    shutil.copy(root / "imagesTr/c1.nii.gz", root / "imagesTs/c0.nii.gz")
    said, copied = protected(root, code=1)
    assert list(said["failed"]) == ["imagesTs/c0.nii.gz"]
    assert "imagesTr/c1.nii.gz" in said["failed"]["imagesTs/c0.nii.gz"]
    assert "imagesTs/c0.nii.gz" not in copied
    assert "imagesTs/c1.nii.gz" in copied


def test_label_maps_that_no_split_lists_are_copied_and_images_are_not(tmp_path: Path) -> None:
    root = tmp_path / "set"
    build_image_folder(root)
    pairs = [{"image": f"{name}/{name}0.png", "label": number} for number, name in enumerate(("bad", "ok"))]
    save_json(root / "dataset.json", {"training": pairs})
    save_nifti(root / "labelsTs/a.nii.gz", random_image(0, (6, 5, 4), "uint8", 3))
    areas = np.kron(random_image(0, (8, 5, 4), "int16", 400), np.ones((5, 4, 4), np.int16))
    save_nifti(root / "labelsTs/areas.nii.gz", areas)
    save_nifti(root / "labelsTs/b.nii.gz", random_image(1, (16, 15, 14), "int16", 3000))
    save_nifti(root / "other/c.nii.gz", random_image(2, (6, 5, 4), "uint8", 3))
    data = detect(root)
    assert isinstance(data, FolderLayout)
    found = other_files(data, ("train",))
    assert {"labelsTs/a.nii.gz", "labelsTs/areas.nii.gz"} <= set(found.copied)
    assert {"labelsTs/b.nii.gz", "other/c.nii.gz", "ok/ok1.png"} <= set(found.left_out)


def test_prints_tell_images_and_not_label_maps(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", 1, (20, 16))
    save_png(tmp_path / "b.png", 2, (20, 16))
    save_nifti(tmp_path / "label.nii.gz", random_image(0, (6, 5, 4), "uint8", 5))
    assert fingerprints(tmp_path / "a.png")
    assert not fingerprints(tmp_path / "a.png") & fingerprints(tmp_path / "b.png")
    assert fingerprints(tmp_path / "label.nii.gz") == frozenset()
    assert fingerprints(save_text(tmp_path / "x.txt", "x")) == frozenset()


def link(place: Path, target: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_of_git_annex_are_read_and_those_that_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    build_image_folder(root)
    for number, name in enumerate(("ok0", "ok1", "bad0")):
        save_png(root / f".git/annex/objects/k{number}.png", 50 + number)
        target = next(root.glob(f"*/{name}.png"))
        target.unlink()
        link(target, f"../.git/annex/objects/k{number}.png")
    (root / ".git/annex/objects/k1.png").unlink()
    link(root / "README.md", ".git/annex/objects/gone.md")
    said, copied = protected(root, code=1)
    assert set(said["failed"]) == {"ok/ok1.png"}
    assert "fetch" in said["failed"]["ok/ok1.png"]
    assert "fetch" in said["not_copied"]["README.md"]
    assert copied == {*images(root), "monai_salm.json"} - {"ok/ok1.png"}
    assert not any(path.is_symlink() for path in root.with_name("out").rglob("*"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_part_of_an_annex_is_read_and_other_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    build_image_folder(root)
    save_png(tmp_path / ".git/annex/objects/k.png", 50)
    link(root / "ok/z.png", "../../.git/annex/objects/k.png")
    assert "ok/z.png" in images(root)
    save_png(tmp_path / "elsewhere.png", 51)
    link(root / "ok/y.png", "../../elsewhere.png")
    with pytest.raises(LayoutError, match="leads out"):
        detect(root)


def test_other_contrasts_of_a_study_are_listed_and_not_copied(tmp_path: Path) -> None:
    build_bids(tmp_path / "set")
    extra = save_nifti(tmp_path / "set/sub-01/anat/sub-01_T2w.nii.gz", random_image(3))
    said, copied = protected(tmp_path / "set")
    name = extra.relative_to(tmp_path / "set").as_posix()
    assert name in said["not_copied"]
    assert name not in copied
