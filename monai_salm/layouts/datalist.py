"""MONAI datalists and the Medical Segmentation Decathlon: a JSON file that lists images and labels beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_salm.formats import format_of
from monai_salm.layouts.base import TRAIN, Case, CaseSequence, LayoutError
from monai_salm.layouts.folder import FolderLayout, confine
from monai_salm.tasks import Classification, Segmentation, Task

#: Split -> the keys under which datalists have it.
_SPLIT_KEYS = {"train": ("training",), "val": ("validation",), "test": ("test", "testing")}
_NAMES = ("dataset.json", "datalist.json")
_MAX_JSON = 1 << 28


@dataclass(frozen=True)
class _Entry:
    """One listed case: its image file, and its label file, class number or vector."""

    image: str
    label: str | int | list[int] | None


class Datalist(FolderLayout):
    """A folder with a JSON of ``training``, ``validation`` and ``test`` lists, paths relative to the JSON.

    An entry is ``{"image": path, "label": path | int | [0, 1, ...]}``, or the path alone where there is no label.
    """

    name = "datalist"
    description = (
        'a folder with a dataset.json or another JSON that has a "training" list of {"image": ..., "label": ...}'
    )

    def __init__(self, listing: Path) -> None:
        self.root, self.listing = listing.parent, listing
        self.content = _read_json(listing)
        self._entries = {split: list(self._read_split(split)) for split in _SPLIT_KEYS}
        self._splits = tuple(split for split, entries in self._entries.items() if entries)
        if TRAIN not in self._splits:
            raise LayoutError(f'{listing} has no "training" list with cases; its keys are {", ".join(self.content)}')
        both = set(self.image_files(self._splits)) & set(self.label_files())
        if both:
            raise LayoutError(f"{listing}: {sorted(both)[0]} is listed both as an image and as a label")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path.suffix == ".json" and path.is_file()) or (path.is_dir() and bool(_candidates(path)))

    @classmethod
    def open(cls, path: Path) -> Datalist:
        if path.is_file():
            return cls(path)
        found = _candidates(path)
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise LayoutError(f"{path} must have one JSON data list, found {names}; give the path of the JSON itself")
        return cls(found[0])

    def reopen(self, root: Path) -> Datalist:
        listing = root / self.listing.name
        if not listing.is_file():
            raise LayoutError(f"{listing} is missing; give the folder of a copy of {self.root}")
        return type(self)(listing)

    @property
    def splits(self) -> tuple[str, ...]:
        return self._splits

    def has_labels(self, split: str) -> bool:
        self.require_split(split)
        return all(entry.label is not None for entry in self._entries[split])

    def task(self) -> Task:
        for entry in self._entries[TRAIN]:
            if entry.label is None:
                raise LayoutError(f"{self.listing}: {entry.image} has no label; noise is made against labels")
        labels = [e.label for entries in self._entries.values() for e in entries if e.label is not None]
        kinds = {type(label) for label in labels}
        if len(kinds) != 1:
            raise LayoutError(
                f"{self.listing}: labels are of different kinds: paths, numbers or vectors, not several of them"
            )
        if kinds == {str}:
            return Segmentation(num_classes=self._named_classes() or self._largest_voxel() + 1)
        if kinds == {int}:
            largest = max(label for label in labels if isinstance(label, int))
            return Classification(num_classes=max(self._named_classes() or 2, largest + 1))
        lengths = {len(label) for label in labels if isinstance(label, list)}
        if len(lengths) != 1:
            raise LayoutError(f"{self.listing}: label vectors have different lengths: {sorted(lengths)}")
        return Classification(num_classes=lengths.pop(), multi_label=True)

    def dataset(self, split: str = TRAIN) -> CaseSequence:
        self.require_split(split)
        entries = self._entries[split]

        def load(index: int) -> Case:
            entry = entries[index]
            label: Any = entry.label
            if isinstance(label, str):
                label = format_of(self.root / label).read(self.root / label)
            elif isinstance(label, list):
                label = np.array(label)
            return {
                "image": format_of(self.root / entry.image).read(self.root / entry.image),
                "label": label,
                "name": entry.image,
            }

        return CaseSequence([entry.image for entry in entries], load)

    def image_files(self, splits: Sequence[str] = (TRAIN,)) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.image for split in splits for entry in self._entries[split]))

    def label_files(self) -> tuple[str, ...]:
        labels = (entry.label for entries in self._entries.values() for entry in entries)
        return tuple(dict.fromkeys(label for label in labels if isinstance(label, str)))

    def listing_files(self) -> tuple[str, ...]:
        return (self.listing.name,)

    def _read_split(self, split: str) -> Iterator[_Entry]:
        for key in _SPLIT_KEYS[split]:
            entries = self.content.get(key, [])
            if not isinstance(entries, list):
                raise LayoutError(f"{self.listing}: {key!r} must be a list, got {type(entries).__name__}")
            for index, entry in enumerate(entries):
                yield self._read_entry(entry, f"{self.listing}: {key}[{index}]")

    def _read_entry(self, entry: object, where: str) -> _Entry:
        if isinstance(entry, str):
            return _Entry(confine(self.root, entry, where), None)
        if not isinstance(entry, Mapping) or "image" not in entry:
            raise LayoutError(f'{where}: expected {{"image": path, "label": ...}} or a path, got {entry!r}')
        image, label = entry["image"], entry.get("label")
        if isinstance(image, list):
            raise LayoutError(
                f"{where}: an image of several files is not supported; merge them into one file with channels"
            )
        if isinstance(label, str):
            label = confine(self.root, label, where)
        elif isinstance(label, list) and all(type(v) is int for v in label) and label:
            label = label[0] if len(label) == 1 else label
        elif label is not None and type(label) is not int:
            raise LayoutError(
                f"{where}: label must be a path, a class number or a list of zeros and ones, got {label!r}"
            )
        return _Entry(confine(self.root, image, where), label)

    def _named_classes(self) -> int | None:
        """Classes by the JSON's ``labels``: ``{"0": "background", ...}`` (Decathlon) or ``{"background": 0, ...}``."""
        labels = self.content.get("labels")
        if not isinstance(labels, Mapping) or not labels:
            return None
        numbers = list(labels) if all(str(key).isdecimal() for key in labels) else list(labels.values())
        if not all(str(number).isdecimal() for number in numbers):
            return None
        return max(int(number) for number in numbers) + 1

    def _largest_voxel(self) -> int:
        largest = 1
        for file in self.label_files():
            largest = max(largest, int(format_of(self.root / file).read(self.root / file).max()))
        return largest


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON:
        raise LayoutError(f"{path} is larger than any data list ({path.stat().st_size} bytes)")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise LayoutError(f'{path} must hold a JSON object with a "training" list, got {type(content).__name__}')
    return content


def _candidates(folder: Path) -> list[Path]:
    """The JSON a folder's data list is in: a file of a usual name, else every JSON that has a training list."""
    for name in _NAMES:
        if (folder / name).is_file():
            return [folder / name]
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            if "training" in _read_json(path):
                found.append(path)
        except (LayoutError, OSError):
            continue
    return found
