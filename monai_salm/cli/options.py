"""Options: how their text is read, and those that come from the settings of the noise methods."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from monai_salm.cli import readers

if TYPE_CHECKING:
    from monai_salm.methods import Method

T = TypeVar("T")


def _known_layout(name: str | None) -> str | None:
    if name is not None:
        from monai_salm.layouts import LAYOUTS

        if name not in LAYOUTS:
            raise typer.BadParameter(f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}")
    return name


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise typer.BadParameter(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    return name


Input: TypeAlias = Annotated[Path, typer.Argument(metavar="INPUT", help="The data set: a folder or a file.")]
Output: TypeAlias = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The protected copy.")]
Store: TypeAlias = Annotated[Path, typer.Option("--store", metavar="FILE", help="The noise store; keep it private.")]
LayoutName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--layout", metavar="NAME", help="Layout of the data set; found out if not given.", callback=_known_layout
    ),
]
Window: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--window", metavar="LOW,HIGH", help="Intensity window in stored units; guessed from the images if not given."
    ),
]
Width: TypeAlias = Annotated[
    float, typer.Option("--width", metavar="SHARE", help="Channels of the networks, as a share of the published ones.")
]
PatchSize: TypeAlias = Annotated[
    str | None, typer.Option("--patch-size", metavar="N,N[,N]", help="Cut images into patches of this size.")
]
ViewSize: TypeAlias = Annotated[
    str | None, typer.Option("--view-size", metavar="N,N[,N]", help="Resize images to this size for the networks.")
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.", callback=_known_device)
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.", min=0)]
Splits: TypeAlias = Annotated[
    str, typer.Option("--splits", metavar="A[,B]", help="Splits whose images are protected; all others are copied.")
]
Jobs: TypeAlias = Annotated[int, typer.Option("--jobs", metavar="N", help="Files worked on at a time.", min=1)]
NumShards: TypeAlias = Annotated[
    int, typer.Option("--num-shards", metavar="N", help="Calls that share the files, as in a cluster array.", min=1)
]
ShardIndex: TypeAlias = Annotated[
    int, typer.Option("--shard-index", metavar="I", help="Which of these calls this is, from 0.", min=0)
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")]


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


class MethodCommand(TyperCommand):
    """A command with an option for every setting of every noise method.

    The options are made of the methods' dataclasses, so that the two cannot drift apart; and only when the command is used
    or its help is shown, for that imports torch. The command finds their texts in ``context.obj``.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = list(super().get_params(ctx))
        if not hasattr(self, "_settings"):
            self._settings = _setting_options()
        # The help option stays last.
        return [*found[:-1], *self._settings, found[-1]]

    def invoke(self, ctx: Any) -> Any:
        self.get_params(ctx)
        ctx.obj = {option.name: ctx.params.pop(option.name, None) for option in self._settings}
        return super().invoke(ctx)


def make_method(name: str, texts: dict[str, str | None]) -> Method:
    """The noise method of a name with the settings that were given.

    Args:
        name: one of ``METHODS``.
        texts: setting to the text on the command line, or None.

    Raises:
        typer.BadParameter: for an unknown name, a setting the method does not have, or a value that does not fit.
    """
    from monai_salm.methods import METHODS

    if name not in METHODS:
        raise typer.BadParameter(f"unknown method {name!r}; known: {', '.join(METHODS)}", param_hint="--method")
    method = METHODS[name]
    types = get_type_hints(method)
    own = {field.name for field in fields(method)}
    settings = {}
    for setting, text in texts.items():
        if text is None:
            continue
        if setting not in own:
            raise typer.BadParameter(
                f"{name} has no such setting; it has {', '.join(sorted(own))}", param_hint=_flag(setting)
            )
        settings[setting] = read(_flag(setting), _reader(types[setting]), text)
    try:
        return method(**settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _setting_options() -> list[Any]:
    """One option for every setting of any method, made by typer itself."""
    from monai_salm.methods import METHODS

    parameters: dict[str, inspect.Parameter] = {}
    for method in METHODS.values():
        help_texts = _documented(method)
        for field in fields(method):
            if field.name in parameters:
                continue
            default = "" if field.default is MISSING else f" [default of {method.name}: {_shown(field.default)}]"
            option = typer.Option(_flag(field.name), help=help_texts.get(field.name, "") + default, metavar="VALUE")
            parameters[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
            )

    def stub(**settings: Any) -> None: ...

    stub.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(stub)
    command = typer.main.get_command(app)
    return [parameter for parameter in command.params if parameter.name in parameters]


def _documented(method: type[Any]) -> dict[str, str]:
    """The ``Args`` of the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(method.__mro__):
        _, _, section = (inspect.cleandoc(base.__doc__ or "")).partition("Args:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found[match[1]] = " ".join(match[2].split()).replace("``", "")
    return found


def _reader(annotation: Any) -> Callable[[str], Any]:
    """Reads a setting by its declared type; a value that may be None is none for ``none``."""
    parts = getattr(annotation, "__args__", (annotation,))
    if type(None) in parts:
        inner = _reader(next(part for part in parts if part is not type(None)))
        return lambda text: None if text.lower() == "none" else inner(text)
    known: dict[Any, Callable[[str], Any]] = {
        float: readers.number,
        int: _integer,
        bool: _boolean,
        str: str,
        tuple[str, ...]: lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
    }
    return known[annotation]


def _integer(text: str) -> int:
    found = readers.integers(text)
    if len(found) != 1:
        raise ValueError(f"must be one whole number, got {text!r}")
    return found[0]


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, got {text!r}")
    return text.lower() == "true"


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _shown(value: object) -> str:
    """Budgets are said in 255ths, as in every paper on the matter."""
    if isinstance(value, float) and value > 0 and (value * 255).is_integer() and value < 1:
        return f"{value * 255:.0f}/255"
    return str(value).lower() if value is None else str(value)
