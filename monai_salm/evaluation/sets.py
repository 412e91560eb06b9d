"""The image sets of an evaluation: read, and checked against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from monai_salm.data.scan import DataError, MapDataset, image_of, image_or_none, units_of
from monai_salm.evaluation.protocol import Protocol
from monai_salm.learning.tasks import Task
from monai_salm.noise.digest import content_digest, drawing_digest
from monai_salm.noise.kinds import as_kind, commonest_kind, kind_of
from monai_salm.noise.units import Units, padding_of, units_given
from monai_salm.noise.window import IntensityWindow, WindowRule
from monai_salm.shared.arrays import Array
from monai_salm.store.store import NoiseStore

#: Images, or what is made of them, as networks see them.
Floats: TypeAlias = NDArray[np.float32]
#: The window of images that are in [0, 1] already.
UNIT_WINDOW = IntensityWindow(0.0, 1.0)
# Cases that a report shows.
_PICTURES = 4


class EvaluationError(ValueError):
    """Image sets that allow no honest evaluation."""


@dataclass(frozen=True)
class ImageSet:
    """A data set in memory."""

    role: str  # "clean", "protected", "test" or a copy's name, for messages
    images: list[Array]  # ``(channel, *spatial)`` each, stored units and type
    labels: list[Array]  # in the task's canonical form
    names: list[str]
    windows: list[IntensityWindow]  # of each image, stored units
    units: list[Units]  # of each image's stored numbers

    def __len__(self) -> int:
        return len(self.images)

    def seen(self, windows: Sequence[IntensityWindow]) -> ImageSet:
        """The set in [0, 1], float32, each image by its window in ``windows``."""
        images = [
            window.normalize(torch.from_numpy(np.asarray(image, np.float32))).numpy()
            for image, window in zip(self.images, windows, strict=True)
        ]
        return replace(self, images=images, windows=[UNIT_WINDOW] * len(self))


#: Clean, protected, further copies, and test, by role.
Sets: TypeAlias = Mapping[str, ImageSet]


def read_set(role: str, dataset: MapDataset, task: Task, window: WindowRule, protocol: Protocol) -> ImageSet:
    """Load every case of a data set; ``EvaluationError`` and ``LabelError`` name the case that cannot be used."""
    if not len(dataset):
        raise EvaluationError(f"the {role} set is empty: give at least one case")
    result, image_key, label_key = ImageSet(role, [], [], [], [], []), protocol.image_key, protocol.label_key
    kind = commonest_kind(lambda index: image_or_none(dataset, index, image_key), len(dataset))
    for index in range(len(dataset)):
        case = dataset[index]
        try:
            name, image = image_of(case, index, image_key)
        except DataError as error:
            raise EvaluationError(f"{role} set, {error}") from error
        if label_key not in case:
            raise EvaluationError(
                f"{role} case {name!r} has no {label_key!r}, only {sorted(map(str, case))}: set image_key and label_key"
            )
        if image.dtype.kind not in "biuf" or not np.isfinite(image).any():
            raise EvaluationError(
                f"{role} case {name!r} holds no finite number (dtype {image.dtype}): victims cannot be trained or scored on it. "
                "Leave it out"
            )
        first = result.images[0] if result.images else image
        image = as_kind(image, kind or kind_of(image))
        if image.ndim not in (3, 4) or image.ndim != first.ndim or len(image) != len(first):
            raise EvaluationError(
                f"{role} case {name!r} has shape {image.shape}; expected (channel, *spatial) of rank 2 or 3, alike "
                f"in all cases (the first is {first.shape})"
            )
        units = units_given(case) or units_of(image, case[image_key])
        result.windows.append(window.of(image, units, padding_of(image, units)))
        result.units.append(units)
        result.images.append(image)
        result.labels.append(task.check_label(case[label_key], image.shape[1:], f"{role} case {name!r}"))
        result.names.append(name)
    return result


def set_digest(images: ImageSet) -> str:
    """One digest of all images and labels of a set in their order, as hexadecimal text."""
    whole = hashlib.sha256()
    for image, label in zip(images.images, images.labels, strict=True):
        whole.update(drawing_digest(image) + drawing_digest(label))
    return whole.hexdigest()


def check_pairs(clean: ImageSet, protected: ImageSet, epsilon: float) -> None:
    """Refuse a protected set that is not the clean one with noise of at most ``epsilon`` of each image's window."""
    what = protected.role
    if len(clean) != len(protected):
        raise EvaluationError(
            f"{len(clean)} clean and {len(protected)} {what} cases: they must be the same cases in order"
        )
    for index, name in enumerate(clean.names):
        before, after = clean.images[index], protected.images[index]
        problem = ""
        if before.shape != after.shape:
            problem = f"is {before.shape} in the clean set and {after.shape} in the {what} one"
        elif not np.array_equal(clean.labels[index], protected.labels[index]):
            problem = f"has another label in the {what} set: are both sets in the same order?"
        elif before.dtype.kind == after.dtype.kind == "f" and (np.isnan(before) != np.isnan(after)).any():
            problem = (
                f"of the {what} set is NaN in other places than in the clean set: publish the images again with their original "
                "background"
            )
        elif (size := float(np.abs(change_of_window(clean, protected, index)).max(initial=0))) > epsilon * (1 + 1e-6):
            problem = (
                f"of the {what} set changed by {size:.4f} of the window, epsilon is {epsilon:.4f}: the random-noise control would "
                "be weaker than the protection. Give the epsilon of the protection, and both sets in one order"
            )
        if problem:
            raise EvaluationError(f"case {name!r} {problem}")


def check_test(test: ImageSet, training: Sequence[ImageSet], store: NoiseStore | None) -> None:
    """Refuse a test set that has images of a training set, or images with noise of the store."""
    if test.images[0].ndim != training[0].images[0].ndim or len(test.images[0]) != len(training[0].images[0]):
        raise EvaluationError(f"test images are {test.images[0].shape}, training images {training[0].images[0].shape}")
    seen = {content_digest(i): (s.role, n) for s in training for i, n in zip(s.images, s.names, strict=True)}
    for image, name in zip(test.images, test.names, strict=True):
        digest = content_digest(image)
        if digest in seen:
            role, other = seen[digest]
            noisy = role == "protected"
            reason = "noise on the test set is refused" if noisy else "victims are scored on unseen images only"
            raise EvaluationError(
                f"test case {name!r} is the {role} training case {other!r}: {reason}; take it out of one"
            )
        if store is not None and store.get_protected(digest) is not None:
            raise EvaluationError(
                f"test case {name!r} carries noise of {store}: noise on the test set is refused; give clean images"
            )


def difference(clean: Array, protected: Array) -> NDArray[np.float64]:
    """``protected - clean`` in stored units, without the wrap-around of unsigned integers; 0 where both are NaN."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(protected.astype(np.float64) - clean.astype(np.float64), nan=0.0)


def change_of_window(clean: ImageSet, protected: ImageSet, index: int) -> NDArray[np.float64]:
    """The change of each element of a case, as a share of the window of its channel."""
    before = clean.images[index]
    low, high = clean.windows[index].bounds(len(before), before.ndim - 1)
    change: NDArray[np.float64] = difference(before, protected.images[index]) / (high - low)
    return change


def noise_size(clean: ImageSet, protected: ImageSet) -> dict[str, Any]:
    """How large the noise is, by each image's own window; PSNR over the cases that changed (docs/report.md)."""
    largest, support = 0.0, []
    psnr: dict[str, float] = {}
    for index in range(len(clean)):
        change = change_of_window(clean, protected, index)
        largest = max(largest, float(np.abs(change).max(initial=0)))
        support.append(float(np.mean(change != 0)))
        if support[-1] > 0:
            psnr[clean.names[index]] = -10 * float(np.log10(np.mean(change**2)))
    worst = min(psnr, key=psnr.__getitem__, default=None)
    return {
        "linf": largest,
        "psnr": float(np.mean(list(psnr.values()))) if psnr else None,
        "worst": None if worst is None else {"name": worst, "psnr": psnr[worst]},
        "support": float(np.mean(support)),
        "unchanged": support.count(0.0),
    }


def measured(clean: ImageSet, protected: ImageSet) -> tuple[tuple[ImageSet, ImageSet], IntensityWindow]:
    """Both sets in one window: as stored where all images have the same, else in [0, 1] by the window of each clean image."""
    first = clean.windows[0]
    finite = all(image.dtype.kind != "f" or bool(np.isfinite(image).all()) for image in clean.images)
    if finite and isinstance(first.low, float) and all(window == first for window in clean.windows):
        return (clean, protected), first
    return (clean.seen(clean.windows), protected.seen(clean.windows)), UNIT_WINDOW


def pictures(clean: ImageSet, protected: ImageSet) -> list[tuple[str, Array, Array]]:
    """Name, clean and protected image of a few cases, of different labels where labels are per image."""
    chosen: dict[object, int] = {}
    for index, label in enumerate(clean.labels):
        chosen.setdefault(label.tobytes() if label.ndim < 2 else index, index)
        if len(chosen) == _PICTURES:
            break
    return [(clean.names[i], clean.images[i], protected.images[i]) for i in chosen.values()]
