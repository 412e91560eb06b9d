"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.methods.presets import METHODS

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore

T = TypeVar("T")


def _known_layout(name: str | None) -> str | None:
    if name is not None and name not in names.LAYOUTS and "->" not in name:
        raise typer.BadParameter(f"unknown layout {name!r}; known: {', '.join(names.LAYOUTS)}")
    return name


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise typer.BadParameter(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    return name


def _option(flag: str, metavar: str | None, panel: str, help_: str, **more: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=help_, rich_help_panel=panel, **more)


Input: TypeAlias = Annotated[
    Path, typer.Argument(metavar="INPUT", help="The original data set: a folder or an archive (.npz).")
]
Output: TypeAlias = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="The protected copy: same layout, names, types and headers.")
]
_STORE = "The noise store. Keep it private: it undoes the protection."
Store: TypeAlias = Annotated[Path, _option("--store", "FILE", manual.FILES, _STORE)]
OwnStore: TypeAlias = Annotated[
    Path | None, _option("--store", "FILE", manual.FILES, f"{_STORE} OUTPUT.noise.db if not given.")
]
Key: TypeAlias = Annotated[
    Path | None,
    _option(
        "--key",
        "FILE",
        manual.SELDOM,
        "The owner's key, which signs the noise store. If not given: $MONAI_SALM_KEY, or owner.key in your configuration folder.",
    ),
]
Unsigned: TypeAlias = Annotated[
    bool,
    _option(
        "--unsigned",
        None,
        manual.SELDOM,
        "Use a noise store that the owner's key does not prove, as a partner's copy is.",
    ),
]
LayoutName: TypeAlias = Annotated[
    str | None,
    _option(
        "--layout",
        "NAME",
        manual.DATA,
        f"Layout of the data set: {', '.join(names.LAYOUTS)}. Found out if not given.",
        callback=_known_layout,
        autocompletion=names.one_of(names.LAYOUTS),
    ),
]
Copy: TypeAlias = Annotated[
    list[str] | None,
    _option(
        "--copy",
        "PATTERN",
        manual.DATA,
        "Copy other files too, as at a shell ('*.pdf'); may be repeated. Label maps, tables, JSON, sidecars and texts are "
        "always copied.",
    ),
]
Window: TypeAlias = Annotated[
    str | None,
    _option(
        "--window",
        "RULE",
        manual.DATA,
        "What shows from black to white: LOW,HIGH in real units (HU for CT) or percentile:LOW,HIGH; with ; between them, one for "
        "each channel. If not given: 0,255 for 8-bit pictures and MedMNIST, -160,240 for CT, else percentile:0.5,99.5.",
    ),
]
Width: TypeAlias = Annotated[
    float,
    _option("--width", "SHARE", manual.SELDOM, "Channels of the surrogates, as a share of the published networks'."),
]
PatchSize: TypeAlias = Annotated[
    str | None,
    _option(
        "--patch-size",
        "N,N[,N]",
        manual.SELDOM,
        "Show networks patches of this size, for images too large for memory. Chosen by the data if not given.",
    ),
]
ViewSize: TypeAlias = Annotated[
    str | None,
    _option(
        "--view-size", "N,N[,N]", manual.SELDOM, "Show networks the images resized to this size; files keep their size."
    ),
]
Device: TypeAlias = Annotated[
    str,
    _option(
        "--device",
        "auto|cpu|cuda:N",
        manual.NETWORKS,
        "Where to compute; auto takes a GPU if there is one.",
        callback=_known_device,
        autocompletion=names.one_of(names.DEVICES),
    ),
]
Seed: TypeAlias = Annotated[
    int,
    _option("--seed", "N", manual.NOISE, "Of everything random: same seed, versions and device, same bytes.", min=0),
]
Splits: TypeAlias = Annotated[
    str,
    _option(
        "--splits",
        "A[,B]",
        manual.DATA,
        "Splits to protect; all other files are copied as they are.",
        autocompletion=names.some_of(names.SPLITS),
    ),
]
Jobs: TypeAlias = Annotated[int, _option("--jobs", "N", manual.FILES, "Files worked on at a time.", min=1)]
NumShards: TypeAlias = Annotated[
    int, _option("--num-shards", "N", manual.FILES, "Calls that share the files, as in a cluster's array job.", min=1)
]
ShardIndex: TypeAlias = Annotated[
    int, _option("--shard-index", "I", manual.FILES, "Number of this call among them, from 0.", min=0)
]
Overwrite: TypeAlias = Annotated[
    bool,
    _option("--overwrite", None, manual.FILES, "Replace what an earlier call wrote; nothing else is ever replaced."),
]
MethodName: TypeAlias = Annotated[
    str,
    _option(
        "--method",
        "NAME",
        manual.NOISE,
        f"How the noise is made: {', '.join(METHODS)} (docs/methods.md compares them).",
        autocompletion=names.one_of(tuple(METHODS)),
    ),
]
Surrogate: TypeAlias = Annotated[
    str | None,
    _option(
        "--surrogate",
        "A[,B]",
        manual.SELDOM,
        f"The network that makes the noise, or several to take in turn: {', '.join(names.IMAGE_NETWORKS)}; for labels per voxel "
        f"{', '.join(names.VOXEL_NETWORKS)}. If not given: resnet18 for images, resnet10 for volumes, unet for labels per voxel.",
        autocompletion=names.some_of(names.NETWORKS),
    ),
]
SignKey: TypeAlias = Annotated[
    Path | None,
    _option("--sign-key", "FILE", manual.SELDOM, "Ed25519 private key (PEM) to sign the public manifest with."),
]
Signer: TypeAlias = Annotated[
    Path | None, _option("--signer", "FILE", manual.FILES, "Public key (PEM) that must have signed the manifest.")
]
DatasetVersion: TypeAlias = Annotated[
    str | None,
    _option("--dataset-version", "TEXT", manual.SELDOM, "Version of the data set, for the public manifest."),
]


@dataclass(frozen=True)
class NoiseOptions:
    """The options of the verbs that make noise, or foretell it."""

    method: MethodName = "salm"
    layout: LayoutName = None
    splits: Splits = "train"
    window: Window = None
    surrogate: Surrogate = None
    width: Width = 0.25
    patch_size: PatchSize = None
    view_size: ViewSize = None
    device: Device = "auto"

    def read(self) -> dict[str, Any]:
        """The texts as arguments of ``precompute`` and ``plan``; read first, so that wrong usage is reported at once."""
        return {
            "surrogate": optional("--surrogate", readers.networks, self.surrogate),
            "width": self.width,
            "patch_size": optional("--patch-size", readers.integers, self.patch_size),
            "view_size": optional("--view-size", readers.integers, self.view_size),
            "device": self.device,
            "splits": read("--splits", readers.names, self.splits),
            "window": optional("--window", readers.window, self.window),
        }


def optional(option: str, reader: Callable[[str], T], text: str | None) -> T | None:
    """``read`` of an option that need not be given."""
    return None if text is None else read(option, reader, text)


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


def opened(store: Path, key: Path | None, unsigned: bool) -> NoiseStore:
    """The noise store that the options name."""
    from monai_salm.store.store import NoiseStore

    return NoiseStore(store, key=key, unsigned=unsigned)
