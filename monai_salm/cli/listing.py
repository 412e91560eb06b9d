"""What is shown on the terminal in words, which --json has whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore

# So many problems of one kind are shown.
_SHOWN = 3
# So many classes are shown.
_CLASSES = 12


def listed(what: str, cases: Mapping[str, str]) -> list[str]:
    """Cases with the reason for what happened to them, a line each, under a line that counts them; nothing for no cases."""
    return [f"{len(cases)} {what}:", *(f"  {name}: {reason}" for name, reason in cases.items())] if cases else []


def briefly(problems: Iterable[str]) -> list[str]:
    """Problems, a line each, the first few of each kind (those that differ in names and numbers), and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(_kind(problem), []).append(problem)
    lines = []
    for found in kinds.values():
        lines += [f"  {problem}" for problem in found[:_SHOWN]]
        if found[_SHOWN:]:
            lines.append(f"  ... and {len(found) - _SHOWN} more of this kind (--json has all)")
    return lines


def not_copied(files: Mapping[str, str], what: str) -> list[str]:
    """Files that a copy does not have, the first few for each reason, under a line that says how they could be copied."""
    reasons: dict[str, list[str]] = {}
    for file, reason in files.items():
        reasons.setdefault(reason, []).append(file)
    lines = [f"{len(files)} {what} (--copy PATTERN copies such a file):"] if files else []
    for reason, names in reasons.items():
        more = f" and {len(names) - _SHOWN} more (--json has all)" if names[_SHOWN:] else ""
        lines.append(f"  {', '.join(names[:_SHOWN])}{more}: {reason}")
    return lines


def class_lines(classes: Mapping[str, Mapping[str, int]], task: Mapping[str, Any]) -> list[str]:
    """A line for each split: how many images have each class; of many classes the first few, and how many there are."""
    lines = []
    for split, counts in classes.items():
        # Every label map has a background.
        shown = list(counts.items())[1 if task.get("kind") == "segmentation" else 0 :]
        several = task.get("kind") == "segmentation" or task.get("multi_label")
        rest = f", and {len(shown) - _CLASSES} more of {len(shown)} classes" if shown[_CLASSES:] else ""
        texts = ", ".join(f"{name} {count}" for name, count in shown[:_CLASSES])
        lines.append(f"Images {'with' if several else 'of'} each class in {split}: {texts}{rest}")
    return lines


def _kind(problem: str) -> str:
    """What is wrong, without the case and the file, names of files and numbers."""
    said = re.sub(r"^case (['\"]).*?\1: ", "case ", problem)
    said = re.sub(r"^(case )?[^:]*[./][^:]*: ", r"\1", said)
    return re.sub(r"\S*[\d./]\S*", "#", said)


def window_text(spec: dict[str, Any]) -> str:
    """A window rule as a reader takes it in."""
    kind = spec["kind"]
    if kind == "channels":
        return "; ".join(map(window_text, spec["rules"]))
    if kind == "automatic":
        return "of each image by its kind"
    ends = (spec[name] if isinstance(spec[name], list) else [spec[name]] for name in ("low", "high"))  # of each channel
    text = " to ".join("/".join(f"{end:g}" for end in channels) for channels in ends)
    return {"percentile": f"percentiles {text} of each image", "stored": f"{text} in stored units"}.get(kind, text)


def kept_lines(store: NoiseStore) -> list[str]:
    """The files that the owner must keep."""
    return [
        f"Noise store: {store.path} (keep it private: it undoes the protection)",
        f"Owner's key: {store.key} (keep it with the store, a copy of it too: it proves that the store is yours)",
    ]
