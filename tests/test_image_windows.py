"""Noise is a share of what each image shows: sets of several scanners, depths, units and kinds of padding, from files to copies."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from layout_samples import save_dicom, save_json, save_nifti
from PIL import Image
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import SALM, ClassTexture, Method, RandomNoise
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import FixedWindow, WindowRule
from monai_salm.publishing import noise_statistics, publish, restore, verify
from monai_salm.store.store import NoiseStore

METHODS: dict[str, Method] = {
    "random": RandomNoise(),
    "salm": SALM(perturbation=ClassTexture(surrogate_steps=2)),
}
SIDE = 12


def anatomy(seed: int, high: float, low: float = 0.0, side: int = SIDE, rank: int = 3) -> np.ndarray:
    """Something smooth with grain, from ``low`` to ``high``."""
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*[np.linspace(0, np.pi, side)] * rank, indexing="ij")
    values = np.prod([np.sin(place + seed % 3) ** 2 for place in places], axis=0) + rng.uniform(0, 0.5, [side] * rank)
    values -= values.min()
    return low + (high - low) * values / values.max()


def listed(root: Path, files: Sequence[str]) -> Path:
    """A MONAI datalist of files, classes in turn."""
    save_json(root / "dataset.json", {"training": [{"image": f, "label": i % 2} for i, f in enumerate(files)]})
    return root


def scaled(path: Path, slope: float, intercept: float) -> None:
    """Set ``scl_slope`` and ``scl_inter`` of a NIfTI file; nibabel keeps them for reading only."""
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", slope, intercept)
    path.write_bytes(content)


def make(root: Path, method: Method | None = None, window: WindowRule | None = None, **settings: Any) -> NoiseStore:
    data = detect(root)
    settings = {"task": data.task(), "device": "cpu", "width": 0.05, "surrogate": "resnet10", **settings}
    return precompute(
        data.dataset(), root.parent / "noise.db", method=method or RandomNoise(), window=window, **settings
    )


def copy_of(root: Path, store: NoiseStore) -> Path:
    """The published copy, which was verified and gives back the originals."""
    output = root.parent / "copy"
    assert publish(root, output, store).ok
    assert verify(root, output, store).problems == []
    assert restore(output, root.parent / "back", store).ok
    for before, after in zip(detect(root).dataset(), detect(root.parent / "back").dataset(), strict=True):
        assert before["image"].tobytes() == after["image"].tobytes()
    return output


def shares(root: Path, output: Path) -> Iterator[tuple[str, list[float]]]:
    """Largest change of each image and channel, as a share of that channel's range from percentile 0.5 to 99.5."""
    for before, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        changed = np.abs(after["image"].astype(float) - before["image"].astype(float))
        ranges = [np.percentile(channel, 99.5) - np.percentile(channel, 0.5) for channel in before["image"]]
        yield before["name"], [float(part.max() / width) for part, width in zip(changed, ranges, strict=True)]


def require_budget(root: Path, output: Path, store: NoiseStore) -> None:
    found = dict(shares(root, output))
    assert found
    for name, channels in found.items():
        for share in channels:
            assert 4 / 255 <= share <= 8 / 255 * (1 + 1e-5), name
    assert noise_statistics(store)["worst"]["psnr"] >= 29.9


@pytest.mark.parametrize("method", METHODS)
def test_volumes_of_several_scanners(method: str, tmp_path: Path) -> None:
    kinds = [(110, "uint8"), (1000, "float32"), (600_000, "float32"), (3000, "int16")]
    files = []
    for index, (high, dtype) in enumerate(kinds * 2):
        files.append(f"{index}.nii.gz")
        save_nifti(tmp_path / "set" / files[-1], anatomy(index, high).astype(dtype))
    root = listed(tmp_path / "set", files)
    store = make(root, METHODS[method])
    require_budget(root, copy_of(root, store), store)


@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_8_and_of_16_bits(method: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for index in range(6):
        folder = root / ("benign", "malignant")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = anatomy(index, 255, side=16, rank=2) if index < 3 else anatomy(index, 60_000, side=16, rank=2)
        Image.fromarray(np.rint(values).astype("uint8" if index < 3 else "uint16")).save(folder / f"{index}.png")
    store = make(root, METHODS[method])
    output = copy_of(root, store)
    for case, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        changed = np.abs(after["image"].astype(float) - case["image"].astype(float)).max()
        low, high = (0, 255) if case["image"].dtype == np.uint8 else np.percentile(case["image"], [0.5, 99.5])
        assert 7 / 255 <= changed / (high - low) <= 8 / 255, case["name"]


@pytest.mark.parametrize("method", METHODS)
def test_ct_beside_pet(method: str, tmp_path: Path) -> None:
    """Each channel has a budget of its own: Hounsfield units, and PET of other units in each scan."""
    root = tmp_path / "set"
    for index, activity in enumerate((8.0, 40_000.0, 0.02, 500_000.0)):
        ct, pet = anatomy(index, 1000, -1000), anatomy(index + 9, activity)
        save_nifti(root / "imagesTr" / f"p{index}_0000.nii.gz", ct.astype("float32"))
        save_nifti(root / "imagesTr" / f"p{index}_0001.nii.gz", pet.astype("float32"))
        save_nifti(root / "labelsTr" / f"p{index}.nii.gz", (ct > 0).astype("uint8"))
    content = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "organ": 1}}
    save_json(root / "dataset.json", {**content, "numTraining": 4, "file_ending": ".nii.gz"})
    store = make(root, METHODS[method], surrogate="unet")
    output = copy_of(root, store)
    for before, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        changed = np.abs(after["image"].astype(float) - before["image"].astype(float))
        ct, pet = before["image"]
        assert 7.9 / 255 * 400 <= changed[0].max() <= 8 / 255 * 400 * (1 + 1e-5)
        assert not changed[0][(ct < -160) | (ct > 240)].any(), "outside the window of CT nothing changes"
        width = np.percentile(pet, 99.5) - np.percentile(pet, 0.5)
        assert 4 / 255 * width <= changed[1].max() <= 8 / 255 * width * (1 + 1e-5)


def test_scans_with_a_slope_each(tmp_path: Path) -> None:
    """The same anatomy, stored with three slopes: the noise is the same in real units."""
    files, values = [], anatomy(0, 2000)
    for slope in (0.5, 1.0, 4.0):
        files.append(f"{slope}.nii")
        noisy = values + np.random.default_rng(len(files)).uniform(0, 8, values.shape)
        save_nifti(tmp_path / "set" / files[-1], np.rint(noisy / slope).astype("int16"))
        scaled(tmp_path / "set" / files[-1], slope, 0.0)
    root = listed(tmp_path / "set", files)
    for window in (None, FixedWindow(0, 2000)):
        store = make(root, window=window, overwrite=True)
        for case in detect(root).dataset():
            noise, slope = store[content_digest(case["image"])], case["units"].slope
            assert isinstance(slope, float)
            real = np.abs(noise.codes).max() * noise.quantum * slope
            if window is None:  # a little less than the whole range, and whole steps of up to 4
                assert 46 <= real <= 8 / 255 * 2010, case["name"]
            else:
                assert 8 / 255 * 2000 - slope <= real <= 8 / 255 * 2000, case["name"]


@pytest.mark.parametrize("padding", [-2000.0, np.nan, -3.4e38])
@pytest.mark.parametrize("method", METHODS)
def test_padding_has_no_noise_and_widens_no_window(method: str, padding: float, tmp_path: Path) -> None:
    files, outside = [], np.ones([SIDE] * 3, bool)
    outside[2:-2, 2:-2, 2:-2] = False
    for index in range(4):
        files.append(f"{index}.nii.gz")
        values = np.where(outside, padding, anatomy(index, 300)).astype("float32")
        save_nifti(tmp_path / "set" / files[-1], values)
    root = listed(tmp_path / "set", files)
    store = make(root, METHODS[method])
    output = copy_of(root, store)
    for before, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        old, new = before["image"][0], after["image"][0]
        assert old[outside].tobytes() == new[outside].tobytes()
        width = np.percentile(old[~outside], 99.5) - np.percentile(old[~outside], 0.5)
        assert 4 / 255 * width <= np.abs(new - old)[~outside].max() <= 8 / 255 * width * (1 + 1e-5)


@pytest.mark.parametrize(("implicit", "lowest"), [(False, -2000), (True, -2000), (False, -2010)])
def test_dicom_names_its_padding_and_its_bits(implicit: bool, lowest: int, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    rng, root = np.random.default_rng(0), tmp_path / "set"
    for index in range(4):
        pixels = np.rint(anatomy(index, 2047, -1024, side=16, rank=2)).astype("int16")
        outside = rng.random(pixels.shape) < 0.1  # not a border: only the header tells
        pixels[outside] = rng.integers(lowest, -1999, outside.sum())
        path = root / ("benign", "malignant")[index % 2] / f"{index}.dcm"
        values = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "PixelPaddingValue": -2000}
        if lowest < -2000:
            values["PixelPaddingRangeLimit"] = lowest
        save_dicom(
            path, f"1.2.3.{index + 1}", patient=f"p{index}", Rows=16, Columns=16, PixelData=pixels.tobytes(), **values
        )
        if implicit:  # there the sign of the padding shows only in another element
            data = pydicom.dcmread(path)
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            data.save_as(path)
    store = make(root, RandomNoise(epsilon=0.05), window=FixedWindow(-4000, 4000))
    output = copy_of(root, store)
    for before, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        padded = before["image"] <= -2000
        assert padded.any()
        assert (after["image"] == before["image"])[padded].all()
        assert after["image"].max() <= 2047, "12 bits hold no more"
        assert (after["image"] != before["image"])[~padded].mean() > 0.9


def test_an_image_without_room_for_noise_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    files = []
    for index, high in enumerate((1000, 20, 1000, 1000)):  # 8/255 of 20 is less than one
        files.append(f"{index}.nii.gz")
        save_nifti(tmp_path / "set" / files[-1], np.rint(anatomy(index, high)).astype("int16"))
    root = listed(tmp_path / "set", files)
    with pytest.raises(ValueError, match=r"1\.nii\.gz.*below one step of int16"):
        make(root)
    store = make(root, skip_bad=True)
    (skipped,) = store.meta["skipped"]
    assert skipped["name"] == "1.nii.gz"
    assert "epsilon" in skipped["reason"]
    assert "below one step" in skipped["reason"]
    assert len(store) == 3
    report = publish(root, tmp_path / "copy", store)
    assert set(report.failed) == {"1.nii.gz"}
    assert not (tmp_path / "copy" / "1.nii.gz").exists(), "no original leaves unprotected"


def hounsfield(folder: Path, kind: str) -> Path:
    """CT of half Hounsfield units from -1024 on, as NIfTI with a slope or as DICOM."""
    files = []
    for index in range(4):
        stored = np.random.default_rng(index).integers(0, 4000, (16, 16, 8)).astype("int16")
        if kind == "nifti":
            files.append(f"{index}.nii")
            save_nifti(folder / files[-1], stored)
            scaled(folder / files[-1], 0.5, -1024)
            continue
        for number in range(8):
            values = {"Rows": 16, "Columns": 16, "PixelData": stored[..., number].tobytes(), "PixelRepresentation": 1}
            rescale = {"RescaleSlope": "0.5", "RescaleIntercept": "-1024", "Modality": "CT"}
            place = folder / ("benign", "malignant")[index % 2] / f"s{index}" / f"IM{number}"
            save_dicom(place, f"1.2.3.{index + 1}", number + 1, f"p{index}", **values, **rescale)
    return listed(folder, files) if kind == "nifti" else folder


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_a_window_is_given_in_hounsfield_units(kind: str, tmp_path: Path) -> None:
    if kind == "dicom":
        pytest.importorskip("pydicom")
    root, output, store = hounsfield(tmp_path / "set", kind), tmp_path / "copy", tmp_path / "noise.db"
    options = ["--method", "random_noise", "--window=-160,240", "--device", "cpu", "--json"]
    shown = json.loads(CliRunner().invoke(app, ["plan", str(root), *options]).stdout)
    for image in shown["noise"]:
        assert image["window"] == [[-160, 240]]
        assert image["noise"] == [12.5], "8/255 of 400 HU, in steps of half a unit"
    if kind == "dicom":  # whose header names CT, so that the same window is chosen
        unsaid = json.loads(CliRunner().invoke(app, ["plan", str(root), *options[:2], *options[3:]]).stdout)
        assert unsaid["noise"] == shown["noise"]
    made = CliRunner().invoke(app, ["protect", str(root), str(output), "--store", str(store), *options])
    assert made.exit_code == 0, made.output
    for before, after in zip(detect(root).dataset(), detect(output).dataset(), strict=True):
        real, changed = (case["image"].astype(float) / 2 - 1024 for case in (before, after))
        inside = (real >= -160) & (real <= 240)
        assert np.abs(changed - real).max() == 12.5
        assert (changed == real)[~inside].all()
        assert (changed != real)[inside].mean() > 0.9


def test_a_rule_for_each_channel_and_percentiles_on_the_command_line(tmp_path: Path) -> None:
    root, files = tmp_path / "set", []
    for index in range(2):
        files.append(f"{index}.nii.gz")
        channels = [anatomy(index, 1000, -1000), anatomy(index + 5, 50_000)]
        save_nifti(root / files[-1], np.stack(channels, axis=-1).astype("float32"))
    listed(root, files)
    options = ["--method", "random_noise", "--device", "cpu", "--json", "--window=-160,240;percentile:5,95"]
    shown = json.loads(CliRunner().invoke(app, ["plan", str(root), *options]).stdout)
    for image, case in zip(shown["noise"], detect(root).dataset(), strict=True):
        assert image["window"][0] == [-160, 240]
        assert image["window"][1] == pytest.approx(np.percentile(case["image"][1], [5, 95]).tolist())


def test_nibabel_reads_the_noise_in_real_units(tmp_path: Path) -> None:
    """What a reader sees of the copy differs from the original by a share of what the original shows."""
    root = listed(tmp_path / "set", ["a.nii", "b.nii"])
    for index, file in enumerate(("a.nii", "b.nii")):
        save_nifti(root / file, np.rint(anatomy(index, 30_000)).astype("int16"))
        scaled(root / file, (0.001, 20.0)[index], -5.0)
    output = copy_of(root, make(root))
    for file in ("a.nii", "b.nii"):
        before, after = (nibabel.load(folder / file).get_fdata() for folder in (root, output))
        width = np.percentile(before, 99.5) - np.percentile(before, 0.5)
        assert 7.5 / 255 <= np.abs(after - before).max() / width <= 8 / 255 * (1 + 1e-6)
