"""The budget as users give it: a fraction of the window's width, and what that is in stored units."""

from __future__ import annotations

from numbers import Real


def require_epsilon(epsilon: object) -> None:
    """Refuse what is no budget, and say what was probably meant.

    Args:
        epsilon: budget as a fraction of the window's width.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is not in (0, 1].
    """
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
