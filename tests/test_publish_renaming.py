"""Images that change their format are published under another name, the texts that name them follow, and all comes back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from layout_samples import build_image_folder, save_json, save_picture, save_text

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import FolderLayout, detect
from monai_salm.methods import RandomNoise
from monai_salm.publishing import plan, publish, restore, verify
from monai_salm.store.store import NoiseStore


def save_jpeg(path: Path, seed: int) -> None:
    save_picture(path, seed, (16, 14))


def save_two_classes(root: Path) -> Path:
    """Two JPEG images of each class."""
    for name in ("ok", "sick"):
        for number in range(2):
            save_jpeg(root / name / f"{number}.jpg", number + len(name))
    return root


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def there_and_back(root: Path) -> tuple[FolderLayout, dict[str, bytes], list[str]]:
    """The data set, the files of its copy, and the warnings; that restore gives every byte back is asserted."""
    data = detect(root)
    assert isinstance(data, FolderLayout)
    folder = root.parent
    store = precompute(data.dataset(), folder / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    report = publish(root, folder / "out", store)
    assert report.ok
    found = verify(root, folder / "out", store)
    assert (found.problems, found.checked) == ([], len(data.stored_images()))
    copy = data.reopen(folder / "out")
    for before, after in zip(data.dataset(), copy.dataset(), strict=True):
        assert np.array_equal(np.asarray(before["label"]), np.asarray(after["label"]))
        assert (before["image"] != after["image"]).any()
    restored = restore(folder / "out", folder / "back", NoiseStore(store.path))
    assert (restored.failed, restored.warnings) == ({}, [])
    before, after = files_of(root), files_of(folder / "back")
    assert set(before) == set(after)
    # A plain PNG is compressed again, as in every layout.
    assert {file: after[file] for file in after if not file.endswith(".png")} == {
        file: before[file] for file in before if not file.endswith(".png")
    }
    assert publish(root, folder / "out", store, overwrite=True).ok
    return data, files_of(folder / "out"), report.warnings


def test_class_folders_of_jpeg(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "test"):
        for name in ("ok", "sick"):
            for number in range(2):
                save_jpeg(root / split / name / f"{number}.JPEG", len(split) * 10 + number + len(name))
    _, copy, warnings = there_and_back(root)
    assert {file for file in copy if "train/" in file} == {f"train/{c}/{n}.png" for c in ("ok", "sick") for n in "01"}
    assert copy["test/ok/0.JPEG"] == (root / "test/ok/0.JPEG").read_bytes()
    said = [text for text in warnings if "PNG" in text]
    assert len(said) == 1
    assert "train/ok/0.JPEG is train/ok/0.png there" in said[0]


def test_a_name_that_is_taken_is_not_taken_again(tmp_path: Path) -> None:
    root = build_image_folder(tmp_path / "set")
    save_jpeg(root / "ok" / "x.jpg", 1)
    save_jpeg(root / "ok" / "x.jpeg", 2)
    save_picture(root / "ok" / "X.png", 3, (16, 14))
    _, copy, _ = there_and_back(root)
    assert {file for file in copy if "x." in file.lower()} == {"ok/X.png", "ok/x.jpeg.png", "ok/x.jpg.png"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_follows(tmp_path: Path, encoding: str) -> None:
    root = tmp_path / "set"
    names = ["a.jpg", "ä.jpg", "b, left.jpg", "d.jpg"]
    for number, name in enumerate(names):
        save_jpeg(root / "images" / name, number)
    save_picture(root / "images" / "e.png", 9)
    save_jpeg(root / "images" / "t.jpg", 10)
    text = 'image;label;split\r\nimages/a.jpg;0;train\r\nä.jpg ;1;train\r\n"b, left.jpg";0;train\r\nimages\\d.jpg;1;train\r\n'
    text += "e.png;0;train\r\nt.jpg;1;test\r\n"
    (root / "labels.csv").write_bytes(text.encode(encoding))
    save_text(root / "train_list.txt", "a.jpg\nd.jpg\nunknown.jpg\n")
    save_json(root / "about.json", {"cover": "images/a.jpg", "text": "see a.jpg for more", "other": 1})
    _, copy, warnings = there_and_back(root)
    expected = text.replace("a.jpg", "a.png").replace("ä.jpg", "ä.png").replace("left.jpg", "left.png")
    assert copy["labels.csv"] == expected.replace("d.jpg", "d.png").encode(encoding)
    assert copy["train_list.txt"] == b"a.png\nd.png\nunknown.jpg\n"
    assert json.loads(copy["about.json"]) == {"cover": "images/a.png", "text": "see a.jpg for more", "other": 1}
    assert any("labels.csv" in text and "restore" in text for text in warnings)


def test_lists_follow_whatever_stands_between_names(tmp_path: Path) -> None:
    """Blanks, as in the lists of Caffe; delimiters and blanks in names; a suffix in another case."""
    root = tmp_path / "set"
    names = ["n0.jpg", "p;1.jpg", "1.jpg", "Q2.JPG", "my b.jpg", "n5.jpg"]
    for number, name in enumerate(names):
        save_jpeg(root / "images" / name, number)
    listed = [name.replace("JPG", "jpg") for name in names]
    save_text(root / "labels.csv", "image,label\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(listed)))
    lines = "".join(f"images/{name} {n % 2}\n" for n, name in enumerate(listed))
    save_text(root / "train.txt", lines + "n0.jpg n5.jpg\n0 ./images/n0.jpg\n")
    save_text(root / "notes.xml", "<a><filename>n0.jpg</filename></a>")
    save_text(root / "other.xml", "<a><filename>n0.png</filename></a>")
    _, copy, warnings = there_and_back(root)
    for file in ("labels.csv", "train.txt"):
        expected = (root / file).read_text().replace("Q2.jpg", "Q2.png").replace(".jpg", ".png")
        assert copy[file].decode() == expected
    said = [text for text in warnings if "old names" in text]
    assert len(said) == 1
    assert "notes.xml: " in said[0]
    assert "correct the copy by hand" in said[0]


def test_a_name_that_may_mean_two_images_is_told(tmp_path: Path) -> None:
    root = save_two_classes(tmp_path / "set")
    save_text(root / "list.txt", "0.jpg\nok/1.jpg\n")
    _, copy, warnings = there_and_back(root)
    assert copy["list.txt"] == b"0.jpg\nok/1.png\n"
    assert any("list.txt: " in text and "old names" in text for text in warnings)


def test_a_datalist_follows(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(4):
        save_jpeg(root / "images" / f"p{number}é.jpg", number)
    listed = [{"image": f"images/p{number}é.jpg", "label": number % 2} for number in range(4)]
    save_text(root / "dataset.json", json.dumps({"training": listed[:3], "test": [listed[3]["image"]]}, indent=3))
    _, copy, _ = there_and_back(root)
    written = json.loads(copy["dataset.json"])
    assert [entry["image"] for entry in written["training"]] == [f"images/p{number}é.png" for number in range(3)]
    assert written["test"] == ["images/p3é.jpg"]
    assert b'\n   "training"' in copy["dataset.json"]
    assert b"p0\\u00e9.png" in copy["dataset.json"]


def test_an_image_that_cannot_be_read_is_listed_and_not_missed_later(tmp_path: Path) -> None:
    root = save_two_classes(tmp_path / "set")
    (root / "ok" / "0.jpg").write_bytes((root / "ok" / "0.jpg").read_bytes()[:200])
    data = detect(root)
    store = tmp_path / "noise.db"
    precompute(data.dataset(), store, method=RandomNoise(), task=data.task(), device="cpu", skip_bad=True)
    report = publish(root, tmp_path / "out", store)
    assert set(report.failed) == {"ok/0.jpg"}
    found = verify(root, tmp_path / "out", store)
    assert (found.problems, set(found.left_out)) == ([], {"ok/0.jpg"})
    restored = restore(tmp_path / "out", tmp_path / "back", store)
    assert restored.failed == {}
    assert set(files_of(root)) - set(files_of(tmp_path / "back")) == {"ok/0.jpg"}


def test_an_original_that_is_put_back_into_the_copy_is_noticed(tmp_path: Path) -> None:
    root = save_two_classes(tmp_path / "set")
    there_and_back(root)
    (tmp_path / "out/ok/0.jpg").write_bytes((root / "ok/0.jpg").read_bytes())
    assert any("ok/0.jpg" in text for text in verify(root, tmp_path / "out", tmp_path / "noise.db").problems)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_text_that_is_a_dead_link_does_not_stop_the_others(tmp_path: Path) -> None:
    root = save_two_classes(tmp_path / "set")
    os.symlink("gone.json", root / "info.json")
    data = detect(root)
    assert isinstance(data, FolderLayout)
    store = precompute(data.dataset(), tmp_path / "noise.db", method=RandomNoise(), task=data.task(), device="cpu")
    report = publish(root, tmp_path / "out", store)
    assert (report.images, set(report.not_copied)) == (4, {"info.json"})


def test_plan_says_which_images_become_png(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_jpeg(tmp_path / "set" / name / "0.jpg", len(name))
    save_text(tmp_path / "set" / "list.txt", "a/0.jpg\n")
    (said,) = plan(tmp_path / "set", method=RandomNoise(), device="cpu").warnings
    assert "2 images become PNG in the copy" in said
    assert "a/0.jpg is a/0.png there" in said
    assert "list.txt there name" in said
