"""MedMNIST archives: one .npz with the images and labels of all splits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from monai_salm.formats import NpzArchive
from monai_salm.formats.base import FormatError
from monai_salm.layouts.base import Case, CaseSequence, Edit, Layout
from monai_salm.layouts.files import TRAIN, LayoutError
from monai_salm.learning.tasks import Classification, Task
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array, rows_of

_SPLITS = ("train", "val", "test")


class MedMNIST(Layout):
    """A .npz with ``{train,val,test}_{images,labels}``.

    Images are ``(cases, height, width)``, ``(cases, height, width, 3)`` or ``(cases, x, y, z)``; labels ``(cases, 1)``
    class numbers or ``(cases, labels)`` zeros and ones; with one 1 in each row they are classes.
    """

    name = "medmnist"
    description = "an .npz file with train_images, train_labels and the same for val and test"

    def __init__(self, archive: NpzArchive) -> None:
        self.root, self.archive = archive.path, archive
        self._splits = tuple(split for split in _SPLITS if f"{split}_images" in archive.keys)
        if TRAIN not in self._splits:
            raise LayoutError(f"{self.root} has no train_images; it has {', '.join(archive.keys) or 'nothing'}")
        for split in self._splits:
            self._check(split)
        # The images of a split as they are stored, read when they are asked for.
        self._rows = cache(lambda split: rows_of(archive.array(f"{split}_images")))

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        return None if path.is_file() and path.suffix.lower() == ".npz" else ""

    @classmethod
    def open(cls, path: Path) -> MedMNIST:
        if not path.is_file():
            raise LayoutError(f"{path} is no file; a MedMNIST data set is {cls.description}")
        return cls(NpzArchive(path))

    @property
    def single_file(self) -> MedMNIST:
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        return self._splits

    def has_labels(self, split: str) -> bool:
        self.require_split(split)
        return f"{split}_labels" in self.archive.keys

    def task(self) -> Task:
        if not self.has_labels(TRAIN):
            raise LayoutError(f"{self.root} has no train_labels; noise is made against labels")
        labels = self._labels
        values, width = np.concatenate([np.unique(own) for own in labels.values()]), labels[TRAIN].shape[1]
        if width > 1:
            if not np.isin(values, (0, 1)).all():
                some = values[:5].tolist()
                raise LayoutError(f"{self.root}: labels of {width} columns must be zeros and ones, found {some}")
            return Classification(num_classes=width, multi_label=True)
        return Classification(num_classes=max(2, int(values.max()) + 1))

    def classes_of_cases(self, split: str) -> Iterator[tuple[int, ...]]:
        for label in self._labels.get(split, ()):
            yield (int(label[0]),) if len(label) == 1 else tuple(np.flatnonzero(label).tolist())

    def dataset(self, split: str = TRAIN) -> CaseSequence:
        self.require_split(split)
        shape, _ = self.archive.header(f"{split}_images")
        names = [f"{split}[{index}]" for index in range(shape[0])]
        labelled = self.has_labels(split)

        def load(index: int) -> Case:
            label = self._labels[split][index] if labelled else None
            if label is not None and len(label) == 1:
                label = int(label[0])
            image = _channel_first(_native(self._rows(split)[index]))
            units = Units(picture=image.dtype == np.uint8)
            return {"image": image, "label": label, "name": names[index], "units": units}

        return CaseSequence(names, load)

    def path_of(self, file: str, root: Path | None = None) -> Path:
        return root or self.root

    def image_files(self, splits: Sequence[str] = (TRAIN,)) -> tuple[str, ...]:
        return (self.root.name,)

    def all_files(self) -> tuple[str, ...]:
        return (self.root.name,)

    every_file = all_files

    def published_files(self, splits: Sequence[str], root: Path, without: Collection[str] = ()) -> tuple[str, ...]:
        return (root.name,)

    def leftovers(self) -> dict[str, str]:
        return {}

    def folders(self) -> tuple[str, ...]:
        return ()

    def strange_files(self, target: Path, own: Collection[str]) -> list[str]:
        try:
            return [] if self.open(target).archive.keys == self.archive.keys else [target.name]
        except (FormatError, LayoutError):
            return [target.name]

    def unlisted(self) -> tuple[str, ...]:
        listed = {f"{split}_{what}" for split in _SPLITS for what in ("images", "labels")}
        return tuple(key for key in self.archive.keys if key not in listed)

    def unlisted_image_arrays(self) -> tuple[str, ...]:
        return tuple(key for key in self.unlisted() if len(self.archive.header(key)[0]) > 2)

    def rewrite(self, output: Path, edit: Edit, splits: Sequence[str] = (TRAIN,)) -> None:
        """Write a copy, which must not exist: the images of some splits pass through ``edit``, all else is copied byte for byte."""
        if output.exists():
            raise FileExistsError(f"{output} exists")
        self.archive.write(output, {f"{split}_images": self._edited(split, edit) for split in splits})

    def _edited(self, split: str, edit: Edit) -> Iterator[Array]:
        """The images of a split after ``edit``, as they are stored."""
        for name, stored in zip(self.dataset(split).names, self._rows(split), strict=True):
            image = _channel_first(_native(stored))
            edited = edit(name, image)
            if edited.shape != image.shape or edited.dtype != image.dtype:
                raise LayoutError(
                    f"case {name!r}: {image.dtype} {image.shape} cannot become {edited.dtype} {edited.shape} in {self.root}"
                )
            row = np.empty(stored.shape, edited.dtype)
            _channel_first(row)[...] = edited
            yield row

    def differences(self, other: Layout, splits: Sequence[str] = (TRAIN,)) -> Iterator[str]:
        """The differences between this data set and a copy, a line each, without the voxels of some splits' images."""
        assert isinstance(other, MedMNIST)
        mine, theirs = self.archive.keys, other.archive.keys
        if mine != theirs:
            yield f"the archive holds {', '.join(theirs)} instead of {', '.join(mine)}"
        edited = {f"{split}_images" for split in splits}
        for key in (key for key in mine if key in theirs):
            try:
                if key in edited and self.archive.frame(key) != other.archive.frame(key):
                    yield f"{key}: type or shape differs"
                elif key not in edited and not self.archive.same(key, other.archive):
                    yield f"{key}: the array differs"
            except FormatError as error:
                yield str(error)

    def _check(self, split: str) -> None:
        shape, dtype = self.archive.header(f"{split}_images")
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise LayoutError(
                f"{self.root}: {split}_images is {dtype} {shape}; expected (cases, height, width), (cases, height, width, 3) "
                "or (cases, x, y, z)"
            )
        if self.has_labels(split):
            labels, _ = self.archive.header(f"{split}_labels")
            if len(labels) not in (1, 2) or labels[0] != shape[0]:
                what = f"{split}_labels is {labels} for {shape[0]} images"
                raise LayoutError(f"{self.root}: {what}; expected (cases, labels)")

    @cached_property
    def _labels(self) -> dict[str, Array]:
        """The labels of each split, ``(cases, labels)``; class numbers if every one is a vector of zeros and a single 1."""
        found: dict[str, Array] = {}
        for split in filter(self.has_labels, self._splits):
            own = _native(self.archive.array(f"{split}_labels"))
            found[split] = own.reshape(len(own), -1)
        whole = [own.shape[1] > 1 and np.isin(own, (0, 1)).all() for own in found.values()]
        one_hot = all(whole) and all((np.count_nonzero(own, axis=1) == 1).all() for own in found.values())
        return {split: own.argmax(axis=1)[:, None] if one_hot else own for split, own in found.items()}


def _channel_first(image: Array) -> Array:
    """``(h, w)`` -> ``(1, h, w)``, ``(h, w, 3)`` -> ``(3, h, w)``, ``(x, y, z)`` -> ``(1, x, y, z)``; a view."""
    return np.moveaxis(image, -1, 0) if image.ndim == 3 and image.shape[-1] == 3 else image[None]


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
