"""Real images for the demo: crops of the MNI152 brain template that nilearn's wheel ships, or a MedMNIST data set.

The template (Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011) is exactly
symmetric, so all crops are cut from the left hemisphere along sagittal planes. No plane is in both training and test.
In 3D that is a weak separation: planes of test volumes lie 1 mm from planes of training volumes. All crops come from one
averaged brain: scores say how much victims learn of these crops, and nothing of other images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import map_coordinates

from monai_salm.shared.arrays import Array

TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SIDE, SPACING = 28, 2.0
#: Class -> (y, z) in MNI millimetres, forward and upward of the anterior commissure.
PLACES = {
    "prefrontal": (40, 8),
    "superior frontal": (22, 40),
    "central": (-14, 46),
    "parietal": (-50, 42),
    "occipital": (-72, 6),
    "cerebellum": (-52, -34),
    "temporal": (-16, -20),
    "basal ganglia": (6, 12),
}
#: Cases of train, val and test.
COUNTS = {2: (2000, 200, 800), 3: (400, 40, 160)}
_SPLITS = ("train", "val", "test")

# Millimetres left of the midline. In 2D two neighbours of twelve planes are for test, 3 mm from those of training; in 3D
# training has the even and test the odd planes.
_PLANES = range(4, 60)
# Of five variants that were protected, these numbers protected best. The contrast is that of a head image:
# fat and vessels, which the skull-stripped template lacks, take the upper half of the range, over a noise floor above 0.
_JITTER, _TILT, _ZOOM, _GAIN, _FLOOR, _GRAIN = 16.0, 25.0, 0.15, (0.3, 0.5), 20.0, 1.5


#: For readers of the demo's figures.
NOTES = (
    "The demo's crops are a teaching example, chosen among five variants because the noise protected them best; figures on "
    "your own data will differ. All come from one averaged brain.",
    "In 3D, the planes of test volumes lie between those of training volumes, 1 mm away: the test is of the same anatomy.",
)


class DemoDataError(RuntimeError):
    """The demo's images are not installed, or the name is unknown."""


def template_path() -> Path:
    """The template's file inside the installed nilearn, found without importing it; DemoDataError if it is not there."""
    found = importlib.util.find_spec("nilearn")
    path = Path(found.origin).parent / "datasets" / "data" / TEMPLATE if found and found.origin else None
    if path is None or not path.is_file():
        where = f"not at {path}" if path else "nilearn is not installed"
        raise DemoDataError(
            f'the demo needs the brain template that nilearn ships ({where}): pip install "monai_salm[demo]"'
        )
    return path


def planes(split: str, rank: int) -> list[int]:
    """Millimetres from the midline of the planes of a split; ``"val"`` shares those of ``"train"``."""
    test = split == "test"
    if rank == 3:
        return [d for d in range(2, 74) if d % 2 == test]
    return [d for d in _PLANES if (d % 12 in (8, 9) if test else d % 12 <= 5)]


def brain_crops(path: Path, rank: int, counts: Sequence[int], seed: int) -> None:
    """Write a MedMNIST-style archive of labelled template crops, 28 pixels a side; DemoDataError without the template.

    ``counts`` are the cases of train, val and test; places and poses follow from the seed.
    """
    image = nibabel.load(template_path())
    volume = np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    origin = np.linalg.inv(image.affine)[:3, 3]  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, count in zip(_SPLITS, counts, strict=True):
        labels = rng.permutation(np.arange(count) % len(PLACES)).astype(np.uint8)
        crops = [_crop(volume, origin, int(label), split, rank, rng) for label in labels]
        arrays |= {f"{split}_images": np.stack(crops), f"{split}_labels": labels[:, None]}
    np.savez_compressed(path, **arrays)


def _crop(volume: Array, origin: Array, label: int, split: str, rank: int, rng: np.random.Generator) -> Array:
    """One crop near its class' centre, at a random place, angle, zoom, gain and grain."""
    centre = np.array(list(PLACES.values())[label]) + _in_disk(rng) * _JITTER
    angle = np.deg2rad(rng.uniform(-_TILT, _TILT))
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING * (1 + rng.uniform(-_ZOOM, _ZOOM))
    forward, upward = np.meshgrid(axis, axis, indexing="ij")
    y = origin[1] + centre[0] + np.cos(angle) * forward - np.sin(angle) * upward
    z = origin[2] + centre[1] + np.sin(angle) * forward + np.cos(angle) * upward
    allowed = planes(split, rank)
    start = 0 if rank == 2 else int(rng.integers(0, len(allowed) - SIDE + 1))
    chosen = [int(rng.choice(allowed))] if rank == 2 else allowed[start : start + SIDE]
    # Whole planes: interpolation inside a plane holds nothing of its neighbours.
    planes_of = (np.pad(volume[round(origin[0]) - d].astype(np.float64), 1) for d in chosen)
    slices = [map_coordinates(plane, [y + 1, z + 1], order=1) for plane in planes_of]
    values = slices[0] if rank == 2 else np.stack(slices)
    values = values * rng.uniform(*_GAIN) + rng.normal(_FLOOR, _GRAIN, values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _in_disk(rng: np.random.Generator) -> Array:
    turn, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
    return np.array([radius * np.cos(turn), radius * np.sin(turn)])


def medmnist_archive(name: str, folder: Path, counts: Sequence[int] | None, seed: int) -> Path:
    """The archive of a MedMNIST data set, cut to the size of a demo; DemoDataError if it cannot be had.

    Args:
        name: as ``"bloodmnist"``; downloaded into the folder by the medmnist package unless ``<name>.npz`` is there.
        counts: most cases of train, val and test, drawn by the seed; None keeps all.
    """
    source = folder / f"{name}.npz"
    if not source.is_file():
        _download(name, folder)
    if counts is None:
        return source
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    with np.load(source, allow_pickle=False) as archive:
        for split, count in zip(_SPLITS, counts, strict=True):
            total = len(archive[f"{split}_labels"])
            kept = np.sort(rng.permutation(total)[:count])
            arrays |= {f"{split}_{part}": archive[f"{split}_{part}"][kept] for part in ("images", "labels")}
    target = folder / f"{name}_demo.npz"
    np.savez_compressed(target, **arrays)
    return target


def _download(name: str, folder: Path) -> None:
    try:
        import medmnist
    except ImportError as error:
        raise DemoDataError(f'dataset {name!r} needs the medmnist package: pip install "monai_salm[demo]"') from error
    known: Mapping[str, Any] = medmnist.INFO
    if name not in known:
        raise DemoDataError(f"unknown data set {name!r}; medmnist knows {', '.join(known)}")
    download: Callable[..., object] = getattr(medmnist, known[name]["python_class"])
    try:
        download(split="train", download=True, root=str(folder))
    except (OSError, RuntimeError) as error:
        raise DemoDataError(f"cannot download {name!r}: {error}. Put {name}.npz into {folder} and run again") from error
