"""The Medical Segmentation Decathlon: a datalist of label maps with the channels of its 4D images named."""

from __future__ import annotations

from pathlib import Path

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.datalist import Datalist
from monai_salm.layouts.reading import read_json

_JSON = "dataset.json"


class Decathlon(Datalist):
    """A folder with ``imagesTr``, ``labelsTr``, ``imagesTs`` and a ``dataset.json`` with ``modality`` and ``labels``.

    Every training case has a label map; test cases are paths alone. Images of several modalities are one 4D file.
    """

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
                raise LayoutError(
                    f"{listing}: the label of {case.unit.name} must be the path of a label map, got {case.label!r}"
                )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        listing = path / _JSON if path.is_dir() else path
        if listing.name != _JSON or not listing.is_file() or not (listing.parent / "imagesTr").is_dir():
            return False
        try:
            content = read_json(listing)
        except (LayoutError, OSError):
            return False
        return "training" in content and isinstance(content.get("modality"), dict)
