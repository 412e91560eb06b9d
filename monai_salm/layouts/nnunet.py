"""nnU-Net version 2 raw data sets: one file for each channel of an image, and label maps of the cases' names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_salm.formats import format_of
from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.folder import FolderCase, FolderLayout, confine, is_file, is_hidden
from monai_salm.layouts.reading import entry_of, read_json
from monai_salm.layouts.units import ChannelFiles, ImageUnit

_JSON = "dataset.json"


class NnUNet(FolderLayout):
    """``DatasetXXX_Name`` with ``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``, ``imagesTs`` and a ``dataset.json``.

    The JSON has ``channel_names``, ``labels``, ``numTraining`` and ``file_ending``, and may name the training files itself
    under ``dataset``. A case's files are the channels of one image, in their order.
    """

    name = "nnunet"
    description = 'a folder with imagesTr and a dataset.json with "channel_names" and "file_ending" (nnU-Net version 2)'
    specialises = ("datalist", "decathlon")

    def __init__(self, root: Path) -> None:
        self.root, self.json = root, root / _JSON
        if not is_file(self.json):
            raise LayoutError(f"{root} has no {_JSON}; an nnU-Net data set is {self.description}")
        self.content = read_json(self.json)
        self.channels = len(entry_of(self.content, "channel_names", dict, self.json))
        self.ending = entry_of(self.content, "file_ending", str, self.json)
        if not self.ending.startswith(".") or "/" in self.ending or "\\" in self.ending or not self.channels:
            raise LayoutError(f"{self.json}: file_ending {self.ending!r} with {self.channels} channels makes no sense")
        cases = {TRAIN: list(self._training()), "test": list(self._in_folders("Ts", needs_label=False))}
        self._check_count(len(cases[TRAIN]))
        self._check_channels([case.unit for found in cases.values() for case in found])
        super().__init__(root, cases, [_JSON], _largest_label(self.content, self.json) + 1)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        listing = path / _JSON if path.is_dir() else path
        if listing.name != _JSON or not listing.is_file():
            return False
        try:
            return {"channel_names", "file_ending"} <= set(read_json(listing))
        except (LayoutError, OSError):
            return False

    @classmethod
    def open(cls, path: Path) -> NnUNet:
        return cls(path.parent if path.is_file() else path)

    def reopen(self, root: Path) -> NnUNet:
        return self.open(root)

    def _training(self) -> Iterator[FolderCase]:
        if "dataset" not in self.content:
            yield from self._in_folders("Tr", needs_label=True)
            return
        for name, entry in entry_of(self.content, "dataset", dict, self.json).items():
            where = f"{self.json}: dataset[{name!r}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("images"), list) or not entry["images"]:
                raise LayoutError(f'{where}: expected {{"images": [path, ...], "label": path}}, got {entry!r}')
            files = tuple(confine(self.root, file, where) for file in entry["images"])
            yield FolderCase(ChannelFiles(files[0], files), confine(self.root, entry.get("label"), where))

    def _in_folders(self, split: str, needs_label: bool) -> Iterator[FolderCase]:
        for case, numbered in sorted(self._by_case(self.root / f"images{split}", needs_label).items()):
            missing = [number for number in range(max(numbered) + 1) if number not in numbered]
            if missing:
                raise LayoutError(f"{self.root}: case {case!r} in images{split} has no channel {missing[0]:04d}")
            files = tuple(confine(self.root, numbered[number], str(self.root)) for number in sorted(numbered))
            label: str | None = f"labels{split}/{case}{self.ending}"
            if not is_file(self.root / str(label)):
                if needs_label:
                    raise LayoutError(f"{self.root}: case {case!r} has no label map {label}")
                label = None
            yield FolderCase(ChannelFiles(files[0], files), label and confine(self.root, label, str(self.root)))

    def _by_case(self, folder: Path, required: bool) -> dict[str, dict[int, str]]:
        """Case -> channel -> file."""
        if not folder.is_dir():
            if required:
                raise LayoutError(f"{folder} is missing; it must hold the training images")
            return {}
        pattern = re.compile(r"(.+)_(\d{4})" + re.escape(self.ending), re.DOTALL | re.ASCII)
        found: dict[str, dict[int, str]] = {}
        for path in sorted(folder.iterdir()):
            if is_hidden(path.name) or not path.name.endswith(self.ending):
                continue
            match = pattern.fullmatch(path.name)
            if match is None:
                raise LayoutError(f"{path} has no channel number; name it CASE_0000{self.ending}")
            found.setdefault(match[1], {})[int(match[2])] = f"{folder.name}/{path.name}"
        return found

    def _check_count(self, cases: int) -> None:
        declared = entry_of(self.content, "numTraining", int, self.json)
        if declared != cases:
            raise LayoutError(
                f"{self.json}: numTraining is {declared}, but there are {cases} training cases; add what is missing or correct it"
            )

    def _check_channels(self, units: list[ImageUnit]) -> None:
        """One file for each channel; a single colour image may hold all of them."""
        for unit in units:
            count = len(unit.files)
            if count == 1 and self.channels > 1:
                path = self.root / unit.files[0]
                count = format_of(path).read(path).shape[0]
            if count != self.channels:
                raise LayoutError(
                    f"{self.root}: case {unit.name!r} has {count} channels, {_JSON} names {self.channels}: "
                    f"{', '.join(map(str, self.content['channel_names'].values()))}"
                )


def _largest_label(content: dict[str, Any], path: Path) -> int:
    """Of ``{"background": 0, "kidney": [1, 2], ...}``; a region is a list of the labels that it is made of."""
    largest = 0
    for name, value in entry_of(content, "labels", dict, path).items():
        for number in value if isinstance(value, list) and value else [value]:
            if type(number) is not int or not 0 <= number <= 65_535:
                raise LayoutError(f"{path}: label {name!r} must be a number from 0 or a list of such, got {value!r}")
            largest = max(largest, number)
    if not largest:
        raise LayoutError(f"{path}: labels must name something beside the background")
    return largest
