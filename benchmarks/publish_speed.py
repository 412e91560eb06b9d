"""What ``publish`` and ``verify`` cost beside the work that nothing spares them, and what a second thread brings.

    python benchmarks/publish_speed.py --volumes 200 --side 128 --repeats 3

Makes int16 volumes as a scanner gives them (smooth anatomy, grain in the low bits) and their noise (random signs: what it is
made of does not matter here). Then it measures in turn, in one process: reading, unpacking, packing and writing by the library
that ``publish`` uses, ``publish``, reading and unpacking both files, ``verify``, and ``publish`` with two threads. Prints the
least processor time of each (for two threads the time too) and the ratios.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from monai_salm.formats.gzipped import open_gzip, pack
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, verify
from monai_salm.shared.files import atomic_file


def make_volumes(root: Path, volumes: int, side: int) -> Path:
    """A datalist folder of int16 volumes with class labels."""
    rng, listing = np.random.default_rng(0), []
    (root / "images").mkdir(parents=True)
    anatomy = gaussian_filter(rng.normal(0, 1, (side,) * 3), side / 16)
    anatomy = 1000 * anatomy / anatomy.std()
    for index in range(volumes):
        image = np.roll(anatomy, 3 * index, axis=index % 3) + rng.normal(0, 12, anatomy.shape)
        file = f"images/v{index:03d}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), np.diag([1, 1, 1.5, 1])), root / file)
        listing.append({"image": file, "label": index % 2})
    (root / "dataset.json").write_text(json.dumps({"training": listing}))
    return root


def unpacked(path: Path) -> bytearray:
    """The bytes of a gzip file."""
    content = bytearray()
    with open_gzip(path) as file:
        while part := file.read(1 << 20):
            content += part
    return content


def rewrite(source: Path, target: Path) -> None:
    """Read, unpack, pack and write every volume, nothing changed."""
    target.mkdir()
    for path in sorted(source.glob("images/*")):
        packed = pack(unpacked(path))
        with atomic_file(target / path.name, size=len(packed)) as file:
            file.write(packed)


def unpack(*folders: Path) -> None:
    """Read and unpack every volume of some folders."""
    for folder in folders:
        for path in sorted(folder.glob("images/*")):
            unpacked(path)


def seconds(work: Callable[[], object], output: Path | None) -> tuple[float, float]:
    """Processor time and time of some work; its output is removed before it."""
    if output is not None:
        shutil.rmtree(output, ignore_errors=True)
    busy, start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - busy, time.perf_counter() - start


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of measuring, each in turn")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="publish-speed-"))
    try:
        source = make_volumes(folder / "set", given.volumes, given.side)
        data, store = detect(source), folder / "noise.db"
        window = IntensityWindow(-3000, 3000)
        precompute(data.dataset(), store, method=RandomNoise(), task=data.task(), window=window, device="cpu")
        copy = folder / "publish"
        work: dict[str, tuple[Callable[[], object], Path | None]] = {
            "rewrite": (lambda: rewrite(source, folder / "rewrite"), folder / "rewrite"),
            "publish": (lambda: publish(source, copy, store), copy),
            "unpack": (lambda: unpack(source, copy), None),
            "verify": (lambda: verify(source, copy, store).require(), None),
            "publish, 2 threads": (lambda: publish(source, folder / "two", store, jobs=2), folder / "two"),
        }
        best: dict[str, tuple[float, float]] = {}
        for _ in range(given.repeats):
            for name, (job, output) in work.items():
                found = seconds(job, output)
                best[name] = min(best.get(name, found), found)
                print(f"{name}: {best[name][0]:.2f} s of processor time, {best[name][1]:.2f} s", flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"{given.volumes} volumes of {given.side}^3 int16")
    for name, least in (("publish", "rewrite"), ("verify", "unpack")):
        print(f"{name} / {least}: {best[name][0] / best[least][0]:.2f} (aim: at most 1.15)")
    print(f"1 thread / 2 threads: {best['publish'][1] / best['publish, 2 threads'][1]:.2f} (aim: at least 1.7)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
