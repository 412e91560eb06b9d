"""What layouts that are folders share: cases, labels, the learning problem, and which files there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from monai_salm.formats import find_format, format_of
from monai_salm.formats.base import Array, FormatError
from monai_salm.layouts.base import TRAIN, Case, CaseSequence, Layout, LayoutError
from monai_salm.layouts.classes import MAX_CLASS
from monai_salm.layouts.files import every_file, is_file, leftovers, walk, walk_folders
from monai_salm.layouts.units import BrokenUnit, ChannelFiles, ImageUnit
from monai_salm.noise.units import Units
from monai_salm.tasks import Classification, Segmentation, Task


@dataclass(frozen=True)
class FolderCase:
    """One case of a data set in files.

    Args:
        unit: its image.
        label: a label map's file relative to the root, a class number, a vector of zeros and ones, or None.
    """

    unit: ImageUnit
    label: str | int | list[int] | None


class FolderLayout(Layout):
    """A data set of many files under one folder; subclasses find the cases.

    Args:
        root: the folder.
        cases: the cases of every split that has any.
        listing: the files that list or describe the cases, relative to the root.
        num_classes: classes that the data set names; None if it names none.
        class_names: what class numbers mean, in their order; empty if the data set has numbers only.
        modalities: of each channel, as the data set names them; empty if it names none.

    Raises:
        LayoutError: for a folder that cannot be read; a file that is part of two images, or an image and a label; or a label
            out of range.
    """

    root: Path
    #: Where a protected copy's manifest stands, relative to the root.
    manifest: ClassVar[str] = "monai_salm.json"

    def __init__(
        self,
        root: Path,
        cases: Mapping[str, Sequence[FolderCase]],
        listing: Sequence[str],
        num_classes: int | None,
        class_names: Sequence[str] = (),
        modalities: Sequence[str] = (),
    ) -> None:
        self.root, self.listing, self.num_classes = root, tuple(listing), num_classes
        self.class_names, self.modalities = tuple(class_names), tuple(modalities)
        self._cases = {split: tuple(found) for split, found in cases.items() if found}
        self.folders()
        self._check_units()
        self._check_labels()
        both = set(self.image_files(self.splits)) & set(self.label_files())
        if both:
            raise LayoutError(f"{root}: {sorted(both)[0]} is listed both as an image and as a label")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._cases)

    def has_labels(self, split: str) -> bool:
        self.require_split(split)
        return all(case.label is not None for case in self._sound(split))

    def task(self) -> Task:
        self._check_training()
        labels = [case.label for split in self.splits for case in self._sound(split) if case.label is not None]
        kinds = {type(label) for label in labels}
        if len(kinds) != 1:
            raise LayoutError(
                f"{self.root}: labels are of different kinds: files, numbers or vectors, not several of them"
            )
        if kinds == {str}:
            return Segmentation(num_classes=self.num_classes or self._largest_voxel() + 1)
        if kinds == {int}:
            largest = max(label for label in labels if isinstance(label, int))
            return Classification(num_classes=max(self.num_classes or 2, largest + 1))
        lengths = {len(label) for label in labels if isinstance(label, list)}
        if len(lengths) != 1:
            raise LayoutError(f"{self.root}: label vectors have different lengths: {sorted(lengths)}")
        return Classification(num_classes=lengths.pop(), multi_label=True)

    def dataset(self, split: str = TRAIN) -> CaseSequence:
        self.require_split(split)
        cases = self._cases[split]

        def load(index: int) -> Case:
            case = cases[index]
            image, label = case.unit.read(self.root), cast(Any, case.label)
            if isinstance(label, str):
                if not is_file(self.root / label):
                    raise FormatError(f"case {case.unit.name!r}: its label map is missing: {self.root / label}")
                label = format_of(self.root / label).read(self.root / label)
            elif isinstance(label, list):
                label = np.array(label)
            return {"image": image, "label": label, "name": case.unit.name, "units": self._units(case.unit, image)}

        return CaseSequence([case.unit.name for case in cases], load)

    def _units(self, unit: ImageUnit, image: Array) -> Units:
        """What an image's numbers mean: what its files say, and the modalities that the data set names."""
        found = unit.units(self.root, image)
        if not self.modalities or found.modality:
            return found
        return replace(found, modality=self.modalities if len(self.modalities) == len(image) else self.modalities[0])

    def units(self, splits: Sequence[str] = (TRAIN,)) -> tuple[ImageUnit, ...]:
        """The images of some splits, each once."""
        return tuple(dict.fromkeys(case.unit for split in splits for case in self._cases.get(split, ())))

    def image_files(self, splits: Sequence[str] = (TRAIN,)) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file for unit in self.units(splits) for file in unit.files))

    def label_files(self) -> tuple[str, ...]:
        """Files that hold label maps, relative to the root."""
        labels = (case.label for cases in self._cases.values() for case in cases)
        return tuple(dict.fromkeys(label for label in labels if isinstance(label, str)))

    def all_files(self) -> tuple[str, ...]:
        return tuple(sorted(walk(self.root)))

    def every_file(self) -> tuple[str, ...]:
        """``all_files`` and the files that programs left under the folder, relative to it."""
        return tuple(sorted(every_file(self.root)))

    def leftovers(self) -> dict[str, str]:
        """The folders (with a ``/`` at the end) and files that programs left, with what they are; no part of the data set."""
        return leftovers(self.root)

    def folders(self) -> tuple[str, ...]:
        """All folders, relative to the root, parents first; empty ones belong to the data set too."""
        return tuple(sorted(Path(folder).relative_to(self.root).as_posix() for folder, _, _ in walk_folders(self.root)))

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        """Files, not images, whose content is another in a protected copy, as what describes the data set itself.

        Args:
            splits: whose images are protected.
        """
        return {}

    def unlisted(self) -> tuple[str, ...]:
        listed = {*self.image_files(self.splits), *self.label_files(), *self.listing}
        return tuple(file for file in self.all_files() if file not in listed)

    def unlisted_images(self) -> Iterator[tuple[str, Array]]:
        for file in self.unlisted():
            format_ = find_format(self.root / file)
            if format_ is None:
                continue
            try:
                yield file, format_.read(self.root / file)
            except (FormatError, OSError):
                continue

    def _sound(self, split: str) -> list[FolderCase]:
        """The cases of a split that are not known to be broken."""
        return [case for case in self._cases[split] if not isinstance(case.unit, BrokenUnit)]

    def _check_training(self) -> None:
        """Every training case has a label, and there is one."""
        sound = self._sound(TRAIN)
        bare = [case.unit.name for case in sound if case.label is None]
        if bare:
            more = (
                f" (and {len(bare) - 1} more: {', '.join(bare[1:4])}{', ...' if bare[4:] else ''})" if bare[1:] else ""
            )
            raise LayoutError(f"{self.root}: {bare[0]} has no label{more}; noise is made against labels")
        for case in self._cases[TRAIN]:
            if isinstance(case.unit, BrokenUnit) and not sound:
                raise LayoutError(f"{self.root}: no training case can be used. {case.unit.name}: {case.unit.reason}")

    def _check_units(self) -> None:
        # A file of two images would be written twice, and the second would undo the first.
        owner: dict[str, ImageUnit] = {}
        for unit in self.units(self.splits):
            if len(set(unit.files)) != len(unit.files):
                raise LayoutError(f"{self.root}: {unit.name} names the same file twice as channels of one image")
            for file in unit.files:
                if owner.setdefault(file, unit) != unit:
                    raise LayoutError(
                        f"{self.root}: {file} is part of two images, {owner[file].name} and {unit.name}; give each its own file"
                    )

    def _check_labels(self) -> None:
        for cases in self._cases.values():
            for case in cases:
                label = case.label
                if isinstance(label, int) and not 0 <= label <= MAX_CLASS:
                    raise LayoutError(
                        f"{self.root}: the label of {case.unit.name} is {label}; classes are numbers from 0 to {MAX_CLASS}"
                    )
                if isinstance(label, list) and not set(label) <= {0, 1}:
                    raise LayoutError(f"{self.root}: the label of {case.unit.name} is {label}, not zeros and ones only")

    def _largest_voxel(self) -> int:
        largest = 1
        for file in self.label_files():
            try:
                largest = max(largest, int(format_of(self.root / file).read(self.root / file).max()))
            except (FormatError, OSError):
                continue  # its case is listed when it is read
        return largest


def channel_files(files: Sequence[str]) -> ImageUnit:
    """The image in some files, one for each channel, named for the first."""
    return ChannelFiles(files[0], tuple(files))
