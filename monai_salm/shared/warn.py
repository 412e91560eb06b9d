"""Warnings of this package: they name the line that called it, and the command line prints them as its own."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


class DataWarning(UserWarning):
    """A data set that is rarely meant to be as it is; the message says why and what to do."""


def warn(message: str) -> None:
    """Warn in the name of the first caller outside the package: what is doubtful, and what to do."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=level)
