"""The trainings of an evaluation, one after the other or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
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

from monai_salm.evaluation.cells import Cell, Training
from monai_salm.evaluation.protocol import is_importable, victim_name
from monai_salm.evaluation.running import Runner
from monai_salm.evaluation.victims import Epoch
from monai_salm.learning.trainer import TrainingError
from monai_salm.shared.arrays import Array

#: Told of every epoch: which training, and the headline score.
AfterEpoch = Callable[[Training, float], None]

# Largest block that is not mapped by itself (glibc's upper limit), and how much may stay free; glibc reads them on start.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
# A filtered copy in float32, and a control or what is held out beside it.
_FILTERED_BYTES = 6
# How often news of the epochs is fetched from the processes, seconds.
_POLL = 0.5


class WorkerError(RuntimeError):
    """A process that trained a victim died."""


def run_trainings(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[list[Cell]]:
    """Train victims, giving the cells of each as soon as it is finished.

    Args:
        runner: trains.
        trainings: what to train.
        jobs: processes at once; 1 trains in this one. Several share the cores between them.
        after_epoch: told of every epoch.

    Raises:
        TrainingError: at the end, if victims could not be trained; the others are.
        WorkerError: if a process was killed, most likely for want of memory.
    """
    failed: list[str] = []
    try:
        for training, result in _results(runner, trainings, jobs, after_epoch):
            try:
                cells = result()
            except TrainingError as error:
                what = f"{training.victim} seed {training.seed} on {training.data} ({training.way()})"
                failed.append(f"{what}: {error}")
                continue
            yield cells
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process that trained a victim was killed, most likely for want of memory; {jobs} ran at once. Use fewer jobs; "
            "with a journal (--resume) the finished cells are kept"
        ) from error
    if failed:
        raise TrainingError(f"{len(failed)} of {len(trainings)} victims could not be trained: {'; '.join(failed[:3])}")


def default_jobs(runner: Runner) -> int:
    """One job a core on the CPU, as far as memory allows; one on a GPU, which is shared badly.

    Args:
        runner: gives the images, of which each job may hold a filtered copy in another type.
    """
    if runner.device.type != "cpu":
        return 1
    cores = torch.get_num_threads()
    images = runner.sets.images["clean"]
    each = sum(image.size for image in images) * _FILTERED_BYTES
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no such question on this system
        return cores
    return max(1, min(cores, int(free / 2 / max(1, each))))


def _results(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[tuple[Training, Callable[[], list[Cell]]]]:
    """Each training with a function that gives its cells or raises what kept it from them."""
    if jobs == 1:
        for training in trainings:
            yield training, partial(runner.run, training, _telling(runner, training, after_epoch))
        return
    for name, victim in runner.protocol.architectures(runner.sets.task).items():
        if not is_importable(victim):
            raise ValueError(
                f"victim {name!r} is {victim_name(victim)}, which other processes cannot import: give a function or class at the "
                "top of a module, or one job"
            )
    # Where files cannot be deleted while they are mapped (Windows), what is left is a temporary folder of the system's.
    with tempfile.TemporaryDirectory(prefix="monai_salm_", ignore_cleanup_errors=True) as folder:
        yield from _results_of_processes(_on_disk(runner, Path(folder)), trainings, jobs, after_epoch)


def _results_of_processes(
    runner: Runner, trainings: Sequence[Training], jobs: int, after_epoch: AfterEpoch
) -> Iterator[tuple[Training, Callable[[], list[Cell]]]]:
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's thread pools
    news: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(runner, threads, news))
    try:
        with _keeping_memory():  # processes are started by the first calls
            pending: dict[Future[list[Cell]], Training] = {pool.submit(_run_one, t): t for t in trainings}
        while pending:
            done, _ = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
            _pass_on(news, after_epoch)
            for future in done:
                yield pending.pop(future), future.result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _keeping_memory() -> Iterator[None]:
    """Make glibc keep freed memory in processes that start now: fetching it anew in every step costs a tenth of the time."""
    before = {name: os.environ.get(name) for name in _MALLOC}
    os.environ.update({name: value for name, value in _MALLOC.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _pass_on(news: Any, after_epoch: AfterEpoch) -> None:
    while True:
        try:
            after_epoch(*news.get_nowait())
        except Empty:
            return


def _telling(runner: Runner, training: Training, after_epoch: AfterEpoch) -> Callable[[Epoch], None]:
    return lambda epoch: after_epoch(training, epoch.scores[runner.sets.task.metric])


_worker: dict[str, Any] = {}


def _start_worker(runner: Runner, threads: int, news: Any) -> None:
    torch.set_num_threads(threads)
    news.cancel_join_thread()  # a process must be able to end when nobody listens any more
    _worker.update(runner=runner, news=news)


def _run_one(training: Training) -> list[Cell]:
    runner, news = _worker["runner"], _worker["news"]
    cells: list[Cell] = runner.run(training, _telling(runner, training, lambda *what: news.put(what)))
    return cells


@dataclass
class StoredImages(Sequence[Array]):
    """Images in one file, mapped into memory by each process that looks at them.

    Args:
        path: the file.
        places: where each begins (bytes), its shape and type.
    """

    path: Path
    places: Sequence[tuple[int, tuple[int, ...], str]]
    _bytes: Any = field(default=None, repr=False, compare=False)

    @staticmethod
    def write(path: Path, images: Sequence[Array]) -> StoredImages:
        """Put images into a new file."""
        places, start = [], 0
        with open(path, "xb") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).data)
                places.append((start, image.shape, image.dtype.str))
                start += image.nbytes
        return StoredImages(path, places)

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
    """A runner whose images and label maps lie in files, so that processes share them instead of each having a copy."""
    sets = runner.sets
    images = {
        role: StoredImages.write(folder / f"{index}.bin", s) for index, (role, s) in enumerate(sets.images.items())
    }
    labels, test_labels = sets.labels, sets.test.labels
    if labels[0].ndim:
        labels = StoredImages.write(folder / "labels.bin", labels)
        test_labels = StoredImages.write(folder / "test_labels.bin", test_labels)
    test = replace(sets.test, images=StoredImages.write(folder / "test.bin", sets.test.images), labels=test_labels)
    return replace(runner, sets=replace(sets, images=images, labels=labels, test=test))
