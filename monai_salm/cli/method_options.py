"""Options made of the settings of the noise methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.cli.method_settings import SETTINGS
from monai_salm.cli.options import read

if TYPE_CHECKING:
    from monai_salm.layouts import Layout
    from monai_salm.methods import Method


class MethodCommand(manual.ManualCommand):
    """A command with an option for every setting of every noise method; it finds their texts in ``context.obj``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own options, the methods', and ``--help``."""
        found: list[Any] = list(super().get_params(ctx))
        if not hasattr(self, "_settings"):
            self._settings = _setting_options()
        # The help option stays last.
        return [*found[:-1], *self._settings, found[-1]]

    def invoke(self, ctx: Any) -> Any:
        """Run the verb without the methods' options, which it takes from the context."""
        self.get_params(ctx)
        ctx.obj = {option.name: ctx.params.pop(option.name, None) for option in self._settings}
        return super().invoke(ctx)


def make_method(name: str, texts: dict[str, str | None], data: Layout | None = None) -> Method:
    """The noise method of a name with the settings that were given; others are those recommended for the data set.

    Args:
        name: one of ``METHODS``.
        texts: setting to the text on the command line, or None.
        data: the data set; None checks the settings before it is opened.

    Raises:
        typer.BadParameter: for an unknown name, a setting the method does not have, or a value that does not fit.
    """
    from monai_salm.methods import METHODS, SALM, recommended

    if name not in METHODS:
        raise typer.BadParameter(f"unknown method {name!r}; known: {', '.join(METHODS)}", param_hint="--method")
    given = {setting: text for setting, text in texts.items() if text is not None}
    try:
        start = METHODS[name]()
        if isinstance(start, SALM) and data is not None:
            size = data.image_size()
            start = recommended(data.task(), len(size), size)
        method: Method = _build(start, given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return method


def _build(start: Any, given: dict[str, str]) -> Any:
    """The settings to start from with those given in their place; settings inside them take from the same options."""
    types, given = get_type_hints(type(start)), dict(given)
    inner = {name: choose(getattr(start, name), given) for name, choose in _INSIDE.items() if name in types}
    own = {field.name for field in fields(start)} - set(inner)
    parts = {name: {field.name for field in fields(part)} - own for name, part in inner.items()}
    known = own.union(*parts.values())
    for setting in given:
        if setting not in known:
            raise typer.BadParameter(
                f"{start.name} has no such setting here; it has {', '.join(sorted(known))}", param_hint=_flag(setting)
            )
    settings = {name: read(_flag(name), _reader(types[name]), text) for name, text in given.items() if name in own}
    for name, part in inner.items():
        settings[name] = _build(part, {key: text for key, text in given.items() if key in parts[name]})
    return replace(start, **settings)


def _perturbation(start: Any, given: dict[str, str]) -> Any:
    from monai_salm.methods.perturbations import PERTURBATIONS

    name = given.pop("perturbation", start.name)
    if name not in PERTURBATIONS:
        raise typer.BadParameter(
            f"unknown perturbation {name!r}; known: {', '.join(PERTURBATIONS)}", param_hint="--perturbation"
        )
    return start if name == start.name else PERTURBATIONS[name]()


def _mask(start: Any, given: dict[str, str]) -> Any:
    return start


# Fields that hold settings themselves -> what they start from, by the options.
_INSIDE: dict[str, Callable[[Any, dict[str, str]], Any]] = {"perturbation": _perturbation, "mask": _mask}


def _setting_options() -> list[Any]:
    """One option for every setting of any method, made by typer itself."""
    parameters = []
    for setting in SETTINGS:
        known = names.some_of(setting.values) if setting.several else names.one_of(setting.values)
        option = typer.Option(
            setting.flag,
            help=setting.text,
            metavar=setting.metavar,
            rich_help_panel=setting.panel,
            autocompletion=known if setting.values else None,
        )
        kind = inspect.Parameter.KEYWORD_ONLY
        annotation = Annotated[str | None, option]
        parameters.append(inspect.Parameter(setting.name, kind, default=None, annotation=annotation))

    def stub(**settings: Any) -> None: ...

    stub.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(stub)
    known_names = {setting.name for setting in SETTINGS}
    return [parameter for parameter in typer.main.get_command(app).params if parameter.name in known_names]


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
