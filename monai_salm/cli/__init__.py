"""The command line: ``monai-salm VERB``. One function a verb; what all verbs share is in ``running``."""

from __future__ import annotations

import typer

from monai_salm._version import __version__
from monai_salm.cli import describing, evaluating, planning, protecting
from monai_salm.cli.options import MethodCommand
from monai_salm.cli.running import verb

app = typer.Typer(
    name="monai-salm",
    help="Make medical images unlearnable before publishing them, and measure how unlearnable they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(verb(describing.demo))
app.command("plan", cls=MethodCommand)(verb(planning.plan))
app.command("generate", cls=MethodCommand)(verb(protecting.generate))
app.command("publish")(verb(protecting.publish))
app.command("protect", cls=MethodCommand)(verb(protecting.protect))
app.command("verify")(verb(protecting.verify))
app.command("restore")(verb(protecting.restore))
app.command("encrypt")(verb(planning.encrypt))
app.command("decrypt")(verb(planning.decrypt))
app.command("evaluate")(verb(evaluating.evaluate))
app.command("info")(verb(describing.info))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Entry point of ``monai-salm``."""
    app()


__all__ = ["app", "main"]
