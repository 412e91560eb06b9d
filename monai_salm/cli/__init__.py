"""The command line: ``monai-salm VERB``. One function a verb; what all verbs share is in ``running``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from monai_salm._version import __version__
from monai_salm.cli import describing, evaluating, protecting
from monai_salm.cli.manual import ManualCommand, ManualGroup, examples
from monai_salm.cli.method_options import noise_options
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


def _add(function: Callable[..., Any], section: str, summary: str, *calls: str, **settings: Any) -> None:
    """A verb: what it does, its section in ``--help``, and calls of it as they can be made."""
    shown = [call if call.startswith("torchrun") else f"monai-salm {function.__name__} {call}" for call in calls]
    manual: dict[str, Any] = {"rich_help_panel": section, "short_help": summary, "epilog": examples("\n".join(shown))}
    app.command(cls=ManualCommand, **manual)(verb(function, **settings))


_add(
    describing.demo,
    _TRY,
    "Protect, verify and evaluate a small real data set in a few minutes.",
    "                   2D images",
    "demo3d --rank 3    volumes",
)
_add(describing.info, _TRY, "Say what a noise store or a data set holds.", "scans", "scans_public.noise.db --json")
_add(
    describing.plan,
    _WAY,
    "Say what protect would do, refuse and cost; writes nothing.",
    "scans",
    "scans --window -160,240 --mask-ratio 0.3 --device cuda:0",
    settings=noise_options(),
)
_add(
    protecting.protect,
    _WAY,
    "Make the noise, write the protected copy, verify it.",
    "scans scans_public",
    "ct ct_public --window -160,240 --epsilon 4/255           CT, soft tissue, in HU",
    "mri mri_public --window percentile:0.5,99.5              each image by its own percentiles",
    "scans scans_public --perturbation error_minimizing       the noise of the paper",
    settings=noise_options(),
)
_add(
    protecting.verify,
    _WAY,
    "Prove that a protected copy is what it should be.",
    "scans scans_public --store scans_public.noise.db",
    "scans_public --signer owner.pub                     for readers: is it the owner's, and unchanged?",
)
_add(
    evaluating.evaluate,
    _WAY,
    "Train networks on original and copy, and compare them on clean images.",
    "scans scans_public --html report.html --resume cells.jsonl",
    "scans scans_public --victims resnet18 --countermeasures none --seeds 0 --fractions 1    a first look",
    "scans scans_public --copy em=scans_em --countermeasures jpeg,blur",
    settings=evaluating.protocol_options(),
    settings_at=2,  # after the arguments
)
_add(
    protecting.restore,
    _WAY,
    "Take the noise off again: the exact originals.",
    "scans_public scans_restored --store scans_public.noise.db",
)
_add(
    protecting.generate,
    _STEPS,
    "Make the noise of a data set and keep it in a store.",
    "scans --store scans.db",
    "torchrun --nproc-per-node 4 -m monai_salm generate scans --store scans.db    four GPUs",
    settings=noise_options(),
)
_add(
    protecting.publish,
    _STEPS,
    "Write a protected copy with the noise of a store.",
    "scans scans_public --store scans.db --jobs 8",
    "scans scans_public --store scans.db --num-shards 10 --shard-index $SLURM_ARRAY_TASK_ID",
)
_add(
    describing.encrypt,
    _SHARE,
    "Encrypt a noise store for those who may have the originals.",
    "scans.db scans.db.age --recipient age1...",
)
_add(
    describing.decrypt,
    _SHARE,
    "Decrypt a noise store that was encrypted for you.",
    "scans.db.age scans.db --identity key.txt",
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
