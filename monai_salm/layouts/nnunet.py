"""nnU-Net version 2 raw data sets: one file for each channel of an image, and label maps of the cases' names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm.formats import FormatError, format_named, format_of
from monai_salm.layouts.datalist import modalities_of
from monai_salm.layouts.files import TRAIN, LayoutError, confine, from_root, is_file, walk
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.label_maps import files_of
from monai_salm.layouts.labels import MAX_CLASS
from monai_salm.layouts.reading import entry_of, read_json
from monai_salm.layouts.stored_images import ChannelFiles, StoredImage, UnusableImage

_JSON = "dataset.json"


class NnUNet(FolderLayout):
    """``DatasetXXX_Name`` with ``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``, ``imagesTs`` and a ``dataset.json``.

    A case's files are the channels of one image; without one of them, or without its label map, it cannot be used.
    """

    name = "nnunet"
    description = 'a folder with imagesTr and a dataset.json with "channel_names" and "file_ending" (nnU-Net version 2)'
    specialises = ("datalist", "decathlon", "mask_folder")

    def __init__(self, root: Path) -> None:
        self.root, self.json = root, root / _JSON
        if not is_file(self.json):
            raise LayoutError(f"{root} has no {_JSON}; an nnU-Net data set is {self.description}")
        written = read_json(self.json)
        self.content = from_root(root, written)
        self._absolute = (_JSON,) if self.content != written else ()
        self.channels = len(entry_of(self.content, "channel_names", dict, self.json))
        self.ending = entry_of(self.content, "file_ending", str, self.json)
        if not self.ending.startswith(".") or "/" in self.ending or "\\" in self.ending:
            raise LayoutError(f"{self.json}: file_ending must be a suffix such as '.nii.gz', got {self.ending!r}")
        self._published = getattr(format_named(f"x{self.ending}"), "published", None)
        if not self.channels:
            raise LayoutError(f"{self.json}: channel_names must name one channel at least, it is empty")
        training, test = list(self._training()), list(self._in_folders("Ts"))
        declared = entry_of(self.content, "numTraining", int, self.json)
        found = sum(not isinstance(case.image, UnusableImage) for case in training)
        if declared < max(1, found):  # fewer may be missing, and cannot be named
            raise LayoutError(f"{self.json}: numTraining is {declared}, but there are {found} training cases; mend it")
        self._require_one_format([*training, *test])
        cases = [*((TRAIN, case) for case in training), *(("test", case) for case in test)]
        classes, channels = _label_names(self.content, self.json), modalities_of(self.content, "channel_names")
        super().__init__(root, cases, [_JSON], classes, channels)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        listing = path / _JSON if path.is_dir() else path
        if listing.name != _JSON or not is_file(listing):
            return ""
        named = path.is_dir() and (path / "imagesTr").is_dir()
        try:
            missing = sorted({"channel_names", "file_ending"} - set(read_json(listing)))
        except (LayoutError, OSError) as error:
            return str(error) if named else ""
        if not missing:
            return None
        return f"{listing} lacks {' and '.join(missing)}" if named else ""

    @classmethod
    def open(cls, path: Path) -> NnUNet:
        return cls(path.parent if path.is_file() else path)

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        texts, ending = dict(super().rewritten_files(splits)), self._new_ending(splits)
        if ending is not None:
            content = texts.get(_JSON, self.json.read_bytes())
            old, new = json.dumps(self.ending).encode(), json.dumps(ending).encode()
            texts[_JSON] = re.sub(rb'("file_ending"\s*:\s*)' + re.escape(old), rb"\g<1>" + new, content)
        return texts

    def rewritten_notes(self, splits: Sequence[str] = (TRAIN,)) -> list[str]:
        ending = self._new_ending(splits)
        notes = [] if ending is None else [f"{_JSON}: file_ending becomes {ending!r} in the copy"]
        return [*super().rewritten_notes(splits), *notes]

    def _new_ending(self, splits: Sequence[str]) -> str | None:
        """The ending of the images in a copy; None if it stays."""
        return self._published if self.renamed(splits) else None

    def _require_one_format(self, cases: Sequence[FolderCase]) -> None:
        """Refuse label maps and test images of a format whose images become another: nnU-Net reads one ending."""
        if self._published is None:
            return
        images = () if "dataset" in self.content else [case.image.files[0] for case in cases]
        others = [*(file for case in cases for file in files_of(case.label)), *images]
        odd = next((file for file in others if file.lower().endswith(self.ending.lower())), None)
        if odd is not None:
            raise LayoutError(
                f"{self.json}: file_ending is {self.ending!r}, and training images of this format become {self._published} in a "
                f"copy. {odd} would not, and nnU-Net reads one ending. JPEG also changes the numbers of label maps. Convert images "
                f'and label maps to PNG, and write "file_ending": ".png"'
            )

    def _training(self) -> Iterator[FolderCase]:
        if "dataset" not in self.content:
            yield from self._in_folders("Tr")
            return
        for name, entry in entry_of(self.content, "dataset", dict, self.json).items():
            where = f"{self.json}: dataset[{name!r}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("images"), list) or not entry["images"]:
                raise LayoutError(f'{where}: expected {{"images": [path, ...], "label": path}}, got {entry!r}')
            files = tuple(confine(self.root, file, where) for file in entry["images"])
            yield FolderCase(self._image(files[0], files), confine(self.root, entry.get("label"), where))

    def _in_folders(self, split: str) -> Iterator[FolderCase]:
        """The cases of ``imagesTr``, which must be there, or ``imagesTs``."""
        folder, required = f"images{split}", split == "Tr"
        if required and not (self.root / folder).is_dir():
            raise LayoutError(f"{self.root / folder} is missing; it must hold the training images")
        pattern = re.compile(r"(.+)_(\d{4})" + re.escape(self.ending), re.DOTALL | re.ASCII)
        names = {file: pattern.fullmatch(PurePosixPath(file).name) for file in self._files(folder)}
        channels = defaultdict[str, dict[int, str]](dict)
        for file, match in names.items():
            if match is not None:
                channels[match[1]][int(match[2])] = file
        labels = {PurePosixPath(file).name[: -len(self.ending)]: file for file in self._files(f"labels{split}")}
        for case in sorted({*channels, *labels}):
            numbered, label, reason = channels.get(case, {}), labels.get(case), ""
            first, files = f"{folder}/{case}_0000{self.ending}", tuple(file for _, file in sorted(numbered.items()))
            missing = [number for number in range(max(numbered, default=0) + 1) if number not in numbered]
            if not files:
                reason = f"it has a label map, {label}, but no image"
            elif missing:
                reason = f"it has no channel {missing[0]:04d} in {folder}; add the file"
            elif required and label is None:
                reason = f"it has no label map labels{split}/{case}{self.ending}; add the file"
            image = UnusableImage(first, files or (first,), reason) if reason else self._image(first, files)
            yield FolderCase(image, label)
        for file in (file for file, match in names.items() if match is None):
            reason = f"its name has no channel number; name it CASE_0000{self.ending}"
            yield FolderCase(UnusableImage(file, (file,), reason), None)

    def _files(self, folder: str) -> list[str]:
        """The files of a folder that may be images or label maps; none where there is no folder."""
        names = sorted(walk(self.root / folder)) if (self.root / folder).is_dir() else []
        own = [f"{folder}/{name}" for name in names if "/" not in name and name.endswith(self.ending)]
        return [confine(self.root, file, str(self.root)) for file in own]

    def _image(self, name: str, files: tuple[str, ...]) -> StoredImage:
        """A case with one file for each channel; a single colour image may hold all of them."""
        count = len(files)
        if count == 1 and self.channels > 1:
            try:
                count = format_of(self.root / files[0]).read(self.root / files[0]).shape[0]
            except (FormatError, OSError):
                return ChannelFiles(name, files)  # it says so itself when it is read
        if count != self.channels:
            names = ", ".join(map(str, self.content["channel_names"].values()))
            return UnusableImage(name, files, f"it has {count} channels, {_JSON} names {self.channels}: {names}")
        return ChannelFiles(name, files)


def _label_names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The names in ``{"background": 0, "kidney": [1, 2], ...}``. A region is a list of the labels that it is made of.

    A label that stands in regions alone is called after the smallest of them, with its number.
    """
    parts: dict[str, list[int]] = {}
    for name, value in entry_of(content, "labels", dict, path).items():
        parts[name] = value if isinstance(value, list) and value else [value]
        for number in parts[name]:
            if type(number) is not int or not 0 <= number <= MAX_CLASS:
                raise LayoutError(f"{path}: label {name!r} must be a number from 0 or a list of such, got {value!r}")
    largest = max((number for numbers in parts.values() for number in numbers), default=0)
    if not largest:
        raise LayoutError(f"{path}: labels must name something beside the background")
    names = [""] * (largest + 1)
    for name, numbers in sorted(parts.items(), key=lambda item: len(item[1])):
        for number in numbers:
            names[number] = names[number] or (name if len(numbers) == 1 else f"{number} of {name}")
    return tuple(names)
