"""MONAI datalists and the Medical Segmentation Decathlon: a JSON file that lists images and labels beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.files import confine
from monai_salm.layouts.folder import FolderCase, FolderLayout, channel_files
from monai_salm.layouts.reading import read_json

#: Split -> the keys under which datalists have it.
_SPLIT_KEYS = {"train": ("training",), "val": ("validation",), "test": ("test", "testing")}
_NAMES = ("dataset.json", "datalist.json")


class Datalist(FolderLayout):
    """A folder with a JSON of ``training``, ``validation`` and ``test`` lists, paths relative to the JSON.

    An entry is ``{"image": path, "label": path | int | [0, 1, ...]}``, or the path alone where there is no label; an image
    in several files, one for each channel, is a list of paths. Other keys, such as the ``fold`` of MONAI's Auto3DSeg, mean
    nothing here: a case of any fold is trained on in some run, so all of "training" is protected.
    """

    name = "datalist"
    specialises = ("dicom_tree",)
    description = (
        'a folder with a dataset.json or another JSON that has a "training" list of {"image": ..., "label": ...}'
    )

    def __init__(self, listing: Path) -> None:
        self.root, self.json = listing.parent, listing
        self.content = read_json(listing)
        cases = {split: list(self._read_split(split)) for split in _SPLIT_KEYS}
        if not cases[TRAIN]:
            raise LayoutError(f'{listing} has no "training" list with cases; its keys are {", ".join(self.content)}')
        named = modalities_of(self.content, "modality")
        super().__init__(listing.parent, cases, [listing.name], self._named_classes(), modalities=named)

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
        listing = root / self.json.name
        if not listing.is_file():
            raise LayoutError(f"{listing} is missing; give the folder of a copy of {self.root}")
        return type(self)(listing)

    def _read_split(self, split: str) -> Iterator[FolderCase]:
        for key in _SPLIT_KEYS[split]:
            entries = self.content.get(key, [])
            if not isinstance(entries, list):
                raise LayoutError(f"{self.json}: {key!r} must be a list, got {type(entries).__name__}")
            for index, entry in enumerate(entries):
                yield self._read_entry(entry, f"{self.json}: {key}[{index}]")

    def _read_entry(self, entry: object, where: str) -> FolderCase:
        if isinstance(entry, str):
            return FolderCase(channel_files([confine(self.root, entry, where)]), None)
        if not isinstance(entry, Mapping) or "image" not in entry:
            raise LayoutError(f'{where}: expected {{"image": path, "label": ...}} or a path, got {entry!r}')
        image, label = entry["image"], entry.get("label")
        images = image if isinstance(image, list) and image else [image]
        if isinstance(label, Mapping):
            raise LayoutError(
                f"{where}: label is an object with the keys {', '.join(map(repr, label))}; an image has one label here, so write "
                "the one to protect against as a path, a class number or a list of zeros and ones"
            )
        if isinstance(label, str):
            label = confine(self.root, label, where)
        elif isinstance(label, list) and all(type(v) is int for v in label) and label:
            label = label[0] if len(label) == 1 else label
        elif label is not None and type(label) is not int:
            raise LayoutError(
                f"{where}: label must be a path, a class number or a list of zeros and ones, got {label!r}"
            )
        return FolderCase(channel_files([confine(self.root, part, where) for part in images]), label)

    def _named_classes(self) -> int | None:
        """Classes by the JSON's ``labels``: ``{"0": "background", ...}`` (Decathlon) or ``{"background": 0, ...}``."""
        labels = self.content.get("labels")
        if not isinstance(labels, Mapping) or not labels:
            return None
        numbers = list(labels) if all(str(key).isdecimal() for key in labels) else list(labels.values())
        if not all(str(number).isdecimal() for number in numbers):
            return None
        return max(int(number) for number in numbers) + 1


def modalities_of(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The modality of each channel by the JSON's ``{"0": "CT", ...}``; empty if it has none of that form."""
    named = content.get(key)
    if not isinstance(named, Mapping) or not all(str(number).isdecimal() for number in named):
        return ()
    return tuple(str(named[number]).upper() for number in sorted(named, key=lambda number: int(str(number))))


def _candidates(folder: Path) -> list[Path]:
    """The JSON a folder's data list is in: a file of a usual name, else every JSON that has a training list."""
    for name in _NAMES:
        if (folder / name).is_file():
            return [folder / name]
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            if "training" in read_json(path):
                found.append(path)
        except (LayoutError, OSError):
            continue
    return found
