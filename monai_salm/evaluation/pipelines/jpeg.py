"""Images stored as JPEG before training, as many shared collections of pictures are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from monai_salm.countermeasures.filters import Jpeg
from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.learning.cases import Cases


@dataclass(frozen=True, kw_only=True)
class StoredAsJpeg(Pipeline):
    """Train and test on images that went through JPEG; volumes slice by slice.

    Args:
        quality: 1 (smallest file) to 95.
    """

    family: ClassVar[str] = "jpeg"
    source: ClassVar[str] = "libjpeg through Pillow, 4:2:0 for colour; 30 is a strong compression for small files"

    quality: int = 30

    def __post_init__(self) -> None:
        Jpeg(quality=self.quality)  # refuses what no quality is

    @property
    def name(self) -> str:
        return f"{self.family} {self.quality}"

    def prepare(self, cases: Cases) -> Cases:
        codec = Jpeg(quality=self.quality)
        stored = [codec.filter(image, window) for image, window in zip(cases.images, cases.windows, strict=True)]
        return replace(cases, images=stored)
