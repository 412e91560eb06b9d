"""The verb that measures how unlearnable a protected copy is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.cli import options as opt
from monai_salm.cli.listing import class_lines
from monai_salm.cli.running import Outcome
from monai_salm.shared.progress import ProgressCallback
from monai_salm.shared.terminal import all_printable


def evaluate(
    source: opt.Input,
    output: opt.Output,
    victims: Annotated[
        str | None,
        typer.Option(
            "--victims",
            metavar="A[,B]",
            help=f"Networks to train: {', '.join(names.IMAGE_NETWORKS)}; for labels per voxel "
            f"{', '.join(names.VOXEL_NETWORKS)}. resnet18,vgg11,vit or unet,segresnet if not given.",
            autocompletion=names.some_of(names.NETWORKS),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    pipelines: Annotated[
        str | None,
        typer.Option(
            "--pipelines",
            metavar="A[,B]",
            help=f"How ordinary trainers prepare and augment images: {', '.join(names.PIPELINES)}, or one variant such as 'resized "
            "0.5'. Plain training is always among them. plain,resized,nnunet if not given, for volumes spacing too.",
            autocompletion=names.some_of(names.PIPELINES),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    countermeasures: Annotated[
        str,
        typer.Option(
            "--countermeasures",
            metavar="cheap|all|A[,B]",
            help="What an adversary does to undo the noise. cheap: those that cost at most one ordinary training each. all: the "
            f"costly ones as well. Or some of {', '.join(names.COUNTERMEASURES)}; ordinary training (none) is always among "
            "them.",
            autocompletion=names.some_of(names.TIERS + names.COUNTERMEASURES),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "cheap",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N[,N]",
            help="A victim is trained for each; three or more show the spread.",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "0,1,2",
    fractions: Annotated[
        str,
        typer.Option(
            "--fractions",
            metavar="X[,X]",
            help="Shares of protected images in the training set, the others being clean; 1 for all protected alone.",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "0.2,0.4,0.6,0.8,1",
    controls: Annotated[
        str,
        typer.Option(
            "--controls",
            metavar="A[,B]|none",
            help=f"Training sets that any protection must beat: {', '.join(names.CONTROLS)}.",
            autocompletion=names.some_of((*names.CONTROLS, "none")),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "random_noise,random_mask",
    copy: Annotated[
        list[str] | None,
        typer.Option(
            "--copy",
            metavar="NAME=OUTPUT",
            help="Another protected copy of the same data to compare with. May be repeated.",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="Passes over the training set. Chosen by its size if not given.",
            min=1,
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    all_epochs: Annotated[
        bool,
        typer.Option(
            "--all-epochs",
            help="Train on when the training score is about 1 and nothing is left to learn.",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = False,
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            metavar="none|standard",
            help="Augmentation of all victims; standard is flips and shifts.",
            autocompletion=names.one_of(names.AUGMENTATIONS),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "none",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="default|medmnist",
            help="How victims are trained; medmnist is the recipe of its published scores (100 epochs, full width).",
            autocompletion=names.one_of(names.RECIPES),
            rich_help_panel=manual.VICTIMS,
        ),
    ] = "default",
    width: Annotated[
        float | None,
        typer.Option(
            "--width",
            metavar="X",
            help="Channels of the victims, as a share of the published networks'. [default: 0.25]",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out",
            metavar="X",
            help="Share of the training cases that victims do not see: to stop early on, and an adversary's clean set. "
            "[default: 0.1]",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            "--epsilon",
            metavar="X",
            help="Budget of the random-noise control. The copy's own if not given.",
            rich_help_panel=manual.VICTIMS,
        ),
    ] = None,
    window: opt.Window = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            metavar="DATASET",
            help="Clean images to test on: its labelled test split, else its training split. The test or validation split of "
            "INPUT if not given.",
            rich_help_panel=manual.DATA,
        ),
    ] = None,
    layout: opt.LayoutName = None,
    patch_size: opt.PatchSize = None,
    view_size: opt.ViewSize = None,
    device: opt.Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            help="Victims trained at once. As many as cores if not given and memory allows.",
            min=1,
            rich_help_panel=manual.NETWORKS,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="FILE",
            help="The noise store, to name the surrogates and to check the test images.",
            rich_help_panel=manual.FILES,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="Keep finished victims in FILE, and do not train again those that it holds: the same call made again "
            "goes on where it stopped.",
            rich_help_panel=manual.FILES,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a report with pictures.", rich_help_panel=manual.FILES),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the report as JSON.", rich_help_panel=manual.FILES),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a line for each victim.", rich_help_panel=manual.FILES),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FOLDER",
            help="Keep predictions as MedMNIST's evaluator does.",
            rich_help_panel=manual.FILES,
        ),
    ] = None,
    *,
    progress: ProgressCallback,
) -> Outcome:
    """Train fresh networks on the original and on the protected copy, and compare them on clean test images.

    Prints tables of scores and a verdict, which names the worst ordinary pipeline and the best that any adversary reached;
    docs/evaluation.md says how to read them. The defaults train some hundred networks, which takes hours: begin with one victim,
    one seed and no countermeasure (see below), and give --resume, so that an interrupted call can go on.
    """
    settings: dict[str, Any] = {
        "victims": None if victims is None else opt.read("--victims", readers.networks, victims),
        "pipelines": None if pipelines is None else opt.read("--pipelines", readers.pipelines, pipelines),
        "countermeasures": opt.read("--countermeasures", readers.countermeasures, countermeasures),
        "augment": opt.read("--augment", readers.augmentation, augment),
        "seeds": opt.read("--seeds", readers.integers, seeds),
        "fractions": opt.read("--fractions", readers.numbers, fractions),
        "controls": opt.read("--controls", readers.controls, controls),
        "patch_size": None if patch_size is None else opt.read("--patch-size", readers.integers, patch_size),
        "view_size": None if view_size is None else opt.read("--view-size", readers.integers, view_size),
        **_recipe(opt.read("--recipe", readers.recipe, recipe)),
    }
    settings |= {"learned": None} if all_epochs else {}
    given = {"epochs": epochs, "width": width, "held_out": held_out}
    settings |= {name: value for name, value in given.items() if value is not None}
    budget = None if epsilon is None else opt.read("--epsilon", readers.number, epsilon)
    rule = None if window is None else opt.read("--window", readers.window, window)
    others = opt.read_all("--copy", readers.named_path, copy or ())
    from monai_salm.evaluation import PredictionFolder
    from monai_salm.evaluation import evaluate as evaluate_
    from monai_salm.noise.window import rule_from_spec
    from monai_salm.publishing import clean_test_cases, open_pair
    from monai_salm.report.terminal import terminal_text
    from monai_salm.store.store import NoiseStore

    if store is not None:
        settings["store"] = NoiseStore(store)
    if predictions is not None:
        settings["predictions"] = PredictionFolder(predictions, source.name.split(".")[0])
    clean, published, known = open_pair(source, output, layout)
    if rule is None and "window" in known:
        rule = rule_from_spec(known["window"])
    native, classes = clean.native_unit(), clean.classes()
    if native is not None:
        settings |= {"native_scale": native[0], "native_unit": native[1]}
    report = evaluate_(
        clean=clean.dataset(),
        protected=published.dataset(),
        test=clean.dataset(clean.test_split()) if test is None else clean_test_cases(test, layout),
        copies={name: clean.reopen(path).dataset() for name, path in others.items()},
        task=clean.task(),
        window=rule,
        epsilon=known.get("epsilon", 8 / 255) if budget is None else budget,
        device=device,
        jobs=jobs,
        resume=resume,
        progress=progress,
        **settings,
    )
    report = replace(report, classes=classes)
    for path, write in ((out, report.to_json), (html, report.to_html), (table, report.to_csv)):
        if path is not None:
            write(path)
    values = report.to_dict()
    # A name must not begin a line of its own.
    return Outcome(
        values, [*class_lines(classes, clean.task().spec()), "", *terminal_text(all_printable(values)).split("\n")]
    )


def _recipe(name: str) -> dict[str, Any]:
    """Settings of the protocol that a recipe's name stands for."""
    if name == "default":
        return {}
    from monai_salm.learning.recipes import MEDMNIST_RECIPE

    return {"recipe": MEDMNIST_RECIPE, "epochs": 100, "width": 1.0, "learned": None, "held_out": 0.0}
