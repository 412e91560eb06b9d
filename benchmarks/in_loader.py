"""What ``SALMProtectd`` costs in a loader, beside ``LoadImaged``.

    python benchmarks/in_loader.py [--repeats 15] [--volumes 3] [--shape 256 256 128] [--json]

Volumes: int16 in .nii.gz as nibabel writes them, smooth anatomy with a scanner's noise. ``LoadImaged`` alone and with
``SALMProtectd`` after it are timed in turn on the same file, and the time of the second step alone is taken inside the chain.
Small images: 28x28, as uint8 arrays and as the float32 ``MetaTensor`` that ``LoadImaged`` makes of a PNG file. The store is
open before. Medians are told; on a machine that others use, processor time and the smallest times say what the work itself takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import LoadImaged
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.noise import Noise
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.store import NoiseStore
from monai_salm.transforms import SALMProtectd

SHAPE = (256, 256, 128)
BUDGET = 8


def budget(dtype: str) -> Budget:
    """What drawn noise of a type keeps to; the window does not matter here."""
    return Budget(IntensityWindow(0, 255), Grid(dtype, 1.0, (BUDGET,)))


def protected_codes(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Codes as SALM leaves them: 0 on a fifth of the elements, plus or minus the budget elsewhere."""
    signs = rng.integers(0, 2, shape, np.int8) * 2 - 1
    return (signs * (rng.random(shape) < 0.8) * BUDGET).astype(np.int8)


def make_volumes(folder: Path, shape: Sequence[int], count: int) -> tuple[list[dict[str, str]], NoiseStore]:
    """Files of volumes, and the store of their noise."""
    rng, items = np.random.default_rng(0), []
    store = NoiseStore.create(folder / "noise.db", {})
    coarse = [max(4, n // 4) for n in shape]
    anatomy = zoom(gaussian_filter(rng.normal(0, 1, coarse), min(coarse) / 8), np.divide(shape, coarse), order=1)
    anatomy *= 1000 / anatomy.std()
    for index in range(count):
        image = (np.roll(anatomy, 5 * index, axis=0) + rng.normal(0, 12, shape)).astype(np.int16)
        path = folder / f"v{index}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image, np.diag([1, 1, 1.5, 1])), path)
        items.append({"image": str(path)})
        store.add([Noise.of(image[None], protected_codes(image[None].shape, rng), budget("int16"), str(path))])
    return items, store


def make_images(folder: Path, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], NoiseStore]:
    """Items of 28x28 images as arrays and as loaded from PNG files, and the store of their noise."""
    rng, arrays, files = np.random.default_rng(1), [], []
    store = NoiseStore.create(folder / "small.db", {})
    noises = []
    for index in range(count):
        image = rng.integers(20, 200, (1, 28, 28), np.uint8)
        path = folder / f"i{index}.png"
        Image.fromarray(image[0].T).save(path)  # MONAI's readers put the first axis of a picture second
        arrays.append({"image": image})
        files.append({"image": str(path)})
        noises.append(Noise.of(image, protected_codes(image.shape, rng), budget("uint8"), path.name))
    store.add(noises)
    return arrays, files, store


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Time and processor time of some work."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def measure_volumes(folder: Path, shape: Sequence[int], volumes: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of ``LoadImaged`` and of what ``SALMProtectd`` adds."""
    items, store = make_volumes(folder, shape, volumes)
    load, protect = LoadImaged("image", ensure_channel_first=True), SALMProtectd("image", store)
    protect(load(items[0]))
    measured = []
    for repeat in range(repeats * volumes):
        item, loaded = items[repeat % volumes], {}
        by_itself = seconds(lambda item=item: load(item))
        first = seconds(lambda item=item, loaded=loaded: loaded.update(load(item)))
        measured.append((by_itself, first, seconds(lambda loaded=loaded: protect(loaded))))
    alone, before, added = ([times[step][0] for times in measured] for step in range(3))
    busy, _, busy_added = (median(times[step][1] for times in measured) for step in range(3))
    return {
        "shape": list(shape),
        "runs": len(alone),
        "load_ms": 1e3 * median(alone),
        "load_and_protect_ms": 1e3 * median(map(sum, zip(before, added, strict=True))),
        "protect_ms": 1e3 * median(added),
        "load_processor_ms": 1e3 * busy,
        "protect_processor_ms": 1e3 * busy_added,
        "added_processor": busy_added / busy,
        "added": median(added) / median(alone),
        "added_smallest": min(added) / min(alone),
        "load_smallest_ms": 1e3 * min(alone),
        "protect_smallest_ms": 1e3 * min(added),
    }


def measure_images(folder: Path, count: int) -> dict[str, Any]:
    """Microseconds that ``SALMProtectd`` takes for an image of 28x28."""
    arrays, files, store = make_images(folder, count)
    load, protect = LoadImaged("image", ensure_channel_first=True), SALMProtectd("image", store)
    found: dict[str, Any] = {"images": count}
    for name, items in (("array", arrays), ("png", [load(item) for item in files])):
        for item in items[:50]:
            protect(item)
        times = [seconds(lambda item=item: protect(item))[0] for item in items]
        busy = seconds(lambda items=items: deque(map(protect, items), maxlen=0))[1] / len(items)
        found |= {f"{name}_us": 1e6 * median(times), f"{name}_smallest_us": 1e6 * min(times)}
        found |= {f"{name}_processor_us": 1e6 * busy}
    return found


def measure(shape: Sequence[int] = SHAPE, volumes: int = 3, repeats: int = 15, images: int = 500) -> dict[str, Any]:
    """What ``SALMProtectd`` adds to loading.

    Args:
        shape: of the volumes.
        volumes: files.
        repeats: times each is loaded with and without protection, in turn.
        images: of 28x28.

    Returns:
        ``{"threads", "volume": {..., "added"}, "image": {..., "array_us", "png_us"}}``.
    """
    folder = Path(tempfile.mkdtemp(prefix="in-loader-"))
    try:
        return {
            "threads": torch.get_num_threads(),
            "volume": measure_volumes(folder, shape, volumes, repeats),
            "image": measure_images(folder, images),
        }
    finally:
        shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    found = measure(given.shape, given.volumes, given.repeats)
    if given.json:
        tables = {f"{kind}_table": [found[kind]] for kind in ("volume", "image")}
        print(json.dumps({"threads": found["threads"], **tables}))
        return 0
    volume, image = found["volume"], found["image"]
    print(f"{'x'.join(map(str, volume['shape']))} int16 .nii.gz, {volume['runs']} runs, {found['threads']} threads")
    print(f"  LoadImaged             {volume['load_ms']:9.1f} ms (smallest {volume['load_smallest_ms']:.1f})")
    print(f"  SALMProtectd after it  {volume['protect_ms']:9.1f} ms (smallest {volume['protect_smallest_ms']:.1f})")
    print(
        f"  added                  {100 * volume['added']:9.1f} % (of smallest {100 * volume['added_smallest']:.1f}, of processor "
        f"time {100 * volume['added_processor']:.1f}; aim: 10)"
    )
    for name, what in (("array", "uint8 array"), ("png", "loaded from PNG")):
        smallest, busy = image[f"{name}_smallest_us"], image[f"{name}_processor_us"]
        print(f"28x28 {what:16} {image[name + '_us']:9.1f} us (smallest {smallest:.1f}, processor {busy:.1f}; aim: 60)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
