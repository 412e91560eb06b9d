"""Files whose compression would destroy noise: known by name, so that the refusal can say why."""

from __future__ import annotations

from pathlib import Path

_JPEG = "JPEG compression rounds noise this small away"
_REASONS = {
    (".jpg", ".jpeg", ".jpe", ".jfif"): _JPEG,
    (".jp2", ".j2k", ".jpf", ".jpx"): "JPEG 2000 is as a rule lossy, which rounds noise this small away",
    (".webp",): "WebP is as a rule lossy, which rounds noise this small away",
}


def why_lossy(path: Path) -> str | None:
    """Why a file cannot carry noise and what to do about it, from its name; None if its name is no such one."""
    for suffixes, reason in _REASONS.items():
        if path.name.lower().endswith(suffixes):
            return f"{reason}; convert the data set to PNG first and publish that"
    return None
