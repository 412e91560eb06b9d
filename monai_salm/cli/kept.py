"""Where an interrupted call has left what is finished; the same call goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_salm.shared.files import partial_beside, work_beside


def by_generate(store: Path, **options: Any) -> Path | None:
    """Where an interrupted ``generate`` has left what is finished."""
    return _first_of(work_beside(store))


def by_protect(output: Path, store: Path | None, overwrite: bool, **options: Any) -> Path | None:
    """Where an interrupted ``protect`` has left what is finished: the noise first, then the copy."""
    noise = store or store_beside(output)
    return _first_of(work_beside(noise), partial_beside(output), *(() if overwrite else (noise,)))


def by_publish(output: Path, **options: Any) -> Path | None:
    """Where an interrupted ``publish`` has left what is finished."""
    return _first_of(partial_beside(output))


def by_restore(restored: Path, **options: Any) -> Path | None:
    """Where an interrupted ``restore`` has left what is finished."""
    return _first_of(partial_beside(restored))


def _first_of(*places: Path) -> Path | None:
    return next((place for place in places if place.exists()), None)


def store_beside(output: Path) -> Path:
    """The noise store of a copy, where none is named."""
    return output.with_name(f"{output.name}.noise.db")


def by_evaluate(resume: Path | None, **options: Any) -> Path | None:
    """Where an interrupted ``evaluate`` has left its finished victims."""
    return resume if resume is not None and resume.exists() else None
