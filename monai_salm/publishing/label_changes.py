"""Labels that were changed since the noise was made: noise stands for labels, so a copy with other labels teaches them."""

from __future__ import annotations

from contextlib import suppress

from monai_salm.formats.base import FormatError
from monai_salm.generate.resuming import data_digest
from monai_salm.learning.tasks import LabelError, task_from_spec
from monai_salm.noise.digest import content_digest, drawing_digest
from monai_salm.noise.kinds import one_channel
from monai_salm.publishing.copy_job import CopyJob
from monai_salm.publishing.searching import in_threads
from monai_salm.store.records import reading, skipped_of
from monai_salm.store.store import NoiseStore


def label_warnings(work: CopyJob, store: NoiseStore) -> list[str]:
    """Tell the owner of labels that the noise was not made for; only a data set of all images of the store can tell."""
    meta, skipped, cases = store.meta, skipped_of(store), work.data.cases(work.splits)
    if "data" not in meta or "task" not in meta:
        return []
    with reading(store, "its description of the task cannot be read"):
        task = task_from_spec(meta["task"])

    def look(index: int) -> tuple[bytes, bytes] | None:
        """The digests of an image and its label; None for an image that the store does not know."""
        with suppress(FormatError, OSError):  # told when the image is copied
            case = cases[index]
            image = case["image"] if content_digest(case["image"]) in store else one_channel(case["image"])
            if image is not None and content_digest(image) in store:
                label = task.check_label(case["label"], image.shape[1:], case["name"])
                return drawing_digest(image), content_digest(label)
        return None

    indices, known = [i for i, name in enumerate(cases.names) if name not in skipped], dict[bytes, bytes]()
    with suppress(LabelError):
        for found in in_threads(look, indices, work.settings.jobs):
            if found is None:
                return []
            known.setdefault(*found)
        if len(known) != len(store) or data_digest(known, known.values()) == meta["data"]:
            return []
    return [
        f"the noise in {store.path} was made for other labels of these images (or for the images in another order), and noise "
        "stands for labels. If labels were corrected, make the noise again: overwrite=True (--overwrite)"
    ]
