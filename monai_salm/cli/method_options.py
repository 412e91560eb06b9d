"""Options made of the settings of the noise methods: a field of their dataclasses with a help text is an option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from monai_salm.cli import manual, names, readers
from monai_salm.cli.options import read
from monai_salm.methods.perturbations import PERTURBATIONS
from monai_salm.methods.presets import FOR_LABEL_MAPS, FOR_LABELLED_VOLUMES, METHODS, recommended
from monai_salm.methods.salm import SALM

if TYPE_CHECKING:
    from monai_salm.layouts import Layout
    from monai_salm.methods import Method


@dataclass(frozen=True)
class Setting:
    """A setting of one or more methods as an option: its field's name, its help text, and what may be given.

    ``--help`` shows those that are ``main``, and ``--help-all`` all.
    """

    name: str
    help: str
    metavar: str
    panel: str = manual.NOISE
    values: tuple[str, ...] = ()
    main: bool = False

    @property
    def flag(self) -> str:
        return _flag(self.name)


@cache
def every_setting() -> tuple[Setting, ...]:
    """The settings of all methods that have a help text; first those that ``--help`` shows."""
    found = [_setting(name, owners) for name, owners in _defaults().items()]
    return tuple(sorted(found, key=lambda setting: not setting.main))


def _setting(name: str, owners: dict[str, tuple[Any, str]]) -> Setting:
    """The option of a setting, by the metadata of its field."""
    kinds = [kind for kind, _ in owners.values()]
    metadata = next(filter(None, (_metadata(kind, name) for kind in kinds)))
    annotation = get_type_hints(kinds[0])[name]
    values: tuple[str, ...] = ("true", "false") if annotation is bool else metadata.get("values", ())
    if "main" in metadata:
        text = f"{metadata['help']}  [default: {owners['salm'][1]}]"
        return Setting(name, text, "NAME" if values else "X", manual.NOISE, values, main=True)
    panel = manual.SALM if {"salm", *PERTURBATIONS} >= set(owners) else manual.OTHERS
    alike: dict[str, list[str]] = {}
    for owner, (_, default) in owners.items():
        alike.setdefault(default, []).append(owner)
    shown = "; ".join(f"{default} of {', '.join(group)}" for default, group in alike.items())
    metavar = "|".join(values) or {float: "X", int: "N"}[annotation]
    return Setting(name, f"{metadata['help']}  [default: {shown}]", metavar, panel, values)


def _defaults() -> dict[str, dict[str, tuple[Any, str]]]:
    """Setting -> owner (a method or a perturbation) -> the owner's dataclass and its default as shown."""
    variants = {"2D label maps": FOR_LABEL_MAPS, "3D label maps": FOR_LABELLED_VOLUMES}
    found: dict[str, dict[str, tuple[Any, str]]] = {}
    kinds: dict[str, Any] = {**METHODS, **PERTURBATIONS}
    for owner, kind in kinds.items():
        parts = [kind, *(type(field.default) for field in fields(kind) if field.name == "mask")]
        for part in parts:
            for field in fields(part):
                said = {(default := _shown(field.default)): default}
                for what, method in variants.items():
                    settings = {"salm": method, method.perturbation.name: method.perturbation}
                    other = _shown(getattr(settings.get(owner), field.name, field.default))
                    said.setdefault(other, f"({other} for {what})")
                found.setdefault(field.name, {})[owner] = (part, " ".join(said.values()))
    return {name: owners for name, owners in found.items() if any(_metadata(part, name) for part, _ in owners.values())}


def _metadata(kind: Any, name: str) -> Mapping[str, Any]:
    """The metadata with a help text of a dataclass's field, from the class or from one that it inherits."""
    known = (base.__dict__.get("__dataclass_fields__", {}).get(name) for base in kind.__mro__)
    return next((field.metadata for field in known if field is not None and "help" in field.metadata), {})


def _shown(value: Any) -> str:
    if value == 8 / 255:
        return "8/255"
    if is_dataclass(value):
        return str(getattr(value, "name", ""))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def noise_options() -> dict[str, Any]:
    """An option for every setting of every noise method."""
    found = {}
    for setting in every_setting():
        option = typer.Option(
            setting.flag,
            help=setting.help,
            metavar=setting.metavar,
            rich_help_panel=setting.panel,
            autocompletion=names.one_of(setting.values) if setting.values else None,
        )
        found[setting.name] = Annotated[str | None, option]
    return found


def make_method(name: str, texts: dict[str, str | None], data: Layout | None = None) -> Method:
    """The noise method of a name with the settings that were given; others are those recommended for the data set.

    Without a data set the settings are checked alone. typer.BadParameter for an unknown name, a setting the method does not have,
    or a value that does not fit.
    """
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
    inner = {field.name: getattr(start, field.name) for field in fields(start)}
    inner = {name: _perturbation(part, given) for name, part in inner.items() if is_dataclass(part)}
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
    """The perturbation that is asked for, with its defaults; masks are of one kind for a method."""
    if start.name not in PERTURBATIONS:
        return start
    name = given.pop("perturbation", start.name)
    if name not in PERTURBATIONS:
        raise typer.BadParameter(
            f"unknown perturbation {name!r}; known: {', '.join(PERTURBATIONS)}", param_hint="--perturbation"
        )
    return start if name == start.name else PERTURBATIONS[name]()


def _reader(annotation: Any) -> Callable[[str], Any]:
    """Reads a setting by its declared type."""
    known: dict[Any, Callable[[str], Any]] = {float: readers.number, int: _integer, bool: _boolean, str: str}
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
