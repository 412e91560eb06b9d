"""The command line: ``monai-salm VERB``. One function a verb; what all verbs share is in ``running``."""

from __future__ import annotations

import typer

from monai_salm._version import __version__
from monai_salm.cli import describing, evaluating, planning, protecting
from monai_salm.cli.manual import ManualCommand, ManualGroup, examples
from monai_salm.cli.method_options import MethodCommand
from monai_salm.cli.running import verb

_TRY, _WAY, _STEPS, _SHARE = "To begin with", "The way, step by step", "Parts of protect", "Originals for a partner"

app = typer.Typer(
    name="monai-salm",
    cls=ManualGroup,
    help="Make medical images unlearnable before you publish them, and measure how unlearnable they are.\n\n"
    "Imperceptible noise (SALM) is added to the training images of a data set. Networks trained on the published copy fit the "
    "noise and fail on clean images. It is a deterrent whose strength is measured: not encryption, not anonymisation, not a "
    "guarantee.",
    epilog=examples(
        """
        monai-salm plan scans                          what would be done, and how long it will take
        monai-salm protect scans scans_public          noise in scans_public.noise.db: keep that private
        monai-salm evaluate scans scans_public --html report.html

        monai-salm VERB --help                         every option of a verb
        monai-salm --install-completion                completion for bash, zsh, fish or PowerShell
        """
    )
    + "\n\nExit codes: 0 done, 1 failed or partly done, 2 wrong usage, 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    context_settings={"max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(
    "demo",
    cls=ManualCommand,
    rich_help_panel=_TRY,
    short_help="Protect, verify and evaluate a small real data set in a few minutes.",
    epilog=examples(
        """
        monai-salm demo                    2D images
        monai-salm demo demo3d --rank 3    volumes
        """
    ),
)(verb(describing.demo))
app.command(
    "info",
    cls=ManualCommand,
    rich_help_panel=_TRY,
    short_help="Say what a noise store or a data set holds.",
    epilog=examples(
        """
        monai-salm info scans
        monai-salm info scans_public.noise.db --json
        """
    ),
)(verb(describing.info))
app.command(
    "plan",
    cls=MethodCommand,
    rich_help_panel=_WAY,
    short_help="Say what protect would do, refuse and cost; writes nothing.",
    epilog=examples(
        """
        monai-salm plan scans
        monai-salm plan scans --window -160,240 --mask-ratio 0.3 --device cuda:0
        """
    ),
)(verb(planning.plan))
app.command(
    "protect",
    cls=MethodCommand,
    rich_help_panel=_WAY,
    short_help="Make the noise, write the protected copy, verify it.",
    epilog=examples(
        """
        monai-salm protect scans scans_public
        monai-salm protect ct ct_public --window -160,240 --epsilon 4/255           CT, soft tissue, in HU
        monai-salm protect mri mri_public --window percentile:0.5,99.5              each image by its own percentiles
        monai-salm protect scans scans_public --perturbation error_minimizing       the noise of the paper
        """
    ),
)(verb(protecting.protect, protecting.kept_by_protect))
app.command(
    "verify",
    cls=ManualCommand,
    rich_help_panel=_WAY,
    short_help="Prove that a protected copy is what it should be.",
    epilog=examples("monai-salm verify scans scans_public --store scans_public.noise.db"),
)(verb(protecting.verify))
app.command(
    "evaluate",
    cls=ManualCommand,
    rich_help_panel=_WAY,
    short_help="Train networks on original and copy, and compare them on clean images.",
    epilog=examples(
        """
        monai-salm evaluate scans scans_public --html report.html --resume cells.jsonl
        monai-salm evaluate scans scans_public --victims resnet18 --countermeasures none --seeds 0 --fractions 1    a first look
        monai-salm evaluate scans scans_public --copy em=scans_em --countermeasures jpeg,blur
        """
    ),
)(verb(evaluating.evaluate, lambda resume, **options: resume if resume and resume.exists() else None))
app.command(
    "restore",
    cls=ManualCommand,
    rich_help_panel=_WAY,
    short_help="Take the noise off again: the exact originals.",
    epilog=examples("monai-salm restore scans_public scans_restored --store scans_public.noise.db"),
)(verb(protecting.restore, protecting.kept_copy))
app.command(
    "generate",
    cls=MethodCommand,
    rich_help_panel=_STEPS,
    short_help="Make the noise of a data set and keep it in a store.",
    epilog=examples(
        """
        monai-salm generate scans --store scans.db
        torchrun --nproc-per-node 4 -m monai_salm generate scans --store scans.db    four GPUs
        """
    ),
)(verb(protecting.generate, protecting.kept_noise))
app.command(
    "publish",
    cls=ManualCommand,
    rich_help_panel=_STEPS,
    short_help="Write a protected copy with the noise of a store.",
    epilog=examples(
        """
        monai-salm publish scans scans_public --store scans.db --jobs 8
        monai-salm publish scans scans_public --store scans.db --num-shards 10 --shard-index $SLURM_ARRAY_TASK_ID
        """
    ),
)(verb(protecting.publish, protecting.kept_copy))
app.command(
    "encrypt",
    cls=ManualCommand,
    rich_help_panel=_SHARE,
    short_help="Encrypt a noise store for those who may have the originals.",
    epilog=examples("monai-salm encrypt scans.db scans.db.age --recipient age1..."),
)(verb(planning.encrypt))
app.command(
    "decrypt",
    cls=ManualCommand,
    rich_help_panel=_SHARE,
    short_help="Decrypt a noise store that was encrypted for you.",
    epilog=examples("monai-salm decrypt scans.db.age scans.db --identity key.txt"),
)(verb(planning.decrypt))


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
