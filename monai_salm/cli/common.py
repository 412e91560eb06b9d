"""Options that many verbs share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from monai_salm.cli import manual


def _flag(name: str, help_: str, **more: Any) -> Any:
    return Annotated[bool, typer.Option(name, help=help_, **more)]


COMMON: dict[str, tuple[Any, Any]] = {
    "as_json": (_flag("--json", "Print one JSON object to stdout and nothing else there."), False),
    "quiet": (_flag("--quiet", "Show no progress."), False),
    "debug": (_flag("--debug", "Show the traceback of an error.", rich_help_panel=manual.SELDOM), False),
    "help_all": (
        _flag("--help-all", "Show the options seldom needed too.", is_eager=True, callback=manual.show_all),
        False,
    ),
}


def _pattern(flag: str, help_: str) -> tuple[Any, Any]:
    option = typer.Option(flag, metavar="PATTERN", help=help_, rich_help_panel=manual.DATA)
    return Annotated[str | None, option], None


def _allow(count: int | None) -> int | None:
    """The callback of ``--max-image-bytes``."""
    if count is not None:
        from monai_salm.formats.limits import allow_image_bytes

        allow_image_bytes(count)
    return count


#: Of verbs that read a data set: a layout of images and label maps in one line, and how large an image may be.
READING: dict[str, tuple[Any, Any]] = {
    "image_glob": _pattern(
        "--image-glob",
        "Which files are images: '*/imaging.nii.gz', or '*/*_{t1,t2}.nii.gz' for two channels. Wildcards match the same text in "
        "--label-glob.",
    ),
    "label_glob": _pattern(
        "--label-glob", "Their label maps: '*/segmentation.nii.gz', or '*/masks/*.nii.gz' for one of each class."
    ),
    "max_image_bytes": (
        Annotated[
            int | None,
            typer.Option(
                "--max-image-bytes",
                metavar="N",
                min=1,
                callback=_allow,
                help="Refuse an image that unpacks to more bytes. 8 GiB if not given.",
                rich_help_panel=manual.SELDOM,
            ),
        ],
        None,
    ),
}
