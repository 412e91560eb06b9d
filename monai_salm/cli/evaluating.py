"""The verb that measures how unlearnable a protected copy is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

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


def _option(flag: str, text: str, metavar: str = "FILE", panel: str = manual.FILES, **settings: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=panel, **settings)


_Copies: TypeAlias = Annotated[
    list[str] | None,
    _option(
        "--copy",
        "Another protected copy of the same data to compare with. May be repeated.",
        "NAME=OUTPUT",
        manual.VICTIMS,
    ),
]
_AllEpochs: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--all-epochs",
        help="Train on when the training score is about 1 and nothing is left to learn.",
        rich_help_panel=manual.VICTIMS,
    ),
]
_Recipe: TypeAlias = Annotated[
    str,
    _option(
        "--recipe",
        "How victims are trained; medmnist is the recipe of its published scores (100 epochs, full width).",
        "default|medmnist",
        manual.VICTIMS,
        autocompletion=names.one_of(names.RECIPES),
    ),
]
_Test: TypeAlias = Annotated[
    Path | None,
    _option(
        "--test",
        "Clean images to test on: its labelled test split, else its training split. The test or validation split of INPUT if "
        "not given.",
        "DATASET",
        manual.DATA,
    ),
]
_Store: TypeAlias = Annotated[
    Path | None, _option("--store", "The noise store, to name the surrogates and to check the test images.")
]
_Resume: TypeAlias = Annotated[
    Path | None,
    _option(
        "--resume",
        "Keep finished victims in FILE, and do not train again those that it holds: the same call goes on where it stopped.",
    ),
]
_Html: TypeAlias = Annotated[Path | None, _option("--html", "Write a report with pictures.")]
_Json: TypeAlias = Annotated[Path | None, _option("--out", "Write the report as JSON.")]
_Table: TypeAlias = Annotated[Path | None, _option("--csv", "Write a line for each victim.")]
_Predictions: TypeAlias = Annotated[
    Path | None, _option("--predictions", "Keep predictions as MedMNIST's evaluator does.", "FOLDER")
]


def _with_protocol_options(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Give a verb an option for each setting in ``_OPTIONS``, with help and default of the protocol."""
    signature = inspect.signature(function, eval_str=True)
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    settings = {setting.name: setting for setting in fields(Protocol)}
    made = []
    for name, (reader, known) in _OPTIONS.items():
        setting, number = settings[name], reader if reader in (int, float) else None
        complete = names.some_of(known if name != "controls" else (*known, "none"))
        option = _option(
            f"--{name.replace('_', '-')}",
            HELP[name] + (f" Names: {', '.join(known)}." if known else "") + _default(setting.default),
            setting.metadata["metavar"],
            manual.NETWORKS if name == "jobs" else manual.VICTIMS,
            min=1 if number is int else None,
            autocompletion=complete if known else None,
        )
        annotation = Annotated[(number or str) | None, option]  # type: ignore[valid-type]
        made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    own[2:2] = made  # after the arguments
    function.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return function


def _default(value: Any) -> str:
    if value is None or value == Protocol.jobs or value == Protocol.epsilon:
        return ""  # the help says it
    text = ",".join(f"{part}" for part in value) if isinstance(value, tuple) else f"{value}"
    return f"  [default: {text}]"


@_with_protocol_options
def evaluate(
    source: opt.Input,
    output: opt.Output,
    copy: _Copies = None,
    all_epochs: _AllEpochs = False,
    recipe: _Recipe = "default",
    window: opt.Window = None,
    test: _Test = None,
    layout: opt.LayoutName = None,
    patch_size: opt.PatchSize = None,
    view_size: opt.ViewSize = None,
    device: opt.Device = "auto",
    store: _Store = None,
    resume: _Resume = None,
    html: _Html = None,
    out: _Json = None,
    table: _Table = None,
    predictions: _Predictions = None,
    *,
    progress: ProgressCallback,
    **texts: Any,
) -> Outcome:
    """Train fresh networks on the original and on the protected copy, and compare them on clean test images.

    Prints tables of scores and a verdict, which names the worst ordinary pipeline and the best that any adversary reached;
    docs/evaluation.md says how to read them. The defaults train some hundred networks, which takes hours: begin with one victim,
    one seed and no countermeasure (see below), and give --resume, so that an interrupted call can go on.
    """
    settings = {**_recipe(opt.read("--recipe", readers.recipe, recipe)), **_settings(texts), "device": device}
    settings |= {"learned": None} if all_epochs else {}
    for name, text in (("patch_size", patch_size), ("view_size", view_size)):
        settings[name] = None if text is None else opt.read(f"--{name.replace('_', '-')}", readers.integers, text)
    if window is not None:
        settings["window"] = opt.read("--window", readers.window, window)
    copies = opt.read_all("--copy", readers.named_path, copy or ())
    from monai_salm.evaluation.evaluating import evaluate as evaluate_
    from monai_salm.evaluation.predictions import PredictionFolder
    from monai_salm.publishing import clean_test_cases, open_pair
    from monai_salm.store.store import NoiseStore

    if predictions is not None:
        settings["predictions"] = PredictionFolder(predictions, source.name.split(".")[0])
    noise = None if store is None else NoiseStore(store)
    clean, published, manifest = open_pair(source, output, layout)
    settings["copies"] = {name: clean.reopen(path).dataset() for name, path in copies.items()}
    report = evaluate_(
        clean.dataset(),
        published.dataset(),
        clean.dataset(clean.test_split()) if test is None else clean_test_cases(test, layout),
        clean.task(),
        store=noise,
        resume=resume,
        progress=progress,
        **{**_of_manifest(manifest), **_native_unit(clean), **settings},
    )
    report = replace(report, classes=clean.classes())
    for path, write in ((out, report.to_json), (html, report.to_html), (table, report.to_csv)):
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
    if name == "default":
        return {}
    from monai_salm.learning.recipes import MEDMNIST_RECIPE

    return {"recipe": MEDMNIST_RECIPE, "epochs": 100, "width": 1.0, "learned": None, "held_out": 0.0}


def _of_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """Window and epsilon that the copy was made with."""
    from monai_salm.noise.window import rule_from_spec

    found = {"epsilon": manifest["epsilon"]} if "epsilon" in manifest else {}
    return {**found, "window": rule_from_spec(manifest["window"])} if "window" in manifest else found


def _native_unit(layout: Any) -> dict[str, Any]:
    native = layout.native_unit()
    return {} if native is None else {"native_scale": native[0], "native_unit": native[1]}


def _outcome(report: Any, task: dict[str, Any]) -> Outcome:
    from monai_salm.report.terminal import terminal_text

    values = report.to_dict()
    lines = terminal_text(all_printable(values)).split("\n")  # a name must not begin a line of its own
    return Outcome(values, [*lines, "", *class_lines(report.classes, task)])
