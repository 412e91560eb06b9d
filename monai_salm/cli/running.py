"""What every verb does alike: ``--json``, ``--quiet``, ``--debug``, progress, errors and exit codes."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import os
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO, get_type_hints

import typer

from monai_salm.cli.options import options_of, store_beside
from monai_salm.jobs.launch import Launch, launch
from monai_salm.shared.disk import FULL, DiskFullError
from monai_salm.shared.files import leftover_warnings, partial_beside, work_beside
from monai_salm.shared.progress import show_progress
from monai_salm.shared.terminal import printable
from monai_salm.shared.warn import DataWarning, warn

# What the package raises on purpose (its own errors derive from these) and what the system raises in daily use.
# Anything else is a bug and keeps its traceback.
_KNOWN_ERRORS = (ValueError, OSError, RuntimeError, OverflowError, ImportError, MemoryError)
# What shells give for a program that Ctrl-C ended.
_INTERRUPTED = 130
_WIDTH = 119
_STOPPED = (
    "monai-salm: rank {rank} was stopped from outside, as torchrun does when another rank failed or was killed. All finished "
    "rounds are kept: run the same command again, with as many ranks, and it goes on from there\n"
)


@dataclass(frozen=True)
class Outcome:
    """What a verb did: the object that ``--json`` prints, what is printed without it, and whether the exit code is 0."""

    data: dict[str, Any]
    lines: Sequence[str]
    ok: bool = True


# Of every verb; of those that read a data set, a layout of images and label maps in one line and how large an image may be.
_COMMON = {"as_json": (bool, False), "quiet": (bool, False), "debug": (bool, False), "help_all": (bool, False)}
_READING = {"image_glob": (str | None, None), "label_glob": (str | None, None), "max_image_bytes": (int | None, None)}


def verb(
    function: Callable[..., Outcome], settings: Mapping[str, Any] | None = None, settings_at: int = 99
) -> Callable[..., None]:
    """Make a command of a function that returns an ``Outcome``.

    Each parameter is the option that the table has under its name, with three exceptions. ``progress`` is the callback that shows
    progress. A parameter whose type is a dataclass stands for an option of each of its fields. ``**texts`` stands for the texts of
    ``settings``: further options (typer's) by name, after ``settings_at`` others.
    """
    given = dict(inspect.signature(function, eval_str=True).parameters)
    shows_progress = given.pop("progress", None) is not None
    groups: dict[str, Any] = {name: p.annotation for name, p in given.items() if is_dataclass(p.annotation)}
    options = list(_flat(given).items())
    options[settings_at:settings_at] = [(name, (type_, None)) for name, type_ in (settings or {}).items()]
    if patterned := "layout" in dict(options):
        options += _READING.items()
    options += _COMMON.items()

    @functools.wraps(function)
    def run(*, as_json: bool, quiet: bool, debug: bool, help_all: bool, **options: Any) -> None:
        if patterned:
            del options["max_image_bytes"]  # its callback has set the limit
            options["layout"] = _layout_of(options.pop("image_glob"), options.pop("label_glob"), options["layout"])
        taken = dict(options)
        for name, group in groups.items():
            taken[name] = group(**{field.name: taken.pop(field.name) for field in fields(group)})
        place = launch()
        first = place.rank == 0  # the others do their share in silence
        try:
            if place.size > 1:
                begin_as_rank(function.__name__, place)
            # The output of a library must not mix with the object.
            with redirect_stdout(sys.stderr) if as_json else nullcontext(), _own_warnings(first) as warned:
                places = [options[name] for name in ("store", "output", "restored") if options.get(name)]
                for line in leftover_warnings(places) if first else ():
                    warn(line)
                with show_progress(silent=quiet or not first) if shows_progress else nullcontext() as progress:
                    outcome = function(**taken, **({"progress": progress} if shows_progress else {}))
        except KeyboardInterrupt:
            if first:
                kept = _kept(function.__name__, **options)
                message = f"finished work is kept in {kept}; run the same command again to continue"
                message = f"stopped; {message if kept else 'nothing is kept, and the same call begins again'}"
                _fail([message], message, as_json)
            raise typer.Exit(_INTERRUPTED) from None
        except _KNOWN_ERRORS as error:
            if debug:
                raise
            _tell(error, place, as_json)
            raise typer.Exit(1) from error
        if first:
            _show(outcome, warned, as_json)
        if not outcome.ok:
            raise typer.Exit(1)

    run.__signature__ = inspect.Signature(_parameters(function.__name__, options))  # type: ignore[attr-defined]
    return run


def _flat(parameters: Mapping[str, inspect.Parameter]) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each parameter, and of each field of those whose type is a dataclass."""
    options: dict[str, tuple[Any, Any]] = {}
    for name, parameter in parameters.items():
        if is_dataclass(parameter.annotation):
            types = get_type_hints(parameter.annotation)
            options |= {field.name: (types[field.name], field.default) for field in fields(parameter.annotation)}
        elif parameter.kind is not parameter.VAR_KEYWORD:
            options[name] = (parameter.annotation, parameter.default)
    return options


def _parameters(verb: str, options: Iterable[tuple[str, tuple[Any, Any]]]) -> list[inspect.Parameter]:
    """What typer reads of a command's function: each option with its place in the table."""
    table, made = options_of(verb), []
    for name, (type_, default) in options:
        annotation = type_ if hasattr(type_, "__metadata__") else Annotated[type_, table[name]]
        made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    return made


def _kept(verb: str, *, output: Any = None, store: Any = None, overwrite: bool = False, **options: Any) -> Path | None:
    """Where an interrupted call has left what is finished, so that the same call goes on from there."""
    output = output or options.get("restored")
    places: list[Path | None] = [options.get("resume")]
    if verb in ("generate", "protect"):
        store = store or store_beside(output)
        places.append(work_beside(store))
    if verb in ("protect", "publish", "restore"):
        places.append(partial_beside(output))
    if verb == "protect" and not overwrite:
        places.append(store)
    return next((place for place in places if place is not None and place.exists()), None)


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
    """Print lines to the terminal; names with control characters cannot break a line or move the cursor."""
    shown: Iterable[str] = map(printable, lines)
    if _is_terminal(sys.stderr if err else sys.stdout):  # in a file or a pipe each line stays whole
        shown = itertools.chain.from_iterable(map(_folded, shown))
    typer.echo("\n".join(shown), err=err)


def _show(outcome: Outcome, warned: Sequence[str], as_json: bool) -> None:
    """Print what a verb did."""
    if as_json:
        told = {"warnings": [*warned, *outcome.data.get("warnings", ())]} if warned else {}
        _print_json({**outcome.data, **told})
    else:
        _say(outcome.lines, err=False)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _folded(line: str) -> list[str]:
    """A line as lines of at most ``_WIDTH`` signs, but for longer words."""
    if len(line) <= _WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _fail(parts: Iterable[str], message: str, as_json: bool) -> None:
    """Print an error to stderr, and as the object of ``--json``."""
    _say(f"monai-salm: {part}" for part in parts)
    if as_json:
        _print_json({"ok": False, "error": message})


def _tell(error: BaseException, place: Launch, as_json: bool) -> None:
    """Print an error; torch and the system write several lines, this package one."""
    if isinstance(error, OSError) and error.errno in FULL and not isinstance(error, DiskFullError):
        error = DiskFullError.of(error)
    message = str(error) or type(error).__name__
    own = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("monai_salm")
    parts = [message] if own else message.splitlines()
    if place.rank == 0:
        _fail(parts, message, as_json)
    elif not getattr(error, "told", False):
        _fail([f"rank {place.rank}: {part}" for part in parts], message, as_json=False)


@contextmanager
def _own_warnings(first: bool) -> Iterator[list[str]]:
    """Print and keep the package's warnings as it prints errors, without a place in the code; other warnings stay as they are."""
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


def begin_as_rank(verb: str, place: Launch) -> None:
    """Refuse any verb but ``generate``, since others are one process' work (ValueError), and be ready for torchrun's end."""
    if verb != "generate":
        raise ValueError(
            f"{verb} is one process' work, and torchrun started {place.size}: make the noise with torchrun -m monai_salm "
            f"generate, and then run monai-salm {verb} with that store without torchrun"
        )
    if sys.platform == "win32":  # ends processes without a signal
        return
    # A thread of its own takes the signal: the main one may be waiting for the very rank that is gone. Threads that
    # torch starts later inherit the mask, so that none of them takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end, args=(place.rank,), daemon=True).start()


def _end(rank: int) -> None:
    number = signal.sigwait([signal.SIGTERM])
    sys.stderr.write(_STOPPED.format(rank=rank))
    sys.stderr.flush()
    os._exit(128 + number)


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
