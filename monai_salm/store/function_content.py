"""What functions and their like are made of, for a digest: their code, and what it reads from outside.

Functions and modules of Python and of installed packages are known by their names; only the user's own are seen into.
"""

from __future__ import annotations

import dis
import functools
import operator
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

_CODE = (
    *("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_exceptiontable"),
)
# Attributes that say all of what a value of the type is.
_WHOLE: dict[type, tuple[str, ...]] = {
    types.CodeType: _CODE,
    types.BuiltinFunctionType: ("__name__", "__self__"),
    types.MethodType: ("__self__", "__func__"),
    types.MethodWrapperType: ("__name__", "__self__"),
    types.MethodDescriptorType: ("__name__", "__objclass__"),
    types.ClassMethodDescriptorType: ("__name__", "__objclass__"),
    types.WrapperDescriptorType: ("__name__", "__objclass__"),
    types.GetSetDescriptorType: ("__name__", "__objclass__"),
    types.MemberDescriptorType: ("__name__", "__objclass__"),
    functools.partial: ("func", "args", "keywords", "__dict__"),
    type(functools.lru_cache(len)): ("__dict__",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
}
_MAIN = ("__main__", "__mp_main__")  # the second where processes are spawned
_MISSING = object()
_STANDARD = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))


def full_name(value: Any) -> str:
    """``package.module.Class``; modules and the like have a plain name."""
    module = getattr(value, "__module__", "")
    return f"{_MAIN[0] if module in _MAIN else module}.{getattr(value, '__qualname__', None) or value.__name__}"


def is_found_by_name(value: object, name: str, module: str) -> bool:
    """Whether a module holds this very value under a name, dots and all."""
    try:
        return operator.attrgetter(name)(sys.modules[module]) is value
    except (AttributeError, KeyError):
        return False


def parts_of_function(value: Any) -> dict[str, object] | None:
    """What a function or the like is made of, as attributes.

    Returns:
        None for anything else, also for objects of classes derived from theirs.
    """
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, types.CellType):
        try:
            return {"cell_contents": value.cell_contents}
        except ValueError:  # of a name that was not set yet, or was deleted
            return {"empty": True}
    names = _WHOLE.get(type(value), ())
    return {name: getattr(value, name) for name in names if hasattr(value, name)} or None


def _of_function(function: types.FunctionType) -> dict[str, object]:
    whole: dict[str, object] = {"__name__": full_name(function)}
    if _is_installed(function.__code__.co_filename):
        if is_found_by_name(function, function.__qualname__, function.__module__):
            return whole
    else:
        whole["__globals__"] = _read(function)
    names = ("__code__", "__defaults__", "__kwdefaults__", "__closure__", "__dict__")
    return whole | {name: getattr(function, name) for name in names}


def _read(function: types.FunctionType) -> dict[str, object]:
    """What the code of a function reads from outside, by the names it has there, such as ``settings.FACTOR``."""
    cells: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:
            continue
    found: dict[str, object] = {}
    for is_global, names in _loaded(function.__code__):
        known: Mapping[str, object] = function.__globals__ if is_global else cells
        value = known.get(names[0], _MISSING)
        length = 1
        while length < len(names) and _is_own(value):
            value = getattr(value, names[length], _MISSING)
            length += 1
        if value is not _MISSING:
            found[".".join(names[:length])] = value
    return dict(sorted(found.items()))


def _loaded(code: types.CodeType) -> Iterator[tuple[bool, list[str]]]:
    """Names that the code reads, functions within it too: whether they are global, and the attributes taken of them."""
    names: list[str] = []
    is_global = False
    for step in [*dis.get_instructions(code), None]:
        kind = step.opname if step else ""
        if step and names and kind in ("LOAD_ATTR", "LOAD_METHOD"):
            names.append(step.argval)
        elif kind != "EXTENDED_ARG":
            if names:
                yield is_global, names
            names = []
            if step and kind.startswith("LOAD") and kind.endswith(("GLOBAL", "GLOBALS", "NAME", "DEREF")):
                is_global, names = not kind.endswith("DEREF"), [step.argval]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _loaded(constant)


def _is_own(value: object) -> bool:
    """Whether this is a module or a class of the user's, neither of Python nor of an installed package."""
    if isinstance(value, type):
        value = sys.modules.get(value.__module__)
    if not isinstance(value, types.ModuleType):
        return False
    if value.__name__ in _MAIN or getattr(value, "__spec__", None) is None:
        return True
    file = getattr(value, "__file__", None)
    places = [file] if file else list(getattr(value, "__path__", ()))
    return any(not _is_installed(place) for place in places)


def _is_installed(file: str) -> bool:
    parts = file.replace("\\", "/").split("/")
    return file.startswith(("<frozen", *_STANDARD)) or "site-packages" in parts or "dist-packages" in parts
