"""The options of all verbs: the table of what ``--help`` says of each, and what several verbs do with them.

A parameter of a verb is the option or argument that the table has under its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.cli.manual import DATA, FILES, NETWORKS, NOISE, REST, SELDOM, VICTIMS
from monai_salm.methods.presets import METHODS

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore

T = TypeVar("T")

_STORE = "The noise store. Keep it private: it undoes the protection."
_OWN_STORE = {FILES: {"--store FILE": f"{_STORE} OUTPUT.noise.db if not given."}}
# Section -> option as it is written -> what it says. An argument is written as the parameter and what stands for its value.
_TEXTS = {
    "Arguments": {
        "source INPUT": "The original data set: a folder or an archive (.npz).",
        "output OUTPUT": "The protected copy: same layout, names, types and headers.",
    },
    DATA: {
        "--layout NAME": f"Layout of the data set: {', '.join(names.LAYOUTS)}. Found out if not given.",
        "--copy PATTERN": "Copy other files too, as at a shell ('*.pdf'); may be repeated. Label maps, tables, JSON, sidecars "
        "and texts are always copied.",
        "--window RULE": "What shows from black to white: LOW,HIGH in real units (HU for CT) or percentile:LOW,HIGH; with ; "
        "between them, one for each channel. If not given: 0,255 for 8-bit pictures and MedMNIST, -160,240 for CT, else "
        "percentile:0.5,99.5.",
        "--splits A[,B]": "Splits to protect; all other files are copied as they are.",
        "--image-glob PATTERN": "Which files are images: '*/imaging.nii.gz', or '*/*_{t1,t2}.nii.gz' for two channels. "
        "Wildcards match the same text in --label-glob.",
        "--label-glob PATTERN": "Their label maps: '*/segmentation.nii.gz', or '*/masks/*.nii.gz' for one of each class.",
    },
    NOISE: {
        "--seed N": "Of everything random: same seed, versions and device, same bytes.",
        "--method NAME": f"How the noise is made: {', '.join(METHODS)} (docs/methods.md compares them).",
    },
    NETWORKS: {"--device auto|cpu|cuda:N": "Where to compute; auto takes a GPU if there is one."},
    FILES: {
        "--store FILE": _STORE,
        "--jobs N": "Files worked on at a time.",
        "--num-shards N": "Calls that share the files, as in a cluster's array job.",
        "--shard-index I": "Number of this call among them, from 0.",
        "--overwrite": "Replace what an earlier call wrote; nothing else is ever replaced.",
        "--signer FILE": "Public key (PEM) that must have signed the manifest.",
    },
    SELDOM: {
        "--key FILE": "The owner's key, which signs the noise store. If not given: $MONAI_SALM_KEY, or owner.key in your "
        "configuration folder.",
        "--unsigned": "Use a noise store that the owner's key does not prove, as a partner's copy is.",
        "--width SHARE": "Channels of the surrogates, as a share of the published networks'.",
        "--patch-size N,N[,N]": "Show networks patches of this size, for images too large for memory. Chosen by the data if "
        "not given.",
        "--view-size N,N[,N]": "Show networks the images resized to this size; files keep their size.",
        "--surrogate A[,B]": "The network that makes the noise, or several to take in turn: "
        f"{', '.join(names.IMAGE_NETWORKS)}; for labels per voxel {', '.join(names.VOXEL_NETWORKS)}. If not given: resnet18 "
        "for images, resnet10 for volumes, unet and segresnet for labels per voxel.",
        "--sign-key FILE": "Ed25519 private key (PEM) to sign the public manifest with.",
        "--dataset-version TEXT": "Version of the data set, for the public manifest.",
        "--max-image-bytes N": "Refuse an image that unpacks to more bytes. 8 GiB if not given.",
        "--debug": "Show the traceback of an error.",
    },
    REST: {
        "--json": "Print one JSON object to stdout and nothing else there.",
        "--quiet": "Show no progress.",
        "--help-all": "Show the options seldom needed too.",
    },
}
# Those of single verbs, and those that mean something else there.
_OF_VERBS: dict[str, dict[str, dict[str, str]]] = {
    "demo": {
        "Arguments": {"output OUTPUT": "A folder for the files; made if it is not there."},
        REST: {
            "--rank": "2 for images, 3 for volumes.",
            "--dataset NAME": "A MedMNIST set in place of the embedded one.",
        },
    },
    "info": {"Arguments": {"file FILE": "A noise store or a data set."}},
    "protect": _OWN_STORE,
    "verify": {
        "Arguments": {
            "source INPUT": "The original data set. With --signer alone: the protected copy.",
            "output [OUTPUT]": "The protected copy.",
        },
        **_OWN_STORE,
    },
    "restore": {
        "Arguments": {"protected OUTPUT": "The protected copy.", "restored RESTORED": "Where the originals go."},
        **_OWN_STORE,
    },
    "evaluate": {
        VICTIMS: {
            "--copy NAME=OUTPUT": "Another protected copy of the same data to compare with. May be repeated.",
            "--all-epochs": "Train on when the training score is about 1 and nothing is left to learn.",
            "--recipe default|medmnist": "How victims are trained; medmnist is the recipe of its published scores (100 "
            "epochs, full width).",
        },
        DATA: {
            "--test DATASET": "Clean images to test on: its labelled test split, else its training split. The test or "
            "validation split of INPUT if not given.",
        },
        FILES: {
            "--store FILE": "The noise store, to name the surrogates and to check the test images.",
            "--resume FILE": "Keep finished victims in FILE, and do not train again those that it holds: the same call goes "
            "on where it stopped.",
            "--html FILE": "Write a report with pictures.",
            "--out FILE": "Write the report as JSON.",
            "--csv FILE": "Write a line for each victim.",
            "--predictions FOLDER": "Keep predictions as MedMNIST's evaluator does.",
        },
    },
    "encrypt": {
        "Arguments": {"store STORE": "The noise store.", "output FILE": "The encrypted store."},
        REST: {"--recipient KEY": "age or ssh public key; may be given several times."},
    },
    "decrypt": {
        "Arguments": {"encrypted FILE": "The encrypted store.", "store STORE": "Where the noise store goes."},
        REST: {"--identity FILE": "age identity or ssh private key."},
    },
}


def _known_layout(name: str | None) -> str | None:
    if name is not None and name not in names.LAYOUTS and "->" not in name:
        raise typer.BadParameter(f"unknown layout {name!r}; known: {', '.join(names.LAYOUTS)}")
    return name


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise typer.BadParameter(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    return name


def _allow(count: int | None) -> int | None:
    if count is not None:
        from monai_salm.formats.limits import allow_image_bytes

        allow_image_bytes(count)
    return count


# Checks of values, and what a shell offers.
_MORE: dict[str, dict[str, Any]] = {
    "layout": {"callback": _known_layout, "autocompletion": names.one_of(names.LAYOUTS)},
    "splits": {"autocompletion": names.some_of(names.SPLITS)},
    "seed": {"min": 0},
    "method": {"autocompletion": names.one_of(tuple(METHODS))},
    "device": {"callback": _known_device, "autocompletion": names.one_of(names.DEVICES)},
    "jobs": {"min": 1},
    "num_shards": {"min": 1},
    "shard_index": {"min": 0},
    "surrogate": {"autocompletion": names.some_of(names.NETWORKS)},
    "max_image_bytes": {"min": 1, "callback": _allow},
    "help_all": {"is_eager": True, "callback": manual.show_all},
    "rank": {"min": 2, "max": 3},
    "recipe": {"autocompletion": names.one_of(names.RECIPES)},
}


def options_of(verb: str) -> dict[str, Any]:
    """What typer makes an option or argument of, for each parameter that a verb may have."""
    found: dict[str, Any] = {}
    for texts in (_TEXTS, _OF_VERBS.get(verb, {})):
        for section, options in texts.items():
            for usage, text in options.items():
                flag, _, metavar = usage.partition(" ")
                if section == "Arguments":
                    found[flag] = typer.Argument(metavar=metavar, help=text)
                    continue
                name = "as_json" if flag == "--json" else flag[2:].replace("-", "_")
                more = _MORE.get(name, {})
                found[name] = typer.Option(flag, metavar=metavar or None, help=text, rich_help_panel=section, **more)
    return found


@dataclass(frozen=True)
class NoiseOptions:
    """The options of the verbs that make noise, or foretell it."""

    method: str = "salm"
    layout: str | None = None
    splits: str = "train"
    window: str | None = None
    surrogate: str | None = None
    width: float = 0.25
    patch_size: str | None = None
    view_size: str | None = None
    device: str = "auto"

    def read(self) -> dict[str, Any]:
        """The texts as arguments of ``precompute`` and ``plan``; read first, so that wrong usage is reported at once."""
        return {
            "surrogate": read("--surrogate", readers.networks, self.surrogate),
            "width": self.width,
            "patch_size": read("--patch-size", readers.integers, self.patch_size),
            "view_size": read("--view-size", readers.integers, self.view_size),
            "device": self.device,
            "splits": read("--splits", readers.names, self.splits),
            "window": read("--window", readers.window, self.window),
        }


@dataclass(frozen=True)
class CopyOptions:
    """The options of the verbs that write or verify copies by a store."""

    layout: str | None = None
    jobs: int = 1
    num_shards: int = 1
    shard_index: int = 0
    key: Path | None = None
    unsigned: bool = False

    def read(self) -> dict[str, Any]:
        """The arguments of ``publish``, ``verify`` and ``restore``; wrong usage if the shard is none."""
        index, count = self.shard_index, self.num_shards
        if index >= count:
            raise typer.BadParameter(f"must be less than --num-shards {count}, got {index}", param_hint="--shard-index")
        return {"layout": self.layout, "jobs": self.jobs, "shard": (index, count)}

    def opened(self, store: Path) -> NoiseStore:
        """The noise store at a path."""
        from monai_salm.store.store import NoiseStore

        return NoiseStore(store, key=self.key, unsigned=self.unsigned)


def read(option: str, reader: Callable[[str], T], text: str | None) -> T | None:
    """Read an option's text, if it was given; text that does not fit is wrong usage (exit code 2)."""
    try:
        return None if text is None else reader(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def copies(texts: Sequence[str]) -> Mapping[str, Path]:
    """Each ``--copy NAME=OUTPUT`` of ``evaluate``; wrong usage if a name is given twice."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise typer.BadParameter(f"must be NAME=PATH, got {text!r}", param_hint="--copy")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--copy")
        found[name] = Path(path)
    return found


def store_beside(output: Path) -> Path:
    """The noise store of a copy, where none is named."""
    place = output if output.name.strip(".") else output.resolve()  # "." and ".." name no file
    return place.with_name(f"{place.name}.noise.db")
