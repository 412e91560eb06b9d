"""The commonest kind of image decides; images that are grey in several channels are grey where others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_samples import build_image_folder, random_image, save_nifti, save_png
from PIL import Image

from monai_salm.data.scan import scan
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.learning.tasks import Classification
from monai_salm.methods import RandomNoise
from monai_salm.noise.kinds import Kind, as_kind, commonest_kind, one_channel
from monai_salm.noise.window import AutomaticWindow
from monai_salm.publishing import PublishReport, plan, publish, restore, verify

METHOD = RandomNoise(epsilon=0.1)


def protect(root: Path) -> PublishReport:
    """Protect a data set, as ``plan`` says, prove it and restore it voxel for voxel."""
    data = detect(root)
    refused = plan(root, method=METHOD, device="cpu").refused
    store = precompute(
        data.dataset(), root.with_name("n.db"), method=METHOD, task=data.task(), device="cpu", skip_bad=True
    )
    report = publish(root, root.with_name("out"), store)
    assert set(refused) == set(report.failed)
    assert verify(root, root.with_name("out"), store).sound
    restore(root.with_name("out"), root.with_name("back"), store)
    for file in (
        path.relative_to(root) for path in root.rglob("*.png") if path.relative_to(root).as_posix() not in refused
    ):
        before, after, back = (
            np.asarray(Image.open(place / file)) for place in (root, root.with_name("out"), root.with_name("back"))
        )
        assert (before != after).any(), file
        assert np.array_equal(before, back), file
    return report


def test_most_images_decide_and_not_the_first(tmp_path: Path) -> None:
    root = build_image_folder(tmp_path / "set", count=3)
    save_png(root / "bad/bad0.png", 90, (8, 7, 3))
    report = protect(root)
    assert report.images == 5
    assert list(report.failed) == ["bad/bad0.png"]
    assert "3 channels, most images have 1 channel" in report.failed["bad/bad0.png"]


def test_grey_images_stored_as_colour_are_protected_among_grey_ones(tmp_path: Path) -> None:
    root = build_image_folder(tmp_path / "set", count=3)
    for name in ("bad0", "ok1", "ok2"):
        path = next(root.rglob(f"{name}.png"))
        Image.fromarray(np.stack([np.asarray(Image.open(path))] * 3, -1)).save(path)
    report = protect(root)
    assert (report.images, report.failed) == (6, {})
    copy = np.asarray(Image.open(root.with_name("out") / "ok/ok1.png"))
    assert copy.ndim == 3
    assert (copy == copy[..., :1]).all()


def test_verify_finds_a_channel_that_was_changed_alone(tmp_path: Path) -> None:
    root = build_image_folder(tmp_path / "set", count=3)
    path = root / "ok/ok1.png"
    Image.fromarray(np.stack([np.asarray(Image.open(path))] * 3, -1)).save(path)
    protect(root)
    copy = tmp_path / "out/ok/ok1.png"
    voxels = np.array(Image.open(copy))
    voxels[0, 0, 1] ^= 1
    Image.fromarray(voxels).save(copy)
    assert any("ok/ok1.png" in problem for problem in verify(root, tmp_path / "out", tmp_path / "n.db").problems)


def test_grey_among_colour_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for seed, name in enumerate(("a/a0", "a/a1", "a/a2", "b/b0", "b/b1")):
        save_png(root / f"{name}.png", seed, (8, 7, 3))
    save_png(root / "a/grey.png", 50)
    Image.fromarray(np.full((8, 7, 3), np.arange(7)[:, None] * 30, np.uint8)).save(root / "b/equal.png")
    assert list(protect(root).failed) == ["a/grey.png"]


def test_a_flat_image_among_volumes_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for seed, name in enumerate(("a/a0", "a/a1", "b/b0", "b/b1")):
        save_nifti(root / f"{name}.nii.gz", random_image(seed, (12, 11, 10)))
    save_nifti(root / "a/_first.nii.gz", random_image(50, (12, 11)))
    assert len(detect(root).image_size()) == 3
    report = protect(root)
    assert list(report.failed) == ["a/_first.nii.gz"]
    assert "2D and 3D mixed" in report.failed["a/_first.nii.gz"]


GREY, COLOUR = np.arange(64).reshape(1, 8, 8), np.arange(192).reshape(3, 8, 8)
EQUAL = np.repeat(GREY, 3, 0)


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        ([COLOUR, GREY, GREY], (2, 1)),
        ([COLOUR, COLOUR, GREY], (2, 3)),
        ([EQUAL, EQUAL, EQUAL], (2, 3)),  # nothing to be alike with
        ([EQUAL, EQUAL, EQUAL, GREY], (2, 1)),
        ([EQUAL, COLOUR, COLOUR, GREY], (2, 3)),
        ([None, GREY[None], GREY], (3, 1)),
        ([None, None], None),
        ([COLOUR] * 30 + [GREY] * 31, (2, 1)),  # more than are looked at first, and too close
        ([GREY] * 10 + [COLOUR] * 1000, (2, 3)),
    ],
)
def test_commonest_kind(images: list[np.ndarray | None], kind: Kind | None) -> None:
    assert commonest_kind(lambda index: images[index], len(images)) == kind


def test_few_images_of_a_large_data_set_are_read_to_tell() -> None:
    read: list[int] = []
    assert commonest_kind(lambda index: read.append(index) or GREY, 10_000) == (2, 1)
    assert len(read) < 50
    assert max(read) > 4000


def test_one_channel() -> None:
    assert np.array_equal(one_channel(EQUAL), GREY)
    assert one_channel(COLOUR) is None
    assert one_channel(GREY) is None
    holes = np.full((2, 3, 3), np.nan)
    assert one_channel(holes) is not None
    assert as_kind(EQUAL, (2, 3)) is EQUAL
    assert as_kind(COLOUR, (2, 1)) is COLOUR


def test_each_odd_image_is_listed_once_with_its_reason() -> None:
    cases = [{"image": image.astype(np.uint8), "label": number % 2, "name": str(number)}
             for number, image in enumerate([COLOUR, GREY, GREY + 1, GREY[None], EQUAL + 2])]  # fmt: skip
    skipped: dict[str, str] = {}
    found = list(scan(cases, Classification(num_classes=2), AutomaticWindow(), 0.1, "image", "label", skipped))
    assert [case.name for case in found] == ["1", "2", "4"]
    assert {case.image.shape for case in found} == {(1, 8, 8)}
    assert set(skipped) == {"0", "3"}
