"""Images stored as JPEG before training, as many shared collections of pictures are."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    varied: ClassVar[str] = "quality"

    quality: int = field(default=30, metadata={"in": "[1, 95]"})

    def prepare(self, cases: Cases) -> Cases:
        return Jpeg(quality=self.quality).filter_cases(cases)
