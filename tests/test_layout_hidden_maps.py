"""Label maps among the images of classes: beside a table, in folders of classes, with telling names or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from layout_samples import build_image_folder, random_image, save_picture, save_text
from PIL import Image
from round_trips import run

from monai_salm.layouts import FolderLayout, LayoutError, detect, open_layout
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.shared.warn import DataWarning

FAST = ("--method", "random_noise", "--device", "cpu")


def save_map(path: Path, seed: int) -> Path:
    label = np.zeros((8, 7), "uint8")
    label[2:6, 1 + seed % 3 : 5] = 255
    return save_picture(path, label)


def build(root: Path, image: str, label: str, table: str = "") -> Path:
    """Six images and label maps, ``{n}`` their number and ``{c}`` their class; a table of what ``table`` calls them."""
    for number in range(6):
        fields = {"n": number, "c": "ab"[number % 2]}
        save_picture(root / image.format(**fields), number)
        save_map(root / label.format(**fields), number)
    if table:
        lines = [table.format(n=number) + f",{'ab'[number % 2]}" for number in range(6)]
        save_text(root / "labels.csv", "\n".join(["image,label", *lines]))
    return root


SETS = {
    "beside a table": ("p{n}.png", "p{n}_mask.png", "p{n}.png"),
    "a folder beside a table of names": ("images/p{n}.png", "masks/p{n}.png", "p{n}"),
    "no name, beside a table": ("p{n}.jpg", "p{n}.png", "p{n}.jpg"),
    "a word, beside a table": ("p{n}.png", "p{n}-lesion.png", "p{n}.png"),
    "classes": ("{c}/p{n}.png", "{c}/p{n}_mask.png", ""),
    "classes, no name": ("{c}/p{n}.jpg", "{c}/p{n}.png", ""),
    "classes, a word": ("{c}/p{n}.png", "{c}/p{n}_outline.png", ""),
    "classes, the number alone": ("{c}/x{n}.png", "{c}/y{n}.png", ""),
    "classes, the image's name is longer": ("{c}/p{n}_raw.png", "{c}/p{n}.png", ""),
    "classes, JPEG": ("{c}/p{n}.png", "{c}/p{n}_mask.jpg", ""),
}


@pytest.mark.parametrize("name", SETS)
def test_label_maps_get_no_noise_and_keep_their_bytes(tmp_path: Path, name: str) -> None:
    root, out, back = build(tmp_path / "set", *SETS[name]), tmp_path / "out", tmp_path / "back"
    data = detect(root)
    assert isinstance(data, FolderLayout)
    assert data.task() == Classification(num_classes=2)
    assert len(data.dataset()) == 6
    maps = sorted(SETS[name][1].format(n=n, c="ab"[n % 2]) for n in range(6))
    assert sorted(data.masks) == maps
    assert data.unlisted() == ()
    planned = run("plan", root, *FAST)
    assert (planned["not_copied"], planned["refused"]) == ({}, {})
    assert any("6 label maps that are no case's label" in warning for warning in planned["warnings"])
    made = run("protect", root, out, *FAST)
    assert (made["cases"], made["not_copied"], made["failed"]) == (6, {}, {})
    run("verify", root, out, "--store", made["store"])
    run("restore", out, back, "--store", made["store"])
    for file in maps:
        assert (root / file).read_bytes() == (out / file).read_bytes() == (back / file).read_bytes()
    assert detect(back).dataset().names == data.dataset().names


@pytest.mark.parametrize("name", ["classes", "classes, no name", "classes, a word"])
def test_the_label_map_of_an_image_that_is_left_out_stays_one(tmp_path: Path, name: str) -> None:
    root, out = build(tmp_path / "set", *SETS[name]), tmp_path / "out"
    (root / SETS[name][0].format(n=2, c="a")).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    made = run("protect", root, out, *FAST, code=1)
    label = SETS[name][1].format(n=2, c="a")
    assert (made["cases"], list(made["failed"])) == (5, [SETS[name][0].format(n=2, c="a")])
    restored = run("restore", out, tmp_path / "back", "--store", made["store"])
    assert restored["failed"] == {}
    assert (tmp_path / "back" / label).read_bytes() == (root / label).read_bytes()


def test_lines_of_label_maps_are_no_cases(tmp_path: Path) -> None:
    build(tmp_path, "p{n}.png", "p{n}_mask.png", "p{n}.png")
    lines = [f"p{n}{end}.png,{'ab'[n % 2]}" for n in range(6) for end in ("", "_mask")]
    save_text(tmp_path / "labels.csv", "\n".join(["image,label", *lines]))
    with pytest.warns(
        DataWarning, match=r"labels\.csv: 6 lines name label maps \(p0_mask\.png, p1_mask\.png and 4 more\)"
    ):
        data = detect(tmp_path)
    assert data.dataset().names == tuple(f"p{n}.png" for n in range(6))


def test_a_table_of_splits_leaves_label_maps_the_labels(tmp_path: Path) -> None:
    build(tmp_path, "images/p{n}.png", "masks/p{n}.png")
    save_text(
        tmp_path / "meta.csv", "image,split\n" + "".join(f"p{n}.png,{'train' if n else 'val'}\n" for n in range(6))
    )
    data = detect(tmp_path)
    assert (data.name, data.task()) == ("mask_folder", Segmentation(num_classes=2))
    assert len(data.dataset("val")) == 1


def test_what_is_not_certain_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "folders", "photos/p{n}.png", "outlines/p{n}.png")
    with pytest.raises(
        LayoutError, match=r"every file in outlines .*--image-glob 'photos/\*' --label-glob 'outlines/\*'"
    ):
        detect(tmp_path / "folders")
    assert len(open_layout(tmp_path / "folders", "image_folder").dataset()) == 12
    data = open_layout(tmp_path / "folders", "photos/* -> outlines/*")
    assert data.task() == Segmentation(num_classes=2)
    save_map(build_image_folder(tmp_path / "one") / "ok" / "ok0_x.png", 0)
    with pytest.raises(
        LayoutError, match=r"ok/ok0_x\.png holds few whole values.*name it ok0_mask.*--layout image_folder"
    ):
        detect(tmp_path / "one")


def test_areas_of_many_values_beside_an_image_are_not_certain(tmp_path: Path) -> None:
    """A map of more classes than a few, with no word for it in its name, must not get noise unasked."""
    regions = np.kron(np.arange(12, dtype="uint8").reshape(3, 4), np.ones((9, 9), "uint8"))
    for number in range(4):
        image = tmp_path / "ab"[number % 2] / f"scan{number}.png"
        image.parent.mkdir(exist_ok=True)
        Image.fromarray(random_image(number, regions.shape, "uint8", 200)).save(image)
        Image.fromarray(regions).save(image.with_name(f"regions{number}.png"))
    with pytest.raises(LayoutError, match=r"regions0\.png.*as its label map does"):
        detect(tmp_path)


def test_images_of_few_values_and_of_names_alike_stay_images(tmp_path: Path) -> None:
    """Drawings of two values are images where all are so; so is another picture of the same patient."""
    for number in range(4):
        save_map(tmp_path / "drawn" / "ab"[number % 2] / f"p{number}.png", number)
        save_map(tmp_path / "drawn" / "ab"[number % 2] / f"p{number}_2.png", number + 1)
        save_picture(tmp_path / "shot" / "ab"[number % 2] / f"p{number}.png", number)
        save_picture(tmp_path / "shot" / "ab"[number % 2] / f"p{number}_2.png", number + 9)
    for name in ("drawn", "shot"):
        data = detect(tmp_path / name)
        assert (len(data.dataset()), data.name) == (8, "image_folder")


def test_label_maps_in_colours_are_found(tmp_path: Path) -> None:
    build(tmp_path, "{c}/p{n}.png", "{c}/p{n}_outline.png")
    for file in tmp_path.glob("*/*_outline.png"):
        grey = np.asarray(Image.open(file))
        Image.fromarray(np.stack([grey, 0 * grey, 255 - grey], axis=-1)).save(file)
    data = detect(tmp_path)
    assert isinstance(data, FolderLayout)
    assert len(data.masks) == 6


@pytest.mark.parametrize("name", ["classes", "classes, no name", "classes, a word"])
def test_empty_label_maps_are_such_beside_others(tmp_path: Path, name: str) -> None:
    """As of healthy patients."""
    root = build(tmp_path, *SETS[name])
    for number in (1, 3, 5):
        Image.fromarray(np.zeros((8, 7), "uint8")).save(root / SETS[name][1].format(n=number, c="b"))
    data = detect(root)
    assert isinstance(data, FolderLayout)
    assert (len(data.masks), len(data.dataset())) == (6, 6)


def test_a_column_of_label_maps_beside_that_of_classes(tmp_path: Path) -> None:
    build(tmp_path, "p{n}.png", "other/x{n}.png")
    lines = [f"p{n}.png,other/x{n}.png,{'ab'[n % 2]}" for n in range(6)]
    save_text(tmp_path / "labels.csv", "\n".join(["image,mask,label", *lines]))
    data = detect(tmp_path)
    assert isinstance(data, FolderLayout)
    assert data.class_names == ("a", "b")
    assert data.masks == tuple(f"other/x{n}.png" for n in range(6))
    assert data.unlisted() == ()


def save_soft_map(path: Path, radius: int) -> None:
    """A disc that was resized: its edge has many values, and where it is small it is nearly all edge."""
    y, x = np.mgrid[:256, :256] - 127.5
    disc = Image.fromarray(((y**2 + x**2 < radius**2) * 255).astype("uint8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    disc.resize((128, 128), Image.Resampling.BILINEAR).save(path)


SOFT = {
    "beside": ("{c}/{c} ({n}).png", "{c}/{c} ({n})_mask.png"),
    "a folder": ("{c}/images/{c}-{n}.png", "{c}/masks/{c}-{n}.png"),
    "a table": ("images/{c}{n}.png", "masks/{c}{n}.png"),
}


def build_soft(root: Path, image: str, label: str, small: Sequence[int]) -> None:
    for name in ("benign", "malignant"):
        for number in range(4):
            save_picture(root / image.format(c=name, n=number), number + len(name), (128, 128))
            save_soft_map(root / label.format(c=name, n=number), 9 if number in small else 70)


@pytest.mark.parametrize("kind", SOFT)
def test_small_label_maps_with_soft_edges_are_such_beside_others(tmp_path: Path, kind: str) -> None:
    image, label = SOFT[kind]
    build_soft(tmp_path, image, label, small=[1])
    (tmp_path / image.format(c="benign", n=1)).unlink()  # as of an image that a copy left out
    if kind == "a table":
        names = [(image.format(c=c, n=n), c) for c in ("benign", "malignant") for n in range(4)]
        save_text(tmp_path / "labels.csv", "image,label\n" + "".join(f"{name},{c}\n" for name, c in names))
    data = detect(tmp_path)
    assert isinstance(data, FolderLayout)
    assert data.task() == Classification(num_classes=2)
    assert sorted(data.masks) == sorted(label.format(c=c, n=n) for c in ("benign", "malignant") for n in range(4))
    assert not set(data.masks) & set(data.image_files())


@pytest.mark.parametrize("kind", ["beside", "a folder"])
def test_label_maps_that_mostly_look_like_images_are_refused(tmp_path: Path, kind: str) -> None:
    build_soft(tmp_path, *SOFT[kind], small=range(4))
    with pytest.raises(
        LayoutError, match=r"0.*\.png has the name of a label map of benign/.*say --layout image_folder"
    ):
        detect(tmp_path)
