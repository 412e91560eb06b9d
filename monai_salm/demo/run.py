"""The whole way in one call, on real images: protect, publish, verify, evaluate from the published files, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monai_salm.demo.data import COUNTS, NOTES, brain_crops, medmnist_archive
from monai_salm.evaluation.evaluating import evaluate
from monai_salm.generate.precompute import precompute
from monai_salm.jobs.workspace import WorkspaceError
from monai_salm.layouts import TRAIN, Layout, open_layout
from monai_salm.learning.tasks import Classification
from monai_salm.methods import Method, recommended
from monai_salm.publishing import publish, verify
from monai_salm.report.disk import write_report
from monai_salm.report.terminal import terminal_text
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore, NoiseStoreError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much the demo does.

    Args:
        counts: cases of train, val and test.
        method: makes the noise.
        surrogate: architecture the noise is made against.
        victims: architectures it is tested on.
        seeds: of the victims.
        epochs: of the victims; None is what ``evaluate`` chooses.
    """

    counts: Sequence[int]
    method: Method
    surrogate: str
    victims: Sequence[str]
    seeds: Sequence[int] = (0,)
    epochs: int | None = None


# What is recommended for crops of 28 elements a side.
_METHOD = recommended(Classification(num_classes=8), 2, (28, 28))
#: By rank. Each is to take a few minutes on two CPU cores.
SCALES = {
    2: Scale(counts=COUNTS[2], method=_METHOD, surrogate="resnet18", victims=("resnet18", "vgg11")),
    3: Scale(counts=COUNTS[3], method=_METHOD, surrogate="resnet10", victims=("resnet10", "vgg11")),
}


class DemoError(RuntimeError):
    """The published copy did not pass its verification."""


def run_demo(
    output_dir: str | os.PathLike[str] = "salm_demo",
    rank: int = 2,
    dataset: str | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    echo: Callable[[str], object] = print,
    scale: Scale | None = None,
) -> dict[str, Any]:
    """Protect real images, publish them, and show what networks learn from what was published.

    Args:
        output_dir: gets the images (``original/``, ``protected/``), the noise and the report; made if it is not there. An
            interrupted demo goes on where it was, and one with other settings replaces what is there.
        rank: 2 for images, 3 for volumes.
        dataset: None for crops of the brain template that nilearn ships; or a MedMNIST name, which is downloaded (and
            says by itself whether it holds volumes).
        device: ``"auto"``, ``"cpu"`` or ``"cuda:N"``.
        seed: of the data and the noise.
        progress: told how far things are.
        echo: is given a line after each stage.
        scale: how much to do; None is ``SCALES[rank]``.

    Returns:
        The report's values, with ``seconds`` for the whole demo, ``stages`` (seconds of each), ``psnr``, ``support``,
        ``verified``, ``files``, and ``text`` (the table and the
        verdict, to be shown).

    Raises:
        DemoDataError: if the images cannot be had.
        DemoError: if the published copy is not what it should be.
    """
    if rank not in SCALES:
        raise ValueError(f"rank must be 2 or 3, got {rank}")
    clock = _Clock(echo)
    folder = Path(output_dir)
    source = _source(folder, rank, dataset, scale, seed)
    layout = open_layout(source)
    rank = layout.dataset(TRAIN)[0]["image"].ndim - 1
    scale = scale or SCALES[rank]
    clock.lap("data", f"{len(layout.dataset(TRAIN))} training images of {_size(layout)} in {source}")

    store = _protect(layout, folder / f"noise_{source.stem}_seed{seed}.db", scale, device, seed, progress)
    clock.lap("protect", f"noise for each in {store.path} (keep it secret: it takes the noise off again)")
    published = _publish(source, folder / "protected" / source.name, store, progress)
    clock.lap("publish", f"published to {published.root} and verified")

    test = layout.test_split()
    report = evaluate(
        clean=layout.dataset(TRAIN),
        protected=published.dataset(TRAIN),
        test=layout.dataset(test),
        task=layout.task(),
        window=store.window,
        victims=scale.victims,
        pipelines=("plain",),
        countermeasures=("none", "early_stopping"),  # what is free; evaluate's own default takes an hour
        fractions=(1.0,),
        controls=("random_noise",),
        patience=5,  # passes over so few images are short: after two, scores still move with the learning rate
        seeds=scale.seeds,
        epochs=scale.epochs,
        epsilon=scale.method.epsilon,
        device=device,
        progress=progress,
        surrogate=scale.surrogate,
        store=store,
    )
    if dataset is None:
        report = replace(report, notes=NOTES[: rank - 1])
    files = {**write_report(report, folder), "store": store.path, "original": source, "protected": published.root}
    clock.lap("evaluate", f"report in {files['html']}")
    values = report.to_dict()
    return {
        **values,
        "seconds": round(sum(clock.stages.values()), 3),
        "stages": {name: round(seconds, 3) for name, seconds in clock.stages.items()},
        "psnr": report.noise["psnr"],
        "support": report.noise["support"],
        "verified": True,
        "files": {name: str(path) for name, path in files.items()},
        "text": f"{terminal_text(values)}\n\nReport: {files['html']}",
    }


class _Clock:
    """Seconds of each stage, and a line for the reader after it."""

    def __init__(self, echo: Callable[[str], object]) -> None:
        self.stages: dict[str, float] = {}
        self._echo, self._start = echo, time.monotonic()

    def lap(self, stage: str, line: str) -> None:
        now = time.monotonic()
        self.stages[stage], self._start = now - self._start, now
        self._echo(f"{stage} ({self.stages[stage]:.0f} s): {line}")


def _source(folder: Path, rank: int, dataset: str | None, scale: Scale | None, seed: int) -> Path:
    originals = folder / "original"
    originals.mkdir(parents=True, exist_ok=True)
    if dataset is not None:
        counts = (scale or SCALES[3 if dataset.endswith("3d") else 2]).counts
        return medmnist_archive(dataset, originals, counts, seed)
    path = originals / f"brain{rank}d.npz"
    brain_crops(path, rank, (scale or SCALES[rank]).counts, seed)
    return path


def _protect(
    layout: Layout,
    path: Path,
    scale: Scale,
    device: str | torch.device,
    seed: int,
    progress: Callable[[Progress], None] | None,
) -> NoiseStore:
    make = partial(
        precompute,
        layout.dataset(TRAIN),
        path,
        method=scale.method,
        task=layout.task(),
        surrogate=scale.surrogate,
        device=device,
        seed=seed,
        progress=progress,
    )
    left = path.exists() or path.with_name(path.name + ".work").exists()
    try:
        return make()
    except (NoiseStoreError, WorkspaceError):
        if not left:
            raise
        # An earlier demo left it, with other settings or versions; the folder is the demo's own.
        return make(overwrite=True)


def _publish(source: Path, target: Path, store: NoiseStore, progress: Callable[[Progress], None] | None) -> Layout:
    """Publish, verify, and open what is on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    publish(source, target, store, overwrite=True, progress=progress)  # an earlier run of the demo may have left one
    result = verify(source, target, store, progress=progress)
    if not result.ok:
        raise DemoError(f"{target} failed its verification: {'; '.join(map(str, result.problems[:3]))}")
    return open_layout(target)


def _size(layout: Layout) -> str:
    shape: Mapping[str, Any] = layout.dataset(TRAIN)[0]
    return " x ".join(str(n) for n in shape["image"].shape[1:])
