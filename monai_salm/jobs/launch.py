"""What ``torchrun`` tells a process it started, read without importing torch; and the error of a rank that lost another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class RankError(RuntimeError):
    """Another rank failed or is gone, so that this one cannot go on; ``told``: the rank that failed tells the user itself."""

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class Launch(NamedTuple):
    """This process's place, from 0, among those that ``torchrun`` started; alone without torchrun."""

    rank: int = 0
    size: int = 1


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read the place from the environment; only torchrun's own mark counts, since clusters set ``RANK`` for other ends."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return Launch()
    return Launch(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))
