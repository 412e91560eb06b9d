"""What the tests of MONAI's ways of running a transform share: a data set twice, as originals and as protected files.

A way of running transforms is a function that takes a ``Source`` and gives images. It is run twice: on the originals with
SALM's transform right after loading, and on files that plain NumPy protected, without it. Both must give the same bits;
``Restore`` is held to the same the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import LoadImage, LoadImaged, Transform

from monai_salm import NoiseStore, SALMProtect, SALMProtectd, SALMRestore, SALMRestored
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.noise import Noise
from monai_salm.noise.window import IntensityWindow
from monai_salm.store.lookup import ImageNotFoundError

CASES = 4
SHAPE = (6, 5, 4)
WINDOW = IntensityWindow(-1000, 1000)
META = {
    "method": {"name": "random_noise", "epsilon": 0.03},
    "window": WINDOW.spec(),
    "mask_share": 1.0,
    "epsilon": 0.03,
    "seed": 0,
}
BUDGET = Budget(WINDOW, Grid("int16", 1.0, (60,)))
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Samples:
    """A data set of volumes with two images, a segmentation and a label each, before and after protection.

    Args:
        store: the noise of all images.
        originals, protected: items of paths, in the same order.
        values: arrays ``(1, *SHAPE)`` int16 of ``image``, by the same two names.
    """

    store: Path
    originals: list[dict[str, Any]]
    protected: list[dict[str, Any]]
    values: dict[str, list[Array]]


def make_samples(folder: Path) -> Samples:
    """Write the files and the store; the protected values are original plus codes, added here and not by the package."""
    rng = np.random.default_rng(0)
    store = NoiseStore.create(folder / "noise.db", META)
    items: dict[str, list[dict[str, Any]]] = {"originals": [], "protected": []}
    values: dict[str, list[Array]] = {"originals": [], "protected": []}
    noises = []
    for index in range(CASES):
        pair: dict[str, dict[str, Any]] = {"originals": {"label": index}, "protected": {"label": index}}
        for key in ("image", "second"):
            original = rng.integers(-900, 900, (1, *SHAPE)).astype(np.int16)
            codes = (rng.integers(1, 8, original.shape) * rng.choice([-1, 1], original.shape)).astype(np.int8)
            noises.append(Noise.of(original, codes, BUDGET, f"case_{index}_{key}"))
            for kind, array in (("originals", original), ("protected", original + codes)):
                pair[kind][key] = _save(folder / kind / f"{key}_{index}.nii.gz", array[0])
                if key == "image":
                    values[kind].append(array)
        mask = _save(folder / f"seg_{index}.nii.gz", (rng.random(SHAPE) > 0.5).astype(np.uint8))
        for kind, item in pair.items():
            items[kind].append({**item, "seg": mask})
    store.add(noises)
    return Samples(store.path, items["originals"], items["protected"], values)


def _save(path: Path, values: Array) -> str:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return str(path)


@dataclass(frozen=True)
class Source:
    """Files, and what is done right after loading them.

    Args:
        samples: the data set.
        kind: ``"originals"`` or ``"protected"``: which files.
        salm: whether SALM's transform follows the loader: it protects originals, and restores what is protected.
        folder: empty, for caches.
    """

    samples: Samples
    kind: str
    salm: bool
    folder: Path

    @property
    def items(self) -> list[dict[str, Any]]:
        """Dictionaries of paths ``image, second, seg`` and the number ``label``."""
        return self.samples.originals if self.kind == "originals" else self.samples.protected

    @property
    def values(self) -> list[Array]:
        """What the files of ``image`` hold, ``(1, *SHAPE)`` int16."""
        return self.samples.values[self.kind]

    def salm_step(self, keys: Any = "image") -> list[Transform]:
        """The dictionary transform, or none."""
        transform: Any = SALMProtectd if self.kind == "originals" else SALMRestored
        return [transform(keys, self.samples.store)] if self.salm else []

    def salm_array_step(self) -> list[Transform]:
        """The array transform, or none."""
        transform: Any = SALMProtect if self.kind == "originals" else SALMRestore
        return [transform(self.samples.store)] if self.salm else []

    def head(self, keys: Any = "image", also: tuple[str, ...] = ()) -> list[Transform]:
        """Loading, and the dictionary transform on ``keys``; ``also`` are loaded only."""
        loaded = [keys] if isinstance(keys, str) else list(keys)
        return [LoadImaged([*loaded, *also], ensure_channel_first=True), *self.salm_step(keys)]

    def array_head(self) -> list[Transform]:
        """Loading, and the array transform."""
        return [LoadImage(ensure_channel_first=True), *self.salm_array_step()]


Run = Callable[[Source], Iterable[Any]]


@dataclass(frozen=True)
class Row:
    """One way of running a transform.

    Args:
        what: in words.
        run: gives the images that come out, in order.
        refused: part of the error, where the transform is in the wrong place.
        since: the first version of MONAI that takes it.
        needs: an optional package that MONAI needs for it.
        slow: takes seconds.
    """

    what: str
    run: Run = field(repr=False)
    refused: str = ""
    since: str = ""
    needs: str = ""
    slow: bool = False


def bits(images: Iterable[Any]) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each image, for every kind of object; a batch is one image."""
    found = []
    for image in images:
        plain = image.as_subclass(torch.Tensor).detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
        found.append((str(plain.dtype), plain.shape, np.ascontiguousarray(plain).tobytes()))
    return found


def require_same_bits(run: Run, samples: Samples, kind: str, folder: Path) -> None:
    """Run a way on the files with SALM's transform, and on the files that hold the right answer without it."""
    other = "protected" if kind == "originals" else "originals"
    source = Source(samples, kind, True, _empty(folder / "found"))
    found = _bits_of(run, source)
    expected = _bits_of(run, replace(source, kind=other, salm=False, folder=_empty(folder / "expected")))
    untouched = _bits_of(run, replace(source, salm=False, folder=_empty(folder / "untouched")))
    assert found, "the way gave no images"
    assert found == expected
    assert all(one != two for one, two in zip(found, untouched, strict=True)), "the noise would not show here"


def _bits_of(run: Run, source: Source) -> list[tuple[str, tuple[int, ...], bytes]]:
    # MONAI's loader draws a seed for all random transforms from torch's generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return bits(run(source))


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def cause_of(error: BaseException) -> ImageNotFoundError | None:
    """The transform's own error below those that ``Compose`` puts around it."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, ImageNotFoundError):
        below = below.__cause__
    return below
