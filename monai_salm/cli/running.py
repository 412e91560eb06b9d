"""What every verb does alike: ``--json``, ``--quiet``, ``--debug``, progress, errors and exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_salm.cli import manual
from monai_salm.cli.ranks import begin_as_rank
from monai_salm.jobs.launch import launch
from monai_salm.shared.progress import show_progress
from monai_salm.shared.terminal import printable
from monai_salm.shared.warn import DataWarning

# What the package raises on purpose (its own errors derive from these) and what the system raises in daily use.
# Anything else is a bug and keeps its traceback.
_KNOWN_ERRORS = (ValueError, OSError, RuntimeError, OverflowError, ImportError, MemoryError)
# What shells give for a program that Ctrl-C ended.
_INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """What a verb did.

    Args:
        data: the object that ``--json`` prints.
        lines: what is printed without it.
        ok: whether the exit code is 0.
    """

    data: dict[str, Any]
    lines: Sequence[str]
    ok: bool = True


_COMMON: dict[str, tuple[Any, bool]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else there.")],
        False,
    ),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="Show no progress.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")], False),
}

# Of verbs that take a layout: a folder of images and label maps in one line.
_PATTERNS: dict[str, tuple[Any, Any]] = {
    f"{kind}_glob": (
        Annotated[
            str | None,
            typer.Option(f"--{kind}-glob", metavar="PATTERN", help=help_, rich_help_panel=manual.DATA),
        ],
        None,
    )
    for kind, help_ in (
        (
            "image",
            "Which files are images, such as '*/imaging.nii.gz', or '*/*_{t1,t2}.nii.gz' for two channels. Wildcards stand for the "
            "same as in --label-glob; ** is any number of folders.",
        ),
        (
            "label",
            "Which files are their label maps, such as '*/segmentation.nii.gz', or '*/masks/*.nii.gz' for one of each class.",
        ),
    )
}


def verb(
    function: Callable[..., Outcome], kept: Callable[..., Path | None] = lambda **options: None
) -> Callable[..., None]:
    """Make a command of a function that returns an ``Outcome``.

    A parameter ``progress`` of the function is given the callback that shows progress; it is no option.

    Args:
        function: what the command does.
        kept: finds in the options where an interrupted call has left what is finished, so that the same call goes on from there.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "progress"]
    shared = {**(_PATTERNS if "layout" in signature.parameters else {}), **_COMMON}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in shared.items()
    ]

    patterned = "layout" in signature.parameters

    @functools.wraps(function)
    def run(*, as_json: bool, quiet: bool, debug: bool, **options: Any) -> None:
        if patterned:
            options["layout"] = _layout_of(options.pop("image_glob"), options.pop("label_glob"), options["layout"])
        place = launch()
        first = place.rank == 0  # the others do their share in silence
        try:
            if place.size > 1:
                begin_as_rank(function.__name__, place)
            # Whatever a library prints must not mix with the object.
            with redirect_stdout(sys.stderr) if as_json else nullcontext(), _own_warnings(first) as warned:
                if "progress" in signature.parameters:
                    with show_progress(silent=quiet or not first) as progress:
                        outcome = function(**options, progress=progress)
                else:
                    outcome = function(**options)
        except KeyboardInterrupt:
            if first:
                message = _stopped(kept(**options))
                _say([f"monai-salm: {message}"])
                if as_json:
                    _print_json({"ok": False, "error": message})
            raise typer.Exit(_INTERRUPTED) from None
        except _KNOWN_ERRORS as error:
            if debug:
                raise
            message = str(error) or type(error).__name__
            if first or not getattr(error, "told", False):
                _say(f"monai-salm: {'' if first else f'rank {place.rank}: '}{part}" for part in _parts(error, message))
            if as_json and first:
                _print_json({"ok": False, "error": message})
            raise typer.Exit(1) from error
        if as_json and first:
            told = {"warnings": [*warned, *outcome.data.get("warnings", ())]} if warned else {}
            _print_json({**outcome.data, **told})
        elif first:
            _say(outcome.lines, err=False)
        if not outcome.ok:
            raise typer.Exit(1)

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    run.__signature__ = inspect.Signature([*keyword_only, *common])  # type: ignore[attr-defined]
    return run


def _layout_of(images: str | None, labels: str | None, layout: str | None) -> str | None:
    """``--image-glob`` and ``--label-glob`` as a layout; wrong usage if one stands alone or beside another layout."""
    if images is None and labels is None:
        return layout
    if images is None or labels is None:
        raise typer.BadParameter("give both --image-glob and --label-glob: noise is made against label maps")
    if layout not in (None, "mask_folder"):
        raise typer.BadParameter(
            f"--image-glob and --label-glob describe a data set themselves; leave out --layout {layout}"
        )
    return f"{images} -> {labels}"


def _say(lines: Iterable[str], err: bool = True) -> None:
    """Print lines to the terminal; whatever names they hold, each stays one line and moves no cursor."""
    typer.echo("\n".join(map(printable, lines)), err=err)


def _parts(error: BaseException, message: str) -> list[str]:
    """The lines of a message: torch and the system write several, this package one."""
    own = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("monai_salm")
    return [message] if own else message.splitlines()


def _stopped(kept: Path | None) -> str:
    """What is said after Ctrl-C."""
    if kept is None:
        return "stopped; nothing is kept, and the same call begins again"
    return f"stopped; what is finished is kept in {kept}, and the same call goes on from there"


@contextmanager
def _own_warnings(first: bool) -> Iterator[list[str]]:
    """What the package warns of is said like its errors, without a place in the code, and kept; others' stay as they are."""
    told = list[str]()
    with warnings.catch_warnings():
        other = warnings.showwarning
        warnings.simplefilter("always" if first else "ignore", DataWarning)

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, DataWarning) and str(message) in told:
                return  # of a data set that was opened again
            if issubclass(category, DataWarning):
                told.append(str(message))
                _say([f"monai-salm: warning: {message}"])
            else:
                other(message, category, *place, **options)

        warnings.showwarning = show
        yield told


def _print_json(data: dict[str, Any]) -> None:
    typer.echo(json.dumps(_plain(data), allow_nan=False))


def _plain(value: Any) -> Any:
    """Values as JSON knows them; NaN and infinity, which it does not know, become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
