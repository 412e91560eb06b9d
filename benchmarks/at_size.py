"""Time and peak memory of every verb on sets of the size that hospitals have, beside the work that nobody can avoid.

    python benchmarks/at_size.py --scale 0.1 --sets ct,png

Makes data in real formats: CT of 512 x 512 x 300 as NIfTI and as DICOM series, grey PNG of 1024 x 1024, volumes with label maps,
and an archive of 224 x 224. The command line then runs ``plan``, ``generate``, ``publish``, ``verify`` and ``restore`` with their
defaults, each in a process of its own. ``peak MB`` is the largest resident memory of that process, pages of memory-mapped files
included; ``start`` is a process that imports the package and does nothing. The unavoidable work of a set, also in a process of its
own: ``read`` opens every image once with the library that the package uses, ``rewrite`` opens it and writes it again. ``beside`` is
a verb's processor time, without that of ``start``, as a multiple of such work: ``plan``, ``generate`` and ``verify`` beside reading
twice, ``publish`` and ``restore`` beside rewriting. Processor time is compared, since other work on a machine disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from nibabel.openers import Opener
from PIL import Image

#: The gzip level of copies.
LEVEL = 1
VERBS = ("plan", "generate", "publish", "verify", "restore")
#: Passes of reading, and of rewriting, that a verb is compared with.
BESIDE = {"plan": (2, 0), "generate": (2, 0), "publish": (0, 1), "verify": (2, 0), "restore": (0, 1)}


def anatomy(shape: Sequence[int], number: int) -> np.ndarray:
    """Smooth structure in [-1, 1] in a body, less outside: waves along all axes, another mixture for each case."""
    rng, total = np.random.default_rng(number), np.zeros(shape, np.float32)
    places = [np.linspace(-1, 1, side, dtype=np.float32) for side in shape]
    grids = np.meshgrid(*places, indexing="ij", sparse=True)
    for _ in range(4):
        wave = np.float32(0.25)
        for grid in grids:
            wave = wave * np.cos(np.float32(rng.uniform(1, 9)) * grid + np.float32(rng.uniform(0, 6)))
        total += wave
    body = places[0][:, None] ** 2 + places[1] ** 2 < rng.uniform(0.6, 0.9)
    total[~body] = -4
    return total


def stored(shape: Sequence[int], number: int, scale: float, grain: float, dtype: type) -> np.ndarray:
    """``anatomy`` with a scanner's grain, as stored numbers."""
    values = anatomy(shape, number)
    values *= np.float32(scale)
    values += np.random.default_rng(number).standard_normal(shape, np.float32) * np.float32(grain)
    info = np.iinfo(dtype)
    return np.clip(values, info.min, info.max).astype(dtype)


def ct(shape: Sequence[int], number: int) -> np.ndarray:
    """A CT in Hounsfield units."""
    return np.maximum(stored(shape, number, 250, 12, np.int16), -1000)


def save_nifti(path: Path, image: np.ndarray) -> None:
    """A volume with voxels of 0.8 x 0.8 x 1.5 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([0.8, 0.8, 1.5, 1.0])), path)


def save_series(folder: Path, image: np.ndarray) -> None:
    """A CT as a DICOM series, one slice a file."""
    folder.mkdir(parents=True)
    series = pydicom.uid.generate_uid()
    for number in range(image.shape[2]):
        slices = pydicom.Dataset()
        slices.file_meta = pydicom.dataset.FileMetaDataset()
        slices.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        slices.SOPClassUID, slices.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
        slices.SeriesInstanceUID = slices.StudyInstanceUID = slices.FrameOfReferenceUID = series
        slices.PatientID, slices.Modality, slices.InstanceNumber = folder.name, "CT", number + 1
        slices.ImagePositionPatient, slices.ImageOrientationPatient = [0, 0, 1.5 * number], [1, 0, 0, 0, 1, 0]
        slices.PixelSpacing, slices.SliceThickness = [0.8, 0.8], 1.5
        slices.RescaleSlope, slices.RescaleIntercept, slices.RescaleType = 1, -1024, "HU"
        slices.Rows, slices.Columns, slices.SamplesPerPixel = image.shape[0], image.shape[1], 1
        slices.PhotometricInterpretation = "MONOCHROME2"
        slices.BitsAllocated, slices.BitsStored, slices.HighBit, slices.PixelRepresentation = 16, 12, 11, 0
        pixels = np.clip(image[:, :, number].astype(np.int32) + 1024, 0, 4095).astype("<u2")
        slices.PixelData = pixels.tobytes()
        slices.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def make_ct(root: Path, cases: int, shape: Sequence[int]) -> None:
    """A folder for each class."""
    for number in range(cases):
        save_nifti(root / f"class_{number % 2}" / f"ct_{number:04d}.nii.gz", ct(shape, number))


def make_dicom(root: Path, cases: int, shape: Sequence[int]) -> None:
    """A folder for each class, and in it one for each series."""
    for number in range(cases):
        save_series(root / f"class_{number % 2}" / f"p{number:04d}", ct(shape, number))


def make_maps(root: Path, cases: int, shape: Sequence[int]) -> None:
    """nnU-Net's folders: volumes with a label map of three classes."""
    for number in range(cases):
        image = stored(shape, number, 300, 15, np.int16)
        save_nifti(root / "imagesTr" / f"case_{number:04d}_0000.nii.gz", image)
        smooth = anatomy(shape, number)
        save_nifti(root / "labelsTr" / f"case_{number:04d}.nii.gz", ((smooth > 0.2) + (smooth > 0.4)).astype(np.uint8))
    labels = {"background": 0, "organ": 1, "tumour": 2}
    described = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))


def make_png(root: Path, cases: int, shape: Sequence[int]) -> None:
    """A folder for each class."""
    for number in range(cases):
        folder = root / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(stored(shape, number, 60, 3, np.int16).clip(-100, 155).astype(np.int16) + 100)
        image.convert("L").save(folder / f"x_{number:06d}.png", compress_level=LEVEL)


def make_archive(root: Path, cases: int, shape: Sequence[int]) -> None:
    """An archive with MedMNIST's keys, not compressed."""
    images = np.empty((cases, *shape), np.uint8)
    for number in range(cases):
        images[number] = np.clip(stored(shape, number, 60, 3, np.int16) + 100, 0, 255)
    root.mkdir()
    tests = images[: max(2, cases // 10)]
    labels = np.arange(cases)[:, None] % 2
    np.savez(
        root / "set.npz", train_images=images, train_labels=labels, test_images=tests, test_labels=labels[: len(tests)]
    )


#: Name -> maker, cases and shape at scale 1, pattern of its image files.
SETS: dict[str, tuple[Callable[[Path, int, Sequence[int]], None], int, tuple[int, ...], str]] = {
    "ct": (make_ct, 20, (512, 512, 300), "*/*.nii.gz"),
    "dicom": (make_dicom, 20, (512, 512, 300), "*/*/*.dcm"),
    "maps": (make_maps, 50, (256, 256, 128), "imagesTr/*.nii.gz"),
    "png": (make_png, 2000, (1024, 1024), "*/*.png"),
    "archive": (make_archive, 20_000, (224, 224), "set.npz"),
}


def bare(source: Path, pattern: str, target: Path | None) -> None:
    """Read every image of a set, and write it again where a target is given."""
    Opener.default_compresslevel = LEVEL
    for path in sorted(source.glob(pattern)):
        copy = None if target is None else target / path.relative_to(source)
        if copy is not None:
            copy.parent.mkdir(parents=True, exist_ok=True)
        _rewrite(path, copy)


def _rewrite(path: Path, copy: Path | None) -> None:
    if path.suffix == ".gz":
        volume = nibabel.load(path)
        data = np.asanyarray(volume.dataobj)
        if copy is not None:
            nibabel.save(nibabel.Nifti1Image(data, volume.affine, volume.header), copy)
    elif path.suffix == ".dcm":
        series = pydicom.dcmread(path)
        pixels = series.pixel_array
        if copy is not None:
            series.PixelData = pixels.tobytes()
            series.save_as(copy)
    elif path.suffix == ".png":
        image = Image.open(path)
        image.load()
        if copy is not None:
            image.save(copy)
    else:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if copy is not None:
            np.savez(copy, **found)


def in_child(command: Sequence[str], log: Path) -> dict[str, float]:
    """Time, processor time and largest resident memory of a command in a process of its own."""
    package = str(Path(__file__).resolve().parents[1])
    with open(log, "wb") as output:
        started = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": package}
        child = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text()[-2000:]}")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu seconds": used.ru_utime + used.ru_stime, "peak MB": used.ru_maxrss / 1000}


def stages(name: str, source: Path, work: Path, verbs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for the unavoidable work and for each verb on a set."""
    single = name == "archive"
    given, copy = source / "set.npz" if single else source, work / ("copy.npz" if single else "copy")
    store = ["--store", str(work / "noise.db")]
    bare_work = [__file__, "--bare", str(source), SETS[name][3]]
    calls = {
        "start": ["-c", "import monai_salm.generate.precompute"],
        "read": bare_work,
        "rewrite": [*bare_work, str(work / "rewritten")],
        "plan": [str(given)],
        "generate": [str(given), *store],
        "publish": [str(given), str(copy), *store],
        "verify": [str(given), str(copy), *store],
        "restore": [str(copy), str(work / f"restored{copy.suffix}"), *store],
    }
    took: dict[str, float] = {}
    for stage in ("start", "read", "rewrite", *verbs):
        verb = stage in VERBS
        command = ["-m", "monai_salm", stage, *calls[stage], "--json", "--quiet"] if verb else calls[stage]
        row = in_child(command, work / "log")
        took[stage] = row["cpu seconds"]
        beside = {}
        if verb:
            unavoidable = sum(
                times * took[kind] for times, kind in zip(BESIDE[stage], ("read", "rewrite"), strict=True)
            )
            beside = {"beside": (took[stage] - took["start"]) / unavoidable}
        yield {"stage": stage, **row, **beside}


def measure(
    names: Sequence[str], scale: float, sides: float, verbs: Sequence[str], data: Path | None
) -> dict[str, Any]:
    """All rows of all sets.

    Args:
        names: of ``SETS``.
        scale: share of the cases of each set.
        sides: share of the sides of each image.
        verbs: which to run.
        data: folder that keeps the made data; None is one for this call alone.
    """
    rows = []
    for name in names:
        _, most, whole, _ = SETS[name]
        cases, shape = max(4, round(most * scale)), tuple(max(8, round(side * sides)) for side in whole)
        with tempfile.TemporaryDirectory(prefix="at-size-") as folder:
            work = Path(folder)
            source = (data or work) / f"{name}-{cases}-{'x'.join(map(str, shape))}"
            if not source.exists():
                # In a child, too: the system counts this process' largest memory as that of each child it starts.
                in_child([__file__, "--make", name, str(source), str(cases), *map(str, shape)], work / "log")
            facts = {"cases": cases, "shape": " x ".join(map(str, shape))}
            for row in stages(name, source, work, verbs):
                rows.append({"set": name, **facts, **row})
                print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in rows[-1].items()))
                sys.stdout.flush()
            shutil.rmtree(work / "rewritten", ignore_errors=True)
    highest = max(row["peak MB"] for row in rows if row["stage"] in ("generate", "plan"))
    return {"aim": "plan and generate below 2000 MB", "highest of these, MB": highest, "table": rows}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="which, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases of each set; at least 4 are made")
    parser.add_argument("--sides", type=float, default=1.0, help="share of the sides of each image")
    parser.add_argument("--verbs", default=",".join(VERBS), help="which, separated by commas, in this order")
    parser.add_argument("--data", type=Path, help="folder that keeps the made data for later calls")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--bare", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.make:
        name, place, cases, *shape = given.make
        unfinished = Path(place).with_name("unfinished")
        SETS[name][0](unfinished, int(cases), [int(side) for side in shape])
        unfinished.rename(place)
        return 0
    if given.bare:
        bare(Path(given.bare[0]), given.bare[1], Path(given.bare[2]) if len(given.bare) > 2 else None)
        return 0
    names, verbs = given.sets.split(","), given.verbs.split(",")
    unknown = [word for word in names if word not in SETS] + [word for word in verbs if word not in VERBS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join([*SETS, *VERBS])}")
    if given.data:
        given.data.mkdir(parents=True, exist_ok=True)
    result = measure(names, given.scale, given.sides, verbs, given.data)
    if given.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
