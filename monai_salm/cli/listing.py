"""Lists of cases and problems on the terminal, which --json has whole."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Of problems of one kind, as many as show the kind.
_SHOWN = 3


def listed(what: str, cases: list[dict[str, str]]) -> list[str]:
    """Cases with what happened to them, a line each, under a line that counts them; nothing for no cases.

    Args:
        what: happened to them.
        cases: each with its ``name`` and the ``reason``.
    """
    if not cases:
        return []
    return [f"{len(cases)} {what}:", *(f"  {case['name']}: {case['reason']}" for case in cases)]


def briefly(problems: Iterable[str]) -> list[str]:
    """Problems, a line each, the first few of each kind and how many more there are.

    Args:
        problems: such as ``"case 'a.png': a.png: missing from the copy"``; those that differ in names and numbers are of a kind.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(_kind(problem), []).append(problem)
    lines = []
    for found in kinds.values():
        lines += [f"  {problem}" for problem in found[:_SHOWN]]
        if found[_SHOWN:]:
            lines.append(f"  ... and {len(found) - _SHOWN} more of this kind (--json has all)")
    return lines


def _kind(problem: str) -> str:
    """What is wrong, without the case and the file, names of files and numbers."""
    said = re.sub(r"^case (['\"]).*?\1: ", "case ", problem)
    said = re.sub(r"^(case )?[^:]*[./][^:]*: ", r"\1", said)
    return re.sub(r"\S*[\d./]\S*", "#", said)
