"""Bad cases from end to end: the others are published and restored, the bad ones are listed, and none of their files is copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pydicom")

from layout_samples import (
    SR_STORAGE,
    build_csv,
    build_dicom_tree,
    build_image_folder,
    build_nnunet,
    refer_to,
    save_dicom,
)

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, restore, verify


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def spoiled_images(root: Path) -> set[str]:
    build_image_folder(root, classes=("a", "b", "c"))
    (root / "a" / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    whole = (root / "b/b0.png").read_bytes()
    (root / "b/b0.png").write_bytes(whole + whole)
    for name in ("c0", "c1"):
        cut(root / f"c/{name}.png", 60)
    return {"a/photo.jpg", "b/b0.png", "c/c0.png", "c/c1.png"}


def spoiled_table(root: Path) -> set[str]:
    build_csv(
        root,
        ["image,label", "gone,1", "photo.jpg,0", "a,0", "b,1", "images/c.png,0", "images/d.png,", "images/e.png,n/a"],
        images="abcde",
    )
    (root / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    cut(root / "images/c.png", 60)
    return {"gone", "photo.jpg", "images/c.png", "images/d.png", "images/e.png"}


def spoiled_nnunet(root: Path) -> set[str]:
    build_nnunet(root, cases=5)
    (root / "imagesTr/p_001_0000.nii.gz").unlink()
    (root / "labelsTr/p_002.nii.gz").unlink()
    for channel in range(2):
        (root / f"imagesTr/p_003_{channel:04d}.nii.gz").unlink()
    return {f"imagesTr/p_{case:03d}_0000.nii.gz" for case in (1, 2, 3)}


def spoiled_tree(root: Path) -> set[str]:
    build_dicom_tree(root, ("bad/s1", "bad/s2", "ok/s3", "ok/s4"))
    for name, uid in (("sr", "1.2.3.1.1"), ("cut", "1.2.3.1.2")):
        save_dicom(
            root / f"ok/{name}.dcm", f"1.2.4.{len(name)}", storage=SR_STORAGE, ReferencedImageSequence=refer_to([uid])
        )
    cut(root / "ok/cut.dcm", 400)
    cut(root / "ok/s3/IM1", 300)
    save_dicom(root / "bad/s2/IM0", "1.2.3.2", 1)  # once more the slice of IM2
    save_dicom(root / "ok/s4/IM0", "1.2.3.7", 1, SeriesInstanceUID="1.2.3.4")  # another at the place of IM2
    return {"ok/cut.dcm", "ok/s3/IM1", "bad/s2/IM2", "ok/s4/IM0"}


@pytest.mark.parametrize("spoiled", [spoiled_images, spoiled_table, spoiled_nnunet, spoiled_tree])
def test_the_others_are_published_and_restored(tmp_path: Path, spoiled: Callable[[Path], set[str]]) -> None:
    source, copy, back, store = (tmp_path / name for name in ("data", "copy", "back", "noise.db"))
    bad = spoiled(source)
    data = detect(source)
    precompute(
        data.dataset(), store, method=RandomNoise(epsilon=0.05), task=data.task(), window=IntensityWindow(0, 1000),
        device="cpu", skip_bad=True,
    )  # fmt: skip
    report = publish(source, copy, store)
    assert set(report.failed) == bad
    left = {file for unit in data.stored_images() if unit.name in bad for file in unit.files}
    assert not [file for file in left if (copy / file).exists()]
    assert {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} - {"monai_salm.json"} == {
        *data.all_files()
    } - left
    names = [unit.name for unit in data.stored_images() if unit.name not in bad]
    assert [unit.name for unit in detect(copy).stored_images() if unit.name in names] == names
    checked = verify(source, copy, store)
    assert checked.sound, checked.problems
    assert set(checked.left_out) == bad
    restored = restore(copy, back, store)
    assert set(restored.failed) <= bad
    for unit in data.stored_images():
        for file in unit.files if unit.name in names else ():
            if file.endswith((".nii.gz", ".png")):
                assert (unit.read(source) == unit.read(back)).all()
            else:
                assert (back / file).read_bytes() == (source / file).read_bytes()
    for file in set(data.all_files()) - set(data.image_files()):
        assert (back / file).read_bytes() == (source / file).read_bytes()
