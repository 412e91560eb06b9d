"""The trainings of an evaluation, one after the other or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any, overload

import numpy as np
import torch

from monai_salm.evaluation.protocol import is_importable, victim_name
from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.schedule import Cell, Training
from monai_salm.evaluation.victims import Epoch
from monai_salm.learning.trainer import TrainingError
from monai_salm.shared.arrays import Array
from monai_salm.shared.disk import open_private, writing
from monai_salm.shared.files import temporary_folder

#: Called after every epoch with the training and the headline score.
AfterEpoch = Callable[[Training, float], None]

# Settings of glibc, read when a process starts: it keeps freed memory, which saves a tenth of the time.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
# Bytes a voxel: a filtered copy in float32, and a control or held-out images beside it.
_FILTERED_BYTES = 6
# How often finished epochs are fetched from the processes, seconds.
_POLL = 0.5


class WorkerError(RuntimeError):
    """A process that trained a victim died."""


def run_trainings(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[list[Cell]]:
    """Train victims, in several processes if ``jobs`` is above 1; gives the cells of each as soon as it is finished.

    Raises:
        TrainingError: at the end, if victims could not be trained; the others are.
        WorkerError: if a process was killed, probably because memory ran out.
    """
    failed: list[str] = []
    try:
        for training, result in _results(runner, trainings, jobs, after_epoch):
            try:
                cells = result()
            except TrainingError as error:
                what = f"{training.victim} seed {training.seed} on {training.data} ({training.treatment()})"
                failed.append(f"{what}: {error}")
                continue
            yield cells
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process that trained a victim was killed, probably because memory ran out; {jobs} ran at once. Use fewer jobs; "
            "with a journal (--resume) the finished cells are kept"
        ) from error
    if failed:
        raise TrainingError(f"{len(failed)} of {len(trainings)} victims could not be trained: {'; '.join(failed[:3])}")


def default_jobs(runner: Runner) -> int:
    """One job a core on the CPU, as far as memory allows; one on a GPU."""
    if runner.device.type != "cpu":
        return 1
    cores = torch.get_num_threads()
    images = runner.sets.images["clean"]
    each = sum(image.size for image in images) * _FILTERED_BYTES
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # this system does not tell
        return cores
    return max(1, min(cores, int(free / 2 / max(1, each))))


def _results(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[tuple[Training, Callable[[], list[Cell]]]]:
    """Each training with a function that gives its cells or raises its error."""
    if jobs == 1:
        for training in trainings:
            yield training, partial(runner.run, training, _score_listener(runner, training, after_epoch))
        return
    for name, victim in runner.protocol.architectures(runner.task).items():
        if not is_importable(victim):
            raise ValueError(
                f"victim {name!r} is {victim_name(victim)}, which other processes cannot import: give a function or class at the "
                "top of a module, or one job"
            )
    with temporary_folder() as folder:
        yield from _results_of_processes(_on_disk(runner, folder), trainings, jobs, after_epoch)


def _results_of_processes(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[tuple[Training, Callable[[], list[Cell]]]]:
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's thread pools
    queue: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(runner, threads, queue))
    try:
        with _keeping_memory():  # processes are started by the first calls
            pending: dict[Future[list[Cell]], Training] = {pool.submit(_run_one, t): t for t in trainings}
        while pending:
            done, _ = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
            _forward_epochs(queue, after_epoch)
            for future in done:
                yield pending.pop(future), future.result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _keeping_memory() -> Iterator[None]:
    """Make glibc keep freed memory in processes that start now."""
    before = {name: os.environ.get(name) for name in _MALLOC}
    os.environ.update({name: value for name, value in _MALLOC.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _forward_epochs(queue: Any, after_epoch: AfterEpoch) -> None:
    while True:
        try:
            after_epoch(*queue.get_nowait())
        except Empty:
            return


def _score_listener(runner: Runner, training: Training, after_epoch: AfterEpoch) -> Callable[[Epoch], None]:
    return lambda epoch: after_epoch(training, epoch.scores[runner.task.metric])


_worker: dict[str, Any] = {}


def _start_worker(runner: Runner, threads: int, queue: Any) -> None:
    torch.set_num_threads(threads)
    queue.cancel_join_thread()  # a process must be able to end when no process reads the queue
    _worker.update(runner=runner, queue=queue)


def _run_one(training: Training) -> list[Cell]:
    runner, queue = _worker["runner"], _worker["queue"]
    cells: list[Cell] = runner.run(training, _score_listener(runner, training, lambda *what: queue.put(what)))
    return cells


@dataclass
class MappedImages(Sequence[Array]):
    """Images in one file, mapped into memory by each process that reads them.

    Args:
        path: the file.
        places: start (bytes), shape and type of each image.
    """

    path: Path
    places: Sequence[tuple[int, tuple[int, ...], str]]
    _bytes: Any = field(default=None, repr=False, compare=False)

    @staticmethod
    def write(path: Path, images: Sequence[Array]) -> MappedImages:
        """Write images into a new file."""
        places, start = [], 0
        with writing(path), open_private(path, "xb") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).data)
                places.append((start, image.shape, image.dtype.str))
                start += image.nbytes
        return MappedImages(path, places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int, /) -> Array: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Array]: ...
    def __getitem__(self, index: int | slice, /) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._bytes is None:
            self._bytes = np.memmap(self.path, np.uint8, "r")
        start, shape, dtype = self.places[index]
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        image: Array = self._bytes[start : start + count].view(dtype).reshape(shape)
        return image

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_bytes": None}  # each process maps the file itself


def _on_disk(runner: Runner, folder: Path) -> Runner:
    """A runner whose images and label maps lie in files, which processes share."""
    sets = runner.sets
    images = {
        role: MappedImages.write(folder / f"{index}.bin", given)
        for index, (role, given) in enumerate(sets.images.items())
    }
    parts = {
        "clean": {"images": images["clean"]},
        "test": {"images": MappedImages.write(folder / "test.bin", sets.test.images)},
    }
    if sets.clean.labels[0].ndim:
        for name, part in parts.items():
            part["labels"] = MappedImages.write(folder / f"{name}_labels.bin", getattr(sets, name).labels)
    cases = {name: replace(getattr(sets, name), **part) for name, part in parts.items()}
    return replace(runner, sets=replace(sets, images=images, **cases))
