"""What ``publish`` costs beside reading and rewriting the same files with nibabel, and what a second thread brings.

    python benchmarks/publish_speed.py --volumes 200 --side 128 --repeats 3

Makes int16 volumes as a scanner gives them (smooth anatomy, grain in the low bits) and their noise (random signs: what it is
made of does not matter here). Then it measures in turn, in one process: reading and rewriting with nibabel at the gzip level
that ``publish`` writes, ``publish`` with one thread, ``publish`` with two. Prints the fastest of each and the ratios.
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
from nibabel.openers import Opener
from scipy.ndimage import gaussian_filter

from monai_salm.formats.gzipped import LEVEL
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish


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


def rewrite_with_nibabel(source: Path, target: Path) -> None:
    """Read and rewrite every volume, nothing changed."""
    Opener.default_compresslevel = LEVEL
    target.mkdir()
    for path in sorted(source.glob("images/*")):
        image = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
        nibabel.save(nibabel.Nifti1Image(data, image.affine, image.header), target / path.name)


def seconds(work: Callable[[], object], output: Path) -> float:
    """Time of some work whose output is removed before it."""
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
        work: dict[str, Callable[[], object]] = {
            "nibabel": lambda: rewrite_with_nibabel(source, folder / "nibabel"),
            "jobs 1": lambda: publish(source, folder / "jobs 1", store),
            "jobs 2": lambda: publish(source, folder / "jobs 2", store, jobs=2),
        }
        best = dict.fromkeys(work, float("inf"))
        for _ in range(given.repeats):
            for name, job in work.items():
                best[name] = min(best[name], seconds(job, folder / name))
                print(f"{name}: {best[name]:.2f} s", flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"{given.volumes} volumes of {given.side}^3 int16, gzip level {LEVEL}")
    print(f"publish / nibabel: {best['jobs 1'] / best['nibabel']:.2f} (aim: at most 1.25)")
    print(f"jobs 1 / jobs 2: {best['jobs 1'] / best['jobs 2']:.2f} (aim: at least 1.7)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
