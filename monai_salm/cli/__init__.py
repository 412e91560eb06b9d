"""The command line: ``monai-salm VERB``. One function a verb; what all verbs share is in ``running``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from monai_salm._version import __version__
from monai_salm.cli import describing, evaluating, interrupted, planning, protecting, verifying
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

        monai-salm VERB --help                         what a verb does, and its main options
        monai-salm VERB --help-all                     every option of a verb
        monai-salm --install-completion                completion for bash, zsh, fish or PowerShell
        """
    )
    + "\n\nExit codes: 0 done, 1 failed or partly done, 2 wrong usage, 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    context_settings={"max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add(function: Callable[..., None], section: str, summary: str, calls: str, makes_noise: bool = False) -> None:
    """A verb: what it does, its section in ``--help``, and calls of it as they can be made."""
    app.command(
        cls=MethodCommand if makes_noise else ManualCommand,
        rich_help_panel=section,
        short_help=summary,
        epilog=examples(calls),
    )(function)


_add(
    verb(describing.demo),
    _TRY,
    "Protect, verify and evaluate a small real data set in a few minutes.",
    """
    monai-salm demo                    2D images
    monai-salm demo demo3d --rank 3    volumes
    """,
)
_add(
    verb(describing.info),
    _TRY,
    "Say what a noise store or a data set holds.",
    """
    monai-salm info scans
    monai-salm info scans_public.noise.db --json
    """,
)
_add(
    verb(planning.plan),
    _WAY,
    "Say what protect would do, refuse and cost; writes nothing.",
    """
    monai-salm plan scans
    monai-salm plan scans --window -160,240 --mask-ratio 0.3 --device cuda:0
    """,
    makes_noise=True,
)
_add(
    verb(protecting.protect, interrupted.kept_by_protect),
    _WAY,
    "Make the noise, write the protected copy, verify it.",
    """
    monai-salm protect scans scans_public
    monai-salm protect ct ct_public --window -160,240 --epsilon 4/255           CT, soft tissue, in HU
    monai-salm protect mri mri_public --window percentile:0.5,99.5              each image by its own percentiles
    monai-salm protect scans scans_public --perturbation error_minimizing       the noise of the paper
    """,
    makes_noise=True,
)
_add(
    verb(verifying.verify),
    _WAY,
    "Prove that a protected copy is what it should be.",
    """
    monai-salm verify scans scans_public --store scans_public.noise.db
    monai-salm verify scans_public --signer owner.pub                     for readers: is it the owner's, and unchanged?
    """,
)
_add(
    verb(evaluating.evaluate, lambda resume, **options: resume if resume and resume.exists() else None),
    _WAY,
    "Train networks on original and copy, and compare them on clean images.",
    """
    monai-salm evaluate scans scans_public --html report.html --resume cells.jsonl
    monai-salm evaluate scans scans_public --victims resnet18 --countermeasures none --seeds 0 --fractions 1    a first look
    monai-salm evaluate scans scans_public --copy em=scans_em --countermeasures jpeg,blur
    """,
)
_add(
    verb(protecting.restore, interrupted.kept_copy),
    _WAY,
    "Take the noise off again: the exact originals.",
    "monai-salm restore scans_public scans_restored --store scans_public.noise.db",
)
_add(
    verb(protecting.generate, interrupted.kept_noise),
    _STEPS,
    "Make the noise of a data set and keep it in a store.",
    """
    monai-salm generate scans --store scans.db
    torchrun --nproc-per-node 4 -m monai_salm generate scans --store scans.db    four GPUs
    """,
    makes_noise=True,
)
_add(
    verb(protecting.publish, interrupted.kept_copy),
    _STEPS,
    "Write a protected copy with the noise of a store.",
    """
    monai-salm publish scans scans_public --store scans.db --jobs 8
    monai-salm publish scans scans_public --store scans.db --num-shards 10 --shard-index $SLURM_ARRAY_TASK_ID
    """,
)
_add(
    verb(planning.encrypt),
    _SHARE,
    "Encrypt a noise store for those who may have the originals.",
    "monai-salm encrypt scans.db scans.db.age --recipient age1...",
)
_add(
    verb(planning.decrypt),
    _SHARE,
    "Decrypt a noise store that was encrypted for you.",
    "monai-salm decrypt scans.db.age scans.db --identity key.txt",
)


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
