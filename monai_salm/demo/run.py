"""The demo: protect real images, publish, verify, evaluate the published files, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monai_salm.demo.data import COUNTS, NOTES, brain_crops, medmnist_archive
from monai_salm.evaluation.evaluating import evaluate
from monai_salm.evaluation.protocol import Protocol
from monai_salm.generate.precompute import precompute
from monai_salm.jobs.workspace import WorkspaceError
from monai_salm.layouts import TRAIN, Layout, open_layout
from monai_salm.learning.tasks import Classification
from monai_salm.methods import Method, recommended
from monai_salm.publishing import publish, verify
from monai_salm.report import UnlearnabilityReport
from monai_salm.report.disk import write_report
from monai_salm.report.terminal import terminal_text
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore, NoiseStoreError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Size of a demo: cases of train, val and test, the noise, the network that makes it, and the victims (epochs None: chosen)."""

    counts: Sequence[int]
    method: Method
    surrogate: str
    victims: Sequence[str]
    seeds: Sequence[int] = (0,)
    epochs: int | None = None


_METHOD = recommended(Classification(num_classes=8), 2, (28, 28))
#: By rank. Each takes a few minutes on two CPU cores.
SCALES = {
    2: Scale(counts=COUNTS[2], method=_METHOD, surrogate="resnet18", victims=("resnet18", "vgg11")),
    3: Scale(counts=COUNTS[3], method=_METHOD, surrogate="resnet10", victims=("resnet10", "vgg11")),
}


class DemoError(RuntimeError):
    """The published copy failed its verification."""


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
    """Protect real images, publish them, and show what networks learn from the published copy.

    Args:
        output_dir: gets the images (``original/``, ``protected/``), the noise and the report. An interrupted demo goes on where
            it stopped, and one with other settings replaces the files.
        rank: 2 for images, 3 for volumes.
        dataset: None for crops of the brain template that nilearn ships; or a MedMNIST name, which also sets the rank.
        device: ``"auto"``, ``"cpu"`` or ``"cuda:N"``.
        seed: of the data and the noise.
        echo: called with a line after each stage.
        scale: size of the demo; None is ``SCALES[rank]``.

    Returns:
        The report's values, with ``seconds``, ``stages`` (seconds of each), ``psnr``, ``support``, ``verified``, ``files``, and
        ``text`` (the table and the verdict). DemoDataError without the images, DemoError if the copy fails its verification.
    """
    folder, stages, start = Path(output_dir), dict[str, float](), time.monotonic()

    def lap(stage: str, line: str) -> None:
        stages[stage] = time.monotonic() - start - sum(stages.values())
        echo(f"{stage} ({stages[stage]:.0f} s): {line}")

    source = _source(folder, rank, dataset, scale, seed)
    layout = open_layout(source)
    size = layout.dataset(TRAIN)[0]["image"].shape[1:]
    scale = scale or SCALES[len(size)]
    lap("data", f"{len(layout.dataset(TRAIN))} training images of {' x '.join(map(str, size))} in {source}")

    place, options = folder / f"noise_{source.stem}_seed{seed}.db", {"device": device, "progress": progress}
    store = _protect(layout, place, scale, seed=seed, **options)
    lap("protect", f"noise for each in {store.path} (keep it secret: it undoes the protection)")
    published = _publish(source, folder / "protected" / source.name, store, progress)
    lap("publish", f"published to {published.root} and verified")

    report = _evaluate(layout, published, store, scale, device, progress)
    if dataset is None:
        report = replace(report, notes=NOTES[: len(size) - 1])
    files = {**write_report(report, folder), "store": store.path, "original": source, "protected": published.root}
    lap("evaluate", f"report in {files['html']}")
    values = report.to_dict()
    return {
        **values,
        "seconds": round(sum(stages.values()), 3),
        "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
        "psnr": report.noise["psnr"],
        "support": report.noise["support"],
        "verified": True,
        "files": {name: str(path) for name, path in files.items()},
        "text": f"{terminal_text(values)}\n\nReport: {files['html']}",
    }


def _source(folder: Path, rank: int, dataset: str | None, scale: Scale | None, seed: int) -> Path:
    if rank not in SCALES:
        raise ValueError(f"rank must be 2 or 3, got {rank}")
    originals = folder / "original"
    originals.mkdir(parents=True, exist_ok=True)
    if dataset is not None:
        counts = (scale or SCALES[3 if dataset.endswith("3d") else 2]).counts
        return medmnist_archive(dataset, originals, counts, seed)
    path = originals / f"brain{rank}d.npz"
    brain_crops(path, rank, (scale or SCALES[rank]).counts, seed)
    return path


def _protect(layout: Layout, path: Path, scale: Scale, **options: Any) -> NoiseStore:
    settings = {"method": scale.method, "task": layout.task(), "surrogate": scale.surrogate, **options}
    make = partial(precompute, layout.dataset(TRAIN), path, **settings)
    left = path.exists() or path.with_name(path.name + ".work").exists()
    try:
        return make()
    except (NoiseStoreError, WorkspaceError):
        if not left:
            raise
        # The folder is the demo's own: an earlier demo had other settings or versions.
        return make(overwrite=True)


def _publish(source: Path, target: Path, store: NoiseStore, progress: Callable[[Progress], None] | None) -> Layout:
    """Publish, verify, and open the published copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    publish(source, target, store, overwrite=True, progress=progress)  # of an earlier demo
    result = verify(source, target, store, progress=progress)
    if not result.ok:
        raise DemoError(f"{target} failed its verification: {'; '.join(map(str, result.problems[:3]))}")
    return open_layout(target)


def _evaluate(
    layout: Layout,
    published: Layout,
    store: NoiseStore,
    scale: Scale,
    device: str | torch.device,
    progress: Callable[[Progress], None] | None,
) -> UnlearnabilityReport:
    """A short evaluation; that of ``evaluate``'s defaults takes hours."""
    protocol = Protocol(
        victims=scale.victims,
        pipelines=("plain", "resized 0.5"),
        countermeasures=("none", "early_stopping"),  # no further training
        fractions=(1.0,),
        controls=("random_noise",),
        patience=5,  # passes over few images are short: after two, scores still move with the learning rate
        seeds=scale.seeds,
        epochs=scale.epochs,
        epsilon=scale.method.epsilon,
        window=store.window,
        device=device,
        surrogate=scale.surrogate,
    )
    test = layout.dataset(layout.test_split())
    sets = layout.dataset(TRAIN), published.dataset(TRAIN), test
    return evaluate(*sets, layout.task(), protocol=protocol, store=store, progress=progress)
