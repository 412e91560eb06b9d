"""Where an interrupted call has left what is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_salm.shared.files import partial_beside, work_beside


def store_beside(output: Path) -> Path:
    """The noise store of a copy, where none is named."""
    place = output if output.name.strip(".") else output.resolve()  # "." and ".." name no file
    return place.with_name(f"{place.name}.noise.db")


def kept_noise(store: Path, **options: Any) -> Path | None:
    """Where an interrupted ``generate`` has left what is finished."""
    return _first_of(work_beside(store))


def kept_by_protect(output: Path, store: Path | None, overwrite: bool, **options: Any) -> Path | None:
    """Where an interrupted ``protect`` has left what is finished: the noise first, then the copy."""
    noise = store or store_beside(output)
    return _first_of(work_beside(noise), partial_beside(output), *(() if overwrite else (noise,)))


def kept_copy(output: Path | None = None, restored: Path | None = None, **options: Any) -> Path | None:
    """Where an interrupted ``publish`` or ``restore`` has left what is finished."""
    place = output or restored
    return None if place is None else _first_of(partial_beside(place))


def _first_of(*places: Path) -> Path | None:
    return next((place for place in places if place.exists()), None)
