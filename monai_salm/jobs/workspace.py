"""The working folder of one generation: images and noise in memory-mapped files, and a checkpoint every round.

Noise has two files. A round reads one and writes the other, and only when that is safely on the disk does the
checkpoint point to it; so a process killed at any moment finds the round's starting point unharmed.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from monai_salm.data.scan import ScannedCase
from monai_salm.learning.cases import Cases, choose_view
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget
from monai_salm.noise.grid import Grid
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow
from monai_salm.shared.arrays import Array, Lazy, Rows, cut
from monai_salm.shared.files import try_lock

_ALIGNMENT = 64
_PARTS = ("window", "grid", "units")
_TAKEN_IN = ("images.bin", "labels.bin", "index.json", "lock")


class WorkspaceError(RuntimeError):
    """The working folder belongs to another job, or is in use by another process."""


@dataclass(frozen=True)
class NoisyImage:
    """An image with its noise in progress; indexing gives float32 in stored units, of the region asked for only."""

    image: Array
    codes: Array
    quantum: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def __getitem__(self, region: Any) -> NDArray[np.float32]:
        noisy: NDArray[np.float32] = self.image[region].astype(np.float32)
        noisy += self.codes[region].astype(np.float32) * np.float32(self.quantum)
        return noisy


class Workspace:
    """All cases of a job on the disk, with their noise; a context manager that lets go of the folder at the end.

    Args:
        folder: made if it is not there.
        role: ``"owner"``; or, where several processes work on one job, ``"copy"`` for the folder of another machine, of
            which nothing is kept at the end, and ``"guest"`` for a process that works in a folder that another one owns: it
            reads all and writes the noise of its own cases alone, and what else it is told to write or delete is left to
            the owner.

    Raises:
        WorkspaceError: if another process (or another call in this one) is using it.
    """

    def __init__(self, folder: Path, role: str = "owner") -> None:
        self.folder, self.role = folder, role
        if role != "guest":
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise WorkspaceError(
                    f"{folder}, which holds the unfinished noise, cannot be made ({error.strerror}); give a noise store in a folder "
                    "that can be written"
                ) from error
            # Called at the end, or when nobody holds the workspace any more.
            self._unlock = weakref.finalize(self, os.close, _lock(folder))
        self.names: list[str] = []
        self.digests: list[bytes] = []
        self.budgets: list[Budget] = []
        self.shapes: list[tuple[int, ...]] = []
        self._labels: Sequence[Array] = Rows()
        self._label_spans: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = []
        self._offsets: Sequence[int] = array("q")

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        if self.role == "guest":
            return
        # Before its first checkpoint a job has nothing to go on from, only copies of images that should not lie about.
        if self.folder.exists() and (self.role == "copy" or not self.begun):
            self.remove()
        self._unlock()

    @property
    def begun(self) -> bool:
        """Whether there is a round, or a part of a surrogate's training, that an interrupted job can go on from."""
        return bool({"rounds", "training"} & set(self.checkpoint()))

    def take_in(self, cases: Iterable[ScannedCase]) -> None:
        """Copy checked cases into the working files.

        Args:
            cases: what ``scan`` yields.
        """
        # A large data set must hold no objects for each case.
        offsets, rows = array("q"), Rows()
        alike: dict[Any, Any] = {}
        with open(self.folder / "images.bin", "wb") as images, open(self.folder / "labels.bin", "wb") as labels:
            for case in cases:
                self.names.append(case.name)
                self.digests.append(case.digest)
                self.budgets.append(alike.setdefault(case.budget, case.budget))
                self.shapes.append(alike.setdefault(case.image.shape, case.image.shape))
                offsets.append(_append(images, case.image))
                if case.label.ndim >= 2:
                    self._label_spans.append((_append(labels, case.label), case.label.dtype, case.label.shape))
                else:
                    rows.append(case.label)
        self._offsets, self._labels = offsets, rows
        self._place_codes()

    def _place_codes(self) -> None:
        self.code_dtype = max((budget.grid.code_dtype for budget in self.budgets), key=lambda dtype: dtype.itemsize)
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        self._code_offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def save_index(self, skipped: Mapping[str, str] | None) -> None:
        """Write down what the working files hold, for guests.

        Args:
            skipped: cases that were left out, with the reasons.
        """
        index = {
            "names": self.names,
            "digests": [digest.hex() for digest in self.digests],
            "budgets": [asdict(budget) for budget in self.budgets],
            "shapes": self.shapes,
            "offsets": list(self._offsets),
            "labels": [[label.dtype.str, label.tolist()] for label in self._labels],
            "label_spans": [[offset, dtype.str, shape] for offset, dtype, shape in self._label_spans],
            "skipped": skipped,
        }
        (self.folder / "index.json").write_text(json.dumps(index))

    def load_index(self) -> dict[str, str] | None:
        """Know the working files as their owner took them in; returns the cases that were left out.

        Raises:
            WorkspaceError: if they cannot be seen from here.
        """
        path = self.folder / "index.json"
        if not path.exists():
            raise WorkspaceError(
                f"{self.folder} is not there for this process, though another on its machine works in it: give a store in a "
                "folder that all processes of the machine see"
            )
        index = json.loads(path.read_text())
        self.names, self._offsets = index["names"], array("q", index["offsets"])
        self.digests = [bytes.fromhex(digest) for digest in index["digests"]]
        self.budgets = [_budget(values) for values in index["budgets"]]
        self.shapes = [tuple(shape) for shape in index["shapes"]]
        self._labels = Rows([np.asarray(values, np.dtype(dtype)) for dtype, values in index["labels"]])
        self._label_spans = [(start, np.dtype(dtype), tuple(shape)) for start, dtype, shape in index["label_spans"]]
        self._place_codes()
        skipped: dict[str, str] | None = index["skipped"]
        return skipped

    def cases(
        self,
        task: Task,
        patch_size: Sequence[int] | None = None,
        view_size: Sequence[int] | None = None,
        whole_side: int | None = None,
    ) -> Cases:
        """The clean data set, over the memory-mapped files; the settings are those of ``choose_view``."""
        shapes = [shape[1:] for shape in self.shapes]
        view = choose_view(shapes, task.kind == "segmentation", patch_size, view_size, whole_side)
        flat = np.memmap(self.folder / "images.bin", np.uint8, "r")
        images = cut(flat, self._offsets, lambda case: (self.budgets[case].grid.dtype, self.shapes[case]))
        labels: Sequence[Array] = self._labels
        if self._label_spans:
            flat_labels, spans = np.memmap(self.folder / "labels.bin", np.uint8, "r"), self._label_spans
            labels = cut(flat_labels, [start for start, _, _ in spans], lambda case: spans[case][1:])
        windows = [budget.window for budget in self.budgets]
        return Cases(images, labels, self.names, task, windows, view)

    def codes(self, buffer: int) -> Sequence[Array]:
        """Noise in quanta, one array a case, in buffer 0 or 1; writable, zero at first."""
        flat = self._array(f"codes.{buffer}.bin", self.code_dtype)
        return self._split(flat)

    def masks(self) -> Sequence[Array]:
        """The fixed mask of each case (uint8), for ``mask_scope="sample"``; writable, zero at first."""
        return self._split(self._array("masks.bin", np.dtype("uint8")))

    def noisy(self, cases: Cases, codes: Sequence[Array]) -> Cases:
        """The data set as it is with this noise."""
        images: Any = Lazy(
            len(cases), lambda case: NoisyImage(cases.images[case], codes[case], self.budgets[case].grid.quantum)
        )
        return replace(cases, images=images)

    def restart(self) -> None:
        """Forget all noise and checkpoints, keep the images."""
        for path in self.progress_files():
            path.unlink()

    def progress_files(self) -> list[Path]:
        """The files that hold the noise, the networks and the checkpoint."""
        return sorted(path for path in self.folder.iterdir() if path.name not in _TAKEN_IN)

    def checkpoint(self) -> dict[str, Any]:
        """What ``save_checkpoint`` wrote last; empty at the start."""
        path = self.folder / "checkpoint.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Make everything written so far durable, then point to it in one atomic step."""
        if self.role == "guest":
            return
        for path in self.folder.iterdir():
            if path.suffix in (".bin", ".safetensors") and path.name not in ("images.bin", "labels.bin"):
                sync(path)
        temporary = self.folder / "checkpoint.json.tmp"
        temporary.write_text(json.dumps(state))
        sync(temporary)
        os.replace(temporary, self.folder / "checkpoint.json")
        sync(self.folder)

    def save_tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors beside the checkpoint, under a name that the last checkpoint does not use."""
        if self.role == "guest":
            return
        # Copies, since tied weights share their memory, which safetensors refuses.
        copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        save_file(copies, self.folder / f"{name}.safetensors")

    def load_tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def remove(self) -> None:
        """Delete the folder: the job is done."""
        if self.role == "guest":
            return
        shutil.rmtree(self.folder)
        self._unlock()

    def _array(self, name: str, dtype: np.dtype[Any]) -> Array:
        path, total = self.folder / name, int(self._code_offsets[-1])
        if self.role != "guest" and (not path.exists() or path.stat().st_size != total * dtype.itemsize):
            with open(path, "wb") as file:
                file.truncate(total * dtype.itemsize)
        return np.memmap(path, dtype, "r+", shape=(total,))

    def _split(self, flat: Array) -> Sequence[Array]:
        offsets = self._code_offsets[:-1] * flat.itemsize
        return cut(flat.view(np.uint8), offsets, lambda case: (flat.dtype, self.shapes[case]))


def _budget(values: Mapping[str, Any]) -> Budget:
    """A budget from its plain values; JSON makes lists of tuples."""
    window, grid, units = ({name: _tuple(value) for name, value in values[part].items()} for part in _PARTS)
    return Budget(IntensityWindow(**window), Grid(**grid), Units(**units))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _append(file: Any, array: Array) -> int:
    offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    file.seek(offset)
    file.write(np.ascontiguousarray(array).tobytes())
    return int(offset)


def sync(path: Path) -> None:
    """Make a file, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    descriptor = try_lock(folder / "lock")
    if descriptor is None:
        raise WorkspaceError(f"{folder} is in use by another process; wait for it or give another store")
    return descriptor
