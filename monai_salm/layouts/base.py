"""The base of dataset layouts: splits, labelled images one at a time, and the files of a copy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict

from monai_salm.formats.base import FormatError
from monai_salm.layouts.files import TRAIN, LayoutError, every_file, folders_in, leftovers, walk
from monai_salm.learning.tasks import Task
from monai_salm.noise.kinds import commonest_kind, kind_of
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array, Lazy

if TYPE_CHECKING:
    from monai_salm.layouts.medmnist import MedMNIST
    from monai_salm.layouts.stored_images import StoredImage

#: ``edit(name, image) -> image``: gets a case's stored image ``(channel, *spatial)``, returns another of the same kind.
Edit: TypeAlias = Callable[[str, Array], Array]


class Case(TypedDict):
    """One image with its label.

    ``image`` is ``(channel, *spatial)`` in its stored type; ``label`` an int, a vector of 0/1, a label map
    ``(1, *spatial)``, or None; ``name`` is unique in its split; ``units`` says what the stored numbers mean.
    """

    image: Array
    label: Any
    name: str
    units: Units


class CaseSequence(Lazy[Case]):
    """A split as a map-style data set: a case is read each time it is asked for."""

    def __init__(self, names: Sequence[str], load: Callable[[int], Case]) -> None:
        super().__init__(len(names), load)
        self.names = tuple(names)


class Layout(ABC):
    """A data set on disk; a LayoutError or FormatError if it is not of this layout or is damaged."""

    name: ClassVar[str]
    #: One line for error messages: what such a data set looks like.
    description: ClassVar[str]
    #: Layouts that fit every data set of this one, and say less about it.
    specialises: ClassVar[tuple[str, ...]] = ()
    #: Where a protected copy's manifest stands, relative to the root; empty for one beside the root.
    manifest: ClassVar[str] = ""
    #: The folder or the single file that holds the whole data set.
    root: Path
    #: Names of the classes, in the order of their numbers; empty where the data set has numbers only.
    class_names: tuple[str, ...] = ()
    #: Why the files may mean something else, and how to say it; ``detect`` refuses such a data set, its name opens it.
    doubt: str | None = None
    #: Label maps that are no case's label.
    masks: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """The text with which ``open_layout`` opens this data set again: a layout's name, or two patterns."""
        return self.name

    @property
    def single_file(self) -> MedMNIST | None:
        """The data set itself if one file holds it all, which is copied and compared as a whole; None for a folder."""
        return None

    @classmethod
    @abstractmethod
    def misfit(cls, path: Path) -> str | None:
        """Why an existing path is not of this layout, and what to do; None if it looks so, empty if nothing speaks for it."""

    @classmethod
    def advice(cls, path: Path) -> str:
        """The reason for a misfit that takes a longer look, and what to do; asked where no layout fits."""
        return ""

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Layout:
        """Open a data set of this layout."""

    def reopen(self, root: Path) -> Layout:
        """Open a copy of this data set that stands elsewhere."""
        return self.open(root)

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

        A class without a name is called by its number. An image counts for each of its labels, and for each in its label map.
        """
        count = self.task().num_classes
        own = [*self.class_names, *[""] * count][:count]
        # With the number where the name is missing, or another class has it, too.
        names = [
            name if name and own.count(name) == 1 else f"{name} ({number})" if name else str(number)
            for number, name in enumerate(own)
        ]
        found = {split: Counter(one for own in self.classes_of_cases(split) for one in own) for split in self.splits}
        return {split: {name: n[i] for i, name in enumerate(names)} for split, n in found.items() if n}

    @abstractmethod
    def dataset(self, split: str = TRAIN) -> CaseSequence:
        """The cases of a split; a LayoutError if there is no such split."""

    def image_size(self) -> tuple[int, ...]:
        """Spatial size of the first training image of the commonest rank that can be read; a LayoutError if none can."""
        dataset, reasons = self.dataset(TRAIN), list[str]()

        def load(index: int) -> Array | None:
            try:
                return dataset[index]["image"]
            except (FormatError, OSError) as error:
                reasons.append(str(error))
                return None

        kind = commonest_kind(load, len(dataset))
        for image in map(load, range(len(dataset))):
            if image is not None and kind is not None and kind_of(image)[0] == kind[0]:
                return image.shape[1:]
        raise LayoutError(f"{self.root}: no training image can be read ({reasons[0] if reasons else 'there is none'})")

    def cases(self, splits: Sequence[str]) -> CaseSequence:
        """The cases of several splits, one after the other; a LayoutError for a split that is missing or named twice."""
        if len(set(splits)) != len(splits):
            raise LayoutError(f"splits must be named once each, got {', '.join(splits)}")
        places = [(part, index) for part in map(self.dataset, splits) for index in range(len(part))]
        return CaseSequence([part.names[index] for part, index in places], lambda i: places[i][0][places[i][1]])

    def names(self, splits: Sequence[str]) -> tuple[str, ...]:
        """The names of the images of some splits, each once."""
        return tuple(dict.fromkeys(name for split in splits for name in self.dataset(split).names))

    def test_split(self) -> str:
        """The split to test victims on: ``"test"`` if it has labels, else ``"val"``; a LayoutError if neither has."""
        for split in ("test", "val"):
            if split in self.splits and self.has_labels(split):
                return split
        raise LayoutError(
            f"{self.root} has no test or validation split with labels to measure on; its splits are {self.splits}. Give "
            "another, clean data set as test= (--test DATASET)"
        )

    def native_unit(self) -> tuple[float, str] | None:
        """Native units in one stored unit, such as Hounsfield units, and their name, if all training files agree."""
        return None

    def require_split(self, split: str) -> None:
        """Refuse a split that the data set has not."""
        if split not in self.splits:
            raise LayoutError(f"{self.root} has no split {split!r}; it has {', '.join(self.splits) or 'none'}")

    def manifest_path(self, root: Path | None = None) -> Path:
        """Where the manifest of the data set, or of a copy of it at ``root``, stands."""
        root = self.root if root is None else root
        return root / self.manifest if self.manifest else root.with_name(f"{root.name}.salm.json")

    def path_of(self, file: str, root: Path | None = None) -> Path:
        """The path of a file of the data set, or of the same file in a copy at ``root``."""
        return (root or self.root) / file

    def stored_images(self, splits: Sequence[str] = (TRAIN,)) -> tuple[StoredImage, ...]:
        """The images of some splits that have files of their own, each once."""
        return ()

    def image_files(self, splits: Sequence[str] = (TRAIN,)) -> tuple[str, ...]:
        """Files that hold the images of some splits, relative to the root; of a single file its name."""
        return tuple(dict.fromkeys(file for stored in self.stored_images(splits) for file in stored.files))

    def published_files(self, splits: Sequence[str], root: Path, without: Collection[str] = ()) -> tuple[str, ...]:
        """The files of the images of some splits as a protected copy at ``root`` has them, less those of some images."""
        images = (stored for stored in self.stored_images(splits) if stored.name not in without)
        return tuple(dict.fromkeys(file for stored in images for file in stored.published))

    def renamed(self, splits: Sequence[str] = (TRAIN,)) -> dict[str, str]:
        """Files of images that have another name in a protected copy, with that name."""
        pairs = (zip(stored.files, stored.published, strict=True) for stored in self.stored_images(splits))
        return {old: new for own in pairs for old, new in own if old != new}

    def all_files(self) -> tuple[str, ...]:
        """All files of the data set."""
        return tuple(sorted(walk(self.root)))

    def every_file(self) -> tuple[str, ...]:
        """``all_files`` and the files that programs left under the folder."""
        return every_file(self.root)

    def leftovers(self) -> dict[str, str]:
        """The folders (with a ``/`` at the end) and files that programs left, with what they are; no part of the data set."""
        return leftovers(self.root)

    def folders(self) -> tuple[str, ...]:
        """All folders, relative to the root, parents first; empty ones belong to the data set too."""
        return folders_in(self.root)

    def strange_files(self, target: Path, own: Collection[str]) -> list[str]:
        """Files at a place that are no part of a copy of this data set, and not those that publishing itself writes (``own``)."""
        known = {*self.every_file(), *self.published_files(self.splits, target), *own}
        there = (path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted({path.relative_to(target).as_posix() for path in there} - known)

    @abstractmethod
    def unlisted(self) -> tuple[str, ...]:
        """Parts that a copy takes over though no split lists them; what systems hide in folders is left out."""

    def unlisted_image_arrays(self) -> tuple[str, ...]:
        """Parts of a single file that no split lists and that may hold images, by their axes."""
        return ()

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        """Files, not images, that have other content in a copy whose images of some splits are protected."""
        return {}

    def rewritten_notes(self, splits: Sequence[str] = (TRAIN,)) -> list[str]:
        """Changes in ``rewritten_files`` that the owner should know, beside the names of images."""
        return []
