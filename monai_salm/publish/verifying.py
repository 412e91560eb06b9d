"""Prove a protected copy from its files: what is in them, what is not, and that the noise can be taken off again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_salm.digest import content_digest
from monai_salm.formats.base import Array, FormatError
from monai_salm.layouts import Case, LayoutError, open_layout
from monai_salm.masks import mask_size
from monai_salm.progress import Progress, ProgressCallback
from monai_salm.publish.checks import PathLike
from monai_salm.publish.manifest import FOLDER_MANIFEST, manifest_problems
from monai_salm.store import NoiseStore


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    Args:
        checked: cases that were compared.
        problems: one line for everything that is wrong; empty if all is as promised.
    """

    checked: int
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing is wrong."""
        return self.checked > 0 and not self.problems


def verify(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Compare a protected copy with its original, both read from disk.

    Proved for every training image: original + noise is the protected image bit for bit; the noise is not all zero, at most
    epsilon, nowhere outside the window, and inside the budget of a mask per sample; type, shape, header and label are the
    original's. For the rest: all other files have the same bytes, none is missing or added, and the manifest is right.

    Args:
        source: the original data set.
        output: its protected copy.
        store: the noise.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        progress: called with a ``Progress`` for every case.

    Raises:
        LayoutError, FormatError, OSError: if the original cannot be read.
        NoiseStoreError: if the store is damaged.
    """
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    rules = _Rules(noises)
    data = open_layout(source, layout)
    target = Path(output)
    try:
        if data.root.is_file() != target.is_file():
            raise LayoutError(
                f"{target} is {'missing' if not target.exists() else 'of another kind than the original'}"
            )
        copy = data.reopen(target)
        pairs = data.dataset(), copy.dataset()
    except (FormatError, LayoutError, OSError) as error:
        return VerifyReport(0, [str(error)])
    problems: list[str] = []
    if pairs[0].names != pairs[1].names:
        problems.append(
            f"the training split has {len(pairs[1])} cases, or other names, than the original's {len(pairs[0])}"
        )
    count = min(len(pairs[0]), len(pairs[1]))
    for index in range(count):
        original = pairs[0][index]
        try:
            problems += [f"case {original['name']!r}: {what}" for what in rules.problems(original, pairs[1][index])]
        except (FormatError, OverflowError, OSError) as error:
            problems.append(f"case {original['name']!r}: {error}")
        if progress is not None:
            progress(Progress("verify", index + 1, count, original["name"]))
    problems += data.differences(copy, ignore=(FOLDER_MANIFEST,))
    problems += manifest_problems(copy, noises)
    return VerifyReport(count, problems)


class _Rules:
    """What must hold for every protected image, by the settings the store records."""

    def __init__(self, store: NoiseStore) -> None:
        settings = store.settings
        self.store, self.window, self.mask_ratio = store, settings.window, settings.sample_mask_ratio
        self.budget = settings.epsilon * settings.window.width

    def problems(self, original: Case, protected: Case) -> Iterator[str]:
        """What is wrong with one case, a line each."""
        before, after = original["image"], protected["image"]
        if not np.array_equal(np.asarray(original["label"]), np.asarray(protected["label"])):
            yield "its label differs from the original's"
        if before.dtype != after.dtype or before.shape != after.shape:
            yield f"is {after.dtype.name} {after.shape}, the original {before.dtype.name} {before.shape}"
            return
        noise = self.store.get(content_digest(before), before.shape)
        if noise is None:
            yield "the original is not in the store"
        elif noise.apply(before).tobytes() != after.tobytes():
            yield "is not the original plus its noise in the store"
        elif noise.remove(after).tobytes() != before.tobytes():
            yield "taking its noise off does not give back the original"
        yield from self._noise_problems(before, after)

    def _noise_problems(self, before: Array, after: Array) -> Iterator[str]:
        """Measured on the two images alone, whatever the store says."""
        original = before.astype(np.float64)
        difference = after.astype(np.float64) - original
        if not difference.any():
            yield "is unprotected: it equals the original"
        # Adding to a float rounds to its neighbours; integers are exact.
        slack = float(np.spacing(np.abs(after).max())) if after.dtype.kind == "f" else 0.0
        largest = float(np.abs(difference).max())
        if largest > self.budget * (1 + 1e-9) + slack:
            yield f"noise of {largest:g} stored units exceeds the budget of {self.budget:g}"
        # A float image holds the window's bounds as its type rounds them: float32(0.3) is more than 0.3, and inside.
        low, high = self.window.low, self.window.high
        if before.dtype.kind == "f":
            low, high = float(before.dtype.type(low)), float(before.dtype.type(high))
        outside = (original < low) | (original > high)
        if difference[outside].any():
            yield f"noise outside the window ({self.window.low:g}, {self.window.high:g})"
        support = int(np.count_nonzero(difference))
        if self.mask_ratio is not None and support > mask_size(before.size, self.mask_ratio):
            yield f"noise on {support} elements, more than the mask's {mask_size(before.size, self.mask_ratio)}"
