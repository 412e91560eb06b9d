"""The size at which MedMNIST's published networks of 224 pixels were trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from monai_salm.evaluation.pipelines.base import Pipeline
from monai_salm.evaluation.pipelines.resampling import nearest
from monai_salm.learning.cases import Cases, View


@dataclass(frozen=True, kw_only=True)
class MedMnist(Pipeline):
    """Train and test at ``size`` pixels a side, each pixel the nearest of the image; nothing is augmented.

    MedMNIST's networks of 28 pixels see the stored images: that is ``plain``. ``MEDMNIST_RECIPE`` has the optimiser, the steps of
    the learning rate and the batch size of both.

    Args:
        size: pixels of both sides.
    """

    family: ClassVar[str] = "medmnist"
    source: ClassVar[str] = (
        "MedMNIST/experiments, MedMNIST2D/train_and_eval_pytorch.py --resize (Yang et al. 2023): Resize((224, 224)) with nearest "
        "neighbours, no augmentation"
    )
    ranks: ClassVar[tuple[int, ...]] = (2,)

    varied: ClassVar[str] = "size"

    size: int = field(default=224, metadata={"in": "[1, inf)"})

    def prepare(self, cases: Cases) -> Cases:
        size = (self.size, self.size)
        images = [nearest(image, size) for image in cases.images]
        labels = [nearest(label, size) if label.ndim > 1 else label for label in cases.labels]
        return replace(cases, images=images, labels=labels, view=View("full", size))
