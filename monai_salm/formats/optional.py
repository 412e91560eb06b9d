"""Libraries that only some formats need, imported when such a file is met."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str, what: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: its full name.
        extra: the extra of this package that installs it.
        what: the files it is needed for.

    Raises:
        ImportError: if it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} files need {module.partition('.')[0]}: pip install 'monai_salm[{extra}]' ({error})"
        ) from error
