"""How the text of options is read: each reader gives a value, or raises ValueError saying what the text must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from monai_salm.cli import names as known


def number(text: str) -> float:
    """``"0.03"`` or ``"8/255"`` as a float."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"must be a number or a fraction such as 8/255, got {text!r}")
    return value


def names(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise ValueError(f"must be names with commas between them, got {text!r}")
    return found


def _known(what: str, allowed: Collection[str], *alone: str) -> Callable[[str], Any]:
    """Reads names, each of which must be known; a name that stands ``alone`` stays a text."""

    def read(text: str) -> str | tuple[str, ...]:
        if text in alone:
            return text
        found = names(text)
        for name in found:
            if name not in allowed:
                raise ValueError(f"unknown {what} {name!r}; known: {', '.join(allowed)}")
        return found

    return read


networks = _known("network", known.NETWORKS)
countermeasures = _known("countermeasure", known.COUNTERMEASURES, *known.TIERS)
augmentation = _known("augmentation", known.AUGMENTATIONS, *known.AUGMENTATIONS)
recipe = _known("recipe", known.RECIPES, *known.RECIPES)


def controls(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names of controls, ``"none"`` as none."""
    found: str | tuple[str, ...] = _known("control", known.CONTROLS, "none")(text)
    return () if isinstance(found, str) else found


def pipelines(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names of pipelines."""
    from monai_salm.evaluation.pipelines import check_pipelines

    found = names(text)
    check_pipelines(found)
    return found


def integers(text: str) -> tuple[int, ...]:
    """``"0,1,2"`` as whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"must be whole numbers with commas between them, got {text!r}") from None


def numbers(text: str) -> tuple[float, ...]:
    """``"0.2,0.4,1"`` as numbers."""
    return tuple(number(part) for part in text.split(","))


def window(text: str) -> Any:
    """``"LOW,HIGH"`` in real units, ``"percentile:LOW,HIGH"`` or ``"auto"``; several with ``;`` are one for each channel."""
    from monai_salm.noise.window import AutomaticWindow, ChannelWindows, FixedWindow, PercentileWindow

    rules: list[Any] = []
    for part in text.split(";"):
        kind, colon, ends = part.strip().rpartition(":")
        if part.strip() == "auto":
            rules.append(AutomaticWindow())
        elif colon and kind != "percentile":
            raise ValueError(f"must be LOW,HIGH or percentile:LOW,HIGH, got {text!r}")
        else:
            rules.append((PercentileWindow if colon else FixedWindow)(*bounds(ends)))
    return rules[0] if len(rules) == 1 else ChannelWindows(tuple(rules))


def bounds(text: str) -> tuple[float, float]:
    """``"LOW,HIGH"`` as two numbers in order."""
    parts = numbers(text)
    if len(parts) != 2 or not parts[0] < parts[1]:
        raise ValueError(f"must be LOW,HIGH with LOW < HIGH, got {text!r}")
    return parts[0], parts[1]
