"""Self-training: labels that a network trained on clean images gives the published ones.

Yarowsky 1995 (ACL); Lee 2013, "Pseudo-Label" (ICML workshop on challenges in representation learning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from monai_salm.countermeasures.base import Countermeasure, Means
from monai_salm.learning.cases import Cases
from monai_salm.learning.tasks import Task
from monai_salm.shared.arrays import Array


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Countermeasure):
    """Train on the published images with a teacher's labels, and on the clean ones with their own.

    The teacher is trained on the clean ones alone. Noise that leads to the published labels then leads to the teacher's
    only as far as the two agree. All labels are taken, however sure the teacher is, as Lee does.
    """

    name: ClassVar[str] = "self_training"
    tier: ClassVar[str] = "costly"
    needs_clean: ClassVar[bool] = True

    def prepare(self, cases: Cases, means: Means) -> Cases:
        known = means.known
        labels = pseudo_labels(means.train(known).predict(cases), known.labels, cases.task)
        return replace(
            cases,
            images=[*cases.images, *known.images],
            labels=[*labels, *known.labels],
            names=[*cases.names, *known.names],
            windows=[*cases.windows, *known.windows],
        )


def pseudo_labels(predictions: Sequence[torch.Tensor], like: Sequence[Array], task: Task) -> list[Array]:
    """Turn what ``task.predict`` gives into labels of the task's canonical form.

    Args:
        predictions: probabilities ``(class,)`` or ``(label,)``, or label maps ``(*spatial)``, one a case.
        like: labels in canonical form, for their type.
        task: the learning problem.
    """
    if task.kind == "segmentation":
        answers = list(predictions)
    elif like[0].dtype.kind == "f":  # multi-label
        answers = [probability > 0.5 for probability in predictions]
    else:
        answers = [probability.argmax() for probability in predictions]
    return [answer.numpy().astype(like[0].dtype) for answer in answers]
