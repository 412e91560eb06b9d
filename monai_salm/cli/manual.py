"""How ``--help`` is laid out: options in sections, the most used first. ``--help-all`` shows the options seldom needed too."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

DATA, NOISE, VICTIMS, NETWORKS, FILES = "Data", "Noise", "Victims and adversaries", "Networks and device", "Files"
SALM, OTHERS = "Settings of salm", "Settings of several methods"
SELDOM, REST = "Seldom needed", "Other options"
#: Sections of a verb's options, in their order; options without a section stand under the last.
SECTIONS = ("Arguments", DATA, NOISE, VICTIMS, NETWORKS, FILES, SALM, OTHERS, SELDOM, REST)
#: Sections that only ``--help-all`` shows, and the mark of a context that shows them.
HIDDEN, SHOW_ALL = (SALM, OTHERS, SELDOM), "monai_salm.show_all"

_TWO_BOUNDS = re.compile(r"--window[ =](-?[\d.]+),? +(-?[\d.]+)(?= |$)")


def examples(text: str) -> str:
    """An epilog whose lines stay as they are (``\\b`` says so), under the heading "Examples"."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in inspect.cleandoc(text).splitlines())


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """Answer ``--help-all``."""
    if wanted:
        ctx.meta[SHOW_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _briefly(items: list[Any]) -> list[Any]:
    """What a shell offers, each with one short line: fish takes every further line for one more offer."""
    for item in items:
        if item.help:
            item.help = textwrap.shorten(item.help.split(". ")[0], 60, placeholder=" ...")
    return items


class ManualCommand(TyperCommand):
    """A verb whose options are shown in sections."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line; two bounds without a comma would be taken for one and an argument too many."""
        found = _TWO_BOUNDS.search(" ".join(args))
        if found is not None and any("--window" in parameter.opts for parameter in self.params):
            low, high = found.groups()
            raise typer.BadParameter(
                f"must be LOW,HIGH with a comma between them: --window {low},{high}", param_hint="--window"
            )
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Options and values that a shell offers; settings of methods seldom needed where nothing else fits."""
        found = _briefly(super().shell_complete(ctx, incomplete))
        settings = [p for p in self.get_params(ctx) if getattr(p, "rich_help_panel", None) in (SALM, OTHERS)]
        seldom = {flag for setting in settings for flag in setting.opts}
        return [item for item in found if item.value not in seldom] or found

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        sections = _records(self.get_params(ctx), ctx)
        hidden = () if ctx.meta.get(SHOW_ALL) else HIDDEN
        _write_sections(formatter, {name: records for name, records in sections.items() if name not in hidden})


class ManualGroup(TyperGroup):
    """The program: its verbs in sections, each with its whole sentence."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Verbs and options that a shell offers."""
        return _briefly(super().shell_complete(ctx, incomplete))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs, then the program's own options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            section = str(getattr(command, "rich_help_panel", None) or "Commands")
            sections.setdefault(section, []).append((name, getattr(command, "short_help", "") or ""))
        # One column for all, so that sections stand under each other.
        _write_sections(formatter, sections, widest=max(len(name) for name in self.list_commands(ctx)))
        _write_sections(formatter, _records(self.get_params(ctx), ctx))


def _records(parameters: Iterable[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Name and text of what is shown, by section."""
    found: dict[str, list[tuple[str, str]]] = {section: [] for section in SECTIONS}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is not None:
            section = getattr(parameter, "rich_help_panel", None) or REST
            found["Arguments" if parameter.param_type_name == "argument" else section].append(record)
    return {name: records for name, records in found.items() if records}


def _write_sections(formatter: Any, sections: dict[str, list[tuple[str, str]]], widest: int = 0) -> None:
    for name, records in sections.items():
        with formatter.section(name):
            formatter.write_dl([(record[0].ljust(widest), record[1]) for record in records])
