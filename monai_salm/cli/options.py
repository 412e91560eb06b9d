"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from monai_salm.cli import manual, names, readers

T = TypeVar("T")


def _known_layout(name: str | None) -> str | None:
    if name is not None and name not in names.LAYOUTS and "->" not in name:
        raise typer.BadParameter(f"unknown layout {name!r}; known: {', '.join(names.LAYOUTS)}")
    return name


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise typer.BadParameter(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    return name


Input: TypeAlias = Annotated[
    Path, typer.Argument(metavar="INPUT", help="The original data set: a folder or an archive (.npz).")
]
Output: TypeAlias = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="The protected copy: same layout, names, types and headers.")
]
Store: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="FILE",
        help="The noise store. Keep it private: it undoes the protection.",
        rich_help_panel=manual.FILES,
    ),
]
LayoutName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help=f"Layout of the data set: {', '.join(names.LAYOUTS)}. Found out if not given.",
        callback=_known_layout,
        autocompletion=names.one_of(names.LAYOUTS),
        rich_help_panel=manual.DATA,
    ),
]
Copy: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--copy",
        metavar="PATTERN",
        help="Copy the files beside the images that fit, as at a shell ('*.pdf'), whatever they are; may be given several times. "
        "Label maps, tables, JSON, sidecars and texts are copied by themselves.",
        rich_help_panel=manual.DATA,
    ),
]
Window: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="RULE",
        help="What each image shows from black to white; noise is a share of its width and stays inside. LOW,HIGH in real units (HU "
        "for CT), or percentile:LOW,HIGH of each image and channel; with ; between them, one for each channel. By default 0,255 for "
        "pictures of 8 bits, -160,240 for CT, else percentile:0.5,99.5; plan shows what comes of it.",
        rich_help_panel=manual.DATA,
    ),
]
Width: TypeAlias = Annotated[
    float,
    typer.Option(
        "--width",
        metavar="SHARE",
        help="Channels of the surrogates, as a share of the published networks'.",
        rich_help_panel=manual.NETWORKS,
    ),
]
PatchSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--patch-size",
        metavar="N,N[,N]",
        help="Show networks patches of this size, for images too large for memory. Chosen by the data if not given.",
        rich_help_panel=manual.NETWORKS,
    ),
]
ViewSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--view-size",
        metavar="N,N[,N]",
        help="Show networks the images resized to this size; files keep theirs.",
        rich_help_panel=manual.NETWORKS,
    ),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda:N",
        help="Where to compute; auto takes a GPU if there is one.",
        callback=_known_device,
        autocompletion=names.one_of(names.DEVICES),
        rich_help_panel=manual.NETWORKS,
    ),
]
Seed: TypeAlias = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        help="Of everything random: same seed, versions and device, same bytes.",
        min=0,
        rich_help_panel=manual.NOISE,
    ),
]
Splits: TypeAlias = Annotated[
    str,
    typer.Option(
        "--splits",
        metavar="A[,B]",
        help="Splits whose images are protected; all other files are copied as they are.",
        autocompletion=names.some_of(names.SPLITS),
        rich_help_panel=manual.DATA,
    ),
]
Jobs: TypeAlias = Annotated[
    int,
    typer.Option("--jobs", metavar="N", help="Files worked on at a time.", min=1, rich_help_panel=manual.FILES),
]
NumShards: TypeAlias = Annotated[
    int,
    typer.Option(
        "--num-shards",
        metavar="N",
        help="Calls that share the files, as in a cluster's array job.",
        min=1,
        rich_help_panel=manual.FILES,
    ),
]
ShardIndex: TypeAlias = Annotated[
    int,
    typer.Option(
        "--shard-index",
        metavar="I",
        help="Which of these calls this is, from 0.",
        min=0,
        rich_help_panel=manual.FILES,
    ),
]
Overwrite: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace what an earlier call wrote; nothing else is ever replaced.",
        rich_help_panel=manual.FILES,
    ),
]


MethodName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help=f"How the noise is made: {', '.join(names.METHODS)} (docs/methods.md compares them).",
        autocompletion=names.one_of(names.METHODS),
        rich_help_panel=manual.NOISE,
    ),
]
Surrogate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--surrogate",
        metavar="A[,B]",
        help=f"The network that makes the noise, or several to take in turn: {', '.join(names.IMAGE_NETWORKS)}; for labels per "
        f"voxel {', '.join(names.VOXEL_NETWORKS)}. resnet18 for images, resnet10 for volumes, unet for labels per voxel if not "
        "given.",
        autocompletion=names.some_of(names.NETWORKS),
        rich_help_panel=manual.NETWORKS,
    ),
]
SignKey: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--sign-key",
        metavar="FILE",
        help="Ed25519 private key (PEM) to sign the public manifest with.",
        rich_help_panel=manual.FILES,
    ),
]
OwnStore: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="The noise store. Keep it private: it undoes the protection. OUTPUT.noise.db if not given.",
        rich_help_panel=manual.FILES,
    ),
]


def read(option: str, reader: Callable[[str], T], text: str) -> T:
    """Read an option's text; text that does not fit is wrong usage (exit code 2)."""
    try:
        return reader(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def read_all(option: str, reader: Callable[[str], tuple[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """Read an option that may be repeated, each time with another name; wrong usage otherwise."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = read(option, reader, text)
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        found[name] = value
    return found


def shard(index: int, count: int) -> tuple[int, int]:
    """``--shard-index`` and ``--num-shards`` as one; wrong usage if they do not fit."""
    if index >= count:
        raise typer.BadParameter(f"must be less than --num-shards {count}, got {index}", param_hint="--shard-index")
    return index, count


def network_settings(
    surrogate: str | None, width: float, patch_size: str | None, view_size: str | None, device: str
) -> dict[str, Any]:
    """Options as arguments of ``precompute`` and ``plan``; read before anything else, so that wrong usage is told at once."""
    return {
        "surrogate": None if surrogate is None else read("--surrogate", readers.networks, surrogate),
        "width": width,
        "patch_size": None if patch_size is None else read("--patch-size", readers.integers, patch_size),
        "view_size": None if view_size is None else read("--view-size", readers.integers, view_size),
        "device": device,
    }
