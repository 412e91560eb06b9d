"""Checks of settings: what is wrong, and what a value must be."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from numbers import Real
from typing import Any


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting with a ValueError: rule, then value."""
    if not holds or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} must be {rule}, got {value}")


def require_type(value: object, kind: type | tuple[type, ...], name: str, rule: str) -> None:
    """Refuse a setting of another type with a TypeError: rule, then value."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {rule}, got {value!r}")


def require_numbers(settings: Any) -> None:
    """Refuse settings, a dataclass, with something else where the default is a number (TypeError), or None where it may be."""
    for field in fields(settings):
        value, default = getattr(settings, field.name), field.default
        is_number = default is not MISSING and isinstance(default, Real) and not isinstance(default, bool)
        if is_number and not (value is None and "None" in str(field.type)):
            require_type(value, Real, field.name, f"a number, such as {default:g}")


def require_texts(**settings: object) -> None:
    """Refuse one text where a sequence of texts belongs (TypeError), which would be taken letter by letter."""
    for name, value in settings.items():
        if isinstance(value, str | bytes):
            raise TypeError(f"{name} must be a sequence of texts, such as ({value!r},), got {value!r}")


def require_epsilon(epsilon: object) -> None:
    """Refuse what is no number (TypeError) or not in (0, 1] (ValueError), and say what was probably meant."""
    if not isinstance(epsilon, Real):
        raise TypeError(f"epsilon must be a number, such as 8 / 255, got {epsilon!r}")
    value = float(epsilon)
    if 0 < value <= 1:
        return
    hint = ""
    if value > 1:
        hint = (
            f". It is a fraction of the window's width: {value:g} grey levels of an 8-bit image are {value:g} / 255, "
            f"{value:g} HU of a window 400 HU wide {value:g} / 400"
        )
    raise ValueError(f"epsilon must be in (0, 1], got {epsilon}{hint}")
