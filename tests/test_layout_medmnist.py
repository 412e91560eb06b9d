"""MedMNIST archives: splits, labels, and a copy of the one file with other images."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_samples import save_archive

from monai_salm.formats import FormatError
from monai_salm.layouts import LayoutError, detect
from monai_salm.learning.tasks import Classification
from monai_salm.shared.arrays import Array


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 7), (1, 8, 7)), ((8, 7, 3), (3, 8, 7)), ((8, 8, 8), (1, 8, 8, 8)), ((3, 3, 3), (3, 3, 3))],
)
def test_medmnist_reads_and_rewrites(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = detect(save_archive(tmp_path / "a.npz", shape))
    assert data.name == "medmnist"
    assert data.splits == ("train", "val", "test")
    assert data.task() == Classification(num_classes=3)
    assert data.test_split() == "test"
    dataset = data.dataset()
    assert len(dataset) == 4
    case = dataset[2]
    assert case["units"].picture, "MedMNIST's numbers of 8 bits are 0 to 255 in volumes too"
    assert case["image"].shape == expected
    assert (case["label"], case["name"]) == (2, "train[2]")
    assert isinstance(case["label"], int)
    assert dataset[-1]["name"] == "train[3]"
    assert [c["name"] for c in dataset[1:3]] == ["train[1]", "train[2]"]
    with pytest.raises(IndexError):
        dataset[4]

    seen: list[str] = []

    def edit(name: str, image: Array) -> Array:
        seen.append(name)
        assert image.shape == expected
        return image + image.dtype.type(1)

    data.rewrite(tmp_path / "b.npz", edit)
    copy = data.reopen(tmp_path / "b.npz")
    assert seen == list(dataset.names)
    for before, after in zip(dataset, copy.dataset(), strict=True):
        assert np.array_equal(before["image"] + 1, after["image"])
        assert before["label"] == after["label"]
    assert np.array_equal(data.dataset("test")[0]["image"], copy.dataset("test")[0]["image"])
    assert list(data.differences(copy)) == []
    assert list(data.differences(copy, splits=())) == ["train_images: the array differs"]
    with pytest.raises(FileExistsError):
        data.rewrite(tmp_path / "b.npz", edit)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_archive_is_never_in_memory_as_a_whole(tmp_path: Path, save: Any) -> None:
    images = np.arange(120 * 224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(120, 224, 224, 3)
    size = images.nbytes  # 18 megabytes
    save(tmp_path / "a.npz", train_images=images, train_labels=np.arange(120)[:, None] % 3, test_images=images[::-1])
    del images
    tracemalloc.start()
    try:
        data = detect(tmp_path / "a.npz")
        data.rewrite(tmp_path / "b.npz", lambda _, image: image ^ np.uint8(1))
        copy = data.reopen(tmp_path / "b.npz")
        for before, after in zip(data.dataset(), copy.dataset(), strict=True):
            assert np.array_equal(before["image"] ^ 1, after["image"])
        assert list(data.differences(copy)) == []
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


def test_medmnist_multi_label(tmp_path: Path) -> None:
    data = detect(save_archive(tmp_path / "a.npz", (8, 8), [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]))
    assert data.task() == Classification(num_classes=3, multi_label=True)
    assert np.array_equal(data.dataset()[1]["label"], [1, 1, 0])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((2, 4, 4), "uint8")}, "no train_images"),
        ({"train_images": np.zeros((2, 4), "uint8")}, "expected"),
        ({"train_images": np.zeros((2, 4, 4), "uint8"), "train_labels": np.zeros((3, 1))}, "for 2 images"),
        ({"train_images": np.zeros((2, 4, 4), "uint8"), "train_labels": np.array([[0, 2], [1, 1]])}, "zeros and ones"),
        ({"train_images": np.zeros((2, 4, 4), "uint8")}, "no train_labels"),
    ],
)
def test_medmnist_refuses_with_a_reason(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LayoutError, match=reason) as caught:
        detect(tmp_path / "a.npz").task()
    assert "a.npz" in str(caught.value)


def test_medmnist_edit_must_keep_shape_and_type(tmp_path: Path) -> None:
    data = detect(save_archive(tmp_path / "a.npz", (8, 8)))
    with pytest.raises(LayoutError, match=r"train\[0\]"):
        data.rewrite(tmp_path / "b.npz", lambda name, image: image.astype("float32"))
    assert not (tmp_path / "b.npz").exists()


def test_damaged_archive_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FormatError, match=r"a\.npz"):
        detect(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_rows_with_one_1_are_classes(tmp_path: Path, dtype: str) -> None:
    data = detect(save_archive(tmp_path / "a.npz", (8, 7), labels=np.eye(4, 3, dtype=dtype) + np.eye(4, 3, -3)))
    assert data.task() == Classification(num_classes=3)
    assert [case["label"] for case in data.dataset()] == [0, 1, 2, 0]
    assert isinstance(data.dataset()[0]["label"], int)
    data = detect(save_archive(tmp_path / "b.npz", (8, 7), labels=np.tri(4, 3, dtype=dtype)))
    assert data.task() == Classification(num_classes=3, multi_label=True)
