"""MONAI datalists and the Medical Segmentation Decathlon: a JSON file that lists images and labels beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from monai_salm.layouts.files import TRAIN, LayoutError, confine, from_root, has_image_name, is_file, stem
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.labels import MAX_CLASS, class_numbers
from monai_salm.layouts.reading import Cell, json_or_nothing, read_json
from monai_salm.layouts.stored_images import ChannelFiles, StoredImage, UnusableImage, channel_files

#: Split -> the keys under which datalists have it.
_SPLIT_KEYS = {"train": ("training",), "val": ("validation",), "test": ("test", "testing")}
_NAMES = ("dataset.json", "datalist.json")


class Datalist(FolderLayout):
    """A folder with a JSON of ``training``, ``validation`` and ``test`` lists, paths relative to the JSON.

    Keys such as the ``fold`` of Auto3DSeg mean nothing here: a case of any fold is trained on in some run, so all are protected.
    """

    name = "datalist"
    # It says itself what is an image.
    specialises: ClassVar[tuple[str, ...]] = ("dicom_tree", "image_folder", "mask_folder")
    description = (
        'a folder with a dataset.json or other JSON that has a "training" list of {"image": ..., "label": ...}'
    )

    def __init__(self, listing: Path) -> None:
        self.root, self.json = listing.parent, listing
        written = read_json(listing)
        self.content = from_root(listing.parent, written)
        self._absolute = (listing.name,) if self.content != written else ()
        splits = ((split, key) for split, keys in _SPLIT_KEYS.items() for key in keys)
        listed = [(split, *entry) for split, key in splits for entry in self._entries(key)]
        self._class_labels, names = self._text_classes([entry for _, *entry in listed])
        cases = [(split, self._read_entry(entry, where)) for split, entry, where in listed]
        if TRAIN not in dict(cases):
            raise LayoutError(f'{listing} has no "training" list with cases; its keys are {", ".join(self.content)}')
        named, classes = modalities_of(self.content, "modality"), names or self._named_classes()
        super().__init__(listing.parent, _by_class(cases), [listing.name], classes, named)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        if (path.suffix == ".json" and path.is_file()) or (path.is_dir() and _candidates(path)):
            return None
        for listing in sorted(path.glob("*.json")) if path.is_dir() else ():
            content = json_or_nothing(listing)
            if {"train", "val", "validation", "test", "testing"} & set(content):
                keys = ", ".join(map(repr, content))
                return f'{listing} has no "training" list of images and labels; its keys are {keys}'
        return ""

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
        return type(self)(self.in_copy(self.json, root))

    def _entries(self, key: str) -> list[tuple[Any, str]]:
        """The entries of a list of the JSON, and where each stands."""
        entries = self.content.get(key, [])
        if not isinstance(entries, list):
            raise LayoutError(f"{self.json}: {key!r} must be a list, got {type(entries).__name__}")
        return [(entry, f"{self.json}: {key}[{index}]") for index, entry in enumerate(entries)]

    def _text_classes(
        self, entries: Sequence[Sequence[Any]]
    ) -> tuple[dict[str, int | list[int] | None], tuple[str, ...]]:
        """The label that each text stands for, and the names of the classes; none if a label is a file or named as one."""
        labels = ((_single(entry.get("label")), where) for entry, where in entries if isinstance(entry, Mapping))
        cells = {label: Cell(label, where) for label, where in labels if isinstance(label, str)}
        if any(text.startswith(("/", ".")) or has_image_name(text) or is_file(self.root / text) for text in cells):
            return {}, ()
        labels_, names = class_numbers(list(cells.values()))
        return dict(zip(cells, labels_, strict=True)), names

    def _read_entry(self, entry: Any, where: str) -> FolderCase:
        if isinstance(entry, str):
            return FolderCase(self._image([entry], where), None)
        if not isinstance(entry, Mapping) or "image" not in entry:
            raise LayoutError(f'{where}: expected {{"image": path, "label": ...}} or a path, got {entry!r}')
        image, label = entry["image"], _single(entry.get("label"))
        if isinstance(label, Mapping):
            raise LayoutError(
                f"{where}: label is an object with the keys {', '.join(map(repr, label))}; an image has one label here, so write "
                "the one to protect against as a path, a class number or a list of zeros and ones"
            )
        if isinstance(label, str):
            known = label in self._class_labels
            label = self._class_labels[label] if known else confine(self.root, label, where)
        elif label is not None and {type(item) for item in (label if isinstance(label, list) else [label])} != {int}:
            kinds = "a path, a class number or name, or a list of zeros and ones"
            raise LayoutError(f"{where}: label must be {kinds}, got {label!r}")
        return FolderCase(self._image(image if isinstance(image, list) and image else [image], where), label)

    def _image(self, images: Sequence[object], where: str) -> StoredImage:
        files = [confine(self.root, part, where) for part in images]
        if len(files) > 1 or is_file(self.root / files[0]):
            return channel_files(files)
        # nnU-Net version 1 lists case.nii.gz for case_0000.nii.gz, case_0001.nii.gz, ...
        own = PurePosixPath(files[0])
        base = stem(own.name)
        names = (str(own.with_name(f"{base}_{number:04d}{own.name[len(base) :]}")) for number in count())
        channels = tuple(takewhile(lambda name: is_file(self.root / name), names))
        named = len(modalities_of(self.content, "modality"))
        if channels and named and len(channels) != named:
            reason = f"{where}: it has {len(channels)} files of channels ({channels[0]}, ...), {named} are named under modality"
            return UnusableImage(files[0], channels, reason)
        return ChannelFiles(files[0], channels or tuple(files))

    def _named_classes(self) -> tuple[str, ...]:
        """Classes by the JSON's ``labels``: ``{"0": "background", ...}`` (Decathlon) or ``{"background": 0, ...}``."""
        labels = self.content.get("labels")
        if not isinstance(labels, Mapping):
            return ()
        pairs = labels.items() if all(str(key).isdecimal() for key in labels) else [(v, k) for k, v in labels.items()]
        if not all(str(number).isdecimal() and int(str(number)) <= MAX_CLASS for number, _ in pairs):
            return ()
        names = {int(str(number)): str(name) for number, name in pairs}
        return tuple(names.get(number, "") for number in range(max(names, default=-1) + 1))


def _single(label: Any) -> Any:
    """A label without the list around it if it is alone, and whole floats as whole numbers."""
    if isinstance(label, list) and len(label) == 1:
        return _single(label[0])
    if isinstance(label, list):
        return [_single(item) for item in label]
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _by_class(cases: Sequence[tuple[str, FolderCase]]) -> list[tuple[str, FolderCase]]:
    """Cases with a class number in place of a vector, if each vector has one 1."""
    labels = [case.label for _, case in cases if case.label is not None]
    vectors = [label for label in labels if isinstance(label, list)]
    if not vectors or len(vectors) < len(labels) or any(sorted(set(v)) != [0, 1] or sum(v) != 1 for v in vectors):
        return list(cases)
    numbers = (case.label.index(1) if isinstance(case.label, list) else None for _, case in cases)
    return [(split, replace(case, label=number)) for (split, case), number in zip(cases, numbers, strict=True)]


def modalities_of(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The modality of each channel by the JSON's ``{"0": "CT", ...}``; empty if it has none of that form."""
    named = content.get(key)
    if not isinstance(named, Mapping) or not all(str(number).isdecimal() for number in named):
        return ()
    return tuple(str(named[number]).upper() for number in sorted(named, key=lambda number: int(str(number))))


def _candidates(folder: Path) -> list[Path]:
    """The JSON a folder's data list is in: a file of a usual name, else every JSON that has a training list."""
    usual = [folder / name for name in _NAMES if (folder / name).is_file()][:1]
    return usual or [path for path in sorted(folder.glob("*.json")) if "training" in json_or_nothing(path)]


class Decathlon(Datalist):
    """A folder with ``imagesTr``, ``labelsTr``, ``imagesTs`` and a ``dataset.json`` with ``modality`` and ``labels``."""

    name = "decathlon"
    description = 'a folder with imagesTr and a dataset.json with "modality", "labels" and "training" (Decathlon)'
    specialises = ("datalist",)

    def __init__(self, listing: Path) -> None:
        super().__init__(listing)
        if not isinstance(self.content.get("modality"), dict):
            raise LayoutError(
                f'{listing} has no "modality" of {{"0": name, ...}}; open it as a datalist (layout="datalist", --layout datalist)'
            )
        for case in self._cases[TRAIN]:
            if not isinstance(case.label, str):
                where = f"{listing}: the label of {case.image.name}"
                raise LayoutError(f"{where} must be the path of a label map, got {case.label!r}")

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        listing = path / _NAMES[0] if path.is_dir() else path
        if listing.name == _NAMES[0] and listing.is_file() and (listing.parent / "imagesTr").is_dir():
            content = json_or_nothing(listing)
            return None if "training" in content and isinstance(content.get("modality"), dict) else ""
        return ""
