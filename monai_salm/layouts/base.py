"""What a dataset layout offers: its splits, labelled images one at a time, and a copy with other images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypedDict, overload

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.learning.tasks import Task
from monai_salm.noise.kinds import commonest_kind, kind_of
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

#: ``edit(name, image) -> image``: gets a case's stored image ``(channel, *spatial)``, returns another of the same kind.
Edit: TypeAlias = Callable[[str, Array], Array]

TRAIN = "train"
# Headers looked at for the unit of a data set.
_HEADERS = 500


class LayoutError(ValueError):
    """A data set whose layout is unknown, inconsistent or unsafe; the message says where and what to do."""


class Case(TypedDict):
    """One image with its label.

    ``image`` is ``(channel, *spatial)`` in its stored type; ``label`` an int, a vector of 0/1, a label map
    ``(1, *spatial)``, or None; ``name`` is unique in its split; ``units`` says what the stored numbers mean.
    """

    image: Array
    label: Any
    name: str
    units: Units


class CaseSequence(Sequence[Case]):
    """A split as a map-style data set: a case is read each time it is asked for.

    Args:
        names: name of every case.
        load: gives the case at an index.
    """

    def __init__(self, names: Sequence[str], load: Callable[[int], Case]) -> None:
        self.names, self._load = tuple(names), load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int, /) -> Case: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Case]: ...
    def __getitem__(self, index: int | slice, /) -> Case | list[Case]:
        if isinstance(index, slice):
            return [self._load(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"case {index} of {len(self)}")
        return self._load(index % len(self))


class Layout(ABC):
    """A data set on disk.

    Args:
        path: what the user names: a folder, or a file.

    Raises:
        LayoutError, FormatError: if the data set is not of this layout or is damaged.
    """

    name: ClassVar[str]
    #: One line for error messages: what such a data set looks like.
    description: ClassVar[str]
    #: Layouts that fit whatever fits this one, and say less about it.
    specialises: ClassVar[tuple[str, ...]] = ()
    #: The folder or the single file that holds the whole data set.
    root: Path
    #: What class numbers mean, in their order; empty where the data set has numbers only.
    class_names: tuple[str, ...] = ()
    #: Why the files may mean something else, and how to say it; ``detect`` refuses such a data set, its name opens it.
    doubt: str | None = None

    @property
    def called(self) -> str:
        """What ``open_layout`` takes to open this data set again: the name of the layout, or the patterns that describe it."""
        return self.name

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a path looks like this layout; cheap, never raises for existing paths."""

    @classmethod
    def why_not(cls, path: Path) -> str | None:
        """Why a path that is not recognised is not of this layout, and what to do; None if nothing speaks for the layout."""
        return None

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Layout:
        """Open a data set of this layout."""

    @abstractmethod
    def reopen(self, root: Path) -> Layout:
        """Open a copy of this data set that stands elsewhere."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have cases; the training split is ``"train"``."""

    @abstractmethod
    def has_labels(self, split: str) -> bool:
        """Whether every case of a split has a label."""

    @abstractmethod
    def task(self) -> Task:
        """The learning problem that the labels state."""

    @abstractmethod
    def classes_of_cases(self, split: str) -> Iterable[Iterable[int]]:
        """The class numbers of each case of a split: one, the labels that are 1, or those in its label map."""

    def classes(self) -> dict[str, dict[str, int]]:
        """How many images of each labelled split have each class: ``{"train": {"benign": 12, "malignant": 9}}``.

        A class is called by its name, or by its number where the data set names none. Of several labels, and of label maps, an
        image counts for each.

        Raises:
            LayoutError: if the training images have no labels.
        """
        names = _distinct_names(self.class_names, self.task().num_classes)
        found = {split: Counter(one for own in self.classes_of_cases(split) for one in own) for split in self.splits}
        return {
            split: {name: counts[number] for number, name in enumerate(names)}
            for split, counts in found.items()
            if counts
        }

    @abstractmethod
    def dataset(self, split: str = TRAIN) -> CaseSequence:
        """The cases of a split.

        Raises:
            LayoutError: if there is no such split.
        """

    def image_size(self) -> tuple[int, ...]:
        """Spatial size of the first training image of the commonest rank that can be read.

        Raises:
            LayoutError: if none can, with the reason for the first.
        """
        dataset, reasons = self.dataset(TRAIN), list[str]()

        def load(index: int) -> Array | None:
            try:
                return dataset[index]["image"]
            except (FormatError, OSError) as error:
                reasons.append(str(error))
                return None

        kind = commonest_kind(load, len(dataset))
        images = (load(index) for index in range(len(dataset)))
        for image in images:
            if image is not None and kind is not None and kind_of(image)[0] == kind[0]:
                return image.shape[1:]
        raise LayoutError(f"{self.root}: no training image can be read ({reasons[0] if reasons else 'there is none'})")

    def cases(self, splits: Sequence[str]) -> CaseSequence:
        """The cases of several splits, one after the other.

        Args:
            splits: names of splits.

        Raises:
            LayoutError: if there is no such split, or one is named twice.
        """
        if len(set(splits)) != len(splits):
            raise LayoutError(f"splits must be named once each, got {', '.join(splits)}")
        parts = [self.dataset(split) for split in splits]
        places = [(part, index) for part in parts for index in range(len(part))]
        return CaseSequence([part.names[index] for part, index in places], lambda i: places[i][0][places[i][1]])

    @abstractmethod
    def image_files(self, splits: Sequence[str] = (TRAIN,)) -> tuple[str, ...]:
        """Files that hold the images of some splits, relative to a folder root; for a single file its name."""

    @abstractmethod
    def all_files(self) -> tuple[str, ...]:
        """All files of the data set, as ``image_files`` names them."""

    def parts(self) -> tuple[str, ...]:
        """Names of what the data set is made of, which tell it from another: its files, or the arrays of its file."""
        return self.all_files()

    @abstractmethod
    def unlisted(self) -> tuple[str, ...]:
        """Parts that a copy takes over though no split lists them; what systems hide in folders is left out."""

    @abstractmethod
    def unlisted_images(self) -> Iterator[tuple[str, Array]]:
        """Readable images that no split lists, as (file, image): they would be copied as they are."""

    def test_split(self) -> str:
        """The split to test victims on: ``"test"`` if it has labels, else ``"val"``.

        Raises:
            LayoutError: if neither has.
        """
        for split in ("test", "val"):
            if split in self.splits and self.has_labels(split):
                return split
        raise LayoutError(
            f"{self.root} has no test or validation split with labels to measure on; its splits are {self.splits}. Give "
            "another, clean data set as test= (--test DATASET)"
        )

    def native_unit(self) -> tuple[float, str] | None:
        """Native units in one stored unit, such as Hounsfield units, and their name, if all training files agree."""
        if not self.root.is_dir():
            return None
        files = self.image_files((TRAIN,))
        some = files[:: math.ceil(len(files) / _HEADERS)] if files else ()
        found = {format_of(self.root / file).native_unit(self.root / file) for file in some}
        return found.pop() if len(found) == 1 else None

    def require_split(self, split: str) -> None:
        """Raise ``LayoutError`` unless the data set has the split."""
        if split not in self.splits:
            raise LayoutError(f"{self.root} has no split {split!r}; it has {', '.join(self.splits) or 'none'}")


class ArchiveLayout(Layout):
    """A data set in a single file, which is copied and compared as a whole, not file by file."""

    @abstractmethod
    def rewrite(self, output: Path, edit: Edit, splits: Sequence[str] = (TRAIN,)) -> None:
        """Write a complete copy: the images of some splits pass through ``edit``, everything else is copied byte for byte.

        Args:
            output: must not exist.
            edit: called once for every image.
            splits: whose images are edited.

        Raises:
            FileExistsError: if the output exists.
        """

    @abstractmethod
    def unlisted_image_arrays(self) -> tuple[str, ...]:
        """Parts that no split lists and that may hold images, by their axes."""

    @abstractmethod
    def differences(self, other: Layout, splits: Sequence[str] = (TRAIN,), ignore: Sequence[str] = ()) -> Iterator[str]:
        """What differs between this data set and a copy, the voxels of some splits' images left out.

        Args:
            other: the copy, of the same class.
            splits: whose voxels may differ; headers and all else around them may not.
            ignore: files that only the copy may have.

        Yields:
            One line a difference.
        """


def _distinct_names(names: Sequence[str], count: int) -> list[str]:
    """A name for each class: its own, with the number where it is missing or another class has it, too."""
    found = [*names[:count], *[""] * (count - len(names))]
    return [
        str(number) if not name else name if found.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(found)
    ]
