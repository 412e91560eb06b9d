"""The verb that measures how unlearnable a protected copy is."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.cli import options as opt
from monai_salm.cli.listing import class_lines
from monai_salm.cli.running import Outcome
from monai_salm.evaluation.protocol import HELP, Protocol
from monai_salm.shared.progress import ProgressCallback
from monai_salm.shared.terminal import all_printable

# Settings of the protocol that are options: how the text is read, and the names that it may hold.
_OPTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "victims": (readers.networks, names.NETWORKS),
    "pipelines": (readers.pipelines, names.PIPELINES),
    "countermeasures": (readers.countermeasures, names.TIERS + names.COUNTERMEASURES),
    "seeds": (readers.integers, ()),
    "fractions": (readers.numbers, ()),
    "controls": (readers.controls, names.CONTROLS),
    "epochs": (int, ()),
    "augment": (readers.augmentation, names.AUGMENTATIONS),
    "width": (float, ()),
    "held_out": (float, ()),
    "epsilon": (readers.number, ()),
    "jobs": (int, ()),
}


def protocol_options() -> dict[str, Any]:
    """An option for each setting in ``_OPTIONS``, with help and default of the protocol."""
    settings, found = {setting.name: setting for setting in fields(Protocol)}, {}
    for name, (reader, known) in _OPTIONS.items():
        setting, number = settings[name], reader if reader in (int, float) else None
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=HELP[name] + (f" Names: {', '.join(known)}." if known else "") + _default(setting.default),
            metavar=setting.metadata["metavar"],
            rich_help_panel=manual.NETWORKS if name == "jobs" else manual.VICTIMS,
            min=1 if number is int else None,
            autocompletion=names.some_of(known if name != "controls" else (*known, "none")) if known else None,
        )
        found[name] = Annotated[(number or str) | None, option]
    return found


def _default(value: Any) -> str:
    if value is None or value == Protocol.jobs or value == Protocol.epsilon:
        return ""  # the help says it
    text = ",".join(f"{part}" for part in value) if isinstance(value, tuple) else f"{value}"
    return f"  [default: {text}]"


def evaluate(
    source: Path,
    output: Path,
    copy: list[str] | None = None,
    all_epochs: bool = False,
    recipe: str = "default",
    window: str | None = None,
    test: Path | None = None,
    layout: str | None = None,
    patch_size: str | None = None,
    view_size: str | None = None,
    device: str = "auto",
    store: Path | None = None,
    resume: Path | None = None,
    html: Path | None = None,
    out: Path | None = None,
    csv: Path | None = None,
    predictions: Path | None = None,
    *,
    progress: ProgressCallback,
    **texts: Any,
) -> Outcome:
    """Train fresh networks on the original and on the protected copy, and compare them on clean test images.

    Prints tables of scores and a verdict, which names the worst ordinary pipeline and the best that any adversary reached;
    docs/evaluation.md says how to read them. The defaults train some hundred networks, which takes hours: begin with one victim,
    one seed and no countermeasure (see below), and give --resume, so that an interrupted call can go on.
    """
    settings = {**_recipe(recipe), **_settings(texts), "device": device, **({"learned": None} if all_epochs else {})}
    settings["patch_size"] = opt.read("--patch-size", readers.integers, patch_size)
    settings["view_size"] = opt.read("--view-size", readers.integers, view_size)
    if window is not None:
        settings["window"] = opt.read("--window", readers.window, window)
    copies = opt.copies(copy or ())
    from monai_salm.evaluation.evaluating import evaluate as evaluate_
    from monai_salm.evaluation.predictions import PredictionFolder
    from monai_salm.noise.window import rule_from_spec
    from monai_salm.publishing import clean_test_cases, open_pair

    if predictions is not None:
        settings["predictions"] = PredictionFolder(predictions, source.name.split(".")[0])
    noise = None if store is None else opt.CopyOptions().opened(store)
    clean, published, manifest = open_pair(source, output, layout)
    settings["copies"] = {name: clean.reopen(path).dataset() for name, path in copies.items()}
    # What the copy was made with, and how its numbers are called, unless other settings are given.
    known: dict[str, Any] = {
        name: read(manifest[name])
        for name, read in (("epsilon", float), ("window", rule_from_spec))
        if name in manifest
    }
    known |= dict(zip(("native_scale", "native_unit"), clean.native_unit() or (), strict=False))
    tests = clean.dataset(clean.test_split()) if test is None else clean_test_cases(test, layout)
    sets, options = (clean.dataset(), published.dataset(), tests), {**known, **settings, "resume": resume}
    report = replace(evaluate_(*sets, clean.task(), store=noise, progress=progress, **options), classes=clean.classes())
    for path, write in ((out, report.to_json), (html, report.to_html), (csv, report.to_csv)):
        if path is not None:
            write(path)
    return _outcome(report, clean.task().spec())


def _settings(texts: dict[str, Any]) -> dict[str, Any]:
    """The settings of the protocol that were given; without ``--jobs`` as many as cores."""
    settings: dict[str, Any] = {"jobs": None}
    for name, text in texts.items():
        if text is not None:
            reader = _OPTIONS[name][0]
            settings[name] = opt.read(f"--{name.replace('_', '-')}", reader, text) if isinstance(text, str) else text
    return settings


def _recipe(name: str) -> dict[str, Any]:
    """The settings that a recipe's name stands for."""
    if opt.read("--recipe", readers.recipe, name) == "default":
        return {}
    from monai_salm.learning.recipes import MEDMNIST_RECIPE

    return {"recipe": MEDMNIST_RECIPE, "epochs": 100, "width": 1.0, "learned": None, "held_out": 0.0}


def _outcome(report: Any, task: dict[str, Any]) -> Outcome:
    from monai_salm.report.terminal import terminal_text

    values = report.to_dict()
    lines = terminal_text(all_printable(values)).split("\n")  # a name must not begin a line of its own
    return Outcome(values, [*lines, "", *class_lines(report.classes, task)])
