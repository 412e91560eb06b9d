"""How the text of options is read: each reader gives a value, or raises ValueError saying what the text must be."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any


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


def networks(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names of networks."""
    from monai_salm.learning.networks import NETWORKS

    return all_known("network", names(text), NETWORKS)


def countermeasures(text: str) -> str | tuple[str, ...]:
    """``"a,b"`` as names of countermeasures; the name of a tier stays as it is."""
    from monai_salm.countermeasures import COUNTERMEASURES, TIERS

    if text in TIERS:
        return text
    return all_known("countermeasure", names(text), COUNTERMEASURES)


def pipelines(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names of pipelines."""
    from monai_salm.evaluation.pipelines import check_pipelines

    found = names(text)
    check_pipelines(found)
    return found


def augmentation(text: str) -> str:
    """The name of an augmentation."""
    from monai_salm.evaluation.protocol import AUGMENTATIONS

    return all_known("augmentation", (text,), AUGMENTATIONS)[0]


def integers(text: str) -> tuple[int, ...]:
    """``"0,1,2"`` as whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"must be whole numbers with commas between them, got {text!r}") from None


def numbers(text: str) -> tuple[float, ...]:
    """``"0.2,0.4,1"`` as numbers."""
    return tuple(number(part) for part in text.split(","))


def named_path(text: str) -> tuple[str, Path]:
    """``"NAME=PATH"`` as both."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"must be NAME=PATH, got {text!r}")
    return name, Path(path)


def controls(text: str) -> tuple[str, ...]:
    """``"a,b"`` as names of controls, ``"none"`` as none."""
    from monai_salm.evaluation.training_sets import CONTROLS

    return () if text == "none" else all_known("control", names(text), CONTROLS)


def recipe(text: str) -> str:
    """The name of a recipe."""
    return all_known("recipe", (text,), ("default", "medmnist"))[0]


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
    parts = [number(part) for part in text.split(",")]
    if len(parts) != 2 or not parts[0] < parts[1]:
        raise ValueError(f"must be LOW,HIGH with LOW < HIGH, got {text!r}")
    return parts[0], parts[1]


def all_known(what: str, found: tuple[str, ...], known: Collection[str]) -> tuple[str, ...]:
    """The names, if each is known."""
    for name in found:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return found
