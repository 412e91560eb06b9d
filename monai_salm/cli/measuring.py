"""The verbs that measure and describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_salm.cli import options as opt
from monai_salm.cli.running import Outcome
from monai_salm.progress import ProgressCallback

if TYPE_CHECKING:
    from monai_salm.layouts import CaseSequence, Layout


def demo(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A folder for the files.")] = Path("salm_demo"),
    rank: Annotated[int, typer.Option("--rank", help="2 for images, 3 for volumes.", min=2, max=3)] = 2,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="A MedMNIST set in place of the embedded one.")
    ] = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    *,
    progress: ProgressCallback,
) -> Outcome:
    """Protect, publish, verify and evaluate a small real data set, end to end."""
    from monai_salm.demo import run_demo

    result = run_demo(output, rank=rank, dataset=dataset, device=device, seed=seed, progress=progress)
    return Outcome(result, result.pop("text"))


def evaluate(
    source: opt.Input,
    output: opt.Output,
    victims: Annotated[str | None, typer.Option("--victims", metavar="A[,B]", help="Networks to train.")] = None,
    countermeasures: Annotated[
        str, typer.Option("--countermeasures", metavar="A[,B]", help="What an adversary does to the images.")
    ] = "none",
    seeds: Annotated[str, typer.Option("--seeds", metavar="N[,N]", help="A victim is trained for each.")] = "0,1,2",
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Passes over the training set.", min=1)
    ] = None,
    augment: Annotated[
        str, typer.Option("--augment", metavar="none|standard", help="Augmentation of the victims.")
    ] = "none",
    width: opt.Width = 0.25,
    epsilon: Annotated[
        str | None,
        typer.Option("--epsilon", metavar="X", help="Budget of the random-noise control; the copy's own if not given."),
    ] = None,
    window: opt.Window = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            metavar="DATASET",
            help="Clean images to test on: its labelled test split, else its training split. "
            "The test or validation split of INPUT if not given.",
        ),
    ] = None,
    layout: opt.LayoutName = None,
    patch_size: opt.PatchSize = None,
    view_size: opt.ViewSize = None,
    device: opt.Device = "auto",
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="FILE", help="The noise store, to name the surrogates and to check the test images."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with pictures.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the report as JSON.")] = None,
    *,
    progress: ProgressCallback,
) -> Outcome:
    """Train fresh networks on the original and on the protected copy, and compare them on clean test images."""
    settings: dict[str, Any] = {
        "victims": None if victims is None else opt.read("--victims", opt.networks, victims),
        "countermeasures": opt.read("--countermeasures", opt.countermeasures, countermeasures),
        "augment": opt.read("--augment", opt.augmentation, augment),
        "seeds": opt.read("--seeds", opt.integers, seeds),
        "patch_size": None if patch_size is None else opt.read("--patch-size", opt.integers, patch_size),
        "view_size": None if view_size is None else opt.read("--view-size", opt.integers, view_size),
    }
    given = None if epsilon is None else opt.read("--epsilon", opt.number, epsilon)
    limits = None if window is None else opt.read("--window", opt.bounds, window)
    from monai_salm.evaluate import evaluate as evaluate_
    from monai_salm.intensity import IntensityWindow
    from monai_salm.layouts import open_layout
    from monai_salm.store import NoiseStore

    if store is not None:
        settings["store"] = NoiseStore(store)
        settings["surrogate"] = settings["store"].meta.get("surrogate")
    clean = open_layout(source, layout)
    copy = clean.reopen(output)
    known = _manifest(copy)
    if limits is None and "window" in known:
        limits = tuple(known["window"])
    report = evaluate_(
        clean=clean.dataset(),
        protected=copy.dataset(),
        test=clean.dataset(clean.test_split()) if test is None else _test_cases(open_layout(test, layout)),
        task=clean.task(),
        window=clean.window() if limits is None else IntensityWindow(*limits),
        epsilon=known.get("epsilon", 8 / 255) if given is None else given,
        epochs=epochs,
        width=width,
        device=device,
        progress=progress,
        **settings,
    )
    if out is not None:
        report.to_json(out)
    if html is not None:
        report.to_html(html)
    text = "\n".join([report.table(), "", report.verdict(), *report.warnings()])
    return Outcome(report.to_dict(), text)


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A noise store or a data set.")],
    layout: opt.LayoutName = None,
) -> Outcome:
    """Say what a noise store or a data set holds."""
    data = _store_info(file) if _is_store(file) else _dataset_info(file, layout)
    return Outcome(data, "\n".join(f"{key}: {value}" for key, value in data.items()))


def _is_store(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _store_info(file: Path) -> dict[str, Any]:
    from monai_salm.publish import noise_statistics
    from monai_salm.store import NoiseStore

    store = NoiseStore(file)
    store.check()
    return {"kind": "store", **noise_statistics(store), "shapes": store.shapes(), **store.meta}


def _dataset_info(file: Path, layout: str | None) -> dict[str, Any]:
    from monai_salm.layouts import open_layout

    data = open_layout(file, layout)
    window, first = data.window(), data.dataset()[0]["image"]
    return {
        "kind": "data set",
        "layout": data.name,
        "splits": {split: len(data.dataset(split)) for split in data.splits},
        "task": data.task().spec(),
        "window": [window.low, window.high],
        "shape": list(first.shape),
        "dtype": first.dtype.name,
        "protected": bool(_manifest(data)),
    }


def _test_cases(data: Layout) -> CaseSequence:
    """The clean cases of a data set of its own: its test split if that has labels, else its training split."""
    if "test" in data.splits and data.has_labels("test"):
        return data.dataset("test")
    if _manifest(data):
        raise ValueError(f"{data.root} is a protected copy, by its manifest; test on clean images")
    if not data.has_labels("train"):
        raise ValueError(f"{data.root} has no labelled cases to test on")
    return data.dataset()


def _manifest(data: Layout) -> dict[str, Any]:
    """Epsilon and window from the public manifest of a protected copy, if it is one."""
    from monai_salm.publish import read_manifest

    return read_manifest(data)
