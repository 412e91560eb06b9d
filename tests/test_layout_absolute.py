"""Tables and JSON with absolute paths, in any encoding, whose images change their names: the copy's lead to the copy."""

from __future__ import annotations

import codecs
import json
import unicodedata
from pathlib import Path

import pytest
from layout_samples import build_nnunet, random_image, save_json, save_picture, save_text
from round_trips import run

from monai_salm.layouts import LayoutError, detect

FAST = ("--method", "random_noise", "--device", "cpu")


def there_and_back(root: Path) -> tuple[Path, list[str]]:
    """The copy and what was said; restore gives the tables and JSON back byte for byte."""
    out, back = root.with_name("out"), root.with_name("back")
    planned = run("plan", root, *FAST)
    made = run("protect", root, out, *FAST)
    assert made["warnings"] == [warning for warning in planned["warnings"] if "label maps" not in warning]
    run("verify", root, out, "--store", made["store"])
    assert run("restore", out, back, "--store", made["store"])["failed"] == {}
    for file in root.rglob("*"):
        if file.suffix in (".csv", ".json", ".jpg"):
            assert (back / file.relative_to(root)).read_bytes() == file.read_bytes()
    return out, made["warnings"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_absolute_paths_inside_the_folder(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "set"
    for number in range(4):
        save_picture(root / f"images/{number}{suffix}", number)
    lines = [f'"{root}/images/{number}{suffix}",{number % 2},"{root}/other, file.txt"' for number in range(4)]
    save_text(root / "labels.csv", "\n".join(["path,label,note", *lines]) + "\n")
    out, said = there_and_back(root)
    text = (out / "labels.csv").read_text()
    assert str(tmp_path) not in text
    assert text.splitlines()[1] == '"images/0.png",0,"other, file.txt"'
    assert "labels.csv: absolute paths become relative in the copy, so that they do not lead to the originals" in said
    assert detect(out).dataset().names == tuple(f"images/{number}.png" for number in range(4))


def test_absolute_paths_elsewhere_are_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "other" / "a.png")
    root = tmp_path / "set"
    save_picture(root / "a.png")
    save_text(root / "labels.csv", f"image,label\n{tmp_path}/other/a.png,0\n")
    with pytest.raises(
        LayoutError, match=r"labels\.csv, line 2, column 'image': path '.*/other/a\.png' must be relative and"
    ):
        detect(root)


def test_absolute_paths_in_nnunet(tmp_path: Path) -> None:
    root = build_nnunet(tmp_path / "set", channels=("CT",))
    content = json.loads((root / "dataset.json").read_text())
    content["dataset"] = {
        f"p{n}": {"images": [f"{root}/imagesTr/p_00{n}_0000.nii.gz"], "label": f"{root}/labelsTr/p_00{n}.nii.gz"}
        for n in range(3)
    }
    save_json(root / "dataset.json", content)
    out, _ = there_and_back(root)
    assert str(tmp_path) not in (out / "dataset.json").read_text()
    assert detect(out).dataset().names == detect(root).dataset().names


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_tables_keep_their_encoding(tmp_path: Path, encoding: str, form: str) -> None:
    """Names may stand on the disk in another Unicode form than in the table, as a Mac writes them."""
    root = tmp_path / "set"
    names = ("Müller", "Größe", "señal", "x")
    for number, name in enumerate(names):
        save_picture(root / "bilder" / f"{unicodedata.normalize(form, name)}.jpg", number)  # type: ignore[arg-type]
    text = "bild;image;label\r\n" + "".join(
        f"é;{name}.jpg;{'gut' if n % 2 else 'böse'}\r\n" for n, name in enumerate(names)
    )
    start = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (root / "labels.csv").write_bytes(start + text.encode(encoding))
    out, said = there_and_back(root)
    new = (out / "labels.csv").read_bytes()
    assert new == start + text.replace(".jpg", ".png").encode(encoding)
    assert "labels.csv there name the new files" in said[0]


def nnunet_of(root: Path, images: str, labels: str, listed: bool) -> Path:
    entries = {}
    for number in range(3):
        image, label = f"imagesTr/c{number}_0000{images}", f"labelsTr/c{number}{labels}"
        save_picture(root / image, number)
        save_picture(root / label, random_image(number, (8, 7), "uint8", 2))
        entries[f"c{number}"] = {"images": [image], "label": label}
    content = {
        "channel_names": {"0": "R"},
        "labels": {"background": 0, "road": 1},
        "numTraining": 3,
        "file_ending": images,
    }
    save_json(root / "dataset.json", {**content, **({"dataset": entries} if listed else {})})
    return root


def test_nnunet_of_jpeg_with_label_maps_of_png(tmp_path: Path) -> None:
    out, said = there_and_back(nnunet_of(tmp_path / "set", ".jpg", ".png", listed=True))
    content = json.loads((out / "dataset.json").read_text())
    assert content["file_ending"] == ".png"
    assert content["dataset"]["c0"] == {"images": ["imagesTr/c0_0000.png"], "label": "labelsTr/c0.png"}
    assert "dataset.json: file_ending becomes '.png' in the copy" in said
    assert detect(out).dataset()[0]["label"].max() == 1


@pytest.mark.parametrize("ending", [".jpg", ".bmp"])
def test_nnunet_with_label_maps_that_cannot_follow_is_refused(tmp_path: Path, ending: str) -> None:
    root = nnunet_of(tmp_path / "set", ending, ending, listed=False)
    with pytest.raises(
        LayoutError, match=rf"file_ending is '{ending}'.* labelsTr/c0{ending} would not.*Convert .* to PNG"
    ):
        detect(root)
