"""The base of layouts that are folders: cases, labels, the learning problem, and the files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.layouts.base import Case, CaseSequence, Layout
from monai_salm.layouts.files import TRAIN, LayoutError
from monai_salm.layouts.label_maps import LabelMap, LabelParts, distinct, files_of, on_grid_of, read_label_map
from monai_salm.layouts.labels import MAX_CLASS
from monai_salm.layouts.renaming import companions_of, rewritten_texts, texts_with_old_names, with_published_names
from monai_salm.layouts.roles import shortened
from monai_salm.layouts.stored_images import StoredImage, UnusableImage
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.shared.arrays import Array
from monai_salm.shared.warn import warn

#: The label of a case.
Label: TypeAlias = LabelMap | int | list[int] | None
# Values of label maps that stand for classes and are no class numbers, such as 0 and 255, are as few as this.
_RENUMBERED = 64
_SPLITS = (TRAIN, "val", "test")
# Headers looked at for the unit of a data set.
_HEADERS = 500


@dataclass(frozen=True)
class FolderCase:
    """An image, and its label: a label map's file relative to the root (or several), a class number, a vector of 0/1, or None."""

    image: StoredImage
    label: Label


class FolderLayout(Layout):
    """A data set of many files under one folder; subclasses find the cases.

    Args:
        root: the folder.
        cases: each with its split.
        listing: the files that list or describe the cases, relative to the root.
        class_names: what class numbers mean, in their order; empty if the data set names none.
        modalities: of each channel, as the data set names them; empty if it names none.
        masks: label maps that are no case's label.
    """

    manifest = "monai_salm.json"
    #: Whether a label map was read along other axes than those of its file.
    _turned = False
    #: Files of the listing that name others by absolute paths in the root.
    _absolute: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path,
        cases: Iterable[tuple[str, FolderCase]],
        listing: Sequence[str],
        class_names: Sequence[str] = (),
        modalities: Sequence[str] = (),
        masks: Sequence[str] = (),
    ) -> None:
        self.root, self.listing, self.modalities = root, tuple(listing), tuple(modalities)
        self.class_names = tuple(class_names)
        pairs = sorted(cases, key=lambda pair: _SPLITS.index(pair[0]))
        self._cases: dict[str, list[FolderCase]] = {split: [] for split, _ in pairs}
        if TRAIN not in self._cases:
            raise LayoutError(f"{root} has no training images; its splits are {', '.join(self._cases) or 'none'}")
        images = with_published_names(root, dict.fromkeys(case.image for _, case in pairs))
        for split, case in pairs:
            self._cases[split].append(replace(case, image=images[case.image]))
        labels = {file for case in self._all_cases() for file in files_of(case.label)}
        self.masks = tuple(file for file in masks if file not in labels)
        self.folders()  # refuses a folder that cannot be read
        self._check()
        both = set(self.image_files(self.splits)) & set(self.label_files())
        if both:
            raise LayoutError(f"{root}: {sorted(both)[0]} is listed both as an image and as a label")

    @classmethod
    def open(cls, path: Path) -> FolderLayout:
        cls.require_folder(path)
        return cls(path)  # type: ignore[call-arg]  # layouts that are told by their folder alone

    @classmethod
    def require_folder(cls, path: Path) -> None:
        """Refuse a path that is no folder."""
        if not path.is_dir():
            raise LayoutError(f"{path} is no folder; this layout is {cls.description}")

    def in_copy(self, file: Path, root: Path) -> Path:
        """The same file, by which a data set is opened, in a copy at ``root``."""
        if not (root / file.name).is_file():
            raise LayoutError(f"{root / file.name} is missing; give the folder of a copy of {self.root}")
        return root / file.name

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._cases)

    def has_labels(self, split: str) -> bool:
        self.require_split(split)
        return all(case.label is not None for case in self._sound(split))

    def classes_of_cases(self, split: str) -> Iterator[tuple[int, ...]]:
        for case in self._sound(split):
            if isinstance(case.label, int):
                yield (case.label,)
            elif isinstance(case.label, list):
                yield tuple(number for number, answer in enumerate(case.label) if answer)
            elif case.label is not None:
                values, known = self._map_values.get(case.label, ()), self._renumbered
                yield tuple(known.index(value) if value in known else int(value) for value in values)

    def task(self) -> Task:
        self._check_training()
        labels = [case.label for split in self.splits for case in self._sound(split) if case.label is not None]
        kinds = {str if files_of(label) else type(label) for label in labels}
        if len(kinds) != 1:
            raise LayoutError(f"{self.root}: labels are of different kinds: all must be files, or numbers, or vectors")
        if kinds == {str}:
            largest = max((value for found in self._map_values.values() for value in found), default=1)
            return Segmentation(num_classes=max(2, len(self.class_names) or len(self._renumbered) or int(largest) + 1))
        if kinds == {int}:
            largest = max(label for label in labels if isinstance(label, int))
            if len(self.class_names) == 1 > largest:
                where = ", ".join([str(self.root), *self.listing[:1]])
                raise LayoutError(
                    f"{where}: all labels are {self.class_names[0]!r}; name two classes or more, as noise needs"
                )
            return Classification(num_classes=max(len(self.class_names) or 2, largest + 1))
        lengths = {len(label) for label in labels if isinstance(label, list)}
        if len(lengths) != 1:
            raise LayoutError(f"{self.root}: label vectors have different lengths: {sorted(lengths)}")
        return Classification(num_classes=lengths.pop(), multi_label=True)

    def dataset(self, split: str = TRAIN) -> CaseSequence:
        self.require_split(split)
        cases = self._cases[split]

        def load(index: int) -> Case:
            case = cases[index]
            image, label = case.image.read(self.root), cast(Any, case.label)
            if isinstance(label, (str, LabelParts)):
                label = self._label_map(case.image, label, image.shape[1:])
            elif isinstance(label, list):
                label = np.array(label)
            units = case.image.units(self.root, image)
            if self.modalities and not units.modality:
                named = self.modalities if len(self.modalities) == len(image) else self.modalities[0]
                units = replace(units, modality=named)
            return {"image": image, "label": label, "name": case.image.name, "units": units}

        return CaseSequence([case.image.name for case in cases], load)

    def _label_map(self, stored: StoredImage, label: LabelMap, shape: Sequence[int]) -> Array:
        """A label map of class numbers along the axes of its image, ``(1, *spatial)``."""
        label_map = read_label_map(self.root, label, stored.name)
        file = files_of(label)[0]
        own, image = (format_of(self.root / one).affine(self.root / one) for one in (file, stored.files[0]))
        where = f"case {stored.name!r}, label map {self.root / file}"
        found = on_grid_of(label_map, own, image, shape, where)
        if found is not label_map and not self._turned:
            self._turned = True
            warn(f"{where}: its axes run otherwise than those of its image; it is read along the axes of the image")
        known = self._renumbered
        return np.searchsorted(known, found) if known and np.isin(found, known).all() else found

    @cached_property
    def _map_values(self) -> dict[LabelMap, tuple[float, ...]]:
        """The values in the label map of each case; those that cannot be read are left out."""
        found: dict[LabelMap, tuple[float, ...]] = {}
        for case in self._all_cases():
            label = case.label
            if isinstance(label, (str, LabelParts)) and label not in found:
                with suppress(FormatError, OSError):  # its case is listed when it is read
                    found[label] = tuple(distinct(read_label_map(self.root, label, case.image.name)).tolist())
        return found

    @cached_property
    def _renumbered(self) -> tuple[float, ...]:
        """The values of label maps that are no class numbers, such as 0 and 255, in the order of the classes; else nothing."""
        if self.class_names:
            return ()
        values = sorted({value for found in self._map_values.values() for value in found})
        few = 1 < len(values) <= _RENUMBERED and values[0] == 0 and values[-1] >= 2 * len(values)
        return tuple(values) if few and all(value == int(value) for value in values) else ()

    def native_unit(self) -> tuple[float, str] | None:
        files = self.image_files((TRAIN,))
        some = files[:: math.ceil(len(files) / _HEADERS)] if files else ()
        found = {format_of(self.root / file).native_unit(self.root / file) for file in some}
        return found.pop() if len(found) == 1 else None

    def stored_images(self, splits: Sequence[str] = (TRAIN,)) -> tuple[StoredImage, ...]:
        return tuple(dict.fromkeys(case.image for split in splits for case in self._cases.get(split, ())))

    def label_files(self) -> tuple[str, ...]:
        """Files that hold label maps, relative to the root."""
        files = (file for case in self._all_cases() for file in files_of(case.label))
        found = tuple(dict.fromkeys((*files, *self.masks)))
        return found + companions_of(self.root, found)

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        return rewritten_texts(self.root, self.all_files(), self.renamed(splits), self._absolute)

    def rewritten_notes(self, splits: Sequence[str] = (TRAIN,)) -> list[str]:
        renamed = self.renamed(splits)
        rewritten = self.rewritten_files(splits) if renamed else {}
        left = texts_with_old_names(self.root, self.all_files(), renamed, rewritten)
        old = "images of other names in the copy are called by their old names there; correct the copy by hand if you publish it"
        notes = [f"{shortened(left, 20)}: {old}"] if left else []
        what = "absolute paths become relative in the copy, so that they do not lead to the originals"
        return [*notes, *(f"{file}: {what}" for file in self._absolute)]

    def unlisted(self) -> tuple[str, ...]:
        listed = {*self.image_files(self.splits), *self.label_files(), *self.listing}
        return tuple(file for file in self.all_files() if file not in listed)

    def _all_cases(self) -> Iterator[FolderCase]:
        return (case for cases in self._cases.values() for case in cases)

    def _sound(self, split: str) -> list[FolderCase]:
        """The cases of a split that are not known to be broken."""
        return [case for case in self._cases[split] if not isinstance(case.image, UnusableImage)]

    def _check_training(self) -> None:
        """Every training case has a label, and there is one."""
        sound = self._sound(TRAIN)
        bare = [case.image.name for case in sound if case.label is None]
        if bare:
            others = f"{', '.join(bare[1:4])}{', ...' if bare[4:] else ''}"
            more = f" (and {len(bare) - 1} more: {others})" if bare[1:] else ""
            raise LayoutError(f"{self.root}: {bare[0]} has no label{more}; noise is made against labels")
        if not sound:
            first = cast(UnusableImage, self._cases[TRAIN][0].image)
            raise LayoutError(f"{self.root}: no training case can be used. {first.name}: {first.reason}")

    def _check(self) -> None:
        # A file of two images would be written twice, and the second would undo the first.
        owner: dict[str, StoredImage] = {}
        for stored in self.stored_images(self.splits):
            if len(set(stored.files)) != len(stored.files):
                raise LayoutError(f"{self.root}: {stored.name} names the same file twice as channels of one image")
            for file in stored.files:
                if owner.setdefault(file, stored) != stored:
                    raise LayoutError(
                        f"{self.root}: {file} is part of two images, {owner[file].name} and {stored.name}; give each its own file"
                    )
        for case in self._all_cases():
            label, where = case.label, f"{self.root}: the label of {case.image.name} is {case.label}"
            if isinstance(label, int) and not 0 <= label <= MAX_CLASS:
                raise LayoutError(f"{where}; classes are numbers from 0 to {MAX_CLASS}")
            if isinstance(label, list) and not set(label) <= {0, 1}:
                raise LayoutError(f"{where}, not zeros and ones only")
