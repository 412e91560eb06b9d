"""The trainings of an evaluation, one after the other or several at once in processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch

from monai_salm.evaluation.running import AfterEpoch, Runner
from monai_salm.evaluation.schedule import Cell, Training
from monai_salm.learning.trainer import TrainingError
from monai_salm.shared.arrays import Array, Lazy
from monai_salm.shared.disk import open_private, writing
from monai_salm.shared.files import temporary_folder

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
    alone = ((training, partial(runner.run, training, after_epoch)) for training in trainings)
    try:
        for training, result in alone if jobs == 1 else _results_of_processes(runner, trainings, jobs, after_epoch):
            try:
                yield result()
            except TrainingError as error:
                what = f"{training.victim} seed {training.seed} on {training.data} ({training.treatment()})"
                failed.append(f"{what}: {error}")
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


def _results_of_processes(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[tuple[Training, Callable[[], list[Cell]]]]:
    runner.protocol.require_names(runner.task, "which other processes cannot import (one job does not need to)")
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's thread pools
    queue: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    with temporary_folder() as folder:
        given = (_on_disk(runner, folder), threads, queue)
        pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=given)
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
    added = {name: value for name, value in _MALLOC.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _forward_epochs(queue: Any, after_epoch: AfterEpoch) -> None:
    while True:
        try:
            after_epoch(*queue.get_nowait())
        except Empty:
            return


_worker: dict[str, Any] = {}


def _start_worker(runner: Runner, threads: int, queue: Any) -> None:
    torch.set_num_threads(threads)
    queue.cancel_join_thread()  # a process must be able to end when no process reads the queue
    _worker.update(runner=runner, queue=queue)


def _run_one(training: Training) -> list[Cell]:
    cells: list[Cell] = _worker["runner"].run(training, lambda *what: _worker["queue"].put(what))
    return cells


class MappedImages(Lazy[Array]):
    """Images in one file, mapped into memory by each process that reads them; ``places`` are start, shape and type of each."""

    def __init__(self, path: Path, places: Sequence[tuple[int, tuple[int, ...], str]]) -> None:
        self._source = path, places
        super().__init__(len(places), self._image)

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

    @cached_property
    def _bytes(self) -> Array:
        return np.asarray(np.memmap(self._source[0], np.uint8, "r"))

    def _image(self, index: int) -> Array:
        start, shape, dtype = self._source[1][index]
        return np.ndarray(shape, dtype, self._bytes, start)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedImages, self._source  # each process maps the file itself


def _on_disk(runner: Runner, folder: Path) -> Runner:
    """A runner whose images and label maps lie in files, which processes share."""
    sets = runner.sets
    files = (folder / f"{number}.bin" for number in itertools.count())
    images = {role: MappedImages.write(next(files), given) for role, given in sets.images.items()}
    clean = replace(sets.clean, images=images["clean"])
    test = replace(sets.test, images=MappedImages.write(next(files), sets.test.images))
    if clean.labels[0].ndim:
        clean, test = (replace(c, labels=MappedImages.write(next(files), c.labels)) for c in (clean, test))
    return replace(runner, sets=replace(sets, images=images, clean=clean, test=test))
