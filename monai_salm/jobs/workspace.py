"""The working folder of one generation: images and noise in memory-mapped files, and a checkpoint every round.

Noise has two files. A round reads one and writes the other, and only when that is safely on the disk does the
checkpoint point to it; so a process killed at any moment finds the round's starting point unharmed.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from monai_salm.data.scan import ScannedCase
from monai_salm.jobs.world import World
from monai_salm.learning.cases import Cases, KeptInputs, View, choose_view
from monai_salm.learning.tasks import Task
from monai_salm.noise.budget import Budget
from monai_salm.shared.arrays import Array, ArrayList, Lazy, cut
from monai_salm.shared.disk import allocate, open_private, private_folder, writing
from monai_salm.shared.files import atomic_file, sync, try_lock, work_beside

_ALIGNMENT = 64
# What is made of the data set alone, in each call: no checkpoint needs it.
_TAKEN_IN = ("images.bin", "labels.bin", "inputs.bin", "lock")


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

    def __getitem__(self, region: Any) -> Array:
        noisy: Array = self.image[region].astype(np.float32)
        noisy += self.codes[region].astype(np.float32) * np.float32(self.quantum)
        return noisy


class Workspace:
    """All cases of a job on the disk, with their noise; a context manager that lets go of the folder at the end.

    A ``guest`` is the folder of a rank other than 0, for one call: a later call takes all it needs from rank 0's folder.
    WorkspaceError if another process (or another call in this one) is using the folder, which is made if it is not there.
    """

    def __init__(self, folder: Path, guest: bool = False) -> None:
        self.folder, self.guest = folder, guest
        try:
            private_folder(folder, parents=True)
        except OSError as error:
            raise WorkspaceError(
                f"{folder}, which holds the unfinished noise, cannot be made ({error.strerror}); give a noise store in a folder "
                "that can be written"
            ) from error
        descriptor = try_lock(folder / "lock")
        if descriptor is None:
            raise WorkspaceError(f"{folder} is in use by another process; wait for it or give another store")
        # Called at the end, or when the workspace has no references left.
        self._unlock = weakref.finalize(self, os.close, descriptor)
        self.names: list[str] = []
        self.digests: list[bytes] = []
        self.budgets: list[Budget] = []
        self.shapes: list[tuple[int, ...]] = []
        # A large data set must hold no objects for each case.
        self._labels, self._offsets = ArrayList(), array("q")
        self._label_spans: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = []

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        # Before its first checkpoint a job has nothing to go on from, only copies of images that should not lie about.
        if self.folder.exists() and (self.guest or not self.begun):
            self.remove()
        self._unlock()

    @property
    def begun(self) -> bool:
        """Whether there is a round, or a part of a surrogate's training, that an interrupted job can go on from."""
        return bool({"rounds", "training"} & set(self.checkpoint()))

    def take_in(self, cases: Iterable[ScannedCase]) -> None:
        """Copy the cases that ``scan`` yields into the working files."""
        alike: dict[Any, Any] = {}
        places = [self.folder / name for name in ("images.bin", "labels.bin")]
        with writing(places[0]), open_private(places[0], "wb") as images, open_private(places[1], "wb") as labels:
            for case in cases:
                self.names.append(case.name)
                self.digests.append(case.digest)
                self.budgets.append(alike.setdefault(case.budget, case.budget))
                self.shapes.append(alike.setdefault(case.image.shape, case.image.shape))
                self._offsets.append(_append(images, case.image))
                if case.label.ndim >= 2:
                    self._label_spans.append((_append(labels, case.label), case.label.dtype, case.label.shape))
                else:
                    self._labels.append(case.label)
                del case  # a volume, while the next one is read
        self.code_dtype = max((budget.grid.code_dtype for budget in self.budgets), key=lambda dtype: dtype.itemsize)
        self._code_offsets = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])

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
        kept = KeptInputs(partial(self._inputs, view), len(self.shapes)) if view.kind == "resize" else None
        return Cases(images, labels, self.names, task, windows, view, kept)

    def codes(self, buffer: int) -> Sequence[Array]:
        """Noise in quanta, one array a case, in buffer 0 or 1; writable, zero at first."""
        return self._arrays(f"codes.{buffer}.bin", self.code_dtype)

    def masks(self) -> Sequence[Array]:
        """The fixed mask of each case (uint8), for ``mask_scope="sample"``; writable, zero at first."""
        return self._arrays("masks.bin", np.dtype("uint8"))

    def noisy(self, cases: Cases, codes: Sequence[Array]) -> Cases:
        """The data set as it is with this noise."""
        images: Any = Lazy(
            len(cases), lambda case: NoisyImage(cases.images[case], codes[case], self.budgets[case].grid.quantum)
        )
        return replace(cases, images=images, kept=None)

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
        for path in self.folder.iterdir():
            if path.suffix in (".bin", ".safetensors") and path.name not in _TAKEN_IN:
                sync(path)
        with atomic_file(self.folder / "checkpoint.json", private=True) as file:
            file.write(json.dumps(state).encode())

    def save_tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors beside the checkpoint, under a name that the last checkpoint does not use."""
        # Copies, since tied weights share their memory, which safetensors refuses.
        copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        path = self.folder / f"{name}.safetensors"
        with writing(path), open_private(path, "wb") as file:
            file.write(save(copies))

    def load_tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def remove(self) -> None:
        """Delete the folder: the job is done."""
        shutil.rmtree(self.folder)
        self._unlock()

    def _inputs(self, view: View) -> Array:
        """Room for what networks see of every case."""
        path, shape = self.folder / "inputs.bin", (len(self.shapes), self.shapes[0][0], *view.size)
        allocate(path, 4 * math.prod(shape))
        return np.memmap(path, np.float32, "r+", shape=shape)

    def _arrays(self, name: str, dtype: np.dtype[Any]) -> Sequence[Array]:
        path, offsets = self.folder / name, self._code_offsets * dtype.itemsize
        allocate(path, int(offsets[-1]))
        flat = np.memmap(path, np.uint8, "r+", shape=(int(offsets[-1]),))
        return cut(flat, offsets[:-1], lambda case: (dtype, self.shapes[case]))


def _append(file: Any, array: Array) -> int:
    offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    file.seek(offset)
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return int(offset)


_CHUNK = 1 << 24  # bytes sent at once


def open_workspace(store: Path, world: World) -> Workspace:
    """The working folder of a rank: ``<store>.work``, and ``<store>.work.rank1``, ... of the others; all ranks must call it."""
    first = work_beside(store)
    with world.step():
        if world.rank:
            return Workspace(first.with_name(f"{first.name}.rank{world.rank}"), guest=True)
        workspace = Workspace(first)
        # A killed run of more ranks leaves their copies of the images.
        for path in list(first.parent.iterdir()):
            found = re.fullmatch(rf"{re.escape(first.name)}\.rank(\d+)", path.name)
            if found and int(found[1]) >= world.size:
                shutil.rmtree(path)
        return workspace


def mirror(world: World, workspace: Workspace) -> None:
    """Give rank 0's checkpoint, noise and networks to the other ranks; all must call it."""
    if world.size == 1:
        return
    own = [(path.name, path.stat().st_size) for path in workspace.progress_files()] if world.rank == 0 else []
    for name, size in world.gather(own)[0]:
        path = workspace.folder / name
        with writing(path, size), open(path, "rb") if world.rank == 0 else open_private(path, "wb") as file:
            for start in range(0, size, _CHUNK):
                count = min(_CHUNK, size - start)
                chunk = bytearray(file.read(count) if world.rank == 0 else count)
                sent = world.broadcast(torch.frombuffer(chunk, dtype=torch.uint8), 0)
                if world.rank:
                    file.write(sent.numpy().data)


def exchange(world: World, arrays: Sequence[Array], owners: Sequence[int]) -> None:
    """Make known to all ranks what each wrote for its own cases, one array a case; all must call it, after all have written."""
    for rank in range(world.size) if world.size > 1 else ():
        cases = [case for case, owner in enumerate(owners) if owner == rank]
        chunks = np.cumsum([arrays[case].nbytes for case in cases]) // _CHUNK
        for _, places in itertools.groupby(range(len(cases)), chunks.__getitem__):
            batch = [cases[place] for place in places]
            flat = np.concatenate([arrays[case].reshape(-1) for case in batch])
            sent = world.broadcast(torch.from_numpy(flat), rank).numpy()
            ends = np.cumsum([arrays[case].size for case in batch])
            for case, values in zip(batch if rank != world.rank else (), np.split(sent, ends[:-1]), strict=False):
                arrays[case][...] = values.reshape(arrays[case].shape)
